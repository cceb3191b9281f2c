package pgpool_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/pgpool"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/testcluster"
)

// settled waits until pgpool believes what want says of it.
func (f *front) settled(what string, want func(*cluster.Snapshot) bool) {
	f.t.Helper()
	eventually(f.t, what, func() bool { return want(f.Server.Snapshot()) })
}

func usable(node int, is bool) func(*cluster.Snapshot) bool {
	return func(s *cluster.Snapshot) bool { return s.Nodes[node].Usable() == is }
}

// reader is a session whose reads go to one standby.
func (f *front) reader(node int) *raw {
	f.t.Helper()
	r := f.raw()
	if got, err := r.value("select inet_server_port()"); err != nil || f.node(got) != node {
		f.t.Fatalf("reads at port %s, %v, not on node %d", got, err, node)
	}
	return r
}

// sticky is a cluster with two standbys where all reads of new sessions go to
// node 1 while it can be used.
func sticky(t testing.TB, lines ...string) *front {
	c := servers(t, testcluster.Options{Standbys: 2, Conf: map[string]string{"wal_receiver_timeout": "1s", "wal_retrieve_retry_interval": "100ms"}})
	return serve(t, c, append(append(backends(c, 0, 1, 0), "statement_level_load_balance = off", "connect_timeout = 2000",
		"write_function_list = 'setval'", // so that pg_sleep may be slept on a standby
		"health_check_timeout = 2"), lines...)...)
}

// A server that dies in the middle of a row: its client reads an error, and
// nobody else is disturbed.
func TestServerKilledInMidRow(t *testing.T) {
	f := sticky(t)
	w := f.raw()
	r := f.reader(1)
	rows := "select repeat('x', 1000000) from generate_series(1, 1000)"
	if err := r.send(q(rows)); err != nil {
		t.Fatal(err)
	}
	if msg, err := r.next(); err != nil || word(msg) != "T" {
		t.Fatal(msg, err)
	}
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	f.Must(f.Nodes[1].Kill())
	// What is left of the row that was cut cannot be had: an error in its place
	// would be read as a part of it. The connection ends.
	if got := r.rest(); !strings.HasSuffix(got, ".") {
		t.Errorf("got %.200q", got)
	}
	f.settled("node 1 is out", usable(1, false))
	w.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
	f.raw().expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
	f.Must(f.Nodes[1].Start())
	f.settled("node 1 is back", usable(1, true))
	f.reader(1)
}

