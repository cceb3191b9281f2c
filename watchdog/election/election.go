// Package election answers, for a group of pgpools: who leads, until when, and
// is a decision about the backends carried?
//
// It is a pure function: Step takes a State, one Input and the time, and gives
// the next State and what is to be done. It owns no clock, socket, disk, timer
// or random source, never looks at wall time and knows nothing of how messages
// travel or what bringing up an address means. The room above (watchdog) turns
// the world into inputs and carries out the outputs, in their order, under one
// rule: whatever follows a Persist in the same answer waits until it is on disk.
//
// The design is Paxos over one small value, the Register, with a leader's lease.
// A term belongs to the node that campaigns with it (Lamport, "Paxos Made
// Simple": ballot numbers). A voter keeps the highest term it promised, and the
// newest register it accepted, on disk. It also promises, in memory, to help
// nobody else for a while; the leader's lease ends before any voter of a quorum
// is free again, counted from when the leader sent what they answered (Gray and
// Cheriton, "Leases"; Lampson, "How to Build a Highly Available System Using
// Consensus"), with clocks that may drift. A candidate asks before it campaigns
// (Ongaro, "Consensus: Bridging Theory and Practice", 9.6). Voters change one at
// a time through a joint set (Ongaro and Ousterhout, "In Search of an
// Understandable Consensus Algorithm", 6); in a set that has shrunk one
// distinguished voter breaks the tie (Jajodia and Mutchler, "Dynamic Voting").
//
// Three rules are more than the design had. A first leader founds the group: until
// all that are there have its register (or did not answer for a moment), that is
// marked as founding, nothing is decided under it and nobody is bound to a disk by
// it alone; whoever has it may elect another first leader with it. Else a group
// whose first leader fails at once would wait for its return for ever. A disk that
// was lost since does not have it, and a node that has just started does not take
// it, so it cannot stand in for one that has decided. A leader whose lease is over
// says so, once its address is down: those who hear a deaf leader need not wait.
// A promise lasts as long as the leader's own settings need it to, which travel
// with what it asks for: members may be set differently. And who breaks the tie of a shrunk set is one of the set, also where a leader
// writes it that was just removed.
//
// Where a change goes: what a voter grants, voter.go; when a node stands,
// candidate.go; lease and writes, leader.go; who counts, quorum.go and
// members.go; failover votes and decisions, failover.go; what people are shown,
// view.go. A new rule needs a case in testdata/election and a run of the
// simulation with -seeds.
package election

import (
	"slices"
	"time"
)

// never is earlier than every time of a run.
const never = time.Duration(-1 << 62)

// Role is what a node does in the election. What people are shown is a View.
type Role int

const (
	Follower Role = iota
	PreCandidate
	Candidate
	Leader
)

func (r Role) String() string {
	return word(int(r), "follower", "pre-candidate", "candidate", "leader")
}

// HalfVotes says what exactly half of the voters of an even set may do.
type HalfVotes int

const (
	// HalfIsNone: half is no quorum. At most one leader at any time.
	HalfIsNone HalfVotes = iota
	// HalfWithWitness: half is a quorum while a witness stands by us (input
	// Witness). As many leaders as the witness allows: one, if it is exclusive.
	// What the other half has decided before may not be known.
	HalfWithWitness
	// HalfIsQuorum: either half may act; two leaders are possible, and on contact
	// the higher term wins (enable_consensus_with_half_votes).
	HalfIsQuorum
)

// Times are the durations of the protocol, all of the local clock.
type Times struct {
	Promise   time.Duration // D: a voter helps nobody else for so long
	Lease     time.Duration // L: so long after a message that a quorum answered was sent, the leader holds
	Beat      time.Duration // H: between heartbeats
	Candidacy time.Duration // C: limit of one candidacy
	Turn      time.Duration // δ: between candidates of neighbouring rank
	Silence   time.Duration // W: no votes so long after a start, as promises are not on disk
	Margin    time.Duration // of lease that must be left when a command starts
	Removal   time.Duration // V: taking the address down ends within that, of real time
}

// drift is the largest error of a clock's rate that is allowed for: 2 %.
const drift = 0.02

// RemovalBudget is how long taking the address down may take: V.
func RemovalBudget(promise time.Duration) time.Duration { return min(500*time.Millisecond, promise/8) }

