package pgpool_test

import (
	"fmt"
	"strings"
	"testing"

	"pgpool-go/tools/testcluster"
)

// everywhere checks that an expression has a value on whichever server answers,
// inside and outside of what the session is doing.
func (f *front) everywhere(r *raw, expression, want string) {
	f.t.Helper()
	seen := make(map[int]bool)
	look := func(lead string) {
		f.t.Helper()
		v, err := r.value(lead + "select inet_server_port() || ' ' || coalesce((" + expression + ")::text, 'null')")
		if err != nil {
			f.t.Fatalf("%s: %v", expression, err)
		}
		port, got, _ := strings.Cut(v, " ")
		if got != want {
			f.t.Errorf("%s is %q on node %d, want %q", expression, got, f.node(port), want)
		}
		seen[f.node(port)] = true
	}
	look("/*NO LOAD BALANCE*/ ")
	nodes := 3
	if !f.spreads() {
		nodes = 1
	}
	for i := 0; i < 60 && len(seen) < nodes; i++ {
		look("")
	}
	if len(seen) < nodes {
		f.t.Errorf("only nodes %v were asked", seen)
	}
}

func (r *raw) must(t testing.TB, sql string) string {
	t.Helper()
	got, err := r.query(sql)
	if err != nil || strings.Contains(got, "E(") {
		t.Fatalf("%s: %s, %v", sql, got, err)
	}
	return got
}

// What the client has set is set on every server, and what was rolled back is
// not.
func TestEveryServerHasTheSettings(t *testing.T) {
	f := usual(t, "num_init_children = 8")
	f.MustExec(0, "create role alice superuser; create role bob; grant alice to postgres; create schema s; create table s.t as select 1 as v")
	f.Must(f.WaitCatchup())
	for _, tc := range []struct {
		name       string
		statements []string
		expression string
		want       string
	}{
		{"set", []string{"set soak.x = 'a'"}, "current_setting('soak.x', true)", "a"},
		{"set twice", []string{"set soak.x = 'a'", "set soak.x = 'b'"}, "current_setting('soak.x', true)", "b"},
		{"set to default", []string{"set work_mem = '1MB'", "set work_mem to default"}, "current_setting('work_mem')", "4MB"},
		{"reset", []string{"set work_mem = '1MB'", "reset work_mem"}, "current_setting('work_mem')", "4MB"},
		{"reset all", []string{"set work_mem = '1MB'", "reset all"}, "current_setting('work_mem')", "4MB"},
		{"set_config", []string{"select set_config('work_mem', '1MB', false)"}, "current_setting('work_mem')", "1MB"},
		{"set_config of what is not known", []string{"select set_config(name, '1MB', false) from pg_settings where name = 'work_mem'"}, "current_setting('work_mem')", "1MB"},
		{"committed", []string{"begin", "set work_mem = '1MB'", "commit"}, "current_setting('work_mem')", "1MB"},
		{"rolled back", []string{"begin", "set work_mem = '1MB'", "rollback"}, "current_setting('work_mem')", "4MB"},
		{"failed", []string{"begin", "set work_mem = '1MB'", "selec", "commit"}, "current_setting('work_mem')", "4MB"},
		{"set local", []string{"begin", "set local work_mem = '1MB'", "commit"}, "current_setting('work_mem')", "4MB"},
		{"to a savepoint", []string{"begin", "set work_mem = '1MB'", "savepoint a", "set work_mem = '2MB'", "rollback to a", "commit"}, "current_setting('work_mem')", "1MB"},
		{"released", []string{"begin", "savepoint a", "set work_mem = '2MB'", "release a", "commit"}, "current_setting('work_mem')", "2MB"},
		{"chained", []string{"begin", "set work_mem = '1MB'", "commit and chain", "set work_mem = '2MB'", "rollback"}, "current_setting('work_mem')", "1MB"},
		{"in one string", []string{"set work_mem = '1MB'; select 1"}, "current_setting('work_mem')", "1MB"},
		{"in a string that fails", []string{"set work_mem = '1MB'; select 1/0"}, "current_setting('work_mem')", "4MB"},
		{"in a string that commits half", []string{"begin; set work_mem = '1MB'; commit; select 1/0"}, "current_setting('work_mem')", "1MB"},
		{"search_path", []string{"set search_path = s"}, "select v from t", "1"},
		{"role", []string{"set role bob"}, "current_user", "bob"},
		{"role and back", []string{"set role bob", "reset role"}, "current_user", "postgres"},
		{"role, set, role", []string{"set role alice", "set log_statement = 'none'", "set role bob"}, "current_user", "bob"},
		{"session authorization", []string{"set session authorization bob"}, "session_user", "bob"},
		{"authorization, role and back", []string{"set session authorization alice", "set role bob", "set session authorization default"}, "current_user", "postgres"},
		{"names", []string{"set names 'latin1'"}, "current_setting('client_encoding')", "LATIN1"},
		{"time zone", []string{"set time zone 'Europe/Vienna'"}, "current_setting('timezone')", "Europe/Vienna"},
		{"discard all", []string{"set work_mem = '1MB'", "set role bob", "discard all"}, "current_user || current_setting('work_mem')", "postgres4MB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := f.raw()
			defer r.Close()
			f.everywhere(r, "1", "1") // all are in use before
			for _, sql := range tc.statements {
				if _, err := r.query(sql); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(tc.name, "not known") {
				for range 10 { // only the server that ran it can know
					if v, err := r.value("select " + tc.expression); v != tc.want || err != nil {
						t.Fatalf("got %q, %v", v, err)
					}
				}
				return
			}
			f.everywhere(r, tc.expression, tc.want)
		})
	}
	t.Run("inside a block", func(t *testing.T) {
		r := f.raw()
		for range 8 { // each block draws its own standby
			r.must(t, "begin")
			r.must(t, "select 1")
			r.must(t, "set local work_mem = '1MB'")
			r.expect(t, "T D(1MB) C(SELECT 1) Z(T)", q("select current_setting('work_mem')"))
			r.must(t, "savepoint a")
			r.must(t, "set work_mem = '2MB'")
			r.expect(t, "T D(2MB) C(SELECT 1) Z(T)", q("select current_setting('work_mem')"))
			r.must(t, "rollback to a")
			r.expect(t, "T D(1MB) C(SELECT 1) Z(T)", q("select current_setting('work_mem')"))
			r.must(t, "commit")
			r.expect(t, "T D(4MB) C(SELECT 1) Z(I)", q("select current_setting('work_mem')"))
		}
	})
	t.Run("taken back behind the last read", func(t *testing.T) {
		r := f.raw()
		for range 8 {
			r.must(t, "begin")
			r.must(t, "savepoint a")
			r.must(t, "set work_mem = '2MB'")
			r.must(t, "select 1") // a standby has heard of it
			r.must(t, "rollback to a")
			r.must(t, "commit")
			f.everywhere(r, "current_setting('work_mem')", "4MB")
		}
	})
}

