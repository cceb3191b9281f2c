package route

import (
	"slices"
	"strings"

	"pgpool-go/parser"
)

// A Session is what routing remembers of a client. It is not safe for use by
// several goroutines; it never blocks and asks nobody.
//
// Its owner tells it of each statement: Send when the statement leaves for its
// node (so that the next one of a pipeline is routed as if it had succeeded),
// then Done or Failed in the same order as answers come, and Ready with the
// transaction state of each ReadyForQuery, which puts right what was guessed.
type Session struct {
	Database, User, App string // of the start-up packet

	// Preference is what the redirect lists say of this session; the owner sets it
	// from Rules.Preference at the start and when the configuration changes.
	Preference Preference

	// ReadNode is the load-balance node of the session, -1 before the first draw.
	ReadNode int

	now     state   // as if all that was sent had succeeded
	settled state   // what has been answered
	pending []sent  // sent and not yet answered
	moved   bool    // since the last Ready something else than reads outside of transactions has happened
	start   vars    // settings of the start-up packet and of the role, which RESET ALL returns to
	effects Effects // of statements done since the last Ready
}

// Effects is what the owner has to do after Ready.
type Effects struct {
	// Catalog: schema changes have been committed; the catalog cache of the
	// database is out of date.
	Catalog bool
	// AskTemp: a statement may have made temporary tables that its text does not
	// show. Before the next statement for which NeedsTemp holds, ask
	// catalog.OwnTemp over the session's own connection and tell OwnTemp.
	AskTemp bool
	// Wrote are the relations written by transactions that have committed (for
	// dml_adaptive_global), bare names.
	Wrote []string
}

type sent struct {
	verdict  *parser.Verdict
	decision Decision
}

// state is what changes with statements. It is copied freely: its slices are
// never changed in place.
type state struct {
	vars vars
	tx   tx

	wroteTx   bool // some explicit transaction of the session has written
	wroteEver bool // the session has written at all

	tables, functions []string // the latest lists of names that marks were made of, see addName
}

// vars are settings that follow transactions: ROLLBACK brings the old ones back.
type vars struct {
	isolation parser.Isolation // default_transaction_isolation
	target    parser.Target    // pgpool.target
	unknown   bool             // settings have been changed in a way that cannot be repeated
	temps     []temp
}

// A temp is a temporary relation of this session.
type temp struct {
	name string
	drop bool // ON COMMIT DROP
}

// tx is the state of a transaction block.
type tx struct {
	open      bool
	failed    bool
	mark      mark
	isolation parser.Isolation
	unknown   bool          // as vars.unknown, by SET LOCAL
	node      int           // where the transaction's reads go; -1 not chosen yet
	inMulti   bool          // begun in a multi-statement string
	onPrimary bool          // a snapshot has been taken on the primary
	imported  bool          // SET TRANSACTION SNAPSHOT
	target    parser.Target // SET LOCAL pgpool.target
	dirty     bool          // the schema has been changed
	askTemp   bool
	before    vars // settings when it began
	saves     []save
}

// mark is what a transaction has written.
type mark struct {
	wrote     bool
	tables    []string // bare names
	functions []string // called by statements that write
	any       bool     // some statement may have written any table
}

// A save is a savepoint with what was true before it.
type save struct {
	name string
	mark mark
	vars vars
}

// NewSession starts with the settings of the start-up packet (folded names).
// Settings that do not matter to routing are ignored.
func NewSession(db, user, app string, settings map[string]string) *Session {
	s := &Session{Database: db, User: user, App: app, ReadNode: -1}
	s.Default("default_transaction_isolation", settings["default_transaction_isolation"])
	if t, ok := parser.ParseTarget(settings["pgpool.target"]); ok {
		s.start.target = t
	}
	s.now.vars, s.now.tx.node = s.start, -1
	s.settled = s.now
	return s
}

// Default tells what a setting is when the session has not changed it: from the
// start-up packet, the role or the server. Only default_transaction_isolation matters.
func (s *Session) Default(name, value string) {
	if name != "default_transaction_isolation" {
		return
	}
	if level, ok := parser.ParseIsolation(value); ok {
		old := s.start.isolation
		s.start.isolation = level
		for _, st := range []*state{&s.now, &s.settled} {
			if st.vars.isolation == old {
				st.vars.isolation = level
			}
			if st.tx.before.isolation == old {
				st.tx.before.isolation = level
			}
			if st.tx.open && st.tx.isolation == old && old == parser.IsolationDefault { // begun before it was known
				st.tx.isolation = level
			}
		}
	}
}

// InTransaction reports whether a transaction block is open, as far as known.
func (s *Session) InTransaction() bool { return s.now.tx.open }

// TransactionFailed reports whether the open transaction block has failed.
func (s *Session) TransactionFailed() bool { return s.now.tx.failed }

