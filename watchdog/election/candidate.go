package election

import "slices"

// nextTerm is above every round seen, so that one candidacy is enough.
func (s *State) nextTerm() Term {
	return Term{Round: max(s.round, s.promised.Round) + 1, Node: s.opts.ID, Incarnation: s.incarnation}
}

// voters is the register whose voters a candidate needs.
func (s *State) voters() *Register {
	if s.forced != nil {
		return s.forced
	}
	return s.register
}

// mayStand reports that this node counts: as one of the first, or by its disk.
func (s *State) mayStand() bool {
	r := s.voters()
	old, inOld := r.Old.find(s.opts.ID)
	cur, inNew := r.New.find(s.opts.ID)
	self := s.peer(s.opts.ID)
	return inOld && s.counts(r, old, self) || inNew && s.counts(r, cur, self)
}

// stand asks whether a candidacy would succeed; this changes nobody's state, so
// a node that is cut off does not disturb the others when it comes back.
func (t *step) stand() {
	if t.voters().Version.Zero() && t.remembered() {
		t.turn = t.now + t.opts.Times.Candidacy
		return
	}
	t.role, t.term, t.asked, t.until = PreCandidate, t.nextTerm(), t.now, t.now+t.opts.Times.Candidacy
	t.do(Changed{Role: t.role, Leader: -1, Term: t.term, Why: t.why})
	t.poll(KindPreVote)
	if t.carried() {
		t.goOn()
	}
}

// goOn takes the next step of a candidacy that was carried.
func (t *step) goOn() {
	if t.role == PreCandidate {
		t.campaign()
	} else {
		t.win()
	}
}

// campaign asks for votes. A leader renews its term this way while its lease lasts.
func (t *step) campaign() {
	t.term = t.nextTerm()
	t.promised, t.dirty = t.term, true
	t.round = t.term.Round
	t.role, t.asked, t.until = Candidate, t.now, t.now+t.opts.Times.Candidacy
	t.do(Changed{Role: t.role, Leader: -1, Term: t.term, Why: t.why})
	t.poll(KindVote)
	if t.carried() {
		t.win()
	}
}

// poll asks all that count, this node first.
func (t *step) poll(k Kind) {
	r := t.voters()
	for i := range t.peers {
		p := &t.peers[i]
		p.no = false
		p.pre, p.vote = p.id == t.opts.ID && k == KindPreVote, p.id == t.opts.ID && k == KindVote
		if p.id != t.opts.ID && r.has(p.id) {
			t.send(p.id, Message{Kind: k, Term: t.term, Constancy: t.opts.Times.Promise})
		}
	}
}

// carried reports that enough have said yes. Half is enough only against
// silence: the other half had time to answer, and nobody there said no.
func (t *step) carried() bool {
	w := t.weigh(t.voters(), func(p *peer) bool { return p.vote || p.pre && t.role == PreCandidate })
	if w == halfOf && (t.now < t.asked+t.opts.Times.Turn || slices.ContainsFunc(t.peers, func(p peer) bool { return p.no })) {
		return false
	}
	return t.suffices(w, t.now)
}

func (t *step) preVoteReply(p *peer, m Message) {
	t.round = max(t.round, m.Promised.Round) // only to number a later candidacy
	if t.role != PreCandidate || m.Term != t.term {
		return
	}
	p.pre, p.no = m.Yes, !m.Yes
	if t.carried() {
		t.goOn()
	}
}

// voteReply counts answers to the present candidacy; pass has ended it if they are late.
func (t *step) voteReply(p *peer, m Message) {
	t.round = max(t.round, m.Promised.Round)
	if t.role != Candidate || m.Term != t.term {
		return
	}
	p.vote, p.no = m.Yes, !m.Yes
	switch {
	case t.carried():
		t.goOn()
	case !m.Yes && t.term.Less(m.Promised):
		t.giveUp("a voter has helped a higher term")
	}
}

// giveUp ends a candidacy. One that renews a lease that still lasts is tried again.
func (t *step) giveUp(why string) {
	if t.role == Candidate && t.lease > t.now {
		t.campaign()
		return
	}
	t.unseat(why)
	t.turn = t.now + (t.rank(-1)+1)*t.opts.Times.Turn + t.chance(2*t.opts.Times.Turn)
}

// nack: a voter has promised a higher term. The leader goes above it, and keeps
// the address as long as the lease it has lasts. If that voter leads itself,
// which only half votes allow, the lower of the two gives way.
func (t *step) nack(m Message) {
	t.round = max(t.round, m.Promised.Round)
	if t.role != Leader || m.Term != t.term || !t.promised.Less(m.Promised) {
		return
	}
	if m.Why == whyLeading {
		t.lease = never
		t.lower()
		t.unseat("another leads a higher term")
	} else {
		t.retire("term renewed")
		t.why = "a voter had helped a higher term"
		t.campaign()
	}
}

// force goes on without nodes that the operator knows to be off. Those that are
// heard are bound to the disk they answer from now.
func (t *step) force(in Force) {
	switch {
	case t.role == Leader, t.promise > t.now:
		t.do(Refused{in.Ticket, "there is a leader"})
		return
	case t.silent > t.now:
		t.do(Refused{in.Ticket, whySilent})
		return
	}
	r := t.register.clone()
	v := r.New
	for _, id := range in.Gone {
		if id != t.opts.ID {
			v = v.without(id)
			r.revoke(id, RevokedLost)
		}
	}
	for _, m := range v.Members {
		if p := t.peer(m.ID); p != nil && (p.id == t.opts.ID || p.heard != never && t.now-p.heard <= t.opts.Dead) {
			v = v.with(m.ID, p.incarnation)
		}
	}
	v.Distinguished = t.tieBreaker(v)
	r.Old, r.New = v, v
	t.forced = r
	t.why = "the operator goes on without the nodes that are gone"
	t.turn = t.now
}
