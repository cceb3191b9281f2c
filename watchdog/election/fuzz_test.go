package election

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Whatever a node is told, it does not fall over, does not go back on a promise
// and does not take what it accepted for older.
func FuzzStep(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, uint8(2+i%4))
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		r := rand.New(rand.NewPCG(seed, 2))
		nodes := []int{}
		for i := range int(n%7) + 1 {
			nodes = append(nodes, i)
		}
		o := Options{ID: 0, Nodes: nodes, Times: TimesFor(time.Second), NeedQuorum: r.IntN(2) == 0, NeedConsensus: r.IntN(2) == 0,
			HalfVotes: HalfVotes(r.IntN(3)), RemoveShutdown: r.IntN(2) == 0, VoteLife: time.Second, Primary: -1}
		s, _ := New(o, Saved{Incarnation: 1}, 1, seed, 0)
		now := time.Duration(0)
		id := func() int { return r.IntN(len(nodes)+2) - 1 }
		term := func() Term {
			return Term{Round: r.Uint64N(6), Node: id(), Incarnation: uint64(r.IntN(3))}
		}
		version := func() Version { return Version{term(), r.Uint64N(4)} }
		request := func() Request {
			q := Request{ID: r.Uint64N(9), Act: Act(r.IntN(8) - 1), Confirmed: r.IntN(2) == 0, Basis: r.Uint64N(9)}
			for range r.IntN(3) {
				q.Nodes = append(q.Nodes, id())
			}
			return q
		}
		for range 400 {
			now += time.Duration(r.Int64N(int64(200*time.Millisecond))) - 20*time.Millisecond
			var in Input = Tick{}
			switch r.IntN(16) {
			case 0:
				in = AddressDown{Serial: s.address.Serial}
			case 1:
				in = Gossip{ID: id(), Alive: r.IntN(2) == 0}
			case 2:
				in = Ask{request()}
			case 3:
				q := request()
				in = Decide{Act: q.Act, Nodes: q.Nodes, Candidate: id(), Basis: q.Basis, Flag: "f"}
			case 4:
				in = Finish{Number: r.Uint64N(5), Primary: id()}
			case 5:
				in = Force{Gone: []int{id(), id()}}
			case 6:
				in = Witness{Until: now + time.Second}
			case 7:
				in = Lifecheck{ID: id(), Alive: r.IntN(2) == 0}
			case 8:
				in = Resign{Humble: true}
			default:
				m := Message{Kind: Kind(r.IntN(13) - 1), From: id(), Incarnation: uint64(r.IntN(3)), Started: int64(r.IntN(3)),
					Version: version(), Term: term(), Seq: r.Uint64N(9), Yes: r.IntN(2) == 0, Promised: term(), Committed: version(),
					Quorum: Quorum(r.IntN(5) - 2), Request: request(), Verdict: Verdict(r.IntN(9) - 1)}
				if r.IntN(2) == 0 {
					m.Term.Node = m.From
				}
				if s.role != Follower && r.IntN(2) == 0 {
					m.Term, m.Incarnation = s.term, 1
				}
				if r.IntN(3) == 0 {
					reg := firstRegister(nodes)
					reg.Version = version()
					reg.Old = reg.Old.without(id())
					m.Register = reg
				}
				in = m
			}
			before := s
			s, _ = Step(s, in, now)
			if s.promised.Less(before.promised) {
				t.Fatalf("%T: promised %v, then %v", in, before.promised, s.promised)
			}
			if s.register.Version.Less(before.register.Version) {
				t.Fatalf("%T: had %v, then %v", in, before.register.Version, s.register.Version)
			}
			if s.role == Leader && s.lease <= now && !s.stopped {
				t.Fatalf("%T: leads without a lease", in)
			}
			s.View(now)
			s.Wake()
			s.WantsWitness(now)
		}
	})
}
