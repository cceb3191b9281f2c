package pgpool_test

import (
	"strings"
	"testing"
)

// TestReplicatedNames: what a session knows of a table, and so what it puts in for
// columns that are left out, is of the table that the name means now, as it is now.
func TestReplicatedNames(t *testing.T) {
	r := replicate(t, 2, "native_replication")
	p, other := r.plain(), r.plain()
	// Both ways of leaving out column x, which is to be the same on all nodes.
	fill := func(table string) {
		t.Helper()
		if tag, err := p.CopyFrom(t.Context(), strings.NewReader("1\n"), "copy "+table+"(a) from stdin"); err != nil {
			t.Errorf("%s: %v %v", table, tag, err)
		}
		p.must("insert into " + table + "(a) values (2)")
	}
	same := func(what, table string) {
		t.Helper()
		if r.all("select * from " + table + " order by a, x"); t.Failed() {
			t.Fatal(what)
		}
	}
	const chance, constant = " (a int, x float8 default random())", " (a int, x float8 default 5)"
	later := func(table string) string { return "alter table " + table + " alter x set default random()" }
	p.must("create schema two")

	p.must("create table t" + constant)
	fill("t")
	other.must(later("t"))
	fill("t")
	same("another session has changed a table", "t")

	p.must("create table u" + constant)
	fill("u")
	p.must("begin; insert into t values (3, 3)")
	other.must(later("u"))
	fill("u")
	p.must("commit")
	same("another session has changed a table during a transaction", "u")

	p.must("create table v" + constant)
	fill("v")
	other.must("begin; " + later("v") + "; commit and chain")
	fill("v")
	other.must("commit")
	same("another session has changed a table and goes on with AND CHAIN", "v")

	p.must("create table x (a int, x float8)") // without a default, so that looking it up waits for no lock
	other.must("begin; " + later("x") + "; prepare transaction 'x'")
	p.must("set lock_timeout = '10ms'")
	if _, err := p.run("insert into x(a) values (1)"); err == nil { // for which the default is looked up
		t.Error("the table was not locked")
	}
	other.must("commit prepared 'x'")
	fill("x")
	same("COMMIT PREPARED", "x")

	p.must("create table w" + chance + "; create table two.w" + constant)
	p.must("begin; set local search_path = two")
	fill("w")
	p.must("commit")
	fill("w")
	same("SET LOCAL is over", "w")
	p.must("begin; select set_config('search_path', 'two', true)")
	fill("w")
	p.must("commit and chain")
	fill("w")
	p.must("commit")
	same("a local set_config() is over", "w")

	for _, how := range []string{"discard temp", "discard all"} {
		p.must("create temp table w" + constant)
		fill("w")
		p.must(how)
		fill("w")
		same(how, "w")
	}
	p.must("begin; create temp table w (a int, x float8 default 5) on commit drop")
	fill("w")
	p.must("commit")
	fill("w")
	same("ON COMMIT DROP", "w")

	// What functions do.
	p.must("create table f" + constant + "; create table two.f" + chance)
	p.must("create function alters() returns void language sql as 'alter table f alter x set default 1 + random()'")
	p.must("create function makes() returns void language sql as 'create temp table f (a int, x float8 default random())'")
	p.must("create function turns() returns void language plpgsql as $$ begin perform set_config('search_path', 'two', false); end $$")
	fill("f")
	p.must("select makes()")
	fill("f")
	p.must("create table made as table pg_temp.f; drop table pg_temp.f")
	same("a function has made a temporary table", "made")
	fill("f")
	p.must("select turns()")
	fill("f")
	p.must("reset all")
	same("a function has set the path", "two.f")
	fill("f")
	other.must("select alters()")
	fill("f")
	same("a function has changed a table", "f")

	// Prepared statements.
	p.must("create table h" + constant + "; create table two.h" + chance)
	w := r.raw()
	w.expect(t, "1 Z(I)", parse("i", "insert into h(a) values ($1::text::int)"), sync_)
	w.expect(t, "2 C(INSERT 0 1) Z(I)", bind("", "i", "1"), execute("", 0), sync_)
	w.expect(t, "C(SET) Z(I)", q("set search_path = two"))
	w.expect(t, "2 C(INSERT 0 1) Z(I)", bind("", "i", "2"), execute("", 0), sync_)
	w.expect(t, "C(RESET) Z(I)", q("reset search_path"))
	same("SET after Parse", "two.h")
	w.expect(t, "C(BEGIN) Z(T)", q("begin"))
	w.expect(t, "C(ALTER TABLE) Z(T)", q(later("h")))
	w.expect(t, "2 C(INSERT 0 1) Z(T)", bind("", "i", "4"), execute("", 0), sync_)
	w.expect(t, "C(COMMIT) Z(I)", q("commit"))
	same("ALTER TABLE after Parse", "h")

	p.must("create table s" + constant)
	p.must("prepare s as insert into s(a) values ($1); prepare n as insert into s values ($1, extract(epoch from now())); execute s(1); execute n(0)")
	w.expect(t, "1 C(PREPARE) Z(I)", parse("p", "insert into s(a) values ($1)"), q("prepare s as insert into s(a) values ($1)"))
	w.expect(t, "2 C(INSERT 0 1) Z(I)", bind("", "s", "1"), execute("", 0), sync_)
	other.must(later("s"))
	p.must("execute s(2); execute n(0); begin; execute s(3); execute n(0); commit")
	p.must("explain analyze execute s(4)")
	p.must("deallocate s; prepare s as insert into s(a) values (5); execute s")
	w.expect(t, "2 C(INSERT 0 1) Z(I)", bind("", "s", "6"), execute("", 0), sync_)
	w.expect(t, "C(INSERT 0 1) Z(I)", q("execute p(7)"))
	w.expect(t, "1 2 C(INSERT 0 1) Z(I)", parse("", "execute p(8)"), bind("", ""), execute("", 0), sync_)
	w.expect(t, "1 2 C(INSERT 0 1) Z(I)", parse("", "execute s(9)"), bind("", ""), execute("", 0), sync_)
	same("ALTER TABLE after PREPARE", "s")
	other.must("alter table s drop x")
	for _, sql := range []string{"execute n(0)", "begin; execute n(0)", "rollback; execute s"} {
		if _, err := p.run(sql); (err == nil) != (sql == "rollback; execute s") {
			t.Error(sql, err)
		}
	}
	r.all("select * from s order by a")
}

