package watchdog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgpool-go/conf"
	"pgpool-go/watchdog"
	"pgpool-go/watchdog/election"
)

const patience = 30 * time.Second

// TestMain is also the guardian's program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == watchdog.GuardianName {
		os.Exit(watchdog.RunGuardian())
	}
	if path, ok := os.LookupEnv("WATCHDOG_TEST_NODE"); ok {
		runNode(path)
	}
	os.Exit(m.Run())
}

// A group is a few nodes of one watchdog on loopback.
type group struct {
	t     *testing.T
	lines []string
	ports [][3]int // watchdog, pgpool, heartbeat
	nodes []*member
}

type member struct {
	*watchdog.Watchdog
	id   int
	dir  string
	log  *record
	host *host
}

// host is a pgpool that remembers.
type host struct {
	mu      sync.Mutex
	applied []*election.Register
	ran     []election.Decision
	orders  []watchdog.Order
	lost    string
	slow    chan struct{} // CarryOut waits for it; nil: it does not
}

func (h *host) Backends() ([]election.Backend, int) {
	return []election.Backend{{ID: 0}, {ID: 1}, {ID: 2}}, 0
}
func (h *host) Apply(r *election.Register) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.applied = append(h.applied, r)
}
func (h *host) Candidate(r election.Request) int {
	switch {
	case r.Act == election.ActPromote:
		return r.Nodes[0]
	case r.Act == election.ActDetach && r.Nodes[0] == 0:
		return 1
	}
	return -1
}
func (h *host) CarryOut(ctx context.Context, d election.Decision, again bool) (int, error) {
	h.mu.Lock()
	h.ran = append(h.ran, d)
	h.mu.Unlock()
	if h.slow != nil {
		select {
		case <-h.slow:
		case <-ctx.Done():
			return -1, ctx.Err()
		}
	}
	if d.Candidate >= 0 {
		return d.Candidate, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.applied); n > 0 {
		return h.applied[n-1].Primary, nil
	}
	return 0, nil
}
func (h *host) Ordered(o watchdog.Order) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.orders = append(h.orders, o)
	if o == watchdog.OrderRotateLog {
		return errors.New("there is no log")
	}
	return nil
}
func (h *host) Ask(ctx context.Context, host string, port int) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err == nil {
		c.Close()
	}
	return err
}
func (h *host) Witness(context.Context, int64, time.Duration) (bool, error) {
	return false, errors.New("there is no primary")
}
func (h *host) Dismiss() {}
func (h *host) Lost(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = why
}

type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// newGroup has n nodes that are not started yet. Their promise is two seconds: a
// busy machine may stop a leader for a while, and it still leads.
func newGroup(t *testing.T, n int, lines ...string) *group {
	t.Helper()
	g := &group{t: t, lines: append([]string{"use_watchdog = on", "wd_authkey = 'of this test'", "wd_leader_lease = 2000",
		"wd_heartbeat_keepalive = 1", "wd_heartbeat_deadtime = 10", "wd_interval = 1"}, lines...)}
	for id := range n {
		g.ports = append(g.ports, [3]int{freePort(t), freePort(t), freePort(t)})
		// Not t.TempDir: a socket's path must be short.
		dir, err := os.MkdirTemp("", "wd-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		g.nodes = append(g.nodes, &member{id: id, dir: dir})
	}
	for id, p := range g.ports {
		g.lines = append(g.lines, fmt.Sprintf("hostname%d = '127.0.0.1'", id), fmt.Sprintf("wd_port%d = %d", id, p[0]),
			fmt.Sprintf("pgpool_port%d = %d", id, p[1]), fmt.Sprintf("heartbeat_hostname%d = '127.0.0.1'", id), fmt.Sprintf("heartbeat_port%d = %d", id, p[2]))
	}
	return g
}

// freePort is free for UDP as well.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", ln.Addr().String())
		ln.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
}

func (g *group) config(m *member, lines ...string) *conf.Config {
	g.t.Helper()
	path := filepath.Join(m.dir, "pgpool.conf")
	text := append([]string{"work_dir = '" + m.dir + "'", "wd_ipc_socket_dir = '" + m.dir + "'"}, g.lines...)
	text = append(text, lines...)
	if err := os.WriteFile(path, []byte(strings.Join(text, "\n")+"\n"), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "pgpool_node_id"), fmt.Appendln(nil, m.id), 0o600); err != nil {
		g.t.Fatal(err)
	}
	c, _, err := conf.Load(conf.Paths{Conf: path})
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

// start starts a node, with lines of its own besides.
func (g *group) start(id int, lines ...string) *member {
	g.t.Helper()
	m := g.nodes[id]
	m.log, m.host = &record{}, &host{}
	exe, err := os.Executable()
	if err != nil {
		g.t.Fatal(err)
	}
	w, err := watchdog.Start(watchdog.Options{Config: g.config(m, lines...), Host: m.host,
		Log: slog.New(slog.NewTextHandler(m.log, nil)), Guardian: []string{exe, watchdog.GuardianName}})
	if err != nil {
		g.t.Fatal(err)
	}
	m.Watchdog = w
	g.t.Cleanup(func() {
		m.stop()
		if g.t.Failed() {
			g.t.Logf("log of node %d:\n%s", id, m.log)
		}
	})
	return m
}

func (m *member) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
	defer cancel()
	m.Stop(ctx)
}

func (g *group) startAll() {
	g.t.Helper()
	for id := range g.nodes {
		g.start(id)
	}
}

// leader waits until the nodes given, or all, agree on one that may decide.
func (g *group) leader(ids ...int) int {
	g.t.Helper()
	if ids == nil {
		for id := range g.nodes {
			ids = append(ids, id)
		}
	}
	leader := -1
	eventually(g.t, "a leader", func() bool {
		leader = g.nodes[ids[0]].Status().Leader
		if leader < 0 || !g.nodes[leader].Status().Decisive {
			return false
		}
		for _, id := range ids {
			if s := g.nodes[id].Status(); s.Leader != leader || s.Caretaker {
				return false
			}
		}
		return true
	})
	return leader
}

// bound reports that a node knows as agreed that every voter counts, by its disk:
// from then on any majority can elect. Before, only those of the first votes can.
func bound(s watchdog.Status) bool {
	return s.Committed != nil && s.Committed.Version == s.Register.Version &&
		!slices.ContainsFunc(slices.Concat(s.Committed.Old.Members, s.Committed.New.Members), func(v election.Voter) bool { return v.Incarnation == 0 })
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
