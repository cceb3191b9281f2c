package parser

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// statement gives the verdict on one statement. text yields the statement's own
// text; it is asked for only where the verdict must hold it.
func statement(n *pg.Node, text func() string) *Verdict {
	v := &Verdict{}
	w := walker{v: v}
	switch x := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		w.query(n, text)
	case *pg.Node_InsertStmt:
		v.Class, v.Kind = Insert, KindInsert
		w.query(n, text)
	case *pg.Node_UpdateStmt:
		v.Class, v.Kind = Update, KindUpdate
		w.query(n, text)
	case *pg.Node_DeleteStmt:
		v.Class, v.Kind = Delete, KindDelete
		w.query(n, text)
	case *pg.Node_MergeStmt:
		v.Class = Merge
		w.query(n, text)
	case *pg.Node_CopyStmt:
		w.copy(x.CopyStmt, text)
	case *pg.Node_ExplainStmt:
		w.explain(x.ExplainStmt, text)
	case *pg.Node_VariableShowStmt:
		v.Class, v.Reads = Show, true
		v.Name = fold(x.VariableShowStmt.Name)
		if v.Name == "all" {
			v.Name = ""
		}
	case *pg.Node_VariableSetStmt:
		v.set(x.VariableSetStmt, text())
	case *pg.Node_TransactionStmt:
		v.transaction(x.TransactionStmt)
	case *pg.Node_DiscardStmt:
		v.discard(x.DiscardStmt, text())
	case *pg.Node_ConstraintsSetStmt:
		v.Class = SetConstraints
	case *pg.Node_LockStmt:
		v.Class, v.Locks = Lock, true
		v.LightLock = x.LockStmt.Mode <= 2 // ACCESS SHARE is 1, ROW SHARE 2
		w.nodes(x.LockStmt.Relations)
	case *pg.Node_TruncateStmt:
		v.Class, v.Kind, v.Writes = Truncate, KindDDL, true
		for _, r := range x.TruncateStmt.Relations {
			w.target(r.GetRangeVar())
		}
		w.done()
	case *pg.Node_PrepareStmt:
		v.inner(Prepare, x.PrepareStmt.Query, text)
		v.Name, v.Text = x.PrepareStmt.Name, text()
	case *pg.Node_ExecuteStmt:
		v.Class, v.Opaque, v.Name = Execute, true, x.ExecuteStmt.Name
		w.nodes(x.ExecuteStmt.Params)
	case *pg.Node_DeallocateStmt:
		v.Class, v.Name = Deallocate, x.DeallocateStmt.Name
	case *pg.Node_DeclareCursorStmt:
		v.inner(Declare, x.DeclareCursorStmt.Query, text)
		v.Name = x.DeclareCursorStmt.Portalname
		v.Hold = x.DeclareCursorStmt.Options&cursorHold != 0
	case *pg.Node_FetchStmt:
		v.Class, v.Name = Fetch, x.FetchStmt.Portalname
	case *pg.Node_ClosePortalStmt:
		v.Class, v.Name = CloseCursor, x.ClosePortalStmt.Portalname
	case *pg.Node_ListenStmt:
		v.Class, v.Name = Listen, x.ListenStmt.Conditionname
	case *pg.Node_UnlistenStmt:
		v.Class, v.Name = Unlisten, x.UnlistenStmt.Conditionname
	case *pg.Node_NotifyStmt:
		v.Class, v.Name = Notify, x.NotifyStmt.Conditionname
	case *pg.Node_CallStmt:
		v.Class, v.Writes, v.Opaque = Call, true, true
		w.call(x.CallStmt.Funccall)
		w.settings(n, text)
	case *pg.Node_DoStmt:
		v.Class, v.Writes, v.Opaque, v.Catalog = Do, true, true, true
	case *pg.Node_VacuumStmt, *pg.Node_ClusterStmt, *pg.Node_ReindexStmt, *pg.Node_CheckPointStmt, *pg.Node_LoadStmt:
		v.Class, v.Writes = Maintenance, true
	case *pg.Node_RefreshMatViewStmt:
		v.Class, v.Writes = Maintenance, true
		w.target(x.RefreshMatViewStmt.Relation)
		w.done()
	default:
		w.ddl(n)
	}
	return v
}

