package parser

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// In native replication every node runs every write by itself, and each would
// have its own idea of the time and of chance. Rewrite puts values in the place of
// what gives them, so that all nodes are told the same.

// A Chance is a kind of value that differs between servers.
type Chance uint8

// Kinds of values.
const (
	Now         Chance = iota // when the transaction began, as timestamptz
	Clock                     // when the statement is sent, as timestamptz
	UUID                      // a new uuid
	Random                    // a number in [0,1), as double precision
	LargeObject               // the OID of a large object that there is not yet
)

var chanceTypes = [...]string{"timestamptz", "timestamptz", "uuid", "float8", "oid"}

// A Column is one of a table's, in their order.
type Column struct {
	Name      string
	Default   string // its expression; empty, none
	Generated bool   // by an expression that is no default
	Insert    bool   // the user may give it a value
	// What COPY needs to know besides: the type or that of its domain, and whether that
	// has a binary form.
	Type   string
	Binary bool
}

// Replace says what Rewrite is to put in.
type Replace struct {
	// Value gives the text of a value. It is asked once for Now and Clock, and for
	// each of the others.
	Value func(Chance) string
	// Params: parameters are put in instead of values, behind the first Given ones
	// or those the text has, whichever are more.
	Params bool
	Given  int
	// Columns are those of the table that an INSERT or UPDATE names; nil, unknown.
	Columns func(Name) []Column
	// Execute are the values that EXECUTE gets besides its own, by the prepared
	// statement's name.
	Execute func(name string) []Chance
	// Steady tells whether an expression, made of a column's default, has one value
	// as long as its functions of time and chance have; nil, COPY is not to be filled.
	Steady func(table Name, c Column, expr string) bool
}

// A Rewriting is what came of it.
type Rewriting struct {
	SQL string // empty: the text can be sent as it is
	// Added are the parameters put in behind the first Params; with PREPARE they
	// are to be given by EXECUTE.
	Params int
	Added  []Chance
	Fill   *Filling // what is to be put into the data of a COPY
	// Unequal is what is left in the statement that may differ between nodes; empty,
	// nothing that the text shows.
	Unequal string
}

// ErrRewrite is a statement with values that differ between nodes which cannot be
// put in order safely.
var ErrRewrite = errors.New("the statement has functions of time that cannot be replaced by values")

// mayNeed tells whether a text may have to be rewritten although no column default
// is concerned. It may err towards yes.
func mayNeed(sql []byte) bool {
	low := bytes.ToLower(sql)
	for _, w := range []string{"now", "timestamp", "current_", "localtime", "timeofday", "today", "tomorrow", "yesterday", "age", "uuid", "random", "execute", "lo_"} {
		if bytes.Contains(low, []byte(w)) {
			return true
		}
	}
	return false
}

// Rewrite makes a statement mean the same on every node, as far as its text tells.
// sql is one statement or a string of several.
func Rewrite(sql []byte, r Replace) (out Rewriting, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = Rewriting{}, fmt.Errorf("%w: %v", ErrRewrite, p)
		}
	}()
	if len(sql) > maxParse || bytes.IndexByte(sql, 0) >= 0 {
		if mayNeed(sql) {
			out.Unequal = "it is too large to be looked at"
		}
		return out, nil
	}
	text, ok := sanitize(sql)
	if !ok {
		text = sql
	}
	tree, err := pg.Parse(string(text))
	if err != nil {
		return out, nil // the server will say what it thinks
	}
	w := rewriter{r: r, params: r.Given, lone: len(tree.Stmts) == 1}
	if r.Params || slices.ContainsFunc(tree.Stmts, func(s *pg.RawStmt) bool { return s.Stmt.GetPrepareStmt() != nil }) {
		each(tree, func(n *pg.Node) bool {
			if p := n.GetParamRef(); p != nil {
				w.params = max(w.params, int(p.Number))
			}
			return true
		})
	}
	out.Params = w.params
	for _, raw := range tree.Stmts {
		w.statement(raw.Stmt)
	}
	out.Added, out.Fill, out.Unequal = w.added, w.fill, w.unequal
	if !w.changed {
		return out, nil
	}
	c := tree.Stmts[0].Stmt.GetCopyStmt()
	if !utf8.Valid(sql) && (c == nil || !w.lone || c.Query != nil || w.where) {
		return out, ErrRewrite // what was blanked would be lost
	}
	if c != nil && w.lone {
		out.SQL, err = w.copyText(string(sql), string(text), c)
	} else {
		out.SQL, err = pg.Deparse(tree)
	}
	if err != nil {
		return out, fmt.Errorf("%w: %v", ErrRewrite, err)
	}
	written, _ := sanitize([]byte(out.SQL))
	again, err := pg.Parse(string(written))
	if err != nil || !alike(reflect.ValueOf(tree), reflect.ValueOf(again)) {
		return out, fmt.Errorf("%w: it would be written as %s", ErrRewrite, out.SQL)
	}
	return out, nil
}

