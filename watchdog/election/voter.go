package election

import "time"

// Reasons of a no, also for the log of who asked.
const (
	whySilent      = "just started"
	whyLeading     = "leads"
	whyPromised    = "follows a leader"
	whyTerm        = "helped a higher term"
	whyRegister    = "has a newer register"
	whyInitialised = "knows a node that remembers"
	whyAddress     = "may hold the address"
	whyMyTurn      = "has a higher priority"
)

// refusal is why this node does not help a candidate, empty if it does.
func (t *step) refusal(m Message) string {
	switch {
	case t.silent > t.now:
		return whySilent
	case t.lease > t.now:
		return whyLeading
	case !t.down:
		return whyAddress
	case t.promise > t.now && t.leader != m.From:
		return whyPromised
	case m.Version.Less(t.register.Version):
		return whyRegister
	case m.Version.Zero() && t.remembered():
		return whyInitialised
	}
	// A node without a register may help one that has it: if it is a voter there, it
	// was bound by the very candidacy it voted in, and has forgotten nothing since;
	// if not, the candidate does not count it.
	return ""
}

// remembered reports that a node with a register was heard of late: then those
// without do not begin anew among themselves.
func (t *step) remembered() bool {
	for i := range t.peers {
		if p := &t.peers[i]; p.initialised && (p.alive || t.now-p.heard <= t.opts.Times.Promise) {
			return true
		}
	}
	return false
}

// preVote answers without any change: nothing is promised.
func (t *step) preVote(m Message) {
	why := t.refusal(m)
	if why == "" && t.role == Leader {
		why = whyLeading
	}
	if why == "" && t.outranks(m) {
		why = whyMyTurn
		if t.role == Follower {
			t.turn = t.now
		}
	}
	t.send(m.From, Message{Kind: KindPreVoteReply, Term: m.Term, Yes: why == "", Why: why, Promised: t.promised})
}

// outranks reports that this node is the better candidate and that its turn is
// not over.
func (t *step) outranks(m Message) bool {
	turns := time.Duration(len(t.peers)+2) * t.opts.Times.Turn
	return t.priority() > m.Priority && t.expired != never && t.now-t.expired < turns &&
		!t.leaving && t.mayStand() && !t.register.Version.Less(m.Version)
}

// vote helps a candidate, which binds: the term on disk, the time in memory.
func (t *step) vote(m Message) {
	if m.Term.Node != m.From {
		return
	}
	why := t.refusal(m)
	if why == "" && !t.promised.Less(m.Term) {
		why = whyTerm
	}
	if why != "" {
		t.send(m.From, Message{Kind: KindVoteReply, Term: m.Term, Why: why, Promised: t.promised})
		return
	}
	if t.role != Follower {
		t.unseat("votes for another")
	}
	t.follow(m)
	t.bind()
	t.send(m.From, Message{Kind: KindVoteReply, Term: m.Term, Yes: true, Promised: t.promised})
}

// follow promises a candidate's or leader's term.
func (t *step) follow(m Message) {
	if t.promised != m.Term {
		t.promised, t.dirty = m.Term, true
		t.lastSeq, t.constancy = 0, 0
	}
	if t.constancy < m.Constancy { // what must be kept through a restart, too
		t.constancy, t.dirty = m.Constancy, true
	}
	t.round = max(t.round, m.Term.Round)
	t.leader = m.From
	t.forced = nil
}

// bind begins the promise anew. It lasts as long as the other's lease needs it to,
// whatever is set here.
func (t *step) bind() {
	t.promise, t.expired = t.now+max(t.opts.Times.Promise, t.constancy), never
}

// heartbeat of a leader: a promise to it, and news. A silent node answers too:
// what it promised before its start cannot have been to a later leader.
func (t *step) heartbeat(m Message) {
	switch {
	case m.Term.Less(t.promised):
		why := whyTerm
		if t.lease > t.now {
			why = whyLeading
		}
		t.send(m.From, Message{Kind: KindNack, Term: m.Term, Promised: t.promised, Why: why})
		return
	case m.Term.Node != m.From, m.Term == t.released:
		return
	}
	if t.role != Follower {
		t.unseat("another leads")
	}
	if t.lease != never {
		t.lease = never
		t.lower()
	}
	known := t.joined == m.Term && t.leader == m.From
	t.follow(m)
	t.humble = false // an election is over
	news := m.Seq > t.lastSeq
	// A founding register may be late, and this disk lost since: not right after a start.
	if r := m.Register; r != nil && r.Version.Term == m.Term && t.register.Version.Less(r.Version) && (!r.Founding || t.silent <= t.now) {
		t.register, t.dirty, news = m.Register, true, true
	}
	if news { // a repeated message prolongs nothing
		t.lastSeq = max(t.lastSeq, m.Seq)
		t.bind()
		t.quorum = m.Quorum
	}
	if !known {
		t.joined = m.Term
		t.do(Changed{Role: Follower, Leader: t.leader, Term: m.Term, Why: t.why})
	}
	// The leader writes one version after the other, each when the one before is
	// committed: of its own term, an older one than the committed is committed too.
	if v := t.register.Version; !t.register.unsettled() && v.Term == m.Committed.Term && v.Index <= m.Committed.Index {
		t.learn(t.register)
	}
	t.send(m.From, Message{Kind: KindAck, Term: m.Term, Seq: m.Seq})
}

// learn takes a register that is known to be committed.
func (t *step) learn(r *Register) {
	if t.committed != nil && !t.committed.Version.Less(r.Version) {
		return
	}
	t.committed = r
	t.do(Apply{r})
}

// release frees this node of the promise to a leader that has given up.
func (t *step) release(m Message) {
	if t.promised != m.Term || t.leader != m.From || t.role != Follower {
		return
	}
	t.released = m.Term
	t.promise = t.now
	t.why = "the leader gave up"
}

// free begins the time without a leader.
func (t *step) free() {
	t.expired = t.now
	former := t.leader
	if former >= 0 {
		if t.released != t.promised {
			t.why = "the leader was not heard in time"
		}
		t.leader, t.quorum = -1, NoLeader
		t.do(Changed{Role: t.role, Leader: -1, Term: t.promised, Why: t.why})
	}
	t.turn = t.now + t.rank(former)*t.opts.Times.Turn + t.chance(t.opts.Times.Turn)
}

// rank is how many live voters are better candidates; a hint that only delays.
func (t *step) rank(except int) time.Duration {
	n := time.Duration(0)
	self := t.peer(t.opts.ID)
	for i := range t.peers {
		p := &t.peers[i]
		live := (p.alive || t.now-p.heard <= t.opts.Times.Promise) && !p.dead && !t.hasLeft(p)
		if p.id != t.opts.ID && p.id != except && live && t.register.has(p.id) &&
			better(p.priority, t.priority(), p.started, self.started, p.id, self.id) {
			n++
		}
	}
	return n
}

// better compares two candidates: by priority, then who started earlier, then id.
func better(priority, than int, started, thanStarted int64, id, thanID int) bool {
	if priority != than {
		return priority > than
	}
	if started != thanStarted {
		return started < thanStarted
	}
	return id < thanID
}
