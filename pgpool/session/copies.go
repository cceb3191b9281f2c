package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/wire"
)

// A named statement of a client is prepared on a shared server connection under a
// name made of what it says, the types of its parameters, and the settings it is
// understood by. So two clients' statements of one name do not meet, and equal
// ones are prepared once for all clients.

// textID names what a prepared statement means. Two that mean something else have
// different ones.
type textID [20]byte

// aliasPrefix begins the names of copies. A client would not use it by accident;
// and if it does, no harm is done: a copy is closed before it is prepared, and what
// has a client's name is closed before another uses it.
const aliasPrefix = "pgpool copy "

const aliasLen = len(aliasPrefix) + 27

// copied is a statement that a shared server connection has prepared. What it
// returns does not change while it is there, as PostgreSQL refuses to execute it
// when it would.
type copied struct {
	name string
	used uint64 // by the connection's clock
	told told
}

// told is what a Describe has told of a statement, as digests; 0, nothing.
type told struct{ params, columns uint64 }

// differs tells whether two descriptions cannot be of the same statement.
func (t told) differs(o told) bool {
	return t.params != 0 && o.params != 0 && t.params != o.params || t.columns != 0 && o.columns != 0 && t.columns != o.columns
}

// covers tells whether t says all that o does.
func (t told) covers(o told) bool {
	return (t.params != 0 || o.params == 0) && (t.columns != 0 || o.columns == 0)
}

// alias is what a statement is called on shared connections.
type alias struct {
	id      textID
	name    string // empty: not worked out
	meaning string // the settings it was worked out for
	told    told   // what the client has been told of the statement
}

// privates counts names that no two statements share.
var privates atomic.Uint64

// identify works out a statement's alias under the settings in force.
func (s *Session) identify(st *statement) {
	if s.settings.tentative() { // who knows what it means, or will when the transaction is over
		if st.alias.name == "" || st.alias.meaning != tentative {
			n := privates.Add(1)
			st.alias.id = textID{}
			binary.BigEndian.PutUint64(st.alias.id[:], n)
			st.alias.name, st.alias.meaning = aliasPrefix+"private "+strconv.FormatUint(n, 10), tentative
		}
		return
	}
	meaning := s.settings.state(false).meaning
	if st.alias.name != "" && st.alias.meaning == meaning {
		return
	}
	_, rest, _ := wire.CString(st.frame[5:])
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(meaning))))
	h.Write([]byte(meaning))
	h.Write(rest)
	sum := h.Sum(nil)
	copy(st.alias.id[:], sum)
	st.alias.name, st.alias.meaning = aliasPrefix+base64.RawURLEncoding.EncodeToString(st.alias.id[:]), meaning
}

// tentative is the meaning of what is private; no settings spell it.
const tentative = "\x00"

// aliased tells whether a statement has another name on c than for its client.
func aliased(c *server, st *statement) bool { return c.shared != nil && st != nil && st.name != "" }

// copyOf is a statement's copy on c; nil, there is none.
func (s *Session) copyOf(c *server, st *statement) *copied {
	s.identify(st)
	k := c.shared.copies[st.alias.id]
	if k != nil {
		c.shared.clock++
		k.used = c.shared.clock
	}
	return k
}

// plant composes a statement's Parse under its alias, for the client or, with
// skip, for ourselves. A copy that c has is made anew, with the schema as it is.
func (s *Session) plant(c *server, st, was *statement, skip bool) *copied {
	s.identify(st)
	s.weed(c)
	s.closeCopy(c, st.alias.name)
	c.shared.clock++
	k := &copied{name: st.alias.name, used: c.shared.clock}
	c.shared.copies[st.alias.id] = k
	_, rest, _ := wire.CString(st.frame[5:])
	composeNamed(c, wire.Parse, nil, k.name, len(rest))
	c.Write(rest)
	s.due.push(c, expectation{kind: wire.Parse, skip: skip, stmt: st, was: was, at: k})
	s.pipe.touch(c)
	return k
}

// composeNamed composes the beginning of a message that names a statement: letter,
// length, perhaps the portal's name, the statement's. So many bytes are to follow.
func composeNamed(c *server, typ byte, portal []byte, name string, rest int) {
	n := 4 + len(name) + 1 + rest
	if typ == wire.Bind {
		n += len(portal) + 1
	}
	var room [128]byte
	head := append(room[:0], typ)
	head = binary.BigEndian.AppendUint32(head, uint32(n))
	if typ == wire.Bind {
		head = append(append(head, portal...), 0)
	}
	head = append(append(head, name...), 0)
	c.Write(head)
}

// closeCopy composes a Close. It is no error if the server has none of that name.
func (s *Session) closeCopy(c *server, name string) {
	c.Send(&pgproto3.Close{ObjectType: 'S', Name: name})
	s.due.push(c, expectation{kind: wire.Close, skip: true, closes: name})
	s.pipe.touch(c)
}

// weed makes room for one more copy, and closes those whose Close was lost.
func (s *Session) weed(c *server) {
	for _, name := range c.shared.strays {
		s.closeCopy(c, name)
	}
	c.shared.strays = c.shared.strays[:0]
	for len(c.shared.copies) >= s.cfg.MaxPreparedStatements {
		var oldest textID
		least := ^uint64(0)
		for id, k := range c.shared.copies {
			if k.used < least {
				oldest, least = id, k.used
			}
		}
		s.closeCopy(c, c.shared.copies[oldest].name)
		delete(c.shared.copies, oldest)
	}
}

