package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

const (
	batchMessages = 64      // messages sent before their replies are read
	batchBytes    = 8 << 10 // the same in bytes; far less than a socket holds
)

// errFormat is a message of the right length whose inside makes no sense. It
// fails like a statement: the stream is still in step.
var errFormat = &wire.Error{Severity: "ERROR", Code: "08P01", Message: "invalid message format"}

// names returns the first n strings of the next frame's body, after skip bytes.
// They are valid until the next read from the client.
func (s *Session) names(size, skip, n int) ([2][]byte, error) {
	for want := min(size, 256); ; want = min(size, 4*want) {
		if err := s.client.Need(want); err != nil {
			return [2][]byte{}, err
		}
		var out [2][]byte
		rest, ok := s.client.Bytes()[:want][min(5+skip, want):], true
		for i := 0; i < n && ok; i++ {
			out[i], rest, ok = wire.CString(rest)
		}
		if ok {
			return out, nil
		}
		if want == size {
			return out, errFormat
		}
	}
}

func (s *Session) parse(size int) error {
	if s.pipe.skipping {
		return s.client.Discard(size)
	}
	_, body, err := s.client.Frame(wire.MaxFrame)
	if err != nil {
		return err
	}
	name, rest, ok := wire.CString(body)
	sql, _, ok2 := wire.CString(rest)
	if !ok || !ok2 {
		s.client.Skip(size)
		return s.refuseInPipeline(errFormat)
	}
	if s.logsMessages() {
		s.message("Parse", "statement: "+quote(name)+", query: "+quote(sql))
	}
	v := s.classify(sql, size)
	taken, old := len(name) > 0 && s.taken(string(name)), s.stmts[string(name)]
	if taken && (v.Pool != nil || old.local()) {
		word := &wire.Error{Severity: "ERROR", Code: "42P05", Message: fmt.Sprintf("prepared statement \"%s\" already exists", name)}
		s.client.Skip(size)
		return s.refuseInPipeline(word)
	}
	if v.Pool != nil {
		return s.parseLocal(&statement{name: string(name), frame: bytes.Clone(s.client.Bytes()[:size]), verdict: v, home: s.main}, size)
	}
	if !taken {
		if done, err := s.parseLazily(v, name, s.client.Bytes()[:size]); done || err != nil {
			return err
		}
	}
	choice, err := s.choose(v, sql, true, 0)
	if err == nil && taken && old == nil { // prepared by SQL
		choice.server, err = s.mainServer()
	}
	if err == nil {
		err = s.turnTo(choice.server)
	}
	if err == nil && old != nil && !s.pipe.skipping {
		err = s.prepareAs(choice.server, old) // the server is to refuse the second of that name, if nothing else
	}
	if err == nil && taken && old == nil && !s.pipe.skipping {
		err = s.prepareSQL(choice.server, string(name)) // and the second of that one
	}
	if err == nil && !s.pipe.skipping {
		err = s.prepareNamed(choice.server, v)
	}
	if err != nil || s.pipe.skipping {
		s.client.Skip(size)
		return s.refuseInPipeline(err)
	}
	c := choice.server
	st, was := s.blank(), s.unnamed
	st.frame = append(st.frame[:0], s.client.Bytes()[:size]...)
	st.name, st.verdict, st.home, st.meaning, st.bound, st.described = string(name), v, c.Node, s.settings.meaning, false, false
	st.alias = alias{}
	switch {
	case len(name) == 0:
		s.unnamed = st
	case taken:
		was = nil
	default:
		was = nil
		s.stmts[st.name] = st
		if aliased(c, st) {
			s.record(c, "Parse: ", sql)
			s.client.Skip(size)
			s.plant(c, st, nil, false)
			return s.paced()
		}
		s.makeRoom(c, st.name)
	}
	s.record(c, "Parse: ", sql)
	s.send(c, s.client.Bytes()[:size])
	s.client.Skip(size)
	s.due.push(c, expectation{kind: wire.Parse, stmt: st, was: was})
	s.pipe.touch(c)
	if err := s.paced(); err != nil {
		return err
	}
	s.pipe.parsed, s.placed = st, choice
	return nil
}

