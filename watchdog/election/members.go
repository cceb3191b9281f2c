package election

import (
	"slices"
	"time"
)

// leaveLimit is how long a node that stops waits for its own removal.
const leaveLimit = 5 * time.Second

// changeVoters makes at most one change of the voters, in a joint set; N, the
// new set alone, follows when both have it. Nothing but the leader's own eyes
// counts, and a quorum must agree: a node is never removed by those that only
// cannot hear it.
func (t *step) changeVoters() {
	for i := range t.peers {
		p := &t.peers[i]
		if p.id == t.opts.ID {
			continue
		}
		voter, in := t.register.New.find(p.id)
		answers := t.present(p, t.now) && p.version.Term == t.term
		if in && answers && voter.Incarnation != p.incarnation || !in && answers {
			if t.reseat(t.register.New.with(p.id, p.incarnation), p.id, Member) {
				return
			}
		}
		// Half of a set is not to become all of a smaller one, which needs no witness.
		if why, due := t.due(p); due && in && t.opts.HalfVotes != HalfWithWitness {
			if t.reseat(t.register.New.without(p.id), p.id, why) {
				return
			}
		}
	}
	for _, m := range t.register.New.Members {
		if t.peer(m.ID) == nil && t.reseat(t.register.New.without(m.ID), m.ID, Member) { // no longer configured
			return
		}
	}
	if v := t.register.New; v.Distinguished != t.tieBreaker(v) {
		r := t.register.clone()
		r.New.Distinguished = t.tieBreaker(v)
		t.write(r)
	}
}

// reseat opens the change that binds, adds or removes one node, and reports
// whether it did: those that answer now must be a quorum of the new set, or it
// could be one that never elects again. So voters that were never heard go
// before those that were.
func (t *step) reseat(v Voters, id int, as Membership) bool {
	r := t.register.clone()
	r.New = v
	r.New.Distinguished = t.tieBreaker(v)
	r.revoke(id, as)
	if t.weighOne(r, r.New, func(p *peer) bool { return p.id == t.opts.ID || t.answers(p, t.now) }) != most {
		return false
	}
	t.write(r)
	return true
}

func (r *Register) revoke(id int, as Membership) {
	r.Removed = slices.DeleteFunc(r.Removed, func(m Removal) bool { return m.ID == id })
	if as != Member {
		r.Removed = append(r.Removed, Removal{id, as})
	}
}

// tieBreaker of a set: the leader, in an even set that is smaller than what is
// configured. A set as configured keeps to the majority, as its operator knows it.
// A leader that is no longer in the set leaves that to whoever had it before, or
// to the first of those that count.
func (s *State) tieBreaker(v Voters) int {
	if n := len(v.Members); n%2 != 0 || n >= len(s.opts.Nodes) {
		return -1
	}
	if _, in := v.find(s.opts.ID); in {
		return s.opts.ID
	}
	if _, in := v.find(v.Distinguished); in {
		return v.Distinguished
	}
	if i := slices.IndexFunc(v.Members, func(m Voter) bool { return m.Incarnation != 0 }); i >= 0 {
		return v.Members[i].ID
	}
	return -1
}

// due reports that a peer is to be removed: it said good-bye, or its time to come
// (back) is over. Only an active leader counts that, from when it became active
// at the earliest.
func (t *step) due(p *peer) (why Membership, due bool) {
	switch {
	case t.hasLeft(p):
		p.lost = never
		return RevokedShutdown, t.opts.RemoveShutdown
	case p.heard == never:
		return RevokedNoShow, t.opts.RemoveNoShow > 0 && t.now-t.active >= t.opts.RemoveNoShow
	case !p.dead && t.now-max(p.acked, t.active) <= t.opts.Dead:
		p.lost = never
		return Member, false
	case p.lost == never:
		p.lost = t.now
	}
	return RevokedLost, t.opts.RemoveLost > 0 && t.now-p.lost >= t.opts.RemoveLost
}

// leave begins a clean stop. A leader hands over first; a voter stays to vote for
// its own removal.
func (t *step) leave() {
	if t.leaving {
		return
	}
	t.leaving, t.leaveBy, t.leaveNext = true, t.now+leaveLimit, t.now
	t.resign("stops")
}

// depart goes on with it, until the address is down and, where that is wanted,
// the others count without this node.
func (t *step) depart() {
	if t.leaveNext <= t.now {
		t.leaveNext = t.now + t.opts.Times.Beat
		t.sayGoodBye()
	}
	removed := t.committed != nil && !t.committed.has(t.opts.ID) && !t.register.has(t.opts.ID)
	wanted := t.opts.RemoveShutdown && t.opts.HalfVotes != HalfWithWitness
	if t.down && (!wanted || removed || !t.company()) || t.leaveBy <= t.now {
		t.do(Left{})
		t.stopped = true
	}
}

func (t *step) sayGoodBye() {
	for i := range t.peers {
		if t.peers[i].id != t.opts.ID {
			t.send(t.peers[i].id, Message{Kind: KindLeave})
		}
	}
}

// company reports that somebody else was heard of late.
func (t *step) company() bool {
	return slices.ContainsFunc(t.peers, func(p peer) bool {
		return p.id != t.opts.ID && t.now-p.heard <= t.opts.Times.Promise && !t.hasLeft(&p)
	})
}
