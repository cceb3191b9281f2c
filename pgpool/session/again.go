package session

import (
	"errors"
	"fmt"
	"log/slog"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// A plain read that might have gone to any node, and of which the client has not
// heard a byte when the one it went to is lost, is done again elsewhere. Nothing
// else is: what may have had an effect is never run twice. And it is done again
// but once, lest a read that makes servers crash visit them all.

// repeatable tells whether a statement sent to c may be sent again.
func (s *Session) repeatable(v *parser.Verdict, d route.Decision) bool {
	return d.Balanced && !s.tx.open && !d.Opaque && plain(v) && v.Class == parser.Select
}

// expendable tells whether nothing of the session is lost with a server.
func (s *Session) expendable(c *server) bool {
	return c.Node != s.main || !s.askTemp && s.holds() == ""
}

// again tells whether a repeatable statement that has failed with err is to be
// sent again. If so, the session has parted with the server it was sent to.
func (s *Session) again(c *server, err error) bool {
	var bad *backend.Error
	if s.heard || !errors.As(err, &bad) || bad.Node != c.Node || !s.expendable(c) {
		return false
	}
	s.suspect(err)
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("node %d was lost, its read is done again", c.Node), slog.Any("err", bad.Err))
	s.forgo(c)
	return true
}

// forgo drops a server with all that was due from it.
func (s *Session) forgo(c *server) {
	for !s.due.empty() {
		s.due.pop()
	}
	s.pipe.done, s.pipe.failed = s.pipe.done[:0], false
	s.router.Failed(0)
	s.router.Ready('I')
	s.router.ReadNode = -1
	c.Taint()
	s.drop(c)
	s.unrecord()
}

// diverted tells whether a server's word that it ends the connection is not for
// the client, because its read is done again: the server has ended altogether.
func (s *Session) diverted(c *server, word *wire.Error) bool {
	may := s.mayRepeat || s.batch.open && s.batch.safe && !s.batch.repeated
	return may && !s.heard && s.expendable(c) && s.gone(c.Node, word.Code)
}
