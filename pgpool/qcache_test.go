package pgpool_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgpool-go/tools/testcluster"
)

// cacheSchema is what the tests of the query cache read and write.
const cacheSchema = `
CREATE SCHEMA qc; CREATE SCHEMA qc2;
SET search_path = qc;
CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t SELECT i, 'x' || i FROM generate_series(1, 9) i;
CREATE TABLE qc2.t (a int PRIMARY KEY, b text); INSERT INTO qc2.t VALUES (1, 'other');
CREATE TABLE u (a int); INSERT INTO u VALUES (1);
CREATE UNLOGGED TABLE unl (a int);
CREATE TABLE parted (a int, b int) PARTITION BY LIST (a);
CREATE TABLE part1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE part2 PARTITION OF parted FOR VALUES IN (2) PARTITION BY LIST (b);
CREATE TABLE part21 PARTITION OF part2 FOR VALUES IN (1);
INSERT INTO parted VALUES (1, 1), (2, 1);
CREATE TABLE old (a int); CREATE TABLE young () INHERITS (old); INSERT INTO young VALUES (1);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE grandchild (id int REFERENCES child ON DELETE SET NULL ON UPDATE CASCADE);
INSERT INTO parent VALUES (1), (2), (3); INSERT INTO child VALUES (1), (2), (3); INSERT INTO grandchild VALUES (1), (2), (3);
CREATE VIEW v AS SELECT * FROM t WHERE a < 5; CREATE VIEW vv AS SELECT * FROM v;
CREATE VIEW v_now AS SELECT a, now() AS n FROM t;
CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM t;
CREATE TABLE logged (a int); CREATE TABLE triggered (a int);
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO qc.logged VALUES (1); RETURN NEW; END';
CREATE TRIGGER log_it AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TABLE ruled (a int); CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO qc.logged VALUES (2);
CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO qc.logged VALUES (3) RETURNING 1';
CREATE FUNCTION same(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE PROCEDURE proc() LANGUAGE plpgsql AS 'BEGIN INSERT INTO qc.logged VALUES (4); COMMIT; INSERT INTO qc.logged VALUES (5); RAISE division_by_zero; END';
CREATE TABLE secured (a int); INSERT INTO secured VALUES (1); ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE SEQUENCE seq;
CREATE TYPE mood AS ENUM ('bad', 'good');
CREATE TABLE moods (m mood); INSERT INTO moods VALUES ('bad');
CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA qc, qc2 TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA qc TO reader;
`

// cached is a pgpool with a query cache in front of a cluster with cacheSchema.
func cached(t *testing.T, lines ...string) *front {
	t.Helper()
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	f := serve(t, c, append(append(backends(c, 1, 0, 0), "memory_cache_enabled = on", "num_init_children = 40",
		"cache_safe_memqcache_table_list = 'qc.v,qc.vv,qc.v_now'"), lines...)...)
	f.MustExec(0, cacheSchema)
	f.Must(f.WaitCatchup())
	return f
}

