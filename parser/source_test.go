package parser

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgpool-go/tools/golden"
)

// replacing is what the tests of Rewrite put in.
func replacing() Replace {
	values := [...]string{"2026-01-02 03:04:05.678+00", "2026-01-02 03:04:06+00", "00000000-0000-4000-8000-000000000000", "0.25"}
	return Replace{
		Value:   func(c Chance) string { return values[c] },
		Columns: func(n Name) []Column { return rewriteColumns[n.Name] },
		Execute: func(name string) []Added {
			if name == "with_time" {
				return []Added{{Chance: Now}}
			}
			return nil
		},
		Steady: func(_ Name, _ Column, expr string) bool { return !strings.Contains(expr, "nextval") },
	}
}

// padding makes a text one that is reduced before it is parsed.
var padding = "\n/*" + strings.Repeat(" x '", reduceAt) + "*/"

// Texts that are reduced are rewritten as those that are not.
func TestReducedRewrite(t *testing.T) {
	golden.Run(t, "rewrite", func(t *testing.T, c golden.Case) string {
		_, sql, _ := strings.Cut(" : "+c.Input, " : ")
		if strings.HasPrefix(sql, "params ") {
			return c.Want
		}
		checkReduced(t, sql)
		return c.Want
	})
	r := rand.New(rand.NewPCG(1, 2))
	done := 0
	for range 300 {
		done += checkReduced(t, randomInsert(r))
	}
	if done < 250 {
		t.Errorf("only %d of 300 are rewritten", done)
	}
}

func checkReduced(t *testing.T, sql string) (rewritten int) {
	t.Helper()
	small, err := Rewrite([]byte(sql), replacing())
	large, err2 := Rewrite([]byte(sql+padding), replacing())
	if (err == nil) != (err2 == nil) {
		t.Fatalf("%s\n%v\n%v", sql, err, err2)
	}
	want := small.SQL
	if want != "" {
		want += padding
	}
	if want != large.SQL || small.Unequal != large.Unequal || len(small.Added) != len(large.Added) {
		t.Fatalf("%s\n%s\n%s\n%q %q", sql, small.SQL, strings.TrimSuffix(large.SQL, padding), small.Unequal, large.Unequal)
	}
	if small.SQL != "" {
		return 1
	}
	return 0
}

// randomInsert is an INSERT of rows of several shapes.
func randomInsert(r *rand.Rand) string {
	items := []string{"1", "-1", "+2.5", "'x'", "'it''s (now()), ('", "NULL", "true", "DEFAULT", "now()", "E'a\\'b'", "$$)$$", "gen_random_uuid()", "'now'::timestamptz",
		"'today' :: date", "f(1, 'a')", "ARRAY[1, 2,3]", "( 1 )", "(SELECT 1 WHERE 1 IN (1, 2, 3))", "/* ) */ 4", "-- )\n 5", "1 - 1", "nextval('s')", "nextval('r')",
		"(VALUES (1), (2))", "random()", "age('2020-01-01')", "timestamp 'now'", "CURRENT_TIMESTAMP(2)", "x.y"}
	var b strings.Builder
	b.WriteString([]string{"INSERT INTO t(v, w) ", "INSERT INTO t AS x ", "INSERT INTO u (v, w)", "WITH q AS (VALUES (1), (2), (3)) INSERT INTO t(v,w) ", "INSERT INTO c(a, b)",
		"INSERT INTO t (v, w) SELECT 1, 2 UNION ALL ", "SELECT 1 IN (1, 2, 3), a IN ('x','y', now()); INSERT INTO p "}[r.IntN(7)])
	b.WriteString("VALUES")
	n := 1 + r.IntN(30)
	k := 2 + r.IntN(3)
	for i := range n {
		if i > 0 {
			b.WriteString([]string{",", ", ", "\n,"}[r.IntN(3)])
		}
		fmt.Fprintf(&b, "(%s, %s)", items[r.IntN(min(len(items), k*3))], items[r.IntN(len(items))%(k*8)])
	}
	b.WriteString([]string{"", " RETURNING now()", " ON CONFLICT (id) DO UPDATE SET ts = DEFAULT", ";", " UNION ALL VALUES (1, 2), (3, 4)"}[r.IntN(5)])
	return b.String()
}

