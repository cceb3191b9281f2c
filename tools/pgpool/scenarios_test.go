package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgpool-go/tools/testcluster"
)

// What can happen to a cluster made by pgpool_setup, while clients read and write.
// `make test` has the primary killed once with few clients; `make scenarios` has
// everything happen ten times with fifty.
var (
	repetitions = flag.Int("scenarios", 0, "have each scenario happen so many times, with many clients")
	only        = flag.String("scenario", "", "of the scenarios, only those whose names contain this")
)

// stage is where scenarios are played: a cluster of pgpool_setup, with a
// synchronous standby.
type stage struct {
	unprivileged
	port  int // pgpool's; PCP's and the servers' follow
	nodes int
	user  string
	runs  int
}

// synchronous has a write confirmed by the standby that is promoted when the
// primary fails: both pgpool and the servers take the lowest.
const synchronous = `
synchronous_standby_names = 'FIRST 1 (node0, node1, node2)'
wal_retrieve_retry_interval = '200ms'
wal_receiver_timeout = '10s'
wal_sender_timeout = '5s'
`

const impatient = `
num_init_children = 120
log_per_node_statement = off
health_check_period = 1
health_check_timeout = 3
health_check_max_retries = 1
health_check_retry_delay = 1
connect_timeout = 3000
failover_hold_timeout = 60
`

// scenario is something that happens to the cluster.
type scenario struct {
	name string
	// happens does it, and returns the node that is to be failed over, or -1.
	happens func(s *stage, primary int) (failed int)
	// mended has what was broken returned, once there is service again.
	mended func(s *stage, failed int)
	blind  bool // there is a time at which nobody can read
	keeps  bool // the primary stays
}

var scenarios = []scenario{
	{name: "the primary is killed",
		happens: func(s *stage, primary int) int { s.signal(primary, syscall.SIGKILL, s.runs%2 == 0); return primary },
		mended:  (*stage).recover},
	{name: "the primary freezes",
		happens: func(s *stage, primary int) int { s.signal(primary, syscall.SIGSTOP, true); return primary },
		mended:  (*stage).thaw},
	{name: "a standby is killed", keeps: true,
		happens: func(s *stage, primary int) int {
			standby := (primary + 1 + s.runs%2) % s.nodes
			s.signal(standby, syscall.SIGKILL, s.runs%4 < 2)
			return standby
		},
		mended: (*stage).recover},
	{name: "a standby freezes", keeps: true,
		happens: func(s *stage, primary int) int {
			standby := (primary + 1 + s.runs%2) % s.nodes
			s.signal(standby, syscall.SIGSTOP, true)
			return standby
		},
		mended: (*stage).thaw},
	{name: "all nodes go down and come back", blind: true, keeps: true,
		happens: func(s *stage, primary int) int {
			s.signalAll(syscall.SIGKILL, true, 0, 1, 2)
			s.refused()
			for i := range s.nodes {
				s.start(i)
			}
			return -1
		},
		mended: func(s *stage, _ int) { s.attachAll() }},
	{name: "a standby is detached and attached", keeps: true,
		happens: func(s *stage, primary int) int {
			standby := (primary + 1 + s.runs%2) % s.nodes
			s.pcp("pcp_detach_node", standby)
			return standby
		},
		mended: func(s *stage, failed int) { s.pcp("pcp_attach_node", failed) }},
	{name: "the primary is detached",
		happens: func(s *stage, primary int) int { s.pcp("pcp_detach_node", primary); return primary },
		mended:  func(*stage, int) {}}, // the follow_primary_command attaches it
	{name: "a switchover",
		happens: func(s *stage, primary int) int {
			s.pcp("pcp_promote_node", s.heir(primary), "--switchover")
			return primary
		},
		mended: func(*stage, int) {}},
}

