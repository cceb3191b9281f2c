package pgpool_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// A client that keeps its prepared statements, as pgx and JDBC do, reads where
// one would that sends their text each time.
func TestCachedStatements(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	f := serve(t, c, append(backends(c, 0, 1, 3), "num_init_children = 16")...)
	const table = "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x')"
	f.MustExec(0, table)
	for _, db := range []string{"direct", "through"} {
		f.MustExec(0, "CREATE DATABASE "+db)
		if _, err := f.Nodes[0].ExecIn(db, table); err != nil {
			t.Fatal(err)
		}
	}
	f.Must(f.WaitCatchup())
	const where = "SELECT inet_server_port()::text, count(*) FROM t WHERE a = $1"
	// read tells where the statement ran and what it has counted.
	read := func(t *testing.T, c *pgx.Conn, a int) (node, n int) {
		t.Helper()
		var port string
		if err := c.QueryRow(t.Context(), where, a).Scan(&port, &n); err != nil {
			t.Fatal(err)
		}
		return f.node(port), n
	}
	exec := func(t *testing.T, c *pgx.Conn, sql string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}

	t.Run("spread by weight", func(t *testing.T) {
		c, ran := f.connect(), [3]int{}
		for range 400 {
			node, n := read(t, c, 1)
			if ran[node]++; n != 1 {
				t.Fatalf("node %d counts %d rows", node, n)
			}
		}
		// 1 to 3, that is 100 and 300, give or take five standard deviations.
		if ran[0] != 0 || ran[1] < 56 || ran[1] > 144 {
			t.Errorf("ran %v times, want 100 times on node 1 and 300 times on node 2", ran)
		}
	})

	t.Run("in a transaction", func(t *testing.T) {
		c := f.connect()
		for range 10 {
			exec(t, c, "BEGIN")
			reader, _ := read(t, c, 2)
			for range 5 {
				if node, _ := read(t, c, 2); node != reader || node == 0 {
					t.Errorf("node %d after node %d", node, reader)
				}
			}
			exec(t, c, "INSERT INTO t VALUES (2)")
			if node, n := read(t, c, 2); node != 0 || n != 1 {
				t.Errorf("after the write: node %d counts %d rows", node, n)
			}
			exec(t, c, "ROLLBACK")
			if node, n := read(t, c, 2); node == 0 || n != 0 {
				t.Errorf("after the transaction: node %d counts %d rows", node, n)
			}
		}
	})

	// A SET is no reason to stay where the statement was prepared, if it says
	// otherwise or the session has written.
	t.Run("after a setting", func(t *testing.T) {
		c := f.connect()
		read(t, c, 1)
		exec(t, c, "SET pgpool.target = 'primary'")
		for range 5 {
			if node, _ := read(t, c, 1); node != 0 {
				t.Errorf("node %d is not the primary", node)
			}
		}
		exec(t, c, "RESET pgpool.target")
		for range 5 {
			if node, _ := read(t, c, 1); node == 0 {
				t.Error("still on the primary")
			}
		}

		// Nor is one that changes nothing of what the statement means; with one that
		// may, it is read where it was prepared before.
		for set, nodes := range map[string]int{"SET my.tenant = '1'": 2, "SET DateStyle = 'German'": 1} {
			c, ran := f.connect(), map[int]bool{}
			read(t, c, 1)
			exec(t, c, set)
			for range 100 {
				node, _ := read(t, c, 1)
				ran[node] = true
			}
			if len(ran) != nodes || ran[0] {
				t.Errorf("after %s on nodes %v", set, ran)
			}
		}
	})

	t.Run("pipelines", func(t *testing.T) {
		c := f.connect()
		for i := range 20 {
			b := &pgx.Batch{}
			for range 6 {
				b.Queue(where, 1)
			}
			b.Queue("INSERT INTO t VALUES ($1)", 100+i)
			for range 3 {
				b.Queue(where, 100+i)
			}
			results := c.SendBatch(t.Context(), b)
			nodes := ""
			for k := range 10 {
				if k == 6 {
					if _, err := results.Exec(); err != nil {
						t.Fatal(err)
					}
					continue
				}
				var port string
				var n int
				if err := results.QueryRow().Scan(&port, &n); err != nil || n != 1 {
					t.Fatalf("batch %d, query %d: %d rows, %v", i, k, n, err)
				}
				nodes += fmt.Sprint(f.node(port))
			}
			if err := results.Close(); err != nil {
				t.Fatal(err)
			}
			if nodes != "111111000" && nodes != "222222000" {
				t.Errorf("batch %d ran on nodes %s", i, nodes)
			}
		}
	})

	// What a client sees is what it would see of a server: each dialogue is said to
	// both, with what the statement needs to come to other servers in between.
	t.Run("as of one server", func(t *testing.T) {
		often := func(msgs ...pgproto3.FrontendMessage) (out []pgproto3.FrontendMessage) {
			for range 8 {
				out = append(out, msgs...)
			}
			return out
		}
		run := often(bind("", "a", "1"), execute("", 0), sync_)
		for _, x := range []struct {
			name string
			said [][]pgproto3.FrontendMessage
		}{
			{"DISCARD ALL", [][]pgproto3.FrontendMessage{{parse("a", "SELECT b FROM t WHERE a = $1"), sync_}, run, {q("DISCARD ALL")}, run}},
			{"DEALLOCATE", [][]pgproto3.FrontendMessage{{parse("a", "SELECT b FROM t WHERE a = $1"), sync_}, run, {q("DEALLOCATE a")}, run,
				{parse("a", "SELECT $1::int + 1"), sync_}, run, {q("DEALLOCATE ALL")}, run}},
			{"Close", [][]pgproto3.FrontendMessage{{parse("a", "SELECT b FROM t WHERE a = $1"), sync_}, run, {closes('S', "a"), sync_}, run,
				{parse("a", "SELECT $1::int + 1"), sync_}, run}},
			{"the name taken", [][]pgproto3.FrontendMessage{{parse("a", "SELECT b FROM t WHERE a = $1"), sync_}, run,
				often(parse("a", "SELECT 1"), sync_), run}},
			{"Describe", [][]pgproto3.FrontendMessage{{parse("a", "SELECT b FROM t WHERE a = $1"), describe('S', "a"), sync_},
				often(bind("", "a", "1"), describe('P', ""), execute("", 0), describe('S', "a"), sync_)}},
			{"errors", [][]pgproto3.FrontendMessage{{parse("a", "SELECT 10 / (a - $1::int) FROM t WHERE a = 1"), sync_}, run, often(bind("", "a", "x"), execute("", 0), sync_),
				often(bind("", "a", "2"), execute("", 0), bind("", "a", "1"), execute("", 0), bind("", "a", "3"), execute("", 0), sync_),
				often(parse("", "SELECT b, nosuch FROM t"), sync_), often(bind("", "a", "2", "3"), sync_)}},
			{"an error in a transaction", [][]pgproto3.FrontendMessage{{parse("a", "SELECT 10 / (a - $1::int) FROM t WHERE a = 1"), sync_},
				often(q("BEGIN"), bind("", "a", "2"), execute("", 0), sync_, bind("", "a", "1"), execute("", 0), sync_, bind("", "a", "2"), execute("", 0), sync_, q("COMMIT"))}},
			{"the search path", [][]pgproto3.FrontendMessage{{parse("a", "SELECT a FROM t WHERE a = $1"), sync_}, run, {q("SET search_path = pg_catalog")}, run,
				{q("SET search_path = public")}, run}},
			{"columns that change", [][]pgproto3.FrontendMessage{{parse("a", "SELECT * FROM t WHERE a = $1"), describe('S', "a"), sync_},
				{q("ALTER TABLE t ADD COLUMN c int")}, run, {q("ALTER TABLE t DROP COLUMN c")}}},
		} {
			direct := converseInTurn(t, f, f.Nodes[0].Port, "direct", x.said)
			if through := converseInTurn(t, f, f.Port, "through", x.said); direct != through {
				t.Errorf("%s: pgpool answers\n%s", x.name, difference(through, direct))
			}
		}
	})

	t.Run("strings of reads, and EXPLAIN", func(t *testing.T) {
		c := f.plain()
		ran := func(sql string) (node int) {
			t.Helper()
			port, _, _ := strings.Cut(c.must(sql), "\n")
			return f.node(port)
		}
		const twice, written = "SELECT inet_server_port(); SELECT count(*) FROM t", "SELECT inet_server_port(); DELETE FROM t WHERE a = 77"
		const plan = "EXPLAIN ROUTING EXPLAIN SELECT * FROM t"
		if node := ran(twice); node != 0 {
			t.Errorf("by default a string of reads went to node %d", node)
		}
		if text := c.must(plan); !strings.Contains(text, "node|0") {
			t.Errorf("by default:\n%s", text)
		}
		f.reload("multi_statement_load_balance = on", "explain_load_balance = on")
		if node := ran(twice); node == 0 {
			t.Error("a string of reads stayed on the primary")
		}
		if node := ran(written); node != 0 {
			t.Errorf("a string that writes went to node %d", node)
		}
		if text := c.must(plan); strings.Contains(text, "node|0") {
			t.Errorf("EXPLAIN:\n%s", text)
		}
		if text := c.must("EXPLAIN (COSTS OFF) SELECT * FROM t"); text != "Seq Scan on t" {
			t.Errorf("EXPLAIN says %q", text)
		}
	})
}

// converseInTurn says one part after the other, each when the one before has been
// answered and the standbys have what it has written.
func converseInTurn(t *testing.T, f *front, port int, database string, parts [][]pgproto3.FrontendMessage) (text string) {
	t.Helper()
	r := dialPort(t, port)
	defer r.Close()
	if err := r.startup(map[string]string{"user": testcluster.Superuser, "database": database}); err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if err := r.send(part...); err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, m := range part {
			switch m.(type) {
			case *pgproto3.Sync, *pgproto3.Query:
				left++
			}
		}
		for left > 0 {
			msg, err := r.fe.Receive()
			if err != nil {
				return text + err.Error()
			}
			if _, is := msg.(*pgproto3.ReadyForQuery); is {
				left--
			}
			text += inFull(msg) + "\n"
		}
		if _, is := part[0].(*pgproto3.Query); is {
			f.Must(f.WaitCatchup())
		}
	}
	return text
}
