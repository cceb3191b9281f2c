package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/monitor"
	"pgpool-go/tools/testcluster"
)

// pgConn asks over PostgreSQL's own Go driver.
type pgConn struct{ *pgconn.PgConn }

func (c pgConn) Ask(ctx context.Context, sql string) ([][]string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, row := range results[len(results)-1].Rows {
		texts := make([]string, len(row))
		for i, v := range row {
			texts[i] = string(v)
		}
		rows = append(rows, texts)
	}
	return rows, nil
}

func (c pgConn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return c.PgConn.Close(ctx)
}

func connect(ctx context.Context, n cluster.Node, user, password, database string) (monitor.Conn, error) {
	c, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s sslmode=disable", n.Host, n.Port, user, password, database))
	if err != nil {
		return nil, err
	}
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	return pgConn{conn}, nil
}

// watched is a monitor over real servers.
type watched struct {
	t     *testing.T
	owner *cluster.Owner
	mon   *monitor.Monitor
	cfg   atomic.Pointer[conf.Config]
	path  string
	dir   string

	mu   sync.Mutex
	said []string
}

// watch monitors the nodes with more lines of pgpool.conf.
func watch(t *testing.T, nodes []*testcluster.Node, lines ...string) *watched {
	t.Helper()
	w := &watched{t: t, dir: t.TempDir()}
	w.path = filepath.Join(w.dir, "pgpool.conf")
	w.cfg.Store(w.load(nodes, lines...))
	log := slog.New(w)
	w.owner = cluster.New(w.cfg.Load(), cluster.Options{Log: log, Perform: func(e cluster.Effect) {
		if e, ok := e.(cluster.ProbeNow); ok {
			w.mon.ProbeNow(e.Node)
		}
	}})
	w.mon = monitor.New(monitor.Options{Cluster: w.owner, Config: w.cfg.Load, Connect: connect, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.owner.Run(ctx) })
	wg.Go(func() { w.mon.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if t.Failed() {
			t.Logf("log:\n%s", strings.Join(w.said, "\n"))
		}
	})
	return w
}

func (w *watched) load(nodes []*testcluster.Node, lines ...string) *conf.Config {
	w.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "work_dir = '%s'\n", w.dir)
	for i, n := range nodes {
		fmt.Fprintf(&b, "backend_hostname%d = '%s'\nbackend_port%d = %d\nbackend_weight%d = 1\n", i, n.Host, i, n.Port, i)
	}
	b.WriteString("sr_check_user = 'postgres'\nsr_check_period = 1\n" + strings.Join(lines, "\n") + "\n")
	if err := os.WriteFile(w.path, []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	c, _, err := conf.Load(conf.Paths{Conf: w.path})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// wait waits for what is to be believed.
func (w *watched) wait(what string, want func(*cluster.Snapshot) bool) *cluster.Snapshot {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	s, err := w.owner.Wait(ctx, want)
	if err != nil {
		w.t.Fatalf("waiting for %s: %v\n%s", what, err, show(s))
	}
	return s
}

// eventually waits for what no snapshot tells.
func (w *watched) eventually(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waiting for %s", what)
		}
	}
}

func show(s *cluster.Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "primary %d\n", s.Primary)
	for _, n := range s.Nodes {
		fmt.Fprintf(&b, "%+v\n", n)
	}
	return b.String()
}

// The watched is the handler of its own log.
func (w *watched) Enabled(context.Context, slog.Level) bool { return true }
func (w *watched) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *watched) WithGroup(string) slog.Handler            { return w }
func (w *watched) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " / " + a.Value.String(); return true })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, line)
	return nil
}

