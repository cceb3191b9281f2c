package pgpool_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// turns is one server whose connections clients have in turns: one only, unless
// the lines say otherwise, so that each transaction finds what the one before it
// has left.
func turns(t testing.TB, lines ...string) *front {
	return lone(t, append([]string{"num_init_children = 40", "pool_mode = transaction", "pool_size = 1"}, lines...)...)
}

// What clients own goes with them, though all have one server connection.
func TestTurnsKeepSessionsApart(t *testing.T) {
	f := turns(t)
	f.MustExec(0, "create schema a; create schema b; create table a.t as select 'a' as x; create table b.t as select 'b' as x; create role other; grant pg_monitor to other")
	a, b := f.plain("application_name", "first", "timezone", "Asia/Tokyo"), f.plain("application_name", "second")
	steps := func(p *plain, list ...string) {
		t.Helper()
		for i := 0; i < len(list); i += 2 {
			if got := p.must(list[i]); got != list[i+1] {
				t.Errorf("%s: %q, want %q", list[i], got, list[i+1])
			}
		}
	}
	pid := a.must("select pg_backend_pid()")
	steps(b, "select pg_backend_pid()", pid, "show application_name", "second")
	steps(a, "set work_mem = '7MB'", "", "set search_path = a", "", "set role other", "", "set my.own = 'x''y'", "")
	steps(b, "show work_mem", "4MB", "select current_user", "postgres", "show search_path", `"$user", public`, "set search_path = b", "", "select x from t", "b", "show timezone", f.MustExec(0, "show timezone"))
	steps(a, "show work_mem", "7MB", "show search_path", "a", "select current_user", "other", "show my.own", "x'y", "show application_name", "first", "show timezone", "Asia/Tokyo")
	steps(a, "reset role", "", "select x from t", "a", "begin", "", "set local work_mem = '8MB'", "", "set search_path = b", "", "rollback", "")
	steps(b, "select x from t", "b", "set session authorization other", "")
	steps(a, "select session_user", "postgres", "show work_mem", "7MB", "select x from t", "a", "set application_name = 'renamed'", "", "reset timezone", "")
	steps(b, "select session_user", "other", "reset all", "", "show search_path", `"$user", public`, "select current_user", "other", "show application_name", "second", "reset session authorization", "")
	steps(a, "show timezone", "Asia/Tokyo", "discard all", "", "show work_mem", "4MB", "show timezone", "Asia/Tokyo", "show application_name", "first")
	// The parameters a driver believes are the client's own.
	steps(a, "set time zone 'Europe/Paris'", "")
	steps(b, "select 1", "1")
	if tz := a.ParameterStatus("TimeZone") + " " + b.ParameterStatus("application_name"); tz != "Europe/Paris second" {
		t.Errorf("the drivers believe in %s", tz)
	}
	// What a block or function sets unseen is found, and travels too.
	steps(a, "do $$begin perform set_config('work_mem', '9MB', false); end$$", "")
	steps(b, "show work_mem", "4MB")
	steps(a, "show work_mem", "9MB")
	f.MustExec(0, "create function sly() returns int language plpgsql as $$begin set work_mem = '10MB'; return 1; end$$; create table w (i int); "+
		"create function slyer() returns trigger language plpgsql as $$begin perform set_config('search_path', 'a', false); return new; end$$; "+
		"create trigger w before insert on w for each row execute function slyer()")
	c := f.plain()
	steps(c, "create table x ()", "") // now pgpool looks at the functions again
	steps(a, "select sly()", "1")
	steps(b, "show work_mem", "4MB", "insert into public.w values (1)", "")
	steps(a, "show work_mem", "10MB", "show search_path", `"$user", public`)
	steps(b, "show search_path", "a")
	if got := a.must("select pg_backend_pid()"); got != pid {
		t.Errorf("the server connection is another by now: %s, it was %s", got, pid)
	}
}

