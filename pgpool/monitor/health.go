package monitor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
)

// checkHealth makes the health checks of one node, each over a connection of
// its own: a server may answer old friends and take no new ones.
func (p *prober) checkHealth(ctx context.Context) {
	next := time.Now()
	for {
		period := p.m.opts.Config().HealthCheck(p.id).Period
		var due <-chan time.Time
		if period > 0 {
			due = time.After(time.Until(next))
		}
		select {
		case <-due:
			p.checkOnce(ctx)
			next = time.Now().Add(p.m.opts.Config().HealthCheck(p.id).Period)
		case <-p.woken:
			// A period that was cut by a reload holds from now on.
			if until := time.Now().Add(p.m.opts.Config().HealthCheck(p.id).Period); next.After(until) {
				next = until
			}
		case <-ctx.Done():
			return
		}
	}
}

// checkOnce makes one check with its retries and keeps the record. The first
// failure already keeps clients away from the node; retries only decide
// whether the check has failed, which may lead to a failover.
func (p *prober) checkOnce(ctx context.Context) {
	owner := p.m.opts.Cluster
	n := owner.Now().Node(p.id)
	if n == nil {
		return
	}
	if n.Detached {
		owner.SetHealth(p.id, owner.Health(p.id).Skipped(time.Now()))
		return
	}
	h := p.m.opts.Config().HealthCheck(p.id)
	log := p.healthLogin.log
	start := time.Now()
	retries := 0
	err := p.check(ctx, n)
	if err != nil && ctx.Err() == nil {
		owner.Submit(cluster.ProbeFailed{Node: p.id, Cause: cause(err), Stopping: sqlState(err) != ""})
		p.kick(true)
	}
	for ; err != nil && retries < h.MaxRetries; retries++ {
		log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("health check retrying on DB node: %d (round:%d)", p.id, retries+1))
		select {
		case <-time.After(h.RetryDelay):
		case <-ctx.Done():
			return
		}
		err = p.check(ctx, n)
	}
	if ctx.Err() != nil {
		return
	}
	owner.SetHealth(p.id, owner.Health(p.id).Checked(err == nil, retries, time.Since(start), time.Now()))
	if err != nil {
		timeout := 0
		if errors.Is(err, errTimeout) {
			timeout = 1
		}
		log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("health check failed on node %d (timeout:%d)", p.id, timeout))
		owner.Submit(cluster.HealthFailed{Node: p.id, Cause: cause(err)})
		return
	}
	if now := owner.Now().Node(p.id); now != nil && now.Reach == cluster.Unreachable {
		p.kick(true)
	}
}

var errTimeout = errors.New("no answer")

// check makes one attempt. It is nil if a server answered, whatever it said
// to our login. If it lets us in and cuts the connection, another one decides.
func (p *prober) check(ctx context.Context, n *cluster.Node) error {
	c := p.m.opts.Config()
	if err := downRequested(c, p.id); err != nil {
		return err
	}
	h := c.HealthCheck(p.id)
	if h.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, h.Timeout, fmt.Errorf("%w within health_check_timeout (%v)", errTimeout, h.Timeout))
		defer cancel()
	}
	dial := ctx
	if h.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		dial, cancel = context.WithTimeoutCause(ctx, h.ConnectTimeout, fmt.Errorf("%w within connect_timeout (%v)", errTimeout, h.ConnectTimeout))
		defer cancel()
	}
	if h.User == "" {
		return ping(dial, n)
	}
	var err error
	for range connections {
		var conn Conn
		if conn, err = p.connect(dial, n, h); err != nil {
			if why := unanswered(dial, err); why != nil {
				return why
			}
			p.healthLogin.say(n, "health_check", h.User, err)
			return nil
		}
		_, err = conn.Ask(ctx, "SELECT 1")
		conn.Close()
		if err == nil {
			p.healthLogin.clear()
			return nil
		}
		if ctx.Err() != nil || !cut(err) {
			break
		}
	}
	return unanswered(ctx, err)
}

// connect logs in for a health check. Where no database is configured, one of
// the two that every server has will do.
func (p *prober) connect(ctx context.Context, n *cluster.Node, h conf.HealthCheck) (Conn, error) {
	conn, err := p.m.opts.Connect(ctx, *n, h.User, h.Password, orPostgres(h.Database))
	if h.Database == "" && sqlState(err) == invalidCatalogName {
		return p.m.opts.Connect(ctx, *n, h.User, h.Password, "template1")
	}
	return conn, err
}

const invalidCatalogName = "3D000"

// downRequested is the test hook health_check_test: a line "N<TAB>down" in
// backend_down_request makes node N count as failed.
func downRequested(c *conf.Config, node int) error {
	if !c.HealthCheckTest {
		return nil
	}
	f, err := os.Open(filepath.Join(c.WorkDir, "backend_down_request"))
	if err != nil {
		return nil // nobody asks for anything
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		id, word, _ := strings.Cut(lines.Text(), "\t")
		if id == strconv.Itoa(node) && strings.TrimSpace(word) == "down" {
			return errors.New("down by backend_down_request")
		}
	}
	return nil
}
