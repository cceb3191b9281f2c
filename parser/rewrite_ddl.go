package parser

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// alter puts values into the defaults of columns that ALTER TABLE adds: the rows
// that there are get them at once. Rows to come are to get what was written, which
// the same ALTER TABLE sets as the default afterwards.
func (w *rewriter) alter(a *pg.AlterTableStmt) {
	var later []*pg.Node
	for _, n := range a.Cmds {
		cmd := n.GetAlterTableCmd()
		if cmd.GetSubtype() != pg.AlterTableType_AT_AddColumn {
			continue
		}
		col := cmd.Def.GetColumnDef()
		if cmd.MissingOk {
			columns := w.columns(a.Relation)
			if slices.ContainsFunc(columns, func(c Column) bool { return c.Name == col.Colname }) {
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
				text, err := expression(con.RawExpr)
				if err != nil {
					w.doubt("the default of column " + col.Colname)
					continue
				}
				if strings.Contains(strings.ToLower(text), "nextval") {
					w.doubt("the order in which each node has stored the rows that are numbered")
				}
				if e := w.fresh(Column{Name: col.Colname, Default: text}, false); e != nil {
					later = append(later, &pg.Node{Node: &pg.Node_AlterTableCmd{AlterTableCmd: &pg.AlterTableCmd{
						Subtype: pg.AlterTableType_AT_ColumnDefault, Name: col.Colname, Def: con.RawExpr, Behavior: pg.DropBehavior_DROP_RESTRICT,
					}}})
					con.RawExpr = e
				}
			}
		}
	}
	a.Cmds = append(a.Cmds, later...)
}

// expression is an expression's text.
func expression(e *pg.Node) (string, error) {
	const lead = "SELECT "
	tree, err := pg.Parse(lead + "1")
	if err != nil {
		return "", err
	}
	tree.Stmts[0].Stmt.GetSelectStmt().TargetList[0].GetResTarget().Val = e
	text, err := pg.Deparse(tree)
	return strings.TrimPrefix(text, lead), err
}
