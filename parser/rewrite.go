package parser

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"

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
	// Encoding is the client's.
	Encoding Encoding
	// Columns are those of the table that an INSERT or UPDATE names; nil, unknown.
	Columns func(Name) []Column
	// Execute are the values that EXECUTE gets besides its own, by the prepared
	// statement's name.
	Execute func(name string) []Added
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
	Added  []Added
	Fill   *Filling // what is to be put into the data of a COPY
	// Unequal is what is left in the statement that may differ between nodes; empty,
	// nothing that the text shows.
	Unequal string
}

// Added is a parameter put in: a value, or an array of Count values if that is not 0,
// as a statement cannot have a parameter for each of many rows.
type Added struct {
	Chance Chance
	Count  int
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

// maxRewrite bounds what is left of a text to be parsed when it has been reduced.
const maxRewrite = 1 << 20

// Rewrite makes a statement mean the same on every node, as far as its text tells.
// sql is one statement or a string of several.
func Rewrite(sql []byte, r Replace) (out Rewriting, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = Rewriting{}, fmt.Errorf("%w: %v", ErrRewrite, p)
		}
	}()
	names := &foreignNames{}
	src, why := readable(sql, r.Encoding, names)
	var tree *pg.ParseResult
	if src != nil {
		if tree, err = pg.Parse(string(src.text)); err != nil {
			why = "what it means, which cannot be read" // a mistake, of which the server will tell, or something new
		}
	}
	if tree == nil {
		if mayNeed(sql) || mayDefault(sql) {
			out.Unequal = why
		}
		return out, nil
	}
	w := rewriter{r: r, names: names, ed: &editor{source: src}, params: r.Given, lone: len(tree.Stmts) == 1, arrays: len(src.gone) > 0}
	if r.Params || slices.ContainsFunc(tree.Stmts, func(s *pg.RawStmt) bool { return s.Stmt.GetPrepareStmt() != nil }) {
		w.params = max(w.params, src.param)
	}
	out.Params = w.params
	for _, raw := range tree.Stmts {
		w.statement(raw)
	}
	out.Fill, out.Unequal = w.fill, w.unequal
	if !w.changed {
		return out, nil
	}
	if out.SQL, err = w.ed.write(w.again); err != nil {
		return out, fmt.Errorf("%w: %v", ErrRewrite, err)
	}
	out.Added = w.added
	if err = w.check(tree, out.SQL); err != nil {
		return out, fmt.Errorf("%w: %v: it would be written as %s", ErrRewrite, err, cut(out.SQL, 1000))
	}
	return out, nil
}

// check makes sure that what was done to the text is what was done to the tree.
func (w *rewriter) check(tree *pg.ParseResult, sql string) error {
	text, err := w.ed.writeReduced(w.r.Encoding)
	if err != nil {
		return err
	}
	again, err := pg.Parse(string(text))
	if err != nil {
		return err
	}
	if !alike(reflect.ValueOf(tree), reflect.ValueOf(again)) {
		return errors.New("it would mean something else")
	}
	large := len(w.ed.sql) > reduceAt
	if w.ed.valid && !large {
		return nil
	}
	// Read anew, the whole text is reduced to the same, but for rows whose shapes have
	// become one.
	whole := &source{sql: []byte(sql), plain: w.r.Encoding.mask([]byte(sql)), names: w.names}
	short := &source{sql: text, plain: text, names: w.names}
	if !whole.reduce(w.ed.valid, large) || !short.reduce(true, large) {
		return errPlace
	}
	if bytes.Equal(whole.text, short.text) {
		return nil
	}
	if len(whole.toks) != len(short.toks) {
		return fmt.Errorf("%d words become %d", len(short.toks), len(whole.toks))
	}
	for i, t := range short.toks {
		o := whole.toks[i]
		if !bytes.Equal(short.text[t.at:t.end], whole.text[o.at:o.end]) {
			return fmt.Errorf("%q becomes %q", short.text[t.at:t.end], whole.text[o.at:o.end])
		}
	}
	return nil
}