// cursorHold is CURSOR_OPT_HOLD of PostgreSQL.
const cursorHold = 0x20

// query finishes SELECT, INSERT, UPDATE, DELETE and MERGE, and SELECT INTO.
func (w *walker) query(n *pg.Node, text func() string) {
	v := w.v
	w.node(n)
	if v.Class == Unknown {
		v.Class, v.Kind = Select, KindSelect
	}
	if w.into != nil {
		v.Class, v.Writes = SelectInto, true
		w.creates(w.into.Rel, w.into.OnCommit)
		w.ddlDone()
	}
	w.settings(n, text)
	w.done()
	v.Reads = v.Class == Select && !v.Writes && !v.Locks
	v.Terminates = terminates(n.GetSelectStmt())
	v.shareable = !v.SetsConfig && w.into == nil && !calls(v, "pg_terminate_backend")
}

// done works out what is written.
func (w *walker) done() {
	if w.wide {
		w.v.Written = w.v.Relations
	} else {
		w.v.Written = w.targets
	}
}

// inner reads the statement inside another and takes over what it names.
func (v *Verdict) inner(c Class, n *pg.Node, text func() string) {
	in := statement(n, text)
	v.Class, v.Inner = c, in
	v.Locks, v.WritingWith, v.Opaque = in.Locks, in.WritingWith, in.Opaque
	v.Relations, v.Functions, v.Operators = in.Relations, in.Functions, in.Operators
}

// copy reads COPY.
func (w *walker) copy(c *pg.CopyStmt, text func() string) {
	v := w.v
	switch {
	case c.Filename != "" || c.IsProgram:
		v.Class, v.Writes = CopyFile, true
	case c.IsFrom:
		v.Class, v.Writes = CopyIn, true
	default:
		v.Class = CopyOut
	}
	if c.Query != nil {
		class := v.Class
		v.inner(class, c.Query, text)
		v.Written = v.Inner.Written
		v.Writes = v.Writes || v.Inner.Writes
		v.Settings, v.SettingsUnknown, v.SetsConfig = v.Inner.Settings, v.Inner.SettingsUnknown, v.Inner.SetsConfig
		v.Reads = class == CopyOut && v.Inner.Reads
		return
	}
	if c.IsFrom {
		w.target(c.Relation)
	} else {
		w.relation(c.Relation)
	}
	w.node(c.WhereClause)
	w.done()
	v.Reads = v.Class == CopyOut
}

// explain reads EXPLAIN.
func (w *walker) explain(e *pg.ExplainStmt, text func() string) {
	v := w.v
	v.inner(Explain, e.Query, text)
	for _, o := range e.Options {
		if d := o.GetDefElem(); d != nil && d.Defname == "analyze" {
			v.Analyze = isTrue(d.Arg)
		}
	}
	if v.Analyze {
		in := v.Inner
		v.Writes, v.Written, v.Creates, v.Catalog = in.Writes, in.Written, in.Creates, in.Catalog
		v.Settings, v.SettingsUnknown, v.SetsConfig = in.Settings, in.SettingsUnknown, in.SetsConfig
		v.Reads = in.Reads
		return
	}
	v.Reads = true
}

// isTrue reads a boolean option as PostgreSQL does; what is odd counts as true.
func isTrue(n *pg.Node) bool {
	if n == nil {
		return true
	}
	switch s := strings.ToLower(constText(n)); s {
	case "false", "off", "0":
		return false
	}
	return true
}

