package pgpool_test

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
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
	if got := r.all("select v from slow where id = 1"); got != "7" {
		t.Errorf("v is %q", got)
	}
}
