// Package watchdog lets several pgpools speak as one: it keeps the group together,
// has one of them lead it, and tells the leader's decisions to all.
//
// What may be decided, and by whom, is package election's: here are the world's
// clock, disk, network and commands, which turn what happens into its inputs and
// carry out its outputs. memberlist carries the messages and finds members; its
// opinion of who is alive is only a hint. The virtual address is in the hands of a
// guardian, a process of its own, which drops it when the lease is over, whatever
// has become of this one.
//
// It never looks at a backend, a client or a session: what must be done with
// them it asks of its Host.
//
// Where a change goes: what is sent and how, letter.go and gossip.go; what is
// kept, disk.go; the order of things when leading begins and ends, escalate.go
// and guardian.go; who is dead, lifecheck.go and heartbeat.go; what people are
// told, status.go and narrate.go; what is passed on to all members, order.go; what
// is compared when one joins, settings.go; what stands by half of them, witness.go.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"pgpool-go/conf"
	"pgpool-go/watchdog/election"
)

// Host is the pgpool around the watchdog. Apply and Candidate are called by the
// watchdog's own loop and must not block.
type Host interface {
	// Backends is what a first group starts from: the backends' states as this
	// node has them, and the primary, -1 if none is known.
	Backends() ([]election.Backend, int)
	// Apply takes what the group has agreed on. Registers come in order, each with
	// all that the ones before said.
	Apply(*election.Register)
	// Candidate chooses who becomes primary by a request that is carried; -1 nobody.
	Candidate(election.Request) int
	// CarryOut does what the leader has to do for a decision, and gives the primary
	// after it, -1 if none. Again: an earlier leader may have begun. It may take
	// long; when ctx ends, this node no longer leads.
	CarryOut(ctx context.Context, d election.Decision, again bool) (primary int, err error)
	// Ordered does what a member wants all to do.
	Ordered(Order) error
	// Ask tells whether a pgpool serves queries (wd_lifecheck_method query).
	Ask(ctx context.Context, host string, port int) error
	// Witness has the primary hold a lock by that number for this node, as long as it
	// is asked again within keep. Fresh: it has just begun to. Dismiss ends that.
	Witness(ctx context.Context, lock int64, keep time.Duration) (fresh bool, err error)
	Dismiss()
	// Lost: the life check says that this node is cut off. The process should end.
	Lost(why string)
}

// Options of a watchdog.
type Options struct {
	Config   *conf.Config
	Host     Host
	Log      *slog.Logger
	Guardian []string // the program that runs Guard; none: it runs in this process
}

// Watchdog is one node of a group.
type Watchdog struct {
	config atomic.Pointer[conf.Config]
	host   Host
	log    *slog.Logger
	times  election.Times
	nodes  map[int]*node
	self   *node
	path   string // of the state file

	list      *memberlist.Memberlist
	ring      *memberlist.Keyring // nil: not encrypted
	strangers strangers
	sent      atomic.Uint64

	inputs   chan election.Input
	later    []election.Input // of the loop: what an answer has led to
	state    atomic.Pointer[election.State]
	register atomic.Pointer[agreed]
	started  int64
	narrator narrator
	term     leading

	escalation *escalation
	life       *lifecheck
	orders     orders

	mu     sync.Mutex
	asks   map[uint64]chan election.Verdict
	lastID uint64

	stopping chan struct{}
	left     chan struct{} // closed when the group knows that this node stops
	once     sync.Once
	gone     sync.Once // this node was found to be cut off
	work     sync.WaitGroup

	removals  sync.Map // by ticket: where a refusal goes
	inspected sync.Map // by node: the start of it whose settings this leader has seen
}

// agreed is the newest committed register, and a channel that is closed when
// another takes its place.
type agreed struct {
	*election.Register // nil: none is known
	over               chan struct{}
}

// levelLog is LOG, as the log of pgpool counts it.
const levelLog slog.Level = 10