// play has a scenario happen under load.
func (s *stage) play(sc *scenario, writers, readers, idle int) (pause time.Duration) {
	s.t.Helper()
	primary := s.sound()
	s.runs++
	name := "r" + strconv.Itoa(s.runs)
	os.Truncate(s.calls(), 0)
	l := startClients(s.t, s.url(s.port), name, writers, readers, idle)
	l.served(10*writers, 10*readers)
	l.mu.Lock()
	l.pause = 0 // what it took to begin with
	l.mu.Unlock()

	failed := sc.happens(s, primary)
	l.served(10*writers, 10*readers)
	sc.mended(s, failed)
	now := s.sound()
	l.served(10*writers, 10*readers)
	lost := l.stop()
	server := s.server(now)
	defer server.Close(context.Background())
	missing := l.missing(server)

	l.mu.Lock()
	defer l.mu.Unlock()
	s.t.Logf("%s (%d): %.1f s without a write; %d writes confirmed, %d lost, writers had %d errors; %d reads, %d failed; %d of %d idle clients lost; primary %d -> %d",
		sc.name, s.runs, l.pause.Seconds(), len(l.acked), len(missing), len(l.refused), l.reads.Load(), len(l.failed), lost, idle, primary, now)
	if testing.Verbose() && len(l.refused) > 0 {
		s.t.Logf("writers were told %s", tally(l.refused))
	}
	if len(missing) > 0 {
		s.t.Errorf("%s: lost writes %.300q", sc.name, missing)
	}
	if lost > 0 {
		s.t.Errorf("%s: %d idle clients were disconnected", sc.name, lost)
	}
	if len(l.failed) > 0 && !sc.blind {
		s.t.Errorf("%s: reads failed: %s", sc.name, tally(l.failed))
	}
	if want := primary; sc.keeps && now != want || !sc.keeps && now != s.heir(primary) {
		s.t.Errorf("%s: the primary was %d and is %d", sc.name, primary, now)
	}
	if failed >= 0 {
		s.called(sc, failed, primary)
	}
	return l.pause
}

// called compares what failover.sh was called with.
func (s *stage) called(sc *scenario, failed, primary int) {
	text, err := os.ReadFile(s.calls())
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, line := range strings.Split(string(text), "\n") {
		if _, arguments, ok := strings.Cut(line, " failover "); ok {
			got = append(got, arguments)
		}
	}
	next := s.heir(failed) // the lowest that is left
	node := func(i int) string { return fmt.Sprintf("%d 127.0.0.1", i) }
	want := fmt.Sprintf("%s %d %s/data%d %s 0 %d %d %s/data%d 127.0.0.1 %d",
		node(failed), s.pg(failed), s.dir, failed, node(next), primary, s.pg(next), s.dir, next, s.pg(primary))
	if len(got) != 1 || got[0] != want {
		s.t.Errorf("%s: failover.sh was called with\n%s\nwant, once,\n%s", sc.name, strings.Join(got, "\n"), want)
	}
}

// tally counts equal messages.
func tally(all []string) string {
	count := make(map[string]int)
	var order []string
	for _, m := range all {
		if count[m]++; count[m] == 1 {
			order = append(order, m)
		}
	}
	var b strings.Builder
	for _, m := range order[:min(len(order), 10)] {
		fmt.Fprintf(&b, "\n%5d × %s", count[m], m)
	}
	return b.String()
}

func (s *stage) pg(node int) int { return s.port + 2 + node }

func (s *stage) url(port int) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/test?sslmode=disable&connect_timeout=90", s.user, port)
}

func (s *stage) server(node int) *pgx.Conn {
	s.t.Helper()
	c, err := pgx.Connect(s.t.Context(), s.url(s.pg(node)))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// heir is the lowest node but one.
func (s *stage) heir(node int) int {
	if node == 0 {
		return 1
	}
	return 0
}

// poolNodes are the rows of SHOW POOL_NODES, by the names of their columns.
func (s *stage) poolNodes() []map[string]any {
	ctx, stop := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer stop()
	c, err := pgx.Connect(ctx, s.url(s.port))
	if err != nil {
		return nil
	}
	defer c.Close(context.Background())
	rows, err := c.Query(ctx, "SHOW POOL_NODES", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil
	}
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		return nil
	}
	return all
}

// sound waits until all nodes are in, one of them the primary from which all others
// stream, and the next primary confirms writes. It returns the primary.
func (s *stage) sound() int {
	s.t.Helper()
	primary, rows := -1, []map[string]any(nil)
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		rows = s.poolNodes()
		good := 0
		for i, r := range rows {
			switch {
			case r["status"] != "up" && r["status"] != "waiting" || r["role"] != r["pg_role"]:
			case r["role"] == "primary":
				primary = i
				good++
			case r["replication_state"] == "streaming":
				good++
			}
		}
		if good == s.nodes && primary >= 0 && s.confirms(primary) {
			return primary
		}
	}
	s.t.Fatalf("the cluster does not get well: %v", rows)
	return -1
}

// confirms tells whether writes wait for the node that is the next to be promoted.
func (s *stage) confirms(primary int) bool {
	c, err := pgx.Connect(s.t.Context(), s.url(s.pg(primary)))
	if err != nil {
		return false
	}
	defer c.Close(context.Background())
	var ok bool
	err = c.QueryRow(s.t.Context(), "select exists (select from pg_stat_replication where application_name = $1 and sync_state = 'sync')",
		fmt.Sprintf("node%d", s.heir(primary))).Scan(&ok)
	return err == nil && ok
}

