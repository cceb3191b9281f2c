package pgpool_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pgpool-go/tools/testcluster"
)

// prompt is usual with a primary that waits for its standbys to apply each commit,
// so that a read tells where it was sent and not how far replication is.
func prompt(t testing.TB, lines ...string) *front {
	t.Helper()
	c := servers(t, testcluster.Options{Standbys: 2, Conf: map[string]string{
		"synchronous_standby_names": "ANY 2 (*)", "synchronous_commit": "remote_apply"}})
	return serve(t, c, append(backends(c, 1, 1, 1), lines...)...)
}

// everywhere asks until each node has answered, and wants the same of all.
func (p *plain) everywhere(f *front, expression, want string) {
	p.t.Helper()
	seen := make(map[int]bool)
	for range 200 {
		port, got, _ := strings.Cut(p.must("select inet_server_port(), "+expression), "|")
		seen[f.node(port)] = true
		if got != want {
			p.t.Errorf("node %d: %s is %q instead of %q", f.node(port), expression, got, want)
			return
		}
		if len(seen) == len(f.Nodes) || !f.spreads() {
			return
		}
	}
	p.t.Errorf("200 reads, and only nodes %v were asked", seen)
}

// A session's settings are the same on whichever server answers.
func TestSettingsAreTheSameEverywhere(t *testing.T) {
	f := prompt(t)
	c := f.plain()
	c.must("create schema a; create schema b; create table a.t as select 'a' as x; create table b.t as select 'b' as x; create role other; grant usage on schema a to other; grant select on a.t to other")
	const mem, path, user = "current_setting('work_mem')", "current_setting('search_path')", "current_user"
	for _, step := range []struct{ run, expression, want string }{
		{"set work_mem = '5MB'", mem, "5MB"},
		{"begin; set work_mem = '6MB'; rollback", mem, "5MB"},
		{"begin; set work_mem = '6MB'; commit", mem, "6MB"},
		{"begin; set local work_mem = '7MB'; commit", mem, "6MB"},
		{"begin; set work_mem = '7MB'; savepoint s; set work_mem = '8MB'; rollback to s; commit", mem, "7MB"},
		{"reset work_mem", mem, "4MB"},
		{"select set_config('work_mem', '9MB', false)", mem, "9MB"},
		{"reset all", mem, "4MB"},
		{"set search_path = a", path, "a"},
		{"set search_path = b, a", path, "b, a"},
		{"set role other", user, "other"},
		{"reset role", user, "postgres"},
		{"set session authorization other", user, "other"},
		{"reset session authorization", user, "postgres"},
		{"set time zone 'Asia/Tokyo'", "current_setting('timezone')", "Asia/Tokyo"},
		{"set my.own = 'x y'", "current_setting('my.own')", "x y"},
		{"discard all", path, `"$user", public`},
	} {
		c.must(step.run)
		if t.Logf("%s", step.run); t.Failed() {
			break
		}
		c.everywhere(f, step.expression, step.want)
	}
	c.must("set search_path = a")
	c.everywhere(f, "(select x from t)", "a")
	c.must("set search_path = b")
	c.everywhere(f, "(select x from t)", "b")

	t.Run("from the start", func(t *testing.T) {
		f.plain("options", "-c work_mem=3MB", "search_path", "a").everywhere(f, mem+" || (select x from t)", "3MBa")
	})
	t.Run("and not the next client's", func(t *testing.T) {
		d := f.plain()
		d.must("set work_mem = '1MB'")
		d.everywhere(f, mem, "1MB")
		d.Close(t.Context())
		f.plain().everywhere(f, mem, "4MB")
	})
}

