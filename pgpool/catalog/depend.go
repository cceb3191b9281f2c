package catalog

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
)

// Dependence is what the query cache has to know of a statement: on which tables
// its result depends, and which it may change. It is immutable but for Marks.
type Dependence struct {
	// Reads are the tables ("schema.name") whose change may change the result: those
	// named, those behind views, partitions and children, and the views themselves.
	Reads []string
	// Writes are the tables that the statement may change, those that foreign keys
	// change with them included; Any: it may change any.
	Writes []string
	Any    bool
	// Refusal is why the result is not to be kept; empty: it may be. Forced is the same
	// for a client that says /*FORCE QUERY CACHE*/.
	Refusal, Forced string
	// Named are the relations that the text names, as it does and in full, for the operator's lists; of those
	// in Views and Unlogged the result is kept only if a list says so.
	Named, Views, Unlogged []parser.Name

	// Marks is where the query cache keeps its own.
	Marks atomic.Value
}

// A family is a relation of some schema with what belongs to it.
type family struct {
	schema  string
	members []member
	// Called by views among the members.
	functions, operators []parser.Name
	fickle               bool // as parser.Verdict.Fickle, of a view among the members
}

// A member is the relation itself, or one that it is read from or that is changed
// with it.
type member struct {
	schema, name string
	kind         byte
	unlogged     bool
	secured      bool // row security is on
	cascade      bool // not read with it, but changed with it: by a foreign key
	loose        bool // a change of it runs code: triggers, rules, volatile defaults
}

func (m *member) table() string { return m.schema + "." + m.name }

// routine is what is known of all functions of one name.
type routine struct {
	builtin, custom byte // how volatile those of pg_catalog and all others are at most: i, s or v; 0, there are none
}

// kin is what the query cache has had asked of a database. It is guarded by
// database.mu and forgotten with everything else.
type kin struct {
	families map[string]entry[[]*family]
	routines map[string]entry[routine]
	hazards  *hazards
}

type entry[T any] struct {
	is      T
	expires time.Time
}

// hazards are what somebody has added to the language that is not immutable.
type hazards struct {
	operators map[string]bool // names, outside pg_catalog
	casts     bool
}

const (
	familySQL = `WITH RECURSIVE reach(top, oid, cascade) AS (
 SELECT c.oid, c.oid, false FROM pg_catalog.pg_class c
 WHERE c.relname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]) AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog."char"[])
  AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
 UNION
 SELECT b.top, e.oid, b.cascade OR e.cascade FROM reach b CROSS JOIN LATERAL (
  SELECT d.refobjid, false FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) r.oid
   AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN pg_catalog.pg_class v ON v.oid OPERATOR(pg_catalog.=) r.ev_class AND v.relkind OPERATOR(pg_catalog.=) 'v'
  WHERE r.ev_class OPERATOR(pg_catalog.=) b.oid AND d.refobjid OPERATOR(pg_catalog.<>) b.oid
  UNION ALL
  SELECT i.inhrelid, false FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) b.oid
  UNION ALL
  SELECT k.conrelid, true FROM pg_catalog.pg_constraint k WHERE k.contype OPERATOR(pg_catalog.=) 'f' AND k.confrelid OPERATOR(pg_catalog.=) b.oid
   AND (k.confdeltype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[]) OR k.confupdtype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[]))
 ) AS e(oid, cascade)
)
SELECT 'r', tn.nspname, t.relname, n.nspname, c.relname, c.relkind::pg_catalog.text, c.relpersistence::pg_catalog.text,
 c.relrowsecurity::pg_catalog.text, b.cascade::pg_catalog.text,
 (EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT g.tgisinternal)
  OR EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid AND w.ev_type OPERATOR(pg_catalog.<>) '1')
  OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) d.refobjid
   WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.provolatile OPERATOR(pg_catalog.=) 'v'
   AND (d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
     AND d.objid OPERATOR(pg_catalog.=) ANY (SELECT a.oid FROM pg_catalog.pg_attrdef a WHERE a.adrelid OPERATOR(pg_catalog.=) c.oid)
    OR d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
     AND d.objid OPERATOR(pg_catalog.=) ANY (SELECT k.oid FROM pg_catalog.pg_constraint k WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid))))::pg_catalog.text,
 CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v' AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}'::pg_catalog.name[]) AND ` + impatient + `
 THEN pg_catalog.pg_get_viewdef(c.oid) END
FROM reach b JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) b.top JOIN pg_catalog.pg_namespace tn ON tn.oid OPERATOR(pg_catalog.=) t.relnamespace
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) b.oid JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
UNION ALL
SELECT 'f', '', p.proname, coalesce(pg_catalog.max(p.provolatile::pg_catalog.text) FILTER (WHERE n.nspname OPERATOR(pg_catalog.=) 'pg_catalog'), ''),
 coalesce(pg_catalog.max(p.provolatile::pg_catalog.text) FILTER (WHERE n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'), ''), '', '', '', '', '', ''
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE p.proname OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[])
GROUP BY p.proname`

	hazardsSQL = `
UNION ALL
SELECT 'o', '', o.oprname, '', '', '', '', '', '', '', ''
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.oprcode
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
WHERE p.provolatile OPERATOR(pg_catalog.<>) 'i' AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'
UNION ALL
SELECT 'c', '', '', '', '', '', '', '', '', '', ''
FROM pg_catalog.pg_cast k JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) k.castfunc
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE p.provolatile OPERATOR(pg_catalog.<>) 'i' AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'`
)

