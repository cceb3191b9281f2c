package session

import (
	"strings"

	"pgpool-go/pgpool/wire"
)

// A copy of a statement that one client has had prepared may be out of date for
// another who comes with the same text after a change of the schema: PostgreSQL
// refuses to execute it. The client's own statement would not have been refused.
// So the copy is made anew and the pipeline sent again, once, if nothing of it can
// have been executed, and if what the client has been told of the statement is
// still true.

// rememberBatch keeps what is about to be sent, a pipeline as a whole with its
// Sync, should it be sent again.
func (s *Session) rememberBatch(c *server) {
	s.pipe.batch = nil
	if c.shared == nil || !s.pipe.copies || s.pipe.partly || s.tx.open {
		return
	}
	c.shared.batch = append(c.shared.batch[:0], c.Composed()...)
	s.pipe.batch = c.shared.batch
}

// outOfDate tells whether an error is that of a copy out of date, which can be
// mended.
func (s *Session) outOfDate(c *server, x *expectation, word *wire.Error) bool {
	calls := x.kind == wire.Bind && x.was != nil || x.kind == wire.Describe && x.stmt != nil && x.at != nil
	if s.pipe.batch == nil || !calls || x.skip || s.due.list[len(s.due.list)-1].kind != wire.Sync {
		return false
	}
	if word.Code != "26000" && !(word.Code == "0A000" && strings.HasPrefix(word.Message, errChanged.Message)) {
		return false
	}
	for i := range s.due.list[:s.due.head] {
		if s.due.list[i].kind == wire.Execute {
			return false
		}
	}
	return true
}

// mend makes the copy that the Bind or Describe x calls anew, whose refusal is at the head of what the
// server has sent, and sends the pipeline again.
func (s *Session) mend(c *server, x *expectation, frame []byte) error {
	st := x.about()
	refusal, batch := append([]byte(nil), unalias(frame, st)...), s.pipe.batch
	old := c.shared.copies[st.alias.id]
	s.pipe.batch = nil
	again, head := append([]expectation(nil), s.due.list...), s.due.head
	for i := range again[:head] {
		again[i].skip = true // the client has had the answer
	}
	c.Skip(len(frame))
	s.mended = true
	for !s.due.empty() {
		s.due.pop()
	}
	if err := s.converse(c); err != nil { // up to the answer to its Sync
		return err
	}
	told := st.alias.told
	k := s.plant(c, st, nil, true)
	s.askCopy(c, st, k)
	if err := s.cut(); err != nil {
		return err
	}
	s.running(c)
	if !s.pipe.skipping && !k.told.differs(told) {
		for i := range again {
			if old != nil && again[i].at == old {
				again[i].at = k
			}
			s.due.push(c, again[i])
		}
		c.Write(batch)
		return c.Flush()
	}
	if !s.pipe.skipping { // else the client has been told already why not
		if _, err := s.client.Write(refusal); err != nil {
			return err
		}
	}
	for _, x := range again[min(len(again), head):] { // was passed over
		s.due.push(c, x)
	}
	s.takeBack(c)
	for !s.due.empty() {
		s.due.pop()
	}
	s.pipe.failed, s.pipe.skipping = true, false
	s.router.Failed(0)
	c.SendRaw(wire.Sync, nil)
	s.due.push(c, expectation{kind: wire.Sync})
	return c.Flush()
}
