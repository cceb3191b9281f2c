package route

import (
	"slices"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/cluster"
)

// Input is all that a decision considers.
type Input struct {
	Verdict *parser.Verdict
	// Text is the statement as the client sent it, for primary_routing_query_pattern_list.
	Text []byte
	// Facts are the catalog's; nil: its names have not been looked up. See Needs.
	Facts   *Facts
	Session *Session
	Cluster *cluster.Snapshot
	Rules   *Rules

	// Extended: the statement came by Parse.
	Extended bool
	// Random is in [0,1) and decides a draw, if one is made.
	Random float64
	// Home is the node where a prepared statement or its pipeline is already, as
	// id+1; 0: nowhere. A read stays there if nothing speaks against it.
	Home int
	// Prepared is what EXECUTE and DEALLOCATE name; nil if that is not known.
	Prepared *Prepared
	// Process is the node of the server process that the statement's
	// pg_terminate_backend names, as id+1; 0: not one of ours.
	Process int
	// Portal is the node of the portal, made by Bind, that FETCH, MOVE or CLOSE
	// names, as id+1; 0: they name a cursor.
	Portal int
	// Recent is a table of the statement that some session has written a moment
	// ago (dml_adaptive_global); ColdStart: nothing is known of that yet.
	Recent    string
	ColdStart bool
}

// Prepared is a prepared statement that SQL refers to.
type Prepared struct {
	Verdict *parser.Verdict // of the statement itself
	Facts   *Facts
	Text    []byte
	// Node is where it can be executed; -1: the session can prepare it on any node
	// (it came by Parse, so its text is at hand).
	Node int
}

// A Decision says where a statement goes, and why.
type Decision struct {
	// Node is where it goes; Self: pgpool answers; NoNode: nobody can.
	Node   int
	Reason Reason
	// Detail is the name that decided: the function, table, list; or empty.
	Detail string
	// Everywhere: its effect is to be there wherever the session reads next. (The
	// original sends it to the primary and its load-balance node, or to all.)
	Everywhere bool
	// Write: if it succeeds it counts as a write.
	Write bool
	// Opaque: it runs code that its text does not show.
	Opaque bool
	// Balanced: it is a read that was free to go to any node; ReadNode is the node
	// that the session's draw gave.
	Balanced bool
	ReadNode int
	// Effect is the verdict whose effects count, where that is not the statement's
	// own: of what EXECUTE runs. Session looks at it.
	Effect *parser.Verdict
}

// Special values of Decision.Node.
const (
	Self   = -1
	NoNode = -2
)

// Text is the decision's reason as a sentence.
func (d Decision) Text() string {
	if d.Detail == "" {
		return d.Reason.Text()
	}
	return d.Reason.Text() + ": " + d.Detail
}

// Needs reports whether the catalog has to be asked about a verdict before it can
// be routed. A statement that goes to the primary anyway needs nothing, except
// that calls of functions tell whether it writes.
func Needs(v *parser.Verdict, r *Rules) bool {
	if v == nil {
		return false
	}
	switch v.Class {
	case parser.Select, parser.CopyOut:
	case parser.Explain:
		if !v.Analyze && !r.BalanceExplain {
			return false
		}
	case parser.Multi:
		if !v.Reads {
			return len(v.Functions)+len(v.Operators) > 0 && r.NeedsFunctions()
		}
	default:
		return false
	}
	return v.Reads && (len(v.Relations) > 0 || len(v.Functions)+len(v.Operators) > 0 && r.NeedsFunctions())
}

// NeedsTemp reports whether it matters for a verdict which temporary relations the
// session has: see Effects.AskTemp.
func NeedsTemp(v *parser.Verdict, r *Rules) bool {
	if !r.CheckTemp.Catalog() || !r.Balance || !v.Reads {
		return false
	}
	switch v.Class {
	case parser.Select, parser.CopyOut, parser.Explain, parser.Multi:
		return slices.ContainsFunc(v.Relations, func(n parser.Name) bool { return n.Schema == "" })
	}
	return false
}

