package parser

import (
	"math"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// alter puts values into the defaults of columns that ALTER TABLE adds: the rows
// that there are get them at once. Rows to come are to get what was written, which
// the same ALTER TABLE sets as the default afterwards.
func (w *rewriter) alter(a *pg.AlterTableStmt, last int) {
	var later []*pg.Node
	for _, n := range a.Cmds {
		cmd := n.GetAlterTableCmd()
		if cmd.GetSubtype() != pg.AlterTableType_AT_AddColumn {
			continue
		}
		col := cmd.Def.GetColumnDef()
		if cmd.MissingOk {
			columns := w.columns(a.Relation)
			if slices.ContainsFunc(columns, func(c Column) bool { return c.Name == w.names.mean(col.Colname) }) {
				continue // nothing is added, and its default is another
			}
			if columns == nil {
				w.doubt("the default of column " + col.Colname)
				continue
			}
		}
		if strings.HasSuffix(lastTwo(col.TypeName.GetNames()).Name, "serial") {
			w.doubt("the order in which each node has stored the rows that are numbered")
		}
		for _, n := range col.Constraints {
			con := n.GetConstraint()
			switch con.GetContype() {
			case pg.ConstrType_CONSTR_IDENTITY:
				w.doubt("the order in which each node has stored the rows that are numbered")
			case pg.ConstrType_CONSTR_DEFAULT:
				first, end := w.constraint(col, con)
				text := w.ed.original(first, end)
				if strings.Contains(strings.ToLower(text), "nextval") {
					w.doubt("the order in which each node has stored the rows that are numbered")
				}
				name := w.names.mean(col.Colname)
				if e, ok := w.fresh(Column{Name: name, Default: text}, false); ok {
					later = append(later, &pg.Node{Node: &pg.Node_AlterTableCmd{AlterTableCmd: &pg.AlterTableCmd{
						Subtype: pg.AlterTableType_AT_ColumnDefault, Name: col.Colname, Def: con.RawExpr, Behavior: pg.DropBehavior_DROP_RESTRICT,
					}}})
					con.RawExpr = e.node
					w.ed.replace(first, end, "("+e.text+")")
					w.ed.append(last, ", ALTER COLUMN "+quoted(name)+" SET DEFAULT "+text)
				}
			}
		}
	}
	a.Cmds = append(a.Cmds, later...)
}

// constraint gives the first and last tokens of a column's DEFAULT.
func (w *rewriter) constraint(col *pg.ColumnDef, con *pg.Constraint) (first, last int) {
	first = w.ed.find(w.ed.at(con.Location), "default") + 1
	next := int32(math.MaxInt32)
	for _, n := range col.Constraints {
		if at := n.GetConstraint().GetLocation(); at > con.Location {
			next = min(next, at)
		}
	}
	if at := col.CollClause.GetLocation(); col.CollClause != nil && at > con.Location {
		next = min(next, at)
	}
	for last = first; last+1 < len(w.ed.toks); last++ {
		switch t := w.ed.toks[last]; t.kind {
		case '(', '[':
			last = w.ed.closing(last)
		}
		if t := w.ed.toks[min(last+1, len(w.ed.toks)-1)]; t.at >= int(next) || t.kind == ',' || t.kind == ')' || t.kind == ';' {
			break
		}
	}
	return first, min(last, len(w.ed.toks)-1)
}
