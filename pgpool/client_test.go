package pgpool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/tools/testcluster"
)

func TestReadsAreSpread(t *testing.T) {
	f := usual(t)
	c := f.plain()
	c.must("create table t as select generate_series(1, 10) i")
	f.Must(f.WaitCatchup())
	count := make(map[int]int)
	for range 60 {
		count[f.node(c.must("select inet_server_port() from t limit 1"))]++
	}
	switch spread := count[0] == 0 && count[1] >= 10 && count[2] >= 10; {
	case f.spreads() && !spread, !f.spreads() && count[0] != 60:
		t.Errorf("reads per node: %v", count)
	}
	for _, sql := range []string{"insert into t values (1) returning inet_server_port()", "select inet_server_port() from t where i = 2 for update"} {
		if n := f.node(c.must(sql)); n != 0 {
			t.Errorf("%s: node %d", sql, n)
		}
	}
}

func TestPgbench(t *testing.T) {
	f := usual(t, "num_init_children = 40")
	f.mustProgram("", "pgbench", "-i", "-s", "1", "-q")
	f.Must(f.WaitCatchup())
	pipeline, err := f.WriteFile("pipeline.sql", `
\set aid random(1, 100000)
\startpipeline
select abalance from pgbench_accounts where aid = :aid;
update pgbench_accounts set abalance = abalance + 1 where aid = :aid;
select abalance from pgbench_accounts where aid = :aid;
begin;
select 1;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, :aid, 1, current_timestamp);
end;
select count(*) from pgbench_branches;
\endpipeline
`, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		work := [][]string{{"-S"}, {"-N"}, {"-b", "tpcb-like"}, {"-S", "-C"}}
		if mode != "simple" {
			work = append(work, []string{"-f", pipeline})
		}
		for _, w := range work {
			t.Run(mode+" "+filepath.Base(strings.Join(w, " ")), func(t *testing.T) {
				if f.mode == "snapshot_isolation" && (w[0] == "-N" || w[0] == "-b") { // transactions are REPEATABLE READ there
					w = append(w, "--max-tries=10000")
				}
				out := f.mustProgram("", "pgbench", append([]string{"-n", "-c", "16", "-t", "25", "-M", mode}, w...)...)
				if !strings.Contains(out, "processed: 400/400") || !strings.Contains(out, "failed transactions: 0 ") {
					t.Error(out)
				}
			})
		}
	}
}

// What a dump has to carry: every kind of object, odd names, binary and large data.
const dumpable = `
create table a (i int primary key, t text, b bytea, n numeric, at timestamptz, j jsonb);
insert into a select i, md5(i::text) || E'\\\t\n"x', decode(md5(i::text), 'hex'), i / 7.0, now(), '{"k": [1, "ü"]}' from generate_series(1, 20000) i;
insert into a values (0, repeat('large ', 1000000));
create table "odd "" name; -- ü" (like a including all);
insert into "odd "" name; -- ü" select * from a limit 100;
create sequence s; select setval('s', 42);
create view v as select * from a where i < 10;
create function f(int) returns int language sql as 'select $1';
create materialized view mv as select count(*) from a;
create type e as enum ('a', 'b'); create table te (x e); insert into te values ('a'), ('b');
select lo_from_bytea(4711, decode(repeat('ab', 100000), 'hex'));
comment on table a is 'it''s';
`

// dump is a database as its own server gives it, without what differs from run to run.
func (f *front) dump(database string) string {
	f.t.Helper()
	n := f.Nodes[0]
	out := f.mustProgram("", "pg_dump", "-h", n.Host, "-p", fmt.Sprint(n.Port), database)
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(out, "")
}

func TestDumpAndRestore(t *testing.T) {
	f := usual(t)
	for _, db := range []string{"src", "piped", "parallel"} {
		f.mustProgram("", "createdb", db)
	}
	f.mustProgram(dumpable, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "src")
	f.Must(f.WaitCatchup())
	want := f.dump("src")

	text := f.mustProgram("", "pg_dump", "src")
	f.mustProgram(text, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "piped")
	if f.dump("piped") != want {
		t.Error("pg_dump | psql: the databases differ")
	}

	dir := filepath.Join(f.Cluster.Dir, "dump")
	f.mustProgram("", "pg_dump", "-Fd", "-j", "3", "-f", dir, "src")
	f.mustProgram("", "pg_restore", "-j", "3", "-d", "parallel", dir)
	if f.dump("parallel") != want {
		t.Error("pg_dump -j, pg_restore -j: the databases differ")
	}
	// Idle server connections of ours do not hold these up.
	f.mustProgram("", "createdb", "-T", "parallel", "copied")
	f.mustProgram("", "psql", "-Xq", "-c", "alter database copied rename to renamed")
	for _, db := range []string{"piped", "parallel", "renamed"} {
		f.mustProgram("", "dropdb", db)
	}
}

