package parser

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// Where every node runs every write, a write may choose its rows by what only one
// node can tell: which of them others have locked (SKIP LOCKED, as in a queue of
// jobs), or which come first of those that are in no order; or
// it may take values of chance from a subselect. Such a choice is asked of
// one node, and what it is takes its place in what all are sent.

// A Pick is a subselect that chooses rows in such a way and stands for itself, as far
// as its text tells.
type Pick struct {
	SQL    string
	Params []int // the parameters that it has, in order
	node   *pg.Node
}

// A Picked is what takes a pick's place: a table.
type Picked struct {
	Names, Types []string // of its columns
	// Values are the columns, each the text of an array of text. nil: they are
	// parameters, from First on.
	Values []string
	First  int
}

// Picking is a statement with picks.
type Picking struct {
	Picks  []Pick
	Params int // the highest parameter
	tree   *pg.ParseResult
}

// picksMay tells whether a text may have picks.
func picksMay(sql []byte) bool {
	low := bytes.ToLower(sql)
	return slices.ContainsFunc([]string{"limit", "locked", "tablesample", "fetch", "random", "uuid"}, func(word string) bool { return bytes.Contains(low, []byte(word)) })
}

// Picks finds the picks of one statement that writes; nil if there are none that can
// be put in the place of.
func Picks(sql []byte) (p *Picking) {
	defer func() {
		if recover() != nil {
			p = nil
		}
	}()
	if len(sql) > maxParse || !utf8.Valid(sql) || !picksMay(sql) {
		return nil
	}
	if src, _ := readable(sql, Plain, &foreignNames{}); src == nil {
		return nil
	}
	tree, err := pg.Parse(string(sql))
	if err != nil || len(tree.Stmts) != 1 {
		return nil
	}
	top := tree.Stmts[0].Stmt
	switch top.Node.(type) {
	case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt, *pg.Node_SelectStmt:
	default:
		return nil
	}
	p = &Picking{tree: tree}
	ctes := make(map[string]bool)
	writes := top.GetSelectStmt() == nil
	each(top, func(n *pg.Node) bool {
		switch x := n.Node.(type) {
		case *pg.Node_CommonTableExpr:
			ctes[x.CommonTableExpr.Ctename] = true
		case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
			writes = true
		case *pg.Node_ParamRef:
			p.Params = max(p.Params, int(x.ParamRef.Number))
		}
		return true
	})
	if !writes {
		return nil
	}
	take := func(sub *pg.Node) bool {
		s := sub.GetSelectStmt()
		if s == nil || !chooses(sub) || !alone(s, ctes) {
			return false
		}
		text, err := pg.Deparse(&pg.ParseResult{Stmts: []*pg.RawStmt{{Stmt: sub}}})
		if err != nil {
			return false
		}
		again, err := pg.Parse(text)
		if err != nil || !alike(reflect.ValueOf(sub), reflect.ValueOf(again.Stmts[0].Stmt)) {
			return false
		}
		pick := Pick{SQL: text, node: sub}
		each(sub, func(n *pg.Node) bool {
			if r := n.GetParamRef(); r != nil && !slices.Contains(pick.Params, int(r.Number)) {
				pick.Params = append(pick.Params, int(r.Number))
			}
			return true
		})
		slices.Sort(pick.Params)
		p.Picks = append(p.Picks, pick)
		return true
	}
	each(top, func(n *pg.Node) bool {
		switch x := n.Node.(type) {
		case *pg.Node_SubLink:
			return !take(x.SubLink.Subselect)
		case *pg.Node_RangeSubselect:
			return x.RangeSubselect.Lateral || !take(x.RangeSubselect.Subquery)
		case *pg.Node_InsertStmt:
			return untyped(x.InsertStmt.SelectStmt.GetSelectStmt()) || !take(x.InsertStmt.SelectStmt)
		case *pg.Node_CommonTableExpr:
			return !take(x.CommonTableExpr.Ctequery)
		}
		return true
	})
	if len(p.Picks) == 0 {
		return nil
	}
	return p
}

// chooses tells whether a subselect chooses rows by what they do not say.
func chooses(n *pg.Node) bool {
	var w rewriter
	w.chosen(n)
	each(n, func(n *pg.Node) bool {
		if f := n.GetFuncCall(); f != nil && len(f.Funcname) > 0 && ofChance[f.Funcname[len(f.Funcname)-1].GetString_().GetSval()] {
			w.doubt("chance")
		}
		return true
	})
	return w.unequal != ""
}

// ofChance are functions that give another value each time.
var ofChance = map[string]bool{"random": true, "gen_random_uuid": true, "uuid_generate_v4": true}