// terminates finds SELECT pg_terminate_backend(<integer>) and nothing else.
func terminates(s *pg.SelectStmt) int {
	if s == nil || len(s.TargetList) != 1 || !bare(s) {
		return 0
	}
	f := s.TargetList[0].GetResTarget().GetVal().GetFuncCall()
	if f == nil || len(f.Args) != 1 {
		return 0
	}
	if n := lastTwo(f.Funcname); n.Name != "pg_terminate_backend" || n.Schema != "" && n.Schema != "pg_catalog" {
		return 0
	}
	return int(f.Args[0].GetAConst().GetIval().GetIval())
}

func calls(v *Verdict, function string) bool {
	return slices.ContainsFunc(v.Functions, func(n Name) bool { return n.Name == function })
}

// bare tells that a SELECT is a target list and nothing else: evaluated exactly once.
func bare(s *pg.SelectStmt) bool {
	return len(s.FromClause) == 0 && s.WhereClause == nil && len(s.GroupClause) == 0 && s.HavingClause == nil &&
		s.LimitCount == nil && s.LimitOffset == nil && s.WithClause == nil && s.Larg == nil && len(s.ValuesLists) == 0 &&
		s.IntoClause == nil && len(s.DistinctClause) == 0
}

// creates adds a relation that the statement makes.
func (w *walker) creates(r *pg.RangeVar, end pg.OnCommitAction) {
	if r == nil {
		return
	}
	w.v.Creates = append(w.v.Creates, Object{
		Name:         rangeName(r),
		Temp:         r.Relpersistence == "t" || r.Schemaname == "pg_temp",
		Unlogged:     r.Relpersistence == "u",
		OnCommitDrop: end == pg.OnCommitAction_ONCOMMIT_DROP,
	})
}

// createsInTemp adds a type or function, if the session alone will have it; else
// the catalog cache is out of date.
func (w *walker) createsInTemp(n Name) {
	if n.Schema == "pg_temp" {
		w.v.Creates = append(w.v.Creates, Object{Name: n, Temp: true})
	} else {
		w.v.Catalog = true
	}
}

// ddlDone: the catalog cache is out of date, unless only temporary relations are concerned.
func (w *walker) ddlDone() {
	for _, o := range w.v.Creates {
		if !o.Temp {
			w.v.Catalog = true
		}
	}
}

