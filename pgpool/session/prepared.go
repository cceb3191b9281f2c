package session

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// statement is a prepared statement of the client. It is prepared on a server
// when first needed there.
type statement struct {
	name    string
	frame   []byte // the client's Parse message
	verdict *parser.Verdict
	home    int    // the node that was sent the client's own Parse
	meaning uint64 // the settings in force then, as settings.meaning: names are looked up by them
	bound   bool   // it has been executed since

	alias     alias // on shared server connections
	described bool  // the client has been told its parameters and columns
	shape     shape // and these they were
}

func (st *statement) text() []byte {
	_, rest, _ := wire.CString(st.frame[5:])
	sql, _, _ := wire.CString(rest)
	return sql
}

func (s *Session) lookup(name []byte) *statement {
	if len(name) == 0 {
		return s.unnamed
	}
	return s.stmts[string(name)]
}

// blank is a statement to be filled: one that recycle has put by, or a new one.
func (s *Session) blank() *statement {
	if st := s.spare; st != nil {
		s.spare = nil
		return st
	}
	return &statement{}
}

// orphan stands for an unnamed statement that a server has and the client has not.
var orphan = &statement{}

// recycle puts an unnamed statement by that another has replaced for good, once
// nothing remembers it: most clients make one for each query.
func (s *Session) recycle(st *statement) {
	for _, c := range s.conns {
		if c != nil && c.stmts[""] == st {
			c.stmts[""] = orphan
		}
	}
	s.portals.orphan(st)
	if cap(st.frame) <= batchBytes {
		s.spare = st
	}
}

// sqlStatement is what PREPARE has made. It is there whatever becomes of the
// transaction around it, as in PostgreSQL.
type sqlStatement struct {
	route.Prepared
	execute *parser.Verdict // of running it by Bind and Execute
	text    string          // of the PREPARE
	mark    *statement      // stands for it in server.stmts of shared connections
}

// notePrepare remembers what a PREPARE has made.
func (s *Session) notePrepare(v *parser.Verdict) {
	if s.sqlStmts == nil {
		s.sqlStmts = make(map[string]*sqlStatement)
	}
	s.sqlStmts[v.Name] = &sqlStatement{
		Prepared: route.Prepared{Verdict: v.Inner, Node: s.main},
		execute:  &parser.Verdict{Class: parser.Execute, Name: v.Name, Opaque: true},
		text:     v.Text, mark: &statement{name: v.Name},
	}
	if c := s.conns[s.main]; c != nil && c.shared != nil {
		c.stmts[v.Name] = s.sqlStmts[v.Name].mark
	}
}

// taken tells whether the client has a statement of this name.
func (s *Session) taken(name string) bool { return s.stmts[name] != nil || s.sqlStmts[name] != nil }

// prepared is what an EXECUTE or DEALLOCATE names; nil if that is not known.
func (s *Session) prepared(v *parser.Verdict) *route.Prepared {
	if v.Class != parser.Execute && v.Class != parser.Deallocate || v.Name == "" {
		return nil
	}
	if p := s.sqlStmts[v.Name]; p != nil {
		return &p.Prepared
	}
	st := s.stmts[v.Name]
	if st == nil {
		return nil
	}
	return &route.Prepared{Verdict: st.verdict, Facts: s.facts(st.verdict), Text: st.text(), Node: -1}
}

// place chooses the server for an execution of a prepared statement, st or, if
// that is nil, what SQL has perhaps prepared under the name. One whose Parse was the
// message before goes with that: nothing has happened since.
func (s *Session) place(st *statement, name []byte) (choice, error) {
	parsed := s.pipe.parsed
	s.pipe.parsed = nil // whatever comes of this Bind, the next one is not right behind
	if p := s.sqlStmts[string(name)]; p != nil {
		return s.choose(p.execute, nil, true, 0)
	}
	if st == nil { // only the main node could know it
		return s.choose(opaque, nil, true, 0)
	}
	ch, err := s.placed, error(nil)
	if st != parsed || s.conns[ch.server.Node] != ch.server || ch.server.Tainted() {
		ch, err = s.choose(st.verdict, st.text(), true, s.near(st)+1)
	}
	st.bound = true
	if err != nil || ch.server.shared != nil || ch.server.stmts[st.name] == st || st.meaning == s.settings.meaning || !ch.decision.Balanced {
		return ch, err
	}
	// Prepared under other settings, names might mean something else now: a read
	// that is free to go anywhere stays where it is known as it was meant.
	if c := s.conns[st.home]; c != nil && c.stmts[st.name] == st && c != ch.server && !s.tx.open && !s.pipe.pinned {
		c, err := s.ready(st.home)
		if err != nil {
			return choice{}, err
		}
		ch.server, ch.decision.Node = c, st.home
	}
	return ch, nil
}

