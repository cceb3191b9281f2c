package watchdog

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"pgpool-go/watchdog/election"
)

// input queues something that has happened. Where the queue is full it is lost,
// as a message would be.
func (w *Watchdog) input(in election.Input) {
	select {
	case w.inputs <- in:
		return
	default:
	}
	if _, ok := in.(election.Message); ok {
		return
	}
	select {
	case w.inputs <- in:
	case <-w.stopping:
	}
}

// receive takes a letter from the network.
func (w *Watchdog) receive(l letter) {
	switch {
	case l.Election != nil:
		if w.nodes[l.Election.From] == nil {
			w.strangers.note(fmt.Sprintf("a message of node %d, which is not configured here", l.Election.From))
			return
		}
		w.input(*l.Election)
	case l.Order != nil:
		w.ordered(*l.Order)
	case l.Done != nil:
		w.orders.answered(*l.Done)
	case l.Settings != nil:
		w.heardSettings(*l.Settings)
	}
}

// leading is the leader's work in one term.
type leading struct {
	ctx context.Context
	end context.CancelFunc
}

// run is the only one that steps: it takes what happens in turn, and carries out
// what follows before it takes the next.
func (w *Watchdog) run(saved election.Saved) {
	opts := w.options(w.config.Load())
	opts.Backends, opts.Primary = w.host.Backends()
	s, out := election.New(opts, saved, w.started, random(), now())
	w.state.Store(&s)
	w.carryOut(out)
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer w.endTerm()
	for {
		timer.Reset(max(time.Until(time.Now().Add(w.state.Load().Wake()-now())), time.Millisecond))
		var in election.Input = election.Tick{}
		select {
		case in = <-w.inputs:
		case <-timer.C:
		case <-w.stopping:
			return
		}
		w.step(in)
	}
}

// step takes one input. One that the election cannot stand is dropped.
func (w *Watchdog) step(in election.Input) {
	w.later = append(w.later, in)
	for len(w.later) > 0 {
		in, w.later = w.later[0], w.later[1:]
		next, out, ok := w.try(in)
		if !ok {
			continue
		}
		w.state.Store(&next)
		w.carryOut(out)
		w.narrate(next.View(now()))
	}
}

func (w *Watchdog) try(in election.Input) (next election.State, out []election.Output, ok bool) {
	defer func() {
		if r := recover(); r != nil {
			w.log.Error("watchdog: an input is dropped", "detail", fmt.Sprintf("%T: %v\n%s", in, r, debug.Stack()))
		}
	}()
	next, out = election.Step(*w.state.Load(), in, now())
	return next, out, true
}

// carryOut does what follows from a step, in that order.
func (w *Watchdog) carryOut(out []election.Output) {
	for _, o := range out {
		switch o := o.(type) {
		case election.Persist:
			w.persist(o.Saved)
		case election.Send:
			w.send(w.nodes[o.To], letter{Election: &o.Message}, o.Message.Reliable())
		case election.Lease:
			w.escalation.extend(o)
		case election.Address:
			w.escalation.order(o)
		case election.Changed:
			w.changed(o)
		case election.Apply:
			w.host.Apply(o.Register) // whoever sees the register sees what it did
			close(w.register.Swap(&agreed{o.Register, make(chan struct{})}).over)
		case election.Carried:
			w.carried(o)
		case election.Run:
			w.begin(o)
		case election.Refused:
			if c, ok := w.removals.Load(o.Ticket); ok {
				c.(chan string) <- o.Why
				continue
			}
			w.log.Log(context.Background(), levelLog, "watchdog: a decision was not made", "detail", o.Why)
		case election.Answer:
			w.answer(o)
		case election.Left:
			close(w.left)
		}
	}
}

// persist does not return before it is on disk: what follows would bind this node
// to what it could forget. Meanwhile it is as silent as if it were frozen, and the
// guardian drops the address when the lease is over.
func (w *Watchdog) persist(s election.Saved) {
	for tries := 0; ; tries++ {
		err := save(w.path, s)
		if err == nil {
			if tries > 0 {
				w.log.Log(context.Background(), levelLog, "watchdog: the state file can be written again")
			}
			break
		}
		if tries == 0 {
			w.log.Error("watchdog: could not write the state file: this node says nothing until it can", "detail", w.path, "err", err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-w.stopping:
			return
		}
	}
	if s.Register != nil && !w.self.about.Load().Initialised {
		a := *w.self.about.Load()
		a.Initialised = true
		w.self.about.Store(&a)
		w.announce()
	}
}

func (w *Watchdog) changed(c election.Changed) {
	w.endTerm()
	if c.Role == election.Leader {
		w.term.ctx, w.term.end = context.WithCancel(context.Background())
	}
}

func (w *Watchdog) endTerm() {
	if w.term.end != nil {
		w.term.end()
		w.term.ctx, w.term.end = nil, nil
	}
}

// carried makes the decision that the nodes have voted for.
func (w *Watchdog) carried(c election.Carried) {
	d := election.Decide{Ticket: c.Request.ID, Act: c.Request.Act, Nodes: c.Request.Nodes, Candidate: w.host.Candidate(c.Request)}
	if r := w.register.Load().Register; r != nil {
		d.Basis = r.Decided
	}
	w.log.Log(context.Background(), levelLog, "we have got the consensus to perform the failover",
		"detail", fmt.Sprintf("%v of backend nodes %v, requested by pgpool nodes %v", c.Request.Act, c.Request.Nodes, c.Voters))
	w.later = append(w.later, d) // when the rest of this answer is done
}

// begin has a committed decision carried out, unless the lease has run out while
// the order waited.
func (w *Watchdog) begin(r election.Run) {
	ctx := w.term.ctx
	if ctx == nil || !w.state.Load().View(now()).Decisive {
		return // whoever leads next orders it again
	}
	w.work.Go(func() {
		primary, err := w.host.CarryOut(ctx, r.Decision, r.Again)
		if err != nil {
			w.log.Error("watchdog: a decision could not be carried out", "detail", fmt.Sprintf("%v of backend nodes %v", r.Decision.Act, r.Decision.Nodes), "err", err)
		}
		if ctx.Err() == nil {
			w.input(election.Finish{Number: r.Decision.Number, Primary: primary, OK: err == nil})
		}
	})
}

func (w *Watchdog) answer(a election.Answer) {
	w.mu.Lock()
	waiting := w.asks[a.ID]
	delete(w.asks, a.ID)
	w.mu.Unlock()
	if waiting != nil {
		waiting <- a.Verdict
	}
}
