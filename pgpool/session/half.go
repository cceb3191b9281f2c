package session

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// What the client has done to its session, and its transaction block, must be so
// on a standby before it reads there. What a standby is to be told is kept with
// its server connection, and told when the client's next read goes there
// (bringUp), all in one go. Only the end of a block is told at once (keepUp), and
// nobody waits for the answer: such statements are errands.

// part is a standby's part in the session's state.
type part struct {
	joined bool     // it is to be in the client's transaction block
	begun  bool     // and has been told so
	todo   story    // what it has not been told of the block
	before []string // what is to be said before: the end of an earlier block, DISCARD
}

// errandsLimit is how many answers a standby may owe before it is given up: it
// hangs, or cannot keep up.
const errandsLimit = 64

// bringUp makes a standby ready for a statement of the client: it knows all the
// others know.
func (s *Session) bringUp(c *server) error {
	if s.tx.open {
		if err := s.torn(); err != nil {
			return err
		}
		switch s.tx.reader {
		case nil:
			s.tx.reader = c
		case c:
		default:
			return s.collect(c) // what is meant for this node alone, as to end a process there, is no part of the block
		}
		s.join(c)
	}
	if s.lags(c) {
		if !s.due.empty() {
			if err := s.cut(); err != nil {
				return err
			}
		}
		if s.pipe.skipping {
			return errPassedOver
		}
		if err := s.say(c); err != nil {
			return err
		}
	}
	return s.collect(c)
}

// lags tells whether a standby has yet to be told something.
func (s *Session) lags(c *server) bool {
	return len(c.part.before) > 0 || len(c.part.todo) > 0 || !s.settings.current(c)
}

// join gives a standby its part in the client's block.
func (s *Session) join(c *server) {
	if !c.part.joined {
		c.part.joined, c.part.begun, c.part.todo = true, false, append(c.part.todo[:0], s.tx.story...)
	}
}

// say sends a standby all it has to be told. Its answers are owed from then on.
func (s *Session) say(c *server) error {
	for _, sql := range c.part.before {
		s.errand(c, sql)
	}
	c.part.before = c.part.before[:0]
	if !s.settings.current(c) {
		for _, sql := range s.settings.due(c, true) {
			s.errand(c, sql)
		}
		c.applied = s.settings.seq
	}
	if c.part.joined {
		for _, l := range c.part.todo {
			s.errand(c, l.sql)
		}
		c.part.begun, c.part.todo = true, c.part.todo[:0]
	}
	return c.Flush()
}

// errand composes a statement of our own.
func (s *Session) errand(c *server, sql string) {
	if s.marks.loud {
		s.record(c, "", []byte(sql))
	}
	delete(c.stmts, "") // a Query ends it on the server
	c.Send(&pgproto3.Query{String: sql})
	c.errands++
}

// collect waits for the answers to errands.
func (s *Session) collect(c *server) error {
	for c.errands > 0 {
		typ, body, err := s.frame(c)
		if err == nil {
			err = s.reply(c, typ, body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reply takes one message of the answer to an errand. An error of the server's
// is a *backend.Refusal; the standby's state is in doubt then.
func (s *Session) reply(c *server, typ byte, body []byte) error {
	var refused error
	switch typ {
	case wire.ErrorResponse:
		refused = s.refusal(c, body)
	case wire.ParameterStatus:
		c.NoteParam(body)
	case wire.ReadyForQuery:
		c.Status = body[0]
		c.errands--
	case wire.CopyInResponse, wire.CopyBothResponse:
		return s.outOfPlace(c, typ)
	}
	c.Skip(5 + len(body))
	return refused
}

// keepUp ends the standbys' parts in blocks that are over, before the session
// waits for its client.
func (s *Session) keepUp() {
	if !s.behind {
		return
	}
	s.behind = false
	for c := range s.standbys {
		if len(c.part.before) == 0 {
			continue
		}
		if c.errands > errandsLimit {
			s.strayed(c, errors.New("it owes too many answers"))
		} else if err := s.say(c); err != nil {
			s.strayed(c, err)
		}
	}
}

// strayed gives up a standby that could not follow. The client need not know: if
// it reads there again, that is a new connection.
func (s *Session) strayed(c *server, err error) {
	s.suspect(err)
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("node %d could not follow the session", c.Node), slog.Any("err", err))
	c.Taint()
	s.drop(c)
}

// tell adds to the block's story, and to what each standby in it is still to be
// told.
func (s *Session) tell(how func(story) story) {
	if !s.tx.open {
		return
	}
	s.tx.story = how(s.tx.story)
	for c := range s.standbys {
		if c.part.joined {
			c.part.todo = how(c.part.todo)
		}
	}
}

// standbys are the session's servers but the main one.
func (s *Session) standbys(yield func(*server) bool) {
	for _, c := range s.conns {
		if c != nil && c.Node != s.main && !yield(c) {
			return
		}
	}
}

// leaveBlock ends the standbys' parts in a block that is over. Those that have
// heard all of it keep its settings; before is what they had until then. Those
// that have not may have some that were taken back since, and are to forget all:
// what has lasted they are told like anybody else.
func (s *Session) leaveBlock(committed bool, before uint64) {
	for c := range s.standbys {
		p := &c.part
		if p.begun {
			end := "ROLLBACK"
			if committed && len(p.todo) == 0 && c.applied == before {
				end, c.applied = "COMMIT", s.settings.seq
			}
			p.before = append(p.before, end)
			s.behind = true
		}
		p.joined, p.begun, p.todo = false, false, p.todo[:0]
	}
}
