package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
)

// Right after a node went down it is asked quickly, then ever more slowly;
// without any usable primary nobody can wait for the slow pace.
const (
	firstRetry  = 200 * time.Millisecond
	lastRetry   = 10 * time.Second
	urgentRetry = time.Second
	// breath is the least time between two probes, whoever asks for them.
	breath = 50 * time.Millisecond
	// patience is how long a probe may take where connect_timeout sets no limit.
	patience = 10 * time.Second
)

// outcome is what one probe found out.
type outcome struct {
	node    int
	asked   time.Time
	facts   cluster.Facts
	detail  detail
	refused error // it let us in, but would not tell
	err     error // it does not answer
}

// prober asks one node, one question at a time, over a connection that is
// kept open in between.
type prober struct {
	m    *Monitor
	id   int
	host string
	port int
	stop context.CancelFunc

	kicks  chan struct{} // a probe is wanted
	woken  chan struct{} // the configuration changed; for the health checks
	mu     sync.Mutex
	fresh  bool // the next probe must not trust the open connection
	spoken bool // the outcome of some probe was submitted

	// Of the probing goroutine alone.
	conn  Conn
	key   string   // what conn was opened with
	addrs []string // addresses of the host when conn was opened

	srLogin, healthLogin complaint
}

func newProber(m *Monitor, n *cluster.Node, stop context.CancelFunc) *prober {
	p := &prober{
		m: m, id: n.ID, host: n.Host, port: n.Port, stop: stop,
		kicks: make(chan struct{}, 1),
		woken: make(chan struct{}, 1),
	}
	p.srLogin = complaint{log: m.log}
	p.healthLogin = complaint{log: m.opts.Log.With("app", fmt.Sprintf("health_check%d", n.ID))}
	return p
}

// kick asks for a probe. A fresh one proves that the node takes connections.
func (p *prober) kick(fresh bool) {
	p.mu.Lock()
	p.fresh = p.fresh || fresh
	p.mu.Unlock()
	poke(p.kicks)
}

func (p *prober) wake() { poke(p.woken) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// late submits that the node has not answered, if it has not.
func (p *prober) late() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.spoken {
		p.m.opts.Cluster.Submit(cluster.ProbeFailed{Node: p.id, Cause: "no answer yet"})
	}
}

// submit tells cluster, and whoever waits for a round.
func (p *prober) submit(ctx context.Context, out outcome) {
	p.mu.Lock()
	p.spoken = true
	if out.err != nil {
		p.m.opts.Cluster.Submit(cluster.ProbeFailed{Node: p.id, Cause: cause(out.err), Stopping: sqlState(out.err) != ""})
	} else {
		p.m.opts.Cluster.Submit(cluster.Probed{Node: p.id, Facts: out.facts})
	}
	p.mu.Unlock()
	select {
	case p.m.probed <- out:
	case <-ctx.Done():
	}
}

func (p *prober) run(ctx context.Context) {
	defer p.drop()
	retry := time.Duration(0)
	timer := time.NewTimer(0) // the first probe is made at once
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-p.kicks:
		case <-ctx.Done():
			return
		}
		asked := time.Now()
		out := p.probe(ctx)
		out.asked = asked
		if ctx.Err() != nil {
			return
		}
		p.submit(ctx, out)
		timer.Stop()
		if out.err == nil {
			retry = 0
		} else {
			retry = min(max(firstRetry, 2*retry), p.slowest())
			timer.Reset(retry)
		}
		select {
		case <-time.After(breath):
		case <-ctx.Done():
			return
		}
	}
}

// slowest is the pace at which a node is asked that has long been away.
func (p *prober) slowest() time.Duration {
	if p.m.opts.Cluster.Now().Primary < 0 {
		return urgentRetry
	}
	return lastRetry
}

