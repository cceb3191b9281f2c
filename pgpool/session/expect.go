package session

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// expectation is a reply that a server owes for a message it was sent.
type expectation struct {
	kind byte // the message's letter
	skip bool // sent on our own account: the reply is not for the client
	part int  // statements of a multi-statement string that have completed
	// For Query, Execute and FunctionCall: what is running.
	verdict *parser.Verdict
	opaque  bool // it runs code that its text does not show
	// For Parse: the new statement, and the one the client had by that name. For
	// Close: what the server is to forget, and what the client has forgotten. For
	// Describe: what is described, unless it is a portal.
	stmt, was *statement
	sql       *sqlStatement // for Close: the same, made by PREPARE
	// For Bind: the new portal, and the one of that name before. For Close: the
	// portal closed, in portalWas.
	portal, portalWas *portal
	// On a shared connection: the copy that a Parse makes or a Describe describes.
	// Of a Bind of one, and a Describe of its portal, was is the statement. closes is
	// the copy to be closed.
	at     *copied
	closes string
}

// expectations are due from one server, in order.
type expectations struct {
	server *server
	list   []expectation
	head   int
}

func (e *expectations) empty() bool { return e.head == len(e.list) }

func (e *expectations) push(server *server, x expectation) {
	if e.empty() {
		clear(e.list) // so that it keeps no large statement alive
		e.list, e.head = e.list[:0], 0
	}
	e.server = server
	e.list = append(e.list, x)
}

func (e *expectations) first() *expectation { return &e.list[e.head] }
func (e *expectations) pop()                { e.head++ }

// toSync drops what a server passes over after an error: everything up to the
// next Sync. It reports whether there is one.
func (e *expectations) toSync() bool {
	for !e.empty() {
		if e.first().kind == wire.Sync {
			return true
		}
		e.pop()
	}
	return false
}

// Frames that are passed on unopened while a statement runs.
var (
	rowsOfQuery   = letters(wire.DataRow, wire.CopyData, wire.RowDescription)
	rowsOfExecute = letters(wire.DataRow, wire.CopyData)
)

func letters(list ...byte) *[256]bool {
	var t [256]bool
	for _, l := range list {
		t[l] = true
	}
	return &t
}

// relay carries the replies that are due to the client. Both sockets mark their
// own errors, so none are dressed up here.
func (s *Session) relay() error {
	s.pipe.ahead = 0
	s.running(s.due.server)
	defer s.running()
	return s.relayDue()
}

func (s *Session) relayDue() error {
	c := s.due.server
	for !s.due.empty() {
		if c.Owed() > 0 {
			if c.Buffered() == 0 {
				if err := s.fill(c); err != nil {
					return err
				}
			}
			if err := c.ForwardOwed(s.client); err != nil {
				return err
			}
			continue
		}
		x := s.due.first()
		if !x.skip {
			var n int
			var err error
			switch x.kind {
			case wire.Query:
				n, err = c.ForwardRun(s.client, rowsOfQuery)
			case wire.Execute:
				n, err = c.ForwardRun(s.client, rowsOfExecute)
			}
			s.heard = s.heard || n > 0 || c.Owed() > 0
			if err != nil {
				return err
			}
			if c.Owed() > 0 {
				continue
			}
		}
		typ, size, ok, err := c.Peek()
		if err != nil {
			return err
		}
		if !ok || size > c.Buffered() {
			if size > answerLimit {
				return &backend.Error{Node: c.Node, Err: &wire.FrameError{Type: typ, Length: uint32(size)}}
			}
			if err := s.fillTo(c, size); err != nil {
				return err
			}
			continue
		}
		frame := c.Bytes()[:size]
		if err := s.answer(c, x, typ, frame); err != nil {
			return err
		}
	}
	return nil
}

// fillTo reads until a frame of size bytes is there, or at least more than now.
func (s *Session) fillTo(c *server, size int) error {
	if size <= c.Buffered() {
		size = 0
	}
	if got, err := c.TryFillTo(size); got || err != nil {
		return err
	}
	if err := s.client.Post(); err != nil {
		return err
	}
	return c.FillTo(size)
}