// Start joins the group, or begins one. It does not wait for the others.
func Start(o Options) (*Watchdog, error) {
	c := o.Config
	w := &Watchdog{
		host: o.Host, log: o.Log, nodes: nodesOf(c), path: c.InWorkDir(fmt.Sprintf("watchdog_state.%d", c.NodeID)),
		inputs: make(chan election.Input, 4096), asks: make(map[uint64]chan election.Verdict),
		started: time.Now().UnixNano(), stopping: make(chan struct{}), left: make(chan struct{}),
	}
	w.config.Store(c)
	w.strangers.log = o.Log
	w.register.Store(&agreed{over: make(chan struct{})})
	w.self = w.nodes[c.NodeID]
	if w.self == nil {
		return nil, fmt.Errorf("invalid watchdog configuration for pgpool node id %d", c.NodeID)
	}
	w.times = timesFor(c)
	for _, n := range w.nodes {
		if err := n.resolve(); err != nil {
			w.log.Warn(fmt.Sprintf("could not resolve hostname%d, will try again", n.id), "err", err)
		}
	}
	saved, err := load(w.path)
	if err != nil {
		w.log.Error("could not use the watchdog's state file: this node is taken for another one, and counts when a leader has accepted it",
			"detail", w.path, "err", err)
	}
	w.self.about.Store(&about{ID: w.self.id, Name: ownName(w.self), Started: w.started, Incarnation: saved.Incarnation,
		Priority: c.WdPriority, Initialised: saved.Register != nil})
	if w.escalation, err = newEscalation(w, o.Guardian); err != nil {
		return nil, err
	}
	if err := w.gossip(); err != nil {
		w.escalation.close()
		return nil, err
	}
	if w.life, err = newLifecheck(w); err != nil {
		w.list.Shutdown()
		w.escalation.close()
		return nil, err
	}
	for _, n := range w.others() {
		w.work.Go(func() { w.carry(n) })
	}
	w.work.Go(w.join)
	w.work.Go(w.inspect)
	if w.halfVotes() == election.HalfWithWitness {
		w.work.Go(w.witness)
	}
	w.work.Go(func() { w.run(saved) })
	w.life.start()
	return w, nil
}

// timesFor are the durations of the protocol: from wd_leader_lease where it is
// set, else from the heartbeats.
func timesFor(c *conf.Config) election.Times {
	promise := election.PromiseFor(c.WdHeartbeatKeepalive, c.WdHeartbeatDeadtime)
	if c.WdLeaderLease > 0 {
		promise = c.WdLeaderLease
	}
	return election.TimesFor(promise)
}

func (w *Watchdog) options(c *conf.Config) election.Options {
	return election.Options{
		ID: w.self.id, Nodes: w.ids(), Times: w.times, HalfVotes: w.halfVotes(),
		Priority: c.WdPriority, Dead: c.WdHeartbeatDeadtime, RemoveShutdown: c.WdRemoveShutdownNodes,
		RemoveLost: c.WdLostNodeRemovalTimeout, RemoveNoShow: c.WdNoShowNodeRemovalTimeout,
		NeedQuorum: c.FailoverWhenQuorumExists, NeedConsensus: c.FailoverRequireConsensus,
		ManyVotes: c.AllowMultipleFailoverRequestsFromNode, VoteLife: voteLife(c),
	}
}

func (w *Watchdog) halfVotes() election.HalfVotes {
	switch c := w.config.Load(); {
	case !c.EnableConsensusWithHalfVotes:
		return election.HalfIsNone
	case c.WdTieBreaker != conf.TieNone:
		return election.HalfWithWitness
	}
	return election.HalfIsQuorum
}

// voteLife is how long a failover vote counts: long enough for every node's
// health check to notice.
func voteLife(c *conf.Config) time.Duration {
	life := 15 * time.Second
	for i := range c.Backends {
		h := c.HealthCheck(i)
		life = max(life, h.Period+time.Duration(h.MaxRetries)*h.RetryDelay)
	}
	return life
}

