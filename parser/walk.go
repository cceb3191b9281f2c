package parser

import (
	"reflect"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// A walker visits a whole tree and gathers what is named in it.
type walker struct {
	v     *Verdict
	ctes  []string // names of WITH queries in sight
	depth int      // of statements, one inside the other

	into       *pg.IntoClause
	setConfigs []*pg.FuncCall
	targets    []Name // of INSERT, UPDATE, MERGE at any depth
	wide       bool   // DELETE, writing WITH or lock: everything named counts as written
}

func addName(list []Name, n Name) []Name {
	if slices.Contains(list, n) {
		return list
	}
	return append(list, n)
}

// node visits one node; nil is allowed.
func (w *walker) node(n *pg.Node) {
	if n == nil {
		return
	}
	switch x := n.Node.(type) {
	case nil:
	case *pg.Node_SelectStmt:
		w.selectStmt(x.SelectStmt)
	case *pg.Node_InsertStmt:
		s := x.InsertStmt
		w.writing()
		w.with(s.WithClause, func() {
			w.target(s.Relation)
			w.nodes(s.Cols)
			w.node(s.SelectStmt)
			w.below(s.OnConflictClause)
			w.nodes(s.ReturningList)
		})
	case *pg.Node_UpdateStmt:
		s := x.UpdateStmt
		w.writing()
		w.with(s.WithClause, func() {
			w.target(s.Relation)
			w.nodes(s.TargetList)
			w.node(s.WhereClause)
			w.nodes(s.FromClause)
			w.nodes(s.ReturningList)
		})
	case *pg.Node_DeleteStmt:
		s := x.DeleteStmt
		w.writing()
		w.wide = true
		w.with(s.WithClause, func() {
			w.target(s.Relation)
			w.nodes(s.UsingClause)
			w.node(s.WhereClause)
			w.nodes(s.ReturningList)
		})
	case *pg.Node_MergeStmt:
		s := x.MergeStmt
		w.writing()
		w.with(s.WithClause, func() {
			w.target(s.Relation)
			w.node(s.SourceRelation)
			w.node(s.JoinCondition)
			w.nodes(s.MergeWhenClauses)
		})
	case *pg.Node_RangeVar:
		w.relation(x.RangeVar)
	case *pg.Node_FuncCall:
		w.call(x.FuncCall)
	case *pg.Node_AExpr:
		e := x.AExpr
		switch e.Kind {
		case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN,
			pg.A_Expr_Kind_AEXPR_BETWEEN_SYM, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		default:
			w.operator(e.Name)
		}
		w.node(e.Lexpr)
		w.node(e.Rexpr)
	case *pg.Node_AConst, *pg.Node_ParamRef, *pg.Node_String_:
	case *pg.Node_ColumnRef:
	case *pg.Node_ResTarget:
		w.node(x.ResTarget.Val)
		w.nodes(x.ResTarget.Indirection)
	case *pg.Node_List:
		w.nodes(x.List.Items)
	case *pg.Node_JoinExpr:
		w.node(x.JoinExpr.Larg)
		w.node(x.JoinExpr.Rarg)
		w.node(x.JoinExpr.Quals)
	case *pg.Node_BoolExpr:
		w.nodes(x.BoolExpr.Args)
	case *pg.Node_TypeCast:
		w.node(x.TypeCast.Arg)
		w.typeName(x.TypeCast.TypeName)
		w.v.Fickle = w.v.Fickle || fickleCast(x.TypeCast)
		if n := lastTwo(x.TypeCast.TypeName.GetNames()); n.Schema != "pg_catalog" {
			w.v.Types = addName(w.v.Types, n)
		}
	case *pg.Node_SubLink:
		w.node(x.SubLink.Testexpr)
		w.operator(x.SubLink.OperName)
		w.node(x.SubLink.Subselect)
	case *pg.Node_SqlvalueFunction: // CURRENT_TIMESTAMP, CURRENT_USER ...
		w.v.Fickle = true
	case *pg.Node_RangeTableSample, *pg.Node_RangeTableFunc: // the latter, XMLTABLE, casts to any type
		w.v.Fickle = true
		w.below(x)
	case *pg.Node_SortBy:
		w.node(x.SortBy.Node)
		w.operator(x.SortBy.UseOp)
	default:
		w.below(x)
	}
}

func (w *walker) nodes(list []*pg.Node) {
	for _, n := range list {
		w.node(n)
	}
}

// typeName visits the modifiers of a type, which are expressions.
func (w *walker) typeName(t *pg.TypeName) {
	if t != nil {
		w.nodes(t.Typmods)
	}
}

// below visits whatever hangs below a message that has no case of its own, so
// that nothing is missed when the grammar grows. m is a pointer to a struct.
func (w *walker) below(m any) {
	v := reflect.ValueOf(m)
	if v.IsNil() {
		return
	}
	v = v.Elem()
	for i, t := 0, v.Type(); i < v.NumField(); i++ {
		if t.Field(i).IsExported() {
			w.field(v.Field(i))
		}
	}
}

// field visits the messages in one field: one, a list, or one of several.
func (w *walker) field(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && v.Elem().Kind() == reflect.Struct {
			w.any(v.Interface())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Pointer {
			for i := range v.Len() {
				w.field(v.Index(i))
			}
		}
	case reflect.Interface:
		if !v.IsNil() {
			w.below(v.Elem().Interface())
		}
	}
}

func (w *walker) any(m any) {
	switch x := m.(type) {
	case *pg.Node:
		w.node(x)
	case *pg.SelectStmt:
		w.selectStmt(x)
	case *pg.RangeVar:
		w.relation(x)
	case *pg.FuncCall:
		w.call(x)
	case *pg.TypeName:
		w.typeName(x)
	default:
		w.below(m)
	}
}

// skips tells whether a locking clause says SKIP LOCKED.
func skips(n *pg.Node) bool {
	return n.GetLockingClause().GetWaitPolicy() == pg.LockWaitPolicy_LockWaitSkip
}

// selectStmt visits a SELECT, VALUES or set operation.
func (w *walker) selectStmt(s *pg.SelectStmt) {
	if s == nil {
		return
	}
	w.depth++
	w.with(s.WithClause, func() {
		if len(s.LockingClause) > 0 {
			w.v.Locks, w.wide = true, true
			w.v.SkipsLocked = w.v.SkipsLocked || slices.ContainsFunc(s.LockingClause, skips)
		}
		if s.IntoClause != nil {
			w.into = s.IntoClause
		}
		w.nodes(s.DistinctClause)
		w.nodes(s.TargetList)
		w.nodes(s.FromClause)
		w.node(s.WhereClause)
		w.nodes(s.GroupClause)
		w.node(s.HavingClause)
		w.nodes(s.WindowClause)
		w.nodes(s.ValuesLists)
		w.nodes(s.SortClause)
		w.node(s.LimitOffset)
		w.node(s.LimitCount)
		w.selectStmt(s.Larg)
		w.selectStmt(s.Rarg)
	})
	w.depth--
}

// with visits a WITH clause, then body with its names in sight.
func (w *walker) with(c *pg.WithClause, body func()) {
	before := len(w.ctes)
	if c != nil {
		if c.Recursive {
			for _, n := range c.Ctes {
				w.ctes = append(w.ctes, n.GetCommonTableExpr().GetCtename())
			}
		}
		for _, n := range c.Ctes {
			cte := n.GetCommonTableExpr()
			w.depth++
			w.node(cte.GetCtequery())
			w.depth--
			w.below(cte.GetSearchClause())
			w.below(cte.GetCycleClause())
			if !c.Recursive {
				w.ctes = append(w.ctes, cte.GetCtename())
			}
		}
	}
	body()
	w.ctes = w.ctes[:before]
}

// writing notes a data-modifying statement at the present depth.
func (w *walker) writing() {
	w.v.Writes = true
	if w.depth > 0 {
		w.v.WritingWith = true
		w.wide = true
	}
}

func rangeName(r *pg.RangeVar) Name { return Name{Schema: r.Schemaname, Name: r.Relname} }

// relation adds a relation that is read, unless a WITH query hides it.
func (w *walker) relation(r *pg.RangeVar) {
	if r == nil || r.Relname == "" {
		return
	}
	if r.Schemaname == "" && slices.Contains(w.ctes, r.Relname) {
		return
	}
	w.v.Relations = addName(w.v.Relations, rangeName(r))
}

// target adds a relation that is written; a WITH query cannot stand there.
func (w *walker) target(r *pg.RangeVar) {
	if r == nil {
		return
	}
	w.v.Relations = addName(w.v.Relations, rangeName(r))
	w.targets = addName(w.targets, rangeName(r))
}

// call adds a function and visits its arguments.
func (w *walker) call(f *pg.FuncCall) {
	name := lastTwo(f.Funcname)
	if f.Funcformat == pg.CoercionForm_COERCE_SQL_SYNTAX {
		name.Schema = "" // EXTRACT(... FROM ...) and the like: the text names no schema
	}
	w.v.Functions = addName(w.v.Functions, name)
	if name.Name == "set_config" && (name.Schema == "" || name.Schema == "pg_catalog") {
		w.setConfigs = append(w.setConfigs, f)
	}
	w.nodes(f.Args)
	w.nodes(f.AggOrder)
	w.node(f.AggFilter)
	w.below(f.Over)
}

func (w *walker) operator(name []*pg.Node) {
	if n := lastTwo(name); n.Name != "" {
		w.v.Operators = addName(w.v.Operators, n)
	}
}

// lastTwo makes a name of a list of strings; a database name in front is dropped.
func lastTwo(list []*pg.Node) Name {
	var n Name
	for _, x := range list {
		n.Schema, n.Name = n.Name, x.GetString_().GetSval()
	}
	return n
}
