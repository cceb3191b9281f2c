package pgpool_test

import "testing"

// TestReplicatedLocalPortals: a portal of a pool command, which no node knows, is not
// in the way of others of its name.
func TestReplicatedLocalPortals(t *testing.T) {
	r := replicate(t, 2, "native_replication")
	r.plain().must("create table t (a int)")
	w := r.raw()
	w.expect(t, "C(BEGIN) Z(T)", q("begin"))
	w.expect(t, "1 2 Z(T)", parse("", "show pool_version"), bind("", ""), sync_)
	w.expect(t, "1 2 C(INSERT 0 1) Z(T)", parse("", "insert into t values (1)"), bind("", ""), execute("", 0), sync_)
	w.expect(t, "1 2 Z(T)", parse("", "show pool_version"), bind("", ""), sync_)
	w.expect(t, "T D(1) C(SELECT 1) Z(T)", q("select 1"))
	w.expect(t, "C(COMMIT) Z(I)", q("commit"))
	if got := r.all("select * from t"); got != "1" {
		t.Errorf("inserted %q", got)
	}
	w.expect(t, "C(BEGIN) Z(T)", q("begin"))
	w.expect(t, "1 2 Z(T)", parse("", "show pool_version"), bind("", ""), sync_)
	w.expect(t, "T D(1) C(SELECT 1) Z(T)", q("select 1"))
	w.expect(t, "E(34000) Z(E)", execute("", 0), sync_)
	w.expect(t, "C(ROLLBACK) Z(I)", q("rollback"))
	w.expect(t, "C(BEGIN) Z(T)", q("begin"))
	w.expect(t, "1 2 Z(T)", parse("", "show pool_version"), bind("a", ""), sync_)
	w.expect(t, "1 E(42P03) Z(E)", parse("", "select 1"), bind("a", ""), sync_)
	w.expect(t, "C(ROLLBACK) Z(I)", q("rollback"))
}