func TestAdministrationPrograms(t *testing.T) {
	f := usual(t)
	f.mustProgram("create table t (i int primary key); cluster t using t_pkey", "psql", "-Xq")
	f.Must(f.WaitCatchup())
	for _, args := range [][]string{
		{"vacuumdb", "-z", "-j", "2", "postgres"}, {"reindexdb", "-t", "t", "postgres"}, {"clusterdb", "postgres"},
		{"createuser", "x"}, {"dropuser", "x"}, {"pg_isready"}, {"vacuumlo", "postgres"}, {"pg_dumpall", "--globals-only"},
	} {
		f.mustProgram("", args[0], args[1:]...)
	}
}

// TestPsql has psql do the same through us and directly, and compares what it prints.
func TestPsql(t *testing.T) {
	f := usual(t)
	for _, db := range []string{"through", "direct"} {
		f.mustProgram("", "createdb", db)
	}
	const script = `
create table t (i int primary key, s text default 'x'); create view v as select * from t;
create function add(int, int) returns int language sql as 'select $1 + $2';
\d
\d t
\d+ v
\df
\du
\dn
select 1 as x \gdesc
select generate_series(1, 5) as n \gset
select :n;
select 1 \; select 2 \; select 'three';
begin; declare c cursor for select * from generate_series(1, 10); fetch 3 from c; move 2 from c; fetch all from c; commit;
begin; select 1/0; select 1; rollback;
savepoint nowhere;
begin; savepoint a; select 1/0; rollback to a; select 'again'; commit;
set search_path = pg_catalog; show search_path; select current_setting('search_path'); reset search_path;
select pg_advisory_lock(1); select pg_advisory_unlock(1);
create temp table tt (a int); insert into tt values (1); select * from tt; select 'tt'::regclass;
prepare p as select 1; execute p; deallocate p; execute p;
create temp sequence sq; select nextval('sq'); select currval('sq'), lastval();
set role nobody_has_this;
set role pg_monitor; select current_user; reset role; select current_user;
copy (select i from generate_series(1, 3) i) to stdout;
copy tt from stdin;
2
x
\.
copy tt from stdin;
2
\.
select count(*) from tt;
\set FETCH_COUNT 3
select * from generate_series(1, 10) i;
\unset FETCH_COUNT
select 'wide', repeat('x', 100000);
do $$begin raise notice 'said by the server'; raise warning 'and warned'; end$$;
set client_encoding = latin1; select 'x'; reset client_encoding;
select * from nosuch;
select 'not terminated
;
';
explain (costs off) select * from t where i = 1;
`
	n := f.Nodes[0]
	args := []string{"-X", "-v", "SHOW_CONTEXT=never", "-f", "-"}
	wantOut, wantErr, err := f.program(script, "psql", append(args, "-d", "direct", "-h", n.Host, "-p", fmt.Sprint(n.Port))...)
	if err != nil {
		t.Fatal(err, wantErr)
	}
	f.Must(f.WaitCatchup())
	// A standby may be behind for a moment; what this test asks is whether it is asked the right thing.
	if !replicates(f.mode) {
		f.MustExec(0, "alter system set synchronous_standby_names = '*'")
		f.MustExec(0, "alter system set synchronous_commit = 'remote_apply'")
		f.Must(f.Nodes[0].Reload())
	}
	gotOut, gotErr, err := f.program(script, "psql", append(args, "-d", "through")...)
	if err != nil {
		t.Fatal(err, gotErr)
	}
	if got, want := gotOut+gotErr, wantOut+wantErr; got != want {
		t.Errorf("psql prints\n%s", difference(got, want))
	}
}

// difference shows the lines around the first one that differs.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	at := 0
	for at < len(g) && at < len(w) && g[at] == w[at] {
		at++
	}
	show := func(lines []string) string {
		return strings.Join(lines[min(max(0, at-3), len(lines)):min(at+5, len(lines))], "\n")
	}
	return fmt.Sprintf("at line %d\n%.2000s\n---- instead of\n%.2000s", at+1, show(g), show(w))
}