// Depend gives a statement's dependence, and asks a server for what is not known,
// unless a is nil: then it gives nil. It may take as long as the server takes.
func (c *Catalog) Depend(ctx context.Context, a Asker, db string, path *Path, v *parser.Verdict) (*Dependence, error) {
	d := c.database(db)
	for range 8 {
		gen := d.gen.Load()
		m, _ := v.Dependence.Load().(*depMemo)
		for ; m != nil; m = m.next {
			if m.db == d && m.gen == gen && m.path == path.id() && (m.expires.IsZero() || c.o.Now().Before(m.expires)) {
				return m.is, nil
			}
		}
		now := c.o.Now()
		d.mu.RLock()
		w := weigh{d: d, path: path, v: v, now: now, is: &Dependence{}}
		w.run()
		d.mu.RUnlock()
		if len(w.relations) == 0 && len(w.functions) == 0 && !w.hazards {
			d.rememberDependence(v, &depMemo{db: d, gen: gen, path: path.id(), expires: w.expires, is: w.is})
			return w.is, nil
		}
		if a == nil {
			return nil, nil
		}
		sql := familySQL
		if w.hazards {
			sql += hazardsSQL
		}
		rows, err := a.Ask(ctx, sql, array(w.relations), array(w.functions))
		if err != nil {
			return nil, fmt.Errorf("catalog look-up for the query cache: %w", err)
		}
		c.learnKin(d, gen, &w, rows, now)
	}
	return nil, fmt.Errorf("catalog look-up for the query cache: the schema of database %q keeps changing", db)
}

// depMemo is what memo is for facts.
type depMemo struct {
	db      *database
	gen     uint64
	path    string
	expires time.Time
	is      *Dependence
	next    *depMemo
}

func (d *database) rememberDependence(v *parser.Verdict, first *depMemo) {
	old, _ := v.Dependence.Load().(*depMemo)
	tail := first
	for n := 1; old != nil && n < memos; old = old.next {
		if old.db == d && (old.path == first.path || old.gen != first.gen) {
			continue
		}
		c := *old
		c.next = nil
		tail.next, tail = &c, &c
		n++
	}
	v.Dependence.Store(first)
}

