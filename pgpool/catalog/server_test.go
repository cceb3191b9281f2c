package catalog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
	"pgpool-go/tools/golden"
	"pgpool-go/tools/testcluster"
)

// asker asks a real server, one question at a time, and counts.
type asker struct {
	mu    sync.Mutex
	conn  *pgconn.PgConn
	asked int
}

func (a *asker) Ask(ctx context.Context, sql string, args ...string) ([][]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	params := make([][]byte, len(args))
	for i, s := range args {
		params[i] = []byte(s)
	}
	r := a.conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if r.Err != nil {
		return nil, r.Err
	}
	rows := make([][]string, len(r.Rows))
	for i, row := range r.Rows {
		for _, v := range row {
			rows[i] = append(rows[i], string(v))
		}
	}
	return rows, nil
}

func dial(t *testing.T, n *testcluster.Node) *asker {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), n.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return &asker{conn: conn}
}

// say writes facts down in one line.
func say(f *route.Facts) string {
	var out []string
	for _, x := range []struct {
		what string
		name parser.Name
	}{{"volatile", f.Volatile}, {"catalog", f.Catalog}, {"unlogged", f.Unlogged}, {"foreign", f.Foreign}} {
		if x.name.Name != "" {
			out = append(out, x.what+" "+x.name.String())
		}
	}
	if f.Custom {
		out = append(out, "custom")
	}
	if len(f.Base) > 0 {
		var base []string
		for _, n := range f.Base {
			base = append(base, n.String())
		}
		slices.Sort(base)
		out = append(out, "base "+strings.Join(base, " "))
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}

const moreSchema = `
CREATE SCHEMA other;
CREATE UNLOGGED TABLE other.t3 (a int);
CREATE TABLE parent (a int) PARTITION BY LIST (a);
CREATE UNLOGGED TABLE child PARTITION OF parent FOR VALUES IN (1);
CREATE TABLE old (a int); CREATE UNLOGGED TABLE young () INHERITS (old);
CREATE VIEW v_deep AS SELECT v1.i FROM v_unl, v1;
CREATE VIEW v_parent AS SELECT * FROM parent;
CREATE VIEW v_op AS SELECT 1 OPERATOR(app.<!>) 2 AS x;
CREATE VIEW v_fn AS SELECT app.f_vol2(1) AS x;
CREATE VIEW v_deep_vol AS SELECT * FROM (SELECT * FROM v_vol) s;
CREATE TABLE "it's" (i int); CREATE UNLOGGED TABLE "a""b\c,{}" (i int); CREATE TABLE "Mixed" (i int);
CREATE UNLOGGED SEQUENCE usq;
CREATE MATERIALIZED VIEW mv_vol AS SELECT random() AS r;
CREATE EXTENSION IF NOT EXISTS file_fdw; CREATE SERVER fs FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE ft (t text) SERVER fs OPTIONS (filename '/dev/null');
CREATE VIEW v_ft AS SELECT * FROM ft;
CREATE TABLE app.pg_class (i int);
`

// TestAgainstServer asks a real server about the schema of the routing corpus.
func TestAgainstServer(t *testing.T) {
	cluster := testcluster.New(t, testcluster.Options{})
	schema, err := os.ReadFile(filepath.Join(golden.Testdata(t), "routing", "schema.sql"))
	if err != nil {
		t.Fatal(err)
	}
	a := dial(t, cluster.Nodes[0])
	for _, sql := range append(strings.Split(string(schema), ";\n"), moreSchema) {
		if _, err := a.conn.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	p := parser.New(parser.Options{})
	public := NewPath(`"$user", public`, "postgres")
	resolve := func(t *testing.T, c *Catalog, path *Path, sql string) *route.Facts {
		t.Helper()
		f, err := c.Resolve(t.Context(), a, "postgres", path, p.Classify([]byte(sql)))
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return f
	}

	t.Run("facts", func(t *testing.T) {
		c := New(Options{})
		for _, x := range []struct{ sql, want string }{
			{"SELECT 1", "-"},
			{"SELECT * FROM t1, app.t1, parted, mv1, sq", "-"},
			{"SELECT now(), version(), count(*), substring('a' FROM 1), current_setting('x')", "-"},
			{"SELECT random()", "volatile random"},
			{"SELECT pg_catalog.random()", "volatile pg_catalog.random"},
			{"SELECT nextval('sq')", "volatile nextval"},
			{"SELECT txid_current()", "volatile txid_current"},
			{"SELECT f_vol(1)", "volatile f_vol, custom"},
			{"SELECT f_stable(1), f_imm(2)", "volatile f_imm, custom"}, // app.f_imm is volatile
			{"SELECT public.f_imm(1)", "-"},
			{"SELECT app.f_imm(1)", "volatile app.f_imm, custom"},
			{"SELECT f_over(1)", "volatile f_over, custom"},
			{"SELECT no_such_function(1) FROM no_such_table", "-"},
			{"SELECT 1 OPERATOR(app.<!>) 2", "volatile app.operator <!>, custom"},
			{"SELECT 1 OPERATOR(app.<+>) 2, 3 + 4", "-"},
			{"SELECT * FROM pg_class", "catalog pg_catalog.pg_class"},
			{"SELECT * FROM pg_stat_activity, t1", "catalog pg_catalog.pg_stat_activity"},
			{"SELECT * FROM app.pg_class", "-"},
			{"SELECT * FROM information_schema.tables", "-"},
			{"SELECT * FROM ut", "unlogged public.ut"},
			{"SELECT * FROM app.ut2", "unlogged app.ut2"},
			{"SELECT * FROM t3", "-"},
			{"SELECT * FROM other.t3", "unlogged other.t3"},
			{"SELECT * FROM usq", "unlogged public.usq"},
			{"SELECT * FROM v1", "base public.t1"},
			{"SELECT * FROM v_unl", "unlogged public.ut, base public.ut"},
			{"SELECT * FROM v_deep", "unlogged public.ut, base public.t1 public.ut public.v1 public.v_unl"},
			{"SELECT * FROM parent", "unlogged public.child, base public.child"},
			{"SELECT * FROM v_parent", "unlogged public.child, base public.child public.parent"},
			{"SELECT * FROM old", "unlogged public.young, base public.young"},
			{"SELECT * FROM v_vol", "volatile random"},
			{"SELECT * FROM v_deep_vol", "volatile random, base public.v_vol"},
			{"SELECT * FROM mv_vol", "-"},
			{"SELECT * FROM v_op", "volatile app.operator <!>, custom"},
			{"SELECT * FROM v_fn", "volatile app.f_vol2, custom"},
			{"SELECT * FROM v_cat", "-"},
			{"SELECT * FROM ft", "foreign public.ft"},
			{"SELECT * FROM v_ft", "foreign public.ft, base public.ft"},
			{`SELECT * FROM "it's"`, "-"},
			{`SELECT * FROM "a""b\c,{}"`, `unlogged public.a"b\c,{}`},
			{`SELECT * FROM "x'; DROP TABLE t1; --"`, "-"},
			{`SELECT * FROM mixed, "Mixed"`, "-"},
		} {
			if got := say(resolve(t, c, public, x.sql)); got != x.want {
				t.Errorf("%s: %s, want %s", x.sql, got, x.want)
			}
		}
	})

	t.Run("search path", func(t *testing.T) {
		c := New(Options{})
		for _, x := range []struct{ path, sql, want string }{
			{"public", "SELECT * FROM t3", "-"},
			{"other, public", "SELECT * FROM t3", "unlogged other.t3"},
			{"nowhere, public, other", "SELECT * FROM t3", "-"},
			{`"other"`, "SELECT * FROM t3", "unlogged other.t3"},
			{"app", "SELECT * FROM pg_class", "catalog pg_catalog.pg_class"},
			{"app, pg_catalog", "SELECT * FROM pg_class", "-"},
			{"", "SELECT * FROM ut", "-"},
			{`"$user"`, "SELECT * FROM ut2", "unlogged app.ut2"},
		} {
			if got := say(resolve(t, c, NewPath(x.path, "app"), x.sql)); got != x.want {
				t.Errorf("%s: %s: %s, want %s", x.path, x.sql, got, x.want)
			}
		}
		if got := say(resolve(t, c, nil, "SELECT * FROM t3")); got != "unlogged other.t3" {
			t.Errorf("unknown path: %s", got)
		}
	})

	t.Run("asks once", func(t *testing.T) {
		c := New(Options{})
		before := a.asked
		resolve(t, c, public, "SELECT f_vol(i), now() FROM t1 WHERE i = 1")
		if n := a.asked - before; n != 1 {
			t.Errorf("%d questions, want 1", n)
		}
		resolve(t, c, public, "SELECT * FROM t1 WHERE i = 2")
		resolve(t, c, public, "SELECT now()")
		if n := a.asked - before; n != 1 {
			t.Errorf("names known were asked again: %d questions", n)
		}
		v := p.Classify([]byte("SELECT * FROM t1 WHERE i = 77"))
		if f, ok := c.Lookup("postgres", public, v); !ok || say(f) != "-" {
			t.Error("not known to Lookup")
		}
		if _, ok := c.Lookup("otherdb", public, v); ok {
			t.Error("another database knows it")
		}
	})

	t.Run("temporary", func(t *testing.T) {
		b := dial(t, cluster.Nodes[0])
		if _, err := b.conn.Exec(t.Context(), "CREATE TEMP TABLE ttt (i int); CREATE TEMP SEQUENCE tsq").ReadAll(); err != nil {
			t.Fatal(err)
		}
		names, err := OwnTemp(t.Context(), b)
		slices.Sort(names)
		if err != nil || fmt.Sprint(names) != "[tsq ttt]" {
			t.Errorf("%v %v", names, err)
		}
		if names, err := OwnTemp(t.Context(), a); err != nil || len(names) != 0 {
			t.Errorf("another session's: %v %v", names, err)
		}
		if got := say(resolve(t, New(Options{}), public, "SELECT * FROM ttt")); got != "-" {
			t.Errorf("another session's temporary table: %s", got)
		}
	})

	t.Run("schema changes", func(t *testing.T) {
		c := New(Options{})
		exec := func(sql string) {
			t.Helper()
			if _, err := a.conn.Exec(t.Context(), sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
		const q = "SELECT * FROM changing"
		if got := say(resolve(t, c, public, q)); got != "-" {
			t.Fatal(got)
		}
		exec("CREATE UNLOGGED TABLE changing (i int)")
		if got := say(resolve(t, c, public, q)); got != "-" {
			t.Fatalf("absence was not remembered: %s", got)
		}
		c.Invalidate("postgres")
		if got := say(resolve(t, c, public, q)); got != "unlogged public.changing" {
			t.Fatal(got)
		}
		exec("ALTER TABLE changing SET LOGGED")
		c.InvalidateAll()
		if got := say(resolve(t, c, public, q)); got != "-" {
			t.Fatal(got)
		}
	})
}
