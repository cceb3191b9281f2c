package election

import (
	"container/heap"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"
)

// A world is a few hosts, each with a machine, a disk, a clock of its own, a
// guardian and an address, on a network that can do what networks do. Everything
// in it follows from its seed. Times named at or now are real; each host's
// machine sees its own clock.
type world struct {
	rules
	rand  *rand.Rand
	now   time.Duration
	queue queue
	order uint64
	hosts []*host
	link  [][]bool
	slow  time.Duration // longest delay of a slow message; 0: none is slow
	loss  float64
	twice float64
	judge *judge
	trace func(format string, args ...any)
	sent  func(from, to int, m Message)
	steps int
	ease  time.Duration // longest time between two faults
	calm  bool

	witness      int // who holds it, -1 nobody
	witnessUntil time.Duration
}

// rules of a world; the zero value of the spoiled ones is what is right.
type rules struct {
	opts      Options // of every host but ID and Priority
	realDrift float64
	exact     bool // no randomness in delays: for cases

	// What must not be, for the mutants.
	forgetful   bool // a crash loses the disk, and nobody notices
	sameDisk    bool // a wiped disk keeps its incarnation
	noGuardian  bool
	noSilence   bool
	longLease   bool
	slowRemoval bool // the address takes longer to go than allowed for
	wipes       bool // disks are lost, but never of so many that a majority has no memory
	shrink      bool // who is lost is removed soon
	mixed       bool // every other host has a promise of twice the length
	deafToIt    bool // and nobody minds another's
	kind        bool // and only where the others can still elect
}

type host struct {
	id      int
	opts    Options
	up      bool
	boot    int // counts starts: what belongs to an earlier one is void
	st      State
	disk    Saved
	paused  time.Duration
	inbox   []Input
	wake    time.Duration // of the event that is queued; 0 none
	told    map[int]bool  // by gossip
	started int64
	asked   uint64

	// The clock: local = base + rate*(now-since).
	base, since time.Duration
	rate        float64

	// The guardian and what it guards.
	address   bool
	serial    uint64 // of the order that holds
	held      uint64 // counts how often the address came up
	lease     time.Duration
	leaseTerm Term

	applied Version
}

type event struct {
	at    time.Duration
	order uint64
	do    func()
}
type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any     { o := *q; e := o[len(o)-1]; *q = o[:len(o)-1]; return e }

func newWorld(seed uint64, n int, priorities []int, r rules) *world {
	w := &world{rules: r, rand: rand.New(rand.NewPCG(seed, 1)), witness: -1, trace: func(string, ...any) {}, sent: func(int, int, Message) {}}
	w.judge = newJudge(w)
	for i := range n {
		w.opts.Nodes = append(slices.Clip(w.opts.Nodes), i)
		w.link = append(w.link, make([]bool, n))
	}
	w.heal()
	for i := range n {
		h := &host{id: i, opts: w.opts, rate: 1}
		h.opts.ID, h.opts.Priority = i, priorities[i]
		if r.noSilence {
			h.opts.Times.Silence = 0
		}
		if r.longLease {
			h.opts.Times.Lease += h.opts.Times.Promise / 4
		}
		if !w.exact {
			h.base = w.chance(time.Hour)
			h.rate = 1 + r.realDrift*(2*w.rand.Float64()-1)
		}
		h.disk.Incarnation = uint64(i + 1)
		w.hosts = append(w.hosts, h)
	}
	return w
}

func (w *world) chance(d time.Duration) time.Duration { return time.Duration(w.rand.Int64N(int64(d))) }

func (w *world) heal() {
	for i := range w.link {
		for j := range w.link {
			w.link[i][j] = true
		}
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, event{w.now + max(d, 0), w.order, do})
}