// TransactionNode is the node chosen for the reads of the open transaction, or -1.
func (s *Session) TransactionNode() int { return s.now.tx.node }

// Isolation is the level of the open transaction; IsolationDefault if none is
// open or the level was never said.
func (s *Session) Isolation() parser.Isolation { return s.now.tx.isolation }

// Wrote reports whether the open transaction has written.
func (s *Session) Wrote() bool { return s.now.tx.mark.wrote }

// Temp reports whether the session has a temporary relation of this name.
func (s *Session) Temp(n parser.Name) bool {
	if n.Schema == "pg_temp" {
		return true
	}
	return n.Schema == "" && slices.ContainsFunc(s.now.vars.temps, func(t temp) bool { return t.name == n.Name })
}

// own finds what a statement names, or may look up by a name that is not in its
// text, and only this session has.
func (s *Session) own(v *parser.Verdict) (parser.Name, bool) {
	for _, n := range v.Relations {
		if s.Temp(n) {
			return n, true
		}
	}
	some := len(s.now.vars.temps) > 0
	for _, n := range v.Types {
		if s.Temp(n) || some && strings.HasPrefix(n.Name, "reg") {
			return n, true
		}
	}
	for _, n := range v.Functions {
		if n.Schema == "pg_temp" || some && takesName(n.Name) {
			return n, true
		}
	}
	return parser.Name{}, false
}

// takesName tells the built-in functions that take the name of an object.
func takesName(function string) bool {
	return strings.HasPrefix(function, "to_reg") || function == "pg_get_serial_sequence" ||
		strings.HasPrefix(function, "has_") && strings.HasSuffix(function, "_privilege")
}

// OwnTemp tells which temporary relations the session has now.
func (s *Session) OwnTemp(names []string) {
	for _, st := range []*state{&s.now, &s.settled} {
		old := st.vars.temps
		st.vars.temps = nil
		for _, n := range names {
			drop := slices.Contains(old, temp{n, true})
			st.vars.temps = append(st.vars.temps, temp{n, drop})
		}
	}
}

// Send tells that a statement has left for its node.
func (s *Session) Send(v *parser.Verdict, d Decision) {
	if d.Balanced {
		s.ReadNode = d.ReadNode
	}
	if !d.Balanced || s.now.tx.open {
		s.now, s.moved = s.now.after(v, d, s.start), true
	}
	s.pending = append(s.pending, sent{v, d})
}

// Done tells that the oldest statement not yet answered has succeeded.
func (s *Session) Done() {
	if len(s.pending) == 0 {
		return
	}
	p := s.pending[0]
	s.pending = slices.Delete(s.pending, 0, 1)
	if !p.decision.Balanced || s.settled.tx.open {
		s.settled = s.settled.after(p.verdict, p.decision, s.start)
	}
}

// Failed tells that the oldest statement not yet answered has failed. Those
// behind it, up to the next Sync, are not run by the server: they are forgotten.
// parts is how many statements of a multi-statement string were completed before
// the error (they are undone unless they ended a transaction).
func (s *Session) Failed(parts int) {
	if len(s.pending) > 0 && parts > 0 {
		p, before := s.pending[0], s.settled
		ended := false
		for _, part := range p.verdict.Parts[:min(parts, len(p.verdict.Parts))] {
			s.settled = s.settled.step(part, p.decision, s.start)
			ended = ended || part.Class == parser.Commit || part.Class == parser.Rollback
		}
		if !s.settled.tx.open && !ended {
			s.settled = before
		}
	}
	s.pending = s.pending[:0]
	if s.settled.tx.open {
		s.settled.tx.failed = true
	}
	s.now, s.moved = s.settled, true
}

// Ready tells of a ReadyForQuery: the transaction state is 'I', 'T' or 'E'.
// Whatever is still waiting for an answer will not get one. It returns what has
// to be done.
func (s *Session) Ready(status byte) Effects {
	s.pending = s.pending[:0]
	st := &s.settled
	if !s.moved && status == 'I' && !st.tx.open {
		return Effects{}
	}
	s.moved = false
	switch {
	case status == 'I' && st.tx.open: // ended unseen, by a COMMIT that failed or a statement that could not be read
		*st = st.end(!st.tx.failed)
	case status != 'I' && !st.tx.open: // begun unseen
		*st = st.begin(nil)
		st.tx.inMulti = true
	}
	if st.tx.open {
		st.tx.failed = status == 'E'
	} else {
		s.effects.Catalog = st.tx.dirty
		s.effects.Wrote = st.tx.mark.tables
		st.tx = tx{node: -1, askTemp: st.tx.askTemp}
	}
	s.effects.AskTemp = st.tx.askTemp
	st.tx.askTemp = false
	s.now = *st
	e := s.effects
	s.effects = Effects{}
	return e
}