// hits is how often the cache has answered.
func (p *plain) hits() int {
	p.t.Helper()
	n, err := strconv.Atoi(strings.Split(p.must("SHOW POOL_CACHE"), "|")[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// hit runs a statement and tells whether the cache has answered it.
func (p *plain) hit(sql string) (string, bool) {
	p.t.Helper()
	before := p.hits()
	out := p.must(sql)
	return out, p.hits() > before
}

func TestQueryCache(t *testing.T) {
	t.Run("session", func(t *testing.T) { queryCache(t) })
	t.Run("transaction", func(t *testing.T) { queryCache(t, "pool_mode = transaction", "pool_size = 4") })
}

// queryCache is the same in both modes of pooling.
func queryCache(t *testing.T, lines ...string) {
	f := cached(t, append(lines, "log_per_node_statement = on")...)
	const path = "search_path=qc"
	p, direct := f.plain("options", "-c "+path), func(sql string) string { return f.direct("SET search_path = qc; " + sql) }
	other := f.plain("options", "-c "+path)

	t.Run("what is kept", func(t *testing.T) {
		for sql, kept := range map[string]bool{
			"SELECT b FROM t WHERE a = 1": true,
			"SELECT 1":                    true,
			"select count(*), max(a), string_agg(b, ',' ORDER BY a) FROM t": true,
			"WITH x AS (SELECT a FROM t) SELECT sum(a) FROM x":              true,
			"SELECT * FROM parted ORDER BY a":                               true,
			"VALUES (1), (2)":                                               true,
			"TABLE u":                                                       true,
			"SELECT date '2020-01-01' + 1, a::text FROM u":                  true,
			"SELECT upper(b), concat(a, b), length(b) FROM t WHERE b LIKE 'x%' ORDER BY 1": true,
			"SELECT * FROM v ORDER BY a":                            true, // on the list
			"SELECT count(*) FROM mv":                               true,
			"SELECT m FROM moods":                                   true,
			"SELECT * FROM t WHERE false":                           true,
			"/* hello */ SELECT 2":                                  true,
			"/*NO QUERY CACHE*/ SELECT 1":                           false,
			"SELECT count(*) FROM unl":                              false,
			"/*FORCE QUERY CACHE*/ SELECT count(*) FROM unl":        true,
			"SELECT now()":                                          false,
			"/*FORCE QUERY CACHE*/ SELECT now()":                    true,
			"SELECT current_timestamp":                              false,
			"SELECT CURRENT_DATE":                                   false,
			"SELECT current_user":                                   false,
			"SELECT 'today'::date":                                  false,
			"SELECT E'tod\\x61y'::date":                             false,
			"SELECT date 'to'\n'day'":                               false,
			"SELECT a FROM t WHERE '2020-01-01' < 'tomorrow'::date": false,
			"SELECT b::date FROM t WHERE false":                     false,
			"SELECT random()":                                       false,
			"/*FORCE QUERY CACHE*/ SELECT random()":                 false,
			"SELECT same(a) FROM u":                                 false,
			"/*FORCE QUERY CACHE*/ SELECT same(a) FROM u":           true,
			"SELECT age(timestamp '2020-01-01')":                    false,
			"SELECT current_setting('work_mem')":                    false,
			"SELECT nextval('seq') > 0":                             false,
			"SELECT last_value > 0 FROM seq":                        false,
			"SELECT count(*) > 0 FROM pg_class":                     false,
			"SELECT count(*) > 0 FROM information_schema.tables":    false,
			"SELECT 't'::regclass":                                  false,
			"SELECT * FROM secured":                                 false,
			"/*FORCE QUERY CACHE*/ SELECT * FROM secured":           false,
			"SELECT count(*) FROM v_now":                            false,
			"SELECT a FROM t WHERE a = 1 FOR UPDATE":                false,
			"SELECT count(*) FROM t TABLESAMPLE BERNOULLI (100)":    false,
			"SHOW work_mem":                                         false,
			"EXPLAIN SELECT 1":                                      false,
			"SELECT 1; SELECT 2":                                    false,
		} {
			p.must(sql)
			if _, hit := p.hit(sql); hit != kept {
				t.Errorf("%s: kept %v, want %v", sql, hit, kept)
			}
		}
		q := f.plain("options", "-c "+path) // whose settings are unknown after what is not kept
		for _, sql := range []string{"SELECT query_to_xml('SELECT 1', true, true, '')::text", "SELECT writes()"} {
			q.must(sql)
			if _, hit := q.hit(sql); hit {
				t.Errorf("%s is kept", sql)
			}
		}
	})

	t.Run("what a write drops", func(t *testing.T) {
		const r = "SELECT count(*), sum(length(b)) FROM t"
		for _, x := range []struct{ read, write, undo string }{
			{r, "INSERT INTO t VALUES (10, 'ten')", "DELETE FROM t WHERE a = 10"},
			{r, "UPDATE t SET b = 'longer' WHERE a = 2", "UPDATE t SET b = 'x2' WHERE a = 2"},
			{r, "DELETE FROM t WHERE a = 2", "INSERT INTO t VALUES (2, 'x2')"},
			{r, "WITH d AS (DELETE FROM t WHERE a = 2 RETURNING 1) SELECT * FROM d", "INSERT INTO t VALUES (2, 'x2')"},
			{r, "MERGE INTO t USING u ON t.a = u.a + 1 WHEN MATCHED THEN DELETE", "INSERT INTO t VALUES (2, 'x2')"},
			{r, "BEGIN; INSERT INTO t VALUES (10, 'ten'); COMMIT", "DELETE FROM t WHERE a = 10"},
			{r, "DO $$BEGIN DELETE FROM t WHERE a = 2; END$$", "INSERT INTO t VALUES (2, 'x2')"},
			{r, "EXPLAIN ANALYZE DELETE FROM t WHERE a = 2", "INSERT INTO t VALUES (2, 'x2')"},
			{r, "PREPARE d AS DELETE FROM t WHERE a = 2; EXECUTE d", "DEALLOCATE d; INSERT INTO t VALUES (2, 'x2')"},
			{r, "INSERT INTO v VALUES (0, 'nil')", "DELETE FROM vv WHERE a = 0"},
			{"SELECT count(*) FROM v", "DELETE FROM t WHERE a = 2", "INSERT INTO t VALUES (2, 'x2')"},
			{"SELECT count(*) FROM vv", "DELETE FROM t WHERE a = 2", "INSERT INTO t VALUES (2, 'x2')"},
			{"SELECT sum(b) FROM parted", "INSERT INTO part21 VALUES (2, 1)", "DELETE FROM parted WHERE a = 2"},
			{"SELECT sum(b) FROM part21", "INSERT INTO parted VALUES (2, 1)", "DELETE FROM parted WHERE a = 2"},
			{"SELECT count(*) FROM old", "INSERT INTO young VALUES (1)", "DELETE FROM young"},
			{"SELECT count(*) FROM child", "DELETE FROM parent WHERE id = 1", "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1)"},
			{"SELECT count(id) FROM grandchild", "DELETE FROM parent WHERE id = 2", "INSERT INTO parent VALUES (2); INSERT INTO child VALUES (2)"},
			{"SELECT sum(id) FROM grandchild", "UPDATE parent SET id = 30 WHERE id = 3", "UPDATE parent SET id = 3 WHERE id = 30"},
			{"SELECT count(*) FROM logged", "INSERT INTO triggered VALUES (1)", ""},
			{"SELECT count(*) FROM logged", "INSERT INTO ruled VALUES (1)", ""},
			{"SELECT count(*) FROM logged", "SELECT writes()", ""},
			{"SELECT count(*) FROM logged", "INSERT INTO u SELECT writes()", "DELETE FROM u WHERE ctid <> '(0,1)'"},
			{"SELECT * FROM mv", "INSERT INTO t VALUES (10, ''); REFRESH MATERIALIZED VIEW mv", "DELETE FROM t WHERE a = 10"},
			{"SELECT m FROM moods", "ALTER TYPE mood RENAME VALUE 'bad' TO 'awful'", "ALTER TYPE mood RENAME VALUE 'awful' TO 'bad'"},
			{"SELECT * FROM u", "ALTER TABLE u ADD c int DEFAULT 7", "ALTER TABLE u DROP c"},
			{"SELECT * FROM v WHERE a < 3", "CREATE OR REPLACE VIEW v AS SELECT a, 'y' AS b FROM u", "CREATE OR REPLACE VIEW v AS SELECT * FROM t WHERE a < 5"},
			{"SELECT count(*) FROM t", "ALTER TABLE t RENAME TO tt; CREATE TABLE t ()", "DROP TABLE t; ALTER TABLE tt RENAME TO t"},
			{r, "TRUNCATE t", "INSERT INTO t SELECT i, 'x' || i FROM generate_series(1, 9) i"},
			{r, "COPY (DELETE FROM t WHERE a = 9 RETURNING a) TO STDOUT", "INSERT INTO t VALUES (9, 'x9')"},
		} {
			for _, step := range []string{x.write, x.undo} {
				if step == "" {
					continue
				}
				p.must(x.read)
				if _, hit := p.hit(x.read); !hit {
					t.Errorf("%s is not kept", x.read)
				}
				if _, err := other.run(step); err != nil {
					t.Errorf("%s: %v", step, err)
				}
				if got, want := p.must(x.read), direct(x.read); got != want {
					t.Errorf("%s after %s: %q, want %q", x.read, step, got, want)
				}
			}
		}
		before := direct("SELECT count(*) FROM logged")
		p.must("SELECT count(*) FROM logged")
		if _, err := other.run("CALL proc()"); err == nil {
			t.Error("the procedure does not fail")
		}
		if got := p.must("SELECT count(*) FROM logged"); got == before {
			t.Errorf("a procedure that has committed and failed after that: still %s", got)
		}
		p.must("SELECT sum(a) FROM u")
		if _, err := other.CopyFrom(t.Context(), strings.NewReader("5\n"), "COPY u FROM STDIN"); err != nil {
			t.Error(err)
		}
		if got, want := p.must("SELECT sum(a) FROM u"), direct("SELECT sum(a) FROM u"); got != want {
			t.Errorf("after COPY: %s, want %s", got, want)
		}
	})

	t.Run("what it does not drop", func(t *testing.T) {
		other := f.plain("options", "-c "+path)
		for _, write := range []string{
			"BEGIN; DELETE FROM t; ROLLBACK", "BEGIN; DELETE FROM t", "ROLLBACK", "INSERT INTO u VALUES (3)", "SET work_mem = '5MB'", "LISTEN x; NOTIFY x; UNLISTEN x",
			"BEGIN; DELETE FROM t; SAVEPOINT s", "SELECT 1/0", "COMMIT", "SELECT pg_sleep(0)", "SELECT nextval('seq') > 0", "LOCK TABLE t",
			"CREATE TEMP TABLE mine (a int)", "INSERT INTO mine VALUES (1)", "INSERT INTO t VALUES (1, 'twice')", "SELECT a FROM t WHERE a = 1 FOR UPDATE",
			"BEGIN; DELETE FROM t WHERE a = 2", "PREPARE TRANSACTION 'qc'", "ROLLBACK PREPARED 'qc'", "UNLISTEN *", "DROP TABLE IF EXISTS nothing"} {
			const r = "SELECT count(*), max(b) FROM t"
			p.must(r)
			other.run(write) // some of them fail
			drops := strings.HasPrefix(write, "DROP")
			if got, hit := p.hit(r); hit == drops || got != direct(r) {
				t.Errorf("after %s: hit %v, %q", write, hit, got)
			}
		}
	})

	t.Run("within transactions", func(t *testing.T) {
		const r = "SELECT b FROM t WHERE a = 3"
		p.must(r)
		own := f.plain("options", "-c "+path)
		own.must(r)
		own.must("BEGIN")
		if _, hit := own.hit(r); !hit {
			t.Error("a transaction that has not written is not served")
		}
		own.must("UPDATE t SET b = 'mine' WHERE a = 3")
		if got := own.must(r); got != "mine" {
			t.Errorf("own write: %q", got)
		}
		if got, hit := p.hit(r); got != "x3" || !hit {
			t.Errorf("before the commit: %q, hit %v", got, hit)
		}
		own.must("COMMIT")
		if got := p.must(r); got != "mine" {
			t.Errorf("after the commit: %q", got)
		}

		own.must("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM u")
		other.must("UPDATE t SET b = 'newer' WHERE a = 3")
		if got := p.must(r); got != "newer" {
			t.Errorf("got %q", got)
		}
		if got := own.must(r); got != "mine" {
			t.Errorf("a snapshot is left: %q", got)
		}
		if got := p.must(r); got != "newer" {
			t.Errorf("an old snapshot is given out: %q", got)
		}
		own.must("COMMIT; BEGIN; UPDATE t SET b = 'x3' WHERE a = 3; COMMIT AND CHAIN")
		if got := p.must(r); got != "x3" {
			t.Errorf("after COMMIT AND CHAIN: %q", got)
		}
		own.must("ROLLBACK")
		own.must("BEGIN; UPDATE t SET b = 'prepared' WHERE a = 3; PREPARE TRANSACTION 'qc'")
		if got, hit := p.hit(r); got != "x3" || !hit {
			t.Errorf("after PREPARE TRANSACTION: %q, hit %v", got, hit)
		}
		other.must("COMMIT PREPARED 'qc'")
		if got := p.must(r); got != "prepared" {
			t.Errorf("after COMMIT PREPARED: %q", got)
		}
	})

	t.Run("whose it is", func(t *testing.T) {
		const r = "SELECT b FROM t WHERE a = 1"
		q := f.plain("options", "-c "+path)
		want := q.must(r)
		q.must("SET search_path = qc2")
		if got := q.must(r); got != "other" {
			t.Errorf("another search_path: %q", got)
		}
		q.must("BEGIN; SET LOCAL search_path = qc")
		if got := q.must(r); got != want {
			t.Errorf("SET LOCAL: %q", got)
		}
		q.must("COMMIT")
		if got := q.must(r); got != "other" {
			t.Errorf("after SET LOCAL: %q", got)
		}
		q.must("DO $$BEGIN PERFORM set_config('search_path', 'qc', false); END$$")
		if got := q.must(r); got != want {
			t.Errorf("a setting made unseen: %q", got)
		}
		q.must("DISCARD ALL")
		q.must("SET search_path = qc")

		// The same of a trigger.
		other.must(`CREATE TABLE moved (a int); CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN PERFORM set_config(''search_path'', ''qc2'', false); RETURN NEW; END';
			CREATE TRIGGER move AFTER INSERT ON moved FOR EACH ROW EXECUTE FUNCTION move()`)
		for range 2 {
			q.must("SET search_path = qc")
			for range 3 {
				if got := q.must(r); got != want {
					t.Errorf("got %q", got)
				}
			}
			q.must("INSERT INTO moved VALUES (1)")
			for range 2 * 3 {
				if got := q.must(r); got != "other" {
					t.Errorf("a setting made by a trigger: %q", got)
				}
			}
		}
		other.must("DROP TABLE moved; DROP FUNCTION move()")
		q.must("SET search_path = qc")

		for set, sql := range map[string]string{
			"SET DateStyle = 'German'": "SELECT date '2020-01-02'", "SET TimeZone = 'Asia/Tokyo'": "SELECT timestamptz '2020-01-02 00:00+00'",
			"SET bytea_output = 'escape'": `SELECT 'ab'::bytea`, "SET extra_float_digits = -5": "SELECT 1.23456789012345::float8",
			"SET IntervalStyle = 'iso_8601'": "SELECT interval '1 day'", "SET lc_monetary = 'C'": "SELECT 1::money",
		} {
			q.must(sql)
			q.must(set)
			if got, want := q.must(sql), f.direct(set+"; "+sql); got != want {
				t.Errorf("%s: %q, want %q", set, got, want)
			}
			q.must("RESET ALL; SET search_path = qc")
		}

		reader, err := pgx.Connect(t.Context(), f.URL("reader", "postgres", "options", "-c "+path))
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close(context.Background())
		r1 := &plain{reader.PgConn(), t}
		for range 2 {
			if got := r1.must(r); got != want {
				t.Errorf("reader: %q", got)
			}
		}
		other.must("REVOKE SELECT ON t FROM reader")
		if _, err := r1.run(r); err == nil {
			t.Error("still readable after REVOKE")
		}
		q.must(r)
		q.must("SET ROLE reader")
		if _, err := q.run(r); err == nil {
			t.Error("readable as another role")
		}
		q.must("RESET ROLE")
		other.must("GRANT SELECT ON t TO reader")
		r1.must(r)
		other.must("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
		if got := r1.must(r); got != "" {
			t.Errorf("row security was switched on: %q", got)
		}
		other.must("ALTER TABLE t DISABLE ROW LEVEL SECURITY")
		if got := r1.must(r); got != want {
			t.Errorf("and off: %q", got)
		}

		// Sessions begin with other settings, although nobody says so.
		other.must("ALTER ROLE reader SET search_path = qc2, qc; GRANT SELECT ON qc2.t TO reader")
		fresh, err := pgx.Connect(t.Context(), f.URL("reader", "postgres", "application_name", "x"))
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close(context.Background())
		for range 2 {
			if got := (&plain{fresh.PgConn(), t}).must(r); got != "other" {
				t.Errorf("a role's search_path: %q", got)
			}
			if got := r1.must(r); got != want {
				t.Errorf("reader: %q", got)
			}
		}
		// A temporary table goes before.
		q.must(r)
		q.must("CREATE TEMP TABLE t (a int, b text); INSERT INTO t VALUES (1, 'temp')")
		if got := q.must(r); got != "temp" {
			t.Errorf("temporary table: %q", got)
		}
		if got := p.must(r); got != want {
			t.Errorf("somebody else's temporary table: %q", got)
		}
	})

	t.Run("extended protocol", func(t *testing.T) {
		for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec"} {
			c := f.connect("default_query_exec_mode", mode, "options", "-c "+path)
			before := p.hits()
			for i := range 12 {
				var b string
				var a int
				if err := c.QueryRow(t.Context(), "SELECT a, b FROM t WHERE a = $1 /* "+mode+" */", 4+i%2).Scan(&a, &b); err != nil || a != 4+i%2 || b != fmt.Sprint("x", a) {
					t.Fatal(a, b, err)
				}
			}
			if n := p.hits() - before; n < 8 {
				t.Errorf("%s: %d hits of 12", mode, n)
			}
			other.must("UPDATE t SET b = b || '!' WHERE a = 4")
			var b string
			if err := c.QueryRow(t.Context(), "SELECT b FROM t WHERE a = $1 /* "+mode+" */", 4).Scan(&b); err != nil || b != "x4!" {
				t.Errorf("%s: after a write %q %v", mode, b, err)
			}
			tx, err := c.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "UPDATE t SET b = $1 WHERE a = 4", "x4"); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := tx.QueryRow(t.Context(), "SELECT b FROM t WHERE a = $1 /* "+mode+" */", 4).Scan(&b); err != nil || b != "x4" {
					t.Errorf("%s: own write %q %v", mode, b, err)
				}
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.QueryRow(t.Context(), "SELECT b FROM t WHERE a = $1 /* "+mode+" */", 4).Scan(&b); err != nil || b != "x4" {
				t.Errorf("%s: after the commit %q %v", mode, b, err)
			}
		}
		// Text and binary are kept apart.
		c := f.connect("options", "-c "+path)
		for range 2 {
			for format, want := range []string{"\\x7832", "x2"} {
				r := c.PgConn().ExecParams(t.Context(), "SELECT convert_to(b, 'UTF8') FROM t WHERE a = 2", nil, nil, nil, []int16{int16(format)}).Read()
				if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != want {
					t.Errorf("format %d: %q %v", format, r.Rows, r.Err)
				}
			}
		}
		// A word that means the present moment may come as a parameter.
		for range 2 {
			before := p.hits()
			if r := c.PgConn().ExecParams(t.Context(), "SELECT $1::date", [][]byte{[]byte("today")}, nil, nil, nil).Read(); r.Err != nil {
				t.Error(r.Err)
			}
			if p.hits() > before {
				t.Error("today is kept")
			}
		}
	})

	// What is asked about views needs locks on their tables, which somebody may wait for
	// in front of us until our own transaction is over.
	t.Run("a lock in the way", func(t *testing.T) {
		own := f.plain("options", "-c "+path)
		const r = "SELECT count(*) FROM vv"
		own.must("BEGIN")
		want := own.must(r)
		other.must("CREATE TABLE news ()") // nothing is known any more
		altered := make(chan string, 1)
		go func() { altered <- direct("ALTER TABLE t ADD COLUMN news int") }()
		eventually(t, "the wait for the lock", func() bool { return f.direct("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1" })
		began := time.Now()
		for range 3 {
			if got := own.must(r); got != want {
				t.Errorf("got %q", got)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("three reads have taken %v", took)
		}
		own.must("COMMIT")
		<-altered
		other.must("ALTER TABLE t DROP COLUMN news; DROP TABLE news")
	})

	t.Run("per statement", func(t *testing.T) {
		q := f.connect("options", "-c "+path)
		for i := range 5 { // the second two are answered: literals make two texts of one statement
			p.must(fmt.Sprintf("SELECT b /* secret */ FROM t WHERE b <> 'secret' AND a = %d", 1+i%2))
			var b string
			if err := q.QueryRow(t.Context(), "SELECT b FROM t WHERE b <> 'secret' AND a = $1", 1+i%2).Scan(&b); err != nil {
				t.Fatal(err)
			}
		}
		for _, show := range []string{"SHOW POOL_CACHE STATEMENTS", "show pool_cache_statements;"} {
			out := p.must(show)
			for _, want := range []string{"3|2|0.60|postgres|SELECT b FROM t WHERE b <> ? AND a = ?\n", "3|2|0.60|postgres|SELECT b FROM t WHERE b <> ? AND a = $1\n"} {
				if !strings.Contains(out+"\n", want) {
					t.Errorf("%s lacks %q:\n%s", show, want, out)
				}
			}
			if strings.Contains(out, "secret") {
				t.Errorf("%s tells a secret:\n%s", show, out)
			}
		}
		rows, err := q.Query(t.Context(), "SHOW POOL_CACHE STATEMENTS") // by the extended protocol
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		if n := len(rows.FieldDescriptions()); n != 5 || !rows.Next() {
			t.Errorf("%d columns %v", n, rows.Err())
		}
		// SHOW POOL_CACHE is what scripts read: one row of nine columns.
		if out := p.must("SHOW POOL_CACHE"); strings.Count(out, "|") != 8 || strings.Contains(out, "\n") {
			t.Errorf("SHOW POOL_CACHE: %q", out)
		}
	})

	t.Run("by hand", func(t *testing.T) {
		const r = "SELECT 'by hand'"
		p.must(r)
		if _, hit := p.hit(r); !hit {
			t.Error("not kept")
		}
		f.account("admin", "secret")
		f.Must(f.client().InvalidateQueryCache())
		if _, hit := p.hit(r); hit {
			t.Error("kept after pcp_invalidate_query_cache")
		}
		p.must("PGPOOL SET CACHE DELETE '" + strings.ReplaceAll(r, "'", "''") + "'")
		if _, hit := p.hit(r); hit {
			t.Error("kept after CACHE DELETE")
		}
		f.reload("cache_unsafe_memqcache_table_list = 'u,qc.part.*'")
		for sql, kept := range map[string]bool{"SELECT a FROM u": false, "SELECT * FROM parted": false, "SELECT a FROM t": true} {
			p.must(sql)
			if _, hit := p.hit(sql); hit != kept {
				t.Errorf("%s: kept %v, want %v", sql, hit, kept)
			}
		}
		f.reload("memqcache_auto_cache_invalidation = off")
		q, want := f.plain("options", "-c "+path), p.must("SELECT b FROM t WHERE a = 7")
		q.must("UPDATE t SET b = 'unseen' WHERE a = 7")
		if got := q.must("SELECT b FROM t WHERE a = 7"); got != want {
			t.Errorf("without invalidation: %q, want %q", got, want)
		}
		f.reload("memqcache_auto_cache_invalidation = on")
		eventually(t, "the reload", func() bool { return p.must("SELECT b FROM t WHERE a = 7") == "unseen" })
		if log := f.Log.String(); !strings.Contains(log, "fetch from memory cache") || !strings.Contains(log, "query result fetched from cache. statement: "+r) {
			t.Error("the log does not tell of a hit")
		}
	})
}

// A search path that ends with its transaction is not taken for the session's.
func TestQueryCachePathOfATransaction(t *testing.T) {
	f := cached(t)
	p := f.plain()
	p.must("SET search_path = qc")
	const r = "SELECT b FROM t WHERE a = 1"
	for i, leave := range [][2]string{{"SET LOCAL search_path = qc2", "COMMIT"}, {"SET search_path = qc2", "ROLLBACK"}} {
		p.must(r)
		p.must("BEGIN")
		p.must(leave[0])
		p.must(r)
		p.must(leave[1])
		f.plain().must("DELETE FROM qc2.t WHERE a = -1") // of no matter to qc.t
		p.must(r)
		want := fmt.Sprint("new", i)
		f.plain().must("UPDATE qc.t SET b = '" + want + "' WHERE a = 1")
		if got := p.must(r); got != want {
			t.Errorf("after %s and %s: got %q, want %q", leave[0], leave[1], got, want)
		}
	}
}

// In transaction mode what has been answered before takes no server connection; and
// nothing is kept from one whose settings are not certain.
func TestQueryCacheTransactionMode(t *testing.T) {
	f := cached(t, "pool_mode = transaction", "pool_size = 1", "pool_wait_timeout = 1")
	const path, r = "search_path=qc", "SELECT b FROM t WHERE a = 1"
	p, q := f.plain("options", "-c "+path), f.plain("options", "-c "+path)

	t.Run("no connection", func(t *testing.T) {
		if p.must(r) != "x1" {
			t.Fatal("not x1")
		}
		c := f.connect("options", "-c "+path) // which has prepared statements
		read := func() (b string) {
			if err := c.QueryRow(t.Context(), "SELECT b FROM t WHERE a = $1", 2).Scan(&b); err != nil {
				t.Fatal(err)
			}
			return b
		}
		read()
		q.must(r)
		q.must("BEGIN; SELECT count(*) FROM u") // has the only connection
		for range 3 {
			if got, hit := p.hit(r); got != "x1" || !hit {
				t.Errorf("got %q, hit %v", got, hit)
			}
			if got := read(); got != "x2" {
				t.Errorf("prepared: %q", got)
			}
		}
		if _, err := p.run("SELECT b FROM t WHERE a = 3"); err == nil || !strings.Contains(err.Error(), "no connection") {
			t.Errorf("a miss needs none either: %v", err)
		}
		// What was refused is not kept under what comes next.
		if got := c.PgConn().ExecParams(t.Context(), "SELECT b FROM t WHERE a = 4", nil, nil, nil, nil).Read(); got.Err == nil {
			t.Error("a miss needs none either")
		}
		q.must("COMMIT")
		for range 2 {
			if got := p.must("SELECT b FROM t WHERE a = 3"); got != "x3" {
				t.Errorf("got %q", got)
			}
		}
	})

	// A session of its own settings makes and finds its own answers, whoever has had
	// the connection.
	t.Run("settings travel", func(t *testing.T) {
		q.must("SET search_path = qc2; SET DateStyle = 'German'")
		const d = "SELECT b, date '2020-01-02' FROM t WHERE a = 1"
		for i := range 4 {
			if got, hit := p.hit(d); got != "x1|2020-01-02" || hit != (i > 0) {
				t.Errorf("got %q, hit %v", got, hit)
			}
			if got, hit := q.hit(d); got != "other|02.01.2020" || hit != (i > 0) {
				t.Errorf("with other settings %q, hit %v", got, hit)
			}
		}
		q.must("RESET ALL; SET search_path = qc")
		if got, hit := q.hit(d); got != "x1|2020-01-02" || hit {
			t.Errorf("got %q, hit %v", got, hit) // what it was told to set is in the key, if it comes to the same
		}
	})

	t.Run("after code unseen", func(t *testing.T) {
		q.must("SELECT same(1), writes()") // leaves nothing behind, but who knows
		const n = "SELECT b FROM t WHERE a = 5"
		for i := range 2 {
			if got, hit := p.hit(n); got != "x5" || hit != (i > 0) {
				t.Errorf("got %q, hit %v", got, hit)
			}
		}
		if got, hit := q.hit(r); got != "x1" || hit {
			t.Errorf("got %q, hit %v", got, hit)
		}
		if got, hit := q.hit(r); got != "x1" || !hit {
			t.Errorf("got %q, hit %v", got, hit)
		}
		// A temporary table of a function's is asked for, and nobody else sees it.
		f.reload("pool_size = 2")
		q.must("DO $$BEGIN CREATE TEMP TABLE t (a int, b text); INSERT INTO t VALUES (1, 'temp'); END$$")
		for range 2 {
			if got := q.must(r); got != "temp" {
				t.Errorf("got %q", got)
			}
			if got := p.must(r); got != "x1" {
				t.Errorf("got %q", got)
			}
		}
		q.must("DROP TABLE pg_temp.t")
	})

	// Servers that have been started anew may begin with other settings.
	t.Run("restart", func(t *testing.T) {
		s := f.plain() // search_path is what it is by default
		f.MustExec(0, "ALTER SYSTEM SET search_path = 'qc'")
		f.Must(f.Nodes[0].Restart(testcluster.Fast))
		eventually(t, "the server", func() bool { got, err := s.run(r); return err == nil && got == "x1" })
		s.must(r)
		f.MustExec(0, "ALTER SYSTEM SET search_path = 'qc2'")
		f.Must(f.Nodes[0].Restart(testcluster.Fast))
		eventually(t, "the server", func() bool {
			got, err := s.run(r)
			if err == nil && got != "other" {
				t.Errorf("got %q", got)
			}
			return err == nil
		})
	})
}

// direct asks the primary itself; rows as plain.run gives them.
func (f *front) direct(sql string) string {
	f.t.Helper()
	c, err := pgx.Connect(f.t.Context(), f.Nodes[0].URL())
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close(context.Background())
	return (&plain{c.PgConn(), f.t}).must(sql)
}

// TestCacheAfterReload: when a server has read its configuration anew, through us or
// not, answers are in the form that its settings give them now.
func TestCacheAfterReload(t *testing.T) {
	for _, lines := range [][]string{nil, {"pool_mode = transaction", "pool_size = 4"}} {
		f := cached(t, append(lines, "sr_check_period = 1")...)
		t.Cleanup(func() {
			f.MustExec(0, "ALTER SYSTEM RESET extra_float_digits")
			f.MustExec(0, "SELECT pg_reload_conf()")
		})
		const sql = "SELECT 0.1::float8 + 0.2"
		p, other := f.plain(), f.plain()
		alike := func(what, want string) {
			t.Helper()
			for _, c := range []*plain{p, other, p, other} {
				if got := c.must(sql); got != want {
					t.Errorf("%s: %s, not %s", what, got, want)
				}
			}
			if _, hit := other.hit(sql); !hit {
				t.Errorf("%s: it is not kept", what)
			}
		}
		alike("at first", "0.30000000000000004")
		p.must("ALTER SYSTEM SET extra_float_digits = -3")
		p.must("SELECT pg_reload_conf()")
		for end := time.Now().Add(reloadSettled); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			p.must(sql) // what is answered meanwhile is not kept
		}
		alike("after a reload", "0.3")
		f.MustExec(0, "ALTER SYSTEM SET extra_float_digits = 0")
		f.MustExec(0, "SELECT pg_reload_conf()")
		time.Sleep(reloadSettled)
		alike("after one that has not come through us", "0.3")
		f.MustExec(0, "ALTER SYSTEM SET extra_float_digits = 1")
		f.MustExec(0, "SELECT pg_reload_conf()")
		time.Sleep(reloadSettled)
		alike("after another", "0.30000000000000004")
	}
}

// reloadSettled is how long nothing is kept after a reload, and after the probe that
// has found it, too.
const reloadSettled = 5 * time.Second