// readable gives what the C parser can be given safely; nil and why, if it cannot.
func readable(sql []byte, enc Encoding, names *foreignNames) (src *source, why string) {
	if bytes.IndexByte(sql, 0) >= 0 {
		return nil, "what it means, which cannot be read"
	}
	src, ok := newSource(sql, enc, names)
	if !ok {
		return nil, "what it means, which cannot be read"
	}
	if len(src.text) > maxRewrite {
		return nil, "what it means, as it is too large to be looked at"
	}
	s := &scan{}
	if s.run(src.text); s.deep {
		return nil, "what it means, as it is too deep to be looked at"
	}
	return src, ""
}

func cut(text string, n int) string {
	if len(text) > n {
		return strings.ToValidUTF8(text[:n], "") + " ..."
	}
	return text
}

// mayDefault tells whether a text may be one to which defaults of columns matter.
func mayDefault(sql []byte) bool {
	low := bytes.ToLower(sql)
	for _, w := range []string{"insert", "merge", "copy", "default"} {
		if bytes.Contains(low, []byte(w)) {
			return true
		}
	}
	return false
}

// rewriter is one call of Rewrite. It changes the tree, and the text by the same.
type rewriter struct {
	r       Replace
	names   *foreignNames
	ed      *editor // of the text at hand: the client's, or a column's default
	params  int
	added   []Added
	seen    [2]*expr         // Now and Clock
	inParam bool             // inside PREPARE
	arrays  bool             // what is new in each row is an array's
	array   map[Chance]int   // its place in added
	done    map[Column]*expr // defaults that are the same in each row
	changed bool
	lone    bool // there is one statement
	fill    *Filling
	unequal string
}

// An expr is an expression in both forms.
type expr struct {
	node *pg.Node
	text string
}

// value makes the expression for a value.
func (w *rewriter) value(c Chance) expr {
	w.changed = true
	if c <= Clock && w.seen[c] != nil {
		return *w.seen[c]
	}
	param := w.r.Params || w.inParam
	e := w.newValue(c, param)
	if c <= Clock {
		w.seen[c] = &e
	} else {
		e.text = marked(c, param, e.text)
	}
	return e
}

// arraySize is how many values are one parameter. The server's planner copies the whole
// array wherever one of them is used.
const arraySize = 16

// maxParams is how many parameters the protocol has room for.
const maxParams = 65535

func (w *rewriter) newValue(c Chance, param bool) expr {
	if !param {
		return cast(literalText(w.r.Value(c)), chanceTypes[c], -1)
	}
	if w.params+len(w.added) > maxParams {
		panic("it would have more than 65535 parameters")
	}
	if c <= Clock || !w.arrays {
		w.added = append(w.added, Added{Chance: c})
		return cast(w.parameter(len(w.added)), chanceTypes[c], -1)
	}
	i, ok := w.array[c]
	if !ok || w.added[i].Count == arraySize {
		if w.array == nil {
			w.array = make(map[Chance]int)
		}
		i = len(w.added)
		w.array[c] = i
		w.added = append(w.added, Added{Chance: c})
	}
	w.added[i].Count++
	n := w.added[i].Count
	all := cast(w.parameter(i+1), chanceTypes[c], -1)
	all.node.GetTypeCast().TypeName.ArrayBounds = []*pg.Node{{Node: &pg.Node_Integer{Integer: &pg.Integer{Ival: -1}}}}
	all.text = strings.TrimSuffix(all.text, ")") + "[])"
	return expr{
		&pg.Node{Node: &pg.Node_AIndirection{AIndirection: &pg.A_Indirection{Arg: all.node, Indirection: []*pg.Node{
			{Node: &pg.Node_AIndices{AIndices: &pg.A_Indices{Uidx: pg.MakeAConstIntNode(int64(n), -1)}}}}}}},
		fmt.Sprintf("(%s)[%d]", all.text, n),
	}
}

// again makes the value of one more row.
func (w *rewriter) again(c Chance, param bool) string { return w.newValue(c, param).text }

func (w *rewriter) parameter(n int) expr {
	return expr{pg.MakeParamRefNode(int32(w.params+n), -1), fmt.Sprintf("$%d", w.params+n)}
}

func literalText(text string) expr {
	return expr{pg.MakeAConstStrNode(text, -1), "'" + strings.ReplaceAll(text, "'", "''") + "'"}
}

