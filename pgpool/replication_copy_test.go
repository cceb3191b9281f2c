package pgpool_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// copyTable has columns whose default is the time, chance, or what each node counts.
const copyTable = `create sequence numbers;
create domain moment as timestamptz check (value > '2020-01-01');
create table c (a int, b text, n serial, i int generated always as identity, g int generated always as (a * 2) stored, who text default current_user,
 ts timestamptz not null default now(), d date default current_date + 1, "Local" timestamp(0) default localtimestamp, clock moment default clock_timestamp(),
 s text default to_char(now(), 'YYYY "it''s	a \ , | - "'), v varchar(40) default 'at ' || now(), span interval default now() - '2000-01-01', during tstzrange default tstzrange(now(), null),
 epoch float8 default extract(epoch from now()), u uuid primary key default gen_random_uuid(), r float8 default random(), m text default md5(random()::text || now()), k varchar(40) default gen_random_uuid(),
 q numeric(6,3) default random() * 100)`

// copyRows is what the nodes must agree on though the client has not said it.
const copyRows = `select to_jsonb(c) from c order by n`

// TestReplicatedCopy: what COPY leaves out is the same on every node, and what a client
// sees of it is what a server alone would show.
func TestReplicatedCopy(t *testing.T) {
	t.Run("native_replication", func(t *testing.T) { testReplicatedCopy(t, testcluster.Options{}, "native_replication") })
	t.Run("snapshot_isolation", func(t *testing.T) {
		if testing.Short() {
			t.Skip("needs real PostgreSQL servers: skipped by -short")
		}
		bin, err := testcluster.NpmPostgres(18)
		if err != nil {
			t.Fatal(err)
		}
		testReplicatedCopy(t, testcluster.Options{BinDir: bin}, "snapshot_isolation")
	})
}

