package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// The messages of a pipeline are gathered until one of them has effects on all
// nodes, or the client wants an answer. They are sent in one go then, with a Sync of
// ours behind them: what runs on all nodes is always in a block, which a Sync does
// not end. What the client's own Sync ends is a block of ours.

// message is one of the client's, as it is sent to servers.
type message struct {
	kind  byte
	frame []byte
	stmt  *prepared // that it makes, binds, describes or closes
	run   *act      // Execute: what it runs

	portal *replicaPortal // that Bind makes
	before *prepared      // that Parse replaces
	taken  *prepared      // that has the name which Parse wants: the server is to say so
	sql    *prepared      // that Close ends, made by PREPARE
	done   bool           // a node has answered it
}

// volley is what is sent to a server in one go.
type volley []message

func (v volley) any() bool { return len(v) > 0 }

func (v volley) size() (n int) {
	for i := range v {
		n += len(v[i].frame)
	}
	return n
}

// prepared is a prepared statement of the client. It is prepared on a server when
// first needed there.
type prepared struct {
	name    string
	frame   []byte // the Parse message as it is sent
	verdict *parser.Verdict
	text    string // as the client sent it; by PREPARE, as nodes were
	source  string // by PREPARE: as the client sent it
	types   []uint32
	sent    []uint32        // the types as they are sent
	all     bool            // all nodes run it
	age     uint64          // of the frame, as Shared.schema
	shifts  uint64          // and as replicas.shifts
	params  int             // the client's
	picks   []pick          // parameters behind them that the main node gives
	added   []parser.Added  // and behind these that we give
	making  *prepared       // by PREPARE
	fill    *parser.Filling // for the data of a COPY
}

// replicaPortal is a portal.
type replicaPortal struct {
	stmt     *prepared // nil: not known
	all      bool
	decision route.Decision
	server   *server // that has it, if it is not on all nodes
}

func setLength(frame []byte) { binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-1)) }

// knows notes that a server has prepared a statement.
func (s *Session) knows(c *server, st *prepared) {
	if st == nil {
		return
	}
	m := s.rep.known[c]
	if m == nil {
		m = make(map[string]*prepared)
		s.rep.known[c] = m
	}
	m[st.name] = st
}

// each calls f for every message that a server is sent for an act, those included
// that teach it the statements it lacks. ours tells that the reply is.
func (s *Session) each(c *server, a *act, f func(m *message, ours bool)) {
	known := s.rep.known[c]
	here := make(map[string]*prepared) // made or forgotten on the way
	has := func(name string) *prepared {
		if st, ok := here[name]; ok {
			return st
		}
		return known[name]
	}
	forget := func(name string) {
		if name != "" && has(name) != nil {
			m := message{kind: wire.Close, stmt: &prepared{name: name}}
			m.frame, _ = (&pgproto3.Close{ObjectType: 'S', Name: name}).Encode(nil)
			f(&m, true)
			here[name] = nil
		}
	}
	teach := func(st *prepared) {
		if st != nil && has(st.name) != st {
			forget(st.name)
			f(&message{kind: wire.Parse, frame: st.frame, stmt: st}, true)
			here[st.name] = st
		}
	}
	for i := range a.volley {
		m := &a.volley[i]
		switch m.kind {
		case wire.Parse:
			if teach(m.taken); m.taken == nil {
				forget(m.stmt.name)
				here[m.stmt.name] = m.stmt
			}
		case wire.Bind, wire.Describe:
			teach(m.stmt)
		case wire.Close:
			if m.stmt != nil {
				here[m.stmt.name] = nil
			}
		}
		f(m, false)
	}
}

// compose writes what a server is sent for an act.
func (s *Session) compose(c *server, a *act) {
	s.each(c, a, func(m *message, _ bool) { c.Write(s.numbered(c, m)) })
	if len(a.volley) > 0 && extended(a.volley[0].kind) {
		c.SendRaw(wire.Sync, nil)
	}
	if s.marks.loud {
		s.record(c, "", []byte(a.text))
	}
}

func extended(kind byte) bool { return kind != wire.Query && kind != wire.FunctionCall }

// owed are the replies to what compose writes.
func (s *Session) owed(c *server, a *act) []want {
	var wants []want
	s.each(c, a, func(m *message, ours bool) {
		w := want{kind: m.kind, from: m, stmt: m.stmt}
		if ours {
			w.from = nil
		}
		wants = append(wants, w)
	})
	if len(a.volley) > 0 && extended(a.volley[0].kind) {
		wants = append(wants, want{kind: wire.Sync})
	}
	return wants
}

