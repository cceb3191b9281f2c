package parser

import (
	"google.golang.org/protobuf/proto"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// What may come out differently on each node, and is only told.

// doubt notes the first thing that may differ between nodes.
func (w *rewriter) doubt(what string) {
	if w.unequal == "" {
		w.unequal = what
	}
}

// chosen looks for rows that a statement which writes chooses by other things than
// what they say.
func (w *rewriter) chosen(n *pg.Node) {
	each(n, func(n *pg.Node) bool {
		switch x := n.Node.(type) {
		case *pg.Node_SelectStmt:
			if s := x.SelectStmt; s.LimitCount != nil && len(s.SortClause) == 0 && len(s.FromClause) > 0 {
				w.doubt("which rows a LIMIT takes without an ORDER BY")
			}
		case *pg.Node_LockingClause:
			if x.LockingClause.WaitPolicy == pg.LockWaitPolicy_LockWaitSkip {
				w.doubt("which rows others have locked, by SKIP LOCKED")
			}
		case *pg.Node_RangeTableSample:
			w.doubt("which rows TABLESAMPLE takes")
		}
		return true
	})
}

// view looks at the query of a materialized view, which is kept as it is and run
// at once.
func (w *rewriter) view(query *pg.Node) {
	other := rewriter{r: w.r, names: w.names, ed: &editor{source: w.ed.source}, params: w.params}
	if other.all(proto.Clone(query).(*pg.Node)); other.changed {
		w.doubt("the time at which each node fills the materialized view")
	} else if other.unequal != "" {
		w.doubt(other.unequal)
	}
}
