package parser

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgpool-go/tools/golden"
)

// corpus is every statement of the routing corpus, and some that are odd.
func corpus(t testing.TB) []string {
	f, err := os.Open(filepath.Join(golden.Testdata(t), "routing", "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []string
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		var c struct{ Steps []struct{ SQL string } }
		if err := json.Unmarshal(sc.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		for _, s := range c.Steps {
			list = append(list, s.SQL)
		}
	}
	return append(list, oddTexts...)
}

var oddTexts = []string{
	"SELECT 'a''b', E'a\\'b', U&'d\\0061t', U&'d!0061' UESCAPE '!', N'x', B'101', X'1F', $$a'b$$, $x$ $$ $x$",
	"SELECT E'a'\n'b\\'; DELETE FROM t --'\n, 1", "SELECT 'a'\n'b'", "SELECT 'a' 'b'", "SELECT 'a' -- c\n 'b'", "SELECT 'a'\n-- c\n 'b'",
	"SELECT\v''", "SELECT 'a'\v'b'", "SELECT E'\xf6'\n'\\b'", "SELECT E'\xc3\xb6'\n'\\b'", "SELECT E'a'--\n'\\'--\n, 1",
	"SELECT E'a\\", "SELECT E'\\x41\\u0041', E'\\uZZ'", "SELECT E'\\101'", "SELECT B'1''; DELETE FROM t; --'",
	"SELECT 1.5, 1., .5, 1e3, 1.5e-3, 1e, 0x1F, 0b11, 0o17, 1_000, 1__0, 2147483647, 2147483648, 99999999999999999999, 1abc, 1.5.6, 1..2",
	"SELECT a[1:2], a[1], ARRAY[1,2,3], $1, $1a, $12.5, $12345678901, a::int::text, -1, - 1, --1\n 1, 1--1\n, 1-/* x */-1",
	"SELECT * FROM t WHERE a IN (1,2,3) AND b IN ('x', 'y') AND c IN (1, 'x', 2) AND d IN ( 1, 2) AND e IN (-1,2) AND f IN (SELECT 1, 2)",
	"SELECT float(3) '1', x::float(54), x::float(1), float '1', interval(3) '1', varchar(3) 'x'", "SELECT CAST(x AS float(99))",
	`SELECT "a""b", U&"d\0061t", "x` + "\x01" + `y"`, "SELECT * FROM \"a", "SELECT /* /* */ 1", "SELECT /* /* */ */ 1", "SELECT $a$ $b$ $a$", "SELECT $a$ x",
	"SELECT a<-1, a<>-1, a@>-1, a+-1, a*-/*c*/1, a = -1", "SELECT '\xff', E'\xff', 'ü', E'ü\\n', \"ü\", \"\xff\", \xff", "SELECT '\xff'", "SELECT E'\xff\\'",
	"EXPLAIN (ANALYZE 0) SELECT 1", "EXPLAIN (ANALYZE 1) DELETE FROM t", "SET x = 1", "SET x = 'a'", "SELECT set_config('a', 'b', false)",
	"SELECT pg_terminate_backend(1)", "SELECT pg_terminate_backend(2)", "SELECT 1; SELECT 2", "SELECT 1; SET x = 5", "BEGIN; DELETE FROM t WHERE a = 1",
	"/* NO LOAD BALANCE */ SELECT 1", "/*NO LOAD BALANCE*/ SELECT 1", "/* pgpool.target = standby */ SELECT 1", "/* pgpool.target = 'primary' */ SELECT 1", "-- x\nSELECT 1",
	"PGPOOL SET log_statement = on", "PGPOOL SET CACHE DELETE 'select 1'", "SHOW POOL_NODES", "show pool_x", "EXPLAIN ROUTING SELECT 1", "EXPLAIN routing", "PGPOOL",
	"SELECT 1 FETCH FIRST 5 ROWS ONLY", "SELECT 1 LIMIT 5 OFFSET 6", "SELECT x LIKE 'a' ESCAPE 'b'", "FETCH 5 FROM c", "MOVE -1 IN c", "SELECT 1 WHERE 'a' ~ 'b'",
	"INSERT INTO t VALUES (1, 'a'), (2, 'b') ON CONFLICT (a) DO UPDATE SET b = 'c' RETURNING *", "UPDATE t SET a = 1 WHERE b = 'x'", "DELETE FROM t WHERE a IN (1,2)",
	"SELECT extract('year' from now()), interval '1 day', date '2020-01-01', timestamp(3) '2020-01-01'", "SELECT 1 AS in, 'x' AS \"in\"", "SELECT xmlelement(name a, 'b')",
	"SELECT * FROM t TABLESAMPLE bernoulli (10) REPEATABLE (5)", "SELECT * FROM xmltable('/a' passing b columns c int path 'd')", "SELECT ROW(1,2) = ROW(3,4)",
	"SELECT sum(a) OVER (ORDER BY b ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING)", "select json_object('a': 1, 'b': 'c')", "select json_array(1, 'a' absent on null)",
}

// plain reads a text without any cache.
func plain(sql []byte) *Verdict {
	if len(sql) > maxScan || bytes.IndexByte(sql, 0) >= 0 {
		return unread(sql, nil)
	}
	s := &scan{}
	s.run(sql)
	return fresh(sql, s)
}

// mutate changes the values of what looks like literals, and nothing else that it knows of.
func mutate(r *rand.Rand, sql string) string {
	b := []byte(sql)
	for i, c := range b {
		switch {
		case '0' <= c && c <= '9' && r.IntN(2) == 0:
			b[i] = byte('0' + r.IntN(10))
		case c == 'a' && r.IntN(8) == 0:
			b[i] = "b'\\\n"[r.IntN(4)]
		case c == ',' && r.IntN(16) == 0:
			b[i] = ' '
		}
	}
	s := string(b)
	if r.IntN(4) == 0 {
		s = strings.Replace(s, "'", "'x"+strings.Repeat("y", r.IntN(3))+"''", 1)
	}
	if r.IntN(6) == 0 {
		s = strings.Replace(s, "(1", "(12, 1", 1)
	}
	return s
}

// TestCacheTellsTheTruth: a verdict that comes through the caches is the verdict
// of a fresh parse, whatever was classified before.
func TestCacheTellsTheTruth(t *testing.T) {
	p := New(Options{CacheBytes: 1 << 20})
	r := rand.New(rand.NewPCG(1, 2))
	texts := corpus(t)
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		for _, sql := range texts {
			if round > 0 {
				sql = mutate(r, sql)
			}
			same(t, p, []byte(sql))
		}
	}
}

func same(t *testing.T, p *Parser, sql []byte) {
	t.Helper()
	for range 3 {
		got, want := p.Classify(sql), plain(sql)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\ncached %+v\nfresh  %+v", sql, got, want)
		}
	}
}

