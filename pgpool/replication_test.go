package pgpool_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// replicated is pgpool in a mode in which it writes to every node, in front of n
// servers that know nothing of each other.
type replicated struct {
	*front
	nodes []*testcluster.Node
}

// replicate makes one, with the given lines of pgpool.conf besides.
func replicate(t testing.TB, n int, mode string, lines ...string) *replicated {
	t.Helper()
	return replicateOn(t, testcluster.Options{}, n, mode, lines...)
}

// replicateOn is replicate with servers of particular options.
func replicateOn(t testing.TB, o testcluster.Options, n int, mode string, lines ...string) *replicated {
	t.Helper()
	r := &replicated{}
	all := []string{"backend_clustering_mode = '" + mode + "'", "load_balance_mode = on", "health_check_period = 1",
		"health_check_user = 'postgres'", "health_check_database = 'postgres'", "sr_check_user = 'postgres'"}
	var first *testcluster.Cluster
	for i := range n {
		c := testcluster.New(t, o)
		if first == nil {
			first = c
		}
		node := c.Nodes[0]
		r.nodes = append(r.nodes, node)
		all = append(all,
			fmt.Sprintf("backend_hostname%d = '%s'", i, node.Host),
			fmt.Sprintf("backend_port%d = %d", i, node.Port),
			fmt.Sprintf("backend_weight%d = 1", i),
			fmt.Sprintf("backend_data_directory%d = '%s'", i, node.DataDir))
	}
	r.front = serve(t, first, append(all, lines...)...)
	return r
}

// all asks every node directly, and wants the same answer of all of them.
func (r *replicated) all(sql string) string {
	r.t.Helper()
	var first string
	for i, n := range r.nodes {
		got, err := n.Exec(sql)
		if err != nil {
			got = "error: " + err.Error()
		}
		if i == 0 {
			first = got
		} else if got != first {
			r.t.Errorf("%s\nnode 0: %s\nnode %d: %s", sql, first, i, got)
		}
	}
	return first
}