// A read that fails on a standby fails the whole block, and nothing of it is
// committed.
func TestFailedReadFailsTheBlock(t *testing.T) {
	f := usual(t, "disable_load_balance_on_write = 'dml_adaptive'")
	f.MustExec(0, "create table t (v int)")
	f.Must(f.WaitCatchup())
	r := f.raw()
	division := "select 1/(i-1) from generate_series(1, 1) i"
	for name, script := range map[string][][2]string{
		"simple": {{"begin", "C(BEGIN) Z(T)"}, {division, "T E(22012) Z(E)"}, {"insert into t values (1)", "E(25P02) Z(E)"}, {"commit", "C(ROLLBACK) Z(I)"}},
		"after a write": {{"begin", "C(BEGIN) Z(T)"}, {"insert into t values (1)", "C(INSERT 0 1) Z(T)"}, {division, "T E(22012) Z(E)"},
			{"select 1", "E(25P02) Z(E)"}, {"commit", "C(ROLLBACK) Z(I)"}},
		"to a savepoint": {{"begin", "C(BEGIN) Z(T)"}, {"savepoint a", "C(SAVEPOINT) Z(T)"}, {division, "T E(22012) Z(E)"},
			{"rollback to a", "C(ROLLBACK) Z(T)"}, {"select 7", "T D(7) C(SELECT 1) Z(T)"}, {"insert into t values (7)", "C(INSERT 0 1) Z(T)"}, {"commit", "C(COMMIT) Z(I)"}},
		"a syntax error": {{"begin", "C(BEGIN) Z(T)"}, {"select * from nowhere", "E(42P01) Z(E)"}, {"commit", "C(ROLLBACK) Z(I)"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range script {
				r.expect(t, step[1], q(step[0]))
			}
			r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
		})
	}
	t.Run("extended", func(t *testing.T) {
		r.expect(t, "C(BEGIN) Z(T)", q("begin"))
		r.expect(t, "1 2 E(22012) Z(E)", parse("", division), bind("", ""), execute("", 0), sync_)
		r.expect(t, "E(25P02) Z(E)", parse("", "insert into t values (1)"), bind("", ""), execute("", 0), sync_)
		r.expect(t, "C(ROLLBACK) Z(I)", q("commit"))
	})
	t.Run("in a pipeline with writes", func(t *testing.T) {
		r.expect(t, "1 2 D(1) C(SELECT 1) 1 2 C(INSERT 0 1) 1 2 E(22012) Z(I)",
			parse("", "select 1"), bind("", ""), execute("", 0),
			parse("", "insert into t values (1)"), bind("", ""), execute("", 0),
			parse("", division), bind("", ""), execute("", 0),
			parse("", "insert into t values (1)"), bind("", ""), execute("", 0), sync_)
	})
	if v := f.MustExec(0, "select string_agg(v::text, ' ') from t"); v != "7" {
		t.Errorf("committed: %q", v)
	}
}