// cast makes CAST(arg AS type); typmod -1, none.
func cast(arg expr, typ string, typmod int32) expr {
	t := &pg.TypeName{Names: []*pg.Node{pg.MakeStrNode("pg_catalog"), pg.MakeStrNode(typ)}, Typemod: -1}
	mods := ""
	if typmod >= 0 {
		t.Typmods = []*pg.Node{pg.MakeAConstIntNode(int64(typmod), -1)}
		mods = fmt.Sprintf("(%d)", typmod)
	}
	return expr{
		&pg.Node{Node: &pg.Node_TypeCast{TypeCast: &pg.TypeCast{Arg: arg.node, TypeName: t}}},
		"CAST(" + arg.text + " AS pg_catalog." + typ + mods + ")",
	}
}

// rangeName is the name of a relation.
func (w *rewriter) rangeName(r *pg.RangeVar) Name {
	n := rangeName(r)
	return Name{Schema: w.names.mean(n.Schema), Name: w.names.mean(n.Name)}
}

// statement rewrites what is run at once.
func (w *rewriter) statement(raw *pg.RawStmt) {
	from := sort.Search(len(w.ed.toks), func(i int) bool { return w.ed.toks[i].at >= int(raw.StmtLocation) })
	to := len(w.ed.toks)
	if raw.StmtLen > 0 {
		to = sort.Search(len(w.ed.toks), func(i int) bool { return w.ed.toks[i].at >= int(raw.StmtLocation+raw.StmtLen) })
	}
	for to > from && w.ed.is(to-1, ';') {
		to--
	}
	for from < to && w.ed.is(from, ';') {
		from++
	}
	w.part(raw.Stmt, from, to-1)
}

// part rewrites a statement or one inside it, whose tokens are among those given.
// What is kept, such as a view or a column's default, stays as it is: it is to tell
// the time when it is used.
func (w *rewriter) part(n *pg.Node, first, last int) {
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
			w.part(x.CopyStmt.Query, first, last)
		} else if x.CopyStmt.IsFrom {
			w.copied(x.CopyStmt)
		}
	case *pg.Node_DeclareCursorStmt:
		w.part(x.DeclareCursorStmt.Query, first, last)
	case *pg.Node_ExplainStmt:
		w.part(x.ExplainStmt.Query, first, last)
	case *pg.Node_CreateTableAsStmt:
		if x.CreateTableAsStmt.Objtype == pg.ObjectType_OBJECT_TABLE {
			w.part(x.CreateTableAsStmt.Query, first, last)
			w.chosen(x.CreateTableAsStmt.Query)
		} else if x.CreateTableAsStmt.Objtype == pg.ObjectType_OBJECT_MATVIEW {
			w.view(x.CreateTableAsStmt.Query)
		}
	case *pg.Node_AlterTableStmt:
		w.alter(x.AlterTableStmt, last)
	case *pg.Node_ExecuteStmt:
		w.all(n)
		w.execute(x.ExecuteStmt, first)
	case *pg.Node_PrepareStmt:
		p := x.PrepareStmt
		w.params = max(w.params, len(p.Argtypes))
		w.inParam = true
		w.part(p.Query, first, last)
		w.inParam = false
		if len(p.Argtypes) == 0 {
			break // they are known by the casts
		}
		if len(p.Argtypes) < w.params && len(w.added) > 0 {
			panic("PREPARE declares fewer parameters than it has")
		}
		if len(w.array) > 0 {
			panic("PREPARE declares its parameters, and is too large to get further ones")
		}
		var types strings.Builder
		for _, a := range w.added {
			t := cast(expr{}, chanceTypes[a.Chance], -1).node.GetTypeCast().TypeName
			types.WriteString(", pg_catalog." + chanceTypes[a.Chance])
			p.Argtypes = append(p.Argtypes, &pg.Node{Node: &pg.Node_TypeName{TypeName: t}})
		}
		if types.Len() > 0 {
			w.ed.insert(w.ed.closing(w.ed.opening(first)), types.String())
		}
	}
}