// Reload takes a new configuration.
func (w *Watchdog) Reload(c *conf.Config) {
	old := w.config.Swap(c)
	if old.WdAuthkey != c.WdAuthkey {
		w.life.old.Store(&old.WdAuthkey)
		w.rekey(old.WdAuthkey, c.WdAuthkey)
	}
	w.inspected.Clear()
	w.input(election.Reload{Options: w.options(c)})
}

// Stop leaves the group: a leader hands over, and the address is down when this
// returns. ctx bounds the wait for the others.
func (w *Watchdog) Stop(ctx context.Context) {
	w.once.Do(func() {
		w.log.Log(ctx, levelLog, "Watchdog is shutting down")
		w.input(election.Leave{})
		select {
		case <-w.left:
		case <-ctx.Done():
		}
		w.flush(500 * time.Millisecond)
		w.escalation.close()
		close(w.stopping)
		w.life.stop()
		w.list.Shutdown()
		w.work.Wait()
	})
}

// flush gives the letters that wait a moment to leave.
func (w *Watchdog) flush(limit time.Duration) {
	for end := now() + limit; now() < end; time.Sleep(5 * time.Millisecond) {
		waiting := 0
		for _, n := range w.nodes {
			waiting += len(n.outbox)
		}
		if waiting == 0 {
			return
		}
	}
}

// Register is the newest that the group has agreed on, nil if none is known, and a
// channel that is closed when there is a newer one.
func (w *Watchdog) Register() (*election.Register, <-chan struct{}) {
	a := w.register.Load()
	return a.Register, a.over
}

// Request asks the group for a decision about backends, and returns when it is
// made and carried out, or refused by the verdict. Confirmed: an operator wants it.
func (w *Watchdog) Request(ctx context.Context, act election.Act, nodes []int, confirmed bool) (election.Verdict, error) {
	w.mu.Lock()
	w.lastID = max(w.lastID+1, uint64(time.Now().UnixNano()))
	id, answer := w.lastID, make(chan election.Verdict, 1)
	w.asks[id] = answer
	w.mu.Unlock()
	before := uint64(0)
	if r, _ := w.Register(); r != nil {
		before = r.Decided
	}
	w.input(election.Ask{Request: election.Request{ID: id, Act: act, Nodes: nodes, Confirmed: confirmed}})
	var verdict election.Verdict
	select {
	case verdict = <-answer:
	case <-w.stopping:
		return 0, errors.New("the watchdog has stopped")
	case <-ctx.Done():
		w.mu.Lock()
		delete(w.asks, id)
		w.mu.Unlock()
		return 0, context.Cause(ctx)
	}
	if verdict != election.Granted {
		return verdict, nil
	}
	for {
		r, over := w.Register()
		if r != nil && r.Open() == nil && fulfilled(r, act, nodes, before) {
			return verdict, nil
		}
		select {
		case <-over:
		case <-w.stopping:
			return verdict, errors.New("the watchdog has stopped")
		case <-ctx.Done():
			return verdict, context.Cause(ctx)
		}
	}
}

// fulfilled reports that a register says what was asked for, or that a promotion
// has been decided since, whatever came of it.
func fulfilled(r *election.Register, act election.Act, nodes []int, before uint64) bool {
	for _, d := range r.Log {
		if act == election.ActPromote && d.Act == act && d.Number > before && d.Candidate == nodes[0] {
			return true
		}
	}
	for _, id := range nodes {
		switch act {
		case election.ActDetach, election.ActAttach:
			if r.Backend(id).Down != (act == election.ActDetach) {
				return false
			}
		case election.ActPromote:
			if r.Primary != id {
				return false
			}
		}
	}
	return true
}

// Resign makes this node give up the lead, if it has it, and lets the others go
// first.
func (w *Watchdog) Resign(why string) { w.input(election.Resign{Why: why, Humble: true}) }

// Found tells the group that a node was seen to be the primary. It is of no effect
// but on the leader.
func (w *Watchdog) Found(primary int) {
	d := election.Decide{Act: election.ActFound, Candidate: primary}
	if r := w.register.Load().Register; r != nil {
		d.Basis = r.Decided
	}
	w.input(d)
}