// Inserts of any size are rewritten, with little more than their text in memory.
func TestBulkRewrite(t *testing.T) {
	const rows = 400000
	var in, want, in2, in3 strings.Builder
	in.WriteString("INSERT INTO u (v) VALUES ")
	want.WriteString("INSERT INTO u (v, \"id\") VALUES ")
	in2.WriteString("INSERT INTO t (v, d) VALUES ")
	in3.WriteString("INSERT INTO p SELECT a FROM p WHERE b < now() AND a IN (0")
	for i := range rows {
		sep := ", "
		if i == 0 {
			sep = ""
		}
		fmt.Fprintf(&in, "%s('row %d, it''s (')", sep, i)
		fmt.Fprintf(&want, "%s('row %d, it''s (', CAST('%012d' AS pg_catalog.uuid))", sep, i, i+1)
		fmt.Fprintf(&in2, "%s(%d, %s)", sep, i, []string{"DEFAULT", "NULL", "'2020-01-01'", "current_date + 1"}[i%4])
		fmt.Fprintf(&in3, ", %d", i)
	}
	for _, c := range []struct{ name, in, want, part string }{
		{name: "new in each row", in: in.String(), want: want.String()},
		{name: "one for all", in: in2.String(), part: "(399998, '2020-01-01', CAST('2026-01-02 03:04:05.678+00' AS pg_catalog.timestamptz)), (399999, CAST(CAST('2026-01-02 03:04:05.678+00' AS pg_catalog.timestamptz) AS pg_catalog.date) + 1, CAST('2026-01-02 03:04:05.678+00' AS pg_catalog.timestamptz))"},
		{name: "list", in: in3.String() + ")", part: "WHERE b < CAST('2026-01-02 03:04:05.678+00' AS pg_catalog.timestamptz) AND a IN (0, 0, 1, 2"},
		{name: "literal", in: "INSERT INTO t(v) VALUES ('\\x" + strings.Repeat("0f", 5<<20) + "')", part: "0f0f', CAST("},
	} {
		r := replacing()
		n := 0
		r.Value = func(c Chance) string {
			if c != UUID {
				return replacing().Value(c)
			}
			n++
			return fmt.Sprintf("%012d", n)
		}
		at := time.Now()
		out, err := Rewrite([]byte(c.in), r)
		t.Logf("%s: %d bytes in %v", c.name, len(c.in), time.Since(at))
		if err != nil || c.want != "" && out.SQL != c.want || !strings.Contains(out.SQL, c.part) {
			t.Errorf("%s: %v, %.300s", c.name, err, out.SQL)
		}
	}
	r := replacing()
	r.Params = true
	if out, err := Rewrite([]byte(in.String()+", "+strings.TrimPrefix(strings.Repeat(in.String()[24:]+", ", 2), ", ")+"('x')"), r); !errors.Is(err, ErrRewrite) {
		t.Errorf("too many: %v, %d", err, len(out.Added))
	}
	out, err := Rewrite([]byte(in.String()), r)
	if err != nil || len(out.Added) != rows/arraySize || out.Added[0] != (Added{UUID, arraySize}) || !strings.Contains(out.SQL, fmt.Sprintf("(CAST($%d AS pg_catalog.uuid[]))[%d])", rows/arraySize, arraySize)) {
		t.Errorf("with parameters: %v, %d, %.300s", err, len(out.Added), out.SQL)
	}
}

// What PREPARE makes has parameters, and what stands next to it has not.
func TestBulkPrepare(t *testing.T) {
	rows := strings.Repeat("('x'), ", 10000) + "('x')"
	out, err := Rewrite([]byte("PREPARE a AS INSERT INTO u(v) VALUES "+rows+"; INSERT INTO u(v) VALUES "+rows), replacing())
	if err != nil || len(out.Added) != 10001/arraySize+1 || strings.Count(out.SQL, "CAST('00000000-0000-4000-8000-000000000000' AS pg_catalog.uuid)") != 10001 {
		t.Errorf("%v, %d, %.200s", err, len(out.Added), out.SQL)
	}
	if out, err = Rewrite([]byte("PREPARE a (int) AS INSERT INTO u(v) VALUES "+rows), replacing()); !errors.Is(err, ErrRewrite) {
		t.Errorf("%v, %.200s", err, out.SQL)
	}
}

// What cannot be looked at is said to be so.
func TestRewriteOfWhatIsNotRead(t *testing.T) {
	var many strings.Builder
	many.WriteString("INSERT INTO p VALUES (1)")
	for i := range 200000 {
		fmt.Fprintf(&many, " + a%d", i)
	}
	for _, sql := range []string{
		many.String(), "INSERT INTO t(v) VALUES (1" + strings.Repeat(" + 1", 100000) + ")", "SELECT now() + " + strings.Repeat("(", 100000),
		"INSERT INTO t(v) VALUES (1) NEW SYNTAX", "INSERT INTO t(v) VALUES ('1",
	} {
		out, err := Rewrite([]byte(sql), replacing())
		if out.Unequal == "" && !errors.Is(err, ErrRewrite) {
			t.Errorf("%.60s: %v, %v", sql, out, err)
		}
	}
}

// Large texts have the verdicts of small ones.
func TestLargeVerdicts(t *testing.T) {
	p := New(Options{})
	pad := "'" + strings.Repeat("x", maxParse) + "'"
	for _, c := range []struct {
		sql   string
		class Class
	}{
		{"INSERT INTO a.b VALUES (1, " + pad + ", f(now()))", Insert}, {"INSERT INTO a.b SELECT c, E" + pad + " FROM d", Insert},
		{"CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS " + pad, DDL}, {"DO " + pad, Do},
		{"SET a = " + pad, Unknown}, {"SELECT set_config('a', " + pad + ", false)", Unknown}, {"SELECT 'x", Unknown},
	} {
		if v := p.Classify([]byte(c.sql)); v.Class != c.class || c.class == Insert && (len(v.Written) != 1 || v.Written[0] != (Name{"a", "b"})) {
			t.Errorf("%.60s: %+v", c.sql, v)
		}
	}
	one := "INSERT INTO a VALUES (1, 'x;y'); /* ; */ UPDATE b SET c = ';' WHERE d = $$;$$; SET e TO 'f'; CREATE TABLE g (h int DEFAULT (1));"
	v := p.Classify([]byte(strings.Repeat(one, 3000)))
	want := p.Classify([]byte(one))
	if v.Class != Multi || len(v.Parts) != 4*3000 || len(v.Settings) != 3000 || !v.Catalog || len(v.Written) != 2 {
		t.Fatalf("%v, %d parts", v.Class, len(v.Parts))
	}
	for i, part := range v.Parts {
		if w := want.Parts[i%4]; part.Class != w.Class || part.Text != w.Text || fmt.Sprint(part.Written) != fmt.Sprint(w.Written) {
			t.Fatalf("%+v\n%+v", part, w)
		}
	}
	for _, bad := range []string{strings.Repeat(one, 3000) + " SELEC 1", strings.Repeat("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END;", 5000), strings.Repeat("SELECT 1;", 100000)} {
		if v := p.Classify([]byte(bad)); v.Class != Unknown {
			t.Errorf("%.60s: %v", bad, v.Class)
		}
	}
}