// ddl reads everything else: it changes the schema, roles, privileges, comments.
func (w *walker) ddl(n *pg.Node) {
	v := w.v
	v.Class, v.Kind, v.Writes, v.Everywhere, v.Enclosable = DDL, KindDDL, true, changesAll(n), enclosable(n)
	switch x := n.GetNode().(type) {
	case *pg.Node_CreateStmt:
		w.creates(x.CreateStmt.Relation, x.CreateStmt.Oncommit)
		w.below(n)
		w.ddlDone()
	case *pg.Node_CompositeTypeStmt:
		w.createsInTemp(rangeName(x.CompositeTypeStmt.Typevar))
		w.below(x.CompositeTypeStmt)
	case *pg.Node_CreateEnumStmt:
		w.createsInTemp(lastTwo(x.CreateEnumStmt.TypeName))
	case *pg.Node_CreateRangeStmt:
		w.createsInTemp(lastTwo(x.CreateRangeStmt.TypeName))
		w.below(x.CreateRangeStmt)
	case *pg.Node_CreateDomainStmt:
		w.createsInTemp(lastTwo(x.CreateDomainStmt.Domainname))
		w.below(x.CreateDomainStmt)
	case *pg.Node_CreateFunctionStmt:
		w.createsInTemp(lastTwo(x.CreateFunctionStmt.Funcname))
		w.below(x.CreateFunctionStmt)
	case *pg.Node_CreatedbStmt:
		for _, o := range x.CreatedbStmt.Options {
			if d := o.GetDefElem(); d.GetDefname() == "template" {
				v.Database = d.GetArg().GetString_().GetSval()
			}
		}
	case *pg.Node_DropdbStmt:
		v.Database = x.DropdbStmt.Dbname
	case *pg.Node_AlterDatabaseStmt:
		for _, o := range x.AlterDatabaseStmt.Options {
			if o.GetDefElem().GetDefname() == "tablespace" {
				v.Database = x.AlterDatabaseStmt.Dbname
			}
		}
	case *pg.Node_CreateTableAsStmt:
		s := x.CreateTableAsStmt
		w.node(s.Query)
		w.creates(s.Into.GetRel(), s.Into.GetOnCommit())
		w.ddlDone()
	case *pg.Node_ViewStmt:
		w.node(x.ViewStmt.Query)
		w.creates(x.ViewStmt.View, pg.OnCommitAction_ONCOMMIT_NOOP)
		w.ddlDone()
	case *pg.Node_CreateSeqStmt:
		w.creates(x.CreateSeqStmt.Sequence, pg.OnCommitAction_ONCOMMIT_NOOP)
		w.ddlDone()
	case *pg.Node_DropStmt:
		w.drop(x.DropStmt)
	case *pg.Node_RenameStmt:
		s := x.RenameStmt
		if s.RenameType == pg.ObjectType_OBJECT_DATABASE {
			v.Database = s.Subname
			break
		}
		v.Catalog = true
		if s.Relation != nil {
			v.Relations = addName(v.Relations, rangeName(s.Relation))
			switch s.RenameType {
			case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW,
				pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_FOREIGN_TABLE:
				v.Renames = []Rename{{From: rangeName(s.Relation), To: s.Newname}}
			}
		}
	case *pg.Node_GrantStmt, *pg.Node_GrantRoleStmt, *pg.Node_CommentStmt, *pg.Node_SecLabelStmt, *pg.Node_AlterDefaultPrivilegesStmt,
		*pg.Node_CreateRoleStmt, *pg.Node_AlterRoleStmt, *pg.Node_AlterRoleSetStmt, *pg.Node_DropRoleStmt, *pg.Node_AlterSystemStmt,
		*pg.Node_AlterDatabaseSetStmt, *pg.Node_IndexStmt,
		*pg.Node_CreateStatsStmt, *pg.Node_AlterStatsStmt, *pg.Node_CreateTableSpaceStmt, *pg.Node_DropTableSpaceStmt,
		*pg.Node_CreatePublicationStmt, *pg.Node_AlterPublicationStmt, *pg.Node_CreateTrigStmt:
		// None of these changes what a name stands for.
		w.below(n)
	default:
		w.below(n)
		v.Catalog = true
	}
}

// changesAll tells the statements whose effect is not bound to one database.
func changesAll(n *pg.Node) bool {
	switch x := n.GetNode().(type) {
	case *pg.Node_GrantRoleStmt, *pg.Node_CreateRoleStmt, *pg.Node_AlterRoleStmt, *pg.Node_AlterRoleSetStmt, *pg.Node_DropRoleStmt,
		*pg.Node_AlterSystemStmt, *pg.Node_CreatedbStmt, *pg.Node_DropdbStmt, *pg.Node_AlterDatabaseStmt, *pg.Node_AlterDatabaseSetStmt,
		*pg.Node_AlterDatabaseRefreshCollStmt, *pg.Node_DropOwnedStmt, *pg.Node_ReassignOwnedStmt:
		return true
	case *pg.Node_RenameStmt:
		return x.RenameStmt.RenameType == pg.ObjectType_OBJECT_DATABASE || x.RenameStmt.RenameType == pg.ObjectType_OBJECT_ROLE
	}
	return false
}

// drop reads DROP.
func (w *walker) drop(s *pg.DropStmt) {
	v := w.v
	switch s.RemoveType {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW,
		pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_FOREIGN_TABLE:
		for _, o := range s.Objects {
			n := lastTwo(o.GetList().GetItems())
			v.Drops = append(v.Drops, n)
			v.Relations = addName(v.Relations, n)
		}
		v.Catalog = true
	case pg.ObjectType_OBJECT_INDEX, pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_POLICY,
		pg.ObjectType_OBJECT_STATISTIC_EXT, pg.ObjectType_OBJECT_PUBLICATION:
	default:
		v.Catalog = true
	}
}
