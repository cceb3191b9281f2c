package pgpool_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"pgpool-go/tools/testcluster"
)

// TestReplicatedLarge: statements of any size are the same on every node, and none ends
// the process.
func TestReplicatedLarge(t *testing.T) {
	for _, mode := range []string{"native_replication", "snapshot_isolation"} {
		t.Run(mode, func(t *testing.T) {
			r := replicate(t, 2, mode)
			p := r.plain()
			p.must("create table t (id serial primary key, v text, ts timestamptz default clock_timestamp(), u uuid default gen_random_uuid(), r float8 default random())")
			run := func(sql string) {
				t.Helper()
				if _, err := p.run(sql); err != nil {
					t.Fatalf("%.100s: %.1000v", sql, err)
				}
			}
			same := func() {
				t.Helper()
				r.all("select count(*), count(distinct u) = count(*), md5(string_agg(t::text, ',' order by id)) from t")
			}
			const n = 30000
			var rows strings.Builder
			for i := range n {
				if i > 0 {
					rows.WriteString(", ")
				}
				fmt.Fprintf(&rows, "('row %d, it''s now(), %s', %s)", i, strings.Repeat("x", i%100), []string{"DEFAULT", "now()", "'2020-01-01'"}[i%3])
			}
			insert := "insert into t(v, ts) values " + rows.String()
			run(insert)
			same()
			args := [][]byte{[]byte("of a parameter")}
			all := "insert into t(v, ts) values ($1, now()), " + rows.String()
			if _, err := p.ExecParams(context.Background(), all, args, nil, nil, nil).Close(); err != nil {
				t.Fatal(err)
			}
			same()
			run("prepare x as " + all)
			run("execute x('y')")
			run("execute x('z')")
			same()
			run("insert into t(v) values ('" + strings.Repeat("0123456789", 1<<20) + "')")
			var many strings.Builder
			for i := range 3000 {
				fmt.Fprintf(&many, "insert into t(v) values ('%d'), ('%s'); update t set ts = now() where id = %d; ", i, strings.Repeat("y", i%200), i)
			}
			run("begin;" + many.String() + "; commit")
			same()
			run("insert into t(v, u, r) select g, null, 1 from generate_series(1, 3) g where g not in (7" + strings.Repeat(", 8", 200000) + ") and now() > '2020-01-01'")
			same()
			run("create table x as select 1 as a, now() as ts, '" + strings.Repeat("z", 1<<20) + "' as z")
			r.all("select * from x")
			if got := r.all("select count(*) from t"); got != fmt.Sprint(4*n+3+1+6000+3) {
				t.Errorf("%s rows", got)
			}
			// What ends a C library's process.
			for _, sql := range []string{
				"copy (insert into x values (now())) to stdout (force_null *)", "copy (insert into x(a, ts) values (1, now()) returning a) to stdout (force_quote *, format csv)",
				"select now()" + strings.Repeat(" + 1", 200000), "insert into x(a) values (" + strings.Repeat("(", 50000), "select " + strings.Repeat("not ", 200000) + " true for update",
			} {
				p.run(sql)
			}
			p.must("select 1")
			r.all("select a, ts from x")
		})
	}
}

// TestReplicatedEncodings: names and texts that are not UTF-8 are no obstacle.
func TestReplicatedEncodings(t *testing.T) {
	for _, c := range []struct{ encoding, name, text, back string }{
		{"LATIN1", "gr\xf6\xdfe", "\xe4'' now() \xfc", "\xe4' now() \xfc"},
		{"SJIS", "\x83\x5c\x95\x5c\x83\x7c", "\x95\x5c", "\x95\x5c"}, // second bytes \ and |
		{"GB18030", "\x81\x30\x81\x33\xb2\x5b", "\xb2\x7c", "\xb2\x7c"},
		{"EUC_JP", "\xc9\xbd", "\xc9\xbd", "\xc9\xbd"},
		{"UTF8", "größe", "ä", "ä"},
	} {
		t.Run(c.encoding, func(t *testing.T) {
			o := testcluster.Options{}
			r := replicateOn(t, o, 2, "native_replication")
			w := r.raw("client_encoding", c.encoding)
			said := func(sql string) {
				t.Helper()
				got, err := w.query(sql)
				if err != nil || strings.Contains(got, "E(") {
					t.Fatalf("%q: %q, %v", sql, got, err)
				}
			}
			said("create table " + c.name + " (id int, " + c.name + " timestamptz default clock_timestamp(), \"" + c.name + " 2\" text default '" + c.text + "' || clock_timestamp(), u uuid default gen_random_uuid())")
			said("insert into " + c.name + "(id) values (1), (2)")
			said("insert into " + c.name + " values (3, now(), '" + c.text + "'), (4, default, default)")
			said("insert into \"" + c.name + "\"(id, \"" + c.name + " 2\", u) select 6, E'a\\n" + c.text + "' || now(), null")
			said("update " + c.name + " as x set " + c.name + " = default, u = null where id = 1")
			said("insert into " + c.name + "(id) values (7)" + strings.Repeat(", (7)", 10000))
			said("select * from " + c.name + " where " + c.name + " < now()")
			w.expect(t, "1 2 C(INSERT 0 2) Z(I)", parse("", "insert into "+c.name+"(id) values (8), (9)"), bind("", ""), execute("", 0), sync_)
			names := r.all("select relname, attname from pg_attribute a join pg_class c on c.oid = attrelid where relkind = 'r' and relnamespace = 'public'::regnamespace and attnum in (2, 3)")
			table, _, _ := strings.Cut(names, "|")
			r.all(`select md5(string_agg(x::text, ',' order by id, u)) from "` + table + `" x`)
			if got := r.all(`select count(distinct u) from "` + table + `" `); got != "10006" {
				t.Errorf("%s uuids", got)
			}
		})
	}
}