func TestCopy(t *testing.T) {
	f := usual(t)
	file := filepath.Join(f.Cluster.Dir, "rows")
	f.mustProgram(`
create table t (i int, s text);
insert into t select i, repeat('some text ', i % 100) from generate_series(1, 100000) i;
`, "psql", "-Xq")
	f.Must(f.WaitCatchup())
	f.mustProgram("create table u (like t);\n\\copy t to '"+file+"'\n\\copy u from '"+file+"'\n", "psql", "-Xq", "-v", "ON_ERROR_STOP=1")
	f.Must(f.WaitCatchup())
	sum := "select count(*), sum(hashtext(i || s)) from "
	c := f.connect()
	var a, b [2]int64
	for table, into := range map[string]*[2]int64{"t": &a, "u": &b} {
		if err := c.QueryRow(t.Context(), sum+table).Scan(&into[0], &into[1]); err != nil {
			t.Fatal(err)
		}
	}
	if a != b || a[0] != 100000 {
		t.Errorf("copied out and in again: %v of %v", b, a)
	}

	t.Run("by the driver", func(t *testing.T) {
		rows := func(i int) ([]any, error) {
			if i == 100000 {
				return nil, nil
			}
			return []any{int32(i), "a row of the driver's"}, nil
		}
		next := 0
		n, err := c.CopyFrom(t.Context(), pgx.Identifier{"u"}, []string{"i", "s"}, pgx.CopyFromFunc(func() ([]any, error) { next++; return rows(next) }))
		if err != nil || n != 99999 {
			t.Error(n, err)
		}
	})
	t.Run("an error midway", func(t *testing.T) {
		bad := strings.Repeat("1\tx\n", 50000) + "x\tx\n" + strings.Repeat("1\tx\n", 500000)
		_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(bad), "copy u from stdin")
		if sqlstate(err) != "22P02" {
			t.Error(err)
		}
		alive(t, c)
	})
	t.Run("the client gives up", func(t *testing.T) {
		broken := io.MultiReader(strings.NewReader(strings.Repeat("1\tx\n", 5000)), failing{})
		_, err := c.PgConn().CopyFrom(t.Context(), broken, "copy u from stdin")
		if sqlstate(err) != "57014" {
			t.Error(err)
		}
		alive(t, c)
	})
	t.Run("the table is not there", func(t *testing.T) {
		if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n"), "copy nosuch from stdin"); sqlstate(err) != "42P01" {
			t.Error(err)
		}
		if _, err := c.PgConn().CopyTo(t.Context(), io.Discard, "copy nosuch to stdout"); sqlstate(err) != "42P01" {
			t.Error(err)
		}
		alive(t, c)
	})
	t.Run("out, from where it reads", func(t *testing.T) {
		var out bytes.Buffer
		if _, err := c.PgConn().CopyTo(t.Context(), &out, "copy (select inet_server_port()) to stdout"); err != nil {
			t.Fatal(err)
		}
		if n := f.node(strings.TrimSpace(out.String())); (n != 0) != f.spreads() {
			t.Errorf("node %d answered", n)
		}
	})
}

// failing is a file that cannot be read.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken") }

// sqlstate is the SQLSTATE of an error.
func sqlstate(err error) string {
	var no *pgconn.PgError
	if errors.As(err, &no) {
		return no.Code
	}
	return ""
}

// alive fails the test unless a connection is in step and outside a transaction.
func alive(t *testing.T, c *pgx.Conn) {
	t.Helper()
	var n int
	if err := c.QueryRow(t.Context(), "select $1::int", 42).Scan(&n); err != nil || n != 42 || c.PgConn().TxStatus() != 'I' {
		t.Errorf("connection afterwards: %d, %v, status %c", n, err, c.PgConn().TxStatus())
	}
}

// TestCancel presses Ctrl-C in psql.
func TestCancel(t *testing.T) {
	for name, lines := range map[string][]string{
		"on the primary": nil,                                      // pg_sleep is volatile
		"on a standby":   {"read_only_function_list = 'pg_sleep'"}, // unless the operator knows better
	} {
		t.Run(name, func(t *testing.T) {
			f := usual(t, lines...)
			psql, err := f.Program("psql")
			f.Must(err)
			cmd, err := testcluster.Command(t.Context(), psql, "-X", "-c", "select pg_sleep(60)")
			f.Must(err)
			cmd.Env = append(cmd.Env, f.env()...)
			var words bytes.Buffer
			cmd.Stderr = &words
			f.Must(cmd.Start())
			on := -1
			eventually(t, "pg_sleep is running", func() bool {
				for _, n := range f.Nodes {
					if f.MustExec(n.ID, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'") == "1" {
						on = n.ID
					}
				}
				return on >= 0
			})
			if (on == 0) != (lines == nil || !f.spreads()) {
				t.Errorf("pg_sleep is running on node %d", on)
			}
			began := time.Now()
			f.Must(cmd.Process.Signal(syscall.SIGINT))
			cmd.Wait()
			if took := time.Since(began); took > time.Second || !strings.Contains(words.String(), "canceling statement due to user request") {
				t.Errorf("cancelled after %v: %s", took, words.String())
			}
		})
	}
}