// classify is the verdict on the text of the Parse of size bytes at the head of the
// client's buffer. Many clients prepare the same again and again.
func (s *Session) classify(sql []byte, size int) *parser.Verdict {
	if st := s.unnamed; st != nil && bytes.Equal(st.frame, s.client.Bytes()[:size]) {
		return st.verdict
	}
	return s.verdictOn(sql)
}

func (s *Session) bind(size int) error {
	if s.pipe.skipping {
		return s.client.Discard(size)
	}
	names, err := s.names(size, 0, 2)
	if err == errFormat {
		s.client.Skip(size)
		return s.refuseInPipeline(err)
	} else if err != nil {
		return err
	}
	if s.logsMessages() {
		s.message("Bind", "portal: "+quote(names[0])+", statement: "+quote(names[1]))
	}
	st := s.lookup(names[1])
	if st.local() {
		return s.bindLocal(st, size)
	}
	choice, err := s.place(st, names[1])
	if p := s.portals.find(names[0]); err == nil && p != nil && p.name != "" && p.server != nil {
		choice.server = p.server // which is to refuse the second of that name
	}
	if err == nil && size > batchBytes { // replies must not wait behind it, see the package comment
		err = s.cut()
	}
	if err == nil {
		choice, err = s.bring(st, names[1], choice)
	}
	if err != nil || s.pipe.skipping {
		if err := s.client.Discard(size); err != nil {
			return err
		}
		return s.refuseInPipeline(err)
	}
	c := choice.server
	p, was := s.portals.find(names[0]), (*portal)(nil)
	if p == nil || p.name != "" {
		p, was = &portal{name: string(names[0])}, p
		s.portals.put(p)
	}
	*p = portal{name: p.name, server: c, verdict: opaque, decision: choice.decision, stmt: st}
	if st != nil {
		p.verdict = st.verdict
	} else if sql := s.sqlStmts[string(names[1])]; sql != nil {
		p.verdict = sql.execute
	}
	s.recordStatement(c, "Bind: ", st)
	x := expectation{kind: wire.Bind}
	if aliased(c, st) {
		p.copy, x.was = s.copyOf(c, st), st
		s.pipe.copies, s.pipe.partly = true, s.pipe.partly || size > batchBytes
		head := 5 + len(names[0]) + 1 + len(names[1]) + 1
		size -= head
		composeNamed(c, wire.Bind, names[0], p.copy.name, size)
		s.client.Skip(head)
	}
	if err := s.client.Forward(c.Conn.Conn, size); err != nil {
		c.Taint() // perhaps it has a part of it
		return err
	}
	if p.name != "" {
		x.portal, x.portalWas = p, was
	}
	s.due.push(c, x)
	s.pipe.touch(c)
	return s.paced()
}

// whole returns the kind byte and the name of a Describe or Close, whose frame
// is small and read whole.
func (s *Session) whole() (kind byte, name []byte, err error) {
	_, body, err := s.client.Frame(smallMessage)
	if err != nil {
		return 0, nil, err
	}
	if len(body) < 2 || body[0] != 'S' && body[0] != 'P' || body[len(body)-1] != 0 {
		s.client.Skip(5 + len(body))
		return 0, nil, errFormat
	}
	return body[0], body[1 : len(body)-1], nil
}