// Statements of one name are the clients' own, equal ones are shared.
func TestTurnsPreparedStatements(t *testing.T) {
	f := turns(t, "max_prepared_statements = 3")
	f.MustExec(0, "create table p (i int)")
	a, b := f.plain(), f.plain()
	prepare := func(p *plain, name, sql string) {
		t.Helper()
		if _, err := p.Prepare(t.Context(), name, sql, nil); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run := func(p *plain, name, want string) {
		t.Helper()
		r := p.ExecPrepared(t.Context(), name, nil, nil, nil).Read()
		var got []string
		for _, row := range r.Rows {
			got = append(got, line(row))
		}
		if s := strings.Join(got, "\n"); r.Err != nil || s != want {
			t.Errorf("%s: %q %v, want %q", name, s, r.Err, want)
		}
	}
	prepare(a, "s", "select 'of a'")
	prepare(b, "s", "select 'of b'")
	for range 3 {
		run(a, "s", "of a")
		run(b, "s", "of b")
	}
	prepare(a, "same", "select 42")
	prepare(b, "equal", "select 42")
	run(a, "same", "42")
	run(b, "equal", "42")
	for i := range 6 { // more than are kept
		prepare(a, fmt.Sprint("n", i), fmt.Sprint("select ", i))
	}
	for i := range 6 {
		run(a, fmt.Sprint("n", i), fmt.Sprint(i))
	}
	if n := b.must("select count(*), count(*) filter (where name like 'pgpool%') from pg_prepared_statements"); n != "2|0" {
		t.Errorf("a client with two statements sees %s", n)
	}
	// SQL's own.
	a.must("prepare q (int) as select $1 + 1")
	b.must("prepare q as select 'q of b'")
	if x, y := a.must("execute q(1)"), b.must("execute q"); x != "2" || y != "q of b" {
		t.Errorf("EXECUTE gives %s and %s", x, y)
	}
	a.must("deallocate q")
	if _, err := a.run("execute q(1)"); err == nil || !strings.Contains(err.Error(), `prepared statement "q" does not exist`) {
		t.Errorf("after DEALLOCATE: %v", err)
	}
	if got := b.must("execute q") + b.must("execute s"); got != "q of b"+"of b" {
		t.Errorf("EXECUTE gives %s", got)
	}
	// An error speaks of the client's name.
	_, err := a.ExecPrepared(t.Context(), "s", [][]byte{[]byte("1")}, nil, nil).Close()
	if err == nil || !strings.Contains(err.Error(), `but prepared statement "s" requires 0`) {
		t.Errorf("too many parameters: %v", err)
	}
	b.must("deallocate all")
	run(a, "s", "of a")
	if _, err := b.run("execute s"); err == nil {
		t.Error("a statement is there after DEALLOCATE ALL")
	}

	t.Run("after a change of the schema", func(t *testing.T) {
		prepare(a, "cols", "select * from p")
		run(a, "cols", "")
		f.MustExec(0, "alter table p add column s text; insert into p values (1, 'one')")
		prepare(b, "cols", "select * from p") // nothing old is this client's
		run(b, "cols", "1|one")
		r := a.ExecPrepared(t.Context(), "cols", nil, nil, nil).Read()
		if r.Err == nil || !strings.Contains(r.Err.Error(), "cached plan must not change result type") {
			t.Errorf("a client that knows one column reads %q, %v", r.Rows, r.Err)
		}
		run(b, "cols", "1|one")
		if _, err := f.Nodes[0].Exec("alter table p drop column s"); err != nil {
			t.Fatal(err)
		}
		c := f.plain()
		prepare(c, "mine", "select * from p")
		run(c, "mine", "1")
		run(a, "cols", "1") // as it was
	})
	t.Run("out of date unseen", func(t *testing.T) {
		raw := f.raw()
		raw.expect(t, "1 Z(I)", &pgproto3.Parse{Name: "r", Query: "select * from p"}, &pgproto3.Sync{})
		f.MustExec(0, "alter table p add column u text")
		raw.expect(t, "2 T D(1|\\N) C(SELECT 1) Z(I)",
			&pgproto3.Bind{PreparedStatement: "r"}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{})
	})
	t.Run("out of date when described", func(t *testing.T) {
		f.MustExec(0, "alter table p drop column u")
		raw := f.raw() // whose Parse of a known text no server need see
		raw.expect(t, "1 t T Z(I)", &pgproto3.Parse{Name: "r", Query: "select * from p"}, &pgproto3.Describe{ObjectType: 'S', Name: "r"}, &pgproto3.Sync{})
	})
	t.Run("gone", func(t *testing.T) {
		prepare(a, "there", "select 'still there'")
		a.must("do 'begin execute ''deallocate all''; end'")
		run(a, "there", "still there")
	})
}

// What cannot travel keeps the session where it is, until it has gone.
func TestTurnsPins(t *testing.T) {
	f := turns(t, "pool_size = 2", "pool_wait_timeout = 20")
	f.MustExec(0, "create extension if not exists dblink; create sequence seq")
	pinned := func() (reasons []string) {
		for _, v := range f.Server.Slots().Views() {
			if v.Pinned != "" {
				reasons = append(reasons, v.Pinned)
			}
		}
		return reasons
	}
	for _, c := range []struct{ hold, reason, free string }{
		{"create temp table tt (i int)", "temporary objects", "drop table tt"},
		{"create temp table tt (i int) on commit drop", "", ""},
		{"select pg_advisory_lock(7)", "advisory locks", "select pg_advisory_unlock(7)"},
		{"select pg_advisory_xact_lock(7)", "", ""},
		{"listen news", "LISTEN", "unlisten *"},
		{"begin; declare h cursor with hold for select 1; commit", "cursors WITH HOLD", "close h"},
		{"do $$begin perform pg_advisory_lock(8); create temp table tt (i int); end$$", "temporary objects", "discard all"},
		{"do $$begin null; end$$", "", ""},
		{"select nextval('seq'); select currval('seq')", "values of sequences", ""},
	} {
		p := f.plain()
		p.must(c.hold)
		if c.reason != "" {
			eventually(t, c.hold+" pins", func() bool { r := pinned(); return len(r) == 1 && strings.Contains(r[0], c.reason) })
			if shown := f.plain().must("show pool_processes"); !strings.Contains(shown, c.reason) {
				t.Errorf("%s: SHOW POOL_PROCESSES does not say why", c.hold)
			}
		}
		if c.free != "" {
			p.must(c.free)
		}
		if c.free != "" || c.reason == "" {
			eventually(t, c.hold+", and free", func() bool { return len(pinned()) == 0 })
		}
		p.Close(t.Context())
	}
	eventually(t, "all pins gone", func() bool { return len(pinned()) == 0 })
	// Nothing is left behind for others.
	p := f.plain()
	for range 3 {
		if got := p.must("select count(*) from pg_locks where locktype = 'advisory'"); got != "0" {
			t.Errorf("%s advisory locks are left", got)
		}
	}
	// Values of sequences are never another's.
	a, b := f.plain(), f.plain()
	a.must("select nextval('seq')")
	for range 4 {
		if got, err := b.run("select currval('seq')"); err == nil {
			t.Errorf("another client's value of a sequence: %s", got)
		}
		a.must("select nextval('seq')")
	}
}

// Who waits for a connection is served in turn, is told of a long wait, and does
// not wait for ever.
func TestTurnsQueue(t *testing.T) {
	f := turns(t, "pool_wait_notice = 1", "pool_wait_timeout = 3")
	holder := f.plain()
	holder.must("begin")
	var mu sync.Mutex
	var served []int
	var clients sync.WaitGroup
	waiting := func(n int) {
		eventually(t, fmt.Sprint(n, " wait"), func() bool {
			return strings.Contains(f.pools(), fmt.Sprintf(" waiting=%d", n))
		})
	}
	var list []*plain
	holder.must("commit")
	for range 5 {
		list = append(list, f.plain())
	}
	holder.must("begin")
	for i, p := range list {
		clients.Go(func() {
			p.must("select 1")
			mu.Lock()
			served = append(served, i)
			mu.Unlock()
		})
		waiting(i + 1)
	}
	holder.must("commit")
	clients.Wait()
	if fmt.Sprint(served) != "[0 1 2 3 4]" && len(served) != 5 {
		t.Errorf("served in the order %v", served)
	}

	notices := make(chan string, 10)
	cfg, err := pgconn.ParseConfig(f.URL(testcluster.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices <- n.Message }
	patient, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer patient.Close(context.Background())
	holder.must("begin")
	began := time.Now()
	_, err = patient.Exec(t.Context(), "select 2").ReadAll()
	if err == nil || !strings.Contains(err.Error(), "pool_wait_timeout") || time.Since(began) < 2*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if said := <-notices; !strings.Contains(said, "waiting for a connection to node 0") {
		t.Errorf("the notice says %q", said)
	}
	// The session goes on; and a reserve helps out.
	f.reload("reserve_pool_size = 1", "reserve_pool_timeout = 1")
	if r, err := patient.Exec(t.Context(), "select 3").ReadAll(); err != nil || string(r[0].Rows[0][0]) != "3" {
		t.Errorf("with a reserve: %v", err)
	}
	holder.must("commit")
}

// pools describes the shares.
func (f *front) pools() string {
	var b strings.Builder
	for _, v := range f.Server.Shares() {
		fmt.Fprintf(&b, "node=%d open=%d idle=%d waiting=%d\n", v.Node, v.Open, v.Idle, v.Waiting)
	}
	return b.String()
}

// However many clients there are, a server has no more connections than said; and
// a server process that ends takes one client's transaction with it and no more.
func TestTurnsCapAndLoss(t *testing.T) {
	f := turns(t, "pool_size = 3", "pool_mode = session", "pool_mode_user = 'post.*:transaction'", "min_pool_size = 1")
	f.MustExec(0, "create table n (i int)")
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 20 {
		p := f.plain()
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := p.run("begin; insert into n values (1); commit"); err != nil {
					if p.IsClosed() {
						return // its server was ended under it
					}
				}
			}
		})
	}
	const count = "select count(*) from pg_stat_activity where backend_type = 'client backend' and query like '%insert into n%' and pid <> pg_backend_pid()"
	eventually(t, "three connections are in use", func() bool { return f.MustExec(0, count) == "3" })
	for range 3 {
		f.MustExec(0, "select pg_terminate_backend(pid) from pg_stat_activity where query like '%insert into n%' and pid <> pg_backend_pid() limit 1")
		eventually(t, "three connections again", func() bool { return f.MustExec(0, count) == "3" })
	}
	close(stop)
	clients.Wait()
	eventually(t, "all are idle", func() bool {
		v := f.Server.Shares()
		return len(v) == 1 && v[0].Open == v[0].Idle && v[0].Open <= 3 && v[0].Waiting == 0
	})
}

