package pgpool_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
	"pgpool-go/tools/testcluster"
)

// lone is one server with pgpool before it.
func lone(t testing.TB, lines ...string) *front {
	c := testcluster.New(t, testcluster.Options{})
	return serve(t, c, append(backends(c, 1), lines...)...)
}

// later runs a login that may have to wait for a slot.
func (f *front) later(pairs ...string) <-chan *raw {
	done := make(chan *raw, 1)
	go func() {
		r, err := f.login(pairs...)
		if err != nil {
			f.t.Errorf("the client that waited: %v", err)
			close(done)
			return
		}
		done <- r
	}()
	return done
}

func (f *front) waiting(n int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("%d clients wait", n), func() bool { return f.Server.Slots().Waiting() == n })
}

// bye ends a session politely and waits until its slot is free.
func (f *front) bye(r *raw) {
	f.t.Helper()
	n := len(f.Server.Slots().Sessions())
	r.Write([]byte(message('X', "")))
	r.rest()
	r.Close()
	eventually(f.t, "the session has ended", func() bool { return len(f.Server.Slots().Sessions()) < n || f.Server.Slots().Waiting() > 0 })
}

// Clients without a slot wait, and are served in the order in which they came;
// those that give up are passed over.
func TestClientsWaitForSlots(t *testing.T) {
	f := lone(t, "num_init_children = 1")
	first := f.raw()
	second := f.later("application_name", "second")
	f.waiting(1)
	gone, err := f.dial()
	if err != nil {
		t.Fatal(err)
	}
	gone.Write([]byte(packet(v3, "user\x00postgres\x00database\x00postgres\x00\x00")))
	f.waiting(2)
	third := f.later("application_name", "third")
	f.waiting(3)
	gone.Close()
	f.waiting(2)
	first.Close()
	r := <-second
	select {
	case <-third:
		t.Error("the third client was served with the second")
	default:
	}
	r.expect(t, "T D(second) C(SHOW) Z(I)", q("show application_name"))
	r.Close()
	r = <-third
	r.expect(t, "T D(third) C(SHOW) Z(I)", q("show application_name"))
	r.Close()
	f.raw().expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
}

// A slot is handed on also when its client did not say good-bye, failed to log
// in, or was ended.
func TestSlotsAreFreed(t *testing.T) {
	f := lone(t, "num_init_children = 1")
	for i := range 30 {
		switch i % 5 {
		case 0:
			f.raw().Close()
		case 1:
			if _, err := f.login("user", "nobody"); code(err) != "28000" {
				t.Fatal(err)
			}
		case 2:
			r := f.raw()
			r.Write([]byte("\xff\xff\xff\xff\xff"))
			r.rest()
		case 3:
			r := f.raw()
			r.Write([]byte(sized('Q', 100)))
			r.Close()
		case 4:
			r := f.raw()
			r.send(q("select pg_terminate_backend(pg_backend_pid())"))
			r.rest()
		}
	}
	f.raw().expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
}

func TestReservedConnections(t *testing.T) {
	f := lone(t, "num_init_children = 3", "reserved_connections = 1")
	f.raw()
	r := f.raw()
	_, err := f.login()
	if err == nil || err.Error() != "FATAL 53300: Sorry, too many clients already " {
		t.Errorf("got %v", err)
	}
	f.bye(r)
	f.raw()
}

