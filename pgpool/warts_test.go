package pgpool_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// What the original does worst, one by one, as its routing has been measured.
// Here it must go well. A failed read on a standby is TestFailedReadFailsTheBlock.
func TestFaultsOfTheOriginal(t *testing.T) {
	c := servers(t, testcluster.Options{Standbys: 2, Conf: map[string]string{"max_prepared_transactions": "2"}})
	f := serve(t, c, append(backends(c, 0, 1, 1), "num_init_children = 32")...)
	f.MustExec(0, `CREATE TABLE t (v int); INSERT INTO t VALUES (0); CREATE TABLE "it's; DROP TABLE t; --" (v int);
		CREATE SCHEMA "o'neill"; CREATE TABLE "o'neill".t (v int); CREATE FUNCTION "f'()"() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'`)
	f.Must(f.WaitCatchup())
	const count = "SELECT " + here + ", count(*) FROM t"
	// counts expects the number of rows, on the primary or a standby.
	counts := func(t *testing.T, p *plain, primary bool, want string) {
		t.Helper()
		row := p.one(count).Rows[0]
		if node := f.node(string(row[0])); (node == 0) != (primary || !f.spreads()) || string(row[1]) != want {
			t.Errorf("node %d counts %s rows, want %s", node, row[1], want)
		}
	}
	said := func(sql string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{parse("", sql), bind("", ""), execute("", 0), sync_}
	}

	t.Run("a second BEGIN forgets that the transaction has written", func(t *testing.T) {
		p := f.plain()
		p.must("BEGIN")
		p.must("INSERT INTO t VALUES (1)")
		p.must("BEGIN")
		counts(t, p, true, "2")
		p.must("ROLLBACK")
		counts(t, p, false, "1")
	})
	t.Run("ROLLBACK TO forgets that the transaction has written", func(t *testing.T) {
		p := f.plain()
		p.must("BEGIN")
		p.must("UPDATE t SET v = 7")
		p.must("SAVEPOINT a")
		p.must("INSERT INTO t VALUES (1)")
		p.must("ROLLBACK TO a")
		counts(t, p, true, "1")
		if v := p.must("SELECT v FROM t"); v != "7" {
			t.Errorf("the transaction's own row is read as %s", v)
		}
		p.must("ROLLBACK")
	})
	t.Run("a write behind a read in a string is not noticed", func(t *testing.T) {
		p := f.plain()
		p.must("BEGIN")
		counts(t, p, false, "1")
		p.must("SELECT 1; DELETE FROM t")
		counts(t, p, true, "0")
		p.must("ROLLBACK")
	})
	t.Run("a transaction begun in a string is split between nodes", func(t *testing.T) {
		p := f.plain()
		p.must("BEGIN; INSERT INTO t VALUES (1)")
		counts(t, p, true, "2")
		p.must("ROLLBACK")
		counts(t, p, false, "1")
	})
	t.Run("a setting in a string is known to the primary only", func(t *testing.T) {
		p := f.plain()
		p.must("SELECT 1; SET my.setting = 'known'")
		for range 10 { // on either standby
			if v := p.must("SELECT current_setting('my.setting') FROM t"); v != "known" {
				t.Errorf("the setting is %q", v)
			}
		}
	})
	t.Run("the reads of one REPEATABLE READ transaction are spread", func(t *testing.T) {
		p := f.plain()
		p.must("BEGIN ISOLATION LEVEL REPEATABLE READ")
		first := p.must("SELECT " + here)
		for range 40 {
			if at := p.must("SELECT " + here); at != first {
				t.Fatalf("node %d after node %d", f.node(at), f.node(first))
			}
		}
		p.must("COMMIT")
	})
	t.Run("a pipeline does not see what it has written", func(t *testing.T) {
		r := f.raw()
		r.expect(t, "1 2 C(INSERT 0 1) 1 2 D(2) C(SELECT 1) 1 E(22012) Z(I)", append(append(
			said("INSERT INTO t VALUES (1)")[:3], said("SELECT count(*) FROM t")[:3]...), said("SELECT 1/0")...)...)
	})

	t.Run("COPY FROM by the extended protocol hangs", func(t *testing.T) {
		r := f.raw()
		r.expect(t, "1 2 C(BEGIN) Z(T)", said("BEGIN")...)
		if err := r.send(said("COPY t FROM STDIN")...); err != nil {
			t.Fatal(err)
		}
		r.expect(t, "1 2 G C(COPY 2) Z(T)", &pgproto3.CopyData{Data: []byte("1\n2\n")}, &pgproto3.CopyDone{}, sync_)
		r.expect(t, "1 2 D(3) C(SELECT 1) Z(T)", said("SELECT count(*) FROM t")...)
		r.expect(t, "1 2 C(ROLLBACK) Z(I)", said("ROLLBACK")...)
	})
	t.Run("COPY TO by the extended protocol crashes", func(t *testing.T) {
		r := f.raw()
		for range 4 {
			r.expect(t, "1 2 H d(0\n) c C(COPY 1) Z(I)", said("COPY t TO STDOUT")...)
		}
	})
	t.Run("DEALLOCATE by the extended protocol ends the session", func(t *testing.T) {
		r := f.raw()
		r.expect(t, "1 2 C(PREPARE) Z(I)", said("PREPARE p AS SELECT 5")...)
		r.expect(t, "1 2 D(5) C(SELECT 1) Z(I)", said("EXECUTE p")...)
		r.expect(t, "1 2 C(DEALLOCATE) Z(I)", said("DEALLOCATE p")...)
		r.expect(t, "1 2 E(26000) Z(I)", said("EXECUTE p")...)
		r.expect(t, "1 2 D(1) C(SELECT 1) Z(I)", said("SELECT 1")...)
	})
	t.Run("EXECUTE of a statement on a standby hangs", func(t *testing.T) {
		r := f.raw()
		r.expect(t, "1 2 D(1) C(SELECT 1) Z(I)", parse("p", "SELECT count(*) FROM t"), bind("", "p"), execute("", 0), sync_)
		for range 4 {
			r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("EXECUTE p"))
		}
	})
	t.Run("PREPARE TRANSACTION by the extended protocol ends the session", func(t *testing.T) {
		r := f.raw()
		r.expect(t, "1 2 C(BEGIN) Z(T)", said("BEGIN")...)
		r.expect(t, "1 2 D(1) C(SELECT 1) Z(T)", said("SELECT count(*) FROM t")...) // a standby takes part
		r.expect(t, "1 2 C(INSERT 0 1) Z(T)", said("INSERT INTO t VALUES (1)")...)
		r.expect(t, "1 2 C(PREPARE TRANSACTION) Z(I)", said("PREPARE TRANSACTION 'x'")...)
		r.expect(t, "1 2 D(1) C(SELECT 1) Z(I)", said("SELECT count(*) FROM t")...)
		r.expect(t, "1 2 C(ROLLBACK PREPARED) Z(I)", said("ROLLBACK PREPARED 'x'")...)
	})
	t.Run("Bind of an unknown statement ends the session", func(t *testing.T) {
		r := f.raw()
		r.expect(t, "E(26000) Z(I)", bind("", "nosuch"), sync_)
		r.expect(t, "E(34000) Z(I)", execute("nosuch", 0), sync_)
		r.expect(t, "E(26000) Z(I)", describe('S', "nosuch"), sync_)
		r.expect(t, "1 2 D(1) C(SELECT 1) Z(I)", said("SELECT 1")...)
	})

	t.Run("quotes in names reach look-ups as text", func(t *testing.T) {
		p := f.plain()
		for _, sql := range []string{`SELECT count(*) FROM "it's; DROP TABLE t; --"`, `SELECT count(*) FROM "o'neill".t`} {
			if n := p.must(sql); n != "0" {
				t.Errorf("%s: %s", sql, n)
			}
		}
		if n := p.must(`SELECT "f'()"()`); n != "1" {
			t.Error(n)
		}
		for _, sql := range []string{`SELECT * FROM "'; DROP TABLE t; --"`, `SELECT * FROM "\'"`, `SELECT * FROM "a""'b"."'"`} {
			if _, err := p.run(sql); sqlstate(err) != "42P01" {
				t.Errorf("%s: %v", sql, err)
			}
		}
		counts(t, p, false, "1")
	})
	t.Run("look-ups run inside the transaction", func(t *testing.T) {
		r := f.raw()
		r.expect(t, "1 2 C(BEGIN) Z(T)", said("BEGIN ISOLATION LEVEL SERIALIZABLE")...) // as the first statement of the session
		r.expect(t, "C(ROLLBACK) Z(I)", q("ROLLBACK"))
		f.MustExec(0, "CREATE TABLE fresh (v int); CREATE FUNCTION fresh() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'")
		p := f.plain()
		p.must("BEGIN")
		p.must("SHOW work_mem")
		p.must("EXPLAIN ROUTING SELECT fresh() FROM fresh") // nobody has asked for these names
		p.must("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
		if level := p.must("SHOW transaction_isolation"); level != "repeatable read" {
			t.Error(level)
		}
		p.must("COMMIT")
	})
}