// Route reads like the rule book: the first reason that holds wins.
func Route(in *Input) Decision {
	v, s := in.Verdict, in.Session
	switch {
	case v.Class == parser.Pool && !in.Extended:
		return Decision{Node: Self, Reason: ReasonPool}
	case v.Class == parser.Pool:
		return in.home(ReasonExtendedPool, "")
	case s.now.tx.failed:
		d := in.home(ReasonFailed, "")
		switch v.Class {
		case parser.Commit, parser.Rollback, parser.RollbackTo:
			d.Everywhere = in.everywhere() && !s.now.tx.inMulti
		}
		return d
	}
	switch v.Class {
	case parser.Select, parser.CopyOut, parser.Show:
		return in.read()
	case parser.Empty:
		return in.home(ReasonEmpty, "")
	case parser.Multi:
		return in.multi()
	case parser.Explain:
		return in.explain()
	case parser.Execute:
		return in.execute()
	case parser.Unknown:
		return in.write(ReasonUnknown, "")
	case parser.Replicate:
		return in.home(ReasonReplication, "")
	case parser.Begin:
		d := in.home(ReasonTransaction, "")
		d.Everywhere = in.everywhere()
		return d
	case parser.Commit, parser.Rollback, parser.RollbackTo:
		d := in.home(ReasonTransaction, "")
		d.Everywhere = in.everywhere() && !s.now.tx.inMulti && (in.Extended || s.now.tx.open)
		return d
	case parser.Savepoint, parser.Release:
		d := in.write(ReasonTransaction, "")
		d.Everywhere = in.everywhere() && !s.now.tx.inMulti
		return d
	case parser.PrepareTransaction, parser.CommitPrepared, parser.RollbackPrepared:
		return in.home(ReasonTransaction, "")
	case parser.Set, parser.Reset, parser.SetTx, parser.SetCharacter, parser.Discard:
		return in.set()
	case parser.SetConstraints:
		return in.write(ReasonSession, "")
	case parser.Deallocate:
		d := in.write(ReasonPrepare, "")
		if in.Prepared == nil || v.Name == "" {
			d.Everywhere = in.everywhere()
		}
		return d
	case parser.Prepare:
		return in.write(ReasonPrepare, "")
	case parser.Fetch, parser.CloseCursor:
		if in.Portal > 0 {
			return Decision{Node: in.Portal - 1, Reason: ReasonPortal, Detail: v.Name}
		}
		return in.write(ReasonCursor, "")
	case parser.Declare:
		return in.write(ReasonCursor, "")
	case parser.Listen, parser.Unlisten, parser.Notify:
		return in.write(ReasonNotify, "")
	case parser.Lock:
		d := in.write(ReasonLocks, "")
		d.Everywhere = v.LightLock && in.everywhere()
		return d
	case parser.Call, parser.Do:
		return in.write(ReasonOpaque, "")
	}
	return in.write(ReasonWrite, "")
}

// home sends a statement to the primary.
func (in *Input) home(r Reason, detail string) Decision {
	node := home(in.Cluster)
	switch {
	case node < 0:
		return Decision{Node: NoNode, Reason: ReasonNoNode}
	case node != in.Cluster.Primary:
		r, detail = ReasonNoPrimary, ""
	}
	return Decision{Node: node, Reason: r, Detail: detail}
}

// write sends a statement to the primary and counts it as a write.
func (in *Input) write(r Reason, detail string) Decision {
	d := in.home(r, detail)
	d.Write = true
	return d
}

// everywhere: with neither balancing nor statement-level choice no standby is ever involved.
func (in *Input) everywhere() bool { return in.Rules.Balance || in.Rules.StatementLevel }

// set routes what changes the session.
func (in *Input) set() Decision {
	v := in.Verdict
	d := in.write(ReasonSession, "")
	d.Everywhere = in.everywhere()
	for i := range v.Settings {
		if v.Settings[i].PrimaryOnly {
			d.Everywhere = false
		}
	}
	if v.Transaction != nil && v.Transaction.ReadOnly == parser.On && v.Transaction.Isolation == parser.IsolationDefault {
		d.Write = false // SET TRANSACTION READ ONLY
	}
	if len(v.Settings) == 1 && v.Settings[0].Name == "transaction_read_only" && v.Settings[0].Op == parser.SetValue && !v.Settings[0].PrimaryOnly {
		d.Write = false
	}
	return d
}

// multi routes a string of several statements.
func (in *Input) multi() Decision {
	v := in.Verdict
	if in.Rules.BalanceMulti && v.Reads {
		return in.read()
	}
	d := in.home(ReasonMulti, "")
	for _, part := range v.Parts {
		d.Write = d.Write || !part.Reads && !endsOrBegins(part)
	}
	if !d.Write && in.Facts != nil {
		_, d.Write = in.Rules.writingFunction(v, in.Facts)
	} else if len(v.Functions) > 0 {
		d.Write = true
	}
	return d
}