// rewriter is one call of Rewrite.
type rewriter struct {
	r       Replace
	params  int
	added   []Chance
	seen    [2]*pg.Node // Now and Clock
	inParam bool        // inside PREPARE
	changed bool
	lone    bool // there is one statement
	where   bool // the condition of a COPY, which is the statement, has changed
	fill    *Filling
	unequal string
}

// value makes the expression for a value.
func (w *rewriter) value(c Chance) *pg.Node {
	w.changed = true
	if c <= Clock && w.seen[c] != nil {
		return w.seen[c]
	}
	var n *pg.Node
	if w.r.Params || w.inParam {
		w.added = append(w.added, c)
		n = cast(pg.MakeParamRefNode(int32(w.params+len(w.added)), 0), chanceTypes[c], -1)
	} else {
		n = cast(pg.MakeAConstStrNode(w.r.Value(c), 0), chanceTypes[c], -1)
	}
	if c <= Clock {
		w.seen[c] = n
	}
	return n
}

// cast makes CAST(arg AS type); typmod -1, none.
func cast(arg *pg.Node, typ string, typmod int32) *pg.Node {
	t := &pg.TypeName{Names: []*pg.Node{pg.MakeStrNode("pg_catalog"), pg.MakeStrNode(typ)}, Typemod: -1}
	if typmod >= 0 {
		t.Typmods = []*pg.Node{pg.MakeAConstIntNode(int64(typmod), 0)}
	}
	return &pg.Node{Node: &pg.Node_TypeCast{TypeCast: &pg.TypeCast{Arg: arg, TypeName: t}}}
}

func call(name string, args ...*pg.Node) *pg.Node {
	return pg.MakeFuncCallNode([]*pg.Node{pg.MakeStrNode("pg_catalog"), pg.MakeStrNode(name)}, args, 0)
}

// statement rewrites what is run at once. What is kept, such as a view or a
// column's default, stays as it is: it is to tell the time when it is used.
func (w *rewriter) statement(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_CallStmt:
		if s := n.GetSelectStmt(); s != nil && len(s.FromClause) == 0 && w.makesLargeObject(s) {
			w.once(s)
		}
		w.all(n)
	case *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt, *pg.Node_InsertStmt:
		w.all(n)
		w.chosen(n)
	case *pg.Node_CopyStmt:
		if x.CopyStmt.Query != nil {
			w.statement(x.CopyStmt.Query)
		} else if x.CopyStmt.IsFrom {
			w.copied(x.CopyStmt)
		}
	case *pg.Node_DeclareCursorStmt:
		w.statement(x.DeclareCursorStmt.Query)
	case *pg.Node_ExplainStmt:
		w.statement(x.ExplainStmt.Query)
	case *pg.Node_CreateTableAsStmt:
		if x.CreateTableAsStmt.Objtype == pg.ObjectType_OBJECT_TABLE {
			w.statement(x.CreateTableAsStmt.Query)
			w.chosen(x.CreateTableAsStmt.Query)
		} else if x.CreateTableAsStmt.Objtype == pg.ObjectType_OBJECT_MATVIEW {
			w.view(x.CreateTableAsStmt.Query)
		}
	case *pg.Node_AlterTableStmt:
		w.alter(x.AlterTableStmt)
	case *pg.Node_ExecuteStmt:
		w.all(n)
		if w.r.Execute != nil {
			for _, c := range w.r.Execute(x.ExecuteStmt.Name) {
				x.ExecuteStmt.Params = append(x.ExecuteStmt.Params, w.value(c))
			}
		}
	case *pg.Node_PrepareStmt:
		p := x.PrepareStmt
		w.params = max(w.params, len(p.Argtypes))
		w.inParam = true
		w.statement(p.Query)
		w.inParam = false
		if len(p.Argtypes) == 0 {
			break // they are known by the casts
		}
		if len(p.Argtypes) < w.params && len(w.added) > 0 {
			panic("PREPARE declares fewer parameters than it has")
		}
		for _, c := range w.added {
			p.Argtypes = append(p.Argtypes, &pg.Node{Node: &pg.Node_TypeName{TypeName: cast(nil, chanceTypes[c], -1).GetTypeCast().TypeName}})
		}
	}
}