// refused waits until pgpool has nobody to serve clients with.
func (s *stage) refused() {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		ctx, stop := context.WithTimeout(s.t.Context(), 20*time.Second)
		c, err := pgx.Connect(ctx, s.url(s.port))
		stop()
		if err == nil {
			c.Close(context.Background())
		} else if strings.Contains(err.Error(), "57P03") && strings.Contains(err.Error(), "all backend nodes are down") {
			return
		}
	}
	s.t.Fatal("with all nodes down, clients are not told so")
}

// postmaster is the process id of a node's server.
func (s *stage) postmaster(node int) int {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("%s/data%d/postmaster.pid", s.dir, node))
	if err != nil {
		s.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// signal sends a signal to a node's postmaster, and if all is set to its children.
func (s *stage) signal(node int, sig syscall.Signal, all bool) {
	s.t.Helper()
	s.signalAll(sig, all, node)
}

// signalAll is signal for several nodes at once.
func (s *stage) signalAll(sig syscall.Signal, all bool, nodes ...int) {
	s.t.Helper()
	var heads, whole []int
	for _, node := range nodes {
		heads = append(heads, s.postmaster(node))
	}
	whole = append(whole, heads...)
	for _, pid := range heads {
		if all {
			syscall.Kill(pid, syscall.SIGSTOP) // it has no more children from here on
			whole = append(whole, testcluster.Descendants(pid)...)
		}
	}
	for _, pid := range whole {
		if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
			s.t.Fatal(err)
		}
	}
	if sig != syscall.SIGKILL {
		return
	}
	// As long as its parent has not looked, its number is taken, and pg_ctl fooled.
	end := time.Now().Add(time.Minute)
	for _, pid := range heads {
		for syscall.Kill(pid, 0) == nil && time.Now().Before(end) {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func (s *stage) tool(name string) string { return filepath.Join(s.dir, "..", "bin", name) }

// pcp runs a pcp_* program on a node.
func (s *stage) pcp(name string, node int, options ...string) {
	s.t.Helper()
	args := append([]string{"-w", "-h", "127.0.0.1", "-p", strconv.Itoa(s.port + 1), "-U", s.user, "-n", strconv.Itoa(node)}, options...)
	if text := s.must(s.tool(name), args...); !strings.Contains(text, "Successful") {
		s.t.Fatalf("%s %d: %s", name, node, text)
	}
}

// givenUp waits until failover.sh was run for a node.
func (s *stage) givenUp(node int) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if text, _ := os.ReadFile(s.calls()); strings.Contains(string(text), fmt.Sprintf(" failover %d ", node)) {
			return
		}
	}
	s.t.Fatalf("node %d is not given up", node)
}

// calls is where the scripts note what they were called with.
func (s *stage) calls() string { return filepath.Join(s.dir, "log", "failover.log") }

// recover has a node made anew.
func (s *stage) recover(node int) {
	s.t.Helper()
	s.givenUp(node)
	s.pcp("pcp_recovery_node", node)
}

// thaw has a node that stands still run on: recovery finds it so, and puts another
// in its place.
func (s *stage) thaw(node int) {
	s.t.Helper()
	s.givenUp(node)
	s.signal(node, syscall.SIGCONT, true)
	s.pcp("pcp_recovery_node", node)
}

func (s *stage) start(node int) {
	s.t.Helper()
	s.must("bash", "-c", fmt.Sprintf(`. ./bashrc.ports; "$PGBIN/pg_ctl" -D data%[1]d -l log/data%[1]d.log -W start`, node))
}

// attachAll attaches what is down: the operator's word, after an outage.
func (s *stage) attachAll() {
	s.t.Helper()
	for i, r := range s.poolNodes() {
		if r["status"] == "down" {
			s.pcp("pcp_attach_node", i)
		}
	}
}

// summary tells the middle and the longest of some pauses.
func summary(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("%d times, %.1f s without a write (median), %.1f s (longest)",
		len(all), all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
}

// TestScenarios: what `make scenarios` runs.
func TestScenarios(t *testing.T) {
	if *repetitions == 0 {
		t.Skip("the long form of TestSetup; see `make scenarios`")
	}
	s := newStage(t)
	s.must(s.dir + "/startall")
	defer s.run(s.dir + "/shutdownall")
	s.prepare()
	var told []string
	for i := range scenarios {
		sc := &scenarios[i]
		if !strings.Contains(sc.name, *only) {
			continue
		}
		var pauses []time.Duration
		for range *repetitions {
			pauses = append(pauses, s.play(sc, 25, 25, 10))
		}
		told = append(told, sc.name+": "+summary(pauses))
	}
	t.Logf("\n%s", strings.Join(told, "\n"))
}

// prepare makes the table that clients write to.
func (s *stage) prepare() {
	s.t.Helper()
	c := s.server(0)
	defer c.Close(context.Background())
	if _, err := c.Exec(s.t.Context(), "create table scenario (v text primary key)"); err != nil {
		s.t.Fatal(err)
	}
}