// answer deals with one control frame: it is passed on or skipped, and what it
// completes is noted. It consumes the frame.
func (s *Session) answer(c *server, x *expectation, typ byte, frame []byte) error {
	body := frame[5:]
	forward := !x.skip
	switch typ {
	case wire.ParseComplete:
		if err := s.expect(c, x, typ, wire.Parse); err != nil {
			return err
		}
		if x.at == nil {
			c.stmts[x.stmt.name] = x.stmt
		} else {
			s.noteParsed(x.stmt)
		}
		if x.was != nil && !x.skip {
			s.recycle(x.was)
			x.was = nil
		}
		s.due.pop()
	case wire.BindComplete:
		if err := s.expect(c, x, typ, wire.Bind); err != nil {
			return err
		}
		s.due.pop()
	case wire.CloseComplete:
		if err := s.expect(c, x, typ, wire.Close); err != nil {
			return err
		}
		if x.stmt != nil {
			delete(c.stmts, x.stmt.name)
			if !x.skip {
				s.outdated(x.stmt, c)
			}
		}
		s.due.pop()
	case wire.ParameterDesc:
		if x.kind == wire.Describe {
			s.noteParams(body)
			forward = forward && x.at == nil // else with the rest of it, should the copy be out of date
		}
	case wire.RowDescription, wire.NoData:
		if x.kind == wire.Describe {
			if forward && x.at != nil && x.stmt != nil {
				if err := s.client.SendRaw(wire.ParameterDesc, s.params); err != nil {
					return err
				}
			}
			s.described(x, body)
			s.due.pop()
		}
	case wire.CommandComplete, wire.EmptyQuery:
		s.completed(x, body)
		if x.kind == wire.Execute {
			s.router.Done()
			s.due.pop()
		}
	case wire.PortalSuspended:
		if err := s.expect(c, x, typ, wire.Execute); err != nil {
			return err
		}
		s.router.Done()
		s.due.pop()
	case wire.ReadyForQuery:
		if x.kind != wire.Query && x.kind != wire.Sync && x.kind != wire.FunctionCall || len(body) != 1 {
			return s.outOfPlace(c, typ)
		}
		c.Status = body[0]
		if x.kind != wire.Sync && !s.pipe.failed {
			s.router.Done()
		}
		s.due.pop()
		if forward {
			if err := s.glance(c); err != nil {
				return err
			}
			frame[5] = s.settle(c)
		}
	case wire.ErrorResponse:
		if err := s.failedReply(c, x, frame); err != nil || s.mended {
			s.mended = false
			return err
		}
		forward = false
	case wire.NoticeResponse:
		if forward {
			s.logNotice(c, body)
		}
	case wire.ParameterStatus:
		c.NoteParam(body)
		forward = c.Node == s.main
	case wire.Notification:
		forward = c.Node == s.main
	case wire.CopyInResponse:
		if x.skip || x.kind != wire.Query && x.kind != wire.Execute {
			return s.outOfPlace(c, typ)
		}
		if _, err := s.client.Write(frame); err != nil {
			return err
		}
		c.Skip(len(frame))
		return s.copyIn(c, x)
	case wire.CopyBothResponse:
		return s.outOfPlace(c, typ) // only on replication connections, which have a tunnel
	case wire.CopyOutResponse, wire.CopyDone, wire.FunctionResult, wire.DataRow, wire.CopyData:
	default:
		return s.outOfPlace(c, typ)
	}
	if forward {
		s.heard = true
		if _, err := s.client.Write(frame); err != nil {
			return err
		}
	}
	c.Skip(len(frame))
	return nil
}

func (s *Session) expect(c *server, x *expectation, typ, kind byte) error {
	if x.kind != kind {
		return s.outOfPlace(c, typ)
	}
	return nil
}

func (s *Session) outOfPlace(c *server, typ byte) error {
	c.Taint()
	return &backend.Error{Node: c.Node, Err: fmt.Errorf("message %q out of place", typ)}
}

// failedReply passes an ErrorResponse on, and drops what the server will not
// answer because of it.
func (s *Session) failedReply(c *server, x *expectation, frame []byte) error {
	word := wire.ParseError(frame[5:])
	if s.outOfDate(c, x, word) {
		return s.mend(c, x, frame)
	}
	s.countError(c, word)
	s.logError(c, x, word)
	if (word.Severity == "FATAL" || word.Severity == "PANIC") && s.diverted(c, word) {
		return &backend.Error{Node: c.Node, Err: errors.New(word.Message)}
	}
	if c.shared != nil {
		frame = unalias(frame, x.about())
	}
	if _, err := s.client.Write(frame); err != nil {
		return err
	}
	if word.Severity == "FATAL" || word.Severity == "PANIC" {
		c.Taint()
		if word.Code == "57P01" {
			s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("found the pg_terminate_backend request for backend pid:%d on backend node:%d", c.PID, c.Node))
		}
		return s.said(&backend.Refusal{Node: c.Node, Said: word})
	}
	s.pipe.failed = true
	s.router.Failed(x.part)
	s.takeBack(c)
	if x.kind != wire.Query && x.kind != wire.FunctionCall && !s.due.toSync() {
		s.pipe.skipping = true
	}
	return nil
}

