package session

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"pgpool-go/conf"
	"pgpool-go/parser"
)

// pipeline is what has happened since the last ReadyForQuery.
type pipeline struct {
	touched  []*server // have been sent extended messages and no Sync
	pinned   bool      // something other than a read went to the main node: the rest follows it
	failed   bool      // an error has been answered
	skipping bool      // and messages are passed over until Sync
	syncing  bool      // the client has said Sync, and what came before it is being answered
	syncLost bool      // the Sync under way was passed over by a COPY
	ahead    int       // bytes sent whose replies have not been read
	done     []done
	parsed   *statement // the client's last message was its Parse, see Session.placed

	copies bool   // copies of statements have been called, see copies.go
	partly bool   // some of it has been sent before its Sync
	batch  []byte // if not, what was sent; see mend.go
}

// done is a statement that has completed and has consequences.
type done struct {
	verdict    *parser.Verdict
	rolledBack bool // the server called it ROLLBACK, whatever the statement said
	opaque     bool // it has run code that its text does not show
}

func (p *pipeline) open() bool { return len(p.touched) > 0 || p.skipping }

func (p *pipeline) note(v *parser.Verdict, x *expectation, tag []byte) {
	p.done = append(p.done, done{v, bytes.HasPrefix(tag, []byte("ROLLBACK")), x.opaque})
}

func (p *pipeline) touch(c *server) {
	for _, t := range p.touched {
		if t == c {
			return
		}
	}
	p.touched = append(p.touched, c)
}

func (p *pipeline) reset() {
	p.touched, p.done = p.touched[:0], p.done[:0]
	p.pinned, p.failed, p.skipping = false, false, false
	p.copies, p.partly, p.batch = false, false, nil
}

// transaction is the client's explicit transaction block. It lives on the main
// node; a standby takes part from the first read it is given.
type transaction struct {
	open     bool
	story    story
	reader   *server // the standby that the block's reads go to; nil, none yet
	lost     bool    // it is gone, and its snapshot with it
	poisoned bool    // its failure has been shown to the client and not yet made on the main node
}

// marks is what a session remembers beyond transactions.
type marks struct {
	held      []string // what would be lost with the main connection
	listens   bool     // LISTEN has been used
	ownConfig bool     // PGPOOL SET has been used
	loud      bool     // statements may have to be logged
	idleLimit atomic.Int64

	recoveryLimit atomic.Int64
}

// settle draws the conclusions of a finished statement or pipeline, at the
// ReadyForQuery of c. It returns the transaction status to show to the client.
func (s *Session) settle(c *server) byte {
	if s.Cache != nil {
		s.settleWrites(c)
	}
	for i := range s.pipe.done {
		s.conclude(&s.pipe.done[i])
	}
	failed := s.pipe.failed
	s.pipe.done, s.pipe.failed = s.pipe.done[:0], false
	status := c.Status
	if main := s.conns[s.main]; main != nil && main != c {
		// A standby's half of a block may fail alone, and a read outside the
		// block's reach says nothing about it.
		status = main.Status
		if status == 'T' && s.failedHalf(c) {
			s.tx.poisoned = true
		}
	}
	if s.tx.poisoned {
		status = 'E'
	}
	switch {
	case status != 'I':
		s.tx.open = true
	case s.tx.open || len(s.settings.pending) > 0 || s.settings.unknownTx != parser.ScopeNone:
		s.endTransaction(!failed)
	}
	if status == 'I' {
		s.portals.close()
	}
	effects := s.router.Ready(status)
	if effects.Catalog {
		s.Catalog.Invalidate(s.database)
		s.hidden.forget(s.database)
		s.texts.forget()
	}
	if len(effects.Wrote) > 0 && s.cfg.Rules.OnWrite == conf.DlbowDmlAdaptiveGlobal {
		s.Mutations.Note(s.database, effects.Wrote, slowest(s.snap), s.task.Now())
	}
	s.askTemp = s.askTemp || effects.AskTemp
	return status
}

// failedHalf tells whether a standby's half of the client's block has failed. One
// that has yet to be told of the block, such as a ROLLBACK TO, is in the state of
// before: a Close, which reads nothing, may go there all the same.
func (s *Session) failedHalf(c *server) bool {
	return s.tx.open && c.Status == 'E' && len(c.part.todo) == 0
}