// lessParams is a ParameterDescription without the parameters that we have added.
func (p *prepared) lessParams(body []byte) []byte {
	n := p.params
	if len(body) < 2+4*n {
		return body
	}
	out := bytes.Clone(body[:2+4*n])
	binary.BigEndian.PutUint16(out, uint16(n))
	return out
}

// replicateParse takes a Parse message.
func (s *Session) replicateParse(size int) error {
	_, body, err := s.client.Frame(wire.MaxFrame)
	if err != nil {
		return err
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	name, rest, ok := wire.CString(body)
	sql, rest, ok2 := wire.CString(rest)
	var types []uint32
	if ok2 = ok2 && len(rest) >= 2; ok2 {
		n := int(binary.BigEndian.Uint16(rest))
		if ok2 = len(rest) == 2+4*n; ok2 {
			for i := range n {
				types = append(types, binary.BigEndian.Uint32(rest[2+4*i:]))
				s.rep.numbers.used = s.rep.numbers.used || types[i] >= firstOwn
			}
		}
	}
	frame := bytes.Clone(s.client.Bytes()[:size])
	if s.logsMessages() {
		s.message("Parse", "statement: "+quote(name)+", query: "+quote(sql))
	}
	if !ok || !ok2 {
		s.client.Skip(size)
		return s.refusePipeline(errFormat)
	}
	v := s.verdictOn(sql)
	r := s.rep
	taken := r.stmts[string(name)]
	if len(name) > 0 && s.stmts[string(name)] != nil {
		word := &wire.Error{Severity: "ERROR", Code: "42P05", Message: fmt.Sprintf("prepared statement \"%s\" already exists", name)}
		s.client.Skip(size)
		return s.refusePipeline(word)
	}
	if v.Pool != nil {
		if err := s.discharge(false); err != nil {
			return err
		}
		delete(r.stmts, "")
		return s.parseLocal(&statement{name: string(name), frame: frame, verdict: v, home: s.main}, size)
	}
	s.client.Skip(size)
	st := &prepared{name: string(name), frame: frame, verdict: v, text: string(sql), types: types, sent: types, params: len(types)}
	if st.name == "" {
		s.unnamed = nil
	} else if taken != nil {
		r.queue = append(r.queue, message{kind: wire.Parse, frame: st.frame, stmt: st, taken: taken})
		return nil
	}
	if err := s.think(st, false); err != nil {
		return s.refusePipeline(err)
	}
	r.queue = append(r.queue, message{kind: wire.Parse, frame: st.frame, stmt: st, before: r.stmts[st.name]})
	r.stmts[st.name] = st
	return nil
}

// think works out where a prepared statement runs and what it is sent as, at Parse or
// at Bind.
func (s *Session) think(st *prepared, bound bool) error {
	d, err := s.consult(st.verdict, []byte(st.text), true)
	if err != nil {
		return err
	}
	st.all, st.age, st.shifts = s.everywhere(st.verdict, d, []byte(st.text)), s.schema.Load(), s.rep.shifts
	if !st.all || s.rep.failed() || st.verdict.Class == parser.CopyIn && !bound {
		return nil
	}
	return s.rewordPrepared(st)
}

// replicateBind takes a Bind message.
func (s *Session) replicateBind(size int) error {
	_, body, err := s.client.Frame(wire.MaxFrame)
	if err != nil {
		return err
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	name, rest, ok := wire.CString(body)
	stName, rest, ok2 := wire.CString(rest)
	if !ok || !ok2 {
		s.client.Skip(size)
		return s.refusePipeline(errFormat)
	}
	if s.logsMessages() {
		s.message("Bind", "portal: "+quote(name)+", statement: "+quote(stName))
	}
	r := s.rep
	if st := s.lookup(stName); st.local() && r.stmts[string(stName)] == nil {
		if err := s.discharge(false); err != nil {
			return err
		}
		return s.bindLocal(st, size)
	}
	if p := s.portals.find(name); p != nil && p.local != nil { // which Execute would run instead
		if p.name != "" {
			s.client.Skip(size)
			return s.refusePipeline(cursorExists(p.name))
		}
		p.close()
	}
	st := r.stmts[string(stName)]
	portal, called, frame := string(name), string(stName), bytes.Clone(s.client.Bytes()[:size])
	args := bytes.Clone(rest)
	s.client.Skip(size)
	b := &replicaPortal{stmt: st, all: true, decision: route.Decision{Node: s.main, Reason: route.ReasonOpaque, Write: true}}
	m := message{kind: wire.Bind, stmt: st}
	added, given := []parser.Added(nil), 0
	if st != nil {
		if st.all && (s.aged(st) || takesNoParams(st.verdict)) && !r.failed() {
			again := *st
			if st.verdict.Class == parser.CopyIn { // the time is that of the block it runs in
				if err := s.prepareAll(st.verdict, true); err != nil {
					return s.refusePipeline(err)
				}
			}
			if err := s.think(&again, true); err != nil {
				return s.refusePipeline(err)
			}
			if !bytes.Equal(again.frame, st.frame) || again.fill != st.fill {
				st = &again
				r.stmts[st.name], m.stmt, b.stmt = st, st, st
			}
			st.age, st.shifts = again.age, again.shifts
		}
		b.all, added, given = st.all, st.added, st.params
		if b.decision, err = s.consult(st.verdict, []byte(st.text), true); err != nil {
			return s.refusePipeline(err)
		}
	} else if r.sql[called] != nil {
		if err := s.renew(called); err != nil {
			return s.refusePipeline(err)
		}
		added, given = r.sql[called].added, r.sql[called].params
	} else {
		return s.refusePipeline(noStatement(called))
	}
	if st != nil {
		if c := s.cursorAt(st.verdict); c != nil {
			b.all, b.server = false, c
			if err := s.at(c); err != nil || s.pipe.skipping {
				return err
			}
		}
	}
	if b.all && r.at != nil {
		if err := s.at(nil); err != nil || s.pipe.skipping {
			return err
		}
	}
	if r.at == nil && b.all != s.queuedForAll() && len(r.queue) > 0 && s.queuedBind() {
		if err := s.discharge(false); err != nil || s.pipe.skipping {
			return err
		}
	}
	if len(added) > 0 || st != nil && len(st.picks) > 0 {
		if err := s.prepareAll(verdictOf(st), true); err != nil {
			return s.refusePipeline(err)
		}
		var values []string
		if st != nil && !r.failed() {
			if values, err = s.picked(st, args); err != nil {
				return s.refusePipeline(err)
			}
		}
		for _, a := range added {
			value, err := s.given(a)
			if err != nil {
				return s.refusePipeline(err)
			}
			values = append(values, value)
		}
		frame = withParams(portal, called, args, given, values)
	}
	m.frame, m.portal = frame, b
	r.portals[portal] = b
	r.queue = append(r.queue, m)
	return s.unlessTooMuch()
}

func verdictOf(st *prepared) *parser.Verdict {
	if st == nil {
		return opaque
	}
	return st.verdict
}

// queuedForAll tells whether what is queued is for all nodes.
func (s *Session) queuedForAll() bool {
	return slices.ContainsFunc(s.rep.queue, func(m message) bool { return m.kind == wire.Bind && (m.stmt == nil || m.stmt.all) })
}

func (s *Session) queuedBind() bool {
	return slices.ContainsFunc(s.rep.queue, func(m message) bool { return m.kind == wire.Bind || m.kind == wire.Execute })
}

// replicateDescribe takes a Describe message.
func (s *Session) replicateDescribe(size int) error {
	kind, name, err := s.whole()
	if err != nil {
		return s.refusePipeline(err)
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	if s.logsMessages() {
		s.message("Describe", objectDetail(kind, name))
	}
	r := s.rep
	m := message{kind: wire.Describe, frame: bytes.Clone(s.client.Bytes()[:size])}
	if kind == 'S' {
		if m.stmt = r.stmts[string(name)]; m.stmt == nil {
			if st := s.lookup(name); st.local() {
				if err := s.discharge(false); err != nil {
					return err
				}
				return s.describeLocal(st, nil, size)
			} else if r.sql[string(name)] == nil {
				word := noStatement(string(name))
				s.client.Skip(size)
				return s.refusePipeline(word)
			}
		}
	} else if p := s.portals.find(name); p != nil && p.local != nil {
		if err := s.discharge(false); err != nil {
			return err
		}
		return s.describeLocal(p.local.stmt, p.local, size)
	} else if c := s.portalAt(string(name)); c != nil {
		if err := s.at(c); err != nil || s.pipe.skipping {
			s.client.Skip(size)
			return err
		}
	}
	s.client.Skip(size)
	r.queue = append(r.queue, m)
	return s.unlessTooMuch()
}

// replicateExecute takes an Execute message.
func (s *Session) replicateExecute(size int) error {
	_, body, err := s.client.Frame(smallMessage)
	if err != nil {
		return err
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	name, rest, ok := wire.CString(body)
	if !ok || len(rest) != 4 {
		s.client.Skip(size)
		return s.refusePipeline(errFormat)
	}
	if s.logsMessages() {
		s.message("Execute", "portal: "+quote(name))
	}
	if p := s.portals.find(name); p != nil && p.local != nil {
		if err := s.discharge(false); err != nil {
			return err
		}
		return s.executeLocal(p.local, int(int32(binary.BigEndian.Uint32(rest))), size)
	}
	r := s.rep
	b := r.portals[string(name)]
	if b == nil { // a cursor of SQL, or none
		b = &replicaPortal{all: true, decision: route.Decision{Node: s.main, Reason: route.ReasonOpaque, Write: true}}
	}
	frame := bytes.Clone(s.client.Bytes()[:size])
	s.client.Skip(size)
	if b.server != nil || b.all && r.at != nil {
		if err := s.at(b.server); err != nil || s.pipe.skipping {
			return err
		}
	}
	a := &act{verdict: opaque, decision: b.decision}
	if b.stmt != nil {
		a.verdict, a.text, a.making, a.fill = b.stmt.verdict, b.stmt.text, b.stmt.making, b.stmt.fill
		if s.marks.loud {
			s.logStatement([]byte(a.text))
		}
	}
	if err := s.outside(a.verdict, false); err != nil {
		return s.refusePipeline(err)
	}
	r.queue = append(r.queue, message{kind: wire.Execute, frame: frame, run: a})
	if b.all {
		return s.discharge(false)
	}
	return s.unlessTooMuch()
}

// replicateClose takes a Close message.
func (s *Session) replicateClose(size int) error {
	kind, name, err := s.whole()
	if err != nil {
		return s.refusePipeline(err)
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	if s.logsMessages() {
		s.message("Close", objectDetail(kind, name))
	}
	r := s.rep
	m := message{kind: wire.Close, frame: bytes.Clone(s.client.Bytes()[:size])}
	switch {
	case kind == 'P':
		if p := s.portals.find(name); p != nil && p.local != nil {
			if err := s.discharge(false); err != nil {
				return err
			}
			s.portals.drop(p.name)
			return s.closeLocal(size)
		}
		if c := s.portalAt(string(name)); c != nil {
			if err := s.at(c); err != nil || s.pipe.skipping {
				s.client.Skip(size)
				return err
			}
		}
		delete(r.portals, string(name))
	case r.stmts[string(name)] == nil && s.lookup(name).local():
		if err := s.discharge(false); err != nil {
			return err
		}
		st := s.lookup(name)
		if delete(s.stmts, st.name); s.unnamed == st {
			s.unnamed = nil
		}
		return s.closeLocal(size)
	default:
		if m.stmt = r.stmts[string(name)]; m.stmt == nil {
			m.stmt = &prepared{name: string(name)}
		}
		m.sql = r.sql[string(name)]
		delete(r.stmts, string(name))
		delete(r.sql, string(name))
	}
	s.client.Skip(size)
	r.queue = append(r.queue, m)
	return s.unlessTooMuch()
}

// unlessTooMuch sends what is queued if it has grown large.
func (s *Session) unlessTooMuch() error {
	if len(s.rep.queue) < batchMessages && s.rep.queue.size() < batchBytes {
		return nil
	}
	return s.discharge(false)
}

// discharge sends what is queued and gives the client the answers. With last the
// pipeline ends there.
func (s *Session) discharge(last bool) error {
	r := s.rep
	if len(r.queue) == 0 || s.pipe.skipping {
		r.queue, r.at = r.queue[:0], nil
		return nil
	}
	queue, at := slices.Clone(r.queue), r.at
	r.queue, r.at = r.queue[:0], nil
	var a *act
	all, binds := at == nil && s.anyForAll(queue), false
	for i := range queue {
		m := &queue[i]
		binds = binds || m.kind == wire.Bind
		if m.run != nil {
			if a != nil {
				// Several reads in a row: what each leaves behind is nothing.
				s.countRoute(a.decision)
			}
			a = m.run
		}
	}
	quiet := a == nil
	if a == nil {
		a = &act{verdict: silent, decision: route.Decision{Node: s.main, Reason: route.ReasonTransaction}}
	}
	a.volley, a.server = queue, at
	ok, err := s.dispatchVolley(a, all, quiet, binds && !last)
	if err != nil {
		return s.refusePipeline(err)
	}
	if !ok {
		s.pipe.skipping, s.pipe.failed = true, true
		s.forgetUndone(queue)
	}
	return nil
}

// silent is the verdict on messages that run nothing.
var silent = &parser.Verdict{Class: parser.Show, Reads: true}

// anyForAll tells whether a volley is for all nodes.
func (s *Session) anyForAll(q volley) bool {
	for i := range q {
		m := &q[i]
		switch {
		case m.run != nil && s.everywhere(m.run.verdict, m.run.decision, []byte(m.run.text)),
			m.kind == wire.Bind && (m.stmt == nil || m.stmt.all):
			return true
		case m.kind == wire.Close && m.stmt != nil && s.rep.sqlNamed(m.stmt.name), m.kind == wire.Close && m.stmt == nil && s.rep.open:
			return true
		case m.kind == wire.Describe && m.stmt == nil && s.rep.open:
			return true
		}
	}
	return false
}

func (r *replicas) sqlNamed(name string) bool { _, ok := r.sql[name]; return ok }

// dispatchVolley runs a volley on all nodes or on one. held tells that portals must
// last beyond it.
func (s *Session) dispatchVolley(a *act, all, quiet, held bool) (ok bool, err error) {
	r := s.rep
	switch {
	case r.failed() && a.verdict.Transaction == nil:
		return s.runOnMain(a)
	case !all:
		if !r.open && (held || locksAlone(a.verdict) && !s.syncs()) {
			if err := s.prepareAll(a.verdict, true); err != nil {
				return false, err
			}
		}
		return s.alone(a)
	}
	ctl := a.verdict.Transaction != nil
	enclosed := !ctl && (encloses(a.verdict) || held && quiet || !quiet && rollsBack(a.verdict) && !s.syncs())
	if err := s.prepareAll(a.verdict, enclosed); err != nil {
		return false, err
	}
	if !quiet && !r.failed() {
		if err := s.lockFor(a.verdict, []byte(a.text)); err != nil {
			return false, err
		}
	}
	if quiet {
		if r.open && !r.failed() && a.volley.seesParsed() {
			if err := s.align(); err != nil {
				return false, err
			}
		}
		return s.runAll(a)
	}
	if err := s.teachAll(a.verdict); err != nil {
		return false, err
	}
	r.making = a.making
	return s.performAll(a)
}

// rollsBack tells whether a statement of the session's that need no block is undone by
// the rollback of one, as that of a pipeline that fails further on. SET LOCAL has no
// effect in a pipeline, of which the server warns.
func rollsBack(v *parser.Verdict) bool {
	switch v.Class {
	case parser.Set:
		return !slices.ContainsFunc(v.Settings, func(set parser.Setting) bool { return set.Local })
	case parser.Reset, parser.SetCharacter, parser.Listen, parser.Unlisten:
		return true
	}
	return false
}

// syncs tells whether the client's pipeline is known to end here.
func (s *Session) syncs() bool {
	typ, _, ok, err := s.client.Peek()
	return err == nil && ok && typ == wire.Sync
}

// replicateFlush takes a Flush message.
func (s *Session) replicateFlush(size int) error {
	s.message("Flush", "")
	if err := s.client.Discard(size); err != nil {
		return err
	}
	if err := s.discharge(false); err != nil {
		return err
	}
	return s.client.Flush()
}

// replicateSync takes a Sync message.
func (s *Session) replicateSync(size int) error {
	s.message("Sync", "")
	if err := s.client.Discard(size); err != nil {
		return err
	}
	if err := s.discharge(true); err != nil {
		return err
	}
	return s.endReplicated()
}

// refusePipeline answers an extended message with an error of our own, after what
// is queued.
func (s *Session) refusePipeline(err error) error {
	s.unguard()
	word, err := s.ownWord(err)
	if err != nil {
		return err
	}
	if err := s.discharge(false); err != nil || s.pipe.skipping {
		return err
	}
	s.pipe.skipping, s.pipe.failed = true, true
	s.router.Failed(0)
	if err := s.client.Send(word.Response()); err != nil {
		return err
	}
	return s.failBlock()
}

// replicateDispatch is dispatch for a session that writes to all nodes.
func (s *Session) replicateDispatch(typ byte, size int) error {
	switch typ {
	case wire.Query:
		return s.replicateQuery(size)
	case wire.Parse:
		return s.replicateParse(size)
	case wire.Bind:
		return s.replicateBind(size)
	case wire.Describe:
		return s.replicateDescribe(size)
	case wire.Execute:
		return s.replicateExecute(size)
	case wire.Close:
		return s.replicateClose(size)
	case wire.Flush:
		return s.replicateFlush(size)
	case wire.Sync:
		return s.replicateSync(size)
	case wire.FunctionCall:
		return s.replicateFunction(size)
	case wire.Terminate:
		s.message("Terminate", "")
		return s.goodbye()
	case wire.CopyData, wire.CopyDone, wire.CopyFail:
		return s.client.Discard(size)
	}
	return wire.Fatal("08P01", fmt.Sprintf("invalid frontend message type %d", typ))
}
