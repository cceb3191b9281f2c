package election

import (
	"fmt"
	"slices"
	"time"
)

// Request asks the leader for a decision about backends.
type Request struct {
	ID        uint64 // grows over the life of a node, restarts included
	Act       Act    // ActDetach, ActAttach or ActPromote
	Nodes     []int
	Confirmed bool   // by the operator: no votes needed
	Basis     uint64 // set by Ask: the number of decisions known when it was made
}

// Verdict on a request.
type Verdict int

const (
	Granted   Verdict = iota // will be decided
	Already                  // it is so
	Building                 // counted; not enough votes yet
	MayFail                  // this node has voted before
	NoQuorum                 // nobody may decide
	Stale                    // made before the last decision about these backends
	NotMember                // this node does not count
)

func (v Verdict) String() string {
	return word(int(v), "granted", "already so", "building consensus", "consensus may fail",
		"no quorum", "made before the last decision", "not a member")
}

// ask waits for the leader's word.
type ask struct {
	request     Request
	next, until time.Duration
}

// box collects the votes for one thing.
type box struct {
	act     Act
	nodes   []int
	votes   []ballot
	carried time.Duration // never: not yet
}

type ballot struct {
	from int
	id   uint64
	at   time.Duration
}

// ask takes a request of this node; it goes out in pass.
func (t *step) ask(r Request) {
	r.Basis = 0
	if t.committed != nil {
		r.Basis = t.committed.Decided
	}
	r.Nodes = slices.Sorted(slices.Values(r.Nodes))
	limit := t.opts.Times.Promise + t.opts.Times.Candidacy // an election may be on
	t.asks = append(t.asks, ask{request: r, next: t.now, until: t.now + limit})
}

// pushAsks brings waiting requests to whoever leads now.
func (t *step) pushAsks() {
	kept := t.asks[:0]
	for _, a := range t.asks {
		switch {
		case t.decisive():
			t.do(Answer{a.request.ID, t.count(t.opts.ID, a.request)})
			continue
		case a.until <= t.now:
			t.do(Answer{a.request.ID, NoQuorum})
			continue
		case a.next <= t.now:
			a.next = t.now + t.opts.Times.Beat
			if t.leader >= 0 && t.leader != t.opts.ID {
				t.send(t.leader, Message{Kind: KindFailoverVote, Request: a.request})
			}
		}
		kept = append(kept, a)
	}
	t.asks = kept
}

// failoverVote at the leader. Who does not lead keeps silent: the asker tries
// again, here or elsewhere.
func (t *step) failoverVote(m Message) {
	if t.decisive() {
		v := t.count(m.From, m.Request)
		t.send(m.From, Message{Kind: KindFailoverReply, Request: Request{ID: m.Request.ID}, Verdict: v})
	}
}

func (t *step) failoverReply(m Message) {
	for i, a := range t.asks {
		if a.request.ID == m.Request.ID {
			t.asks = slices.Delete(t.asks, i, i+1)
			t.do(Answer{m.Request.ID, m.Verdict})
			return
		}
	}
}

// count is the rule book of failover consensus: the first rule that holds wins.
func (t *step) count(from int, r Request) Verdict {
	p := t.peer(from)
	member, in := t.register.New.find(from)
	b := t.box(r)
	switch {
	case needless(t.register, r.Act, r.Nodes, candidateOf(r), ""):
		return Already
	case stale(t.register, r.Nodes, r.Basis), r.ID <= p.spent && !b.knows(from, r.ID):
		return Stale
	case b.carried != never:
		return Granted
	case r.Confirmed, !t.opts.NeedQuorum:
		return t.carry(b, from, r)
	case t.quorum < QuorumOnEdge:
		return NoQuorum
	case !t.opts.NeedConsensus:
		return t.carry(b, from, r)
	case !in || member.Incarnation != p.incarnation:
		return NotMember
	case b.knows(from, r.ID):
		return Building // the same vote, repeated on the way
	case b.voted(from) && !t.opts.ManyVotes:
		return MayFail
	}
	b.votes = append(slices.Clip(b.votes), ballot{from, r.ID, t.now})
	if len(b.votes) < Required(len(t.register.New.Members), t.opts.HalfVotes) {
		return Building
	}
	return t.carry(b, from, r)
}

func (t *step) carry(b *box, from int, r Request) Verdict {
	b.carried = t.now
	voters := []int{from}
	for _, v := range b.votes {
		if !slices.Contains(voters, v.from) {
			voters = append(voters, v.from)
		}
	}
	slices.Sort(voters)
	t.do(Carried{Request: r, Voters: voters})
	return Granted
}

// box finds the votes for the same thing, made where there are none; votes that
// are too old are gone, and so is what was carried and then not decided.
func (t *step) box(r Request) *box {
	kept := t.boxes[:0]
	for _, b := range t.boxes {
		var fresh []ballot
		for _, v := range b.votes {
			if t.now-v.at < t.opts.VoteLife {
				fresh = append(fresh, v)
			} else if p := t.peer(v.from); p != nil {
				p.spent = max(p.spent, v.id)
			}
		}
		b.votes = fresh
		if b.carried != never && t.now-b.carried >= t.opts.VoteLife {
			continue
		}
		if b.carried != never || len(b.votes) > 0 {
			kept = append(kept, b)
		}
	}
	t.boxes = kept
	for i := range t.boxes {
		if b := &t.boxes[i]; b.act == r.Act && slices.Equal(b.nodes, r.Nodes) {
			return b
		}
	}
	t.boxes = append(t.boxes, box{act: r.Act, nodes: r.Nodes, carried: never})
	return &t.boxes[len(t.boxes)-1]
}

