package session

import (
	"bytes"
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
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
	seq     uint64 // the settings in force then: names are looked up by them
}

func (st *statement) text() []byte {
	_, rest, _ := wire.CString(st.frame[5:])
	sql, _, _ := wire.CString(rest)
	return sql
}

// portal is a portal of the client, which lives on one server.
type portal struct {
	server   *server
	verdict  *parser.Verdict
	decision route.Decision
	stmt     *statement // for the log; nil if it is not known
}

const (
	batchMessages = 64      // messages sent before their replies are read
	batchBytes    = 8 << 10 // the same in bytes; far less than a socket holds
)

// names returns the first n strings of the next frame's body, after skip bytes.
// They are valid until the next read from the client.
func (s *Session) names(size, skip, n int) ([2][]byte, error) {
	for want := min(size, 256); ; want = size {
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
			return out, wire.Fatal("08P01", "invalid message format")
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
		return wire.Fatal("08P01", "invalid message format")
	}
	if s.logsMessages() {
		s.message("Parse", "statement: "+quote(name)+", query: "+quote(sql))
	}
	v := s.Parser.Classify(sql)
	if _, taken := s.stmts[string(name)]; taken && len(name) > 0 {
		word := &wire.Error{Severity: "ERROR", Code: "42P05", Message: fmt.Sprintf("prepared statement \"%s\" already exists", name)}
		s.client.Skip(size)
		return s.refuseInPipeline(word)
	}
	choice, err := s.choose(v, sql, true, 0)
	if err == nil {
		err = s.turnTo(choice.server)
	}
	if err != nil || s.pipe.skipping {
		s.client.Skip(size)
		return s.refuseInPipeline(err)
	}
	c := choice.server
	st := s.unnamed
	if len(name) > 0 || st == nil {
		st = &statement{name: string(name)}
	}
	st.frame = append(st.frame[:0], s.client.Bytes()[:size]...)
	st.verdict, st.home, st.seq = v, c.Node, s.settings.seq
	if len(name) == 0 {
		s.unnamed = st
		for _, o := range s.conns {
			if o != nil {
				delete(o.stmts, "")
			}
		}
	} else {
		s.stmts[st.name] = st
		s.makeRoom(c, st.name)
	}
	s.record(c, "Parse: ", sql)
	s.send(c, s.client.Bytes()[:size])
	s.client.Skip(size)
	s.due.push(c, expectation{kind: wire.Parse, stmt: st})
	s.pipe.touch(c)
	return s.paced()
}

// makeRoom closes a statement of the same name that the client has closed, or
// whose Parse has failed, but that server c still has.
func (s *Session) makeRoom(c *server, name string) {
	if _, there := c.stmts[name]; there {
		delete(c.stmts, name)
		c.Send(&pgproto3.Close{ObjectType: 'S', Name: name})
		s.due.push(c, expectation{kind: wire.Close, skip: true})
	}
}

// prepare sends a statement's Parse to a server that lacks it. The client does
// not see the reply unless it is an error.
func (s *Session) prepare(c *server, st *statement) {
	if c.stmts[st.name] == st {
		return
	}
	for i := s.due.head; i < len(s.due.list); i++ {
		if x := &s.due.list[i]; x.kind == wire.Parse && x.stmt == st && s.due.server == c {
			return // on its way
		}
	}
	if st.name != "" {
		s.makeRoom(c, st.name)
	}
	s.send(c, st.frame)
	s.due.push(c, expectation{kind: wire.Parse, skip: true, stmt: st})
	s.pipe.touch(c)
}

func (s *Session) bind(size int) error {
	if s.pipe.skipping {
		return s.client.Discard(size)
	}
	names, err := s.names(size, 0, 2)
	if err != nil {
		return err
	}
	if s.logsMessages() {
		s.message("Bind", "portal: "+quote(names[0])+", statement: "+quote(names[1]))
	}
	st := s.lookup(names[1])
	choice, err := s.place(st)
	if err == nil {
		if size > batchBytes { // its replies must not wait behind it, see the package comment
			err = s.cut()
		}
		if err == nil {
			err = s.turnTo(choice.server)
		}
	}
	if err != nil || s.pipe.skipping {
		if err := s.client.Discard(size); err != nil {
			return err
		}
		return s.refuseInPipeline(err)
	}
	c := choice.server
	p := s.portals[string(names[0])]
	if p == nil {
		p = &portal{}
		s.portals[string(names[0])] = p
	}
	*p = portal{server: c, verdict: opaque, decision: choice.decision, stmt: st}
	if st != nil {
		s.prepare(c, st)
		p.verdict = st.verdict
	}
	s.recordStatement(c, "Bind: ", st)
	if err := s.client.Forward(c.Conn.Conn, size); err != nil {
		return err
	}
	s.due.push(c, expectation{kind: wire.Bind})
	s.pipe.touch(c)
	return s.paced()
}

func (s *Session) lookup(name []byte) *statement {
	if len(name) == 0 {
		return s.unnamed
	}
	return s.stmts[string(name)]
}

