package cluster

import (
	"fmt"

	"pgpool-go/conf"
)

// elect decides who is primary. It never guesses between two servers that
// both say so: the newer timeline wins, and the loser is not used at all,
// because what it holds is no copy of the winner. A primary that is older than
// one already seen is a ghost, even if it is the only one that answers.
func (t *turn) elect() {
	s := &t.next
	t.rescue()
	if s.Mode != conf.StreamingReplication {
		for i := range s.Nodes {
			s.Nodes[i].Excluded = ""
		}
		return
	}
	if flagged := t.alwaysPrimary(); flagged != nil {
		for i := range s.Nodes {
			s.Nodes[i].Excluded = ""
		}
		s.Primary, s.Assumed = -1, false
		if flagged.ready() {
			s.Primary, s.LastPrimary = flagged.ID, flagged.ID
		}
		return
	}
	// Nobody is chosen before everybody was asked: the first to answer may be
	// the ghost.
	if !s.Probed() {
		if n := s.Node(s.Primary); n == nil || !n.ready() || n.PgRole == Standby {
			s.Primary, s.Assumed = -1, false
		}
		return
	}
	if t.replaced() {
		t.forget()
	}
	system := t.system()
	winner := t.winner(system)
	s.Primary, s.Assumed = -1, false
	if winner != nil {
		s.Primary, s.LastPrimary = winner.ID, winner.ID
		s.Timeline = max(s.Timeline, winner.Timeline) // 0: it did not tell
		s.SystemID = system
	} else if n := t.assumed(); n != nil {
		s.Primary, s.Assumed = n.ID, true
	}
	for i := range s.Nodes {
		t.exclude(&s.Nodes[i], winner, system)
	}
}

// ready reports whether the node may be chosen.
func (n *Node) ready() bool { return n.Used() && !n.Detached && n.Reach == Reachable }

// alwaysPrimary is the node whose flag makes it primary without being asked.
func (t *turn) alwaysPrimary() *Node {
	for i := range t.next.Nodes {
		if n := &t.next.Nodes[i]; n.Used() && !n.Detached && n.Flag&conf.AlwaysPrimary != 0 {
			return n
		}
	}
	return nil
}

// winner is the node that is primary by its own word and the best evidence:
// of the right cluster, not older than what was seen, and among several the
// newest timeline. On the same timeline the present one stays; with no present
// one, the one that has written further.
func (t *turn) winner(system string) *Node {
	s := &t.next
	var best *Node
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !n.ready() || n.PgRole != Primary || foreign(n, system) || t.ghost(n) {
			continue
		}
		switch {
		case best == nil, n.Timeline > best.Timeline:
			best = n
		case n.Timeline < best.Timeline, best.ID == s.Primary:
		case n.ID == s.Primary, n.Position > best.Position:
			best = n
		}
	}
	return best
}

// ghost reports whether the node is a primary from before a promotion that we
// have seen.
func (t *turn) ghost(n *Node) bool {
	s := &t.next
	return n.PgRole == Primary && n.Timeline != 0 && n.Timeline < s.Timeline &&
		(n.SystemID == s.SystemID || s.SystemID == "" || n.SystemID == "")
}

func foreign(n *Node, system string) bool {
	return system != "" && n.SystemID != "" && n.SystemID != system
}

// system is the identifier of the cluster we serve: the last primary's, else
// the one most nodes have; among equals one that has a primary, then that of
// the lowest node.
func (t *turn) system() string {
	if t.next.SystemID != "" {
		return t.next.SystemID
	}
	best, most := "", 0
	for i := range t.next.Nodes {
		id := t.next.Nodes[i].SystemID
		if id == "" {
			continue
		}
		score := 0
		hasPrimary := 0
		for j := range t.next.Nodes {
			if n := &t.next.Nodes[j]; n.ready() && n.SystemID == id {
				score += 2
				if n.PgRole == Primary {
					hasPrimary = 1
				}
			}
		}
		if score += hasPrimary; score > most {
			best, most = id, score
		}
	}
	return best
}

// replaced reports whether the whole cluster was built anew while we watched:
// all attached nodes answer, and none is of the cluster we knew.
func (t *turn) replaced() bool {
	some := false
	for i := range t.next.Nodes {
		n := &t.next.Nodes[i]
		if !n.Used() || n.Detached {
			continue
		}
		if n.Reach != Reachable || n.SystemID == "" || n.SystemID == t.next.SystemID {
			return false
		}
		some = true
	}
	return some && t.next.SystemID != ""
}