// learnKin takes in an answer, unless the schema has changed since the question.
func (c *Catalog) learnKin(d *database, gen uint64, w *weigh, rows [][]string, now time.Time) {
	families := make(map[string][]*family)
	routines := make(map[string]routine)
	h := &hazards{operators: make(map[string]bool)}
	for _, r := range rows {
		if len(r) < 11 {
			continue
		}
		switch r[0] {
		case "r":
			var f *family
			if i := slices.IndexFunc(families[r[2]], func(f *family) bool { return f.schema == r[1] }); i >= 0 {
				f = families[r[2]][i]
			} else {
				f = &family{schema: r[1]}
				families[r[2]] = append(families[r[2]], f)
			}
			f.members = append(f.members, member{schema: r[3], name: r[4], kind: letter(r[5]), unlogged: r[6] == "u",
				secured: r[7] == "true", cascade: r[8] == "true", loose: r[9] == "true"})
			if r[10] != "" {
				v := c.o.Classify([]byte(r[10]))
				f.fickle = f.fickle || v.Fickle || v.Class != parser.Select || parser.Moody([]byte(r[10]))
				for _, n := range v.Functions {
					f.functions = addName(f.functions, n)
				}
				for _, n := range v.Operators {
					f.operators = addName(f.operators, n)
				}
			}
		case "f":
			routines[r[2]] = routine{builtin: letter(r[3]), custom: letter(r[4])}
		case "o":
			h.operators[r[2]] = true
		case "c":
			h.casts = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gen.Load() != gen {
		return
	}
	k := &d.kin
	if k.families == nil || len(k.families)+len(k.routines) > c.o.Size {
		k.families, k.routines = make(map[string]entry[[]*family]), make(map[string]entry[routine])
	}
	expires := func(absent bool) time.Time {
		switch {
		case absent && (c.o.Expire <= 0 || c.o.Absent < c.o.Expire):
			return now.Add(c.o.Absent)
		case c.o.Expire > 0:
			return now.Add(c.o.Expire)
		}
		return time.Time{}
	}
	for _, name := range w.relations {
		k.families[name] = entry[[]*family]{families[name], expires(len(families[name]) == 0)}
	}
	for _, name := range w.functions {
		k.routines[name] = entry[routine]{routines[name], expires(routines[name] == routine{})}
	}
	if w.hazards {
		k.hazards = h
	}
}

// weigh works out a dependence from what is known, and what is missing.
type weigh struct {
	d       *database
	path    *Path
	v       *parser.Verdict
	now     time.Time
	is      *Dependence
	expires time.Time

	relations, functions []string
	hazards              bool
}

func (w *weigh) until(t time.Time) {
	if !t.IsZero() && (w.expires.IsZero() || t.Before(w.expires)) {
		w.expires = t
	}
}

func (w *weigh) fresh(t time.Time) bool { return t.IsZero() || w.now.Before(t) }

// refuse notes why a result is not to be kept, whether or not the client forces it.
func (w *weigh) refuse(why string) {
	if w.is.Forced == "" {
		w.is.Forced = why
	}
	w.hesitate(why)
}

// hesitate notes a reason that a client can overrule.
func (w *weigh) hesitate(why string) {
	if w.is.Refusal == "" {
		w.is.Refusal = why
	}
}

func (w *weigh) run() {
	v, is := w.v, w.is
	if !v.Reads || v.Class != parser.Select {
		w.refuse("it is not a SELECT that only reads")
	}
	if v.Fickle {
		w.hesitate("its result may be another at any time")
	}
	functions, operators := v.Functions, v.Operators
	for _, n := range v.Relations {
		if n.Schema == "pg_temp" {
			w.refuse("it reads a temporary table")
			continue
		}
		e, known := w.d.kin.families[n.Name]
		if !known || !w.fresh(e.expires) {
			w.relations = append(w.relations, n.Name)
			continue
		}
		w.until(e.expires)
		found := pick(w.path, e.is, n.Schema, func(f *family) string { return f.schema })
		if len(found) == 0 {
			w.refuse("it names a relation that does not exist")
			is.Any = is.Any || slices.Contains(v.Written, n) // nor is it known what hangs on it
		}
		is.Named = addName(is.Named, n)
		for _, f := range found {
			w.family(n, f)
			for _, x := range f.functions {
				functions = addClone(functions, x)
			}
			for _, x := range f.operators {
				operators = addClone(operators, x)
			}
		}
	}
	for _, n := range functions {
		w.function(n)
	}
	h := w.d.kin.hazards
	if h == nil {
		w.hazards = true
		return
	}
	if h.casts {
		w.refuse("the database has casts that are not immutable")
	}
	for _, n := range operators {
		if h.operators[n.Name] {
			w.refuse("it uses operator " + n.Name + ", which may be one that is not immutable")
		}
	}
	slices.Sort(is.Reads)
	is.Reads = slices.Compact(is.Reads)
	slices.Sort(is.Writes)
	is.Writes = slices.Compact(is.Writes)
}

// family adds what hangs on a relation that the text names as n.
func (w *weigh) family(n parser.Name, f *family) {
	is, written := w.is, slices.Contains(w.v.Written, n)
	full := parser.Name{Schema: f.schema, Name: n.Name}
	is.Named = addName(is.Named, full)
	if f.fickle {
		w.hesitate("it reads a view whose result may be another at any time")
	}
	for i := range f.members {
		m := &f.members[i]
		if written {
			is.Writes = append(is.Writes, m.table())
			is.Any = is.Any || m.loose || m.kind == 'f'
		}
		if m.cascade {
			continue
		}
		is.Reads = append(is.Reads, m.table())
		itself := m.schema == full.Schema && m.name == full.Name
		switch {
		case m.secured:
			w.refuse("row security is on for " + m.table())
		case m.kind == 'f':
			w.refuse(m.table() + " is a foreign table")
		case m.kind == 'S':
			w.refuse(m.table() + " is a sequence")
		case system(m.schema):
			w.refuse("it reads the system catalog")
		case m.unlogged:
			is.Unlogged = addName(is.Unlogged, full)
		case m.kind == 'v' && itself:
			is.Views = addName(is.Views, full)
		}
	}
}

// function looks at one function that the statement or a view of it calls.
func (w *weigh) function(n parser.Name) {
	e, known := w.d.kin.routines[n.Name]
	if !known || !w.fresh(e.expires) {
		if !slices.Contains(w.functions, n.Name) {
			w.functions = append(w.functions, n.Name)
		}
		return
	}
	w.until(e.expires)
	r := e.is
	if n.Schema == "pg_catalog" {
		r.custom = 0
	}
	switch {
	case r.custom == 'v' || r.builtin == 'v' && runsSQL[n.Name]:
		w.is.Any = true
		w.refuse("function " + n.String() + " may write")
	case r == routine{}:
		w.refuse("function " + n.String() + " does not exist")
	case r.builtin == 'v' || route.OnPrimaryOnly(n):
		w.refuse("function " + n.String() + " is volatile")
	case r.custom != 0:
		w.hesitate("function " + n.String() + " is not one of PostgreSQL's own")
	case r.builtin == 's' && !steady[n.Name]:
		w.hesitate("function " + n.String() + " may give another result at any time")
	}
	if runsSQL[n.Name] {
		w.refuse("function " + n.String() + " runs SQL of its own")
	}
}

// runsSQL are functions of PostgreSQL's own that run what their arguments say, or
// read tables that are not in the text.
var runsSQL = set("query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "cursor_to_xml", "cursor_to_xmlschema",
	"table_to_xml", "table_to_xmlschema", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xmlschema", "schema_to_xml_and_xmlschema",
	"database_to_xml", "database_to_xmlschema", "database_to_xml_and_xmlschema", "ts_stat", "ts_rewrite", "xpath_table")

// steady are stable functions of PostgreSQL's own whose result depends on their
// arguments and on settings alone.
var steady = set("concat", "concat_ws", "format", "array_to_json", "row_to_json", "to_json", "to_jsonb", "json_agg", "jsonb_agg",
	"json_object_agg", "jsonb_object_agg", "json_build_object", "jsonb_build_object", "json_build_array", "jsonb_build_array",
	"array_to_string", "string_to_array", "to_char", "to_date", "to_timestamp", "to_number", "date_trunc", "date_part", "extract", "timezone",
	"date_bin", "make_timestamptz", "overlaps", "generate_series", "to_tsvector", "to_tsquery", "plainto_tsquery", "phraseto_tsquery",
	"websearch_to_tsquery", "ts_headline", "quote_literal", "quote_nullable", "quote_ident", "string_agg", "array_agg", "length", "substring",
	"jsonb_path_query_tz", "jsonb_path_exists_tz", "jsonb_path_match_tz", "jsonb_path_query_first_tz", "jsonb_path_query_array_tz",
	"json_agg_strict", "jsonb_agg_strict", "json_object_agg_strict", "json_object_agg_unique", "jsonb_object_agg_strict", "jsonb_object_agg_unique")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}