// near is the node where a read by a prepared statement is had without waiting,
// or -1: its first one where its Parse has just gone, and those of a pipeline all
// on one standby. Any other is drawn like a read that comes with its text, for
// clients that keep a statement execute it again and again.
func (s *Session) near(st *statement) int {
	switch {
	case !st.bound:
		return st.home
	case s.pipe.open() && s.cur != nil && s.cur.Node != s.main:
		return s.cur.Node
	}
	return -1
}

// bring prepares on the chosen server what an execution of a statement needs. A
// standby that knows the statement otherwise than the client does, as one that
// lags behind a change of the schema, leaves it to the main node.
func (s *Session) bring(st *statement, name []byte, ch choice) (choice, error) {
	for {
		err := s.turnTo(ch.server)
		if st == nil && err == nil && !s.pipe.skipping {
			err = s.prepareSQL(ch.server, string(name))
		}
		if st != nil && err == nil && !s.pipe.skipping {
			err = s.prepareNamed(ch.server, st.verdict)
		}
		if st != nil && err == nil && !s.pipe.skipping {
			err = s.prepare(ch.server, st)
		}
		if err != errChanged || ch.server.Node == s.main {
			return ch, err
		}
		if ch.server, err = s.mainServer(); err != nil {
			return choice{}, err
		}
		ch.decision.Node, ch.decision.Balanced = s.main, false
	}
}

// prepareSQL sees to it that server c has under a name what SQL has prepared, if it
// has, and nothing else.
func (s *Session) prepareSQL(c *server, name string) error {
	if p := s.sqlStmts[name]; p != nil {
		return s.travel(c, p.execute)
	}
	s.makeRoom(c, name)
	return nil
}

// whereIs is a server that has a statement, the one spoken to before others.
func (s *Session) whereIs(st *statement) (*server, error) {
	if s.cur != nil && (s.cur.stmts[st.name] == st || s.cur.Node == st.home) {
		return s.cur, nil
	}
	if c := s.conns[st.home]; c != nil {
		return c, nil
	}
	for _, c := range s.conns {
		if c != nil && c.stmts[st.name] == st {
			return c, nil
		}
	}
	return s.mainServer()
}

// has is what server c has prepared under a name, once it has done what it has
// been sent; nil, nothing.
func (s *Session) has(c *server, name string) *statement {
	if s.due.server == c {
		for i := len(s.due.list) - 1; i >= s.due.head; i-- {
			switch x := &s.due.list[i]; {
			case x.stmt == nil || x.stmt.name != name || x.at != nil:
			case x.kind == wire.Parse:
				return x.stmt
			case x.kind == wire.Close:
				return nil
			}
		}
	}
	return c.stmts[name]
}

// makeRoom closes a statement that server c still has under a name, but the
// client has not.
func (s *Session) makeRoom(c *server, name string) {
	if old := s.has(c, name); old != nil {
		c.Send(&pgproto3.Close{ObjectType: 'S', Name: name})
		s.due.push(c, expectation{kind: wire.Close, skip: true, stmt: old})
	}
}

// prepare sends a statement's Parse to a server that lacks it. The client does
// not see the reply unless it is an error. What the client knows of the statement
// must be true there as well, else errChanged.
func (s *Session) prepare(c *server, st *statement) error {
	if aliased(c, st) {
		return s.provide(c, st)
	}
	return s.prepareAs(c, st)
}

// prepareAs is prepare under the client's own name for the statement.
func (s *Session) prepareAs(c *server, st *statement) error {
	if s.has(c, st.name) == st {
		return nil
	}
	if st.name != "" {
		s.makeRoom(c, st.name)
	}
	s.recordStatement(c, "Parse: ", st)
	s.send(c, st.frame)
	s.due.push(c, expectation{kind: wire.Parse, skip: true, stmt: st})
	s.pipe.touch(c)
	if !st.described {
		return nil
	}
	c.Send(&pgproto3.Describe{ObjectType: 'S', Name: st.name})
	s.due.push(c, expectation{kind: wire.Describe, skip: true, stmt: st})
	s.changed = nil
	if err := s.cut(); err != nil {
		return err
	}
	if s.changed == st {
		c.closing = append(c.closing, st)
		return errChanged
	}
	return nil
}

