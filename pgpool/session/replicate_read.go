package session

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"pgpool-go/conf"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// Reads that one node runs.

// alone has one node run a read.
func (s *Session) alone(a *act) (ok bool, err error) {
	r := s.rep
	s.sameShape(a)
	c, err := s.readerFor(a)
	if err != nil {
		return false, err
	}
	if err := s.learnNumbers(c, a); err != nil {
		return false, err
	}
	s.countRoute(a.decision)
	s.count(c, a.verdict)
	c.note([]byte(a.text))
	s.router.Send(a.verdict, a.decision)
	shut := !r.open && s.cfg.BackendClusteringMode == conf.SnapshotIsolation && sees(a.verdict)
	if shut {
		if err := s.gates.enter(s.task, toSee); err != nil {
			return false, err
		}
		begin := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
		if a.verdict.Locks {
			begin = "BEGIN ISOLATION LEVEL REPEATABLE READ"
		}
		_, err := s.bid(c, begin, "SELECT 1")
		s.gates.leave()
		if err != nil {
			return false, err
		}
	}
	for i := range a.volley {
		if m := &a.volley[i]; m.kind == wire.Bind && m.portal != nil {
			m.portal.server = c
		}
	}
	s.running(c)
	before := s.client.Sent() + uint64(s.client.Unsent())
	wants, err := s.fire(c, a)
	var said outcome
	if err == nil {
		said, err = s.hear(c, &wants, true, false)
	}
	if stopped := s.ran(); err == nil {
		err = stopped
	}
	if bad, lost := errors.AsType[*backend.Error](err); lost && bad.Node == c.Node && c.Node != s.main && !shut && before == s.client.Sent()+uint64(s.client.Unsent()) {
		return s.readAgain(c, a, err)
	}
	if err == nil && said.copies {
		err = s.outOfPlace(c, wire.CopyInResponse)
	}
	if err != nil {
		return false, err
	}
	if shut {
		if _, err := s.bid(c, "COMMIT"); err != nil {
			return false, err
		}
	}
	if said.said != nil {
		s.pipe.failed = true
		s.router.Failed(0)
		if r.open && c != r.main() && c.Status == 'E' {
			// The client's block has failed with it, on all nodes.
			if _, err := s.bid(r.main(), `ROLLBACK TO SAVEPOINT "a read of this transaction has failed on another node"`); err == nil {
				return false, s.outOfPlace(r.main(), wire.CommandComplete)
			} else if _, refused := errors.AsType[*backend.Refusal](err); !refused {
				return false, err
			}
		}
		return false, nil
	}
	if s.marks.listens && !r.open && c.Node != s.main {
		// A reply comes after the notifications of what was committed before the
		// statement was sent: see glance.
		if main := s.conns[s.main]; main != nil {
			main.SendRaw(wire.Sync, nil)
			if _, err := s.took(main); err != nil {
				return false, err
			}
		}
	}
	s.note(a)
	s.router.Done()
	return true, nil
}

// sameShape has a prepared statement that is older than the last change of the
// schema run where it is prepared already: its columns are those that the client has
// been told of, or the server refuses to run it.
func (s *Session) sameShape(a *act) {
	r := s.rep
	if a.server != nil || !a.decision.Balanced {
		return
	}
	for i := range a.volley {
		st := a.volley[i].stmt
		if a.volley[i].kind != wire.Bind || st == nil || st.age == s.schema.Load() {
			continue
		}
		knows := func(node int) bool {
			return node < len(s.conns) && s.conns[node] != nil && r.known[s.conns[node]][st.name] == st
		}
		for node := range s.conns {
			if !knows(a.decision.Node) && knows(node) {
				a.decision.Node = node
			}
		}
	}
}

// readAgain has the main node run a read whose node was lost before the client has
// heard of it.
func (s *Session) readAgain(c *server, a *act, err error) (bool, error) {
	c.Taint()
	s.suspect(err)
	if s.rep.open {
		if err := s.without(c, err, false); err != nil {
			return false, err
		}
	} else if s.conns[c.Node] == c {
		s.drop(c)
	}
	s.router.ReadNode = -1
	s.router.Failed(0)
	a.decision.Node, a.decision.Balanced = s.main, false
	return s.alone(a)
}

// readerFor is the server that runs a read, ready for it.
func (s *Session) readerFor(a *act) (*server, error) {
	r := s.rep
	if r.open {
		if err := s.together(); err != nil {
			return nil, err
		}
		if r.failed() {
			return r.main(), nil
		}
		if a.server != nil && slices.Contains(r.set, a.server) {
			return a.server, nil
		}
		if sees(a.verdict) || a.volley.seesParsed() {
			if err := s.align(); err != nil {
				return nil, err
			}
		}
		for _, c := range r.set {
			if c.Node == a.decision.Node && a.decision.Balanced {
				return c, nil
			}
		}
		return r.main(), nil
	}
	if a.decision.Balanced {
		s.drawn(a.decision)
	}
	node := a.decision.Node
	for {
		if node < 0 || node >= len(s.conns) {
			node = s.main
		}
		c, err := s.lone(node)
		if err == nil || node == s.main {
			if err == nil {
				return c, nil
			}
			if !s.mendable(err) {
				return nil, err
			}
			// Perhaps it is about to be detached: find out like a write.
			if err := s.gather(); err != nil {
				return nil, err
			}
			s.endBlock()
			return s.conns[s.main], nil
		}
		if !blames(err, node) {
			return nil, err
		}
		s.suspect(err)
		s.log.LogAttrs(ctx, eventlog.Warning, fmt.Sprintf("node %d cannot take a read, node %d does", node, s.main), slog.Any("err", err))
		s.router.ReadNode = -1
		node = s.main
	}
}

// lone makes one node's server ready for a read outside of a block.
func (s *Session) lone(node int) (*server, error) {
	r := s.rep
	c := s.conns[node]
	if c != nil && c.Stirred() {
		if err := s.unasked(c); err != nil {
			return nil, err
		}
		c = s.conns[node]
	}
	if c != nil && c.HungUp() {
		c.Taint()
		s.drop(c)
		c = nil
	}
	if c != nil && (r.joined[c] || !r.begun) {
		return c, nil
	}
	if r.begun { // it must be in the state that all share
		if err := s.gather(); err != nil {
			return nil, err
		}
		s.endBlock()
		if c := s.conns[node]; c != nil {
			return c, nil
		}
		return s.conns[s.main], nil
	}
	if c == nil {
		if err := s.reach(node); err != nil {
			return nil, err
		}
	}
	return s.conns[node], nil
}