func testReplicatedCopy(t *testing.T, o testcluster.Options, mode string) {
	r := replicateOn(t, o, 3, mode)
	p := r.plain()
	for _, sql := range strings.Split(copyTable, ";\n") {
		p.must(sql)
	}
	later := o.BinDir != ""

	// A server alone, for comparison.
	other := testcluster.New(t, o)
	direct, err := pgx.Connect(t.Context(), other.Nodes[0].URL())
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(t.Context())
	alone := &plain{direct.PgConn(), t}
	for _, sql := range strings.Split(copyTable, ";\n") {
		alone.must(sql)
	}
	run := func(c *plain, sql, data string) string {
		tag, err := c.CopyFrom(t.Context(), strings.NewReader(data), sql)
		if word, ok := errors.AsType[*pgconn.PgError](err); ok {
			where, _, _ := strings.Cut(word.Where, ": \"") // a long row is cut at another place
			return fmt.Sprintf("%s %s %s (%s, %s)", word.Severity, word.Code, word.Message, word.Detail, where)
		}
		return fmt.Sprint(tag, err)
	}
	both := func(sql, data string) string {
		t.Helper()
		got, want := run(p, sql, data), run(alone, sql, data)
		if got != want {
			t.Errorf("%s\n%q\ngot  %s\nwant %s", sql, data, got, want)
		}
		const rows = "select a, convert_to(b, 'utf8'), n, i, g, who from c order by n"
		if got, want := p.must(rows), alone.must(rows); got != want {
			t.Errorf("%s\n%q\ngot  %s\nwant %s", sql, data, got, want)
		}
		return got
	}
	const wide = "set client_encoding = 'sjis'"
	type one struct {
		sql, data string
		fails     bool
	}
	cases := []one{
		{sql: "copy c(a, b) from stdin", data: "1\tx\n2\ty\n"},
		{sql: "copy c(b, a) from stdin", data: "x\\\ty\\\nz\t1\n\\N\t\\N"},
		{sql: "copy public.c (a) from stdin", data: "1\r\n2\r\n\\.\r\nx\r\n"},
		{sql: "copy c(a) from stdin", data: ""},
		{sql: "copy c(b) from stdin", data: "\n\n"},
		{sql: "copy c(a, b) from stdin with delimiter '-' null 'at'", data: "1-at\n"},
		{sql: "copy c(a, b) from stdin (delimiter ';', null '')", data: "1;\n2;x\n"},
		{sql: "copy c(a, b, ts) from stdin", data: "1\tx\t2021-01-01\n"},
		{sql: "copy c(a, b) from stdin where a > 1 and ts <= now() and d > '2000-01-01'", data: "1\tx\n2\ty\n"},
		{sql: "copy c(a, b) from stdin (format csv)", data: "1,\"x\ny\"\"\"\n2,\"\r\""},
		{sql: "copy c(a, b) from stdin (format csv)", data: "1,\"x\r\ny\"\"\"\r\n2,y"},
		{sql: "copy c(b) from stdin (format csv)", data: "\n\nx"},
		{sql: "copy c(a, b) from stdin csv header quote '''' escape '\\' force not null b", data: "any\n1,'x\\'\n'\n2,\n"},
		{sql: "copy c(b, a) from stdin (format csv, delimiter '|', null 'x', force_null (b), quote '-')", data: "-x-|1\n-y|z-|2\nx|x\n"},
		{sql: "copy c(a, b) from stdin (header match, freeze off)", data: "a\tb\n1\tx\n"},
		{sql: "copy c(a, b) from stdin (header match)", data: "a\tx\n1\tx\n", fails: true},
		{sql: "copy c(a, b) from stdin (format csv, header match)", data: "a\n1,x\n", fails: true},
		{sql: "copy c(b) from stdin (format csv)", data: "x\n\\.\ny\n\\.\n"},
		{sql: "copy c(b) from stdin (format csv)", data: "\\.x\n\"\n\\.\n\""},
		{sql: "copy c(a, b) from stdin", data: "1\tx\nx\ty\n", fails: true},
		{sql: "copy c(a, b) from stdin", data: "1\tx\n2\n", fails: true},
		{sql: "copy c(a, b) from stdin", data: "1\tx\n2\ty\tz\n", fails: true},
		{sql: "copy c(a, b) from stdin", data: "1\tx\r\n2\ty\n", fails: true},
		{sql: "copy c(a, b) from stdin", data: "1\tx\n\\.x\n", fails: true},
		{sql: "copy c(a, b) from stdin csv", data: "1,x\n2\n", fails: true},
		{sql: "copy c(a, b) from stdin csv", data: "1,x\n2,\"", fails: true},
		{sql: "copy c(a, c) from stdin", fails: true},
		{sql: "copy c(a, a) from stdin", fails: true},
		{sql: "copy nothing(a) from stdin", fails: true},
		{sql: "copy c(a, b) from stdin (format binary)", data: "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x02\x00\x00\x00\x04\x00\x00\x00\x07\x00\x00\x00\x01x\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"},
		{sql: "copy binary c(a) from stdin", data: "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00\x00\x00\x00\x02ab" + "\x00\x01\x00\x00\x00\x04\x00\x00\x00\x07"},
		{sql: "copy binary c(a) from stdin", data: "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x02\x00\x00\x00\x04\x00\x00\x00\x07", fails: true},
		{sql: "copy binary c(a) from stdin", data: "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x01\x00\x00\x00\x03\x00\x00\x00\x07", fails: true},
		{sql: "copy binary c(a) from stdin", data: "1\n2\n", fails: true},
		{sql: "copy c(b) from stdin (encoding 'latin1')", data: "\xe4\n"},
		{sql: "copy c(b) from stdin (encoding 'sjis')", data: "\x83\x5c\n\x83\\\\\n\n"},
	}
	if later {
		cases = append(cases,
			one{sql: `copy c(a, b) from stdin (on_error ignore)`, data: "1\tx\nx\ty\n3\tz\n"},
			one{sql: `copy c(a, ts, s) from stdin (default '\D')`, data: "1\t\\D\t\\D\n2\t2021-01-01\t\\DD\n3\t\\D\tx"},
			one{sql: `copy c(a, ts, s) from stdin (default '\D')`, data: "1\t\\D\t\\D\n\\D\t\\D\tx", fails: true},
			one{sql: `copy c(a, ts, u) from stdin (format csv, default 'D')`, data: "1,D,D\r\n2,2021-01-01,D\r\n"},
			one{sql: `copy c(a, b) from stdin (format csv, force_null *)`, data: "1,\"\"\n"},
		)
	}
	for _, c := range cases {
		if got := both(c.sql, c.data); strings.HasPrefix(got, "COPY") == c.fails {
			t.Errorf("%s: %s", c.sql, got)
		}
	}
	// Whatever the data, rows end where the server says.
	for _, c := range []*plain{p, alone} {
		c.must("create table wild (b text, ts timestamptz default now(), n serial)")
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	forms := []string{"(format text)", "(format text, null '')", "(format csv)", `(format csv, escape '\')`, "(format csv, quote '''', header)"}
	ends := []string{"\n", "\n", "\n", "\r\n", "\r"}
	stored := 0
	for i := range 400 {
		var data strings.Builder
		end := ends[rnd.IntN(len(ends))]
		for range rnd.IntN(25) {
			const letters = "ab\\\\\\\\.\"\"'N\n\r\t,"
			if k := rnd.IntN(len(letters) + 8); k >= len(letters) {
				data.WriteString(end)
			} else if c := letters[k]; c != '\n' && c != '\r' && c != '\t' && c != ',' || rnd.IntN(8) == 0 {
				data.WriteByte(c)
			}
		}
		if rnd.IntN(4) == 0 {
			data.WriteString(end + "\\." + end + "after")
		}
		sql := "copy wild(b) from stdin " + forms[i%len(forms)]
		got, want := run(p, sql, data.String()), run(alone, sql, data.String())
		if strings.HasPrefix(want, "COPY") {
			stored++
		}
		const rows = "select convert_to(b, 'utf8') from wild order by n"
		if held, wanted := p.must(rows), alone.must(rows); got != want || held != wanted {
			t.Fatalf("seed %d: %s\n%q\ngot  %s\n%s\nwant %s\n%s", seed, sql, data.String(), got, held, want, wanted)
		}
		if i%20 == 19 {
			r.all("select * from wild order by n")
			p.must("truncate wild")
			alone.must("truncate wild")
		}
	}
	if stored < 100 {
		t.Errorf("only %d were stored", stored)
	}
	for _, c := range []*plain{p, alone} {
		c.must(wide)
	}
	both("copy c(b) from stdin", "\x83\x5c\n\xb1\\\n\n")
	both("copy c(a, b) from stdin (format csv, quote '|')", "1,\x83|\n2,|\x83|\n|\n")
	for _, c := range []*plain{p, alone} {
		c.must("reset client_encoding; set datestyle = 'German'; set timezone = 'Asia/Kolkata'; set intervalstyle = 'sql_standard'")
	}
	both("copy c(a, b) from stdin", "1\tx\n")
	both("copy c(a, b) from stdin csv", "1,x\n")
	if got := p.must("show datestyle"); got != "German, DMY" {
		t.Errorf("DateStyle is %s", got)
	}
	if got := p.must("select count(*) from c where ts not between now() - interval '1 hour' and now() and extract(year from ts) <> 2021"); got != "0" {
		t.Errorf("%s rows of another time", got)
	}
	for _, c := range []*plain{p, alone} {
		c.must("reset all")
	}

	// In transactions.
	for _, c := range []*plain{p, alone} {
		c.must("begin; insert into c(a) values (100)")
	}
	both("copy c(a, b) from stdin", "101\tx\n102\ty\n")
	if got := p.must("select count(distinct ts) from c where a >= 100"); got != "1" {
		t.Errorf("a transaction has %s times", got)
	}
	for _, c := range []*plain{p, alone} {
		c.must("savepoint a")
	}
	if got := run(p, "copy c(a) from stdin", "1\nx\n"); !strings.Contains(got, "22P02") {
		t.Error(got)
	}
	if got := run(p, "copy c(a) from stdin", "1\n"); !strings.Contains(got, "25P02") {
		t.Error(got)
	}
	for _, c := range []*plain{p, alone} {
		c.must("rollback to a; commit; truncate c restart identity")
	}
	for _, c := range []*plain{p, alone} {
		c.must("begin; truncate c restart identity")
	}
	both("copy c(a, b) from stdin (freeze)", "1\tx\n")
	for _, c := range []*plain{p, alone} {
		c.must("commit")
	}
	r.all(copyRows)

	// By psql, and by the driver.
	r.mustProgram("201\tx\n202\ty\n\\.\n", "psql", "-Xqc", `\copy c(a, b) from stdin`)
	r.mustProgram("203,x\n204,y\n", "psql", "-Xqc", `\copy c(a, b) from stdin csv`)
	ctx := t.Context()
	conn := r.connect()
	if n, err := conn.CopyFrom(ctx, pgx.Identifier{"c"}, []string{"a", "b"}, pgx.CopyFromSlice(2000, func(i int) ([]any, error) { return []any{1000 + i, "x"}, nil })); err != nil || n != 2000 {
		t.Error(n, err)
	}
	if got := p.must("select count(distinct u), count(distinct r), count(distinct m), count(distinct k), count(distinct ts) from c where a >= 1000"); got != "2000|2000|2000|2000|1" {
		t.Errorf("of 2000 rows differ %s", got)
	}

	// By the extended protocol: new values at every Bind.
	w := r.raw()
	data := func(s string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte(s)}, &pgproto3.CopyDone{}, sync_}
	}
	w.expect(t, "1 Z(I)", parse("p", "copy c(a, b) from stdin"), sync_)
	for range 2 {
		w.expect(t, "2 n G C(COPY 1) Z(I)", append([]pgproto3.FrontendMessage{bind("", "p"), describe('P', ""), execute("", 0)}, data("301\tx\n")...)...)
	}
	w.expect(t, "1 2 G C(COPY 1) Z(I)", append([]pgproto3.FrontendMessage{parse("", "copy c(a, b) from stdin csv where now() > '2020-01-01'"), bind("", ""), execute("", 0), sync_}, data("302,\"x\n\"")...)...)
	w.expect(t, "2 G E(22P02) Z(I)", append([]pgproto3.FrontendMessage{bind("", "p"), execute("", 0)}, data("x\tx\n")...)...)
	w.expect(t, "2 Z(I)", bind("", "p"), sync_)
	w.expect(t, "C(BEGIN) Z(T)", q("begin"))
	w.expect(t, "2 G C(COPY 1) Z(T)", append([]pgproto3.FrontendMessage{bind("", "p"), execute("", 0)}, data("303\tx\n")...)...)
	w.expect(t, "C(COMMIT) Z(I)", q("commit"))
	w.expect(t, "G E(57014) Z(I)", q("copy c(a, b) from stdin"), &pgproto3.CopyData{Data: []byte("1\tx\n")}, &pgproto3.CopyFail{Message: "no"})
	if got := p.must("select count(*), count(distinct ts) from c where a between 301 and 303"); got != "4|4" {
		t.Errorf("rows and times: %s", got)
	}
	w.expect(t, "C(INSERT 0 1) G C(COPY 1) G C(COPY 2) T D(1) C(SELECT 1) Z(I)", q("insert into c(a) values (401); copy c(a, b) from stdin; copy c(a) from stdin csv; select 1"),
		&pgproto3.CopyData{Data: []byte("402\tx\n")}, &pgproto3.CopyDone{}, &pgproto3.CopyData{Data: []byte("40")}, &pgproto3.CopyData{Data: []byte("3\n404")}, &pgproto3.CopyDone{})
	r.Must(w.send(q("copy c(a, b) from stdin")))
	if msg, err := w.next(); err != nil {
		t.Fatal(err)
	} else if g, ok := msg.(*pgproto3.CopyInResponse); !ok || len(g.ColumnFormatCodes) != 2 {
		t.Errorf("%+v", msg)
	}
	w.expect(t, "C(COPY 0) Z(I)", &pgproto3.CopyDone{})
	r.all(copyRows)
	if words := r.Log.String(); strings.Contains(words, "may have different effects") {
		t.Errorf("a warning:\n%s", words)
	}

	// Much, more than is kept in memory.
	row := strings.Repeat("a row of the client's, ", 5)
	if got := run(p, "copy c(a, b) from stdin", strings.Repeat("5000\t"+row+"\n", 100000)); got != "COPY 100000 <nil>" {
		t.Error(got)
	}
	if got := run(p, "copy c(a, b) from stdin", strings.Repeat("5000\t"+row+"\n", 50000)+"x\tx\n"+strings.Repeat("5000\t"+row+"\n", 50000)); !strings.Contains(got, "22P02") {
		t.Error(got)
	}
	r.all("select count(*), sum(hashtext(to_jsonb(c)::text)) from c")

	// What cannot be copyRows the same is told.
	p.must("create table doubtful (a int, no text default to_char(now(), 'YYYY-') || nextval('numbers'))")
	if got := run(p, "copy doubtful(a) from stdin", "1\n2\n"); got != "COPY 2 <nil>" {
		t.Error(got)
	}
	if words := r.Log.String(); !strings.Contains(words, "the default of column no, which COPY leaves out") {
		t.Error("no warning")
	}
	r.all("select * from doubtful order by a")
	r.Log.forget()
	p.must("create role writer login; create table denied (a int, ts timestamptz default now()); grant insert (a) on denied to writer; grant select on denied to writer")
	p.must("set role writer")
	if got := run(p, "copy denied(a) from stdin", "1\n2\n"); got != "COPY 2 <nil>" {
		t.Error(got)
	}
	p.must("insert into denied(a) values (3)")
	p.must("reset role; create schema hidden; create function hidden.f(timestamptz) returns text language sql stable as 'select $1::text'; create table hides (a int, x text default hidden.f(now())); grant insert on hides to writer; set role writer")
	if got := run(p, "copy hides(a) from stdin", "1\n2\n"); got != "COPY 2 <nil>" {
		t.Error(got)
	}
	p.must("reset role")
	if words := r.Log.String(); !strings.Contains(words, "the default of column ts, which COPY leaves out") {
		t.Error("no warning")
	}

	p.must(`create table odd (a int, x text default now() || E'\n\r\\"\t' || now())`)
	for _, form := range []string{"text", "csv"} {
		if got := run(p, "copy odd(a) from stdin (format "+form+")", "1\n2\n"); got != "COPY 2 <nil>" {
			t.Error(got)
		}
	}
	if got := p.must(`select count(*) from odd where x ~ E'\\d\n\r\\\\"\t2'`); got != "4" {
		t.Errorf("%s odd values", got)
	}
	r.all("select * from odd order by a")
	p.must("create table none (a int, x text default nullif(now()::text, now()::text))")
	if got := run(p, "copy none(a) from stdin csv", "1\n2\n"); got != "COPY 2 <nil>" {
		t.Error(got)
	}
	if got := r.all("select count(*) from none where x is null"); got != "2" {
		t.Errorf("%s nulls", got)
	}

	// Partitions, views and temporary tables.
	p.must(`create table part (a int, ts timestamptz default now(), x text default md5(now()::text)) partition by range (a);
		create table part1 partition of part for values from (0) to (10); create table part2 (x text, ts timestamptz default '2000-01-01', a int);
		alter table part attach partition part2 for values from (10) to (20)`)
	if got := run(p, "copy part(a) from stdin", "1\n11\n"); got != "COPY 2 <nil>" {
		t.Error(got)
	}
	r.all("select * from part order by a")
	p.must(`create view seen as select a, ts from part; alter view seen alter column ts set default now() + interval '1 day';
		create function put() returns trigger language plpgsql as $$ begin insert into part(a, ts, x) values (new.a, new.ts, ''); return new; end $$;
		create trigger put instead of insert on seen for each row execute function put()`)
	if got := run(p, "copy seen(a) from stdin", "2\n12\n"); got != "COPY 2 <nil>" {
		t.Error(got)
	}
	r.all("select * from part order by a")
	p.must("create temp table brief (a int, ts timestamptz default now())")
	if got := run(p, "copy brief(a) from stdin", "3\n"); got != "COPY 1 <nil>" {
		t.Error(got)
	}
	p.must("insert into part select a, ts, '' from brief")
	r.all("select * from part order by a")
}

// TestCopyToTheOnlyNode: data that goes to one node is not touched.
func TestCopyToTheOnlyNode(t *testing.T) {
	r := replicate(t, 1, "native_replication")
	p := r.plain()
	p.must("create table c (a int, ts timestamptz default now(), x text default md5(random()::text), u uuid default gen_random_uuid())")
	for range 2 {
		if tag, err := p.CopyFrom(t.Context(), strings.NewReader("1\n2\n"), "copy c(a) from stdin"); err != nil || tag.RowsAffected() != 2 {
			t.Error(tag, err)
		}
	}
	if got := p.must("select count(*), count(x), count(distinct ts) from c"); got != "4|4|2" {
		t.Error(got)
	}
	if words := r.Log.String(); strings.Contains(words, "may have different effects") {
		t.Errorf("a warning:\n%s", words)
	}
}