// What exists on the primary alone is looked for there.
func TestOwnObjectsAreFound(t *testing.T) {
	f := prompt(t)
	c := f.plain()
	c.must(`
create sequence s; create table log (i int);
create function noisy() returns int language sql as 'insert into log values (1) returning i';
create function quiet() returns int language sql stable as 'select count(*)::int from log'`)
	for range 10 {
		for _, step := range []struct{ sql, want string }{
			{"create temp table tt (i int); insert into tt values (1)", ""},
			{"select i from tt", "1"},
			{"select 'tt'::regclass", "tt"},
			{"select to_regclass('tt')", "tt"},
			{"drop table tt", ""},
			{"select nextval('s') is null", "f"},
			{"select pg_try_advisory_lock(1)", "t"},
			{"select pg_advisory_unlock(1)", "t"},
			{"select noisy()", "1"},
			{"select quiet() = (select count(*) from log)", "t"},
			{"begin; declare c cursor for select generate_series(1, 3); fetch 2 from c", "1\n2"},
			{"fetch 2 from c; commit", "3"},
			{"declare h cursor with hold for select 1; fetch h; close h", "1"},
			{"prepare p as select 4; execute p; deallocate p", "4"},
			{"select lo_unlink(lo_create(0))", "1"},
			{"create type pg_temp.r as (i int); select (row(1)::pg_temp.r).i; drop type pg_temp.r", "1"},
		} {
			if got := c.must(step.sql); got != step.want {
				t.Fatalf("%s: %q instead of %q", step.sql, got, step.want)
			}
		}
	}
	if n := f.MustExec(0, "select count(*) from log"); n != "10" {
		t.Errorf("the function ran %s times instead of 10", n)
	}
}

func TestPreparedStatements(t *testing.T) {
	f := prompt(t)
	setup := f.plain()
	setup.must("create table t (a int, b text); insert into t values (1, 'x')")

	t.Run("known to SQL under their names", func(t *testing.T) {
		for range 10 {
			c := f.connect()
			ctx := t.Context()
			if _, err := c.Prepare(ctx, "ps", "select a from t where a = $1"); err != nil {
				t.Fatal(err)
			}
			var n int
			if err := c.QueryRow(ctx, "execute ps(1)", pgx.QueryExecModeSimpleProtocol).Scan(&n); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			if err := c.QueryRow(ctx, "select count(*) from pg_prepared_statements where name = 'ps'", pgx.QueryExecModeExec).Scan(&n); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			if _, err := c.Exec(ctx, "deallocate ps", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			if err := c.QueryRow(ctx, "select count(*) from pg_prepared_statements", pgx.QueryExecModeSimpleProtocol).Scan(&n); err != nil || n != 0 {
				t.Fatal(n, err)
			}
			c.Close(ctx)
		}
	})

	t.Run("closed on every server", func(t *testing.T) {
		c := f.connect("default_query_exec_mode", "simple_protocol", "application_name", "closing")
		ctx := t.Context()
		for i := range 20 {
			name := fmt.Sprintf("s%d", i)
			if _, err := c.Prepare(ctx, name, "select a from t where a = $1"); err != nil {
				t.Fatal(err)
			}
			for range 10 { // sooner or later on every node
				if r := c.PgConn().ExecPrepared(ctx, name, [][]byte{[]byte("1")}, nil, nil).Read(); r.Err != nil || len(r.Rows) != 1 {
					t.Fatal(r.Err)
				}
				if r := c.PgConn().ExecParams(ctx, "select 1 from t where false", nil, nil, nil, nil).Read(); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			if err := c.Deallocate(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		// Reuse of the names shows what has been left behind: a name that a server
		// still has is refused there.
		for i := range 20 {
			name := fmt.Sprintf("s%d", i)
			if _, err := c.Prepare(ctx, name, "select b from t where a = $1"); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				r := c.PgConn().ExecPrepared(ctx, name, [][]byte{[]byte("1")}, nil, nil).Read()
				if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != "x" {
					t.Fatal(r.Err, r.Rows)
				}
			}
		}
	})

	t.Run("fail when their columns have changed", func(t *testing.T) {
		for i := range 6 {
			c := f.connect()
			ctx := t.Context()
			if _, err := c.Prepare(ctx, "ps", "select * from t"); err != nil {
				t.Fatal(err)
			}
			setup.must(fmt.Sprintf("alter table t add column c%d int", i))
			for range 10 { // on no node in another shape than the client knows
				if r := c.PgConn().ExecPrepared(ctx, "ps", nil, nil, nil).Read(); sqlstate(r.Err) != "0A000" {
					t.Fatalf("%d columns, %v", len(r.FieldDescriptions), r.Err)
				}
			}
			alive(t, c)
			c.Close(ctx)
		}
	})
}
