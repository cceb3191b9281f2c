package election

import (
	"testing"
	"time"
)

// A node taken out of the configuration ceases to count, one put in begins to.
func TestVotersFollowTheConfiguration(t *testing.T) {
	o := Options{Times: TimesFor(time.Second), Primary: -1}
	w := newWorld(1, 4, []int{1, 1, 1, 1}, rules{opts: o, exact: true})
	for _, h := range w.hosts {
		h.opts.Nodes = []int{0, 1, 2}
	}
	for _, h := range w.hosts[:3] {
		w.start(h)
	}
	w.run(4 * time.Second)
	for _, h := range w.hosts {
		w.power(h)
		h.opts.Nodes = []int{0, 1, 3}
	}
	for _, i := range []int{0, 1, 3} {
		w.start(w.hosts[i])
	}
	w.run(w.now + 8*time.Second)
	if w.judge.broken != "" {
		t.Fatal(w.judge.broken)
	}
	r := w.hosts[0].st.committed
	if r == nil || r.joint() || len(r.New.Members) != 3 || r.has(2) || !r.has(3) || r.New.Distinguished != -1 {
		t.Errorf("voters are %+v", r)
	}
}

// Who makes a quorum.
func TestWeighing(t *testing.T) {
	s := State{opts: Options{ID: 0, Times: TimesFor(4 * time.Second)}}
	bound := func(ids ...int) (v Voters) {
		v.Distinguished = -1
		for _, id := range ids {
			v = v.with(id, uint64(id+1))
		}
		return v
	}
	for i := range 4 {
		s.peers = append(s.peers, peer{id: i, incarnation: uint64(i + 1), acked: never})
	}
	settled := func(v Voters) *Register { return &Register{Version: Version{Term{1, 0, 1}, 1}, Old: v, New: v} }
	tie := bound(0, 1)
	tie.Distinguished = 1
	tieMoves := settled(tie)
	tieMoves.New.Distinguished = 0
	joint := settled(bound(0, 1, 2))
	joint.New = bound(0, 1, 2, 3)
	rebound := settled(bound(0, 1))
	rebound.Old = rebound.Old.with(1, 77)
	rebound.New = rebound.Old
	unbound := settled(bound(0, 1).with(2, 0))
	for _, c := range []struct {
		name string
		r    *Register
		yes  []int
		want weight
	}{
		{"two of three", settled(bound(0, 1, 2)), []int{0, 2}, most},
		{"one of three", settled(bound(0, 1, 2)), []int{0}, tooFew},
		{"two of four", settled(bound(0, 1, 2, 3)), []int{0, 2}, halfOf},
		{"who is no voter", settled(bound(0, 1, 2)), []int{0, 3}, tooFew},
		{"half with the distinguished", settled(tie), []int{1}, most},
		{"half without it", settled(tie), []int{0}, halfOf},
		{"distinguished of one set only", tieMoves, []int{1}, halfOf},
		{"quorum of the old set only", joint, []int{0, 1}, halfOf},
		{"quorum of both", joint, []int{0, 1, 3}, most},
		{"another disk", rebound, []int{0, 1}, halfOf},
		{"never bound", unbound, []int{0, 2}, tooFew},
		{"before the first register", firstRegister([]int{0, 1, 2}), []int{0, 2}, most},
		{"nobody", settled(bound(0, 1)), nil, tooFew},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.weigh(c.r, func(p *peer) bool {
				for _, id := range c.yes {
					if id == p.id {
						return true
					}
				}
				return false
			})
			if got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
