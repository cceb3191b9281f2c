package parser

import (
	"reflect"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// COPY FROM STDIN has no place for the default of a column that it leaves out. So
// such a column is listed, in front of the client's, and its value is put into the
// data by whoever passes that on.

// A Filling is what is put into the data of a COPY FROM STDIN.
type Filling struct {
	Form    CopyForm
	Columns []Filled
}

// A Filled is a column that gets its values from us.
type Filled struct {
	Name string
	// At is the column's place among those of the client's data, where it gets a value
	// for CopyForm.Default. Below 0 the data does not have it: it is put in front, as
	// are the columns of Filling before it, in their order.
	At   int
	Type string // without modifiers: they are COPY's to apply
	Expr string // gives the value; the time in it is the main node's
	// Every row needs a new value. Known is what kind, if Expr need not be asked for.
	Every, Known bool
	Chance       Chance
}

// A CopyForm is how the data of a COPY is written.
type CopyForm struct {
	CSV, Binary             bool
	Delimiter               byte
	Quote, Escape           byte // of CSV
	Null                    string
	Default                 string // stands for a column's default
	HasDefault              bool
	Header                  int  // so many lines
	Match                   bool // the header has the names of the columns
	Encoding                string
	ForceNull, ForceNotNull bool // for all columns
}

// copyForm reads options. ok is false if the server will refuse them, or if they are
// not understood.
func copyForm(options []*pg.Node) (f CopyForm, ok bool) {
	given := make(map[string]bool)
	for _, n := range options {
		o := n.GetDefElem()
		if o == nil || given[o.Defname] {
			return f, false
		}
		given[o.Defname] = true
		text := o.Arg.GetString_().GetSval()
		switch o.Defname {
		case "format":
			switch text {
			case "text":
			case "csv":
				f.CSV = true
			case "binary":
				f.Binary = true
			default:
				return f, false
			}
		case "delimiter", "quote", "escape":
			if len(text) != 1 {
				return f, false
			}
			switch o.Defname[0] {
			case 'd':
				f.Delimiter = text[0]
			case 'q':
				f.Quote = text[0]
			default:
				f.Escape = text[0]
			}
		case "null":
			f.Null = text
		case "default":
			f.Default, f.HasDefault = text, true
		case "encoding":
			f.Encoding = text
		case "header":
			switch {
			case o.Arg == nil:
				f.Header = 1
			case o.Arg.GetInteger() != nil:
				f.Header = int(o.Arg.GetInteger().Ival)
			case o.Arg.GetBoolean() != nil:
				if o.Arg.GetBoolean().Boolval {
					f.Header = 1
				}
			default:
				switch strings.ToLower(text) {
				case "true", "on":
					f.Header = 1
				case "match":
					f.Header, f.Match = 1, true
				case "false", "off":
				default:
					return f, false
				}
			}
		case "force_null":
			f.ForceNull = o.Arg.GetAStar() != nil
		case "force_not_null":
			f.ForceNotNull = o.Arg.GetAStar() != nil
		case "freeze", "on_error", "log_verbosity", "reject_limit", "force_quote":
		default:
			return f, false
		}
	}
	if f.Delimiter == 0 {
		if f.Delimiter = '\t'; f.CSV {
			f.Delimiter = ','
		}
	}
	if f.Quote == 0 {
		f.Quote = '"'
	}
	if f.Escape == 0 {
		f.Escape = f.Quote
	}
	if !given["null"] && !f.CSV {
		f.Null = `\N`
	}
	if f.HasDefault && f.Encoding != "" && strings.ContainsFunc(f.Default, func(r rune) bool { return r >= 0x80 }) {
		return f, false // in the data it is in another encoding
	}
	return f, f.Header >= 0
}

// copied sees to a COPY FROM. What cannot be filled is doubted: the defaults are each
// node's own.
func (w *rewriter) copied(c *pg.CopyStmt) {
	if c.WhereClause != nil {
		w.all(c.WhereClause)
	}
	form, formed := copyForm(c.Options)
	able := formed && w.lone && !w.r.Params && w.r.Steady != nil && c.Filename == "" && !c.IsProgram
	fill := Filling{Form: form}
	var front []*pg.Node
	var names string
	place := 0
	for _, col := range w.columns(c.Relation) {
		at := slices.IndexFunc(c.Attlist, func(n *pg.Node) bool { return w.names.mean(n.GetString_().GetSval()) == col.Name })
		if len(c.Attlist) == 0 && !col.Generated {
			at = place
			place++
		}
		if at >= 0 && !form.HasDefault {
			continue
		}
		f, need, ok := w.filled(w.rangeName(c.Relation), col)
		switch {
		case !need:
			continue
		case !able, !ok, form.Binary && !col.Binary, at < 0 && !col.Insert:
			w.doubt("the default of column " + col.Name + ", which COPY leaves out")
			continue
		}
		f.At = at
		fill.Columns = append(fill.Columns, f)
		if at < 0 {
			front = append(front, pg.MakeStrNode(w.names.stand(col.Name)))
			names += quoted(col.Name) + ", "
		}
	}
	if len(fill.Columns) > 0 {
		w.fill = &fill
	}
	if len(front) > 0 {
		c.Attlist = append(front, c.Attlist...)
		w.changed = true
		list := w.ed.nameEnd(w.ed.at(c.Relation.Location)) + 1
		if !w.ed.is(list, '(') {
			panic(errPlace)
		}
		w.ed.append(list, names)
	}
}

// filled makes of a column's default what can be put into data, if it differs
// between nodes. ok is false if that cannot be done: a value is asked for once, or
// of one node alone, which is no way to call functions of users.
func (w *rewriter) filled(table Name, col Column) (f Filled, need, ok bool) {
	if !mayNeed([]byte(col.Default)) {
		return f, false, true
	}
	f = Filled{Name: col.Name, Type: col.Type}
	// With values for what is chance, too: what is left is to be steady.
	once := rewriter{r: Replace{Value: w.r.Value, Encoding: w.r.Encoding}, names: w.names}
	holder, err := once.enter(col.Default)
	if err != nil {
		return f, true, false
	}
	f.Chance, f.Known = knownChance(holder.GetList().Items[0], col.Type)
	once.chances(holder)
	f.Every = once.changed
	once.all(holder)
	if !once.changed {
		return f, once.unequal != "", false
	}
	if f.Known {
		return f, true, true
	}
	text, exact := once.exact(holder)
	if !exact || once.unequal != "" || w.r.Steady == nil || !w.r.Steady(table, col, text) {
		return f, true, false
	}
	if f.Expr = text; f.Every {
		each := rewriter{r: once.r, names: w.names}
		if holder, err = each.enter(col.Default); err != nil {
			return f, true, false
		}
		each.all(holder)
		if f.Expr, exact = each.exact(holder); !exact {
			return f, true, false
		}
	}
	return f, true, true
}

// knownChance tells whether an expression is nothing but a new uuid or random number,
// as a column of that type has it.
func knownChance(e *pg.Node, typ string) (Chance, bool) {
	texts := typ == "text" || typ == "character varying"
	if c := e.GetTypeCast(); c != nil && texts && lastTwo(c.TypeName.GetNames()).Name == "text" && len(c.TypeName.GetArrayBounds()) == 0 {
		e = c.Arg
	}
	f := e.GetFuncCall()
	if f == nil || len(f.Args) > 0 {
		return 0, false
	}
	switch lastTwo(f.Funcname).Name {
	case "random":
		return Random, typ == "double precision"
	case "gen_random_uuid", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4":
		return UUID, typ == "uuid" || texts
	}
	return 0, false
}

// exact is the text of an expression that has been entered, if it means the same.
func (w *rewriter) exact(holder *pg.Node) (string, bool) {
	e, err := w.leave(holder)
	if err != nil {
		return "", false
	}
	text := settled(e.text, nil)
	again := rewriter{r: w.r, names: w.names}
	other, err := again.enter(text)
	return text, err == nil && alike(reflect.ValueOf(e.node), reflect.ValueOf(other.GetList().Items[0]))
}
