package session

import (
	"encoding/binary"
	"fmt"
	"slices"

	"pgpool-go/parser"
	"pgpool-go/pgpool/wire"
)

// opaque is the verdict on what cannot be read, such as a FunctionCall: it
// belongs to the main node and may have written.
var opaque = &parser.Verdict{Class: parser.Unknown, Writes: true, Opaque: true}

// simple runs a Query message.
func (s *Session) simple(size int) error {
	_, body, err := s.client.Frame(wire.MaxFrame)
	if err != nil {
		return err
	}
	sql, _, ok := wire.CString(body)
	if s.logsMessages() {
		s.message("Query", "query: "+quote(sql))
	}
	left := s.pipe.open()
	if left {
		if err := s.leavePipeline(); err != nil {
			return err
		}
	}
	if s.pipe.skipping {
		s.client.Skip(size)
		return nil
	}
	if !ok || len(sql) != len(body)-1 {
		s.client.Skip(size)
		return s.refuse(errFormat)
	}
	v := s.verdictOn(sql)
	s.logStatement(sql)
	if v.Pool != nil {
		err := s.endLeft(left)
		if err == nil {
			err = s.poolCommand(v, sql)
		}
		s.client.Skip(size)
		return err
	}
	s.dropUnnamed(v)
	if s.Cache != nil && !left {
		if done, err := s.cachedQuery(v, sql, size); done {
			return err
		}
	}
	return s.runQuery(v, sql, size, left, false)
}

// runQuery runs the Query message of size bytes at the head of the client's
// buffer, and consumes it. left tells that a pipeline was left with it, repeated
// that it has been run before.
func (s *Session) runQuery(v *parser.Verdict, sql []byte, size int, left, repeated bool) error {
	choice, err := s.choose(v, sql, false, 0)
	if err == nil && choice.server.Node != s.main {
		err = s.endLeft(left)
	}
	if err == nil {
		err = s.teach(choice.server, v)
	}
	if err != nil {
		s.caching.recording.armed = false // what is answered next is something else
		s.client.Skip(size)
		return s.refuse(err)
	}
	c := choice.server
	if s.Cache != nil {
		s.recordFrom(c)
		s.noteWrite(v, choice.decision)
		s.mayCommit(v)
	}
	s.countRoute(choice.decision)
	s.count(c, v)
	c.note(sql)
	s.record(c, "", sql)
	s.router.Send(v, choice.decision)
	s.tidy(c)
	s.send(c, s.client.Bytes()[:size])
	delete(c.stmts, "") // a Query ends it on the server
	s.mayRepeat, s.heard = !repeated && !left && s.repeatable(v, choice.decision), false
	if !s.mayRepeat {
		s.client.Skip(size) // a COPY's data may come behind it
	}
	s.asked = asked{verdict: v, size: size, left: left}
	if err = c.Post(); err != nil {
		c.Taint() // perhaps it has a part of it
		return s.answeredQuery(c, err)
	}
	s.due.push(c, expectation{kind: wire.Query, verdict: ran(v, choice.decision), opaque: choice.decision.Opaque})
	return s.expectAnswer()
}

// answeredQuery draws the conclusions of an answer, or of what became of it. Where
// it may be asked for again the message is still there.
func (s *Session) answeredQuery(c *server, err error) error {
	a := s.asked
	if err == nil && a.left {
		s.pipe.reset()
	}
	if err == nil && s.Cache != nil {
		s.recorded()
	}
	if !s.mayRepeat {
		return err
	}
	s.mayRepeat = false
	if err != nil && s.again(c, err) {
		return s.runQuery(a.verdict, s.client.Bytes()[5:a.size-1], a.size, a.left, true)
	}
	s.client.Skip(a.size)
	return err
}

// dropUnnamed ends what a Query takes the place of: the unnamed statement and,
// if it runs anything, the unnamed portal.
func (s *Session) dropUnnamed(v *parser.Verdict) {
	s.unnamed = nil
	if v.Class != parser.Empty {
		s.portals.unnamed.close()
	}
}

// functionOID is where a FunctionCall names its function.
const functionOID = 5

// function runs a FunctionCall message, on the main node: nothing tells what it
// does.
func (s *Session) function(size int) error {
	left := s.pipe.open()
	if left {
		if err := s.leavePipeline(); err != nil {
			return err
		}
	}
	if s.pipe.skipping {
		return s.client.Discard(size)
	}
	if s.logsMessages() {
		if err := s.client.Need(min(size, functionOID+4)); err != nil {
			return err
		}
		if head := s.client.Bytes(); len(head) >= functionOID+4 {
			s.message("FunctionCall", fmt.Sprintf("oid: \"%d\"", binary.BigEndian.Uint32(head[functionOID:])))
		}
	}
	choice, err := s.choose(opaque, nil, false, 0)
	if err != nil {
		if err := s.client.Discard(size); err != nil {
			return err
		}
		return s.refuse(err)
	}
	c := choice.server
	s.countRoute(choice.decision)
	s.count(c, opaque)
	c.note(nil)
	if s.Cache != nil {
		s.noteWrite(opaque, choice.decision)
		s.mayCommit(opaque)
	}
	s.router.Send(opaque, choice.decision)
	if err := s.client.Forward(c.Conn.Conn, size); err != nil {
		c.Taint() // perhaps it has a part of it
		return err
	}
	if err := c.Flush(); err != nil {
		c.Taint()
		return err
	}
	s.due.push(c, expectation{kind: wire.FunctionCall, verdict: opaque})
	if err := s.relay(); err != nil {
		return err
	}
	if left {
		s.pipe.reset()
	}
	return nil
}

// send composes a frame for a server. Its errors show at Flush.
func (s *Session) send(c *server, frame []byte) { c.Write(frame) }

// leavePipeline deals with a pipeline that the client has left with a Query instead
// of a Sync: what is due is answered first, as PostgreSQL does, and servers other
// than the main one are told that it is over. On that the Query ends it, being part
// of its transaction. If an error is among the answers, the Query is passed over
// like everything else up to Sync.
func (s *Session) leavePipeline() error {
	if err := s.cut(); err != nil || s.pipe.skipping {
		return err
	}
	for _, c := range s.pipe.touched {
		if c.Node == s.main {
			continue
		}
		if err := s.syncServer(c); err != nil {
			return err
		}
	}
	s.pipe.touched = slices.DeleteFunc(s.pipe.touched, func(c *server) bool { return c.Node != s.main })
	return nil
}

// endLeft ends on the main server a pipeline that was left with a Query which does
// not go there.
func (s *Session) endLeft(left bool) error {
	if !left {
		return nil
	}
	for _, c := range s.pipe.touched {
		if err := s.syncServer(c); err != nil {
			return err
		}
	}
	s.pipe.touched = s.pipe.touched[:0]
	return nil
}