// Prepared statements are the client's, on whichever server they run.
func TestStatementsAreTheClients(t *testing.T) {
	f := usual(t)
	f.MustExec(0, "create table t (v text)")
	f.Must(f.WaitCatchup())
	r := f.raw()
	run := func(want string) {
		t.Helper()
		for range 10 { // on every standby
			r.expect(t, "2 D("+want+") C(SELECT 1) Z(I)", bind("", "a"), execute("", 0), sync_)
		}
		r.expect(t, "C(BEGIN) Z(T)", q("begin")) // and on the primary
		r.expect(t, "C(INSERT 0 1) Z(T)", q("insert into t values ('x')"))
		r.expect(t, "2 D("+want+") C(SELECT 1) Z(T)", bind("", "a"), execute("", 0), sync_)
		r.expect(t, "C(ROLLBACK) Z(I)", q("rollback"))
	}
	for i := range 3 {
		r.expect(t, "1 Z(I)", parse("a", fmt.Sprintf("select %d", i)), sync_)
		run(fmt.Sprint(i))
		switch i {
		case 0:
			r.expect(t, "3 Z(I)", closes('S', "a"), sync_)
		case 1:
			r.expect(t, "C(DEALLOCATE) Z(I)", q("deallocate a"))
		}
		if i < 2 {
			r.expect(t, "E(26000) Z(I)", bind("", "a"), execute("", 0), sync_)
		}
	}
	t.Run("by SQL", func(t *testing.T) {
		for range 6 {
			r.expect(t, "T D(2) C(SELECT 1) Z(I)", q("execute a"))
			r.expect(t, "1 2 D(2) C(SELECT 1) Z(I)", parse("", "execute a"), bind("", ""), execute("", 0), sync_)
		}
		r.expect(t, "C(PREPARE) Z(I)", q("prepare b as select 'b'"))
		r.expect(t, "2 D(b) C(SELECT 1) Z(I)", bind("", "b"), execute("", 0), sync_)
		r.expect(t, "C(DEALLOCATE) Z(I)", q("deallocate b"))
	})
	t.Run("what failed is as it was", func(t *testing.T) {
		// The Close behind the error has not been done, nor the Parse.
		r.expect(t, "E(42601) Z(I)", parse("", "selec"), closes('S', "a"), parse("c", "select 3"), sync_)
		run("2")
		r.expect(t, "E(26000) Z(I)", bind("", "c"), execute("", 0), sync_)
		r.expect(t, "E(42P05) Z(I)", parse("a", "select 4"), sync_)
		run("2")
		r.expect(t, "3 1 E(42601) Z(I)", closes('S', "a"), parse("a", "select 5"), parse("", "selec"), closes('S', "a"), sync_)
		run("5")
	})
	t.Run("the unnamed one", func(t *testing.T) {
		r.expect(t, "1 Z(I)", parse("", "select 6"), sync_)
		for range 6 {
			r.expect(t, "2 D(6) C(SELECT 1) Z(I)", bind("", ""), execute("", 0), sync_)
		}
		r.expect(t, "E(42601) Z(I)", parse("", "selec"), sync_) // it goes before the new one is looked at
		r.expect(t, "E(26000) Z(I)", bind("", ""), sync_)
	})
	t.Run("discard all", func(t *testing.T) {
		r.expect(t, "C(DISCARD ALL) Z(I)", q("discard all"))
		for range 6 {
			r.expect(t, "E(26000) Z(I)", bind("", "a"), execute("", 0), sync_)
		}
		r.expect(t, "1 Z(I)", parse("a", "select 8"), sync_)
		run("8")
	})
}

