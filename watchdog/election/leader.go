package election

// win makes a candidate the leader. It leads from now on by the votes, and
// decides once its own register is committed.
func (t *step) win() {
	t.role, t.leader, t.joined = Leader, t.opts.ID, t.term
	t.won, t.active, t.ran, t.beats, t.humble = t.now, never, 0, nil, false
	t.releasing = Term{}
	r := t.voters().clone()
	if r.Founding = t.register.unsettled() && t.forced == nil; r.Founding {
		v := r.New
		for i := range t.peers {
			if t.peers[i].vote {
				v = v.with(t.peers[i].id, t.peers[i].incarnation)
			}
		}
		r.Old, r.New = v, v
	}
	if t.register.Version.Zero() {
		r.Backends, r.Primary = append([]Backend(nil), t.opts.Backends...), t.opts.Primary
	}
	t.forced = nil
	r.Flags = nil // whatever the last leader had locked
	for i := range t.peers {
		p := &t.peers[i]
		p.version, p.acked, p.lost = Version{}, never, never
		if p.vote {
			p.acked = t.asked // the vote was a promise as well
		}
	}
	t.do(Changed{Role: t.role, Leader: t.leader, Term: t.term, Why: t.why})
	t.write(r)
}

// write makes r the next version and tells everybody.
func (t *step) write(r *Register) {
	if t.register.Version.Term == t.term {
		r.Version = Version{t.term, t.register.Version.Index + 1}
	} else {
		r.Version = Version{t.term, 1}
	}
	t.register, t.dirty = r, true
	t.beat()
}

// beat tells everybody, observers too, who leads; whoever has not accepted the
// present register gets it along.
func (t *step) beat() {
	t.nextBeat = t.now + t.opts.Times.Beat
	t.seq++
	for len(t.beats) > 0 && t.now-t.beats[0].at > t.opts.Times.Lease {
		t.beats = t.beats[1:]
	}
	t.beats = append(t.beats, beat{t.seq, t.now})
	self := t.peer(t.opts.ID)
	self.acked, self.version = t.now, t.register.Version
	t.quorum = t.shown(t.now)
	m := Message{Kind: KindHeartbeat, Term: t.term, Seq: t.seq, Quorum: t.quorum, Constancy: t.opts.Times.Promise}
	if t.committed != nil {
		m.Committed = t.committed.Version
	}
	for i := range t.peers {
		p := &t.peers[i]
		if p.id == t.opts.ID {
			continue
		}
		m.Register = nil
		if p.version != t.register.Version {
			m.Register = t.register
		}
		t.send(p.id, m)
	}
	t.advance()
}

// ack: a peer has answered a heartbeat. The lease counts from when that was sent.
func (t *step) ack(p *peer, m Message) {
	if t.role != Leader || m.Term != t.term {
		return
	}
	for _, b := range t.beats {
		if b.seq == m.Seq {
			p.acked = max(p.acked, b.at)
		}
	}
	if p.version.Less(m.Version) {
		p.version = m.Version
	}
	t.advance()
}

// advance draws the conclusions of what has been answered: a longer lease, a
// committed register.
func (t *step) advance() {
	if end := t.leaseEnd(); end > t.lease && end > t.now {
		t.lease = end
		t.do(Lease{Term: t.term, Until: end})
	}
	if t.committed == nil || t.committed.Version != t.register.Version {
		v := t.register.Version
		if !t.suffices(t.weigh(t.register, func(p *peer) bool { return p.version == v }), t.now) {
			return
		}
		if t.register.Founding {
			return
		}
		if t.active == never {
			t.active = t.now
		}
		t.learn(t.register)
		if t.register.joint() { // both sets know: the new one alone from now on
			r := t.register.clone()
			r.Old = r.New
			t.write(r)
		}
	}
}

