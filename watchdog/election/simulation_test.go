package election

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds   = flag.Int("seeds", 0, "seeds of each simulation; 0: as many as take a few seconds")
	oneSeed = flag.Uint64("seed", 0, "only this seed, with a trace")
	trouble = flag.Duration("trouble", 40*time.Second, "simulated time of faults in a run")
)

// peace is within what time after the last fault there must be a leader whom
// all follow, in promises: one that the last promise and the silence of who was
// just started are over, one that a lease of the old leader in a smaller set
// runs out, and candidacies.
const peace = 4

// outcome of one run.
type outcome struct {
	broken                                  string
	healed                                  time.Duration // from the end of faults to a leader whom all follow; 0: not asked
	elections, decisions, removals, returns int
	stuck                                   bool
}

func (s scenario) run(seed uint64, trace func(string, ...any)) outcome {
	r := s.rules
	n := s.nodes[int(seed)%len(s.nodes)]
	r.opts.Times = TimesFor(s.promise)
	r.opts.NeedQuorum, r.opts.NeedConsensus = true, true
	r.opts.VoteLife = 4 * s.promise
	r.opts.Primary = 0
	if r.realDrift == 0 {
		r.realDrift = drift
	}
	priorities := make([]int, n)
	w := newWorld(seed, n, priorities, r)
	for _, h := range w.hosts {
		h.opts.Priority = w.rand.IntN(3)
		if r.mixed && h.id%2 == 1 {
			h.opts.Times = TimesFor(2 * s.promise)
		}
		if w.rand.IntN(2) == 0 {
			h.opts.RemoveLost = 2 * s.promise
			h.opts.RemoveNoShow = 5 * s.promise
			h.opts.RemoveShutdown = true
		}
		if r.shrink {
			h.opts.RemoveLost = s.promise / 2
		}
	}
	if trace != nil {
		w.trace = func(f string, a ...any) { trace("%8.3f "+f, append([]any{w.now.Seconds()}, a...)...) }
	}
	w.ease = s.promise / 2 << w.rand.IntN(3)
	for _, h := range w.hosts {
		w.after(w.chance(s.promise), func() { w.start(h) })
	}
	w.after(w.chance(s.promise), w.work)
	if s.still {
		w.ease = 0
	} else if s.quiet {
		w.after(3*s.promise, w.crashLeaders)
	} else {
		w.after(w.chance(2*s.promise), w.misfortune)
	}
	w.run(*trouble)
	healAt := w.now
	w.end()
	out := outcome{}
	for w.judge.broken == "" && w.now < healAt+12*s.longest() {
		w.run(w.now + s.promise/16)
		if out.healed == 0 && w.leader() >= 0 {
			out.healed = w.now - healAt
		}
	}
	out.broken = w.judge.broken
	c := w.judge.count
	out.elections, out.decisions, out.removals, out.returns = c.elections, c.decisions, c.removals, c.returns
	switch {
	case out.broken != "":
	case !w.electable():
		out.stuck = true // needs the operator, who has Force
		if !w.wipes {
			out.broken = "I8 the voters that count are gone"
		}
	case out.healed == 0:
		out.broken = "I8 no leader whom all follow after the faults have ended"
	case out.healed > peace*s.longest():
		out.broken = fmt.Sprintf("I8 a leader only %v after the faults have ended", out.healed)
	case s.still && w.judge.elected > 8*s.promise:
		out.broken = "I9 an election, and nothing had happened"
	case w.leader() < 0:
		out.broken = "I8 the leader was lost again"
	}
	return out
}

func (s scenario) longest() time.Duration {
	if s.rules.mixed {
		return 2 * s.promise
	}
	return s.promise
}

// electable reports that the newest register has a quorum of the disks it is bound to.
func (w *world) electable() bool {
	var newest *Register
	for _, h := range w.hosts {
		if r := h.disk.Register; r != nil && (newest == nil || newest.Version.Less(r.Version)) {
			newest = r
		}
	}
	if newest == nil {
		return true
	}
	s := w.hosts[0].st
	s.peers = nil
	for _, h := range w.hosts {
		s.peers = append(s.peers, peer{id: h.id, incarnation: h.disk.Incarnation})
	}
	return s.suffices(s.weigh(newest, func(*peer) bool { return true }), 0)
}