// A read of which the client has not heard a byte is done again elsewhere, by
// either protocol. If it has heard one, or the read is not alone, it is not.
func TestServerKilledDuringStatement(t *testing.T) {
	f := sticky(t)
	slow := f.sleepsOn(1)
	flush := &pgproto3.Flush{}
	type messages []pgproto3.FrontendMessage
	cases := []struct {
		name   string
		before messages // and what comes before its answer ends
		heard  string
		sent   messages
		want   string // up to ReadyForQuery or the end
	}{
		{"simple", nil, "", messages{q(slow)}, "T D() C(SELECT 1) Z(I)"},
		{"unnamed", nil, "", messages{parse("", slow), bind("", ""), describe('P', ""), execute("", 0), sync_}, "1 2 T D() C(SELECT 1) Z(I)"},
		{"prepared", messages{parse("s", slow), describe('S', "s"), sync_}, "1 t T Z(I)", messages{bind("", "s"), execute("", 0), sync_}, "2 D() C(SELECT 1) Z(I)"},
		{"named with it", nil, "", messages{parse("s", slow), bind("p", "s"), execute("p", 0), closes('P', "p"), sync_}, "1 2 D() C(SELECT 1) 3 Z(I)"},
		{"two reads", nil, "", messages{parse("", "select 1"), bind("", ""), execute("", 0), parse("", slow), bind("", ""), execute("", 0), sync_},
			"1 2 D(1) C(SELECT 1) 1 2 D() C(SELECT 1) Z(I)"},
		{"flushed", nil, "", messages{parse("", slow), bind("", ""), execute("", 0), flush, sync_}, "1 2 D() C(SELECT 1) Z(I)"},
		{"heard of", messages{q("select 1"), parse("", slow), flush}, "T D(1) C(SELECT 1) Z(I) 1", messages{bind("", ""), execute("", 0), sync_}, "E(57P01) ."},
		{"in a block", messages{q("begin")}, "C(BEGIN) Z(T)", messages{parse("", slow), bind("", ""), execute("", 0), sync_}, "E(57P01) ."},
	}
	var clients []*raw
	for _, c := range cases {
		r := f.reader(1)
		clients = append(clients, r)
		if err := r.send(c.before...); err != nil {
			t.Fatal(err)
		}
		var got []string
		for len(strings.Join(got, " ")) < len(c.heard) {
			msg, err := r.next()
			if err != nil {
				t.Fatal(c.name, got, err)
			}
			got = append(got, word(msg))
		}
		if strings.Join(got, " ") != c.heard {
			t.Fatalf("%s: heard %q, want %q", c.name, got, c.heard)
		}
		if err := r.send(c.sent...); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all run", func() bool {
		return f.MustExec(1, "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep%' and pid <> pg_backend_pid()") == strconv.Itoa(len(cases))
	})
	f.Must(f.Nodes[1].Kill())
	for i, c := range cases {
		got := ""
		for got != c.want && !strings.HasSuffix(got, ".") {
			msg, err := clients[i].next()
			if err != nil {
				got += " ."
			} else {
				got = strings.TrimPrefix(got+" "+word(msg), " ")
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	clients[2].expect(t, "2 D() C(SELECT 1) Z(I)", bind("", "s"), execute("", 0), sync_)
}

// sleepsOn is a read that takes long on one node, and no time on others.
func (f *front) sleepsOn(node int) string {
	return fmt.Sprintf("select pg_sleep(case inet_server_port() when %d then 100 else 0 end)", f.Nodes[node].Port)
}

// running waits until a node runs a statement with this text.
func (f *front) running(node int, text string) {
	f.t.Helper()
	eventually(f.t, text+" runs", func() bool {
		return f.MustExec(node, "select count(*) from pg_stat_activity where state = 'active' and query like '%"+text+"%' and pid <> pg_backend_pid()") != "0"
	})
}

// A standby that stands still: whoever waits for it is served elsewhere, as soon as
// the health check has given it up; sessions that use it only now and then go on.
func TestStandbyPaused(t *testing.T) {
	f := sticky(t)
	waits, idle := f.reader(1), f.reader(1)
	if err := waits.send(q(f.sleepsOn(1))); err != nil {
		t.Fatal(err)
	}
	f.running(1, "pg_sleep")
	f.Must(f.Nodes[1].Pause())
	defer f.Nodes[1].Resume()
	if got, err := waits.answers(); err != nil || got != "T D() C(SELECT 1) Z(I)" {
		t.Errorf("got %q, %v", got, err)
	}
	f.settled("node 1 is out", usable(1, false))
	if v, err := idle.value("select inet_server_port()"); err != nil || f.node(v) == 1 {
		t.Errorf("the next read went to port %s, %v", v, err)
	}
	f.Must(f.Nodes[1].Resume())
	f.settled("node 1 is back", usable(1, true))
	f.reader(1)
}

// Sessions that are idle on a standby do not notice that it was restarted.
func TestStandbyRestarted(t *testing.T) {
	f := sticky(t)
	r, inBlock := f.reader(1), f.reader(1)
	r.expect(t, "C(SET) Z(I)", q("set soak.x = 'mine'"))
	inBlock.expect(t, "C(BEGIN) Z(T)", q("begin"))
	inBlock.expect(t, "T D(1) C(SELECT 1) Z(T)", q("select 1"))
	f.Must(f.Nodes[1].Restart(testcluster.Fast))
	f.settled("node 1 is back", usable(1, true))
	r.expect(t, "T D(mine) C(SELECT 1) Z(I)", q("select current_setting('soak.x')"))
	if v, err := r.value("select inet_server_port()"); err != nil || f.node(v) != 1 {
		t.Errorf("reads at port %s, %v", v, err)
	}
	inBlock.expect(t, "T D(2) C(SELECT 1) Z(T)", q("select 2"))
	inBlock.expect(t, "C(COMMIT) Z(I)", q("commit"))
}

// A block that saw a snapshot on a standby fails when the standby is lost, for
// another server would show it another snapshot.
func TestSnapshotLostWithStandby(t *testing.T) {
	f := sticky(t)
	r := f.reader(1)
	r.expect(t, "C(BEGIN) Z(T)", q("begin isolation level repeatable read"))
	r.expect(t, "T D(1) C(SELECT 1) Z(T)", q("select 1"))
	f.MustExec(1, "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name <> 'pgpool'")
	eventually(t, "it is gone", func() bool {
		return f.MustExec(1, "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name <> 'pgpool'") == "0"
	})
	r.expect(t, "E(40001) Z(E)", q("select 2"))
	r.expect(t, "E(25P02) Z(E)", q("select 2"))
	r.expect(t, "C(ROLLBACK) Z(I)", q("commit"))
	r.expect(t, "T D(2) C(SELECT 1) Z(I)", q("select 2"))
}

// Restarting the primary: new sessions find it as soon as it is there, and idle ones
// go on.
func TestPrimaryRestarted(t *testing.T) {
	f := sticky(t)
	r := f.reader(1)
	f.Must(f.Nodes[0].Restart(testcluster.Fast))
	f.settled("node 0 is back", func(s *cluster.Snapshot) bool { return s.Primary == 0 && s.Nodes[0].Usable() })
	f.raw().expect(t, "C(CREATE TABLE) Z(I)", q("create table t ()"))
	// It owned nothing there, so that it may go on, unless the restart was over
	// before it could be told from pg_terminate_backend.
	if got, _ := r.query("select 1"); got != "T D(1) C(SELECT 1) Z(I)" && !strings.HasPrefix(got, "E(57P01)") {
		t.Errorf("got %q", got)
	}
}

// pg_terminate_backend ends the session if it is its main server that goes, and
// is not felt if it is an idle reader.
func TestTerminateBackend(t *testing.T) {
	f := sticky(t)
	r := f.reader(1)
	kill := func(node int) {
		t.Helper()
		if n := f.MustExec(node, "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name <> 'pgpool'"); n == "0" {
			t.Fatalf("nobody on node %d", node)
		}
	}
	kill(1)
	r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
	if err := r.send(q("select pg_sleep(100)")); err != nil {
		t.Fatal(err)
	}
	f.running(1, "pg_sleep")
	kill(1)
	if got := r.rest(); !strings.HasSuffix(got, "E(57P01) .") {
		t.Errorf("got %q", got)
	}
	r = f.reader(1) // in a pipeline, whose Sync does not come
	if err := r.send(parse("", "select 'in a pipeline'"), bind("", ""), execute("", 0)); err != nil {
		t.Fatal(err)
	}
	f.running(1, "in a pipeline")
	kill(1)
	if got := r.rest(); got != "1 2 D(in a pipeline) C(SELECT 1) E(57P01) ." {
		t.Errorf("got %q", got)
	}
	r = f.reader(1)
	kill(0)
	if got := r.rest(); got != "E(57P01) ." {
		t.Errorf("got %q", got)
	}
	f.reader(1)
}

// A server that is full has a place again once we have given up what we keep
// there unused.
func TestServerFull(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Conf: map[string]string{"max_connections": "14", "superuser_reserved_connections": "3"}})
	f := serve(t, c, append(backends(c, 1), "num_init_children = 40", "max_pool = 4")...)
	for i := range 6 {
		c.MustExec(0, fmt.Sprintf("create role u%d login", i))
	}
	var held []*raw
	for i := range 6 { // one each, given back to the pool
		r := f.raw("user", fmt.Sprintf("u%d", i))
		held = append(held, r)
	}
	for _, r := range held {
		r.Close()
	}
	eventually(t, "all are idle", func() bool { return len(f.Server.Idle()) == 6 })
	var mine []*raw
	for range 8 { // of another user: the idle ones are in their way
		mine = append(mine, f.raw("user", "u0"))
	}
	for _, r := range mine {
		r.expect(t, "T D(u0) C(SELECT 1) Z(I)", q("select current_user"))
	}
	// And when nothing can be given up, the server's words are passed on.
	var err error
	for range 10 {
		var r *raw
		if r, err = f.login("user", "u1"); err != nil {
			break
		}
		defer r.Close()
	}
	if code(err) != "53300" {
		t.Errorf("got %v", err)
	}
	mine[0].expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
}