// TimesFor derives everything from the promise D. A lease of L, stretched by a
// slow clock, and V together end before a promise of D on a fast clock does:
// L/(1-ρ) + V <= D/(1+ρ).
func TimesFor(promise time.Duration) Times {
	d, v := float64(promise), float64(RemovalBudget(promise))
	lease := time.Duration((1-drift)*d/(1+drift) - (1+drift)*v)
	return Times{
		Promise:   promise,
		Lease:     lease,
		Beat:      promise / 8,
		Candidacy: promise / 4,
		Turn:      min(150*time.Millisecond, promise/8),
		Silence:   promise,
		Margin:    min(time.Second, lease/2),
		Removal:   RemovalBudget(promise),
	}
}

// PromiseFor is the promise that goes with wd_heartbeat_keepalive and
// wd_heartbeat_deadtime.
func PromiseFor(keepalive, deadtime time.Duration) time.Duration {
	return max(min(2*keepalive, deadtime), 1500*time.Millisecond)
}

// Options are the settings of one node. ID, Nodes, Times and HalfVotes hold for
// a process; the rest may change with Reload.
type Options struct {
	ID        int   // pgpool_node_id
	Nodes     []int // all configured ids, own included
	Times     Times
	HalfVotes HalfVotes

	Priority       int           // wd_priority
	Dead           time.Duration // a node that was not heard for so long is lost; at least the promise
	RemoveShutdown bool          // wd_remove_shutdown_nodes
	RemoveLost     time.Duration // wd_lost_node_removal_timeout; 0 never
	RemoveNoShow   time.Duration // wd_no_show_node_removal_timeout; 0 never

	NeedQuorum    bool          // failover_when_quorum_exists
	NeedConsensus bool          // failover_require_consensus
	ManyVotes     bool          // allow_multiple_failover_requests_from_node
	VoteLife      time.Duration // a failover vote counts for so long

	Backends []Backend // what a first register starts from
	Primary  int       // -1: none known
}

// Saved is what a node keeps on disk. A node that finds nothing there, or
// something damaged, starts with a new Incarnation and nothing else.
type Saved struct {
	Incarnation uint64        // never 0; no two disks of a node share one
	Promised    Term          // the highest term it helped
	Constancy   time.Duration // for how long each time
	Register    *Register     // the newest it accepted; nil: none
}

// peer is what is known of a configured node; one of them is the node itself.
type peer struct {
	id          int
	incarnation uint64 // of its last message
	started     int64
	priority    int
	initialised bool          // it had a register when last heard
	holds       Version       // the newest it is known to have
	alive       bool          // gossip's word, for ranks only
	dead        bool          // the life check's word
	heard       time.Duration // its last message
	left        int64         // the start of it that has said good-bye
	pre, vote   bool          // said yes to the present candidacy
	no          bool          // said no to it
	acked       time.Duration // when we sent the newest message of the present term that it answered
	version     Version       // that it has accepted, as said in the present term
	lost        time.Duration // the leader counts from here
	spent       uint64        // its failover votes up to this one are over
}

// State is everything a node remembers. It is a value: Step never changes the
// one it is given.
type State struct {
	opts        Options
	incarnation uint64
	started     int64
	stopped     bool

	// On disk, see Saved.
	promised Term
	register *Register // never nil; version zero: first start, nothing agreed yet

	// As a voter.
	role      Role
	leader    int           // whom we promised to follow; -1 none
	promise   time.Duration // until then; binds even if the leader is forgotten
	constancy time.Duration // for how long the one we promised to needs it each time
	lastSeq   uint64        // newest heartbeat of that leader
	joined    Term          // the last term whose leader was heard to lead
	released  Term          // a term whose leader has given up
	silent    time.Duration // no votes until then
	expired   time.Duration // since when we are free; never: we are not
	turn      time.Duration // when we stand
	why       string        // reason of the last election we saw the need of
	quorum    Quorum        // as the leader last said

	// As a candidate.
	round   uint64        // highest seen anywhere
	term    Term          // of the present or last candidacy or leadership
	asked   time.Duration // when the voters were asked
	until   time.Duration // limit of the candidacy
	forced  *Register     // by the operator: the voters to go on with
	humble  bool          // effective priority -1 until the next election is over
	witness time.Duration // a witness stands by us until then

	// As a leader. A lease may outlast the role, while a candidacy of ours renews it.
	lease     time.Duration
	won       time.Duration // since when, by the votes
	active    time.Duration // since when it may decide, in this term
	seq       uint64
	beats     []beat // sent and recent enough for a lease
	nextBeat  time.Duration
	ran       uint64 // newest decision whose command was ordered in this term
	releasing Term   // to be announced once the address is down

	address Address // the last order about it
	down    bool    // and it is surely down

	committed *Register // newest known to be committed; nil: none yet
	peers     []peer
	leaving   bool
	leaveBy   time.Duration
	leaveNext time.Duration

	asks   []ask
	boxes  []box
	queue  []Decide
	finish *Finish
	last   time.Duration // time of the last step
	random uint64
}