// endsOrBegins tells the transaction control that is no write by itself.
func endsOrBegins(v *parser.Verdict) bool {
	switch v.Class {
	case parser.Begin, parser.Commit, parser.Rollback, parser.RollbackTo:
		return true
	}
	return false
}

// explain routes EXPLAIN.
func (in *Input) explain() Decision {
	v := in.Verdict
	if in.Rules.BalanceExplain && v.Inner.Reads && v.Inner.Class == parser.Select {
		return in.read()
	}
	d := in.home(ReasonExplain, "")
	if v.Analyze {
		d.Write = !v.Reads
		if v.Reads && in.Facts != nil {
			_, d.Write = in.Rules.writingFunction(v, in.Facts)
		}
	}
	return d
}

// execute routes EXECUTE.
func (in *Input) execute() Decision {
	p := in.Prepared
	if p == nil || p.Verdict == nil {
		return in.write(ReasonOpaque, "")
	}
	if p.Node < 0 {
		inner := *in
		inner.Verdict, inner.Facts, inner.Text, inner.Prepared = p.Verdict, p.Facts, p.Text, nil
		d := Route(&inner)
		d.Effect = p.Verdict
		return d
	}
	d := in.write(ReasonPrepared, "")
	d.Effect = p.Verdict
	if in.Cluster.Usable(p.Node) {
		d.Node = p.Node
	}
	return d
}

// read routes what may be balanced. The first test that fails sends it to the primary.
func (in *Input) read() Decision {
	v, s, r, f := in.Verdict, in.Session, in.Rules, in.Facts
	tx := &s.now.tx
	switch {
	case v.WritingWith:
		return in.write(ReasonWritingWith, "")
	case v.Locks:
		return in.write(ReasonLocks, "")
	case v.Writes:
		return in.write(ReasonWrite, "")
	}
	if f == nil {
		if Needs(v, r) {
			return in.write(ReasonUnresolved, "")
		}
		f = NoFacts
	}
	if v.Terminates != 0 && in.Process > 0 && in.Cluster.Usable(in.Process-1) {
		return Decision{Node: in.Process - 1, Reason: ReasonProcess}
	}
	if v.Class != parser.Show {
		if n, is := r.writingFunction(v, f); is {
			d := in.write(ReasonFunction, n.String())
			d.Opaque = f.Custom || !r.NeedsFunctions() && !OnPrimaryOnly(n)
			return d
		}
	}
	target := s.now.vars.target
	if tx.target != parser.TargetNone {
		target = tx.target
	}
	if v.Lead.Target != parser.TargetNone {
		target = v.Lead.Target
	}
	switch {
	case s.now.vars.unknown || tx.unknown:
		return in.home(ReasonSettings, "")
	case tx.open && tx.isolation == parser.Serializable:
		return in.home(ReasonSerializable, "")
	case !tx.open && s.start.isolation == parser.Serializable && s.now.vars.isolation == parser.Serializable:
		return in.home(ReasonSerializable, "by default, on every node") // as start-up packet or role say
	case tx.open && tx.inMulti:
		return in.home(ReasonBegunInMulti, "")
	case tx.open && (tx.imported || tx.isolation == parser.RepeatableRead && tx.onPrimary && tx.node < 0):
		return in.home(ReasonSnapshot, "")
	case target == parser.TargetPrimary:
		return in.home(ReasonTargetPrimary, "")
	case !r.Balance:
		return in.home(ReasonNoBalancing, "")
	case v.Lead.Comment && !r.AllowComments && v.Lead.Target == parser.TargetNone && (v.Class == parser.Select):
		return in.home(ReasonComment, "")
	case v.Lead.Space && !r.IgnoreSpace && !r.AllowComments && v.Class == parser.Select:
		return in.home(ReasonSpace, "")
	}
	if d, stay := in.wrote(f); stay {
		return d
	}
	if n := f.Catalog; n.Name != "" {
		return in.home(ReasonCatalog, n.String())
	}
	if r.OwnNumbers {
		if n, is := namesNumbers(v); is {
			return in.home(ReasonCatalog, n.String())
		}
	}
	if r.CheckTemp.Catalog() || r.CheckTemp.Trace() {
		if n, is := s.own(v); is {
			return in.home(ReasonTemporary, n.String())
		}
	}
	if n := f.Unlogged; n.Name != "" && r.CheckUnlogged {
		return in.home(ReasonUnlogged, n.String())
	}
	if r.pattern(in.Text) {
		return in.home(ReasonPattern, "")
	}
	return in.balance(target == parser.TargetStandby)
}