// run lets time pass until at, or until an invariant is broken.
func (w *world) run(at time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= at && w.judge.broken == "" {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = at
}

func (h *host) clock(now time.Duration) time.Duration {
	return h.base + time.Duration(h.rate*float64(now-h.since))
}

func (h *host) setRate(now time.Duration, rate float64) {
	h.base, h.since, h.rate = h.clock(now), now, rate
	h.wake = 0
}

// start boots a host's process.
func (w *world) start(h *host) {
	if h.up {
		return
	}
	h.up, h.paused, h.inbox, h.wake, h.told = true, 0, nil, 0, map[int]bool{}
	h.boot++
	h.started = int64(w.now)*1000 + int64(h.boot)
	w.trace("n%d starts", h.id)
	if w.noSilence {
		h.disk.Constancy = 0
	}
	st, out := New(h.opts, h.disk, h.started, w.rand.Uint64(), h.clock(w.now))
	h.st = st
	w.carryOut(h, out)
	w.input(h, Tick{})
	boot := h.boot
	var gossip func()
	gossip = func() {
		if h.boot == boot && h.up {
			w.gossip(h)
			w.after(w.opts.Times.Promise/4+w.chance(w.opts.Times.Promise/8), gossip)
		}
	}
	if w.exact {
		gossip = func() {
			if h.boot == boot && h.up {
				w.gossip(h)
				w.after(w.opts.Times.Promise/8, gossip)
			}
		}
	}
	gossip()
}

// gossip tells a host who seems to be there; now and then it is wrong.
func (w *world) gossip(h *host) {
	for _, o := range w.hosts {
		alive := o.up && o.paused <= w.now && w.link[o.id][h.id]
		if !w.exact && w.rand.IntN(30) == 0 {
			alive = !alive
		}
		if o != h && alive != h.told[o.id] {
			h.told[o.id] = alive
			w.input(h, Gossip{ID: o.id, Alive: alive, Priority: o.st.priority(), Started: o.started, Initialised: o.disk.Register != nil})
		}
	}
	if !w.exact && h.st.WantsWitness(h.clock(w.now)) && w.link[0][h.id] && h.paused <= w.now {
		// The witness stands beside host 0's switch, and by one host at a time.
		if w.witness == h.id || w.witnessUntil <= w.now {
			w.witness, w.witnessUntil = h.id, w.now+w.opts.Times.Promise
			w.input(h, Witness{Until: h.clock(w.now) + w.opts.Times.Promise*96/100})
		}
	}
}

// input gives a host's machine something, as soon as the process runs.
func (w *world) input(h *host, in Input) {
	if !h.up {
		return
	}
	if h.paused > w.now {
		if _, tick := in.(Tick); !tick {
			h.inbox = append(h.inbox, in)
		}
		return
	}
	if len(h.inbox) > 0 {
		waiting := h.inbox
		h.inbox = nil
		boot := h.boot
		for _, in := range waiting {
			if h.boot == boot {
				w.input(h, in)
			}
		}
		if h.boot != boot || !h.up {
			return
		}
	}
	before := h.st
	local := h.clock(w.now)
	st, out := Step(before, in, local)
	if w.steps++; w.steps%257 == 0 { // the same question twice: the same answer
		again, outAgain := Step(before, in, local)
		if !reflect.DeepEqual(st, again) || !reflect.DeepEqual(out, outAgain) {
			w.judge.fail("P step is not a function: %T", in)
		}
	}
	h.st = st
	w.judge.stepped(h, &before)
	w.carryOut(h, out)
	w.judge.look()
	if h.up {
		w.schedule(h)
	}
}

// schedule queues the next tick, unless an earlier one is queued.
func (w *world) schedule(h *host) {
	wake := h.st.Wake()
	if wake == 1<<63-1 {
		return
	}
	at := w.now + time.Duration(float64(wake-h.clock(w.now))/h.rate) + time.Microsecond
	at = max(at, w.now+time.Millisecond)
	if !w.exact {
		at += w.chance(10 * time.Millisecond)
	}
	if h.wake > w.now && h.wake <= at {
		return
	}
	h.wake = at
	boot := h.boot
	w.after(at-w.now, func() {
		if h.boot != boot || !h.up || h.wake != at {
			return
		}
		h.wake = 0
		w.input(h, Tick{})
		if h.paused > w.now {
			h.wake = h.paused + time.Millisecond
			wake := h.wake
			w.after(wake-w.now, func() {
				if h.boot == boot && h.wake == wake {
					h.wake = 0
					w.input(h, Tick{})
				}
			})
		}
	})
}

func (w *world) carryOut(h *host, out []Output) {
	boot := h.boot
	for i, o := range out {
		switch o := o.(type) {
		case Persist:
			if i != 0 {
				w.judge.fail("P something before Persist")
			}
			h.disk = o.Saved
		case Send:
			w.send(h.id, o.To, o.Message)
		case Lease:
			w.guard(h, o)
		case Address:
			w.command(h, o)
		case Changed:
			w.trace("n%d %v leader %d term %v (%s)", h.id, o.Role, o.Leader, o.Term, o.Why)
		case Apply:
			w.judge.applied(h, o.Register)
		case Carried:
			w.judge.carried(h, o)
			w.trace("n%d carried: %v %v by %v", h.id, o.Request.Act, o.Request.Nodes, o.Voters)
			w.after(w.edgeDelay(), func() {
				if h.boot == boot {
					d := Decide{Ticket: o.Request.ID, Act: o.Request.Act, Nodes: o.Request.Nodes, Candidate: -1}
					if c := h.st.committed; c != nil {
						d.Basis = c.Decided
						d.Candidate = w.candidate(c, o.Request)
					}
					w.input(h, d)
				}
			})
		case Run:
			w.judge.ran(h, o)
			w.trace("n%d runs #%d %v %v candidate %d again=%v", h.id, o.Decision.Number, o.Decision.Act, o.Decision.Nodes, o.Decision.Candidate, o.Again)
			primary := o.Decision.Candidate
			if primary < 0 && h.st.committed != nil {
				primary = h.st.committed.Primary
			}
			w.after(w.edgeDelay()*10, func() {
				if h.boot == boot {
					w.input(h, Finish{Number: o.Decision.Number, Primary: primary, OK: true})
				}
			})
		case Refused:
			w.trace("n%d refused: %s", h.id, o.Why)
		case Answer:
			w.trace("n%d answer: %v", h.id, o.Verdict)
		case Left:
			w.trace("n%d has left", h.id)
			h.up = false
			w.drop(h, 0, nil)
		}
	}
}

func (w *world) edgeDelay() time.Duration {
	if w.exact {
		return 10 * time.Millisecond
	}
	return time.Millisecond + w.chance(100*time.Millisecond)
}

// candidate is the lowest backend that is not down.
func (w *world) candidate(r *Register, q Request) int {
	switch {
	case q.Act == ActPromote:
		return q.Nodes[0]
	case q.Act == ActDetach && slices.Contains(q.Nodes, r.Primary):
		for id := range 3 {
			if !r.Backend(id).Down && !slices.Contains(q.Nodes, id) {
				return id
			}
		}
	}
	return -1
}

func (w *world) send(from, to int, m Message) {
	if w.deafToIt {
		m.Constancy = 0
	}
	w.sent(from, to, m)
	if !w.link[from][to] || w.loss > 0 && w.rand.Float64() < w.loss {
		return
	}
	copies := 1
	if w.twice > 0 && w.rand.Float64() < w.twice {
		copies = 2
	}
	for range copies {
		d := 5 * time.Millisecond
		if !w.exact {
			d = 500*time.Microsecond + w.chance(20*time.Millisecond)
		}
		if w.slow > 0 && w.rand.IntN(4) == 0 {
			d += w.chance(w.slow)
		}
		w.after(d, func() { w.input(w.hosts[to], m) })
	}
}

// guard gives the guardian a longer lease; when it is over, the address goes,
// whatever the process does.
func (w *world) guard(h *host, l Lease) {
	h.lease, h.leaseTerm = l.Until, l.Term
}

func (w *world) watch(h *host, serial uint64) {
	boot := h.boot
	var watch func()
	watch = func() {
		if h.boot != boot || h.serial != serial || !h.address || w.noGuardian {
			return
		}
		if left := h.lease - h.clock(w.now); left > 0 {
			w.after(time.Duration(float64(left)/h.rate)+time.Microsecond, watch)
			return
		}
		w.drop(h, w.removal(), func() { w.input(h, AddressDown{Serial: serial}) })
	}
	watch()
}

func (w *world) removal() time.Duration {
	v := w.opts.Times.Removal
	if w.exact {
		return v / 10
	}
	if w.slowRemoval {
		v *= 5
	}
	return 1 + w.chance(v)
}

// command carries out an order about the address; the guardian does it, with the
// lease it knows.
func (w *world) command(h *host, o Address) {
	boot := h.boot
	h.serial = o.Serial
	if !o.Up {
		delay := w.removal()
		if !h.address {
			delay = time.Millisecond
		}
		w.drop(h, delay, func() {
			if h.boot == boot {
				w.input(h, AddressDown{Serial: o.Serial})
			}
		})
		return
	}
	w.after(w.edgeDelay()/10, func() {
		if h.boot != boot || !h.up || h.serial != o.Serial {
			return
		}
		if h.lease <= h.clock(w.now) && !w.noGuardian {
			w.input(h, AddressDown{Serial: o.Serial})
			return
		}
		h.address, h.held = true, h.held+1
		w.trace("n%d address up, lease left %v", h.id, (h.lease - h.clock(w.now)).Round(time.Millisecond))
		w.judge.look()
		w.watch(h, o.Serial)
	})
}

func (w *world) drop(h *host, d time.Duration, then func()) {
	held := h.held
	w.after(d, func() {
		if h.address && h.held == held {
			h.address = false
			w.trace("n%d address down", h.id)
		}
		if then != nil {
			then()
		}
	})
}

// kill ends the process alone; its guardian notices and tells the others.
func (w *world) kill(h *host) {
	if !h.up {
		return
	}
	w.trace("n%d killed", h.id)
	h.up = false
	w.judge.look()
	term := h.leaseTerm
	if w.noGuardian {
		return
	}
	held := h.address
	h.serial = 1 << 62 // nothing that was ordered goes up any more
	inc, started := h.disk.Incarnation, h.started
	w.drop(h, w.removal(), func() {
		if held && (w.exact || w.rand.IntN(2) == 0) {
			for to := range w.hosts {
				if to != h.id {
					w.send(h.id, to, Message{Kind: KindRelease, From: h.id, Incarnation: inc, Started: started, Priority: h.opts.Priority, Term: term, Version: h.st.register.Version})
				}
			}
		}
	})
	w.lose(h)
}

// power ends the host at once.
func (w *world) power(h *host) {
	if !h.up {
		return
	}
	w.trace("n%d without power", h.id)
	h.up, h.address = false, false
	h.serial = 1 << 62
	w.lose(h)
}

func (w *world) lose(h *host) {
	if w.forgetful {
		h.disk = Saved{Incarnation: h.disk.Incarnation}
	}
}

// wipe takes a host's disk away; the next start makes a new incarnation.
func (w *world) wipe(h *host) {
	w.trace("n%d wiped", h.id)
	inc := h.disk.Incarnation + 100
	if w.sameDisk {
		inc = h.disk.Incarnation
	}
	h.disk = Saved{Incarnation: inc}
	h.applied = Version{}
}

// leader is who leads with a lease and is followed by all that run, -1 none.
func (w *world) leader() int {
	leader := -1
	for _, h := range w.hosts {
		if h.up && (&step{State: h.st, now: h.clock(w.now)}).decisive() {
			leader = h.id
		}
	}
	for _, h := range w.hosts {
		if h.up && (leader < 0 || h.st.leader != leader || h.st.promised != w.hosts[leader].st.term) {
			return -1
		}
	}
	return leader
}