// execute gives EXECUTE the values that the prepared statement has got parameters for.
func (w *rewriter) execute(x *pg.ExecuteStmt, first int) {
	if w.r.Execute == nil {
		return
	}
	var args []string
	for _, a := range w.r.Execute(w.names.mean(x.Name)) {
		e := w.given(a)
		x.Params = append(x.Params, e.node)
		args = append(args, e.text)
	}
	if len(args) == 0 {
		return
	}
	name := w.ed.find(first, "execute") + 1
	for w.ed.word(name, "execute") && w.ed.is(name+1, 'w') || w.ed.word(name, "as") || w.ed.word(name+1, "execute") {
		name = w.ed.find(name, "execute") + 1 // a table has that name
	}
	list := strings.Join(args, ", ")
	switch {
	case !w.ed.is(name+1, '('):
		w.ed.append(name, "("+list+")")
	default:
		w.ed.insert(w.ed.closing(name+1), ", "+list)
	}
}

// given is what is given for a parameter that was put in.
func (w *rewriter) given(a Added) expr {
	if a.Count == 0 {
		return w.value(a.Chance)
	}
	w.changed = true
	values := make([]string, a.Count)
	for i := range values {
		values[i] = w.r.Value(a.Chance)
	}
	e := cast(literalText("{"+strings.Join(values, ",")+"}"), chanceTypes[a.Chance], -1)
	e.node.GetTypeCast().TypeName.ArrayBounds = []*pg.Node{{Node: &pg.Node_Integer{Integer: &pg.Integer{Ival: -1}}}}
	e.text = strings.TrimSuffix(e.text, ")") + "[])"
	return e
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
		case *pg.Node_MergeStmt:
			w.merge(x.MergeStmt)
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
				w.ed.append(w.ed.exprEnd(w.ed.at(r.Location), false), " AS "+quoted(w.names.mean(before)))
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
	name, _ := figuredName(n)
	return name
}

// figuredName is columnName. A name that is not strong gives way to that of a cast.
func figuredName(n *pg.Node) (name string, strong bool) {
	switch x := n.GetNode().(type) {
	case *pg.Node_FuncCall:
		return lastTwo(x.FuncCall.Funcname).Name, true
	case *pg.Node_SqlvalueFunction:
		return valueFunctions[x.SqlvalueFunction.Op].name, true
	case *pg.Node_TypeCast:
		if name, strong := figuredName(x.TypeCast.Arg); strong {
			return name, true
		}
		return lastTwo(x.TypeCast.TypeName.GetNames()).Name, false
	}
	return "?column?", false
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
		e := w.value(Now)
		if f.typ != "timestamptz" || typmod >= 0 {
			e = cast(e, f.typ, typmod)
		}
		first := w.ed.at(x.SqlvalueFunction.Location)
		last := first
		if f.precise {
			last = w.ed.closing(first + 1)
		}
		w.put(n, e, first, last)
		return true
	case *pg.Node_FuncCall:
		return w.replaceCall(n, x.FuncCall)
	case *pg.Node_TypeCast:
		return w.replaceWord(n, x.TypeCast)
	}
	return false
}

// put puts an expression in the place of a node, whose tokens are given.
func (w *rewriter) put(n *pg.Node, e expr, first, last int) {
	n.Node = e.node.Node
	w.ed.replace(first, last, e.text)
}

func (w *rewriter) replaceCall(n *pg.Node, f *pg.FuncCall) bool {
	name := lastTwo(f.Funcname)
	if name.Schema != "" && name.Schema != "pg_catalog" {
		return false
	}
	switch {
	case len(f.Args) == 0:
		var e expr
		switch name.Name {
		case "now", "transaction_timestamp":
			e = w.value(Now)
		case "statement_timestamp", "clock_timestamp":
			e = w.value(Clock)
		case "timeofday":
			const form = "Dy Mon DD HH24:MI:SS.US YYYY TZ"
			c := w.value(Clock)
			e = expr{
				pg.MakeFuncCallNode([]*pg.Node{pg.MakeStrNode("pg_catalog"), pg.MakeStrNode("to_char")}, []*pg.Node{c.node, pg.MakeAConstStrNode(form, -1)}, -1),
				"pg_catalog.to_char(" + c.text + ", '" + form + "')",
			}
		case "random", "gen_random_uuid", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4":
			w.doubt(name.Name + "()")
			return false
		default:
			return false
		}
		w.putCall(n, e, f)
		return true
	case len(f.Args) == 1 && name.Name == "age":
		day := cast(w.value(Now), "date", -1)
		f.Args = []*pg.Node{day.node, f.Args[0]}
		w.ed.append(w.ed.opening(w.ed.at(f.Location)), day.text+", ")
		return false // the argument may have more
	}
	return false
}

