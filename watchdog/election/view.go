package election

import "time"

// Shown is a node's state as pgpool numbers and names it.
type Shown int

const (
	ShownDead          Shown = 0 // never heard
	ShownLoading       Shown = 1
	ShownJoining       Shown = 2
	ShownInitializing  Shown = 3
	ShownLeader        Shown = 4
	ShownParticipating Shown = 5
	ShownStanding      Shown = 6
	ShownStandby       Shown = 7
	ShownLost          Shown = 8
	ShownShutdown      Shown = 10
)

func (s Shown) String() string {
	return map[Shown]string{
		ShownDead: "DEAD", ShownLoading: "LOADING", ShownJoining: "JOINING", ShownInitializing: "INITIALIZING",
		ShownLeader: "LEADER", ShownParticipating: "PARTICIPATING IN ELECTION", ShownStanding: "STANDING FOR LEADER",
		ShownStandby: "STANDBY", ShownLost: "LOST", ShownShutdown: "SHUTDOWN",
	}[s]
}

// View is what a node can say of the group.
type View struct {
	Self      Shown
	Leader    int  // as shown; -1 none
	Caretaker bool // the leader shown has no quorum: no lease, no address, no decisions
	Decisive  bool // this node leads and may decide
	Escalated bool // this node was ordered to hold the address
	Term      Term
	LeaseLeft time.Duration // of this node's own lease
	Quorum    Quorum
	Required  int
	Why       string // the last election was needed because
	Register  *Register
	Committed *Register // nil: none known yet
	Members   []MemberView
}

// MemberView is what a node can say of another, or of itself.
type MemberView struct {
	ID         int
	State      Shown
	Membership Membership
	Priority   int
	Alive      bool          // heard of late, by itself or by gossip
	Contact    time.Duration // since its last message; -1 never
}

// Obeys reports whether a command given under a term is still to be followed.
func (s State) Obeys(t Term) bool { return !t.Less(s.promised) }

// View looks at the state; it changes nothing.
func (s State) View(now time.Duration) View {
	v := View{
		Self:      s.self(now),
		Leader:    -1,
		Decisive:  (&step{State: s, now: now}).decisive(),
		Escalated: s.address.Up,
		Term:      s.promised,
		LeaseLeft: max(0, s.lease-now),
		Quorum:    s.quorum,
		Required:  Required(len(s.register.New.Members), s.opts.HalfVotes),
		Why:       s.why,
		Register:  s.register,
		Committed: s.committed,
	}
	if s.role == Candidate && s.lease > now {
		v.Leader = s.opts.ID // and renews its term
	} else if s.leads(s.leader) && (s.promise > now || s.role == Leader) {
		v.Leader = s.leader
	} else {
		v.Quorum = NoLeader
		if head := s.head(now); head >= 0 && s.alone(now) {
			v.Leader, v.Caretaker, v.Quorum = head, true, QuorumAbsent
			v.Self = ShownStandby
			if head == s.opts.ID {
				v.Self = ShownLeader
			}
		}
	}
	for i := range s.peers {
		p := &s.peers[i]
		m := MemberView{ID: p.id, Membership: s.register.Membership(p.id), Priority: p.priority, Alive: s.hears(p, now), Contact: -1}
		if p.heard != never {
			m.Contact = now - p.heard
		}
		switch {
		case p.id == s.opts.ID:
			m.State, m.Priority, m.Contact = v.Self, s.priority(), 0
		case s.hasLeft(p):
			m.State = ShownShutdown
		case p.started == 0:
			m.State = ShownDead
		case p.dead, !p.alive && now-p.heard > s.opts.Dead, s.role == Leader && now-max(p.acked, s.active) > s.opts.Dead:
			m.State = ShownLost
		case p.id == v.Leader:
			m.State = ShownLeader
		case v.Leader >= 0:
			m.State = ShownStandby
		default:
			m.State = ShownJoining
		}
		v.Members = append(v.Members, m)
	}
	return v
}

func (s *State) self(now time.Duration) Shown {
	switch {
	case s.role == Leader:
		return ShownLeader
	case s.role == Candidate && s.lease > now:
		return ShownLeader // renews its term
	case s.role == Candidate:
		return ShownStanding
	case s.role == PreCandidate:
		return ShownInitializing
	case s.leader >= 0 && s.promise > now && s.leads(s.leader):
		return ShownStandby
	case s.leader >= 0 && s.promise > now:
		return ShownParticipating
	case s.silent > now:
		return ShownLoading
	}
	return ShownJoining
}

// leads reports that a node was seen to lead, rather than only voted for.
func (s *State) leads(id int) bool { return id >= 0 && s.joined == s.promised }

// hears reports that a peer is there, by its messages or by gossip.
func (s *State) hears(p *peer, now time.Duration) bool {
	return p.id == s.opts.ID || (p.alive || now-p.heard <= s.opts.Times.Promise) && !p.dead && !s.hasLeft(p)
}

// alone reports that no leader has been found for so long that those who hear
// each other can be told to be without a quorum.
func (s *State) alone(now time.Duration) bool {
	return s.silent <= now && s.expired != never && now-s.expired > s.opts.Times.Promise+s.opts.Times.Candidacy
}

// head is the best node of those that hear each other.
func (s *State) head(now time.Duration) int {
	head := s.peer(s.opts.ID)
	for i := range s.peers {
		p := &s.peers[i]
		if s.hears(p, now) && s.register.has(p.id) && better(s.worth(p), s.worth(head), p.started, head.started, p.id, head.id) {
			head = p
		}
	}
	return head.id
}

func (s *State) worth(p *peer) int {
	if p.id == s.opts.ID {
		return s.priority()
	}
	return p.priority
}