// takeBack undoes what was noted for messages that the server has failed or will
// pass over, up to the next Sync, as if the client had not sent them.
func (s *Session) takeBack(c *server) {
	end := s.due.head
	for end < len(s.due.list) && s.due.list[end].kind != wire.Sync {
		end++
	}
	for i := end - 1; i >= s.due.head; i-- {
		x := &s.due.list[i]
		switch {
		case x.kind == wire.Parse && x.stmt.name == "" && i == s.due.head:
			delete(c.stmts, "") // the old one goes before the new one is looked at
			if !x.skip {
				s.unnamed = nil
			}
		case x.closes != "":
			c.shared.strays = append(c.shared.strays, x.closes)
		case x.kind == wire.Parse && x.at != nil:
			maps.DeleteFunc(c.shared.copies, func(_ textID, k *copied) bool { return k == x.at })
			if !x.skip && s.stmts[x.stmt.name] == x.stmt {
				delete(s.stmts, x.stmt.name)
			}
		case x.skip && x.kind == wire.Close:
			c.closing = append(c.closing, x.stmt)
		case x.skip:
		case x.kind == wire.Parse && x.stmt.name == "":
			s.unnamed = x.was
		case x.kind == wire.Parse && s.stmts[x.stmt.name] == x.stmt:
			delete(s.stmts, x.stmt.name)
		case x.kind == wire.Bind && x.portal != nil:
			s.portals.drop(x.portal.name)
			if x.portalWas != nil {
				s.portals.put(x.portalWas)
			}
		case x.kind == wire.Close && x.portalWas != nil:
			s.portals.put(x.portalWas)
		case x.kind == wire.Close && x.sql != nil:
			s.sqlStmts[x.stmt.name] = x.sql
		case x.kind == wire.Close && x.was != nil && x.was.name == "":
			s.unnamed = x.was
		case x.kind == wire.Close && x.was != nil:
			s.stmts[x.was.name] = x.was
		}
	}
}

// described notes what the client is told of a statement, or compares what it has
// been told with what another server says.
func (s *Session) described(x *expectation, body []byte) {
	if s.noteDescribed(x, body); x.at != nil && x.skip {
		return
	}
	switch {
	case x.stmt == nil: // a portal
	case !x.skip:
		x.stmt.described, x.stmt.shape = true, s.shapeWith(body)
	case x.stmt.shape != s.shapeWith(body):
		s.changed = x.stmt
	}
}

func (s *Session) logNotice(c *server, body []byte) {
	if s.log.Enabled(ctx, eventlog.Debug1) {
		word := wire.ParseError(body)
		s.log.LogAttrs(ctx, eventlog.Debug1, "forwarding notice of node "+fmt.Sprint(c.Node), slog.String("detail", word.Message))
	}
}

// ran is the verdict on what a statement has done, once it is done: with EXECUTE
// that is what it has executed.
func ran(v *parser.Verdict, d route.Decision) *parser.Verdict {
	if d.Effect != nil {
		return d.Effect
	}
	return v
}

// completed notes that a statement has run without an error.
func (s *Session) completed(x *expectation, tag []byte) {
	v := x.verdict
	if v == nil {
		return
	}
	if v.Class != parser.Multi {
		if !plain(v) || x.opaque || s.sharing.on && len(v.Functions) > 0 {
			s.pipe.note(v, x, tag)
		}
		return
	}
	if x.part < len(v.Parts) {
		s.pipe.note(v.Parts[x.part], x, tag)
	}
	x.part++
}

// plain tells that nothing of a statement outlives it.
func plain(v *parser.Verdict) bool {
	return v.Reads && len(v.Settings) == 0 && v.SettingsUnknown == parser.ScopeNone && v.Transaction == nil
}