type beat struct {
	seq uint64
	at  time.Duration
}

// New is a node at its start; what is to be done at once is in the outputs.
// started tells apart the starts of a node and should grow: wall time will do.
// seed is a random number: two nodes should not share it.
func New(opts Options, saved Saved, started int64, seed uint64, now time.Duration) (State, []Output) {
	opts.Nodes = slices.Sorted(slices.Values(opts.Nodes))
	opts.Dead = max(opts.Dead, opts.Times.Promise)
	s := State{
		opts:        opts,
		incarnation: saved.Incarnation,
		started:     started,
		promised:    saved.Promised,
		constancy:   saved.Constancy,
		round:       saved.Promised.Round,
		register:    saved.Register,
		leader:      -1,
		promise:     never,
		silent:      now + max(opts.Times.Silence, saved.Constancy),
		expired:     never,
		quorum:      NoLeader,
		why:         "start",
		witness:     never,
		lease:       never,
		last:        now,
		random:      seed,
		address:     Address{Serial: 1},
	}
	if s.register == nil {
		s.register = firstRegister(opts.Nodes)
	}
	s.round = max(s.round, s.register.Version.Term.Round)
	for _, id := range opts.Nodes {
		p := peer{id: id, heard: never, acked: never, lost: never}
		if id == opts.ID {
			p.incarnation, p.started, p.priority, p.heard = saved.Incarnation, started, opts.Priority, now
		}
		s.peers = append(s.peers, p)
	}
	return s, []Output{Persist{s.saved()}, s.address}
}

// Step is the whole election: what a node becomes, and what it does, when in
// happens at now. now must not run backwards; it is read as if it stood still
// where it does.
func Step(s State, in Input, now time.Duration) (State, []Output) {
	if s.stopped {
		return s, nil
	}
	t := step{State: s, now: max(now, s.last)}
	t.last = t.now
	t.peers = slices.Clone(s.peers)
	t.beats = slices.Clone(s.beats)
	t.asks = slices.Clone(s.asks)
	t.boxes = slices.Clone(s.boxes)
	t.queue = slices.Clone(s.queue)

	t.pass() // before anything is heard: a frozen process wakes here with a dead lease
	switch in := in.(type) {
	case Message:
		t.hear(in)
	case Gossip:
		t.gossip(in)
	case Lifecheck:
		if p := t.peer(in.ID); p != nil {
			p.dead = !in.Alive
		}
	case AddressDown:
		t.addressDown(in)
	case Witness:
		t.witness = in.Until - t.opts.Times.Removal - t.opts.Times.Removal/50 // the address must be gone by then
	case Resign:
		t.humble = t.humble || in.Humble && t.role == Leader
		t.resign(in.Why)
	case Leave:
		t.leave()
	case Force:
		t.force(in)
	case Ask:
		t.ask(in.Request)
	case Decide:
		t.decide(in)
	case Finish:
		t.finished(in)
	case Reload:
		t.reload(in.Options)
	}
	t.pass()
	if t.dirty {
		return t.State, slices.Insert(t.out, 0, Output(Persist{t.saved()}))
	}
	return t.State, t.out
}

// Wake is when the next Tick is due at the latest.
func (s State) Wake() time.Duration {
	if s.stopped {
		return 1<<63 - 1
	}
	next := time.Duration(1<<63 - 1)
	at := func(d time.Duration) { next = min(next, d) }
	if s.lease != never {
		at(s.lease)
	}
	switch {
	case s.role == Leader:
		at(s.nextBeat)
	case s.role != Follower:
		at(s.until)
		if s.opts.HalfVotes != HalfIsNone && s.last < s.asked+s.opts.Times.Turn {
			at(s.asked + s.opts.Times.Turn)
		}
	case s.expired == never:
		at(max(s.promise, s.silent))
	case s.down && !s.leaving && s.mayStand():
		at(s.turn)
	}
	for _, a := range s.asks {
		at(min(a.next, a.until))
	}
	if s.leaving {
		at(min(s.leaveNext, s.leaveBy))
	}
	return next
}

