// Package monitor answers: how are the backends?
//
// It asks every server, at start and every sr_check_period, for its role and
// its replication delay, makes the health checks, and keeps asking a server
// that does not answer until it does. What it finds out it submits to cluster
// as events; it decides nothing about a node, and it never talks to a session.
// A server that answers but refuses our login is reachable: that is trouble
// with a password, not with the node.
//
// A new question to the servers goes to ask.go, what is made of the answers
// of one round to delay.go, the rhythm of asking to prober.go, health checks
// to health.go.
package monitor

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
)

// Connect opens a logged-in connection to a node. The password is as the
// configuration has it (plain, or with a prefix such as TEXT, md5 or AES); if
// it is empty, pool_passwd is to be looked at. An error in whose chain there
// is a method SQLState() string was sent by the server; one that comes from
// the network means that no server answered; any other means that one did,
// and that we failed to log in.
type Connect func(ctx context.Context, n cluster.Node, user, password, database string) (Conn, error)

// Conn is a connection to put questions to a server over. Ask returns the rows
// as text, NULL as the empty string; its errors are as Connect's.
type Conn interface {
	Ask(ctx context.Context, sql string) ([][]string, error)
	Close() error
}

// Options is what a Monitor needs from others.
type Options struct {
	Cluster *cluster.Owner
	Config  func() *conf.Config // the present configuration
	Connect Connect
	Log     *slog.Logger
	// Replayed, if not nil, is told that a standby has all that was committed before
	// a moment.
	Replayed func(node int, before time.Time)
}

// Monitor asks the servers. Make one with New.
type Monitor struct {
	opts   Options
	log    *slog.Logger // of the delay checks
	probed chan outcome // every answer, for the round it belongs to
	reload chan struct{}

	still map[int]standstill // of Run alone: standbys that are behind
	seen  seen               // of Run alone

	mu    sync.Mutex
	nodes map[int]*prober
}

// New returns a monitor that asks nobody before Run.
func New(o Options) *Monitor {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Monitor{
		opts:   o,
		log:    o.Log.With("app", "sr_check_worker"),
		probed: make(chan outcome),
		reload: make(chan struct{}, 1),
		still:  make(map[int]standstill),
		nodes:  make(map[int]*prober),
	}
}

// ProbeNow asks a node at once, over a new connection. It is for the effect
// of that name: it never blocks, and many calls make one probe.
func (m *Monitor) ProbeNow(node int) {
	m.mu.Lock()
	p := m.nodes[node]
	m.mu.Unlock()
	if p != nil {
		p.kick(true)
	}
}

// Reload makes the monitor look at the configuration again.
func (m *Monitor) Reload() {
	select {
	case m.reload <- struct{}{}:
	default:
	}
}

const (
	// firstAnswer is how long the start waits for a node before it is taken
	// for unreachable until it answers after all.
	firstAnswer = 700 * time.Millisecond
	// searchPeriod is how often standbys are asked while there is no primary.
	searchPeriod = time.Second
)

// Run watches the nodes until ctx ends. All probes are made by a goroutine per
// node; this one only says when, and makes delays of what comes back.
func (m *Monitor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	started := time.After(firstAnswer)
	var r round
	last := time.Now() // of the latest round; the first is made by the probers themselves
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s, over := m.opts.Cluster.Watch()
		if r.answers == nil {
			r = m.begin(s)
		}
		m.follow(ctx, &wg, s)
		timer.Stop()
		if period := m.period(s); period > 0 {
			timer.Reset(time.Until(last.Add(period)))
		}
		select {
		case <-over:
		case <-m.reload:
			m.each((*prober).wake)
		case <-started:
			m.each((*prober).late)
		case out := <-m.probed:
			if r.add(out) {
				m.measure(&r)
			}
		case <-timer.C:
			if len(r.waiting) > 0 { // somebody hangs; the others still count
				m.measure(&r)
			}
			last = time.Now()
			r = m.begin(s)
			m.kickAll(s)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// period is how often all nodes are asked; 0: only when there is a reason.
func (m *Monitor) period(s *cluster.Snapshot) time.Duration {
	if s.Mode != conf.StreamingReplication {
		return 0
	}
	period := m.opts.Config().SrCheckPeriod
	if s.Primary < 0 && s.Probed() && (period == 0 || period > searchPeriod) {
		period = searchPeriod
	}
	return period
}

// follow starts and ends probers as slots come into use and out of it.
func (m *Monitor) follow(ctx context.Context, wg *sync.WaitGroup, s *cluster.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range s.Nodes {
		n := &s.Nodes[i]
		p := m.nodes[i]
		if p != nil && (!n.Used() || p.host != n.Host || p.port != n.Port) {
			p.stop()
			delete(m.nodes, i)
			p = nil
		}
		if n.Used() && p == nil {
			ctx, stop := context.WithCancel(ctx)
			p = newProber(m, n, stop)
			m.nodes[i] = p
			wg.Go(func() { p.run(ctx) })
			wg.Go(func() { p.checkHealth(ctx) })
		}
	}
}

func (m *Monitor) each(f func(*prober)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.nodes {
		f(p)
	}
}

// kickAll begins a round. A node that does not answer is asked at its own pace.
func (m *Monitor) kickAll(s *cluster.Snapshot) {
	m.each(func(p *prober) {
		if n := s.Node(p.id); n != nil && n.Reach != cluster.Unreachable {
			p.kick(false)
		}
	})
}