// untyped tells whether a query has columns whose type is found in the table that they
// are for.
func untyped(s *pg.SelectStmt) bool {
	return slices.ContainsFunc(s.GetTargetList(), func(n *pg.Node) bool {
		v := n.GetResTarget().GetVal()
		return v.GetParamRef() != nil || v.GetAConst() != nil && v.GetAConst().GetIval() == nil && v.GetAConst().GetBoolval() == nil
	})
}

// alone tells whether a subselect reads tables only, and does nothing but read and
// lock.
func alone(s *pg.SelectStmt, ctes map[string]bool) bool {
	if s.WithClause != nil || s.IntoClause != nil || s.Op != pg.SetOperation_SETOP_NONE || len(s.FromClause) == 0 || len(s.TargetList) == 0 {
		return false
	}
	ok := true
	each(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: s}}, func(n *pg.Node) bool {
		switch x := n.Node.(type) {
		case *pg.Node_FuncCall:
			ok = ok && plainFunction(x.FuncCall)
		case *pg.Node_RangeVar:
			ok = ok && !(x.RangeVar.Schemaname == "" && ctes[x.RangeVar.Relname])
		case *pg.Node_CommonTableExpr, *pg.Node_RangeFunction:
			ok = false
		}
		return ok
	})
	return ok
}

// plainFunctions are functions that every server has and that do nothing.
var plainFunctions = map[string]bool{
	"now": true, "clock_timestamp": true, "statement_timestamp": true, "transaction_timestamp": true, "random": true, "gen_random_uuid": true, "uuid_generate_v4": true,
	"date_trunc": true, "date_part": true, "extract": true, "age": true, "make_interval": true, "to_timestamp": true, "timezone": true,
	"lower": true, "upper": true, "length": true, "abs": true, "mod": true, "ceil": true, "floor": true, "round": true, "md5": true, "substr": true, "substring": true,
	"count": true, "min": true, "max": true, "sum": true, "avg": true, "array_agg": true, "row_number": true, "rank": true,
	"power": true, "btrim": true, "trim": true, "left": true, "right": true, "concat": true, "like": true, "jsonb_extract_path_text": true, "hashtext": true,
}

func plainFunction(f *pg.FuncCall) bool {
	names := make([]string, len(f.Funcname))
	for i, n := range f.Funcname {
		names[i] = n.GetString_().GetSval()
	}
	if len(names) == 2 && names[0] == "pg_catalog" {
		names = names[1:]
	}
	return len(names) == 1 && plainFunctions[names[0]]
}

// PlainFunctions tells whether all functions of a statement are known to do nothing,
// except with advisory locks.
func (v *Verdict) PlainFunctions() bool {
	for _, f := range v.Functions {
		if f.Schema != "" && f.Schema != "pg_catalog" || !plainFunctions[f.Name] && !advisory(f) {
			return false
		}
	}
	return true
}

// Advisory tells whether a statement calls a function of advisory locks.
func Advisory(v *Verdict) bool { return slices.ContainsFunc(v.Functions, advisory) }

func advisory(f Name) bool {
	return (f.Schema == "" || f.Schema == "pg_catalog") && (strings.HasPrefix(f.Name, "pg_advisory_") || strings.HasPrefix(f.Name, "pg_try_advisory_"))
}

// Text is the statement with tables in the place of its picks. It can be called once.
func (p *Picking) Text(tables []Picked) (string, error) {
	for i, t := range tables {
		arrays, names, columns := make([]string, len(t.Names)), make([]string, len(t.Names)), make([]string, len(t.Names))
		for k := range t.Names {
			value := fmt.Sprintf("$%d", t.First+k)
			if t.Values != nil {
				value = "'" + strings.ReplaceAll(t.Values[k], "'", "''") + "'"
				if strings.Contains(value, `\`) {
					value = "E" + strings.ReplaceAll(value, `\`, `\\`)
				}
			}
			arrays[k] = value + "::pg_catalog.text[]"
			names[k] = fmt.Sprintf("c%d", k)
			columns[k] = "pick." + names[k] + "::" + t.Types[k] + ` AS "` + strings.ReplaceAll(t.Names[k], `"`, `""`) + `"`
		}
		tree, err := pg.Parse("SELECT " + strings.Join(columns, ", ") + " FROM unnest(" + strings.Join(arrays, ", ") + ") AS pick(" + strings.Join(names, ", ") + ")")
		if err != nil {
			return "", fmt.Errorf("%w: %v", ErrRewrite, err)
		}
		p.Picks[i].node.Node = tree.Stmts[0].Stmt.Node
	}
	sql, err := pg.Deparse(p.tree)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrRewrite, err)
	}
	again, err := pg.Parse(sql)
	if err != nil || !alike(reflect.ValueOf(p.tree), reflect.ValueOf(again)) {
		return "", fmt.Errorf("%w: it would be written as %s", ErrRewrite, sql)
	}
	return sql, nil
}