// Somebody promotes a standby: sessions follow it where they own nothing on the
// old primary, and are told where they do.
func TestPromotionByOthers(t *testing.T) {
	f := sticky(t)
	f.MustExec(0, "create table t (v text)")
	f.Must(f.WaitCatchup())
	follows, owns := f.reader(1), f.reader(1)
	follows.expect(t, "C(SET) Z(I)", q("set soak.x = 'mine'"))
	owns.expect(t, "C(CREATE TABLE) Z(I)", q("create temp table scratch (v text)"))
	f.Must(f.Nodes[2].Promote())
	f.Must(f.Nodes[0].Stop(testcluster.Fast))
	f.settled("node 2 is primary", func(s *cluster.Snapshot) bool { return s.Primary == 2 })
	r := f.raw()
	r.expect(t, "C(INSERT 0 1) Z(I)", q("insert into t values ('new')"))
	// The old primary was stopped under them.
	follows.expect(t, "C(INSERT 0 1) Z(I)", q("insert into t values (current_setting('soak.x'))"))
	if got := owns.rest(); got != "E(57P01) ." {
		t.Errorf("got %q", got)
	}
}

// The same while the old primary lives on, detached by an operator's hand or cut
// off from us.
func TestSessionsFollowPrimary(t *testing.T) {
	f := sticky(t)
	f.MustExec(0, "create table t (v text)")
	f.Must(f.WaitCatchup())
	follows, owns, busy := f.reader(1), f.reader(1), f.reader(1)
	follows.expect(t, "C(SET) Z(I)", q("set soak.x = 'mine'"))
	follows.expect(t, "1 Z(I)", parse("st", "insert into t select $1::text"), sync_)
	owns.expect(t, "C(CREATE TABLE) Z(I)", q("create temp table scratch (v text)"))
	busy.expect(t, "C(BEGIN) Z(T)", q("begin"))
	busy.expect(t, "C(INSERT 0 1) Z(T)", q("insert into t values ('old')"))
	f.Must(f.Nodes[1].Stop(testcluster.Fast))
	f.Must(f.Nodes[2].Promote())
	f.Must(f.Nodes[1].Follow(f.Nodes[2]))
	f.settled("node 2 is primary", func(s *cluster.Snapshot) bool { return s.Primary == 2 })
	follows.expect(t, "2 C(INSERT 0 1) Z(I)", bind("", "st", "new"), execute("", 0), sync_)
	if v, err := follows.value("/*NO LOAD BALANCE*/ select inet_server_port() || current_setting('soak.x')"); err != nil || v != fmt.Sprintf("%dmine", f.Nodes[2].Port) {
		t.Errorf("got %s, %v", v, err)
	}
	if got, err := owns.query("select 1"); err == nil || !strings.HasPrefix(got, "E(57P01)") {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := busy.query("commit"); err == nil {
		t.Logf("the block on the old primary ended with %s", got)
	}
	if n := f.MustExec(2, "select string_agg(v, ' ') from t"); n != "new" {
		t.Errorf("the new primary has %q", n)
	}
}

// All nodes go and come back, and no restart of ours is needed.
func TestAllNodesDownAndBack(t *testing.T) {
	f := sticky(t, "failover_hold_timeout = 0")
	r := f.reader(1)
	for _, n := range f.Nodes {
		f.Must(n.Stop(testcluster.Immediate))
	}
	f.settled("all are out", func(s *cluster.Snapshot) bool {
		return !s.Nodes[0].Usable() && !s.Nodes[1].Usable() && !s.Nodes[2].Usable()
	})
	r.expect(t, "E(57P03) Z(I)", q("select 1")) // it owned nothing on the servers, so that it may go on
	if r, err := f.login(); err == nil || code(err) != "57P03" {
		t.Errorf("got %v, %v", r, err)
	}
	var all sync.WaitGroup
	for _, n := range f.Nodes {
		all.Go(func() {
			if err := n.Start(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	f.settled("all are back", func(s *cluster.Snapshot) bool {
		return s.Primary == 0 && s.Nodes[0].Usable() && s.Nodes[1].Usable() && s.Nodes[2].Usable()
	})
	r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
	f.reader(1)
	f.raw().expect(t, "C(CREATE TABLE) Z(I)", q("create table t ()"))
}

// A node that swallows what it is sent, and answers nothing, does not hold up a
// shutdown, nor others.
func TestSilentNode(t *testing.T) {
	f := sticky(t, "connect_timeout = 60000", "health_check_timeout = 60")
	w := f.raw()
	f.Must(f.Nodes[1].Pause())
	defer f.Nodes[1].Resume()
	r := f.raw()
	r.send(q("select 1")) // wants a connection to node 1
	w.expect(t, "T D(1) C(SELECT 1) Z(I)", q("/*NO LOAD BALANCE*/ select 1"))
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	since := time.Now()
	if err := f.Server.Shutdown(ctx, pgpool.Fast); err != nil {
		t.Error(err)
	}
	if took := time.Since(since); took > 5*time.Second {
		t.Errorf("the shutdown took %v", took)
	}
	if got := r.rest(); !strings.HasSuffix(got, "E(57P01) .") {
		t.Errorf("got %q", got)
	}
}

// A Close goes to the standby that has the statement, which need not have been told
// yet that the client has rolled back to a savepoint: that its half of the block
// still counts as failed must not show.
func TestCloseOnAStandbyBehindTheBlock(t *testing.T) {
	f := sticky(t, "disable_load_balance_on_write = dml_adaptive")
	r := f.reader(1)
	r.expect(t, "C(BEGIN) Z(T)", q("begin"))
	r.expect(t, "C(SAVEPOINT) Z(T)", q("savepoint s"))
	if got, err := r.value("select inet_server_port()"); err != nil || f.node(got) != 1 {
		t.Fatalf("the block reads at port %s, %v", got, err)
	}
	r.expect(t, "1 2 D(1) C(SELECT 1) Z(T)", &pgproto3.Parse{Name: "n", Query: "select 1"},
		&pgproto3.Bind{PreparedStatement: "n"}, &pgproto3.Execute{}, &pgproto3.Sync{})
	r.expect(t, "T E(22012) Z(E)", q("select 1/(length(inet_server_addr()::text)-length(inet_server_addr()::text))"))
	r.expect(t, "C(ROLLBACK) Z(T)", q("rollback to s"))
	r.expect(t, "3 Z(T)", &pgproto3.Close{ObjectType: 'S', Name: "n"}, &pgproto3.Sync{})
	r.expect(t, "T D(1) C(SELECT 1) Z(T)", q("select 1"))
	r.expect(t, "C(COMMIT) Z(I)", q("commit"))
}