// pid is the server process behind a session's main connection.
func (r *raw) server(t testing.TB) string {
	t.Helper()
	v, err := r.value("/*NO LOAD BALANCE*/ select pg_backend_pid()")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// visit is a session that only looks which server process it has.
func (f *front) visit(pairs ...string) string {
	f.t.Helper()
	r := f.raw(pairs...)
	pid := r.server(f.t)
	f.bye(r)
	return pid
}

// What is kept serves only those who would have opened the very same.
func TestPooledConnectionsNeverCross(t *testing.T) {
	f := lone(t, "num_init_children = 4", "max_pool = 8")
	f.MustExec(0, "create role alice login; create database other")
	kinds := [][]string{
		{"user", "postgres"}, {"user", "alice"}, {"user", "postgres", "database", "other"},
		{"user", "postgres", "work_mem", "1MB"}, {"user", "postgres", "work_mem", "2MB"},
		{"user", "postgres", "application_name", "a"}, {"user", "postgres", "options", "-c geqo=off"},
		{"user", "postgres", "work_mem", "1MB", "geqo", "off"},
	}
	seen := make(map[string]int)
	for i, kind := range kinds {
		pid := f.visit(kind...)
		if other, is := seen[pid]; is {
			t.Errorf("%q got the connection of %q", kind, kinds[other])
		}
		seen[pid] = i
	}
	for i, kind := range kinds {
		if other, is := seen[f.visit(kind...)]; !is || other != i {
			t.Errorf("%q did not get its own connection again", kind)
		}
	}
	// The order in which settings come does not matter.
	if at := seen[f.visit("user", "postgres", "geqo", "off", "work_mem", "1MB")]; at != len(kinds)-1 {
		t.Error("the same settings in another order are another kind")
	}
}

// Nothing of a session is left for the next one.
func TestPooledConnectionsAreClean(t *testing.T) {
	f := lone(t, "num_init_children = 4")
	f.MustExec(0, "create table t (v text)")
	traces := `select concat_ws('|', current_setting('work_mem') = '4MB', current_setting('soak.x', true), current_user, current_schemas(false)::text,
		(select count(*) from pg_prepared_statements), (select count(*) from pg_cursors), (select count(*) from pg_listening_channels()),
		to_regclass('scratch')::text, (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'))`
	r := f.raw()
	clean, err := r.value(traces)
	if err != nil {
		t.Fatal(err)
	}
	f.bye(r)
	for _, dirt := range [][]string{
		{"set work_mem = '1MB'"}, {"set soak.x = 'x'"}, {"set role pg_monitor"}, {"create temp table scratch (v text)"},
		{"prepare p as select 1"}, {"begin", "declare c cursor for select 1"}, {"declare c cursor with hold for select 1"},
		{"listen soak"}, {"select pg_advisory_lock(1)"}, {"begin", "insert into t values ('never')"},
		{"begin", "selec"}, {"begin", "insert into t values ('never')", "savepoint a", "set search_path = nowhere"},
	} {
		r := f.raw()
		pid := r.server(t)
		for _, sql := range dirt {
			r.query(sql)
		}
		f.bye(r)
		r = f.raw()
		got, err := r.value(traces)
		// A setting that was made once leaves an empty string behind.
		if got = strings.Replace(got, "t||postgres", "t|postgres", 1); got != clean || err != nil {
			t.Errorf("after %q: %s, %v, want %s (same process: %t)", dirt, got, err, clean, pid == r.server(t))
		}
		f.bye(r)
	}
	if n := f.MustExec(0, "select count(*) from t"); n != "0" {
		t.Errorf("%s rows were committed by nobody", n)
	}
}

// A connection that was left in the middle of something is not kept.
func TestTaintedConnectionsAreClosed(t *testing.T) {
	f := lone(t, "num_init_children = 4")
	f.MustExec(0, "create table t (v text)")
	for name, in := range map[string]string{
		"a pipeline without Sync": message('P', "\x00insert into t values ('never')\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + message('H', ""),
		"a failed pipeline":       message('P', "\x00selec\x00\x00\x00") + message('H', ""),
		"half a Bind":             sized('B', 100000) + "\x00\x00\x00\x00" + strings.Repeat("x", 50000),
		"a COPY":                  message('Q', "copy t from stdin\x00") + message('d', "never\n"),
		"a running statement":     message('Q', "select repeat('x', 1000) from generate_series(1, 100000)\x00"),
	} {
		r := f.raw()
		pid := r.server(t)
		r.Write([]byte(in))
		if name == "a pipeline without Sync" {
			for range 3 { // it has run
				if _, err := r.next(); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.Close()
		eventually(t, "the session has ended", func() bool { return len(f.Server.Slots().Sessions()) == 0 })
		for _, idle := range f.Server.Idle() {
			if fmt.Sprint(idle.PID) == pid {
				t.Errorf("after %s the connection was kept", name)
			}
		}
		eventually(t, "the server process has ended", func() bool {
			return f.MustExec(0, "select count(*) from pg_stat_activity where pid = "+pid) == "0"
		})
	}
	if n := f.MustExec(0, "select count(*) from t"); n != "0" {
		t.Errorf("%s rows were committed by nobody", n)
	}
}

// All sessions want to know the same after a change of the schema. Few of them ask, so
// that there are hardly more connections than clients.
func TestFewAskAtOnce(t *testing.T) {
	f := lone(t, "num_init_children = 60")
	f.MustExec(0, "create table t (id int primary key)")
	const clients = 40
	var conns []*pgx.Conn
	for range clients {
		conns = append(conns, f.connect())
	}
	for range 3 {
		if _, err := conns[0].Exec(t.Context(), "create or replace view v as select * from t"); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for _, c := range conns {
			all.Go(func() {
				if _, err := c.Exec(t.Context(), "select * from v"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	held, _ := strconv.Atoi(f.MustExec(0, "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"))
	if held > clients+10 { // the monitor has some, too
		t.Errorf("%d clients have %d connections to the server", clients, held)
	}
}

func TestPoolLimits(t *testing.T) {
	t.Run("max_pool", func(t *testing.T) {
		f := lone(t, "num_init_children = 2", "max_pool = 2")
		for i := range 10 {
			f.visit("application_name", fmt.Sprint("a", i))
		}
		if n := len(f.Server.Idle()); n != 4 {
			t.Errorf("%d connections are kept, not 4", n)
		}
		// Those used last are kept.
		kept := make(map[string]bool)
		for _, idle := range f.Server.Idle() {
			kept[fmt.Sprint(idle.PID)] = true
		}
		if !kept[f.visit("application_name", "a9")] {
			t.Error("the one used last was not kept")
		}
	})
	t.Run("connection_cache off", func(t *testing.T) {
		f := lone(t, "connection_cache = off")
		if a, b := f.visit(), f.visit(); a == b || len(f.Server.Idle()) != 0 {
			t.Error("a connection was kept")
		}
	})
	for _, setting := range []string{"connection_life_time = 1", "child_life_time = 1"} {
		t.Run(setting, func(t *testing.T) {
			f := lone(t, setting)
			f.visit()
			if len(f.Server.Idle()) == 0 {
				t.Error("nothing was kept")
			}
			eventually(t, "it is closed", func() bool { return len(f.Server.Idle()) == 0 })
			f.checkLeaks(t)
		})
	}
	t.Run("child_max_connections", func(t *testing.T) {
		f := lone(t, "child_max_connections = 3")
		uses := make(map[string]int)
		for range 12 {
			uses[f.visit()]++
		}
		for pid, n := range uses {
			if n > 3 || len(uses) > 8 {
				t.Errorf("process %s served %d of 12 sessions: %v", pid, n, uses)
			}
		}
	})
	t.Run("a server that closes what is idle", func(t *testing.T) {
		f := lone(t)
		pid := f.visit()
		f.MustExec(0, "select pg_terminate_backend("+pid+")")
		eventually(t, "the pool knows", func() bool {
			for _, idle := range f.Server.Idle() {
				if fmt.Sprint(idle.PID) == pid {
					return false
				}
			}
			return true
		})
		f.visit()
	})
}

func TestResetQueries(t *testing.T) {
	t.Run("custom", func(t *testing.T) {
		f := lone(t, "reset_query_list = 'ABORT; DISCARD ALL; SET soak.reset = done'")
		a := f.visit()
		r := f.raw()
		if r.server(t) != a {
			t.Error("the connection was not kept")
		}
		r.expect(t, "T D(done) C(SELECT 1) Z(I)", q("select current_setting('soak.reset')"))
	})
	t.Run("failing", func(t *testing.T) {
		f := lone(t, "reset_query_list = 'ABORT; DISCARD ALL; SELECT 1/0'")
		if a, b := f.visit(), f.visit(); a == b {
			t.Error("a connection whose reset had failed was used again")
		}
	})
	t.Run("leaving a transaction open", func(t *testing.T) {
		f := lone(t, "reset_query_list = 'ABORT; DISCARD ALL; BEGIN'")
		if a, b := f.visit(), f.visit(); a == b {
			t.Error("a connection in a transaction was used again")
		}
	})
	t.Run("asking for data", func(t *testing.T) {
		f := lone(t, "reset_query_list = 'ABORT; CREATE TEMP TABLE x (v text); COPY x FROM STDIN'")
		if a, b := f.visit(), f.visit(); a == b {
			t.Error("a connection in COPY was used again")
		}
	})
}

func TestClientIdleLimit(t *testing.T) {
	f := lone(t, "client_idle_limit = 1")
	idle, block, busy := f.raw(), f.raw(), f.raw()
	block.expect(t, "C(BEGIN) Z(T)", q("begin"))
	if err := busy.send(q("select pg_sleep(3)")); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*raw{idle, block} {
		if got := r.rest(); got != "E(57P05) ." {
			t.Errorf("got %q", got)
		}
	}
	if got, err := busy.answers(); got != "T D() C(SELECT 1) Z(I)" {
		t.Errorf("the session at work: %q, %v", got, err)
	}
}

func TestAuthenticationTimeout(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{HBA: []string{"host all carol 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"}})
	c.MustExec(0, "create role carol login password 'secret'")
	f := serve(t, c, append(backends(c, 1), "authentication_timeout = 1", "allow_clear_text_frontend_auth = on")...)
	for name, in := range map[string]string{
		"silent":          "",
		"half a packet":   packet(v3, "user\x00postgres\x00\x00")[:10],
		"half a password": packet(v3, "user\x00carol\x00database\x00postgres\x00\x00") + sized('p', 10),
	} {
		r, err := f.dial()
		if err != nil {
			t.Fatal(err)
		}
		r.Write([]byte(in))
		if got := r.rest(); !strings.HasSuffix(got, "E(57014) .") {
			t.Errorf("%s: got %q", name, got)
		}
	}
	r := f.raw() // and whoever is in is not ended by it
	time.Sleep(1200 * time.Millisecond)
	r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
}

// secret logs in with a clear-text password.
func (f *front) secret(user, password string) (*raw, error) {
	r, err := f.dial()
	if err != nil {
		return nil, err
	}
	r.Write([]byte(packet(v3, "user\x00"+user+"\x00database\x00postgres\x00\x00")))
	if _, err := r.fe.Receive(); err != nil {
		return nil, err
	}
	r.Write([]byte(message('p', password+"\x00")))
	for {
		msg, err := r.next()
		if err != nil {
			return nil, err
		}
		if w := word(msg); w == "Z(I)" {
			return r, nil
		} else if strings.HasPrefix(w, "E") {
			return nil, fmt.Errorf("%s", w)
		}
	}
}

// A kept connection is for those who show the proof it was opened with; a wrong
// password is not let in over it.
func TestPasswordAndPool(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{HBA: []string{"host all carol 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"}})
	c.MustExec(0, "create role carol login password 'old'")
	f := serve(t, c, append(backends(c, 1), "allow_clear_text_frontend_auth = on")...)
	enter := func(password string) (string, error) {
		t.Helper()
		r, err := f.secret("carol", password)
		if err != nil {
			return "", err
		}
		pid := r.server(t)
		f.bye(r)
		return pid, nil
	}
	first, err := enter("old")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := enter("old"); err != nil || again != first {
		t.Errorf("got %s, %v, not the same connection", again, err)
	}
	if _, err := enter("wrong"); err == nil || err.Error() != "E(28P01)" {
		t.Errorf("a wrong password over a kept connection: %v", err)
	}
	c.MustExec(0, "alter role carol password 'new'")
	if second, err := enter("new"); err != nil || second == first {
		t.Errorf("the new password: %s, %v", second, err)
	}
}

// After many sessions there is as much in use as before.
func TestNothingIsLeftOfSessions(t *testing.T) {
	f := lone(t, "num_init_children = 8")
	connect := func(n int) {
		for range n {
			r, err := f.login()
			if err != nil {
				t.Fatal(err)
			}
			r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
			r.Close()
		}
		eventually(t, "all have left", func() bool { return len(f.Server.Slots().Sessions()) == 0 })
	}
	connect(50)
	memory, routines, files := heap(), runtime.NumGoroutine(), descriptors(t)
	connect(1000)
	eventually(t, "as much is in use as before", func() bool {
		return heap() < memory+1<<20 && runtime.NumGoroutine() <= routines+10 && descriptors(t) <= files+8
	})
	t.Logf("%d KB, %d goroutines, %d descriptors more", (int(heap())-int(memory))>>10, runtime.NumGoroutine()-routines, descriptors(t)-files)
}

func descriptors(t testing.TB) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// again starts another pgpool with the same files.
func (f *front) again() (*pgpool.Server, error) {
	s, err := pgpool.New(pgpool.Options{Paths: conf.Paths{Conf: filepath.Join(f.Dir, "pgpool.conf")}, DiscardStatus: true, Stderr: f.Log})
	if err != nil {
		return nil, err
	}
	return s, s.Start(f.t.Context())
}

func TestShutdownModes(t *testing.T) {
	long, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	t.Run("smart waits", func(t *testing.T) {
		f := lone(t)
		r := f.raw()
		done := make(chan error, 1)
		go func() { done <- f.Server.Shutdown(long, pgpool.Smart) }()
		eventually(t, "nobody is let in any more", func() bool {
			nc, err := net.Dial("tcp", r.addr)
			if err == nil {
				nc.Close()
			}
			return err != nil
		})
		r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
		select {
		case err := <-done:
			t.Errorf("it did not wait: %v", err)
		default:
		}
		r.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("fast ends sessions", func(t *testing.T) {
		f := lone(t, "num_init_children = 3")
		idle, busy, block := f.raw(), f.raw(), f.raw()
		busy.send(q("select pg_sleep(100)"))
		block.expect(t, "C(BEGIN) Z(T)", q("begin"))
		waits, err := f.dial()
		if err != nil {
			t.Fatal(err)
		}
		waits.Write([]byte(packet(v3, "user\x00postgres\x00database\x00postgres\x00\x00")))
		f.waiting(1)
		silent, err := f.dial()
		if err != nil {
			t.Fatal(err)
		}
		silent.Write([]byte("\x00\x00"))
		if err := f.Server.Shutdown(long, pgpool.Fast); err != nil {
			t.Error(err)
		}
		for name, r := range map[string]*raw{"idle": idle, "busy": busy, "block": block, "waiting": waits} {
			if got := r.rest(); !strings.HasSuffix(got, "E(57P01) .") {
				t.Errorf("%s: got %q", name, got)
			}
		}
		silent.rest()
	})
	t.Run("fast overtakes smart", func(t *testing.T) {
		f := lone(t)
		r := f.raw()
		done := make(chan error, 1)
		go func() { done <- f.Server.Shutdown(long, pgpool.Smart) }()
		eventually(t, "it has begun", func() bool {
			return strings.Contains(f.Log.String(), "received smart shutdown request") || strings.Contains(f.Log.String(), "Smart")
		})
		if err := f.Server.Shutdown(long, pgpool.Fast); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.rest()
	})
	t.Run("immediate", func(t *testing.T) {
		f := lone(t)
		r := f.raw()
		r.send(q("select pg_sleep(100)"))
		since := time.Now()
		if err := f.Server.Shutdown(long, pgpool.Immediate); err != nil {
			t.Error(err)
		}
		if took := time.Since(since); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		r.rest()
	})
}

// The port is free at once, a Unix socket that was left behind is taken over,
// and one that is in use is not.
func TestRestart(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	f := lone(t)
	for range 5 {
		r := f.raw()
		r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
		if err := f.Server.Shutdown(ctx, pgpool.Fast); err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(f.Socket, fmt.Sprintf(".s.PGSQL.%d", f.Port))
		if _, err := os.Stat(socket); err == nil {
			t.Errorf("%s was left behind", socket)
		}
		ln, err := net.Listen("unix", socket) // as after a crash
		if err != nil {
			t.Fatal(err)
		}
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		ln.Close()
		if f.Server, err = f.again(); err != nil {
			t.Fatal(err)
		}
		nc, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		nc.Write([]byte(packet(ssl, "")))
		if b, _ := io.ReadAll(io.LimitReader(nc, 1)); string(b) != "N" {
			t.Errorf("the socket says %q", b)
		}
		nc.Close()
	}
	f.t.Cleanup(func() { f.Server.Shutdown(context.Background(), pgpool.Fast) })
	if s, err := f.again(); err == nil {
		t.Error("two serve on one port")
		s.Shutdown(ctx, pgpool.Fast)
	}
}

// After a shutdown nothing of the server is left in the process.
func TestNothingIsLeftOfTheServer(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{})
	cycle := func() {
		f := serve(t, c, backends(c, 1)...)
		var clients []*raw
		for range 5 {
			clients = append(clients, f.raw())
		}
		clients[0].send(q("select pg_sleep(100)"))
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		if err := f.Server.Shutdown(ctx, pgpool.Fast); err != nil {
			t.Fatal(err)
		}
		for _, r := range clients {
			r.Close()
		}
	}
	cycle()
	routines, files := runtime.NumGoroutine(), descriptors(t)
	for range 5 {
		cycle()
	}
	eventually(t, "nothing is left", func() bool { return runtime.NumGoroutine() <= routines && descriptors(t) <= files })
}
