package pgpool_test

import (
	"strings"
	"sync"
	"testing"
)

// TestReplicatedAdvisoryLocks: one session at a time has an advisory lock, however many
// try, and it is gone with the node that leads.
func TestReplicatedAdvisoryLocks(t *testing.T) {
	for _, mode := range []string{"native_replication", "snapshot_isolation"} {
		t.Run(mode, func(t *testing.T) {
			r := replicate(t, 2, mode)
			ctx := t.Context()
			var all sync.WaitGroup
			var inside sync.Mutex // what is locked
			for w := range 8 {
				all.Go(func() {
					c := r.connect()
					for n := 0; n < 60; n++ {
						ok := w >= 4
						var err error
						if ok {
							_, err = c.Exec(ctx, "select pg_advisory_lock($1)", 7)
						} else {
							err = c.QueryRow(ctx, "select pg_try_advisory_lock(7)").Scan(&ok)
						}
						if err != nil {
							t.Errorf("%d: lock %d: %v", w, n, err)
							return
						}
						if !ok {
							continue
						}
						if !inside.TryLock() {
							t.Errorf("%d: lock %d: somebody else has it", w, n)
							return
						}
						inside.Unlock()
						var had bool
						if err := c.QueryRow(ctx, "select pg_advisory_unlock(7)").Scan(&had); err != nil || !had {
							t.Errorf("%d: unlock %d: %v, %v", w, n, had, err)
							return
						}
					}
				})
			}
			all.Wait()
			p, q := r.plain(), r.plain()
			p.must("begin; select pg_advisory_xact_lock(8)")
			if got := q.must("select pg_try_advisory_xact_lock(8)"); got != "f" {
				t.Errorf("a lock that another has: %s", got)
			}
			p.must("commit; select 1")
			// Of several in one string the lock lasts to the end.
			if got := q.must("select pg_advisory_xact_lock(8); select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"); !strings.HasSuffix(got, "1") {
				t.Errorf("%s", got)
			}
			p.must("select pg_advisory_lock(9)")
			q.must("select 1")
			r.Must(r.nodes[0].Kill())
			eventually(t, "node 1 leads", func() bool { return r.Server.Snapshot().Main == 1 })
			if _, err := p.run("select 1"); sqlstate(err) != "57P01" {
				t.Errorf("who had a lock goes on: %v", err)
			}
			q.must("select pg_advisory_lock(9)")
		})
	}
}
