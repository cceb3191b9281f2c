package session

import (
	"slices"

	"pgpool-go/parser"
	"pgpool-go/pgpool/qcache"
	"pgpool-go/pgpool/route"
)

// written is what the transaction under way has written, as far as the query cache
// is concerned. From the moment its commit may be on its way until the outcome is
// known the cache gives out nothing that depends on it.
type written struct {
	marks  []*qcache.Mark // of tables
	any    bool           // anything in the database
	all    bool           // anything in all databases
	schema uint64         // the epoch of the database's schema when marks was begun
	sent   int            // statements since the last ReadyForQuery
	// restless: one of them may have committed and failed after that, or begun or ended
	// a transaction.
	restless bool
	reloads  bool // one of them has had a server reload its configuration

	doubt *qcache.Doubt // the commit may be on its way
	node  int           // to this server's process
	pid   uint32
}

func (w *written) nothing() bool { return len(w.marks) == 0 && !w.any && !w.all }

func (w *written) forget() { *w = written{marks: w.marks[:0]} }

// noteWrite notes what a statement that is about to be sent may write.
func (s *Session) noteWrite(v *parser.Verdict, d route.Decision) {
	if d.Opaque || v.Opaque && v.Class != parser.Execute || d.Effect != nil && d.Effect.Opaque {
		s.muddled()
	}
	w := &s.caching.written
	if reloading(v) || d.Effect != nil && reloading(d.Effect) {
		w.reloads = true
		s.reloaded()
	}
	if v.Reads && !d.Write && !d.Opaque && v.Class == parser.Select {
		return
	}
	w.sent++
	s.noteEffect(v, d)
	if !s.cfg.MemqcacheAutoCacheInvalidation && w.doubt == nil {
		w.forget() // what code it may run counts all the same
	}
}

// muddled notes that code is about to run which no text shows: besides what it
// writes, it may change settings.
func (s *Session) muddled() {
	s.caching.muddle.is, s.caching.muddle.reads = true, 0
	s.muddy()
}

// anything notes that such code may write anything in the database.
func (s *Session) anything() {
	s.caching.written.any = true
	s.muddled()
}

func (s *Session) noteEffect(v *parser.Verdict, d route.Decision) {
	w := &s.caching.written
	w.restless = w.restless || v.Transaction != nil
	switch v.Class {
	case parser.Multi:
		for _, part := range v.Parts {
			s.noteEffect(part, route.Decision{Opaque: d.Opaque})
		}
	case parser.Execute:
		switch p := s.prepared(v); {
		case d.Effect != nil:
			s.noteEffect(d.Effect, route.Decision{Opaque: d.Opaque})
		case p != nil && p.Verdict != nil:
			s.noteEffect(p.Verdict, route.Decision{})
		default:
			w.restless = true
			s.anything()
		}
	case parser.Empty, parser.Pool, parser.Show, parser.Set, parser.Reset, parser.SetTx, parser.SetCharacter, parser.SetConstraints,
		parser.Discard, parser.Begin, parser.Commit, parser.Rollback, parser.Savepoint, parser.Release, parser.RollbackTo,
		parser.PrepareTransaction, parser.RollbackPrepared, parser.Lock, parser.Prepare, parser.Deallocate,
		parser.Fetch, parser.CloseCursor, parser.Listen, parser.Unlisten, parser.Notify:
		// What a deferred trigger or a cursor may do has been noted before.
	case parser.CommitPrepared:
		w.any = true
	case parser.Explain:
		if v.Analyze {
			s.noteTables(v)
		}
	case parser.Declare:
		s.noteTables(v.Inner) // its functions run when rows are fetched
	case parser.Select, parser.Insert, parser.Update, parser.Delete, parser.Merge, parser.Truncate, parser.CopyIn, parser.CopyOut:
		if d.Opaque {
			w.any = true
			return
		}
		s.noteTables(v)
	case parser.DDL, parser.SelectInto:
		if onlyTemporary(v) {
			s.noteTables(v)
			return
		}
		w.restless, w.all = true, w.all || v.Everywhere
		s.anything() // there may be event triggers
	default:
		w.restless = true
		s.anything()
	}
}

// onlyTemporary tells that a statement makes temporary objects and nothing else.
func onlyTemporary(v *parser.Verdict) bool {
	return len(v.Creates) > 0 && !slices.ContainsFunc(v.Creates, func(o parser.Object) bool { return !o.Temp })
}

// noteTables notes the tables that a statement writes, with those that follow them,
// or that nothing is known of what it writes.
func (s *Session) noteTables(v *parser.Verdict) {
	w := &s.caching.written
	if w.any || len(v.Written)+len(v.Functions)+len(v.Operators)+len(v.Relations) == 0 {
		return
	}
	db := s.Cache.Mark(s.database, "")
	if len(w.marks) == 0 {
		w.schema = db.Epoch()
	}
	d := s.dependence(v)
	switch {
	case d == nil:
		w.any = true
		return
	case d.Any && !s.onlyOwn(v):
		s.anything()
		return
	case !v.Writes && (v.Inner == nil || !v.Inner.Writes):
		return // locks are no change
	}
	for _, m := range s.marksOf(d).written {
		if !slices.Contains(w.marks, m) {
			w.marks = append(w.marks, m)
		}
	}
}