// TestTurnsNamesBySQL: what PREPARE has made is there under its name, once, whatever
// server connection a statement goes to.
func TestTurnsNamesBySQL(t *testing.T) {
	f := prompt(t, "num_init_children = 8", "pool_mode = transaction", "pool_size = 2", "load_balance_mode = off")
	d, e, w := f.plain(), f.plain(), f.raw()
	e.must("begin") // has one of the two connections, which of them depends on who came last
	d.must("prepare a as select 1")
	e.must("commit")
	d.must("execute a; deallocate a")
	e.must("begin")
	d.must("prepare a as select 2")
	e.must("commit")
	if got := d.must("execute a"); got != "2" {
		t.Errorf("got %s", got)
	}
	e.must("begin")
	w.expect(t, "C(PREPARE) Z(I)", q("prepare z as select 1"))
	e.must("commit")
	w.expect(t, "E(42P05) Z(I)", parse("z", "select 2"), sync_)
	w.expect(t, "T D(1) C(SELECT 1) Z(I)", q("execute z"))
	e.must("begin")
	w.expect(t, "2 D(1) C(SELECT 1) Z(I)", bind("", "z"), execute("", 0), sync_)
	e.must("commit")
	w.expect(t, "2 D(1) C(SELECT 1) Z(I)", bind("", "z"), execute("", 0), sync_)
	w.expect(t, "t T Z(I)", describe('S', "z"), sync_)
	w.expect(t, "E(26000) Z(I)", bind("", "none"), closes('S', "z"), sync_)
	w.expect(t, "2 D(1) C(SELECT 1) Z(I)", bind("", "z"), execute("", 0), sync_)
	w.expect(t, "3 1 2 D(3) C(SELECT 1) Z(I)", closes('S', "z"), parse("z", "select 3"), bind("", "z"), execute("", 0), sync_)
}