// end of all faults.
func (w *world) end() {
	w.trace("PEACE")
	w.heal()
	w.slow, w.loss, w.twice = 0, 0, 0
	w.calm = true
	for _, h := range w.hosts {
		h.paused = min(h.paused, w.now)
		h.inbox = slices.DeleteFunc(h.inbox, func(in Input) bool { _, leave := in.(Leave); return leave })
		if h.st.leaving {
			w.power(h)
		}
		if !h.up {
			w.start(h)
		}
	}
}

// work: nodes ask for decisions about three backends.
func (w *world) work() {
	h := w.hosts[w.rand.IntN(len(w.hosts))]
	act, backend := Act(w.rand.IntN(3)), w.rand.IntN(3)
	if act == ActAttach && w.rand.IntN(2) == 0 {
		act = ActDetach
	}
	confirmed := w.rand.IntN(6) == 0
	for _, o := range w.hosts {
		if o == h || !confirmed && w.rand.IntN(3) > 0 {
			w.after(w.chance(w.opts.Times.Promise/2), func() { w.ask(o, act, backend, confirmed) })
		}
	}
	if w.rand.IntN(10) == 0 {
		for _, o := range w.hosts {
			if o.st.role == Leader && o.st.committed != nil {
				w.input(o, Decide{Act: ActFound, Candidate: backend, Basis: o.st.committed.Decided})
				w.input(o, Decide{Act: ActRaise + Act(w.rand.IntN(2)), Flag: "follow-primary", Candidate: -1, Basis: o.st.committed.Decided})
			}
		}
	}
	w.after(w.chance(w.opts.Times.Promise), w.work)
}

func (w *world) ask(h *host, act Act, backend int, confirmed bool) {
	if !h.up || h.paused > w.now {
		return
	}
	h.asked++
	w.judge.called(h.id, act, backend)
	w.trace("n%d asks %v %d", h.id, act, backend)
	w.input(h, Ask{Request{ID: h.asked, Act: act, Nodes: []int{backend}, Confirmed: confirmed}})
}

// misfortune strikes, and again.
func (w *world) misfortune() {
	if w.calm {
		return
	}
	d := w.opts.Times.Promise
	defer func() { w.after(time.Millisecond+w.chance(w.ease), w.misfortune) }()
	n := len(w.hosts)
	h, k := w.hosts[w.rand.IntN(n)], w.rand.IntN(n)
	again := func(in time.Duration) { w.after(in, func() { w.start(h) }) }
	switch w.rand.IntN(20) {
	case 0, 1:
		side := w.rand.IntN(1 << n)
		for i := range w.link {
			for j := range w.link {
				w.link[i][j] = side>>i&1 == side>>j&1
			}
		}
		w.trace("PARTITION %b", side)
	case 2:
		w.link[h.id][k] = h.id == k
		w.trace("ONE WAY cut n%d to n%d", h.id, k)
	case 3:
		w.link[h.id][k], w.link[k][h.id] = h.id == k, h.id == k
		w.trace("CUT n%d and n%d", h.id, k)
	case 4:
		for j := range w.link {
			w.link[h.id][j] = false
		}
		w.trace("MUTE n%d", h.id)
	case 5:
		for j := range w.link {
			w.link[j][h.id] = false
		}
		w.trace("DEAF n%d", h.id)
	case 6, 7, 8:
		w.heal()
		w.trace("HEAL")
	case 9, 10:
		if w.rand.IntN(2) == 0 {
			w.kill(h)
		} else {
			w.power(h)
		}
		if w.wipes && w.mayWipe(h) && w.rand.IntN(2) == 0 {
			w.wipe(h)
		}
		again(w.pick(w.chance(2*d), w.chance(d/8)))
	case 11, 12:
		if h.up {
			h.paused = w.now + w.chance(2*d)
			w.trace("PAUSE n%d", h.id)
		}
	case 13:
		w.slow = w.pick(0, w.pick(d/2, 3*d))
		w.loss = []float64{0, 0, 0.1, 0.3}[w.rand.IntN(4)]
		w.twice = []float64{0, 0.2}[w.rand.IntN(2)]
		w.trace("NET slow=%v loss=%v twice=%v", w.slow, w.loss, w.twice)
	case 14, 15:
		rate := 1 + w.realDrift*(2*w.rand.Float64()-1)
		if w.rand.IntN(2) == 0 {
			rate = 1 + w.realDrift*float64(2*w.rand.IntN(2)-1)
		}
		h.setRate(w.now, rate)
		if h.up {
			w.schedule(h)
		}
	case 16:
		for _, l := range w.hosts {
			if l.up && l.st.role == Leader && l.paused <= w.now {
				w.trace("n%d resigns", l.id)
				w.input(l, Resign{Why: "asked to", Humble: w.rand.IntN(2) == 0})
			}
		}
	case 17: // a voter starts anew at once, and cannot hear its leader
		for _, l := range w.hosts {
			if l.up && l.st.role == Leader && l != h {
				w.link[l.id][h.id], w.link[h.id][l.id] = false, false
				w.trace("BOUNCE n%d", h.id)
				w.power(h)
				again(w.chance(d/8) + 1)
				return
			}
		}
	case 18:
		w.trace("n%d is to stop", h.id)
		w.input(h, Leave{})
		again(7*time.Second + w.chance(d))
	case 19:
		w.input(h, Lifecheck{ID: k, Alive: w.rand.IntN(3) > 0})
	}
}

