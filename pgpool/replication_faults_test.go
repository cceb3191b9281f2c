package pgpool_test

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/tools/testcluster"
)

// cancels: a cancel request reaches a statement on whatever node it runs, and
// leaves all of them in the same state.
func (r *replicated) cancels() {
	t, ctx := r.t, r.t.Context()
	r.plain().must(`create table slow (id int primary key, v int); insert into slow values (1, 0);
		create function linger(port int) returns int language plpgsql as 'begin if inet_server_port() = port then perform pg_sleep(300); end if; return 1; end'`)
	c := r.connect()
	conn := c.PgConn()
	// cancelled runs a statement that lingers on a node, and cancels it there.
	cancelled := func(what string, node int, lingers string, run func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- run() }()
		eventually(t, what+" runs", func() bool {
			got, err := r.nodes[node].Exec("select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() and " + lingers)
			return err == nil && got == "1"
		})
		if err := conn.CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		var said *pgconn.PgError
		if err := <-done; !errors.As(err, &said) || said.Code != "57014" {
			t.Errorf("%s: %v", what, err)
		}
	}
	const asleep = "wait_event = 'PgSleep'"
	for node, n := range r.nodes {
		simple := func() error {
			_, err := conn.Exec(ctx, fmt.Sprintf("update slow set v = v + linger(%d)", n.Port)).ReadAll()
			return err
		}
		what := fmt.Sprintf("on node %d, ", node)
		cancelled(what+"simple", node, asleep, simple)
		cancelled(what+"extended", node, asleep, func() error {
			_, err := c.Exec(ctx, "update slow set v = v + linger($1)", n.Port)
			return err
		})
		if status := conn.TxStatus(); status != 'I' {
			t.Fatalf("afterwards: %c", status)
		}
		run := func(sql string) {
			t.Helper()
			if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		run("begin; insert into slow values (10, 1); savepoint a")
		cancelled(what+"in a block", node, asleep, simple)
		if status := conn.TxStatus(); status != 'E' {
			t.Fatalf("in the block: %c", status)
		}
		run("rollback to a")
		run(fmt.Sprintf("insert into slow values (%d, %d); delete from slow where id = 10; commit", 20+node, 2+node))
	}
	if got := r.all("select id, v from slow order by id"); got != "1|0\n20|2\n21|3" {
		t.Errorf("cancelled statements have left %q", got)
	}
	// While it waits for another's lock on the main node.
	p := r.plain()
	p.must("begin; update slow set v = 7 where id = 1")
	cancelled("waiting for a lock", 0, "wait_event_type = 'Lock'", func() error {
		_, err := conn.Exec(ctx, "update slow set v = 8 where id = 1").ReadAll()
		return err
	})
	p.must("commit")
	// The statements of ours that failed on the way leave nothing that is in the way.
	p.must("alter table slow add constraint few unique (v) deferrable initially deferred")
	for range 2 {
		if _, err := p.run("insert into slow values (30, 7)"); err == nil {
			t.Error("a constraint that is checked by COMMIT is passed over")
		}
	}
	if _, err := p.run("begin; insert into slow values (30, 8); prepare missing as select 1; execute nothing"); err == nil {
		t.Error("what is not prepared is executed")
	}
	p.must("rollback; prepare mine as select 1")
	for range 4 {
		if got := p.must("select string_agg(name, ' ' order by name) from pg_prepared_statements"); got != "mine missing" {
			t.Errorf("prepared is %q", got)
		}
	}
	if got := r.all("select v from slow where id = 1"); got != "7" {
		t.Errorf("v is %q", got)
	}
}

// twoPhase: a transaction is prepared on all nodes or on none.
func (r *replicated) twoPhase() {
	t, p := r.t, r.plain()
	prepared := func(want string) {
		t.Helper()
		if got := r.all("select gid from pg_prepared_xacts order by gid"); got != want {
			t.Errorf("prepared are %q, not %q", got, want)
		}
	}
	p.must("create table twice (id int primary key)")
	p.must("begin; insert into twice values (1); prepare transaction 'a'")
	p.must("begin; insert into twice values (2); prepare transaction 'b'")
	prepared("a\nb")
	p.must("commit prepared 'a'")
	p.must("rollback prepared 'b'")
	p.must("begin; insert into twice values (3); rollback")
	prepared("")
	if _, err := r.nodes[1].Exec("begin; select 1; prepare transaction 'c'"); err != nil {
		t.Fatal(err)
	}
	var said *pgconn.PgError
	if _, err := p.run("begin; insert into twice values (4); prepare transaction 'c'"); !errors.As(err, &said) || said.Severity != "FATAL" {
		t.Errorf("a name that another node has: %v", err)
	}
	if got, err := r.nodes[0].Exec("select gid from pg_prepared_xacts"); err != nil || got != "" {
		t.Errorf("the main node has kept %q, %v", got, err)
	}
	r.plain().must("insert into twice values (5)")
	if got := r.all("select id from twice order by id"); got != "1\n5" {
		t.Errorf("rows are %q", got)
	}
}

