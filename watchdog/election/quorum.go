package election

import (
	"slices"
	"time"
)

// Quorum as pgpool counts and shows it.
type Quorum int

const (
	QuorumExists Quorum = 1
	QuorumOnEdge Quorum = 0 // half of an even number, with half votes on
	QuorumAbsent Quorum = -1
	NoLeader     Quorum = -2
)

func (q Quorum) String() string {
	switch q {
	case QuorumExists:
		return "QUORUM EXIST"
	case QuorumOnEdge:
		return "QUORUM IS ON THE EDGE"
	case QuorumAbsent:
		return "QUORUM ABSENT"
	case NoLeader:
		return "NO LEADER NODE"
	}
	return "UNKNOWN"
}

// Required is how many nodes of so many members make a quorum, and how many
// votes a failover needs.
func Required(members int, half HalfVotes) int {
	if members%2 == 0 && half != HalfIsNone {
		return members / 2
	}
	return members/2 + 1
}

// weight of a set of nodes among voters.
type weight int

const (
	tooFew weight = iota
	halfOf        // exactly half: as HalfVotes says
	most          // a quorum
)

// weigh counts the voters that yes holds for, each answering from the disk it
// is bound to.
func (s *State) weigh(r *Register, yes func(p *peer) bool) weight {
	w := s.weighOne(r, r.Old, yes)
	if r.joint() {
		w = min(w, s.weighOne(r, r.New, yes))
	}
	return w
}

func (s *State) weighOne(r *Register, v Voters, yes func(p *peer) bool) weight {
	count, tieBreaker := 0, false
	for _, m := range v.Members {
		p := s.peer(m.ID)
		if p == nil || !s.counts(r, m, p) || !yes(p) {
			continue
		}
		count++
		tieBreaker = tieBreaker || m.ID == v.Distinguished
	}
	switch all := len(v.Members); {
	case count*2 > all, count*2 == all && tieBreaker:
		return most
	case count*2 == all && count > 0:
		return halfOf
	}
	return tooFew
}

// counts reports that the disk a peer answers from may answer for a voter: the one
// it is bound to. Before the first register nobody is bound, and while the group is
// being founded whoever has that register counts, too: a disk that was lost since
// has not. Where half is enough, a voter that
// was never heard counts too: what it might have forgotten is given up there.
func (s *State) counts(r *Register, m Voter, p *peer) bool {
	return m.Incarnation == p.incarnation || r.Version.Zero() ||
		m.Incarnation == 0 && (s.opts.HalfVotes != HalfIsNone || r.Founding && (p.id == s.opts.ID || !p.holds.Less(r.Version)))
}

// WantsWitness reports that a witness would help: no other node is followed.
func (s State) WantsWitness(now time.Duration) bool {
	return s.opts.HalfVotes == HalfWithWitness && s.silent <= now && (s.role != Follower || s.promise <= now)
}

// suffices reports whether a weight is a quorum now.
func (s *State) suffices(w weight, now time.Duration) bool {
	switch w {
	case most:
		return true
	case halfOf:
		return s.opts.HalfVotes == HalfIsQuorum || s.opts.HalfVotes == HalfWithWitness && now < s.witness
	}
	return false
}

// leaseEnd is the end of the lease that the answers so far give: from the latest
// time such that a quorum has answered a message sent then or later.
func (s *State) leaseEnd() time.Duration {
	times := make([]time.Duration, 0, 8)
	for i := range s.peers {
		if s.peers[i].acked != never {
			times = append(times, s.peers[i].acked)
		}
	}
	slices.Sort(times)
	end := never
	for _, from := range slices.Backward(times) {
		switch s.weigh(s.register, func(p *peer) bool { return p.acked >= from }) {
		case most:
			return max(end, from+s.opts.Times.Lease)
		case halfOf:
			switch s.opts.HalfVotes {
			case HalfIsQuorum:
				return max(end, from+s.opts.Times.Lease)
			case HalfWithWitness:
				end = max(end, min(from+s.opts.Times.Lease, s.witness))
			}
		}
	}
	return end
}

// shown is the quorum as pgpool counts it: members, and those of them heard of
// late. Only a leader counts.
func (s *State) shown(now time.Duration) Quorum {
	members := len(s.register.New.Members)
	alive := 0
	for i := range s.peers {
		p := &s.peers[i]
		_, in := s.register.New.find(p.id)
		// Who stops and waits for its removal is alive until it is done: the address
		// is not dropped in between.
		if in && (s.present(p, now) || s.opts.RemoveShutdown && s.hasLeft(p) && s.answers(p, now)) {
			alive++
		}
	}
	switch {
	case alive*2 > members:
		return QuorumExists
	case alive*2 == members && s.opts.HalfVotes != HalfIsNone:
		return QuorumOnEdge
	}
	return QuorumAbsent
}

// present reports whether a leader may count on a peer: it has answered of late
// and nobody says that it is dead or has left.
func (s *State) present(p *peer, now time.Duration) bool {
	return p.id == s.opts.ID || s.answers(p, now) && !s.hasLeft(p)
}

func (s *State) answers(p *peer, now time.Duration) bool {
	return p.acked != never && now-p.acked <= s.opts.Times.Promise && !p.dead
}

// hasLeft reports that the start of a peer that was heard last has said good-bye.
func (s *State) hasLeft(p *peer) bool { return p.left != 0 && p.left == p.started }