// all rewrites a tree. Names that a result column has by an expression stay.
func (w *rewriter) all(n *pg.Node) {
	each(n, func(n *pg.Node) bool {
		switch x := n.Node.(type) {
		case *pg.Node_InsertStmt:
			w.insert(x.InsertStmt)
		case *pg.Node_UpdateStmt:
			w.defaults(x.UpdateStmt.TargetList, w.columns(x.UpdateStmt.Relation))
			w.keepNames(x.UpdateStmt.ReturningList)
		case *pg.Node_DeleteStmt:
			w.keepNames(x.DeleteStmt.ReturningList)
		case *pg.Node_SelectStmt:
			w.keepNames(x.SelectStmt.TargetList)
		default:
			return !w.replace(n)
		}
		return true
	})
}

// keepNames gives result columns that are about to change the names they have.
func (w *rewriter) keepNames(targets []*pg.Node) {
	for _, t := range targets {
		r := t.GetResTarget()
		if r == nil || r.Name != "" || r.Val == nil {
			continue
		}
		before := columnName(r.Val)
		if w.replace(r.Val) || w.argReplaced(r.Val) {
			if columnName(r.Val) != before {
				r.Name = before
			}
		}
	}
}

// argReplaced replaces what a cast, itself no function of time, is made of.
func (w *rewriter) argReplaced(n *pg.Node) bool {
	c := n.GetTypeCast()
	return c != nil && (w.replace(c.Arg) || w.argReplaced(c.Arg))
}

// columnName is the name a result column has by its expression, as far as it
// matters here.
func columnName(n *pg.Node) string {
	switch x := n.GetNode().(type) {
	case *pg.Node_FuncCall:
		return lastTwo(x.FuncCall.Funcname).Name
	case *pg.Node_SqlvalueFunction:
		return valueFunctions[x.SqlvalueFunction.Op].name
	case *pg.Node_TypeCast:
		if name := columnName(x.TypeCast.Arg); name != "?column?" {
			return name
		}
		return lastTwo(x.TypeCast.TypeName.GetNames()).Name
	}
	return "?column?"
}

// valueFunctions are CURRENT_TIMESTAMP and its kin: the name, the type, and
// whether a precision stands in the text.
var valueFunctions = map[pg.SQLValueFunctionOp]struct {
	name, typ string
	precise   bool
}{
	pg.SQLValueFunctionOp_SVFOP_CURRENT_DATE:        {"current_date", "date", false},
	pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME:        {"current_time", "timetz", false},
	pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME_N:      {"current_time", "timetz", true},
	pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP:   {"current_timestamp", "timestamptz", false},
	pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP_N: {"current_timestamp", "timestamptz", true},
	pg.SQLValueFunctionOp_SVFOP_LOCALTIME:           {"localtime", "time", false},
	pg.SQLValueFunctionOp_SVFOP_LOCALTIME_N:         {"localtime", "time", true},
	pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP:      {"localtimestamp", "timestamp", false},
	pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP_N:    {"localtimestamp", "timestamp", true},
}

