package session

import (
	"errors"
	"fmt"
	"log/slog"

	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// batch is what the client has sent of a pipeline, for as long as it may be sent
// again to another server: nothing of it has run but plain reads that could have
// run anywhere, it is outside a transaction block, and it is small.
type batch struct {
	frames   []byte
	open     bool // messages since the last Sync are kept,
	safe     bool // all of them, and they may be run again
	repeated bool // they have been
}

// keptLimit is the capacity a session keeps for its next batch while it is idle.
const keptLimit = 1 << 10

// keep notes a message of the client's before it is dealt with.
func (s *Session) keep(typ byte, size int) {
	b := &s.batch
	switch typ {
	case wire.Parse, wire.Bind, wire.Describe, wire.Execute, wire.Close, wire.Sync, wire.Flush:
	default:
		b.end()
		return
	}
	if !b.open {
		b.frames, b.open, b.safe = b.frames[:0], true, !s.tx.open && !s.pipe.open()
		s.heard = false
	}
	if !b.safe {
		return
	}
	if size > s.client.Buffered() || len(b.frames)+size > batchBytes {
		b.safe = false
		return
	}
	b.frames = append(b.frames, s.client.Bytes()[:size]...)
}

// end forgets a batch that is over.
func (b *batch) end() { b.open, b.safe, b.repeated = false, false, false }

// trim gives back the room of a large batch.
func (b *batch) trim() {
	if !b.open && cap(b.frames) > keptLimit {
		b.frames = nil
	}
}

// rerun tells whether the batch that has failed with err is to be run again, of
// which the client has not heard a byte: it is as if its messages were still to be
// read, and the session has parted with the server they were sent to.
func (s *Session) rerun(err error) bool {
	b := &s.batch
	var bad *backend.Error
	var said *ended
	if !b.open || !b.safe || b.repeated || s.heard || errors.As(err, &said) || !errors.As(err, &bad) {
		return false
	}
	c := s.due.server
	if c == nil || c != s.conns[c.Node] || c.Node != bad.Node || !s.expendable(c) {
		return false
	}
	for _, t := range s.pipe.touched {
		if t != c {
			return false
		}
	}
	s.suspect(err)
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("node %d was lost, its read is done again", c.Node), slog.Any("err", bad.Err))
	s.takeBack(c)
	s.forgo(c)
	s.pipe.reset()
	s.client.Unread(b.frames)
	b.open, b.repeated = false, true
	return true
}