// conclude notes the consequences of one completed statement.
func (s *Session) conclude(d *done) {
	v := d.verdict
	if v.Class == parser.Execute { // in a string of several statements
		if p := s.sqlStmts[v.Name]; p != nil {
			v = p.Verdict
		} else if st := s.stmts[v.Name]; st != nil {
			v = st.verdict
		}
	}
	if v.Transaction != nil {
		s.noteTransaction(d, v.Transaction)
	}
	s.settings.note(v)
	if v.Class == parser.Call || v.Class == parser.Do || d.opaque {
		s.settings.doubt()
	}
	for i := range v.Settings {
		if !v.Settings[i].PrimaryOnly {
			s.tell(func(st story) story { return st.say(v.Settings[i].Replay) })
		}
	}
	if s.sharing.on {
		s.heed(v, d.opaque)
	}
	switch v.Class {
	case parser.Discard:
		if v.Name == "all" || v.Name == "" {
			s.noteDiscardAll()
		}
	case parser.Deallocate:
		s.forgetStatement(v.Name)
	case parser.CloseCursor:
		if v.Name != "" {
			s.portals.drop(v.Name)
		}
	case parser.Prepare:
		s.notePrepare(v)
	case parser.Listen:
		s.marks.listens = true
		s.hold("LISTEN")
	case parser.Declare:
		if v.Hold {
			s.hold("cursors WITH HOLD")
		}
	case parser.Call, parser.Do, parser.Unknown:
		if !s.sharing.on { // else the server is asked
			s.hold("what statements of unknown effect have done")
		}
	}
	for i := range v.Creates {
		if v.Creates[i].Temp && !(s.sharing.on && v.Creates[i].OnCommitDrop) {
			s.hold("temporary objects")
		}
	}
	if slices.ContainsFunc(v.Functions, keepsLock) {
		s.hold(advisoryLocks)
	}
}

// keepsLock tells whether a function takes a lock that the session keeps.
func keepsLock(f parser.Name) bool {
	return strings.HasPrefix(f.Name, "pg_advisory_lock") || strings.HasPrefix(f.Name, "pg_try_advisory_lock")
}

// advisoryLocks are what a session may own.
const advisoryLocks = "advisory locks"

// hold notes that the session owns something that exists on its main server
// only.
func (s *Session) hold(what string) {
	for _, h := range s.marks.held {
		if h == what {
			return
		}
	}
	s.marks.held = append(s.marks.held, what)
}

func (s *Session) noteTransaction(d *done, t *parser.Transaction) {
	switch t.Op {
	case parser.TxBegin:
		if !s.tx.open { // inside a block it is a warning to PostgreSQL, and nothing to us
			s.begin(t)
		}
	case parser.TxCommit, parser.TxRollback, parser.TxPrepare:
		s.endTransaction(t.Op != parser.TxRollback && !d.rolledBack)
		if t.Chain {
			s.begin(&parser.Transaction{Isolation: s.router.Isolation()})
		}
	case parser.TxSavepoint:
		s.settings.savepoint(t.Savepoint)
		s.tell(func(st story) story { return st.savepoint(t.Savepoint) })
	case parser.TxRelease:
		s.settings.release(t.Savepoint)
		s.tell(func(st story) story { return st.release(t.Savepoint) })
	case parser.TxRollbackTo:
		s.settings.rollbackTo(t.Savepoint)
		s.tell(func(st story) story { return st.rollbackTo(t.Savepoint) })
	}
}

func (s *Session) begin(t *parser.Transaction) {
	s.tx = transaction{open: true, story: s.tx.story[:0].say(beginLike(t))}
}

// beginLike opens on a standby a block like the one on the main node. What a
// standby cannot be, SERIALIZABLE or READ WRITE, is not asked of it: route sends
// no reads of such blocks where it would matter.
func beginLike(t *parser.Transaction) string {
	sql := "BEGIN"
	if t.Isolation != parser.IsolationDefault && t.Isolation != parser.Serializable {
		sql += " ISOLATION LEVEL " + t.Isolation.String()
	}
	if t.ReadOnly == parser.On {
		sql += " READ ONLY"
	}
	return sql
}

func quoteIdent(name string) string {
	return `"` + string(bytes.ReplaceAll([]byte(name), []byte(`"`), []byte(`""`))) + `"`
}

// endTransaction ends the block, explicit or not.
func (s *Session) endTransaction(committed bool) {
	before := s.settings.seq
	s.settings.end(committed)
	if main := s.conns[s.main]; main != nil {
		main.applied = s.settings.seq // it ran them itself
	}
	clear(s.tx.story) // so that it keeps no text alive
	s.tx = transaction{story: s.tx.story[:0]}
	s.leaveBlock(committed, before)
}

// noteDiscardAll: the main server is as after login, and so shall the others be.
func (s *Session) noteDiscardAll() {
	s.settings.clear()
	s.caching.muddle = muddle{}
	s.forgetStatement("")
	s.marks.held, s.marks.listens = nil, false
	for c := range s.standbys {
		clear(c.stmts)
		if c.shared != nil {
			clear(c.shared.copies)
		}
		c.closing, c.applied = c.closing[:0], s.settings.seq
		c.part.before = append(c.part.before, "DISCARD ALL")
		s.behind = true
	}
}

// forgetStatement forgets a prepared statement, or with no name all of them.
func (s *Session) forgetStatement(name string) {
	main := s.conns[s.main]
	for n, st := range s.stmts {
		if name == "" || n == name {
			s.outdated(st, main)
			delete(s.stmts, n)
		}
	}
	if name == "" {
		clear(s.sqlStmts)
	}
	delete(s.sqlStmts, name)
	switch {
	case main == nil:
	case name != "":
		delete(main.stmts, name)
	default: // but the unnamed one stays
		maps.DeleteFunc(main.stmts, func(n string, _ *statement) bool { return n != "" })
		if main.shared != nil {
			clear(main.shared.copies)
		}
	}
}