// replace puts a value in the place of one function of time. It reports whether
// the node was one.
func (w *rewriter) replace(n *pg.Node) bool {
	switch x := n.GetNode().(type) {
	case *pg.Node_SqlvalueFunction:
		f, ok := valueFunctions[x.SqlvalueFunction.Op]
		if !ok {
			return false
		}
		typmod := int32(-1)
		if f.precise {
			typmod = x.SqlvalueFunction.Typmod
		}
		if f.typ == "timestamptz" && typmod < 0 {
			n.Node = w.value(Now).Node
		} else {
			n.Node = cast(w.value(Now), f.typ, typmod).Node
		}
		return true
	case *pg.Node_FuncCall:
		return w.replaceCall(n, x.FuncCall)
	case *pg.Node_TypeCast:
		return w.replaceWord(n, x.TypeCast)
	}
	return false
}

func (w *rewriter) replaceCall(n *pg.Node, f *pg.FuncCall) bool {
	name := lastTwo(f.Funcname)
	if name.Schema != "" && name.Schema != "pg_catalog" {
		return false
	}
	switch {
	case len(f.Args) == 0:
		switch name.Name {
		case "now", "transaction_timestamp":
			n.Node = w.value(Now).Node
		case "statement_timestamp", "clock_timestamp":
			n.Node = w.value(Clock).Node
		case "timeofday":
			n.Node = call("to_char", w.value(Clock), pg.MakeAConstStrNode("Dy Mon DD HH24:MI:SS.US YYYY TZ", 0)).Node
		case "random", "gen_random_uuid", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4":
			w.doubt(name.Name + "()")
			return false
		default:
			return false
		}
		return true
	case len(f.Args) == 1 && name.Name == "age":
		f.Args = []*pg.Node{cast(w.value(Now), "date", -1), f.Args[0]}
		return false // the argument may have more
	}
	return false
}

// replaceWord replaces 'now'::timestamp, 'today'::date and the like.
func (w *rewriter) replaceWord(n *pg.Node, c *pg.TypeCast) bool {
	typ := lastTwo(c.TypeName.GetNames()).Name
	if len(c.TypeName.GetArrayBounds()) > 0 {
		return false
	}
	switch typ {
	case "date", "time", "timetz", "timestamp", "timestamptz":
	default:
		return false
	}
	arg := c.Arg
	for arg.GetTypeCast() != nil && lastTwo(arg.GetTypeCast().TypeName.GetNames()).Name == "text" {
		arg = arg.GetTypeCast().Arg
	}
	days := 0
	switch strings.ToLower(strings.TrimSpace(arg.GetAConst().GetSval().GetSval())) {
	case "now":
		if c.Arg = w.value(Now); typ == "timestamptz" && len(c.TypeName.Typmods) == 0 {
			n.Node = c.Arg.Node
		}
		return true
	case "today":
	case "tomorrow":
		days = 1
	case "yesterday":
		days = -1
	default:
		return false
	}
	day := cast(w.value(Now), "date", -1)
	if days != 0 {
		op, by := "+", int64(1)
		if days < 0 {
			op = "-"
		}
		day = pg.MakeAExprNode(pg.A_Expr_Kind_AEXPR_OP, []*pg.Node{pg.MakeStrNode(op)}, day, pg.MakeAConstIntNode(by, 0), 0)
	}
	if typ == "date" {
		n.Node = day.Node
	} else {
		c.Arg = day
	}
	return true
}

func (w *rewriter) columns(r *pg.RangeVar) []Column {
	if w.r.Columns == nil || r == nil {
		return nil
	}
	return w.r.Columns(rangeName(r))
}

