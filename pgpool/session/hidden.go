package session

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/wire"
)

// Triggers and functions run code that no statement's text shows. Whether any of a
// database could leave something behind that cannot travel is asked once: in most
// databases none does, and no statement costs anything. Else what may have run such
// code is followed by an audit.

// hidden is what is known of the databases' functions. Safe for all goroutines.
type hidden struct {
	mu sync.Mutex
	of map[string]*findings // by database
}

type findings struct {
	risky  bool
	until  time.Time // the answer counts; zero: there is none
	asking time.Time // until then somebody is taken to be asking
	schema int       // grows with its changes
}

// hiddenFor is how long an answer counts: functions may be made without our knowing.
const hiddenFor = time.Minute

// look tells what is known, and whether the caller is to ask: one does, lest a whole
// pool asks at the same moment. Meanwhile the old answer counts, or, if there is none,
// the worst is taken to be true.
func (h *hidden) look(database string, now time.Time) (risky, ask bool, schema int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.findings(database)
	ask = !now.Before(f.until) && !now.Before(f.asking)
	if ask {
		f.asking = now.Add(catalogLimit)
	}
	return f.risky || f.until.IsZero(), ask, f.schema
}

// note keeps an answer to a question put when the schema was as given.
func (h *hidden) note(database string, schema int, risky bool, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.findings(database); f.schema == schema {
		f.risky, f.until, f.asking = risky, until, time.Time{}
	}
}

// forget has a database asked again, whose schema has changed.
func (h *hidden) forget(database string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.findings(database)
	*f = findings{schema: f.schema + 1}
}

// findings are those of a database; the lock is held.
func (h *hidden) findings(database string) *findings {
	f := h.of[database]
	if f == nil {
		f = &findings{}
		if h.of == nil {
			h.of = make(map[string]*findings)
		}
		h.of[strings.Clone(database)] = f
	}
	return f
}

// hiddenSQL finds functions whose text speaks of what outlives a transaction:
// settings, locks of the session, temporary objects, cursors, statements. The
// thousands that initdb makes have smaller numbers, and need not be looked at.
const hiddenSQL = `SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p
	JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
	WHERE p.oid >= 16384 AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND l.lanname NOT IN ('c', 'internal') AND p.prokind IN ('f', 'p')
	AND CASE p.prosrc WHEN '' THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END OPERATOR(pg_catalog.~*)
	'set_config|pg_(try_)?advisory_lock|\mlisten\s|\mtemp(orary)?\s+(table|view|sequence)|pg_temp|\mdiscard\s|setseed|currval|lastval|dblink_connect|with\s+hold|\mprepare\s|\mdeallocate\s|(^|[;''"$]|\mbegin|\mthen|\melse|\mloop)\s*(re)?set\s')`

// learnHidden asks over a connection just borrowed, if nobody has.
func (s *Session) learnHidden(c *server) error {
	risky, ask, schema := s.hidden.look(s.database, s.task.Now())
	if ask {
		limit, stop := context.WithTimeout(ctx, catalogLimit)
		rows, err := backend.Asker{Conn: c.Conn, Task: s.task}.Ask(limit, hiddenSQL)
		stop()
		delete(c.stmts, "")
		if err != nil {
			return err
		}
		risky = len(rows) != 1 || len(rows[0]) != 1 || rows[0][0] != "f"
		s.hidden.note(s.database, schema, risky, s.task.Now().Add(hiddenFor))
	}
	s.sharing.risky = risky
	return nil
}

// hides tells whether a statement that has completed may have run code that its
// text does not show and that leaves something behind.
func (s *Session) hides(v *parser.Verdict, opaque bool) bool {
	switch v.Class {
	case parser.Do, parser.Unknown:
		return true
	case parser.Call, parser.Execute:
		return s.sharing.risky || v.Class == parser.Execute
	}
	if v.SettingsUnknown != parser.ScopeNone {
		return true
	}
	return s.sharing.risky && (opaque || v.Writes || len(v.Functions) > 0 && slices.ContainsFunc(v.Functions, custom))
}

func custom(n parser.Name) bool { return n.Schema != "pg_catalog" }

// sequences sees to it that a statement which asks for the values last taken from
// sequences is not told of another session's.
func (s *Session) sequences(c *server, v *parser.Verdict) error {
	if c.shared == nil || !slices.ContainsFunc(v.Functions, asksSequence) {
		return nil
	}
	first := !s.tx.open && !slices.Contains(s.pipe.touched, c)
	s.sequenced.Store(s.database, struct{}{}) // from now on connections are cleared when they change hands
	switch {
	case !c.shared.foreign:
		return nil
	case first:
		c.shared.foreign = false
		return s.exchange(c, "DISCARD SEQUENCES")
	}
	return &wire.Error{Severity: "ERROR", Code: "40001", Message: "the values of sequences may be another session's",
		Hint: "Try the transaction again: it is the first in this database that asks for them."}
}

func asksSequence(n parser.Name) bool { return n.Name == "currval" || n.Name == "lastval" }
