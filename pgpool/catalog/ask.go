package catalog

import (
	"context"
	"strings"
	"time"

	"pgpool-go/parser"
)

// The questions. Every name is schema-qualified, so that nobody's search_path
// can change their meaning; names asked for are bound as text arrays.
const (
	namesSQL = `SELECT 'r', n.nspname, c.relname, c.relkind::pg_catalog.text, c.relpersistence::pg_catalog.text, c.relhassubclass::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]) AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog."char"[])
 AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
UNION ALL
SELECT 'f', n.nspname, p.proname, pg_catalog.bool_or(p.provolatile OPERATOR(pg_catalog.=) 'v')::pg_catalog.text, '', ''
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE p.proname OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[])
GROUP BY n.nspname, p.proname`

	// To tell a view's definition the server locks its tables, and so queues behind
	// whoever waits to alter one: perhaps until the very transaction is over for which
	// we ask. Then it is better not to know.
	impatient = `pg_catalog.set_config('lock_timeout', '100ms', true) IS NOT NULL`

	operatorsSQL = `
UNION ALL
SELECT 'o', n.nspname, o.oprname, '', '', ''
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.oprcode
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
WHERE p.provolatile OPERATOR(pg_catalog.=) 'v' AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'`

	// What stands behind relations: through views by their rules' dependencies,
	// through parents to their children (of those only what a standby cannot
	// read). $1 schemas and $2 names, element by element. Column 1 and 2 are the
	// relation asked for; a view comes with its definition.
	behindSQL = `WITH RECURSIVE asked(top, oid) AS (
 SELECT c.oid, c.oid FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS a(nsp, rel)
 JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) a.nsp
 JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) a.rel
), behind(top, oid, child) AS (
 SELECT top, oid, false FROM asked
 UNION
 SELECT b.top, e.oid, e.child FROM behind b CROSS JOIN LATERAL (
  SELECT d.refobjid, false FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) r.oid
   AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN pg_catalog.pg_class v ON v.oid OPERATOR(pg_catalog.=) r.ev_class AND v.relkind OPERATOR(pg_catalog.=) 'v'
  WHERE r.ev_class OPERATOR(pg_catalog.=) b.oid AND r.ev_type OPERATOR(pg_catalog.=) '1' AND d.refobjid OPERATOR(pg_catalog.<>) b.oid
  UNION ALL
  SELECT i.inhrelid, true FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) b.oid
 ) AS e(oid, child)
)
SELECT tn.nspname, t.relname, n.nspname, c.relname, c.relkind::pg_catalog.text, c.relpersistence::pg_catalog.text,
 CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v' AND ` + impatient + ` THEN pg_catalog.pg_get_viewdef(c.oid) END
FROM behind b JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) b.top JOIN pg_catalog.pg_namespace tn ON tn.oid OPERATOR(pg_catalog.=) t.relnamespace
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) b.oid JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE NOT b.child OR c.relpersistence OPERATOR(pg_catalog.=) 'u' OR c.relkind OPERATOR(pg_catalog.=) 'f'`

	ownTempSQL = `SELECT relname FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()
 AND relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog."char"[])`
)

// A want is what has to be asked.
type want struct {
	relations []string
	functions []string
	operators bool
}

// news is what a server has answered.
type news struct {
	want      *want
	relations map[string][]*relation
	functions map[string][]function
	operators map[parser.Name]bool
}

// ask puts the questions: one, and a second if views or parents are among the relations.
func (c *Catalog) ask(ctx context.Context, a Asker, w *want) (*news, error) {
	sql := namesSQL
	if w.operators {
		sql += operatorsSQL
	}
	rows, err := a.Ask(ctx, sql, array(w.relations), array(w.functions))
	if err != nil {
		return nil, err
	}
	n := &news{want: w, relations: map[string][]*relation{}, functions: map[string][]function{}, operators: map[parser.Name]bool{}}
	var schemas, names []string
	for _, r := range rows {
		if len(r) < 6 {
			continue
		}
		switch r[0] {
		case "r":
			rel := &relation{schema: r[1], kind: letter(r[3]), unlogged: r[4] == "u"}
			n.relations[r[2]] = append(n.relations[r[2]], rel)
			if !system(r[1]) && (rel.kind == 'v' || rel.kind == 'p' || r[5] == "true") {
				schemas, names = append(schemas, r[1]), append(names, r[2])
			}
		case "f":
			n.functions[r[2]] = append(n.functions[r[2]], function{schema: r[1], volatile: r[3] == "true"})
		case "o":
			n.operators[parser.Name{Schema: r[1], Name: r[2]}] = true
		}
	}
	if len(names) == 0 {
		return n, nil
	}
	rows, err = a.Ask(ctx, behindSQL, array(schemas), array(names))
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if len(r) < 7 {
			continue
		}
		for _, rel := range n.relations[r[1]] {
			if rel.schema == r[0] {
				c.behind(rel, parser.Name{Schema: r[2], Name: r[3]}, r)
			}
		}
	}
	return n, nil
}

// behind adds one relation that stands behind another.
func (c *Catalog) behind(rel *relation, base parser.Name, r []string) {
	if r[5] == "u" && rel.behindUnlogged.Name == "" && !(rel.schema == base.Schema && r[1] == base.Name) {
		rel.behindUnlogged = base
	}
	if letter(r[4]) == 'f' && rel.behindForeign.Name == "" {
		rel.behindForeign = base
	}
	if !(rel.schema == base.Schema && r[1] == base.Name) {
		rel.base = append(rel.base, base)
	}
	if r[6] != "" && !system(base.Schema) {
		v := c.o.Classify([]byte(r[6]))
		for _, f := range v.Functions {
			rel.functions = addName(rel.functions, f)
		}
		for _, o := range v.Operators {
			rel.operators = addName(rel.operators, o)
		}
	}
}

func addName(list []parser.Name, n parser.Name) []parser.Name {
	for _, x := range list {
		if x == n {
			return list
		}
	}
	return append(list, n)
}

// system tells the schemas that come with every server.
func system(schema string) bool { return schema == "pg_catalog" || schema == "information_schema" }

func letter(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}

// array writes a text array as a parameter value.
func array(list []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, s := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		for j := range len(s) {
			if s[j] == '"' || s[j] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(s[j])
		}
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// learn takes in an answer, unless the schema has changed since the question. A
// full memory is emptied, if trim says that nobody counts on it.
func (d *database) learn(gen uint64, n *news, now time.Time, o Options, trim bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gen.Load() != gen {
		return
	}
	if trim && len(d.relations)+len(d.functions)+len(n.want.relations)+len(n.want.functions) > o.Size {
		clear(d.relations)
		clear(d.functions)
	}
	expires := func(absent bool) time.Time {
		switch {
		case absent && (o.Expire <= 0 || o.Absent < o.Expire):
			return now.Add(o.Absent)
		case o.Expire > 0:
			return now.Add(o.Expire)
		}
		return time.Time{}
	}
	for _, name := range n.want.relations {
		list := n.relations[name]
		d.relations[name] = &relEntry{list: list, expires: expires(len(list) == 0)}
	}
	for _, name := range n.want.functions {
		list := n.functions[name]
		d.functions[name] = &funcEntry{list: list, expires: expires(len(list) == 0)}
	}
	if n.want.operators {
		d.operators, d.asked = n.operators, now
	}
}