func (s *Session) describe(size int) error {
	kind, name, err := s.whole()
	if err != nil {
		return s.refuseInPipeline(err)
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	if s.logsMessages() {
		s.message("Describe", objectDetail(kind, name))
	}
	var c *server
	var st *statement
	var of *portal
	if kind == 'S' {
		if st = s.lookup(name); st.local() {
			return s.describeLocal(st, nil, size)
		} else if st != nil && s.broken() {
			c, err = s.mainServer() // which refuses what returns rows
		} else if st != nil {
			c, err = s.whereIs(st)
		} else {
			c, err = s.mainServer()
		}
	} else if p := s.portals.find(name); p != nil && p.local != nil {
		return s.describeLocal(p.local.stmt, p.local, size)
	} else if p != nil && p.server != nil {
		c, of = p.server, p
	} else {
		c, err = s.mainServer()
	}
	if err == nil {
		err = s.turnTo(c)
	}
	switch {
	case err != nil || s.pipe.skipping:
	case st != nil:
		err = s.prepare(c, st)
	case kind == 'S':
		err = s.prepareSQL(c, string(name))
	}
	if err != nil || s.pipe.skipping {
		s.client.Skip(size)
		return s.refuseInPipeline(err)
	}
	s.record(c, "D message", nil)
	x := expectation{kind: wire.Describe, stmt: st}
	if aliased(c, st) {
		x.at = s.copyOf(c, st)
		s.pipe.copies = true
		c.Send(&pgproto3.Describe{ObjectType: 'S', Name: x.at.name})
	} else {
		s.send(c, s.client.Bytes()[:size])
	}
	if of != nil && of.copy != nil {
		x.was, x.at = of.stmt, of.copy
	}
	s.client.Skip(size)
	s.due.push(c, x)
	s.pipe.touch(c)
	return s.paced()
}

func (s *Session) execute(size int) error {
	_, body, err := s.client.Frame(smallMessage)
	if err != nil {
		return err
	}
	name, rest, ok := wire.CString(body)
	if !ok || len(rest) != 4 {
		s.client.Skip(size)
		return s.refuseInPipeline(errFormat)
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	if s.logsMessages() {
		s.message("Execute", "portal: "+quote(name))
	}
	var c *server
	v, d := opaque, route.Decision{Node: s.main, Write: true}
	var st *statement
	if p := s.portals.find(name); p != nil && p.local != nil {
		return s.executeLocal(p.local, int(int32(binary.BigEndian.Uint32(rest))), size)
	} else if p != nil && p.server != nil {
		c, v, d, st = p.server, p.verdict, p.decision, p.stmt
	} else {
		c, err = s.mainServer()
	}
	if err == nil {
		err = s.turnTo(c)
	}
	if err != nil || s.pipe.skipping {
		s.client.Skip(size)
		return s.refuseInPipeline(err)
	}
	if st != nil && s.marks.loud {
		s.logStatement(st.text())
	}
	s.countRoute(d)
	s.count(c, v)
	c.noteStatement(st)
	s.recordStatement(c, "Execute: ", st)
	if c.Node == s.main && (d.Write || !plain(v)) {
		s.pipe.pinned = true
	}
	s.batch.safe = s.batch.safe && s.repeatable(v, d)
	if s.Cache != nil {
		s.recordFrom(c)
		s.noteWrite(v, d)
		s.mayCommitEarly(v)
	}
	s.router.Send(v, d)
	s.send(c, s.client.Bytes()[:size])
	s.client.Skip(size)
	s.due.push(c, expectation{kind: wire.Execute, verdict: ran(v, d), opaque: d.Opaque})
	s.pipe.touch(c)
	return s.paced()
}

func (s *Session) closeObject(size int) error {
	kind, name, err := s.whole()
	if err != nil {
		return s.refuseInPipeline(err)
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	if s.logsMessages() {
		s.message("Close", objectDetail(kind, name))
	}
	var c *server
	x := expectation{kind: wire.Close}
	if kind == 'P' {
		if p := s.portals.find(name); p != nil && p.local != nil {
			s.portals.drop(p.name)
			return s.closeLocal(size)
		} else if p != nil {
			c, x.portalWas = p.server, p
		}
	} else if x.was = s.lookup(name); x.was.local() {
		if delete(s.stmts, x.was.name); s.unnamed == x.was {
			s.unnamed = nil
		}
		return s.closeLocal(size)
	} else if x.was != nil && s.travels(x.was) {
		if ok, err := s.inOrder(size, nil); !ok {
			return err // and the statement stays, as the Close is passed over
		}
		delete(s.stmts, x.was.name)
		s.client.Skip(size)
		s.heard = true
		return s.client.Send(&pgproto3.CloseComplete{})
	} else if x.was != nil {
		// Servers other than the one told below keep it until the name is
		// wanted again, see makeRoom.
		x.stmt = x.was
		c, err = s.whereIs(x.was)
	} else {
		x.stmt, x.sql = &statement{name: string(name)}, s.sqlStmts[string(name)]
	}
	if c == nil && err == nil {
		c, err = s.mainServer()
	}
	if err == nil {
		err = s.turnTo(c)
	}
	if err != nil || s.pipe.skipping {
		s.client.Skip(size)
		return s.refuseInPipeline(err)
	}
	switch {
	case kind == 'P':
		s.portals.drop(string(name))
	case len(name) == 0:
		s.unnamed = nil
	default:
		delete(s.stmts, string(name))
		delete(s.sqlStmts, string(name))
	}
	s.record(c, "C message", nil)
	s.send(c, s.client.Bytes()[:size])
	s.client.Skip(size)
	s.due.push(c, x)
	s.pipe.touch(c)
	return s.paced()
}

// turnTo makes c the server spoken to. What another one still owes is answered
// first: if that is an error, the rest of the pipeline must not run anywhere.
func (s *Session) turnTo(c *server) error {
	if !s.due.empty() && s.due.server != c {
		if err := s.cut(); err != nil {
			return err
		}
	}
	s.cur = c
	if err := s.collect(c); err != nil {
		s.strayed(c, err)
		return &wire.Error{Severity: "ERROR", Code: "40001", Message: "the standby that this belongs to was lost", Hint: "Try again."}
	}
	s.tidy(c)
	return nil
}

// paced cuts a batch that has grown so large that its replies might fill the
// sockets while we are still writing.
func (s *Session) paced() error {
	if len(s.due.list)-s.due.head < batchMessages && s.pipe.ahead+s.due.server.Unsent() < batchBytes {
		return nil
	}
	return s.cut()
}

// hasten sends what is composed while the client takes its time with the rest of
// a pipeline, so that the server works meanwhile and its timers run as they
// would if the client spoke to it.
func (s *Session) hasten() error {
	if s.due.empty() {
		return nil
	}
	s.pipe.ahead += s.due.server.Unsent()
	s.pipe.partly = true
	return s.due.server.Flush()
}

// cut has the server answer what it has been sent so far, and relays it.
func (s *Session) cut() error {
	if s.due.empty() {
		return nil
	}
	c := s.due.server
	if err := c.SendRaw(wire.Flush, nil); err != nil {
		return err
	}
	s.pipe.partly = true
	if err := c.Flush(); err != nil {
		return err
	}
	return s.relay()
}

func (s *Session) flush(size int) error {
	s.message("Flush", "")
	if err := s.client.Discard(size); err != nil {
		return err
	}
	if s.pipe.skipping {
		return nil
	}
	if err := s.cut(); err != nil {
		return err
	}
	return s.client.Flush()
}

func (s *Session) sync(size int) error {
	s.message("Sync", "")
	if err := s.client.Discard(size); err != nil {
		return err
	}
	if s.Cache != nil {
		s.mayCommit(nil)
	}
	touched := s.pipe.touched
	if len(touched) == 1 && (s.due.empty() || s.due.server == touched[0]) {
		// The common case: what is left of the pipeline and its end in one burst.
		c := touched[0]
		if err := c.SendRaw(wire.Sync, nil); err != nil {
			return err
		}
		s.rememberBatch(c)
		if err := c.Post(); err != nil {
			return err
		}
		s.due.push(c, expectation{kind: wire.Sync})
		s.asked = asked{pipeline: true}
		return s.expectAnswer()
	}
	if s.Cache != nil {
		defer s.recorded()
	}
	s.pipe.syncing = true
	err := s.cut()
	s.pipe.syncing = false
	if err != nil {
		return err
	}
	if s.pipe.syncLost {
		return s.endPipeline()
	}
	// The main server last: its word on the transaction counts.
	for _, c := range touched {
		if c.Node != s.main {
			if err := s.syncServer(c); err != nil {
				return err
			}
		}
	}
	last := s.conns[s.main]
	for _, c := range touched {
		if c.Node == s.main {
			if err := s.syncServer(c); err != nil {
				return err
			}
		} else if s.failedHalf(c) {
			s.tx.poisoned = true
		}
	}
	if last != nil {
		s.settle(last)
	}
	if err := s.client.Send(s.readyForQuery()); err != nil {
		return err
	}
	return s.endPipeline()
}

// answeredPipeline draws the conclusions of a pipeline's answers.
func (s *Session) answeredPipeline(err error) error {
	if s.Cache != nil {
		defer s.recorded()
	}
	if err != nil {
		return err
	}
	return s.endPipeline()
}

// endPipeline forgets the pipeline, unless a COPY has swallowed its Sync: then
// the client will send another.
func (s *Session) endPipeline() error {
	if s.pipe.syncLost {
		s.pipe.syncLost = false
		return nil
	}
	s.pipe.reset()
	s.batch.end()
	return nil
}

// readyForQuery shows the client its transaction's state.
func (s *Session) readyForQuery() *pgproto3.ReadyForQuery {
	return &pgproto3.ReadyForQuery{TxStatus: s.status()}
}

// status is that state.
func (s *Session) status() byte {
	status := byte('I')
	if main := s.conns[s.main]; main != nil {
		status = main.Status
	}
	if s.tx.poisoned {
		status = 'E'
	}
	return status
}

// syncServer ends the pipeline on one of several servers. The client is shown
// errors, as of a deferred constraint, but not the ReadyForQuery.
func (s *Session) syncServer(c *server) error {
	if s.Cache != nil {
		s.mayCommit(nil)
	}
	if err := c.SendRaw(wire.Sync, nil); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	s.due.push(c, expectation{kind: wire.Sync, skip: true})
	return s.relay()
}

// refuseInPipeline answers an extended message with an error of our own, after
// what is still due. A nil error means that the pipeline has failed meanwhile.
func (s *Session) refuseInPipeline(err error) error {
	if err == nil || err == errPassedOver {
		return nil
	}
	word, err := s.ownWord(err)
	if err != nil {
		return err
	}
	if err := s.cut(); err != nil {
		return err
	}
	if s.pipe.skipping {
		return nil
	}
	s.pipe.skipping, s.pipe.failed, s.heard = true, true, true
	if err := s.failPipeline(); err != nil {
		return err
	}
	return s.client.Send(word.Response())
}

// failPipeline makes the main server fail what the pipeline has done there, as
// it would have if the error just answered were its own: otherwise Sync would
// commit it.
func (s *Session) failPipeline() error {
	main := s.conns[s.main]
	if main == nil || !slices.Contains(s.pipe.touched, main) {
		s.poisonIfOpen()
		return nil
	}
	if err := main.Send(&pgproto3.Parse{Query: "pgpool: a message of this pipeline was refused"}, &pgproto3.Flush{}); err != nil {
		return err
	}
	delete(main.stmts, "")
	err := s.converseTo(main, wire.ParseComplete)
	if err == nil {
		return s.outOfPlace(main, wire.ParseComplete)
	}
	if _, ok := errors.AsType[*backend.Refusal](err); !ok {
		return err
	}
	s.router.Failed(0)
	return nil
}

// frame waits for a server's next control message, which is left unconsumed.
func (s *Session) frame(c *server) (typ byte, body []byte, err error) {
	for {
		typ, size, ok, err := c.Peek()
		if err != nil {
			return 0, nil, err
		}
		if ok && size <= c.Buffered() {
			return typ, c.Bytes()[5:size], nil
		}
		if size > answerLimit {
			return 0, nil, &backend.Error{Node: c.Node, Err: &wire.FrameError{Type: typ, Length: uint32(size)}}
		}
		if err := s.fillTo(c, size); err != nil {
			return 0, nil, err
		}
	}
}

// broken tells that the client's transaction block has failed.
func (s *Session) broken() bool {
	main := s.conns[s.main]
	return s.tx.open && main != nil && (main.Status == 'E' || s.tx.poisoned)
}

func objectDetail(kind byte, name []byte) string {
	if kind == 'P' {
		return "portal: " + quote(name)
	}
	return "statement: " + quote(name)
}

func quote(b []byte) string { return "\"" + string(b) + "\"" }