// TestReplicatedBackslashes: what servers read otherwise than the parser is not
// written anew.
func TestReplicatedBackslashes(t *testing.T) {
	r := replicate(t, 2, "native_replication")
	p := r.plain()
	p.must("create table t (a text, ts timestamptz default now())")
	p.must("create table plain (a text)")
	p.must("set standard_conforming_strings = off")
	for _, sql := range []string{`insert into t(a) values ('a\\b')`, `insert into t values ('a\\b', now())`, `prepare a as insert into t values ('a\\b', now())`} {
		if _, err := p.run(sql); err == nil || !strings.Contains(err.Error(), "0A000") {
			t.Error(sql, err)
		}
	}
	if _, err := p.CopyFrom(t.Context(), strings.NewReader("a\\\\b\n"), `copy t(a) from stdin where a = 'a\\b' and ts <= now()`); err == nil || !strings.Contains(err.Error(), "0A000") {
		t.Error(err)
	}
	conn := r.connect()
	for _, sql := range []string{"set standard_conforming_strings = off", `insert into t values ('a\\b', now())`} {
		if _, err := conn.Exec(t.Context(), sql); (err == nil) != strings.HasPrefix(sql, "set") {
			t.Error(sql, err)
		}
	}
	p.must(`insert into plain values ('a\\b'); insert into t values ('without', now())`)
	p.must("reset standard_conforming_strings")
	p.must(`insert into t values ('a\b', now())`)
	if got := r.all("select a from t union all select a from plain order by a"); got != "a\\b\na\\b\nwithout" {
		t.Errorf("stored %q", got)
	}
}