// errChanged is PostgreSQL's word for a statement whose columns are not what its
// client believes: the values would be misread.
var errChanged = &wire.Error{Severity: "ERROR", Code: "0A000", Message: "cached plan must not change result type"}

// outdated notes that the client has done with a statement which servers other
// than c may still have.
func (s *Session) outdated(st *statement, c *server) {
	for _, o := range s.conns {
		if o != nil && o != c && st.name != "" && o.stmts[st.name] == st {
			o.closing = append(o.closing, st)
		}
	}
}

// tidy closes on a server what the client has closed elsewhere.
func (s *Session) tidy(c *server) {
	for _, st := range c.closing {
		if s.has(c, st.name) == st {
			s.makeRoom(c, st.name)
		}
	}
	c.closing = c.closing[:0]
}

// prepareNamed prepares on a server what a statement of SQL, as EXECUTE and
// DEALLOCATE, calls by its name.
func (s *Session) prepareNamed(c *server, v *parser.Verdict) error {
	if err := s.travel(c, v); err != nil {
		return err
	}
	for _, name := range s.called(v) {
		if named := s.stmts[name]; named != nil {
			if err := s.prepareAs(c, named); err != nil || s.pipe.skipping {
				return err
			}
		}
	}
	return nil
}

// called are the prepared statements that a statement of SQL names, all of them
// if it looks into their list.
func (s *Session) called(v *parser.Verdict) []string {
	switch {
	case (v.Class == parser.Execute || v.Class == parser.Deallocate) && v.Name != "":
		return []string{v.Name}
	case v.Class == parser.Prepare: // the name may be taken
		return append(s.called(v.Inner), v.Name)
	case len(s.stmts) > 0 && slices.ContainsFunc(v.Relations, listsStatements):
		return slices.Sorted(maps.Keys(s.stmts))
	case v.Inner != nil:
		return s.called(v.Inner)
	}
	var names []string
	for _, part := range v.Parts {
		names = append(names, s.called(part)...)
	}
	return names
}

func listsStatements(n parser.Name) bool { return n.Name == "pg_prepared_statements" }

// teach prepares on a server what a statement of SQL, as EXECUTE or DEALLOCATE,
// calls by a name that the client knows from a Parse.
func (s *Session) teach(c *server, v *parser.Verdict) error {
	if err := s.travel(c, v); err != nil {
		return err
	}
	for _, name := range s.called(v) {
		st := s.stmts[name]
		if st == nil || c.stmts[name] == st {
			continue
		}
		if c.stmts[name] != nil {
			c.Send(&pgproto3.Close{ObjectType: 'S', Name: name})
			delete(c.stmts, name)
		}
		s.recordStatement(c, "Parse: ", st)
		s.send(c, st.frame)
		if err := s.learn(c); err != nil {
			return err
		}
		c.stmts[name] = st
	}
	return nil
}

// learn waits until the Parse composed for a server has been answered. In a
// pipeline that the client has left with a Query there is no Sync before that is
// done: it would commit what they do together.
func (s *Session) learn(c *server) error {
	if !slices.Contains(s.pipe.touched, c) {
		c.SendRaw(wire.Sync, nil)
		return s.converse(c)
	}
	c.SendRaw(wire.Flush, nil)
	err := s.converseTo(c, wire.ParseComplete)
	if no, ok := errors.AsType[*backend.Refusal](err); ok {
		c.SendRaw(wire.Sync, nil)
		if err := s.converse(c); err != nil {
			return err
		}
		s.router.Failed(0)
		s.pipe.reset()
		return no
	}
	return err
}

// shape is a digest of a statement's parameters and columns, as Describe tells
// them, without what may differ between nodes that are not copies of each other.
type shape [sha256.Size]byte

// noteParams takes the first half of a statement's description, shapeWith the
// second: the bodies of ParameterDescription, and of RowDescription or NoData.
func (s *Session) noteParams(body []byte) { s.params = append(s.params[:0], body...) }

func (s *Session) shapeWith(body []byte) shape {
	text := s.params
	for rest := body[min(2, len(body)):]; len(rest) > 0; {
		name, field, ok := wire.CString(rest)
		if !ok || len(field) < columnSize {
			break
		}
		text = append(append(text, name...), 0)
		text = append(text, field[columnType:columnSize]...)
		rest = field[columnSize:]
	}
	text = binary.BigEndian.AppendUint32(text, uint32(len(body)))
	s.params = text[:0]
	return sha256.Sum256(text)
}

// A column behind its name: the table and column it stems from, then type, length,
// modifier and format.
const (
	columnType = 6
	columnSize = 18
)