// probe asks once. If the open connection turns out to be dead, a new one
// decides: servers end idle connections for many reasons.
func (p *prober) probe(ctx context.Context) outcome {
	c := p.m.opts.Config()
	out := outcome{node: p.id}
	n := p.m.opts.Cluster.Now().Node(p.id)
	if n == nil {
		return out
	}
	p.mu.Lock()
	fresh := p.fresh
	p.fresh = false
	p.mu.Unlock()
	if out.err = downRequested(c, p.id); out.err != nil {
		p.drop()
		return out
	}

	limit := patience
	if t := c.HealthCheck(p.id).ConnectTimeout; t > 0 {
		limit = t
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()

	l := p.login(c)
	if p.conn != nil && (fresh || p.key != l.key()) {
		p.drop()
	}
	if p.conn != nil {
		if out, err := p.ask(ctx); err == nil || ctx.Err() != nil {
			return out
		}
	}
	if l.user == "" {
		out.err = ping(ctx, n)
		return out
	}
	for range connections {
		conn, err := p.m.opts.Connect(ctx, *n, l.user, l.password, l.database)
		if err != nil {
			if out.err = unanswered(ctx, err); out.err == nil {
				p.srLogin.say(n, l.setting, l.user, err)
			}
			return out
		}
		p.conn, p.key = conn, l.key()
		p.addrs = lookup(ctx, n.Host)
		if out, err = p.ask(ctx); err == nil || ctx.Err() != nil || !cut(err) {
			break
		}
	}
	switch {
	case out.refused != nil:
		p.srLogin.say(n, l.setting, l.user, out.refused)
	case out.err == nil:
		p.srLogin.clear()
	}
	return out
}

// ask puts the questions over the open connection and drops it if it fails.
// The outcome of a failure counts if no new connection can do better.
func (p *prober) ask(ctx context.Context) (outcome, error) {
	out := outcome{node: p.id}
	facts, d, err := ask(ctx, p.conn)
	if err == nil {
		d.addrs = p.addrs
		out.facts, out.detail = facts, d
		return out, nil
	}
	p.drop()
	if out.err = unanswered(ctx, err); out.err == nil {
		out.refused = err
	}
	return out, err
}

func (p *prober) drop() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// login is whom to log in as.
type login struct{ setting, user, password, database string }

func (l login) key() string { return l.user + "\x00" + l.password + "\x00" + l.database }

// login is that of the delay checks, or of the health checks where there is
// none or where servers have no roles to tell.
func (p *prober) login(c *conf.Config) login {
	h := c.HealthCheck(p.id)
	if c.BackendClusteringMode == conf.StreamingReplication && c.SrCheckUser != "" {
		return login{"sr_check", c.SrCheckUser, c.SrCheckPassword, orPostgres(c.SrCheckDatabase)}
	}
	if h.Period > 0 || c.BackendClusteringMode == conf.StreamingReplication {
		return login{"health_check", h.User, h.Password, orPostgres(h.Database)}
	}
	return login{}
}

func orPostgres(database string) string {
	if database == "" {
		return "postgres"
	}
	return database
}

// complaint says once that a login is refused, not at every probe.
type complaint struct {
	log  *slog.Logger
	mu   sync.Mutex
	said string
}

func (c *complaint) say(n *cluster.Node, setting, user string, err error) {
	state := sqlState(err)
	if strings.HasPrefix(state, "53") || strings.HasPrefix(state, "57") {
		return // full or stopping: nothing is wrong with the login
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf("node %d (%s) answers but does not let %s_user %q in", n.ID, n.Addr(), setting, user)
	if c.said == text+err.Error() {
		return
	}
	c.said = text + err.Error()
	c.log.LogAttrs(context.Background(), slog.LevelWarn, text,
		slog.String("detail", err.Error()),
		slog.String("hint", fmt.Sprintf("Check %[1]s_user, %[1]s_password, %[1]s_database and the server's pg_hba.conf. The node is used meanwhile.", setting)))
}

func (c *complaint) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = ""
}