// fresh is a column's default with values put in, if it has any; else nil. once
// tells that it is evaluated once in its place, as in VALUES.
func (w *rewriter) fresh(c Column, once bool) *pg.Node {
	if c.Default == "" || !mayNeed([]byte(c.Default)) {
		return nil
	}
	tree, err := pg.Parse("SELECT " + c.Default)
	if err != nil {
		w.doubt("the default of column " + c.Name)
		return nil
	}
	val := tree.Stmts[0].Stmt.GetSelectStmt().TargetList[0].GetResTarget().Val
	was, doubted := w.changed, w.unequal
	w.changed = false
	holder := pg.MakeListNode([]*pg.Node{val})
	if once {
		w.chances(holder)
	}
	w.all(holder)
	changed := w.changed
	w.changed = was || changed
	if doubted == "" && w.unequal != "" {
		w.unequal = "the default of column " + c.Name
	}
	if !changed {
		return nil
	}
	return holder.GetList().Items[0]
}

// chances replaces random() and the makers of uuids where each is evaluated once.
func (w *rewriter) chances(n *pg.Node) {
	each(n, func(n *pg.Node) bool {
		if n.GetSubLink() != nil {
			return false
		}
		f := n.GetFuncCall()
		if f == nil || len(f.Args) > 0 {
			if f != nil {
				w.largeObject(f)
			}
			return true
		}
		switch lastTwo(f.Funcname).Name {
		case "random":
			n.Node = w.value(Random).Node
		case "gen_random_uuid", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4":
			n.Node = w.value(UUID).Node
		default:
			return true
		}
		return false
	})
}

// makesLargeObject tells whether a SELECT of one row calls a function that makes one.
func (w *rewriter) makesLargeObject(s *pg.SelectStmt) (makes bool) {
	for _, t := range s.TargetList {
		each(t, func(n *pg.Node) bool {
			if f := n.GetFuncCall(); f != nil {
				switch lastTwo(f.Funcname).Name {
				case "lo_creat", "lo_create", "lo_from_bytea":
					makes = true
				}
			}
			return !makes
		})
	}
	return makes
}

// once replaces chances in a SELECT of one row, whose columns keep their names.
func (w *rewriter) once(s *pg.SelectStmt) {
	for _, t := range s.TargetList {
		r := t.GetResTarget()
		before := columnName(r.GetVal())
		if w.chances(t); r.GetName() == "" && columnName(r.GetVal()) != before {
			r.Name = before
		}
	}
}

// largeObject gives a function the OID of the large object that it makes.
func (w *rewriter) largeObject(f *pg.FuncCall) {
	switch lastTwo(f.Funcname).Name {
	case "lo_creat":
		f.Funcname[len(f.Funcname)-1] = pg.MakeStrNode("lo_create")
	case "lo_create", "lo_from_bytea":
		if p := f.Args[0].GetParamRef(); p != nil { // 0 or another
			zero := func() *pg.Node { return cast(pg.MakeAConstIntNode(0, 0), "oid", -1) }
			given := &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{Kind: pg.A_Expr_Kind_AEXPR_NULLIF, Name: []*pg.Node{pg.MakeStrNode("=")},
				Lexpr: cast(pg.MakeParamRefNode(p.Number, 0), "oid", -1), Rexpr: zero()}}}
			f.Args[0] = &pg.Node{Node: &pg.Node_CoalesceExpr{CoalesceExpr: &pg.CoalesceExpr{Args: []*pg.Node{given, w.value(LargeObject)}}}}
			return
		}
		if c := f.Args[0].GetAConst(); c == nil || c.GetIval() == nil || c.GetIval().Ival != 0 {
			return
		}
	default:
		return
	}
	f.Args[0] = w.value(LargeObject)
}

// defaults puts values into SET column = DEFAULT.
func (w *rewriter) defaults(targets []*pg.Node, columns []Column) {
	for _, t := range targets {
		r := t.GetResTarget()
		if r == nil || r.Val.GetSetToDefault() == nil {
			continue
		}
		if i := slices.IndexFunc(columns, func(c Column) bool { return c.Name == r.Name }); i >= 0 {
			if e := w.fresh(columns[i], false); e != nil {
				r.Val = e
			}
		}
	}
}

