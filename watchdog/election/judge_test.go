package election

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// judge holds the invariants.
type judge struct {
	w       *world
	broken  string
	leaders map[Term]int
	wrote   map[Version]*Register
	history []Decision // by number, as first committed
	last    []Version  // version of the register that first had it committed
	commits []*Register
	calls   map[string]map[int]time.Duration // when who asked for it since the last decision about it
	count   struct{ elections, decisions, removals, returns int }
	states  []map[int]bool // which backends are down after so many decisions
	split   bool           // half votes: decisions may be lost
	elected time.Duration  // when the last was
	two     bool           // and two may lead
}

func newJudge(w *world) *judge {
	return &judge{w: w, leaders: map[Term]int{}, wrote: map[Version]*Register{}, calls: map[string]map[int]time.Duration{},
		states: []map[int]bool{{}}, split: w.opts.HalfVotes != HalfIsNone}
}

func (j *judge) fail(format string, args ...any) {
	if j.broken == "" {
		j.broken = fmt.Sprintf("%.3fs ", j.w.now.Seconds()) + fmt.Sprintf(format, args...)
		j.w.trace("BROKEN %s", j.broken)
	}
}

// look: never two leases, never two addresses.
func (j *judge) look() {
	if j.two {
		return
	}
	var leases, addresses []int
	for _, h := range j.w.hosts {
		if h.up && h.st.lease > h.clock(j.w.now) {
			leases = append(leases, h.id)
		}
		if h.address {
			addresses = append(addresses, h.id)
		}
	}
	if len(addresses) > 1 {
		j.fail("I2 the address is held by nodes %v", addresses)
	}
	if len(leases) > 1 {
		j.fail("I3 leases of nodes %v", leases)
	}
}

func (j *judge) stepped(h *host, was *State) {
	if h.st.promised.Less(was.promised) {
		j.fail("I7 n%d promised %v, then %v", h.id, was.promised, h.st.promised)
	}
	if h.st.role != Leader || was.role == Leader && was.term == h.st.term {
		return
	}
	j.count.elections++
	j.elected = j.w.now
	if o, ok := j.leaders[h.st.term]; ok {
		j.fail("I1 n%d and n%d led term %v", o, h.id, h.st.term)
	}
	j.leaders[h.st.term] = h.id
	if j.split {
		return
	}
	for i := len(j.commits) - 1; i >= 0; i-- { // nothing committed before is missing
		c := j.commits[i]
		if c.Version.Term.Less(h.st.term) && h.st.register.Decided < c.Decided {
			j.fail("I4 n%d leads term %v with %d decisions, %d were committed in %v", h.id, h.st.term, h.st.register.Decided, c.Decided, c.Version)
		}
		if c.Version.Term.Less(h.st.term) {
			break
		}
	}
}