func TestNotify(t *testing.T) {
	f := usual(t)
	listener, other := f.connect(), f.connect()
	run := func(c *pgx.Conn, sql string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run(listener, "listen news")
	for i := range 3 { // while the client is idle
		run(other, fmt.Sprintf("notify news, 'no. %d'", i))
		ctx, stop := context.WithTimeout(t.Context(), patience)
		n, err := listener.WaitForNotification(ctx)
		stop()
		if err != nil || n.Channel != "news" || n.Payload != fmt.Sprintf("no. %d", i) {
			t.Fatal(n, err)
		}
	}
	run(listener, "notify news, 'to myself'") // with the statement's own reply
	run(listener, "select 1")
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if n, err := listener.WaitForNotification(ctx); err != nil || n.Payload != "to myself" {
		t.Fatal(n, err)
	}
	// A reply of a standby comes after the notifications committed before it was asked.
	for i := range 20 {
		run(other, fmt.Sprintf("notify news, 'before %d'", i))
		run(listener, "select 1")
		now, stop := context.WithCancel(t.Context())
		stop()
		if n, err := listener.WaitForNotification(now); err != nil || n.Payload != fmt.Sprintf("before %d", i) {
			t.Fatal(n, err)
		}
	}
	run(listener, "unlisten *")
}

func TestReplicationPrograms(t *testing.T) {
	f := usual(t)
	backup := filepath.Join(f.Cluster.Dir, "backup")
	f.mustProgram("", "pg_basebackup", "-D", backup, "-X", "stream", "-c", "fast")
	f.mustProgram("", "pg_verifybackup", backup)

	f.mustProgram("", "psql", "-Xqc", "create table t as select generate_series(1, 1000)")
	wal := filepath.Join(f.Cluster.Dir, "wal")
	f.mustProgram("", "pg_receivewal", "-D", f.mkdir(wal), "--no-loop", "--endpos", f.MustExec(0, "select pg_current_wal_flush_lsn()"))
	if files, err := filepath.Glob(wal + "/*"); err != nil || len(files) == 0 {
		t.Errorf("pg_receivewal has left nothing: %v", err)
	}

	f.mustProgram("", "pg_recvlogical", "--create-slot", "--slot", "changes", "-d", "postgres")
	f.mustProgram("", "psql", "-Xqc", "insert into t values (4711)")
	end := f.MustExec(0, "select pg_current_wal_flush_lsn()")
	out := f.mustProgram("", "pg_recvlogical", "--start", "--slot", "changes", "-d", "postgres", "-f", "-", "--no-loop", "--endpos", end)
	if !strings.Contains(out, "4711") {
		t.Errorf("pg_recvlogical: %s", out)
	}
	f.mustProgram("", "pg_recvlogical", "--drop-slot", "--slot", "changes", "-d", "postgres")
}

// mkdir makes a folder in which programs that do not run as root may write.
func (f *front) mkdir(path string) string {
	f.t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func TestUnixSocket(t *testing.T) {
	f := usual(t)
	if out := f.mustProgram("", "psql", "-XAtc", "select inet_client_addr() is not null", "-h", f.Socket); strings.TrimSpace(out) != "t" {
		t.Error(out) // the servers are reached by TCP all the same
	}
}

func TestOddNames(t *testing.T) {
	f := usual(t)
	for _, name := range []string{`with space`, `quote"d`, `it's`, `UPPER`, `ünïcödé`, `a=b`, `back\slash`, `semi;colon`, `per%cent`, `$1`} {
		t.Run(name, func(t *testing.T) {
			quoted := pgx.Identifier{name}.Sanitize()
			f.MustExec(0, "create role "+quoted+" login")
			f.MustExec(0, "create database "+quoted+" owner "+quoted)
			f.Must(f.WaitCatchup())
			for range 2 { // the second time over connections from the pool
				out := f.mustProgram("create temp table t as select current_user u; select current_database() || '/' || current_user from t;\nselect current_database() || '/' || current_user;",
					"psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", name, "-d", connString(name))
				if want := name + "/" + name + "\n"; out != want+want {
					t.Errorf("%q instead of %q", out, want+want)
				}
			}
			f.mustProgram("", "psql", "-Xqc", "drop database "+quoted)
		})
	}
}

// connString names a database such that libpq takes it for nothing else.
func connString(database string) string {
	return "dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database) + "'"
}