// TestReduced: what is read from the normalised form of a text is what the text says.
func TestReduced(t *testing.T) {
	n := 0
	for _, sql := range corpus(t) {
		s := &scan{}
		if s.run([]byte(sql)); !s.exact || !s.literals || s.deep {
			continue
		}
		want := fresh([]byte(sql), s)
		if !want.shareable {
			continue
		}
		got := reduced(s.norm)
		if got == nil {
			t.Errorf("%q: no verdict", sql)
			continue
		}
		got.Lead = want.Lead
		got.measure()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q\nreduced %+v\nfresh   %+v", sql, got, want)
		}
		n++
	}
	if n < 100 {
		t.Errorf("only %d texts", n)
	}
}

// TestBulk: large statements are read by their shape.
func TestBulk(t *testing.T) {
	p := New(Options{})
	insert := "INSERT INTO app.log (a, b, c) VALUES (0, 'x', f(1.5))" + strings.Repeat(", (1, 'it''s; DELETE FROM t', f(2.5))", 80000)
	v := p.Classify([]byte(insert))
	if v.Class != Insert || len(v.Written) != 1 || v.Written[0].Name != "log" || len(v.Functions) != 1 {
		t.Errorf("%d bytes: %+v", len(insert), v)
	}
	if w := p.Classify([]byte("INSERT INTO app.log (a, b, c) VALUES (7, 'z', f(1.0))")); w != v {
		t.Error("one row and many do not share a verdict")
	}
	for _, other := range []string{
		"INSERT INTO app.log (a, b, c) VALUES (7, 'z', g(1.0))", "INSERT INTO app.log (a, b, c) VALUES (7, 'z', f(1.0)), (1, 2, f(1.0))",
		"INSERT INTO app.log (a, b, c) VALUES (7, 'z', f(1.0)), (1, 'z', g(1.0))", "INSERT INTO app.log (a, b, c) VALUES (7, 'z', f(1.0)) (7, 'z', f(1.0))",
		"INSERT INTO app.log (a, b, c) VALUES (7, 'z', f(1.0)),, (7, 'z', f(1.0))",
	} {
		if w := p.Classify([]byte(other)); w == v {
			t.Errorf("%s shares it too", other)
		}
		same(t, p, []byte(other))
	}
	set := "SET a = '" + strings.Repeat("x", 50000) + "'"
	if v := p.Classify([]byte(set)); len(v.Settings) != 1 || len(v.Settings[0].Value) != 50000 || v.Text != set {
		t.Error("the value of a long SET is lost")
	}
}

