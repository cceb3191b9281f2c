package pgpool_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pgpool-go/tools/testcluster"
)

// What routing has to know besides the text: prepared names, temporary tables,
// search paths, defaults of roles. Each read says itself where it runs.

const here = "inet_server_port()"

func TestWhatOnlyTheSessionKnows(t *testing.T) {
	f := serve2(t)
	f.MustExec(0, `CREATE TABLE t (i int); INSERT INTO t VALUES (1);
		CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.r (i int); CREATE UNLOGGED TABLE b.r (i int); CREATE TABLE b.u (i int);
		INSERT INTO a.r VALUES (1); INSERT INTO b.r VALUES (1); INSERT INTO b.u VALUES (1);
		CREATE FUNCTION hides() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE t AS SELECT 2 AS i; END';
		CREATE FUNCTION moves() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET search_path = b; END';
		CREATE ROLE strict LOGIN SUPERUSER; ALTER ROLE strict SET default_transaction_isolation = 'serializable'`)
	f.Must(f.WaitCatchup())
	at := func(p *plain, what, sql string, primary bool) {
		t.Helper()
		if n := f.node(strings.Split(p.must(sql), "|")[0]); (n == 0) != primary {
			t.Errorf("%s: %s ran on node %d", what, sql, n)
		}
	}

	t.Run("prepared by SQL", func(t *testing.T) {
		c := f.plain()
		c.must("PREPARE p AS SELECT " + here)
		at(c, "on the node of its PREPARE", "EXECUTE p", true)
		r := c.ExecPrepared(t.Context(), "p", nil, nil, nil).Read()
		if r.Err != nil || f.node(string(r.Rows[0][0])) != 0 {
			t.Errorf("by Bind: %v", r.Err)
		}
		if _, err := c.Prepare(t.Context(), "p", "SELECT 1", nil); sqlstate(err) != "42P05" {
			t.Errorf("a name that is taken: %v", err)
		}
		if _, err := c.Prepare(t.Context(), "q", "SELECT "+here, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.run("PREPARE q AS SELECT 1"); sqlstate(err) != "42P05" {
			t.Errorf("a name taken by Parse: %v", err)
		}
		at(c, "prepared by Parse", "EXECUTE q", false)
		// PREPARE does not care for transactions.
		if _, err := c.run("BEGIN; PREPARE r AS SELECT " + here + "; SELECT 1/0"); sqlstate(err) != "22012" {
			t.Fatal(err)
		}
		c.must("ROLLBACK")
		at(c, "outlives its transaction", "EXECUTE r", true)
		c.must("DEALLOCATE p")
		if _, err := c.run("EXECUTE p"); sqlstate(err) != "26000" {
			t.Errorf("a name that is gone: %v", err)
		}
		if _, err := c.Prepare(t.Context(), "p", "SELECT 1", nil); err != nil {
			t.Errorf("a name that is free again: %v", err)
		}
		c.must("DEALLOCATE ALL")
		for _, name := range []string{"q", "r"} {
			if _, err := c.run("EXECUTE " + name); sqlstate(err) != "26000" {
				t.Errorf("%s after DEALLOCATE ALL: %v", name, err)
			}
		}
	})

	t.Run("hidden temporary table", func(t *testing.T) {
		c := f.plain()
		mark, err := f.Nodes[0].LogMark()
		f.Must(err)
		at(c, "before", "SELECT "+here+" FROM t", false)
		c.must("SELECT hides()")
		at(c, "has no name", "SELECT "+here, false)
		if sent := f.sent(0, mark); strings.Contains(sent, "pg_my_temp_schema") {
			t.Errorf("temporary tables were asked for before it mattered:\n%s", sent)
		}
		if got := c.must("SELECT i FROM t"); got != "2" {
			t.Errorf("read %s from the permanent table", got)
		}
		at(c, "after", "SELECT "+here+" FROM t", true)
		c.must("BEGIN")
		c.must("DROP TABLE pg_temp.t")
		c.must("COMMIT")
		at(c, "dropped", "SELECT "+here+" FROM t", false)
	})

	t.Run("search path", func(t *testing.T) {
		c := f.plain()
		c.must("SET search_path = a")
		at(c, "the logged one", "SELECT "+here+" FROM r", false)
		c.must("BEGIN")
		c.must("SET LOCAL search_path = b")
		c.must("COMMIT")
		at(c, "SET LOCAL is over", "SELECT "+here+" FROM r", false)
		c.must("SELECT set_config('search_path', 'b', false)")
		at(c, "the unlogged one", "SELECT "+here+" FROM r", true)
		c.must("SET search_path = a")
		at(c, "and back", "SELECT "+here+" FROM r", false)
		c.must("SELECT public.moves()")
		at(c, "unknown, so it may be", "SELECT "+here+" FROM r", true)
		c.must("RESET search_path")
		at(c, "as after login", "SELECT "+here+" FROM t", false)
		d := f.plain("search_path", "b")
		at(d, "of the start-up packet", "SELECT "+here+" FROM r", true)
		at(d, "of the start-up packet", "SELECT "+here+" FROM u", false)
	})

	t.Run("serializable by default", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), f.URL("strict", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		c := &plain{conn.PgConn(), t}
		at(c, "outside", "SELECT "+here+" FROM t", true)
		c.must("BEGIN")
		at(c, "inside", "SELECT "+here+" FROM t", true)
		c.must("COMMIT")
		c.must("SET default_transaction_isolation = 'read committed'")
		at(c, "changed", "SELECT "+here+" FROM t", false)

		conn2, err := pgx.Connect(t.Context(), f.URL("strict", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn2.Close(t.Context())
		c = &plain{conn2.PgConn(), t}
		c.must("BEGIN")
		at(c, "begun before it was known", "SELECT "+here+" FROM t", true)
		c.must("COMMIT")
	})
}

// serve2 is usual with the servers' statements logged.
func serve2(t testing.TB, lines ...string) *front {
	t.Helper()
	c := testcluster.New(t, testcluster.Options{Standbys: 2, LogStatements: true})
	return serve(t, c, append(backends(c, 0, 1, 1), lines...)...)
}

// sent is what a node has logged since a mark, one statement a line.
func (f *front) sent(node int, mark testcluster.LogMark) string {
	f.t.Helper()
	entries, err := f.Nodes[node].Entries(mark)
	f.Must(err)
	var lines []string
	for _, e := range entries {
		if sql := e.Ran(); sql != "" {
			lines = append(lines, sql)
		}
	}
	return strings.Join(lines, "\n")
}

func TestExplainRouting(t *testing.T) {
	f := usual(t)
	f.MustExec(0, "CREATE TABLE t (i int); CREATE UNLOGGED TABLE u (i int)")
	f.Must(f.WaitCatchup())
	c := f.plain()
	item := func(rows [][]string, name string) string {
		for _, r := range rows {
			if r[0] == name {
				return r[1]
			}
		}
		return ""
	}
	simple := func(sql string) (rows [][]string) {
		t.Helper()
		for _, r := range c.one("EXPLAIN ROUTING " + sql).Rows {
			rows = append(rows, []string{string(r[0]), string(r[1])})
		}
		return rows
	}
	extended := func(sql string) (rows [][]string) {
		t.Helper()
		r := c.ExecParams(t.Context(), "EXPLAIN ROUTING "+sql, nil, nil, nil, nil).Read()
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		for _, r := range r.Rows {
			rows = append(rows, []string{string(r[0]), string(r[1])})
		}
		return rows
	}
	for _, ask := range []func(string) [][]string{simple, extended} {
		for _, x := range []struct{ sql, reason, node, also, value string }{
			{"SELECT * FROM t", "read", "a standby", "relations", "t"},
			{"INSERT INTO t VALUES (1)", "write", "0, the primary", "counts as", "a write"},
			{"SELECT * FROM u", "unlogged", "0, the primary", "unlogged", "public.u"},
			{"SELECT nextval('s')", "function", "0, the primary", "may write", "nextval"},
			{"SHOW POOL_NODES", "pool_command", "none", "class", "pool"},
			{"/* pgpool.target = primary */ SELECT 1", "target_primary", "0, the primary", "node 1", "up, weight 1, standby"},
		} {
			rows := ask(x.sql)
			if got := item(rows, "reason"); got != x.reason {
				t.Errorf("%s: reason %q", x.sql, got)
			}
			if got := item(rows, "node"); !strings.Contains(got, x.node) {
				t.Errorf("%s: node %q", x.sql, got)
			}
			if got := item(rows, x.also); !strings.Contains(got, x.value) {
				t.Errorf("%s: %s %q", x.sql, x.also, got)
			}
		}
	}
	if n := c.must("SELECT count(*) FROM t"); n != "0" {
		t.Errorf("EXPLAIN ROUTING has inserted %s rows", n)
	}

	t.Run("by hand", func(t *testing.T) {
		c.must("SET pgpool.target = 'primary'")
		if n := f.node(c.must("SELECT " + here)); n != 0 {
			t.Errorf("asked for the primary, read on node %d", n)
		}
		c.must("SET pgpool.target = 'standby'")
		if n := f.node(c.must("SELECT " + here)); n == 0 {
			t.Errorf("asked for a standby, read on the primary")
		}
		c.must("RESET pgpool.target")
	})

	t.Run("counters", func(t *testing.T) {
		counts := func() map[string]int {
			out := map[string]int{}
			for _, row := range c.table("SHOW POOL_ROUTING") {
				out[row["reason"]], _ = strconv.Atoi(row["count"])
				if row["since"] == "" {
					t.Error("no word on since when")
				}
			}
			return out
		}
		before := counts()
		for range 3 {
			c.must("SELECT * FROM t")
		}
		c.must("INSERT INTO t VALUES (1)")
		c.ExecParams(t.Context(), "INSERT INTO t VALUES (2)", nil, nil, nil, nil).Read()
		after := counts()
		for reason, n := range map[string]int{"read": 3, "write": 2, "pool_command": 1, "multi": 0} {
			if got := after[reason] - before[reason]; got != n {
				t.Errorf("%s was counted %d times, want %d", reason, got, n)
			}
		}
	})
}

// A snapshot that is gone with its standby cannot be had elsewhere.
func TestLostSnapshot(t *testing.T) {
	f := usual(t)
	f.MustExec(0, "CREATE TABLE t (i int)")
	f.Must(f.WaitCatchup())
	c := f.plain()
	c.must("BEGIN ISOLATION LEVEL REPEATABLE READ")
	n := f.node(c.must("SELECT " + here + " FROM (SELECT count(*) FROM t) x"))
	if n == 0 {
		t.Fatal("read on the primary")
	}
	f.Must(f.Nodes[n].Stop(testcluster.Immediate))
	for range 2 { // the loss itself, and the transaction that has failed
		if _, err := c.run("SELECT count(*) FROM t"); sqlstate(err) != "40001" && sqlstate(err) != "25P02" {
			t.Fatalf("after the loss: %v", err)
		}
	}
	c.must("ROLLBACK")
	if got := c.must("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("afterwards: %s", got)
	}
}

// Under dml_adaptive_global what one session has written, others read on the
// primary for a while.
func TestRecentlyWritten(t *testing.T) {
	f := usual(t, "disable_load_balance_on_write = dml_adaptive_global", "track_table_mutation_cold_start_duration = 0",
		"delay_threshold_by_time = 10000", "track_table_mutation_ttl_factor = 100")
	f.MustExec(0, "CREATE TABLE t (i int); CREATE TABLE o (i int); CREATE VIEW v AS SELECT * FROM t")
	f.Must(f.WaitCatchup())
	a, b := f.plain(), f.plain()
	reason := func(sql string) string {
		for _, r := range b.one("EXPLAIN ROUTING " + sql).Rows {
			if string(r[0]) == "reason" {
				return string(r[1])
			}
		}
		return ""
	}
	reason("SELECT * FROM v") // so that what stands behind it is known
	for _, commit := range []bool{true, false} {
		eventually(t, "forgotten", func() bool { return reason("SELECT * FROM t") == "read" })
		a.must("BEGIN")
		a.must("INSERT INTO t VALUES (1)")
		if got := reason("SELECT * FROM t"); got != "read" {
			t.Errorf("before the end of the transaction: %s", got)
		}
		want := "recent_table"
		if commit {
			a.must("COMMIT")
		} else {
			a.must("ROLLBACK")
			want = "read"
		}
		for sql, want := range map[string]string{"SELECT * FROM t": want, "SELECT * FROM v": want, "SELECT * FROM o": "read"} {
			if got := reason(sql); got != want {
				t.Errorf("commit %v: %s: %s, want %s", commit, sql, got, want)
			}
		}
	}
}
