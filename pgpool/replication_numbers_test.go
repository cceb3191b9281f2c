package pgpool_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestNumbersDiffer: a client that names types and functions by their OIDs on the
// main node is understood on nodes that number them otherwise, and is told the main
// node's numbers by all.
func TestNumbersDiffer(t *testing.T) {
	for _, mode := range []string{"native_replication", "snapshot_isolation"} {
		t.Run(mode, func(t *testing.T) { numbersDiffer(t, mode) })
	}
}

// feeling is a composite type.
type feeling struct {
	M string
	N int32
}

func numbersDiffer(t *testing.T, mode string) {
	r := replicate(t, 3, mode)
	ctx := t.Context()
	last := 0
	for _, n := range r.nodes { // so that numbers differ from here on
		for next, j := 0, 0; next <= last+3; j++ {
			text, err := n.Exec(fmt.Sprintf("create type filler%[1]d as enum (); select 'filler%[1]d'::regtype::oid", j))
			if _, err2 := fmt.Sscan(text, &next); err != nil || err2 != nil {
				t.Fatal(text, err, err2)
			}
			if next > last+3 {
				last = next
				break
			}
		}
	}
	r.plain().must(`create type mood as enum ('sad', 'ok'); create type "Odd mood" as enum ('sad', 'ok'); create type feeling as (m mood, n int); create domain small as int check (value < 10);
		create table felt (id serial primary key, m mood, o "Odd mood", ms mood[], f feeling, fs feeling[], s small, at timestamptz default now());
		create function twice(small) returns int language sql as 'select 2 * $1'`)
	oid := func(what string) (oid uint32) {
		t.Helper()
		ask := "select '" + what + "::oid"
		text, err := r.nodes[0].Exec(ask)
		if _, err2 := fmt.Sscan(text, &oid); err != nil || err2 != nil {
			t.Fatal(text, err, err2)
		}
		for _, n := range r.nodes[1:] {
			if other, err := n.Exec(ask); err != nil || other == text {
				t.Fatalf("%s is %s on another node, too (%v)", what, other, err)
			}
		}
		return oid
	}
	// By pgx, in each of its ways, with the types registered.
	for i, how := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec} {
		conf, err := pgx.ParseConfig(r.URL("postgres", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		conf.DefaultQueryExecMode = how
		c, err := pgx.ConnectConfig(ctx, conf)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.WithoutCancel(ctx))
		types, err := c.LoadTypes(ctx, []string{"mood", "_mood", `"Odd mood"`, "feeling", "_feeling", "small"})
		if err != nil {
			t.Fatal(err)
		}
		c.TypeMap().RegisterTypes(types)
		c.TypeMap().RegisterDefaultPgType(feeling{}, "feeling")
		c.TypeMap().RegisterDefaultPgType([]feeling{}, "_feeling")
		for j := range 2 {
			f := feeling{"ok", int32(i)}
			if _, err := c.Exec(ctx, "insert into felt (m, o, ms, f, fs, s) values ($1, $2, $3, $4, $5, $6)", "sad", "ok", []string{"ok", "sad"}, f, []feeling{f, f}, 7); err != nil {
				t.Fatalf("%v: %v", how, err)
			}
			for range 6 { // whatever node answers
				var m, o string
				var ms []string
				var got feeling
				var fs []feeling
				var s int32
				err := c.QueryRow(ctx, "select m, o, ms, f, fs, s from felt where (f).n = $1 and m = $2 and f = $3::feeling order by id limit 1", i, "sad", f).Scan(&m, &o, &ms, &got, &fs, &s)
				if err != nil || m != "sad" || o != "ok" || len(ms) != 2 || got != f || len(fs) != 2 || fs[1] != f || s != 7 {
					t.Errorf("%v, %d: %v %v %v %v %v %v, %v", how, j, m, o, ms, got, fs, s, err)
				}
			}
			rows := pgx.CopyFromRows([][]any{{"ok", []string{"sad"}, f}})
			if _, err := c.CopyFrom(ctx, pgx.Identifier{"felt"}, []string{"m", "ms", "f"}, rows); err != nil {
				t.Errorf("%v: copy: %v", how, err)
			}
		}
	}
	if got := r.all("select count(*), count(ms), count(fs) from felt"); got != "16|16|8" {
		t.Errorf("there are %s", got)
	}
	r.all("select id, m, o, ms, f, fs, s from felt order by id")

	// By the protocol.
	mood, odd, moods, small := oid("mood'::regtype"), oid(`"Odd mood"'::regtype`), oid("mood[]'::regtype"), oid("small'::regtype")
	w := r.raw()
	w.expect(t, "1 2 C(INSERT 0 1) Z(I)", &pgproto3.Parse{Name: "p", Query: "insert into felt (m, o, ms, s) values ($1, $2, $3, $4)", ParameterOIDs: []uint32{mood, odd, moods, small}},
		bind("", "p", "ok", "sad", "{sad,ok}", "3"), execute("", 0), sync_)
	w.expect(t, "C(BEGIN) Z(T)", q("begin"))
	w.expect(t, "C(CREATE TYPE) Z(T)", q("create type fresh as enum ('a')"))
	w.expect(t, "C(ALTER TABLE) Z(T)", q("alter table felt add x fresh"))
	text := ""
	var err error
	if text, err = w.value("select 'fresh'::regtype::oid"); err != nil {
		t.Fatal(err)
	}
	var fresh uint32
	fmt.Sscan(text, &fresh)
	w.expect(t, "1 2 C(UPDATE 1) Z(T)", &pgproto3.Parse{Query: "update felt set x = $1 where s = $2", ParameterOIDs: []uint32{fresh, small}}, bind("", "", "a", "3"), execute("", 0), sync_)
	w.expect(t, "C(COMMIT) Z(I)", q("commit"))
	if got := r.all("select x from felt where s = 3"); got != "a" {
		t.Errorf("x is %q", got)
	}
	// One that is executed by SQL is prepared with the numbers of every node.
	w.expect(t, "1 Z(I)", &pgproto3.Parse{Name: "e", Query: "update felt set o = $1 where s = 3", ParameterOIDs: []uint32{odd}}, sync_)
	w.expect(t, "C(UPDATE 1) Z(I)", q("execute e('ok')"))
	r.all("select o from felt where s = 3")
	// A function by its number.
	call := &pgproto3.FunctionCall{Function: oid("twice(small)'::regprocedure"), ArgFormatCodes: []uint16{0}, Arguments: [][]byte{[]byte("4")}, ResultFormatCode: 0}
	w.expect(t, "V(8) Z(I)", call)
	// What is described: by every node the same.
	for range 12 {
		w := r.raw()
		w.send(&pgproto3.Parse{Query: "select m, ms, s, o from felt where m = $1", ParameterOIDs: []uint32{mood}}, &pgproto3.Describe{ObjectType: 'S'}, sync_)
		for done := false; !done; {
			m, err := w.next()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.ParameterDescription:
				if m.ParameterOIDs[0] != mood {
					t.Errorf("a parameter is %d", m.ParameterOIDs[0])
				}
			case *pgproto3.RowDescription:
				table := oid("felt'::regclass")
				for i, want := range []uint32{mood, moods, 23, odd} { // a domain is described as what it is of
					if f := m.Fields[i]; f.DataTypeOID != want || f.TableOID != table {
						t.Errorf("column %d is %d of %d, not %d of %d", i, f.DataTypeOID, f.TableOID, want, table)
					}
				}
			case *pgproto3.ReadyForQuery:
				done = true
			}
		}
	}
	// Where the next node leads its numbers count, and who knows the old ones is told so.
	idle := r.raw()
	idle.expect(t, "C(SET) Z(I)", q("set work_mem = '5MB'"))
	r.Must(r.nodes[0].Kill())
	eventually(t, "node 1 leads", func() bool { return r.Server.Snapshot().Main == 1 })
	if got, err := w.ask(q("update felt set s = 4 where s = 3")); !strings.HasPrefix(got, "E(57P01)") {
		t.Errorf("by numbers of a node that is gone: %s, %v", got, err)
	}
	text, err = r.nodes[1].Exec("select 'mood'::regtype::oid")
	if _, err2 := fmt.Sscan(text, &mood); err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	idle.expect(t, "1 2 C(UPDATE 1) Z(I)", &pgproto3.Parse{Query: "update felt set m = $1 where s = 3", ParameterOIDs: []uint32{mood}}, bind("", "", "sad"), execute("", 0), sync_)
	for _, n := range r.nodes[1:] {
		if got, err := n.Exec("select m from felt where s = 3"); got != "sad" || err != nil {
			t.Errorf("node %d has %q, %v", n.ID, got, err)
		}
	}
}