// A portal lives where it was opened, until its transaction ends.
func TestPortals(t *testing.T) {
	f := usual(t)
	r := f.raw()
	for range 6 {
		r.expect(t, "C(BEGIN) Z(T)", q("begin"))
		r.expect(t, "1 2 T D(1) D(2) s Z(T)", parse("", "select * from generate_series(1, 5)"), bind("p", ""), describe('P', "p"), execute("p", 2), sync_)
		r.expect(t, "1 2 D(x) C(SELECT 1) Z(T)", parse("", "select 'x'"), bind("", ""), execute("", 0), sync_)
		r.expect(t, "D(3) s Z(T)", execute("p", 1), sync_)
		r.expect(t, "C(SAVEPOINT) Z(T)", q("savepoint a"))
		r.expect(t, "D(4) D(5) C(SELECT 2) Z(T)", execute("p", 0), sync_)
		r.expect(t, "3 Z(T)", closes('P', "p"), sync_)
		r.expect(t, "E(34000) Z(E)", execute("p", 0), sync_)
		r.expect(t, "C(ROLLBACK) Z(I)", q("rollback"))
		r.expect(t, "E(34000) Z(I)", execute("p", 0), sync_)
	}
	t.Run("of SQL", func(t *testing.T) {
		r.expect(t, "C(BEGIN) Z(T)", q("begin"))
		r.expect(t, "C(DECLARE CURSOR) Z(T)", q("declare c cursor for select * from generate_series(1, 3)"))
		r.expect(t, "T D(1) C(FETCH 1) Z(T)", q("fetch c"))
		r.expect(t, "T D(2) s Z(T)", describe('P', "c"), execute("c", 1), sync_)
		r.expect(t, "3 Z(T)", closes('P', "c"), sync_)
		r.expect(t, "C(COMMIT) Z(I)", q("commit"))
	})
	t.Run("named by SQL", func(t *testing.T) { // as asyncpg does
		r.expect(t, "C(BEGIN) Z(T)", q("begin"))
		r.expect(t, "1 2 D(1) s Z(T)", parse("", "select * from generate_series(1, 5)"), bind("p", ""), execute("p", 1), sync_)
		r.expect(t, "T D(2) C(FETCH 1) Z(T)", q("fetch p"))
		r.expect(t, "1 2 C(MOVE 1) Z(T)", parse("", "move p"), bind("", ""), execute("", 0), sync_)
		r.expect(t, "D(4) s Z(T)", execute("p", 1), sync_)
		r.expect(t, "C(CLOSE CURSOR) Z(T)", q("close p"))
		r.expect(t, "E(34000) Z(E)", q("fetch p"))
		r.expect(t, "C(ROLLBACK) Z(I)", q("rollback"))
	})
	t.Run("bound twice", func(t *testing.T) {
		r.expect(t, "C(BEGIN) Z(T)", q("begin"))
		r.expect(t, "1 2 E(42P03) Z(E)", parse("", "select 1"), bind("p", ""), bind("p", ""), sync_)
		r.expect(t, "C(ROLLBACK) Z(I)", q("rollback"))
	})
}

// In a failed block nothing that returns rows is described, wherever it was
// prepared.
func TestDescribeInFailedBlock(t *testing.T) {
	f := usual(t)
	r := f.raw()
	r.expect(t, "1 Z(I)", parse("a", "select 1"), sync_)
	r.expect(t, "C(BEGIN) Z(T)", q("begin"))
	r.expect(t, "E(22012) Z(E)", q("select 1/0"))
	r.expect(t, "E(25P02) Z(E)", describe('S', "a"), sync_)
	r.expect(t, "C(ROLLBACK) Z(I)", q("rollback"))
	r.expect(t, "t T Z(I)", describe('S', "a"), sync_)
	r.expect(t, "2 D(1) C(SELECT 1) Z(I)", bind("", "a"), execute("", 0), sync_)
}

// An error is told at once, as a server does, even if no Sync or Flush asks for it.
func TestErrorBeforeSync(t *testing.T) {
	f := usual(t)
	r := f.raw()
	if err := r.send(parse("", "select 1"), bind("", ""), execute("", 0), parse("", "selec")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1", "2", "D(1)", "C(SELECT 1)", "E(42601)"} {
		if msg, err := r.next(); err != nil || word(msg) != want {
			t.Fatalf("got %v, %v, want %s", msg, err, want)
		}
	}
	r.expect(t, "Z(I)", parse("", "select 2"), sync_)
	r.expect(t, "T D(3) C(SELECT 1) Z(I)", q("select 3"))
}

// A long block with a savepoint around each statement, as JDBC's autosave makes
// them, is brought to a standby at once.
func TestLongBlockJoins(t *testing.T) {
	c := servers(t, testcluster.Options{Standbys: 1})
	f := serve(t, c, append(backends(c, 0, 1), "disable_load_balance_on_write = 'dml_adaptive'")...)
	f.MustExec(0, "create table t (v int)")
	f.Must(f.WaitCatchup())
	r := f.raw()
	r.must(t, "begin")
	for range 500 {
		r.must(t, "savepoint s")
		r.must(t, "insert into t values (1)")
		r.must(t, "release s")
	}
	v, err := r.value("select inet_server_port()")
	if err != nil || (f.node(v) == 1) != f.spreads() {
		t.Errorf("the read went to port %s, %v", v, err)
	}
	r.must(t, "commit")
	if n := f.MustExec(0, "select count(*) from t"); n != "500" {
		t.Errorf("%s rows", n)
	}
}