// TestReplicatedStatements: what a client does is done on every node.
func TestReplicatedStatements(t *testing.T) {
	for _, mode := range []string{"native_replication", "snapshot_isolation"} {
		t.Run(mode, func(t *testing.T) {
			detach := mode == "snapshot_isolation" // one mode by one way, the other by the other
			r := replicate(t, 2, mode, fmt.Sprintf("replication_stop_on_mismatch = %t", detach), fmt.Sprintf("failover_if_affected_tuples_mismatch = %t", detach))
			p := r.plain()
			p.must("create table t (id serial primary key, v int, ts timestamptz default now(), d date default current_date + 1, u uuid default gen_random_uuid())")
			p.must("insert into t(v) values (1), (2)")
			p.must("insert into t(v, ts) values (3, clock_timestamp()); update t set v = v + 1 where id = 1")
			p.must("begin; insert into t(v) select 4; savepoint a; insert into t(v) values (5); rollback to a; insert into t default values; commit")
			p.must("begin; insert into t(v) values (6); rollback")
			if _, err := p.run("insert into t(id) values (1)"); err == nil || !strings.Contains(err.Error(), "duplicate key") {
				t.Errorf("a duplicate: %v", err)
			}
			p.must("begin")
			if _, err := p.run("insert into t(id) values (1)"); err == nil {
				t.Error("a duplicate is accepted")
			}
			if _, err := p.run("select 1"); err == nil || !strings.Contains(err.Error(), "current transaction is aborted") {
				t.Errorf("in a failed block: %v", err)
			}
			p.must("commit")
			p.must("insert into t(v) values (nextval('t_id_seq'))")
			p.must("prepare x as insert into t(v, ts) values ($1, now()); execute x(9); execute x(10); deallocate x")
			p.must("select nextval('t_id_seq')")
			w := r.raw()
			said := func(sql string) []pgproto3.FrontendMessage {
				return []pgproto3.FrontendMessage{parse("", sql), bind("", ""), execute("", 0), sync_}
			}
			w.expect(t, "1 2 C(PREPARE) Z(I)", said("prepare y as insert into t(v, ts) values ($1, now())")...)
			w.expect(t, "1 2 C(INSERT 0 1) Z(I)", said("execute y(11)")...)
			w.expect(t, "1 Z(I)", parse("e", "execute y(12)"), sync_)
			w.expect(t, "2 C(INSERT 0 1) 2 C(INSERT 0 1) Z(I)", bind("", "e"), execute("", 0), bind("", "e"), execute("", 0), sync_)
			w.expect(t, "C(INSERT 0 1) Z(I)", q("execute y(13)"))
			for _, end := range []string{"commit", "rollback", "prepare transaction 'x'"} { // an error of the client's in ending a block ends it nowhere
				w.expect(t, "C(BEGIN) Z(T)", q("begin"))
				w.expect(t, "C(INSERT 0 1) Z(T)", q("insert into t(v) values (77)"))
				w.expect(t, "1 E(08P01) Z(E)", parse("", end), bind("", "", "1"), execute("", 0), sync_)
				w.expect(t, "C(ROLLBACK) Z(I)", q("commit"))
			}
			r.all("select count(*) from t where v = 77")
			p.must("select setval('t_id_seq', 16)")
			w.expect(t, "C(BEGIN) Z(T)", q("begin isolation level repeatable read"))
			snapshot, err := w.value("select pg_export_snapshot()")
			if err != nil {
				t.Fatal(err)
			}
			p.must("insert into t(id, v) values (500, 500)")
			p.must("begin isolation level repeatable read; set transaction snapshot '" + snapshot + "'")
			for range 4 {
				if got := p.must("select count(*) from t where id = 500"); got != "0" {
					t.Errorf("an imported snapshot shows %s rows", got)
				}
			}
			if _, err := p.run("update t set v = 0 where id = 500"); sqlstate(err) != "0A000" {
				t.Errorf("a write in an imported snapshot: %v", err)
			}
			p.must("rollback; delete from t where id = 500")
			w.must(t, "rollback")
			p.must("create table later as select generate_series(1, 3) i, now() made")
			p.must("alter table later add column ts timestamptz default now(), add column d date not null default current_date + 1")
			w.expect(t, "1 2 C(ALTER TABLE) Z(I)", said("alter table later add column if not exists c timestamptz default clock_timestamp()")...)
			p.must("alter table later add column if not exists ts timestamptz default '-infinity'")
			p.must("insert into later(i) values (4)")
			r.all("select * from later order by i")
			if got := r.all("select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = 'later'::regclass order by adnum"); got != "now()\n(CURRENT_DATE + 1)\nclock_timestamp()" {
				t.Errorf("defaults: %s", got)
			}
			p.must("create temp table ts (i serial, at timestamptz default now()); insert into ts default values; insert into ts default values")
			p.must("insert into t(v, ts) select i, at from ts")
			p.must("begin; declare c cursor for select * from t order by id for update; fetch 2 from c; update t set v = 100 where current of c; close c; end")
			p.must("vacuum t")
			p.must("create temp table tt (i int); insert into tt values (1); insert into t(v) select i from tt")
			p.must("set work_mem = '7MB'; begin; set local search_path = pg_catalog; commit")
			p.must("create index concurrently on t(v)")
			r.all("select id, v, ts, d from t order by id")
			r.all("select last_value, is_called from t_id_seq")
			if got := r.all("select count(*) from t"); got != "15" {
				t.Errorf("%s rows", got)
			}
			ctx := t.Context()
			c := r.connect()
			for i := range 3 {
				if _, err := c.Exec(ctx, "insert into t(v, ts) values ($1, now()) returning id", i+20); err != nil {
					t.Fatal(err)
				}
			}
			tx, err := c.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "update t set v = v + $1, ts = current_timestamp where id < $2", 1, 5); err != nil {
				t.Fatal(err)
			}
			var n int
			if err := tx.QueryRow(ctx, "select count(*) from t where v > $1", 0).Scan(&n); err != nil || n == 0 {
				t.Fatal(n, err)
			}
			if err := tx.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Exec(ctx, "insert into t(id, v) values ($1, $2)", 1, 1); err == nil {
				t.Error("a duplicate is accepted")
			}
			if _, err := c.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id", "v", "ts", "d", "u"}, pgx.CopyFromSlice(1000, func(i int) ([]any, error) {
				return []any{1000 + i, i, time.Now(), time.Now(), [16]byte{1, byte(i), byte(i >> 8)}}, nil
			})); err != nil {
				t.Fatal(err)
			}
			r.mustProgram("9001\t1\n9002\t\\N\n\\.\n", "psql", "-Xqc", `copy t(id, v) from stdin`)
			if got := r.all("select count(*) from t"); got != "1020" {
				t.Errorf("%s rows", got)
			}
			r.all("select id, v, ts, d from t where id < 9000 order by id")
			r.cancels()
			r.twoPhase()
			r.largeObjects()
			r.mismatches(detach)
			r.mainLost()
		})
	}
}