// wrote keeps reads on the primary after writes, as disable_load_balance_on_write says.
func (in *Input) wrote(f *Facts) (Decision, bool) {
	s, r := in.Session, in.Rules
	tx := &s.now.tx
	switch r.OnWrite {
	case conf.DlbowAlways:
		if s.now.wroteEver {
			return in.home(ReasonWroteEver, ""), true
		}
	case conf.DlbowTransTransaction:
		if tx.mark.wrote {
			return in.home(ReasonWrote, ""), true
		}
		if tx.open && s.now.wroteTx {
			return in.home(ReasonWroteBefore, ""), true
		}
	case conf.DlbowTransaction:
		if tx.mark.wrote {
			return in.home(ReasonWrote, ""), true
		}
	case conf.DlbowDmlAdaptive, conf.DlbowDmlAdaptiveGlobal:
		if tx.open && tx.mark.any {
			return in.home(ReasonWrote, ""), true
		}
		if tx.open {
			for _, list := range [][]parser.Name{in.Verdict.Relations, f.Base} {
				for _, n := range list {
					if tx.wroteTable(n.Name, r.Related) {
						return in.home(ReasonWroteTable, n.String()), true
					}
				}
			}
		}
		if r.OnWrite == conf.DlbowDmlAdaptiveGlobal {
			if in.ColdStart {
				return in.home(ReasonColdStart, ""), true
			}
			if in.Recent != "" {
				return in.home(ReasonRecentTable, in.Recent), true
			}
		}
	}
	return Decision{}, false
}

// wroteTable reports whether the transaction has written a table, or something
// that the operator says it depends on.
func (t *tx) wroteTable(name string, related []conf.Relation) bool {
	if slices.Contains(t.mark.tables, name) {
		return true
	}
	for _, p := range related {
		if p.Dependent != name {
			continue
		}
		if p.Function && slices.Contains(t.mark.functions, p.Object) || !p.Function && slices.Contains(t.mark.tables, p.Object) {
			return true
		}
	}
	return false
}

// balance gives a read to its node.
func (in *Input) balance(standbyOnly bool) Decision {
	s, c := in.Session, in.Cluster
	tx := &s.now.tx
	d := Decision{Balanced: true, ReadNode: s.ReadNode}
	if tx.open && tx.node >= 0 {
		switch {
		case c.Usable(tx.node) && !(standbyOnly && tx.node == c.Primary):
			d.Node, d.Reason = tx.node, ReasonReadTransaction
			return d
		case tx.isolation == parser.RepeatableRead:
			return Decision{Node: NoNode, Reason: ReasonSnapshotLost}
		}
	}
	draw := DrawInput{Cluster: c, Rules: in.Rules, Preference: s.Preference, StandbyOnly: standbyOnly}
	sticky := s.ReadNode
	if in.Rules.StatementLevel {
		sticky = in.Home - 1
	}
	if sticky >= 0 && readable(c, sticky) && !(standbyOnly && sticky == c.Primary) {
		d.Node, d.Reason = draw.delay(sticky, ReasonRead)
		switch {
		case d.Reason == ReasonRead && in.Rules.StatementLevel:
			d.Reason = ReasonReadPrepared
		case d.Reason == ReasonRead && sticky == c.Primary:
			d.Reason = ReasonPrimaryDrawn
		}
		return d
	}
	node, reason := draw.draw(in.Random)
	if node < 0 {
		return Decision{Node: NoNode, Reason: ReasonNoNode}
	}
	if reason != ReasonNoStandby { // a better node may come back
		d.ReadNode = node
	}
	d.Node, d.Reason = draw.delay(node, reason)
	if standbyOnly && d.Node != c.Primary {
		d.Reason = ReasonTargetStandby
	}
	if s.Preference.Found && d.Reason == ReasonPreference {
		d.Detail = s.Preference.List
	}
	return d
}