func (w *world) pick(a, b time.Duration) time.Duration {
	if w.rand.IntN(2) == 0 {
		return a
	}
	return b
}

// mayWipe: a majority must keep a memory, or nothing can be known. Where it is
// kinder, those that count as voters must be able to elect as well.
func (w *world) mayWipe(h *host) bool {
	if w.kind && !h.up {
		disk := h.disk
		h.disk = Saved{Incarnation: 1 << 60}
		can := w.electable()
		h.disk = disk
		if !can {
			return false
		}
	}
	without := 1
	for _, o := range w.hosts {
		if o != h && o.disk.Register == nil {
			without++
		}
	}
	return !h.up && h.disk.Register != nil && without*2 < len(w.hosts) && without <= 1
}

// crashLeaders in a world that is quiet otherwise.
func (w *world) crashLeaders() {
	if w.calm {
		return
	}
	if l := w.leader(); l >= 0 {
		h := w.hosts[l]
		w.power(h)
		w.after(4*w.opts.Times.Promise, func() { w.start(h) })
	}
	w.after(8*w.opts.Times.Promise, w.crashLeaders)
}

type scenario struct {
	name    string
	nodes   []int
	promise time.Duration
	rules   rules
	quiet   bool // leaders crash, nothing else happens
	still   bool // nothing happens at all
	share   int  // of the seeds, in percent
	want    string
}

var scenarios = []scenario{
	{name: "majority", nodes: []int{3, 5, 2, 4, 3, 7, 6}, promise: 4 * time.Second, share: 55},
	{name: "disks lost", nodes: []int{3, 5, 4, 3}, promise: 4 * time.Second, rules: rules{wipes: true}, share: 15},
	{name: "disks lost one by one", nodes: []int{3, 5, 4, 3}, promise: 4 * time.Second, rules: rules{wipes: true, kind: true}, share: 10},
	{name: "shrinking", nodes: []int{3, 4, 5}, promise: 600 * time.Millisecond, rules: rules{shrink: true}, share: 5},
	{name: "fast", nodes: []int{3, 5}, promise: 600 * time.Millisecond, share: 5},
	{name: "half with a witness", nodes: []int{2, 4}, promise: 4 * time.Second, rules: rules{opts: Options{HalfVotes: HalfWithWitness}}, share: 5},
	{name: "different promises", nodes: []int{3, 5}, promise: 2 * time.Second, rules: rules{mixed: true}, share: 5},
	{name: "nothing happens", nodes: []int{2, 3, 5, 7}, promise: 2 * time.Second, still: true, share: 2},
	{name: "crashes of leaders alone", nodes: []int{3, 5}, promise: 2 * time.Second, quiet: true, share: 3},
}