// insert puts in the defaults of columns that depend on the time, where they are
// left out or written as DEFAULT.
func (w *rewriter) insert(s *pg.InsertStmt) {
	w.keepNames(s.ReturningList)
	columns := w.columns(s.Relation)
	if o := s.OnConflictClause; o != nil {
		w.defaults(o.TargetList, columns)
	}
	sel := s.SelectStmt.GetSelectStmt()
	values := s.SelectStmt == nil || len(sel.GetValuesLists()) > 0
	if values && sel != nil {
		for _, row := range sel.ValuesLists {
			w.chances(row)
		}
	}
	if !values && len(sel.GetFromClause()) == 0 && sel.GetOp() == pg.SetOperation_SETOP_NONE {
		w.once(sel)
	}
	var timed []Column
	for _, c := range columns {
		if mayNeed([]byte(c.Default)) {
			timed = append(timed, c)
		}
	}
	if len(timed) == 0 {
		return
	}
	listed := len(s.Cols)
	if listed == 0 && sel != nil {
		width := 0
		if len(sel.ValuesLists) > 0 {
			width = len(sel.ValuesLists[0].GetList().Items)
		} else if width = targets(sel); width < 0 {
			w.doubt("the defaults of columns, for it is not known how many SELECT * gives")
			return
		}
		if width > len(columns) {
			return // an error
		}
		for _, c := range columns[:width] {
			s.Cols = append(s.Cols, &pg.Node{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Name: c.Name}}})
		}
		listed = width
	}
	for _, c := range timed {
		at := slices.IndexFunc(s.Cols, func(n *pg.Node) bool { return n.GetResTarget().GetName() == c.Name })
		if at >= 0 {
			for _, row := range sel.GetValuesLists() {
				if items := row.GetList().Items; at < len(items) && items[at].GetSetToDefault() != nil {
					if e := w.fresh(c, true); e != nil {
						items[at] = e
					}
				}
			}
			continue
		}
		if !c.Insert { // naming it would be refused
			w.doubt("the default of column " + c.Name)
			continue
		}
		if s.SelectStmt == nil {
			s.SelectStmt = &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
				ValuesLists: []*pg.Node{pg.MakeListNode(nil)}, LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE,
			}}}
			sel = s.SelectStmt.GetSelectStmt()
		}
		if w.appendDefault(sel, c, values) {
			s.Cols = append(s.Cols, &pg.Node{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Name: c.Name}}})
		}
	}
	if s.SelectStmt != nil && sel == s.SelectStmt.GetSelectStmt() && len(sel.ValuesLists) == 1 && len(sel.ValuesLists[0].GetList().Items) == 0 {
		s.SelectStmt = nil // nothing was put in after all
	}
}

// appendDefault adds a column's default to every row of an INSERT's source. It
// reports whether it did.
func (w *rewriter) appendDefault(s *pg.SelectStmt, c Column, once bool) bool {
	if s.Larg != nil || s.Rarg != nil {
		return w.appendDefault(s.Larg, c, false) && w.appendDefault(s.Rarg, c, false)
	}
	if len(s.ValuesLists) == 0 {
		e := w.fresh(c, false)
		if e != nil {
			s.TargetList = append(s.TargetList, pg.MakeResTargetNodeWithVal(e, 0))
		}
		return e != nil
	}
	for _, row := range s.ValuesLists {
		e := w.fresh(c, once)
		if e == nil {
			return false
		}
		row.GetList().Items = append(row.GetList().Items, e)
	}
	return true
}

// targets counts the columns of a SELECT; -1, that cannot be told by the text.
func targets(s *pg.SelectStmt) int {
	for s.Larg != nil {
		s = s.Larg
	}
	if len(s.ValuesLists) > 0 {
		return len(s.ValuesLists[0].GetList().Items)
	}
	for _, t := range s.TargetList {
		if c := t.GetResTarget().GetVal().GetColumnRef(); c != nil && len(c.Fields) > 0 && c.Fields[len(c.Fields)-1].GetAStar() != nil {
			return -1
		}
		if t.GetResTarget().GetVal().GetAIndirection() != nil {
			return -1 // perhaps (row).*
		}
	}
	return len(s.TargetList)
}