// assumed is the primary where no server would tell its role, as when
// sr_check_user cannot log in: the original then writes to its main node. Once
// a server has told, only that one is still trusted without telling.
func (t *turn) assumed() *Node {
	if last := t.next.Node(t.next.LastPrimary); last != nil {
		if last.ready() && last.PgRole == Unknown {
			return last
		}
		return nil
	}
	var best *Node
	for i := range t.next.Nodes {
		n := &t.next.Nodes[i]
		switch {
		case !n.ready():
		case n.PgRole == Primary:
			return nil // but none that may be chosen
		case n.PgRole == Unknown && (best == nil || n.ID == t.next.Primary):
			best = n
		}
	}
	return best
}

// exclude keeps a node out that answers but does not belong to the primary. A
// standby in use may take its time to follow a new primary; one that comes back
// must have done so.
//
// It is not asked from whom it receives: one fed from an archive has no WAL
// receiver and one that cascades has another standby for its sender, by right, and
// the sender's address need not be the one under which we know the primary. What
// matters to who reads is that it has what was written: one that receives nothing
// falls behind, and delay_threshold or delay_threshold_by_time keeps reads away
// from it, as from any that lags (see measured and arrears).
func (t *turn) exclude(n *Node, winner *Node, system string) {
	was := n.Usable()
	n.Excluded = ""
	switch {
	case !n.ready() || n == winner:
	case foreign(n, system):
		n.Excluded = fmt.Sprintf("system identifier %s is not that of the cluster (%s)", n.SystemID, system)
	case n.PgRole == Standby && winner != nil && n.Timeline != 0 && n.Timeline < winner.Timeline && !was:
		n.Excluded = fmt.Sprintf("it follows timeline %d, but the primary is on timeline %d", n.Timeline, winner.Timeline)
	case n.PgRole != Primary:
	case t.ghost(n):
		n.Excluded = fmt.Sprintf("it is a primary of timeline %d, but timeline %d was already begun by node %d",
			n.Timeline, t.next.Timeline, t.next.LastPrimary)
	case winner != nil:
		n.Excluded = fmt.Sprintf("it is a second primary (timeline %d) beside node %d (timeline %d)",
			n.Timeline, winner.ID, winner.Timeline)
	}
	if n.Excluded != "" && n.PgRole == Primary && t.rules.Config.DetachFalsePrimary && n.Flag&conf.DisallowToFailover == 0 {
		reason := n.Excluded
		n.Excluded = ""
		t.propose(n, reason, byFalse)
	}
}

// rescue takes back what only the status file or a failover took out, where it
// turns out that nobody else can serve: reality wins. An operator's word stands.
func (t *turn) rescue() {
	s := &t.next
	if s.Mode.Replicates() || !s.Probed() || len(s.Jobs) > 0 || len(s.Followers) > 0 {
		return
	}
	if s.Appoints() {
		t.recall()
		return
	}
	served := false
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.ready() {
			served = true
			if n.PgRole != Standby && !t.ghost(n) {
				return // it is, or may be, the primary
			}
		}
	}
	var found *Node
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Detached && n.Reach == Reachable && n.PgRole == Primary && takenBack(n.By) && !t.ghost(n) && !foreign(n, s.SystemID) &&
			(found == nil || n.Timeline > found.Timeline) {
			found = n
		}
	}
	if found != nil {
		t.say(levelLog, "it was detached by "+found.By+", but it is the only primary", "node %d (%s) is attached", found.ID, found.Addr())
		found.Detached, found.Reason, found.By = false, "", ""
		return
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !served && n.Detached && n.Reach == Reachable && (n.PgRole == Standby || s.Mode != conf.StreamingReplication) && takenBack(n.By) && !foreign(n, s.SystemID) {
			t.say(levelLog, "it was detached by "+n.By+", but nobody else answers", "node %d (%s) is attached", n.ID, n.Addr())
			n.Detached, n.Reason, n.By = false, "", ""
		}
	}
}

// takenBack tells whether a detachment was a conclusion of ours.
func takenBack(by string) bool {
	switch by {
	case byStatusFile, byHealth, bySessions, byFollow:
		return true
	}
	return false
}
