package pgpool_test

import (
	"testing"

	"pgpool-go/tools/testcluster"
)

// A standby that lags may be read, as without a cache, but what it says is not
// kept; and what a write has made wrong is not given out again when it has caught up.
func TestQueryCacheLag(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	f := serve(t, c, append(backends(c, 0, 1, 0), "memory_cache_enabled = on", "num_init_children = 8")...)
	f.MustExec(0, "CREATE TABLE lag (v text); INSERT INTO lag VALUES ('old')")
	f.Must(f.WaitCatchup())
	p := f.plain()
	const r = "SELECT v FROM lag"
	eventually(t, "a standby's answer is kept", func() bool {
		got, hit := p.hit(r)
		if got != "old" {
			t.Fatalf("got %q", got)
		}
		return hit
	})
	f.MustExec(1, "SELECT pg_wal_replay_pause()")
	resume := func() { f.MustExec(1, "SELECT pg_wal_replay_resume()") }
	defer resume()
	p.must("UPDATE lag SET v = 'new'")
	for range 20 {
		got, hit := p.hit(r)
		if got != "old" {
			t.Fatalf("the standby has replayed: %q", got)
		}
		if hit {
			t.Fatal("what a lagging standby says is kept")
		}
	}
	for range 2 { // the primary's answer is, and good for all
		if got := p.must("/* pgpool.target = primary */ " + r); got != "new" {
			t.Errorf("the primary: %q", got)
		}
	}
	if _, hit := p.hit("/* pgpool.target = primary */ " + r); !hit {
		t.Error("the primary's answer is not kept")
	}
	resume()
	eventually(t, "the standby's answer is kept again", func() bool {
		_, hit := p.hit(r)
		return hit
	})
	if got := p.must(r); got != "new" {
		t.Errorf("after it has caught up: %q", got)
	}
}