// each visits all nodes of a tree, from the top; what f answers false to is not
// looked into. f may put something else into a node.
func each(m any, f func(*pg.Node) bool) {
	if n, ok := m.(*pg.Node); ok {
		if n == nil || !f(n) || n.Node == nil {
			return
		}
		eachField(reflect.ValueOf(n.Node).Elem(), f)
		return
	}
	eachField(reflect.ValueOf(m).Elem(), f)
}

func eachField(v reflect.Value, f func(*pg.Node) bool) {
	for i, t := 0, v.Type(); i < v.NumField(); i++ {
		if !t.Field(i).IsExported() {
			continue
		}
		switch x := v.Field(i); x.Kind() {
		case reflect.Pointer:
			if !x.IsNil() && x.Elem().Kind() == reflect.Struct {
				each(x.Interface(), f)
			}
		case reflect.Interface:
			if !x.IsNil() {
				eachField(x.Elem().Elem(), f)
			}
		case reflect.Slice:
			if x.Type().Elem().Kind() == reflect.Pointer {
				for k := range x.Len() {
					each(x.Index(k).Interface(), f)
				}
			}
		}
	}
}

// alike compares two trees, but for where things stand in the text.
func alike(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer, reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return a.Elem().Type() == b.Elem().Type() && alike(a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !alike(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		for i, t := 0, a.Type(); i < a.NumField(); i++ {
			f := t.Field(i)
			if !f.IsExported() || strings.HasSuffix(f.Name, "Location") || f.Name == "StmtLen" {
				continue
			}
			if f.Name == "Funcformat" {
				continue // a schema in front changes how it is written, not what it means
			}
			if !alike(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	return a.Interface() == b.Interface()
}

// Sequences are the names, as text, of the sequences that a statement's nextval and
// setval call for. known is false if some are not constants.
func Sequences(sql []byte) (names []string, known bool) {
	known = true
	text, ok := sanitize(sql)
	if !ok || len(sql) > maxParse {
		return nil, false
	}
	tree, err := pg.Parse(string(text))
	if err != nil {
		return nil, false
	}
	each(tree, func(n *pg.Node) bool {
		f := n.GetFuncCall()
		if f == nil || len(f.Args) == 0 {
			return true
		}
		switch lastTwo(f.Funcname).Name {
		case "nextval", "setval":
		default:
			return true
		}
		arg := f.Args[0]
		for arg.GetTypeCast() != nil {
			arg = arg.GetTypeCast().Arg
		}
		if c := arg.GetAConst(); c != nil && c.GetSval() != nil {
			if !slices.Contains(names, c.GetSval().Sval) {
				names = append(names, c.GetSval().Sval)
			}
		} else {
			known = false
		}
		return true
	})
	return names, known
}

// enclosable tells whether a statement other than a query may run in a transaction
// block.
func enclosable(n *pg.Node) bool {
	switch x := n.GetNode().(type) {
	case *pg.Node_CreatedbStmt, *pg.Node_DropdbStmt, *pg.Node_CreateTableSpaceStmt, *pg.Node_DropTableSpaceStmt, *pg.Node_AlterSystemStmt,
		*pg.Node_CreateSubscriptionStmt, *pg.Node_AlterSubscriptionStmt, *pg.Node_DropSubscriptionStmt, *pg.Node_AlterDatabaseStmt:
		return false
	case *pg.Node_IndexStmt:
		return !x.IndexStmt.Concurrent
	case *pg.Node_DropStmt:
		return !x.DropStmt.Concurrent
	case *pg.Node_AlterTableStmt:
		for _, c := range x.AlterTableStmt.Cmds {
			if d, ok := c.GetAlterTableCmd().GetDef().GetNode().(*pg.Node_PartitionCmd); ok && d.PartitionCmd.Concurrent {
				return false
			}
		}
	}
	return true
}