// mutants break one assumption or one rule; the simulation must notice.
var mutants = []scenario{
	{name: "lease too long", want: "I", nodes: []int{3}, promise: 4 * time.Second, rules: rules{longLease: true}},
	{name: "no silence after a start", want: "I", nodes: []int{3}, promise: 4 * time.Second, rules: rules{noSilence: true}},
	{name: "no guardian", want: "I2", nodes: []int{3}, promise: 4 * time.Second, rules: rules{noGuardian: true}},
	{name: "clocks beyond what is allowed for", want: "I", nodes: []int{3}, promise: 4 * time.Second, rules: rules{realDrift: 0.15}},
	{name: "disk forgets unnoticed", want: "I", nodes: []int{3}, promise: 4 * time.Second, rules: rules{forgetful: true}},
	{name: "lost disk keeps its incarnation", want: "I", nodes: []int{3}, promise: 4 * time.Second, rules: rules{wipes: true, sameDisk: true}},
	{name: "address removed too slowly", want: "I2", nodes: []int{3}, promise: 4 * time.Second, rules: rules{slowRemoval: true}},
	{name: "different promises, and nobody minds", want: "I", nodes: []int{3}, promise: 4 * time.Second, rules: rules{mixed: true, deafToIt: true}},
	{name: "half votes", want: "I", nodes: []int{2, 4}, promise: 4 * time.Second, rules: rules{opts: Options{HalfVotes: HalfIsQuorum}}},
}

func TestSimulation(t *testing.T) {
	total := *seeds
	if total == 0 {
		total = defaultSeeds
	}
	if testing.Short() {
		total /= 10
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			if *oneSeed != 0 {
				if o := s.run(*oneSeed, t.Logf); o.broken != "" {
					t.Errorf("seed %d: %s", *oneSeed, o.broken)
				}
				return
			}
			n := max(1, total*s.share/100)
			seed, sum, longest, stuck, broken := s.sweep(n, 5)
			for i, b := range broken {
				t.Errorf("seed %d: %s\nsee it with: go test ./watchdog/election -run '%s' -seed %d -v", seed[i], b, t.Name(), seed[i])
			}
			t.Logf("%d runs, %d elections, %d decisions, %d removals, %d returns; a leader whom all follow at most %.1f promises after the last fault; %d stuck",
				n, sum.elections, sum.decisions, sum.removals, sum.returns, float64(longest)/float64(s.promise), stuck)
		})
	}
}

// sweep runs the seeds 1 to n and returns up to limit broken ones.
func (s scenario) sweep(n, limit int) (seed []uint64, sum outcome, longest time.Duration, stuck int, broken []string) {
	var (
		next atomic.Uint64
		mu   sync.Mutex
		wg   sync.WaitGroup
	)
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := next.Add(1)
				mu.Lock()
				done := i > uint64(n) || len(broken) >= limit
				mu.Unlock()
				if done {
					return
				}
				o := s.run(i, nil)
				mu.Lock()
				if o.broken != "" {
					seed, broken = append(seed, i), append(broken, o.broken)
				}
				sum.elections += o.elections
				sum.decisions += o.decisions
				sum.removals += o.removals
				sum.returns += o.returns
				longest = max(longest, o.healed)
				if o.stuck {
					stuck++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return
}

func TestMutantsAreCaught(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			const n = 2000
			seed, _, _, _, broken := m.sweep(n, 1)
			if len(broken) == 0 {
				t.Fatalf("nothing noticed in %d runs", n)
			}
			_, what, _ := strings.Cut(broken[0], "s ")
			if !strings.HasPrefix(what, m.want) {
				t.Errorf("noticed otherwise than expected: seed %d: %s", seed[0], broken[0])
			}
			t.Logf("seed %d: %s", seed[0], broken[0])
		})
	}
}