func (b *box) voted(from int) bool {
	return slices.ContainsFunc(b.votes, func(v ballot) bool { return v.from == from })
}

func (b *box) knows(from int, id uint64) bool {
	return slices.ContainsFunc(b.votes, func(v ballot) bool { return v.from == from && v.id == id })
}

func candidateOf(r Request) int {
	if r.Act == ActPromote && len(r.Nodes) == 1 {
		return r.Nodes[0]
	}
	return -1
}

// needless reports that a decision would change nothing: it has been made.
func needless(r *Register, act Act, nodes []int, candidate int, flag string) bool {
	switch act {
	case ActDetach, ActAttach:
		return !slices.ContainsFunc(nodes, func(id int) bool { return r.Backend(id).Down != (act == ActDetach) })
	case ActPromote, ActFound:
		return r.Primary == candidate
	}
	return slices.Contains(r.Flags, flag) == (act == ActRaise)
}

// stale reports that a backend was decided upon since.
func stale(r *Register, nodes []int, basis uint64) bool {
	return slices.ContainsFunc(nodes, func(id int) bool { return r.Backend(id).Decided > basis })
}

// decide takes what the leader's side wants written.
func (t *step) decide(d Decide) {
	if !t.decisive() {
		t.do(Refused{d.Ticket, "this node does not lead"})
		return
	}
	t.queue = append(t.queue, d)
}

func (t *step) finished(f Finish) {
	if t.role == Leader { // another leader will order it again, and be told again
		t.finish = &f
	}
}

// administer makes the next write, if one is due: the end of a decision, the
// next one, or a change of voters. The register is committed and settled.
func (t *step) administer() {
	before := t.register
	t.closeDecision()
	for t.register == before && t.nextDecision() {
	}
	if t.register == before {
		t.changeVoters()
	}
}

func (t *step) closeDecision() {
	f := t.finish
	t.finish = nil
	if f == nil {
		return
	}
	r := t.register.clone()
	open := r.Open()
	if open == nil || open.Number != f.Number {
		return
	}
	open.Closed, open.OK, open.Primary = true, f.OK, f.Primary
	r.Primary = f.Primary
	t.write(r)
}

// nextDecision takes the first that may be written now off the queue, and
// reports whether there was one.
func (t *step) nextDecision() bool {
	busy := t.register.Open() != nil
	i := slices.IndexFunc(t.queue, func(d Decide) bool { return !busy || !d.Act.runs() })
	if i < 0 {
		return false
	}
	d := t.queue[i]
	t.queue = slices.Delete(t.queue, i, i+1)
	d.Nodes = slices.Sorted(slices.Values(d.Nodes))
	if d.Act.runs() { // whatever becomes of it, votes about these nodes are used up
		t.boxes = slices.DeleteFunc(t.boxes, func(b box) bool {
			return slices.ContainsFunc(b.nodes, func(id int) bool { return slices.Contains(d.Nodes, id) })
		})
	}
	switch {
	case needless(t.register, d.Act, d.Nodes, d.Candidate, d.Flag):
		t.do(Refused{d.Ticket, "it is so already"})
	case stale(t.register, d.Nodes, d.Basis):
		t.do(Refused{d.Ticket, "made before the last decision about these nodes"})
	case d.Candidate >= 0 && t.register.Backend(d.Candidate).Down:
		t.do(Refused{d.Ticket, fmt.Sprintf("node %d is down", d.Candidate)})
	default:
		t.record(d)
	}
	return true
}

// record writes a decision and what it changes.
func (t *step) record(d Decide) {
	r := t.register.clone()
	r.Decided++
	done := Decision{Number: r.Decided, Made: Version{t.term, t.register.Version.Index + 1},
		Act: d.Act, Nodes: d.Nodes, Candidate: d.Candidate}
	switch d.Act {
	case ActDetach, ActAttach:
		for _, id := range d.Nodes {
			r.set(Backend{ID: id, Down: d.Act == ActDetach, Decided: r.Decided})
		}
		if d.Act == ActDetach && slices.Contains(d.Nodes, r.Primary) {
			r.Primary = -1
		}
	case ActPromote:
		r.set(Backend{ID: d.Candidate, Decided: r.Decided})
	case ActFound:
		r.Primary = d.Candidate
	case ActRaise:
		r.Flags = append(r.Flags, d.Flag)
	case ActLower:
		r.Flags = slices.DeleteFunc(r.Flags, func(f string) bool { return f == d.Flag })
	}
	if !d.Act.runs() {
		done.Closed, done.OK, done.Primary = true, true, r.Primary
	}
	if len(r.Log) >= logged {
		i := slices.IndexFunc(r.Log, func(l Decision) bool { return l.Closed })
		r.Log = slices.Delete(r.Log, i, i+1)
	}
	r.Log = append(r.Log, done)
	t.write(r)
}

// carryOut orders the command of the open decision, once in a term, when it is
// committed and enough of the lease is left.
func (t *step) carryOut() {
	open := t.committed.Open()
	if open == nil || open.Number <= t.ran || t.lease-t.now <= t.opts.Times.Margin {
		return
	}
	t.ran = open.Number
	t.do(Run{Decision: *open, Again: open.Made.Term != t.term})
}