// putCall puts an expression in the place of a call without arguments.
func (w *rewriter) putCall(n *pg.Node, e expr, f *pg.FuncCall) {
	first := w.ed.at(f.Location)
	w.put(n, e, first, w.ed.closing(w.ed.opening(first)))
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
	e := expr{}
	switch strings.ToLower(strings.TrimSpace(arg.GetAConst().GetSval().GetSval())) {
	case "now":
		e = w.value(Now)
	case "today":
		e = cast(w.value(Now), "date", -1)
	case "tomorrow":
		e = w.dayAfter("+")
	case "yesterday":
		e = w.dayAfter("-")
	default:
		return false
	}
	at := w.ed.at(arg.GetAConst().Location)
	if c.Location < 0 { // timestamp 'now'
		start := w.ed.at(c.TypeName.Location)
		w.ed.replace(start, at, "CAST("+e.text+" AS "+w.ed.original(start, at-1)+")")
	} else {
		w.ed.replace(at, at, e.text)
	}
	arg.Node = e.node.Node
	return true
}

// dayAfter is the day after today, or before.
func (w *rewriter) dayAfter(op string) expr {
	day := cast(w.value(Now), "date", -1)
	return expr{
		pg.MakeAExprNode(pg.A_Expr_Kind_AEXPR_OP, []*pg.Node{pg.MakeStrNode(op)}, day.node, pg.MakeAConstIntNode(1, 0), -1),
		"(" + day.text + " " + op + " 1)",
	}
}

func (w *rewriter) columns(r *pg.RangeVar) []Column {
	if w.r.Columns == nil || r == nil {
		return nil
	}
	n := w.rangeName(r)
	list := w.r.Columns(n)
	if list == nil && len(w.names.means) > 0 {
		w.doubt("the defaults of table " + n.String() + ", whose name is not understood")
	}
	return list
}

// named finds a column among those that a statement names; -1, it does not.
func (w *rewriter) named(targets []*pg.Node, name string) int {
	return slices.IndexFunc(targets, func(n *pg.Node) bool { return w.names.mean(n.GetResTarget().GetName()) == name })
}

// target is a column as a statement names it.
func (w *rewriter) target(name string) *pg.Node {
	return &pg.Node{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Name: w.names.stand(name)}}}
}

// fresh is a column's default with values put in, if it has any; else ok is false. once
// tells that it is evaluated once in its place, as in VALUES.
func (w *rewriter) fresh(c Column, once bool) (e expr, ok bool) {
	if c.Default == "" || !mayNeed([]byte(c.Default)) {
		return e, false
	}
	if e := w.done[c]; e != nil {
		return *e, true
	}
	was, doubted, outer := w.changed, w.unequal, w.ed
	w.changed = false
	defer func() { w.changed, w.ed = w.changed || was, outer }()
	holder, err := w.enter(c.Default)
	if err != nil {
		w.doubt("the default of column " + c.Name)
		return e, false
	}
	if once {
		w.chances(holder)
	}
	w.all(holder)
	if doubted == "" && w.unequal != "" {
		w.unequal = "the default of column " + c.Name
	}
	if !w.changed {
		return e, false
	}
	if e, err = w.leave(holder); err != nil {
		panic(err)
	}
	if !strings.Contains(e.text, mark) {
		if w.done == nil {
			w.done = make(map[Column]*expr)
		}
		w.done[c] = &e
	}
	return e, true
}

// lead makes a statement of an expression.
const lead = "SELECT "

// enter makes an expression of the servers the text at hand. The node that is returned
// holds it.
func (w *rewriter) enter(text string) (holder *pg.Node, err error) {
	src, _ := readable([]byte(lead+text), w.r.Encoding, w.names)
	if src == nil {
		return nil, errPlace
	}
	tree, err := pg.Parse(string(src.text))
	if err != nil {
		return nil, err
	}
	if len(tree.Stmts) != 1 || len(tree.Stmts[0].Stmt.GetSelectStmt().GetTargetList()) != 1 {
		return nil, errPlace
	}
	w.ed = &editor{source: src}
	return pg.MakeListNode([]*pg.Node{tree.Stmts[0].Stmt.GetSelectStmt().TargetList[0].GetResTarget().Val}), nil
}