// onlyOwn tells that a statement writes nothing but temporary tables of the
// session's, and calls no functions.
func (s *Session) onlyOwn(v *parser.Verdict) bool {
	return len(v.Written) > 0 && len(v.Functions) == 0 && !s.askTemp &&
		!slices.ContainsFunc(v.Written, func(n parser.Name) bool { return !s.router.Temp(n) })
}

// mayCommit is told before something is sent that may end a transaction which has
// written: a Query with this verdict, or with nil a Sync.
func (s *Session) mayCommit(v *parser.Verdict) {
	if w := &s.caching.written; w.nothing() || s.tx.open && (v == nil || v.Transaction == nil && v.Class != parser.Multi && v.Class != parser.Unknown) {
		return
	}
	s.beginDoubt()
}

// mayCommitEarly is told the same of an Execute, which can end a transaction
// before the Sync.
func (s *Session) mayCommitEarly(v *parser.Verdict) {
	if w := &s.caching.written; !w.nothing() && w.restless && (v.Transaction != nil || !s.tx.open) {
		s.beginDoubt()
	}
}

func (s *Session) beginDoubt() {
	w := &s.caching.written
	if main := s.conns[s.main]; main != nil {
		w.node, w.pid = s.main, main.PID
	}
	marks := w.concerned(s)
	if w.doubt == nil {
		w.doubt = s.Cache.Doubt(marks)
		return
	}
	for _, m := range marks {
		if !slices.Contains(w.doubt.Marks(), m) {
			w.doubt.Widen(m)
		}
	}
}

// concerned are the marks of what may have been written. If the schema has changed
// since it was asked, or is about to, that may be anything.
func (w *written) concerned(s *Session) []*qcache.Mark {
	db := s.Cache.Mark(s.database, "")
	own := w.doubt != nil && slices.Contains(w.doubt.Marks(), db)
	switch {
	case w.all:
		return []*qcache.Mark{s.Cache.All()}
	case w.any, len(w.marks) > 0 && !own && (db.Epoch() != w.schema || db.Doubtful()):
		return []*qcache.Mark{db}
	}
	return slices.Clone(w.marks)
}

// settleWrites is told of a ReadyForQuery of c: if the transaction has been
// committed, or perhaps has, what it has written takes effect on the cache before
// the client hears of it.
func (s *Session) settleWrites(c *server) {
	w := &s.caching.written
	if w.reloads { // it may have been a while before it did
		s.reloaded()
		w.reloads = false
	}
	if w.nothing() {
		w.forget()
		return
	}
	status := c.Status
	if main := s.conns[s.main]; main != nil {
		status = main.Status
	}
	committed, ended := s.outcome(status)
	if committed {
		if w.doubt == nil {
			w.doubt = s.Cache.Doubt(nil)
		}
		for _, m := range w.concerned(s) { // by now it may be more
			if !slices.Contains(w.doubt.Marks(), m) {
				w.doubt.Widen(m)
			}
		}
		switch { // before the cache lets go of the old: who reads then must know the new
		case w.all:
			s.Catalog.InvalidateAll()
		case w.any:
			s.Catalog.Invalidate(s.database)
		}
	}
	if w.doubt != nil {
		s.endDoubt(committed)
	}
	w.sent, w.restless = 0, false
	if ended {
		w.forget()
	}
}

// endDoubt ends the doubt over what has been written.
func (s *Session) endDoubt(committed bool) {
	w := &s.caching.written
	end := func() { w.doubt.End(committed) }
	if committed && s.Cache.Remote() {
		s.task.Block(end)
	} else {
		end()
	}
	w.doubt = nil
}

// outcome tells whether the transaction has been committed, so far as it is not
// certain that it has not, and whether it is over. Of several transactions in one
// batch it cannot be told which has written what: one committed, all are.
func (s *Session) outcome(status byte) (committed, ended bool) {
	w := &s.caching.written
	rolledBack := false
	for i := range s.pipe.done {
		d := &s.pipe.done[i]
		if t := d.verdict.Transaction; t != nil {
			switch {
			case t.Op == parser.TxRollback, t.Op == parser.TxCommit && d.rolledBack, t.Op == parser.TxPrepare:
				rolledBack = true // what is prepared counts when somebody commits it
			case t.Op == parser.TxCommit:
				committed = true
			}
		}
	}
	ended = status == 'I'
	if ended && !committed {
		committed = !(rolledBack && w.sent == 1) && !(s.pipe.failed && !w.restless)
	}
	return committed, ended
}

// abandonWrites is told of the session's end. What is uncommitted is rolled back
// with it; what is on its way somebody has to wait for.
func (s *Session) abandonWrites() {
	if w := &s.caching.written; w.doubt != nil {
		s.Cache.Abandon(w.doubt, w.node, w.pid)
		w.doubt = nil
	}
}
