package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"

	"pgpool-go/conf"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/qcache"
	"pgpool-go/pgpool/wire"
)

// recording is the answer to a read, taken down for the query cache while it goes
// to the client.
type recording struct {
	armed  bool // the next execution is to be recorded
	tap    wire.Tap
	key    []byte
	ticket *qcache.Ticket
	bare   bool   // an answer without the description of its columns
	text   []byte // of the statement, valid while it is armed
	what   []byte // room for cachedPipeline
}

func (r *recording) arm(key []byte, t *qcache.Ticket, text []byte, bare bool) {
	r.armed, r.key, r.ticket, r.text, r.bare = true, key, t, text, bare
}

// recordFrom begins to record what c is about to answer, if its word can be
// trusted: it has seen all that is known to have been written, and its sessions
// begin with the same settings.
func (s *Session) recordFrom(c *server) {
	r := &s.caching.recording
	if !r.armed {
		return
	}
	if s.sharing.on {
		if !s.vouches(c) {
			s.unrecord()
			return
		}
	} else if main := s.conns[s.main]; main == nil || c != main && (s.stateOf(c.Conn) != s.stateOf(main.Conn) || s.caching.muddle.state != "" ||
		s.snap.Mode != conf.StreamingReplication || !s.Cache.CaughtUp(c.Node, r.ticket)) {
		s.unrecord()
		return
	}
	r.tap = wire.Tap{Limit: s.Cache.Limit() + pipelineFrame}
	s.client.Tap(&r.tap)
}

// unrecord gives a recording up.
func (s *Session) unrecord() {
	s.caching.recording.armed = false
	s.client.Tap(nil)
}

// pipelineFrame is room for the messages around an answer that are not kept.
const pipelineFrame = 32

// recorded ends a recording and keeps what it has, if that is a whole answer and
// nothing else.
func (s *Session) recorded() {
	r := &s.caching.recording
	if !r.armed {
		return
	}
	s.unrecord()
	if r.tap.Over {
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("pool_add_temp_query_cache: data size exceeds memqcache_maxcache. current:%d requested:%d memq_maxcache:%d",
			len(r.tap.Bytes), r.tap.Refused, s.Cache.Limit()))
	} else if reply := wholeReply(r.tap.Bytes); reply != nil && r.bare == (reply[0] != wire.RowDescription) {
		s.log.LogAttrs(ctx, eventlog.Debug1, "committing SELECT results to cache storage", slog.String("detail", string(r.text)))
		keep := func() { s.Cache.Keep(r.key, r.ticket, bytes.Clone(reply)) }
		if s.Cache.Remote() {
			s.task.Block(keep)
		} else {
			keep()
		}
	}
	r.tap, r.key, r.ticket, r.text = wire.Tap{}, nil, nil, nil
}

// wholeReply finds the answer to one SELECT among all that the client was sent: its
// description if there is one, its rows and its completion. Anything unusual, like a
// notice, an error or a change of settings, and it is not to be kept.
func wholeReply(b []byte) []byte {
	const (
		before = iota
		within // described, or rows have come
		behind // complete
		over
	)
	from, to, state := 0, 0, before
	for at := 0; at < len(b); {
		if len(b)-at < 5 || state == over {
			return nil
		}
		size := int(binary.BigEndian.Uint32(b[at+1:])) + 1
		if size < 5 || size > len(b)-at {
			return nil
		}
		switch letter := b[at]; {
		case (letter == wire.ParseComplete || letter == wire.BindComplete) && state == before:
			from = at + size
		case letter == wire.RowDescription && state == before && from == at, letter == wire.DataRow && state <= within:
			state = within
		case letter == wire.CommandComplete && state <= within && bytes.HasPrefix(b[at+5:], []byte("SELECT ")):
			state, to = behind, at+size
		case letter == wire.ReadyForQuery && state == behind:
			state = over
		default:
			return nil
		}
		at += size
	}
	if state != over {
		return nil
	}
	return b[from:to]
}