// leave gives the expression that enter has given, as it has become.
func (w *rewriter) leave(holder *pg.Node) (expr, error) {
	text, err := w.ed.write(nil)
	return expr{holder.GetList().Items[0], strings.TrimPrefix(text, lead)}, err
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
			w.putCall(n, w.value(Random), f)
		case "gen_random_uuid", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4":
			w.putCall(n, w.value(UUID), f)
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
			w.ed.append(w.ed.exprEnd(w.ed.at(r.Location), false), " AS "+quoted(w.names.mean(before)))
		}
	}
}

// largeObject gives a function the OID of the large object that it makes.
func (w *rewriter) largeObject(f *pg.FuncCall) {
	name := lastTwo(f.Funcname).Name
	switch name {
	case "lo_creat", "lo_create", "lo_from_bytea":
	default:
		return
	}
	end := w.ed.nameEnd(w.ed.at(f.Location))
	open := w.ed.opening(end)
	first, last := open+1, w.ed.exprEnd(open+1, false)
	given := w.largeObjectGiven(f.Args[0], name)
	if given.node == nil {
		return
	}
	if name == "lo_creat" {
		f.Funcname[len(f.Funcname)-1] = pg.MakeStrNode("lo_create")
		w.ed.replace(end, end, "lo_create")
	}
	f.Args[0] = given.node
	w.ed.replace(first, last, given.text)
}

// largeObjectGiven is the OID in place of the argument of a function that makes a large
// object: for those that take one, only if it is 0.
func (w *rewriter) largeObjectGiven(arg *pg.Node, function string) expr {
	if function == "lo_creat" { // it takes a mode
		return w.value(LargeObject)
	}
	if p := arg.GetParamRef(); p != nil { // 0 or another
		param := cast(expr{pg.MakeParamRefNode(p.Number, -1), fmt.Sprintf("$%d", p.Number)}, "oid", -1)
		zero := cast(expr{pg.MakeAConstIntNode(0, -1), "0"}, "oid", -1)
		own := w.value(LargeObject)
		given := &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{Kind: pg.A_Expr_Kind_AEXPR_NULLIF, Name: []*pg.Node{pg.MakeStrNode("=")},
			Lexpr: param.node, Rexpr: zero.node}}}
		return expr{
			&pg.Node{Node: &pg.Node_CoalesceExpr{CoalesceExpr: &pg.CoalesceExpr{Args: []*pg.Node{given, own.node}}}},
			"COALESCE(NULLIF(" + param.text + ", " + zero.text + "), " + own.text + ")",
		}
	}
	if c := arg.GetAConst(); c == nil || c.GetIval() == nil || c.GetIval().Ival != 0 {
		return expr{}
	}
	return w.value(LargeObject)
}

// defaults puts values into SET column = DEFAULT.
func (w *rewriter) defaults(targets []*pg.Node, columns []Column) {
	for _, t := range targets {
		r := t.GetResTarget()
		if r == nil {
			continue
		}
		val := r.Val
		if m := val.GetMultiAssignRef(); m != nil { // SET (a, b) = (DEFAULT, 1)
			if args := m.Source.GetRowExpr().GetArgs(); int(m.Colno) <= len(args) && m.Colno > 0 {
				val = args[m.Colno-1]
			}
		}
		if val.GetSetToDefault() == nil {
			continue
		}
		name := w.names.mean(r.Name)
		if i := slices.IndexFunc(columns, func(c Column) bool { return c.Name == name }); i >= 0 {
			w.putDefault(val, columns[i], false)
		}
	}
}

// putDefault puts a column's default in the place of the word DEFAULT.
func (w *rewriter) putDefault(n *pg.Node, c Column, once bool) {
	at := n.GetSetToDefault().Location
	if e, ok := w.fresh(c, once); ok {
		i := w.ed.at(at)
		w.put(n, e, i, i)
	}
}

// timed are the columns whose default may have something of time or chance.
func timed(columns []Column) (list []Column) {
	for _, c := range columns {
		if mayNeed([]byte(c.Default)) {
			list = append(list, c)
		}
	}
	return list
}