// provide sees to it that c has a copy of a statement, and one that returns what
// the client has been told; else errChanged, as from a server.
func (s *Session) provide(c *server, st *statement) error {
	k := s.copyOf(c, st)
	for again := k == nil || !k.told.covers(st.alias.told); ; again = true {
		if again {
			s.recordStatement(c, "Parse: ", st)
			k = s.plant(c, st, nil, true)
		}
		if !k.told.covers(st.alias.told) {
			s.askCopy(c, st, k)
			if err := s.cut(); err != nil || s.pipe.skipping {
				return err
			}
		}
		switch {
		case !k.told.differs(st.alias.told):
			return nil
		case again:
			return errChanged
		}
		// Another client has had it prepared with the schema otherwise.
	}
}

// askCopy composes a Describe of our own.
func (s *Session) askCopy(c *server, st *statement, k *copied) {
	c.Send(&pgproto3.Describe{ObjectType: 'S', Name: k.name})
	s.due.push(c, expectation{kind: wire.Describe, skip: true, stmt: st, at: k})
	s.pipe.touch(c)
}

// noteDescribed compares what a description says of a copy with what was known of it.
// body is that of a RowDescription or NoData.
func (s *Session) noteDescribed(x *expectation, body []byte) {
	if x.at == nil {
		return
	}
	if x.stmt != nil { // a statement: s.params has its parameters
		x.at.told.params = digest(s.params)
	}
	if x.at.told.columns == 0 {
		x.at.told.columns = columns(body)
	}
	if st := x.about(); !x.skip && st != nil {
		if x.stmt != nil {
			st.alias.told.params = x.at.told.params
		}
		st.alias.told.columns = x.at.told.columns
	}
}

// about is the statement whose description is due.
func (x *expectation) about() *statement {
	if x.stmt != nil {
		return x.stmt
	}
	return x.was
}

var digestSeed = maphash.MakeSeed()

func digest(b []byte) uint64 { return max(1, maphash.Bytes(digestSeed, b)) }

// columns is a digest of names and types of columns, without what differs between
// a portal and its statement, or between equal tables.
func columns(body []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(digestSeed)
	if len(body) >= 2 {
		h.Write(body[:2])
	}
	for rest := body[min(2, len(body)):]; len(rest) > 0; {
		name, field, ok := wire.CString(rest)
		if !ok || len(field) < columnSize {
			break
		}
		h.Write(rest[:len(name)+1])
		h.Write(field[columnType : columnSize-2])
		rest = field[columnSize:]
	}
	return max(1, h.Sum64())
}

// travels tells that no server has a statement but as a copy, so that nobody need
// hear when its client closes it.
func (s *Session) travels(st *statement) bool {
	if !s.sharing.on || st.name == "" {
		return false
	}
	for _, c := range s.conns {
		if c != nil && (c.shared == nil || c.stmts[st.name] == st) {
			return false
		}
	}
	return true
}

// travel prepares on a shared server what SQL has prepared elsewhere and a
// statement calls by its name. One that looks into the list of statements is
// shown the session's own.
func (s *Session) travel(c *server, v *parser.Verdict) error {
	if c.shared == nil {
		return nil
	}
	names := s.calledSQL(v)
	if lists(v) {
		if err := s.utter(c, "DEALLOCATE ALL"); err != nil {
			return err
		}
		clear(c.stmts)
		clear(c.shared.copies)
		names = slices.Sorted(maps.Keys(s.sqlStmts))
	}
	for _, name := range s.called(v) { // what the session has ended elsewhere, or Parse has left
		if old := s.has(c, name); old != nil && old != s.stmts[name] && (s.sqlStmts[name] == nil || old != s.sqlStmts[name].mark) {
			s.makeRoom(c, name)
		}
	}
	for _, name := range names {
		if p := s.sqlStmts[name]; p != nil && c.stmts[name] != p.mark && !s.broken() {
			if err := s.utter(c, p.text); err != nil {
				return err
			}
			c.stmts[name] = p.mark
		}
	}
	return nil
}

// calledSQL are the names that a statement calls prepared statements by.
func (s *Session) calledSQL(v *parser.Verdict) []string {
	if len(s.sqlStmts) == 0 {
		return nil
	}
	return s.called(v)
}

// lists tells whether a statement looks into the list of prepared statements.
func lists(v *parser.Verdict) bool {
	return slices.ContainsFunc(v.Relations, listsStatements) || v.Inner != nil && lists(v.Inner) || slices.ContainsFunc(v.Parts, lists)
}

// utter runs a statement of our own without ending the client's pipeline.
func (s *Session) utter(c *server, sql string) error {
	if !slices.Contains(s.pipe.touched, c) {
		return s.exchange(c, sql)
	}
	if err := s.cut(); err != nil {
		return err
	}
	if s.pipe.skipping {
		return errPassedOver
	}
	delete(c.stmts, "")
	c.Send(&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{})
	err := s.converseTo(c, wire.CommandComplete)
	if no, ok := errors.AsType[*backend.Refusal](err); ok { // and now it waits for a Sync
		return &backend.Error{Node: c.Node, Err: no}
	}
	return err
}

// unalias gives an error that names a copy the client's own name for it.
func unalias(frame []byte, st *statement) []byte {
	at := bytes.Index(frame, []byte(aliasPrefix))
	if at < 0 || st == nil || st.alias.name == "" {
		return frame
	}
	out := bytes.ReplaceAll(frame, []byte(st.alias.name), []byte(st.name))
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}