// whole returns the kind byte and the name of a Describe or Close, whose frame
// is small and read whole.
func (s *Session) whole() (kind byte, name []byte, err error) {
	_, body, err := s.client.Frame(smallMessage)
	if err != nil {
		return 0, nil, err
	}
	if len(body) < 2 || body[0] != 'S' && body[0] != 'P' || body[len(body)-1] != 0 {
		return 0, nil, wire.Fatal("08P01", "invalid message format")
	}
	return body[0], body[1 : len(body)-1], nil
}

func (s *Session) describe(size int) error {
	kind, name, err := s.whole()
	if err != nil {
		return err
	}
	if s.logsMessages() {
		s.message("Describe", objectDetail(kind, name))
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	var c *server
	var st *statement
	if kind == 'S' {
		if st = s.lookup(name); st != nil {
			c, err = s.whereIs(st)
		} else {
			c, err = s.mainServer()
		}
	} else if p := s.portals[string(name)]; p != nil && p.server != nil {
		c = p.server
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
	if st != nil {
		s.prepare(c, st)
	}
	s.record(c, "D message", nil)
	s.send(c, s.client.Bytes()[:size])
	s.client.Skip(size)
	s.due.push(c, expectation{kind: wire.Describe})
	s.pipe.touch(c)
	return s.paced()
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

func (s *Session) execute(size int) error {
	_, body, err := s.client.Frame(smallMessage)
	if err != nil {
		return err
	}
	name, rest, ok := wire.CString(body)
	if !ok || len(rest) != 4 {
		return wire.Fatal("08P01", "invalid message format")
	}
	if s.logsMessages() {
		s.message("Execute", "portal: "+quote(name))
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	var c *server
	v, d := opaque, route.Decision{Node: s.main, Write: true}
	var st *statement
	if p := s.portals[string(name)]; p != nil && p.server != nil {
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
	if s.cfg.LogStatement && st != nil {
		s.logStatement("Execute: ", st.text())
	}
	s.count(c, v)
	s.recordStatement(c, "Execute: ", st)
	if c.Node == s.main && (d.Write || !plain(v)) {
		s.pipe.pinned = true
	}
	s.router.Send(v, d)
	s.send(c, s.client.Bytes()[:size])
	s.client.Skip(size)
	s.due.push(c, expectation{kind: wire.Execute, verdict: v})
	s.pipe.touch(c)
	return s.paced()
}

func (s *Session) closeObject(size int) error {
	kind, name, err := s.whole()
	if err != nil {
		return err
	}
	if s.logsMessages() {
		s.message("Close", objectDetail(kind, name))
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	var c *server
	if kind == 'P' {
		if p := s.portals[string(name)]; p != nil {
			c, p.server = p.server, nil
		}
	} else if st := s.lookup(name); st != nil {
		// Servers other than the one told below keep it until the name is
		// wanted again, see makeRoom.
		if c, err = s.whereIs(st); err == nil {
			delete(c.stmts, st.name)
		}
		if st.name == "" {
			s.unnamed = nil
		} else {
			delete(s.stmts, st.name)
		}
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
	s.send(c, s.client.Bytes()[:size])
	s.client.Skip(size)
	s.due.push(c, expectation{kind: wire.Close})
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
	return nil
}

// paced cuts a batch that has grown so large that its replies might fill the
// sockets while we are still writing.
func (s *Session) paced() error {
	if len(s.due.list)-s.due.head < batchMessages && s.due.server.Unsent() < batchBytes {
		return nil
	}
	return s.cut()
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
	if err := c.Flush(); err != nil {
		return err
	}
	return s.relay()
}

func (s *Session) flush(size int) error {
	s.message("Flush", "")
	s.client.Skip(size)
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
	s.client.Skip(size)
	touched := s.pipe.touched
	if len(touched) == 1 && (s.due.empty() || s.due.server == touched[0]) {
		// The common case: what is left of the pipeline and its end in one burst.
		c := touched[0]
		if err := c.SendRaw(wire.Sync, nil); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
		s.due.push(c, expectation{kind: wire.Sync})
		if err := s.relay(); err != nil {
			return err
		}
		return s.endPipeline()
	}
	if err := s.cut(); err != nil {
		return err
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
		} else if s.tx.open && c.Status == 'E' {
			s.tx.poisoned = true
		}
	}
	if s.pipe.syncLost {
		return s.endPipeline()
	}
	if last != nil {
		s.settle(last)
	}
	if err := s.client.Send(s.readyForQuery()); err != nil {
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
	return s.finishHalf()
}

// readyForQuery shows the client its transaction's state.
func (s *Session) readyForQuery() *pgproto3.ReadyForQuery {
	status := byte('I')
	if main := s.conns[s.main]; main != nil {
		status = main.Status
	}
	if s.tx.poisoned {
		status = 'E'
	}
	return &pgproto3.ReadyForQuery{TxStatus: status}
}

// syncServer ends the pipeline on one of several servers. The client is shown
// errors, as of a deferred constraint, but not the ReadyForQuery.
func (s *Session) syncServer(c *server) error {
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
	if err == nil {
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
	s.pipe.skipping, s.pipe.failed = true, true
	s.poisonIfOpen()
	return s.client.Send(word.Response())
}

func objectDetail(kind byte, name []byte) string {
	if kind == 'P' {
		return "portal: " + quote(name)
	}
	return "statement: " + quote(name)
}

func quote(b []byte) string { return "\"" + string(bytes.ToValidUTF8(b, []byte("?"))) + "\"" }
