package cluster

import (
	"slices"

	"pgpool-go/conf"
)

// In raw mode and with logical replication no server says who is primary: pgpool
// appoints it, the first attached node flagged ALWAYS_PRIMARY, or else the lowest
// that is attached. As nobody keeps the nodes alike, another one takes its place by a
// failover only, never because it does not answer for a moment; and who has been
// failed over is not used again before somebody attaches it.

// Appoints tells whether the snapshot's primary is appointed by pgpool.
func (s *Snapshot) Appoints() bool {
	return s.Mode == conf.Raw || s.Mode == conf.LogicalReplication || s.Mode == conf.Slony
}

// appoint chooses the primary. While it does not answer there is none.
func (t *turn) appoint() {
	s := &t.next
	s.Primary = -1
	if chosen := t.appointee(); s.Usable(chosen) {
		s.Primary, s.LastPrimary = chosen, chosen
	}
}

// appointee is who is to be primary, or -1.
func (t *turn) appointee() int {
	s := &t.next
	if flagged := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Used() && !n.Detached && n.Flag&conf.AlwaysPrimary != 0 }); flagged >= 0 {
		return flagged
	}
	return s.attachedMain()
}

// recall takes back the last primary if a failover of it has left nobody: those
// before it have been left behind. An operator's word stands.
func (t *turn) recall() {
	s := &t.next
	if next := s.Node(t.appointee()); next != nil && !next.Detached {
		return
	}
	if n := s.Node(s.LastPrimary); n != nil && n.Detached && n.Reach == Reachable && takenBack(n.By) {
		t.say(levelLog, "it was detached by "+n.By+", but nobody has taken its place", "node %d (%s) is attached", n.ID, n.Addr())
		n.Detached, n.Reason, n.By = false, "", ""
	}
}

// replaceable tells whether another node is attached that could take over.
func (t *turn) replaceable() bool {
	attached := 0
	for i := range t.next.Nodes {
		if n := &t.next.Nodes[i]; n.Used() && !n.Detached {
			attached++
		}
	}
	return attached > 1
}