// applied: what is committed is one history, and nobody goes back in it.
func (j *judge) applied(h *host, r *Register) {
	if r.Version.Less(h.applied) {
		j.fail("I7 n%d applied %v after %v", h.id, r.Version, h.applied)
	}
	h.applied = r.Version
	if old, ok := j.wrote[r.Version]; ok {
		if old != r {
			j.fail("I5 two registers %v", r.Version)
		}
		return
	}
	if r.Version.Term.Node != h.id || r.Version.Term.Incarnation != h.disk.Incarnation {
		j.fail("I5 n%d applied %v, which no leader has committed", h.id, r.Version)
	}
	j.wrote[r.Version] = r
	if j.split {
		return
	}
	if n := len(j.commits); n > 0 && (r.Version.Less(j.commits[n-1].Version) && r.Decided < j.commits[n-1].Decided || !r.Version.Less(j.commits[n-1].Version) && r.Decided < j.commits[n-1].Decided) {
		j.fail("I5 committed %v has %d decisions, %v had %d", r.Version, r.Decided, j.commits[n-1].Version, j.commits[n-1].Decided)
	}
	j.commits = append(j.commits, r)
	if n := len(j.commits); n > 1 {
		j.count.removals += max(0, len(j.commits[n-2].New.Members)-len(r.New.Members))
		j.count.returns += max(0, len(r.New.Members)-len(j.commits[n-2].New.Members))
	}
	for _, d := range r.Log {
		switch n := int(d.Number); {
		case n <= len(j.history):
			if old := j.history[n-1]; old.Made != d.Made || old.Act != d.Act || !slices.Equal(old.Nodes, d.Nodes) || old.Candidate != d.Candidate {
				j.fail("I5 decision %d was %v, is %v", n, old, d)
			} else if old.Closed && (!d.Closed || old.Primary != d.Primary) {
				j.fail("I5 decision %d was closed with primary %d, is %v", n, old.Primary, d)
			}
			j.history[n-1] = d
		case n == len(j.history)+1:
			j.decided(d)
		default:
			j.fail("I5 decision %d after %d", n, len(j.history))
		}
	}
	down := j.states[min(int(r.Decided), len(j.states)-1)]
	for id := range 3 {
		if r.Backend(id).Down != down[id] {
			j.fail("I5 %v says backend %d down=%v, its decisions say otherwise", r.Version, id, r.Backend(id).Down)
		}
	}
}

func (j *judge) decided(d Decision) {
	j.count.decisions++
	j.history = append(j.history, d)
	now := map[int]bool{}
	for id, v := range j.states[len(j.states)-1] {
		now[id] = v
	}
	if d.Act == ActDetach || d.Act == ActAttach {
		changes := false
		for _, id := range d.Nodes {
			changes = changes || now[id] != (d.Act == ActDetach)
			now[id] = d.Act == ActDetach
		}
		if !changes {
			j.fail("I5 decision %d made twice: %v", d.Number, d)
		}
	}
	j.states = append(j.states, now)
	for key, calls := range j.calls { // a vote from before does not count any more
		for _, id := range d.Nodes {
			if key[len(key)-1] == byte('0'+id) {
				maps.DeleteFunc(calls, func(_ int, at time.Duration) bool { return at < j.w.now })
			}
		}
	}
}

func callKey(a Act, node int) string { return fmt.Sprint(a, node) }

func (j *judge) called(node int, a Act, backend int) {
	key := callKey(a, backend)
	if j.calls[key] == nil {
		j.calls[key] = map[int]time.Duration{}
	}
	j.calls[key][node] = j.w.now
}

// carried: every voter has asked, and there are enough of them.
func (j *judge) carried(h *host, c Carried) {
	if j.split || c.Request.Confirmed || !h.opts.NeedConsensus || !h.opts.NeedQuorum || h.opts.ManyVotes {
		return
	}
	if need := Required(len(h.st.register.New.Members), h.opts.HalfVotes); len(c.Voters) < need {
		j.fail("V %v carried by %v, %d needed", c.Request, c.Voters, need)
	}
	for _, v := range c.Voters {
		if _, ok := j.calls[callKey(c.Request.Act, c.Request.Nodes[0])][v]; !ok {
			j.fail("V %v carried by n%d, which has not asked since the last decision", c.Request, v)
		}
	}
}

// ran: only what is committed, and one candidate.
func (j *judge) ran(h *host, r Run) {
	if j.split {
		return
	}
	n := int(r.Decision.Number)
	if n > len(j.history) {
		j.fail("I10 n%d runs decision %d, %d are committed", h.id, n, len(j.history))
		return
	}
	if d := j.history[n-1]; d.Made != r.Decision.Made || d.Candidate != r.Decision.Candidate {
		j.fail("I10 n%d runs %v, committed was %v", h.id, r.Decision, d)
	}
	if left := h.lease - h.clock(j.w.now); left <= h.opts.Times.Margin/2 {
		j.fail("I10 n%d runs decision %d with %v of lease left", h.id, n, left)
	}
}