// merge does for MERGE what insert does.
func (w *rewriter) merge(s *pg.MergeStmt) {
	columns := w.columns(s.Relation)
	for _, n := range s.MergeWhenClauses {
		m := n.GetMergeWhenClause()
		if m == nil {
			continue
		}
		if m.CommandType == pg.CmdType_CMD_UPDATE {
			w.defaults(m.TargetList, columns)
		}
		if m.CommandType != pg.CmdType_CMD_INSERT {
			continue
		}
		for i, n := range m.Values {
			if n.GetSetToDefault() == nil {
				continue
			}
			name := ""
			if i < len(m.TargetList) {
				name = w.names.mean(m.TargetList[i].GetResTarget().GetName())
			} else if i < len(columns) && len(m.TargetList) == 0 {
				name = columns[i].Name
			}
			if k := slices.IndexFunc(columns, func(c Column) bool { return c.Name == name }); k >= 0 {
				w.putDefault(n, columns[k], false)
			}
		}
		for _, c := range timed(columns) {
			given := w.named(m.TargetList, c.Name) >= 0
			if len(m.TargetList) == 0 {
				given = slices.IndexFunc(columns, func(o Column) bool { return o.Name == c.Name }) < len(m.Values)
			}
			if given {
				continue
			}
			if len(m.TargetList) == 0 || !c.Insert {
				w.doubt("the default of column " + c.Name + ", which MERGE leaves out")
				continue
			}
			if e, ok := w.fresh(c, false); ok {
				list := w.ed.closing(w.ed.at(m.TargetList[0].GetResTarget().Location) - 1)
				values := w.ed.closing(w.ed.find(list, "values") + 1)
				w.ed.insert(list, ", "+quoted(c.Name))
				w.ed.insert(values, ", "+e.text)
				m.TargetList = append(m.TargetList, w.target(c.Name))
				m.Values = append(m.Values, e.node)
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
	late := timed(columns)
	var ends []int // the last tokens of rows and lists of results
	if sel != nil && len(late) > 0 {
		ends = w.rowEnds(nil, sel)
	}
	if values && sel != nil {
		for _, row := range sel.ValuesLists {
			w.chances(row)
		}
	}
	if !values && len(sel.GetFromClause()) == 0 && sel.GetOp() == pg.SetOperation_SETOP_NONE {
		w.once(sel)
	}
	if len(late) == 0 {
		return
	}
	given := s.Cols
	if len(given) == 0 && sel != nil {
		width := targets(sel)
		if width < 0 {
			w.doubt("the defaults of columns, for it is not known how many SELECT * gives")
			return
		}
		if width > len(columns) {
			return // an error
		}
		for _, c := range columns[:width] {
			given = append(given, w.target(c.Name))
		}
	}
	var added []Column
	var defaults [][]expr // of each of the columns, for each row or branch
	for _, c := range late {
		if at := w.named(given, c.Name); at >= 0 {
			for _, row := range sel.GetValuesLists() {
				if items := row.GetList().Items; at < len(items) && items[at].GetSetToDefault() != nil {
					w.putDefault(items[at], c, true)
				}
			}
			continue
		}
		if !c.Insert { // naming it would be refused
			w.doubt("the default of column " + c.Name)
			continue
		}
		n := len(ends)
		if sel == nil {
			n = 1
		}
		list := make([]expr, 0, n)
		for range n {
			if e, ok := w.fresh(c, values && (sel == nil || sel.Larg == nil)); ok {
				list = append(list, e)
			}
		}
		if len(list) == n {
			added, defaults = append(added, c), append(defaults, list)
		}
	}
	if len(added) == 0 {
		return
	}
	var names strings.Builder
	for i, c := range added {
		if i > 0 || len(given) > 0 {
			names.WriteString(", ")
		}
		names.WriteString(quoted(c.Name))
	}
	end := w.ed.nameEnd(w.ed.at(s.Relation.Location))
	if w.ed.word(end+1, "as") {
		end += 2
	}
	switch {
	case sel == nil:
		sel = &pg.SelectStmt{ValuesLists: []*pg.Node{pg.MakeListNode(nil)}, LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE}
		s.SelectStmt = &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: sel}}
		texts := make([]string, len(added))
		for i := range added {
			texts[i] = defaults[i][0].text
			sel.ValuesLists[0].GetList().Items = append(sel.ValuesLists[0].GetList().Items, defaults[i][0].node)
		}
		from := w.ed.find(end+1, "default")
		w.ed.replace(from, from+1, "("+names.String()+") VALUES ("+strings.Join(texts, ", ")+")")
	default:
		if len(s.Cols) > 0 {
			w.ed.insert(w.ed.closing(w.ed.at(s.Cols[0].GetResTarget().Location)-1), names.String())
		} else {
			var all strings.Builder
			for i, t := range given {
				if i > 0 {
					all.WriteString(", ")
				}
				all.WriteString(quoted(w.names.mean(t.GetResTarget().Name)))
			}
			w.ed.append(end, " ("+all.String()+names.String()+")")
		}
		for i, at := range ends {
			var texts strings.Builder
			for k := range added {
				texts.WriteString(", " + defaults[k][i].text)
			}
			if w.ed.word(at, "table") {
				last := at
				if w.ed.word(at+1, "only") {
					w.ed.replace(at, at+1, "SELECT *"+texts.String()+" FROM ONLY")
				} else {
					w.ed.replace(at, last, "SELECT *"+texts.String()+" FROM")
				}
			} else {
				w.ed.append(at, texts.String())
			}
		}
		k := 0
		appendDefaults(sel, defaults, &k)
	}
	s.Cols = given
	for _, c := range added {
		s.Cols = append(s.Cols, w.target(c.Name))
	}
}

// rowEnds are the last tokens of the rows or lists of results that an INSERT takes, of
// all branches of a set operation; of TABLE, which has none, that word.
func (w *rewriter) rowEnds(ends []int, s *pg.SelectStmt) []int {
	if s.Larg != nil || s.Rarg != nil {
		return w.rowEnds(w.rowEnds(ends, s.Larg), s.Rarg)
	}
	if len(s.ValuesLists) == 0 {
		if len(s.TargetList) == 0 {
			panic(errPlace)
		}
		if at := s.TargetList[0].GetResTarget().GetLocation(); at >= 0 {
			return append(ends, w.ed.exprEnd(w.ed.at(at), true))
		}
		i := w.ed.at(s.FromClause[0].GetRangeVar().GetLocation()) - 1
		for !w.ed.word(i, "table") {
			if !w.ed.is(i, '(') && !w.ed.word(i, "only") || i < 0 {
				panic(errPlace)
			}
			i--
		}
		return append(ends, i)
	}
	// VALUES stands in front of all that its first row has.
	first := int32(-1)
	each(s.ValuesLists[0], func(n *pg.Node) bool {
		if at := location(n); at >= 0 && (first < 0 || at < first) {
			first = at
		}
		return true
	})
	i := w.ed.at(first)
	for !w.ed.word(i, "values") {
		if i--; i < 0 {
			panic(errPlace)
		}
	}
	for range s.ValuesLists {
		if i++; !w.ed.is(i, '(') {
			panic(errPlace)
		}
		i = w.ed.closing(i)
		ends = append(ends, i-1)
		i++ // the comma
	}
	return ends
}

// location is where a node stands in the text; -1, that is not known.
func location(n *pg.Node) int32 {
	if n.Node == nil {
		return -1
	}
	m := reflect.ValueOf(n.Node).Elem().Field(0)
	if m.Kind() != reflect.Pointer || m.IsNil() {
		return -1
	}
	if f := m.Elem().FieldByName("Location"); f.IsValid() {
		return int32(f.Int())
	}
	return -1
}

// appendDefaults adds columns' defaults to every row of an INSERT's source. k counts
// the rows.
func appendDefaults(s *pg.SelectStmt, defaults [][]expr, k *int) {
	switch {
	case s.Larg != nil || s.Rarg != nil:
		appendDefaults(s.Larg, defaults, k)
		appendDefaults(s.Rarg, defaults, k)
	case len(s.ValuesLists) == 0:
		for _, d := range defaults {
			s.TargetList = append(s.TargetList, pg.MakeResTargetNodeWithVal(d[*k].node, -1))
		}
		*k++
	default:
		for _, row := range s.ValuesLists {
			for _, d := range defaults {
				row.GetList().Items = append(row.GetList().Items, d[*k].node)
			}
			*k++
		}
	}
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
	src, _ := readable(sql, Plain, &foreignNames{})
	if src == nil {
		return nil, false
	}
	tree, err := pg.Parse(string(src.text))
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