func FuzzClassify(f *testing.F) {
	for _, sql := range oddTexts {
		f.Add(sql, uint64(1))
	}
	p := New(Options{CacheBytes: 1 << 20})
	f.Fuzz(func(t *testing.T, sql string, seed uint64) {
		same(t, p, []byte(sql))
		r := rand.New(rand.NewPCG(seed, 3))
		for range 3 {
			same(t, p, []byte(mutate(r, sql)))
		}
	})
}

// TestDeepTexts: texts whose trees are too deep for the C parser's stack are
// Unknown; the process lives.
func TestDeepTexts(t *testing.T) {
	p := New(Options{})
	for name, c := range map[string]struct{ head, part, tail string }{
		"sum":       {"SELECT 1", "+1", ""},
		"parens":    {"SELECT ", "(", ""},
		"minus":     {"SELECT ", "- ", "1"},
		"union":     {"SELECT 1", " UNION SELECT 1", ""},
		"union all": {"SELECT a, b FROM t", " UNION ALL SELECT a, b FROM t", ""},
		"join":      {"SELECT * FROM a", " JOIN b ON true", ""},
		"cross":     {"SELECT * FROM a", " CROSS JOIN b", ""},
		"not":       {"SELECT ", "NOT ", "true"},
		"cast":      {"SELECT 1", "::int", ""},
		"concat":    {"SELECT 'a'", "||'a'", ""},
		"collate":   {"SELECT a", " COLLATE \"C\"", ""},
		"at":        {"SELECT a", " AT TIME ZONE 'x'", ""},
		"is":        {"SELECT a", " IS NULL", ""},
		"operator":  {"SELECT a", " OPERATOR(pg_catalog.+) 1", ""},
		"case":      {"SELECT ", "CASE WHEN true THEN ", "1"},
		"sub":       {"SELECT ", "(SELECT ", "1"},
		"call":      {"SELECT 1", "+f(1,2)", ""},
		"array":     {"SELECT ARRAY", "[", ""},
		"like":      {"SELECT a", " ~ 'b'", ""},
		"escape":    {"SELECT E'a'\n'\\''", "+1", ""},
		"dot":       {"SELECT a", ".b", ""},
		"subscript": {"SELECT a", "[1]", ""},
		"and":       {"SELECT a", " AND b", ""},
		"or":        {"SELECT a", " OR b AND c", ""},
		"exists":    {"SELECT ", "EXISTS(SELECT ", "1"},
		"in":        {"SELECT a", " IN (1)", ""},
		"like word": {"SELECT a", " LIKE b", ""},
		"between":   {"SELECT a", " BETWEEN 1 AND 2", ""},
		"similar":   {"SELECT a", " SIMILAR TO b", ""},
		"when":      {"SELECT CASE", " WHEN a THEN b", " END"},
		"with":      {"", "WITH a AS (", "SELECT 1"},
		"natural":   {"SELECT * FROM a", " NATURAL JOIN b", ""},
		"prefix":    {"SELECT ", "~ ", "1"},
		"postfix":   {"SELECT a", " ISNULL", ""},
		"explain":   {"", "EXPLAIN ", "SELECT 1"},
		"values":    {"VALUES (1)", ", (1)", ""},
		"intersect": {"SELECT 1", " INTERSECT SELECT 1", ""},
		"comment":   {"SELECT ", "/*", "1"},
		"comments":  {"SELECT ", "/*", strings.Repeat("*/", 60000) + "1"},
		"signs":     {"SELECT ", "+", "1"},
		"signs too": {"SELECT ", "++++-", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{250, 1500, 4400, 250000 / len(c.part), 900000 / len(c.part)} {
				v := p.Classify([]byte(c.head + strings.Repeat(c.part, n) + c.tail))
				if v == nil {
					t.Fatal("no verdict")
				}
				Rewrite([]byte(c.head+strings.Repeat(c.part, n)+c.tail), replacing())
				Normal([]byte(c.head+strings.Repeat(c.part, n)+c.tail), 100)
			}
		})
	}
	if v := p.Classify([]byte("SELECT " + strings.Repeat("a + ", 1500) + "b")); v.Class != Select {
		t.Errorf("1500 operators: %v", v.Class)
	}
	if v := p.Classify([]byte("SELECT * FROM t WHERE a IN (1" + strings.Repeat(", 1", 20000) + ")")); v.Class != Select {
		t.Errorf("20000 values: %v", v.Class)
	}
	if v := p.Classify([]byte("SELECT * FROM t WHERE a = 1" + strings.Repeat(" OR a = 1", 900) + "")); v.Class != Select {
		t.Errorf("900 alternatives: %v", v.Class)
	}
	if v := p.Classify([]byte("SELECT " + strings.Repeat(" ", maxScan))); v.Class != Unknown || v.SettingsUnknown != ScopeSession {
		t.Errorf("too large: %v", v.Class)
	}
}