func (s *State) saved() Saved {
	v := Saved{Incarnation: s.incarnation, Promised: s.promised, Constancy: s.constancy}
	if !s.register.Version.Zero() {
		v.Register = s.register
	}
	return v
}

// step is one call of Step.
type step struct {
	State
	now   time.Duration
	out   []Output
	dirty bool // what is on disk has changed
}

func (t *step) do(o Output) { t.out = append(t.out, o) }

// send fills in what every message says of its sender.
func (t *step) send(to int, m Message) {
	m.From, m.Incarnation, m.Started = t.opts.ID, t.incarnation, t.started
	m.Priority, m.Version = t.priority(), t.register.Version
	t.do(Send{To: to, Message: m})
}

// pass lets the time that has gone by do its work.
func (t *step) pass() {
	if t.stopped {
		return
	}
	if t.lease != never && t.now >= t.lease {
		t.lease = never
		t.lower()
	}
	if t.role == Leader && t.lease == never {
		t.giveBack("no quorum has answered in time")
	}
	switch t.role {
	case Follower:
		if t.expired == never && t.promise <= t.now && t.silent <= t.now {
			t.free()
		}
		if t.expired != never && t.turn <= t.now && t.down && !t.leaving && t.mayStand() {
			t.stand()
		}
	case PreCandidate, Candidate:
		switch {
		case t.until <= t.now:
			t.giveUp("candidacy over")
		case t.carried(): // by half, now that the others had time to answer
			t.goOn()
		}
	case Leader:
		t.lead()
	}
	t.pushAsks()
	if t.leaving {
		t.depart()
	}
}

// hear takes a message of a configured peer.
func (t *step) hear(m Message) {
	p := t.peer(m.From)
	if p == nil || m.From == t.opts.ID {
		return
	}
	if p.incarnation != m.Incarnation {
		// Another disk speaks: what the one before has said is not its word. A late
		// message of the one before turns this back for a while, which costs time but
		// not safety: answers count for the incarnation that gave them.
		p.incarnation = m.Incarnation
		p.pre, p.vote, p.no, p.acked, p.version, p.holds = false, false, false, never, Version{}, Version{}
	}
	p.heard, p.started, p.priority, p.initialised = t.now, m.Started, m.Priority, !m.Version.Zero()
	if p.holds.Less(m.Version) {
		p.holds = m.Version
	}
	switch m.Kind {
	case KindPreVote:
		t.preVote(m)
	case KindPreVoteReply:
		t.preVoteReply(p, m)
	case KindVote:
		t.vote(m)
	case KindVoteReply:
		t.voteReply(p, m)
	case KindHeartbeat:
		t.heartbeat(m)
	case KindAck:
		t.ack(p, m)
	case KindNack:
		t.nack(m)
	case KindRelease:
		t.release(m)
	case KindLeave:
		p.left = m.Started
	case KindFailoverVote:
		t.failoverVote(m)
	case KindFailoverReply:
		t.failoverReply(m)
	}
}

func (t *step) gossip(in Gossip) {
	if p := t.peer(in.ID); p != nil && in.ID != t.opts.ID {
		p.alive, p.priority, p.started = in.Alive, in.Priority, in.Started
		p.initialised = p.initialised || in.Initialised
	}
}

func (t *step) reload(o Options) {
	o.ID, o.Nodes, o.Times, o.HalfVotes = t.opts.ID, t.opts.Nodes, t.opts.Times, t.opts.HalfVotes
	o.Dead = max(o.Dead, o.Times.Promise)
	t.opts = o
}

func (s *State) peer(id int) *peer {
	for i := range s.peers {
		if s.peers[i].id == id {
			return &s.peers[i]
		}
	}
	return nil
}

// priority is the effective one.
func (s *State) priority() int {
	if s.humble {
		return -1
	}
	return s.opts.Priority
}

// chance is a number below n, from the seed given at the start (Steele and
// others, "Fast Splittable Pseudorandom Number Generators").
func (s *State) chance(n time.Duration) time.Duration {
	s.random += 0x9e3779b97f4a7c15
	z := s.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return time.Duration((z ^ z>>31) % uint64(max(n, 1)))
}