func (w *watched) count(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, line := range w.said {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func usable(ids ...int) func(*cluster.Snapshot) bool {
	return func(s *cluster.Snapshot) bool {
		for i := range s.Nodes {
			if s.Probed() && s.Nodes[i].Reach != cluster.Unprobed && s.Usable(i) != slices.Contains(ids, i) {
				return false
			}
		}
		return s.Probed()
	}
}

func primary(id int) func(*cluster.Snapshot) bool {
	return func(s *cluster.Snapshot) bool { return s.Primary == id && !s.Assumed }
}

func TestStreamingCluster(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	begun := time.Now()
	w := watch(t, c.Nodes, "backend_application_name1 = 'node1'", "delay_threshold = 1000",
		"health_check_period = 1", "health_check_user = 'postgres'", "health_check_max_retries = 1", "health_check_retry_delay = 1")

	s := w.wait("the primary", primary(0))
	t.Logf("primary known after %v", time.Since(begun))
	for i, want := range []cluster.Role{cluster.Primary, cluster.Standby, cluster.Standby} {
		n := s.Nodes[i]
		if n.PgRole != want || n.Role != want || n.Timeline != 1 || n.SystemID == "" || n.Version/10000 < 12 || n.Position == 0 {
			t.Errorf("node %d: %+v", i, n)
		}
	}
	w.wait("replication states", func(s *cluster.Snapshot) bool {
		return s.Nodes[1].ReplicationState == "streaming" && s.Nodes[1].ReplicationSyncState == "async" &&
			s.Nodes[2].ReplicationState == "streaming" && s.Nodes[0].ReplicationState == "" && s.Nodes[1].PgStatus == "up"
	})

	// a standby that replays nothing is behind, in bytes and in time
	c.MustExec(2, "select pg_wal_replay_pause()")
	c.MustExec(0, "create table t as select generate_series(1, 10000)")
	s = w.wait("a delay", func(s *cluster.Snapshot) bool { return s.Nodes[2].Lag > 1000 && s.Nodes[2].LagTime > time.Second })
	if s.Nodes[1].Lag != 0 {
		t.Logf("node 1 is behind too: %d", s.Nodes[1].Lag)
	}
	if w.count("Replication of node:2 is behind ") == 0 || w.count(" bytes from the primary server (node:0)") == 0 {
		t.Error("the delay was not logged")
	}
	c.MustExec(2, "select pg_wal_replay_resume()")
	w.wait("no delay", func(s *cluster.Snapshot) bool { return s.Nodes[2].Lag == 0 && s.Nodes[2].LagTime == 0 })

	// a standby dies and comes back
	c.Must(c.Nodes[1].Kill())
	w.wait("the standby not used", usable(0, 2))
	if s := w.owner.Now(); s.Primary != 0 || s.Nodes[1].Status != cluster.Down || s.Nodes[1].Reason == "" || s.Nodes[1].Detached {
		t.Errorf("killed standby: %s", show(s))
	}
	w.wait("pg_status", func(s *cluster.Snapshot) bool { return s.Nodes[1].PgStatus == "down" })
	w.eventually("a failed check", func() bool { return w.count("health check failed on node 1 (timeout:0)") > 0 })
	if w.count("health check retrying on DB node: 1 (round:1)") == 0 {
		t.Error("no retry was logged")
	}
	if h := w.owner.Health(1); h.Fail == 0 || h.Retry == 0 || h.MaxDuration < time.Second {
		t.Errorf("health of node 1: %v", h.Columns())
	}
	c.Must(c.Nodes[1].Start())
	w.wait("the standby used again", usable(0, 1, 2))

	// promoted by somebody else while the primary is dead
	c.Must(c.Nodes[0].Kill())
	w.wait("no primary", func(s *cluster.Snapshot) bool { return s.Primary == -1 && s.Usable(1) && s.Usable(2) })
	c.Must(c.Nodes[1].Promote())
	s = w.wait("the new primary", primary(1))
	if s.Nodes[1].Timeline != 2 {
		t.Errorf("timeline %d", s.Nodes[1].Timeline)
	}
	c.Must(c.Nodes[2].Follow(c.Nodes[1]))
	w.wait("the follower", func(s *cluster.Snapshot) bool {
		return s.Usable(2) && s.Nodes[2].ReplicationState == "streaming" && s.Nodes[2].Timeline == 2
	})

	// the old one comes back as it was: it is a ghost, until it is rewound
	c.Must(c.Nodes[0].Start())
	s = w.wait("the ghost seen", func(s *cluster.Snapshot) bool { return s.Nodes[0].Reach == cluster.Reachable })
	if s.Usable(0) || s.Primary != 1 || s.Nodes[0].Excluded == "" {
		t.Errorf("ghost: %s", show(s))
	}
	c.Must(c.Nodes[0].Rebuild(c.Nodes[1]))
	w.wait("the old primary as a standby", func(s *cluster.Snapshot) bool {
		return s.Usable(0) && s.Nodes[0].PgRole == cluster.Standby && s.Primary == 1
	})
}

func TestPausedServer(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	w := watch(t, c.Nodes, "connect_timeout = 1000")
	w.wait("the primary", primary(0))
	c.Must(c.Nodes[1].Pause())
	s := w.wait("the paused one not used", usable(0))
	if !strings.Contains(s.Nodes[1].Reason, "no answer within 1s") || s.Primary != 0 {
		t.Errorf("paused: %s", show(s))
	}
	c.Must(c.Nodes[1].Resume())
	w.wait("the resumed one used", usable(0, 1))
}

func TestSuspicionIsProbedAtOnce(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	w := watch(t, c.Nodes, "sr_check_period = 0")
	w.wait("the primary", primary(0))

	// nothing is wrong with the node: nothing happens to it
	w.owner.Submit(cluster.Suspected{Node: 1, Cause: errors.New("reset by peer")})
	c.Must(c.Nodes[1].Stop(testcluster.Fast))
	w.owner.Submit(cluster.Suspected{Node: 1, Cause: errors.New("reset by peer")})
	begun := time.Now()
	w.wait("the stopped one not used", usable(0))
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	// without any period it is found again all the same
	c.Must(c.Nodes[1].Start())
	w.wait("the started one used", usable(0, 1))

	// our own connections are ended: they are opened again, nobody suffers
	epoch := w.owner.Now().Epoch
	c.MustExec(1, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'")
	w.owner.Submit(cluster.Suspected{Node: 1, Cause: errors.New("terminating connection")})
	w.wait("a probe", func(s *cluster.Snapshot) bool { return s.Epoch >= epoch && s.Usable(1) })
}

func TestRefusedLoginIsNotDown(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	w := watch(t, c.Nodes, "sr_check_user = 'nobody_there'", "health_check_period = 1", "health_check_user = 'nobody_else'")
	s := w.wait("both", usable(0, 1))
	s = w.wait("an assumed primary", func(s *cluster.Snapshot) bool { return s.Primary == 0 && s.Assumed })
	if s.Nodes[0].PgRole != cluster.Unknown || s.Nodes[0].PgStatus != "up" {
		t.Errorf("node 0: %+v", s.Nodes[0])
	}
	// several periods pass, one warning per node and user is said
	w.eventually("three checks", func() bool { return w.owner.Health(0).Success >= 3 && w.owner.Health(1).Success >= 3 })
	for i := range c.Nodes {
		for _, user := range []string{`sr_check_user "nobody_there"`, `health_check_user "nobody_else"`} {
			text := fmt.Sprintf("node %d (%s) answers but does not let %s in", i, s.Nodes[i].Addr(), user)
			if n := w.count(text); n != 1 {
				t.Errorf("%q was said %d times", text, n)
			}
		}
	}
	// mended by a reload
	cfg := w.load(c.Nodes)
	w.cfg.Store(cfg)
	w.owner.Submit(cluster.ConfigChanged{Config: cfg})
	w.mon.Reload()
	w.wait("the primary", primary(0))
}

func TestNoUserAtAll(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	w := watch(t, c.Nodes, "sr_check_user = ''")
	w.wait("both", usable(0, 1))
	c.Must(c.Nodes[1].Stop(testcluster.Fast))
	w.wait("one", usable(0))
	c.Must(c.Nodes[1].Start())
	w.wait("both again", usable(0, 1))
}

func TestDownRequest(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	w := watch(t, c.Nodes, "health_check_test = on", "health_check_period = 1", "health_check_user = 'postgres'")
	w.wait("both", usable(0, 1))
	request := filepath.Join(w.dir, "backend_down_request")
	if err := os.WriteFile(request, []byte("0\tup\n1\tdown\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.wait("one", usable(0))
	if err := os.Remove(request); err != nil {
		t.Fatal(err)
	}
	w.wait("both again", usable(0, 1))
}

func TestUnprivilegedUser(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	c.MustExec(0, "create role joe login")
	c.MustExec(0, "alter role joe set search_path = evil, pg_catalog")
	c.MustExec(0, "create schema evil; grant usage on schema evil to public; create function evil.pg_is_in_recovery() returns bool language sql as 'select true'")
	c.Must(c.WaitCatchup())
	w := watch(t, c.Nodes, "sr_check_user = 'joe'")
	s := w.wait("the primary", primary(0))
	if n := s.Nodes[1]; n.Timeline != 1 || n.SystemID == "" || n.PgRole != cluster.Standby {
		t.Errorf("standby: %+v", n)
	}
	// and that a standby has followed, though its WAL receiver tells him nothing
	c.Must(c.Nodes[0].Kill())
	c.Must(c.Nodes[1].Promote())
	w.wait("the new primary", primary(1))
	c.Must(c.Nodes[2].Follow(c.Nodes[1]))
	c.MustExec(1, "create table gone ()")
	c.MustExec(1, "drop table gone") // is flushed where it is replayed
	w.wait("the follower", func(s *cluster.Snapshot) bool { return s.Usable(2) && s.Nodes[2].Timeline == 2 })
}

func TestRawMode(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{})
	d := testcluster.New(t, testcluster.Options{})
	w := watch(t, []*testcluster.Node{c.Nodes[0], d.Nodes[0]}, "backend_clustering_mode = 'raw'")
	w.wait("both", usable(0, 1))
	if s := w.owner.Now(); s.Primary != 0 || s.Main != 0 {
		t.Error(show(s))
	}
	c.Must(c.Nodes[0].Kill())
	w.owner.Submit(cluster.Suspected{Node: 0, Cause: errors.New("reset")})
	w.wait("the next as main", func(s *cluster.Snapshot) bool { return s.Main == 1 && s.Primary == 1 })
	c.Must(c.Nodes[0].Start())
	s := w.wait("the first answers", func(s *cluster.Snapshot) bool { return s.Nodes[0].Reach == cluster.Reachable })
	if s.Usable(0) || s.Main != 1 { // what was written meanwhile is missing from it
		t.Error(show(s))
	}
	w.owner.Submit(cluster.Attach{Node: 0})
	w.wait("the first again", func(s *cluster.Snapshot) bool { return s.Main == 0 })
}

// TestServerVersions asks the newest servers; Debian's is in every other test.
func TestServerVersions(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real servers")
	}
	for _, major := range []int{17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			bin, err := testcluster.NpmPostgres(major)
			if err != nil {
				t.Skip(err)
			}
			c := testcluster.New(t, testcluster.Options{BinDir: bin, Standbys: 1})
			w := watch(t, c.Nodes)
			w.wait("both and their replication", func(s *cluster.Snapshot) bool {
				return s.Primary == 0 && s.Nodes[0].Version/10000 == major && s.Nodes[1].Timeline == 1 &&
					s.Nodes[1].SystemID == s.Nodes[0].SystemID && s.Nodes[1].ReplicationState == "streaming"
			})
			c.Must(c.Nodes[1].Promote())
			w.wait("the promotion", func(s *cluster.Snapshot) bool { return s.Primary == 1 && s.Nodes[1].Timeline == 2 && !s.Usable(0) })
		})
	}
}
