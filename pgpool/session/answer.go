package session

import (
	"errors"

	"pgpool-go/parser"
	"pgpool-go/pgpool/wire"
)

// A statement that has been sent is mostly answered in one piece, a moment later.
// While its answer is due and nothing of it has come the session rests, as it does
// while it is idle: what it has on its stack is little and goes into asked, and the
// stack, warm from the last session, serves the next one.

// asked is the client's message that is being answered.
type asked struct {
	due      bool // and nothing of the answer was there when the session looked
	pipeline bool // it was a Sync; else a Query:
	verdict  *parser.Verdict
	size     int  // of the message
	left     bool // a pipeline was left with it
}

// expectAnswer relays the answer that is due, or has the session rest until it
// comes: goOn takes it up again.
func (s *Session) expectAnswer() error {
	c := s.due.server
	if c.Stirred() || !s.task.MayRest() {
		return s.answered(c, s.relay())
	}
	s.pipe.ahead = 0
	s.running(c)
	s.asked.due = true
	return s.takeAnswer()
}

// takeAnswer relays the answer that is due once something of it has come. Until
// then the session rests, with errResting.
func (s *Session) takeAnswer() error {
	c := s.due.server
	news, err := s.task.Look(c.Conn.Conn)
	if !news && err == nil {
		c.Await(true)
		s.task.Rest(wire.Answer)
		return errResting
	}
	c.Await(false)
	c.Heed()
	s.asked.due = false
	if err == nil || c.Stirred() { // whoever interrupts does not take away what has come
		err = s.relayDue()
	}
	s.running()
	return s.answered(c, err)
}

func (s *Session) answered(c *server, err error) error {
	if s.asked.pipeline {
		return s.answeredPipeline(err)
	}
	return s.answeredQuery(c, err)
}

// errResting is no error: the session has nothing to do, and goes on when there is
// news.
var errResting = errors.New("resting")