// settle ends the founding, once a quorum knows of it: whoever has answered is
// bound to the disk it answers from, and counts by it from now on. All that are
// there get the time to answer, and those that have just started and must not yet
// take it get that time, too, lest the group hang on the few that were quickest
// should one of them fail in the next moment.
func (t *step) settle() {
	r := t.register.clone()
	known := func(p *peer) bool { return p.version == t.register.Version }
	if !t.suffices(t.weigh(r, known), t.now) {
		return
	}
	v := r.New
	for i := range t.peers {
		p := &t.peers[i]
		patience := t.opts.Times.Candidacy
		if t.answers(p, t.now) {
			patience += t.opts.Times.Silence
		}
		switch {
		case known(p):
			v = v.with(p.id, p.incarnation)
		case t.hears(p, t.now) && t.now-t.won < patience:
			return
		}
	}
	r.Old, r.New, r.Founding = v, v, false
	t.write(r)
}

// decisive reports that this node leads, surely, and has made the past its own.
func (t *step) decisive() bool {
	return t.role == Leader && t.active != never && t.lease > t.now
}

// lead is what a leader does as time passes.
func (t *step) lead() {
	if t.nextBeat <= t.now {
		t.beat()
	}
	if t.register.Founding && t.lease > t.now {
		t.settle()
	}
	if !t.decisive() {
		return
	}
	if q := t.shown(t.now); q == QuorumAbsent {
		t.lower()
	} else if t.down && !t.address.Up {
		t.down = false
		t.address = Address{Up: true, Serial: t.address.Serial + 1}
		t.do(t.address)
	}
	if t.committed.Version == t.register.Version && !t.register.joint() {
		t.administer()
	}
	t.carryOut()
}

// lower orders the address down. Until that is reported this node helps nobody.
func (t *step) lower() {
	if t.address.Up {
		t.address = Address{Serial: t.address.Serial + 1}
		t.down = false
		t.do(t.address)
	}
}

func (t *step) addressDown(in AddressDown) {
	if in.Serial != t.address.Serial {
		return // about an order before the last one
	}
	t.down = true
	t.address.Up = false
	if t.releasing != (Term{}) {
		t.announce()
	}
}

// announce sends the release, now that the address is down.
func (t *step) announce() {
	for i := range t.peers {
		if t.peers[i].id != t.opts.ID {
			t.send(t.peers[i].id, Message{Kind: KindRelease, Term: t.releasing})
		}
	}
	t.releasing = Term{}
}

// Farewell is what releases the followers of a term once its leader is no more:
// for whoever knows for sure that it is not, and that the address is down.
func (s State) Farewell(term Term) Message {
	return Message{Kind: KindRelease, From: s.opts.ID, Incarnation: s.incarnation, Started: s.started,
		Priority: s.opts.Priority, Version: s.register.Version, Term: term}
}

// giveBack ends a leadership whose lease is over, and tells so: the others may hear
// this node though it does not hear them, and need not wait until they miss it.
func (t *step) giveBack(why string) {
	t.releasing = t.term
	t.unseat(why)
	if t.down {
		t.announce()
	}
}

// resign gives up the lead and lets others go first.
func (t *step) resign(why string) {
	if t.role != Leader && t.lease == never {
		return
	}
	t.releasing = t.term
	if t.role == Candidate {
		t.releasing = Term{} // voters follow the term before or this one; their promise ends by itself
	}
	t.lease, t.why = never, why
	t.lower()
	t.unseat(why)
	t.turn = t.now + t.opts.Times.Promise + t.chance(t.opts.Times.Turn)
	if t.down && t.releasing != (Term{}) {
		t.announce()
	}
}

// unseat makes this node a follower without a leader.
func (t *step) unseat(why string) {
	if t.role == Leader {
		t.retire(why)
		t.why, t.quorum, t.expired = why, NoLeader, t.now
	}
	t.role = Follower
	t.turn = t.now + t.rank(-1)*t.opts.Times.Turn + t.chance(t.opts.Times.Turn)
	t.do(Changed{Role: t.role, Leader: t.leader, Term: t.promised, Why: why})
}

// retire ends what only a leader keeps.
func (t *step) retire(why string) {
	for _, d := range t.queue {
		t.do(Refused{d.Ticket, why})
	}
	t.queue, t.boxes, t.finish = nil, nil, nil
	t.leader = -1
}