// largeObjects: they have the same OIDs on all nodes, whatever the next one is there.
func (r *replicated) largeObjects() {
	t, p := r.t, r.plain()
	if _, err := r.nodes[1].Exec("create type elsewhere as enum (); drop type elsewhere"); err != nil {
		t.Fatal(err)
	}
	p.must("create table image (id int, o oid)")
	for _, sql := range []string{"select lo_creat(-1)", "select lo_create(0) as made", "select lo_from_bytea(0, 'abc')", "select lo_create(77777)",
		"insert into image values (1, lo_from_bytea(0, 'abc')), (2, lo_creat(-1))", "insert into image select 3, lo_creat(-1)", "begin; select lo_create(0); select lo_create(0); rollback; select lo_create(0)"} {
		p.must(sql)
	}
	if _, err := r.connect().Exec(t.Context(), "insert into image values ($1, lo_from_bytea(0, $2))", 4, []byte("def")); err != nil {
		t.Error(err)
	}
	tx, err := r.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	objects := tx.LargeObjects()
	if _, err := objects.Create(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if got := r.all("select oid from pg_largeobject_metadata order by oid"); strings.Count(got, "\n") != 9 {
		t.Errorf("there are %q", got)
	}
	r.all("select * from image order by id")
}

// mismatches: what was made different behind our back is found out when it is
// written to. Nothing is committed anywhere; or, with detach, the node in the wrong
// is left out.
func (r *replicated) mismatches(detach bool) {
	t := r.t
	p := r.pcpTools()
	r.plain().must("create table differs (id int primary key, v int); insert into differs values (1, 0), (2, 0)")
	mustOn := func(node int, sql string) {
		t.Helper()
		if _, err := r.nodes[node].Exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	status := func() string { return strings.Fields(p.run("node_info 1").stdout)[4] }
	for _, c := range []struct{ words, apart, write string }{
		{"difference of the number", "delete from differs where id = 2", "update differs set v = v + 1"},
		{"kind mismatch", "insert into differs values (3, 0)", "insert into differs values (3, 5)"},
	} {
		mustOn(1, c.apart)
		before, err := r.nodes[0].Exec("select * from differs order by id")
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.plain().run(c.write)
		after, _ := r.nodes[0].Exec("select * from differs order by id")
		if !strings.Contains(r.Log.String(), c.words) {
			t.Errorf("the log does not say %q", c.words)
		}
		if !detach {
			var said *pgconn.PgError
			if !errors.As(err, &said) || said.Severity != "FATAL" || !strings.Contains(said.Message, c.words) || after != before {
				t.Errorf("%s: %v, the main node has %q", c.write, err, after)
			}
			mustOn(1, "delete from differs")
			mustOn(0, "delete from differs")
			r.plain().must("insert into differs values (1, 0), (2, 0)")
			if got := status(); got != "up" {
				t.Errorf("node 1 is %s", got)
			}
			continue
		}
		if err != nil || after == before {
			t.Errorf("%s: %v, the main node has %q", c.write, err, after)
		}
		if got := status(); got != "down" {
			t.Errorf("node 1 is %s", got)
		}
		mustOn(1, "delete from differs")
		mustOn(0, "delete from differs")
		p.done("attach_node 1")
		eventually(t, "node 1 is used again", func() bool { return status() == "up" })
		r.plain().must("insert into differs values (1, 0), (2, 0)")
	}
	r.all("select * from differs order by id")
}

// mainLost: when the main node dies in the middle of a transaction nothing of it is
// left, and the next node takes over.
func (r *replicated) mainLost() {
	t, p := r.t, r.plain()
	p.must("create table survivor (id int primary key)")
	p.must("begin; insert into survivor values (1)")
	r.Must(r.nodes[0].Kill())
	if _, err := p.run("insert into survivor values (2); commit"); err == nil {
		t.Error("the transaction goes on without its main node")
	}
	eventually(t, "the next node takes over", func() bool {
		c, err := pgconn.Connect(t.Context(), r.URL(testcluster.Superuser, "postgres"))
		if err != nil {
			return false
		}
		defer c.Close(t.Context())
		_, err = c.Exec(t.Context(), "insert into survivor values (3)").ReadAll()
		return err == nil
	})
	if got, err := r.nodes[1].Exec("select id from survivor"); err != nil || got != "3" {
		t.Errorf("left is %q, %v", got, err)
	}
}
