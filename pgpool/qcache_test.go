package pgpool_test

import (
	"strings"
	"testing"

	"pgpool-go/tools/testcluster"
)

// TestQueryCache asks what is answered from the cache and what is not.
func TestQueryCache(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	f := serve(t, c, append(backends(c, 1, 0, 0), "memory_cache_enabled = on", "log_per_node_statement = on", "num_init_children = 16")...)
	f.MustExec(0, "CREATE TABLE ct (a int, b text); INSERT INTO ct VALUES (1, 'x'), (2, 'y')")
	p := f.plain()
	hits := func() int { return strings.Count(f.Log.String(), "fetch from memory cache") }
	for i := range 3 {
		if got := p.must("SELECT b FROM ct WHERE a = 1"); got != "x" {
			t.Fatalf("got %q", got)
		}
		t.Log(i, hits(), p.must("SHOW POOL_CACHE"))
	}
	p.must("UPDATE ct SET b = 'z' WHERE a = 1")
	if got := p.must("SELECT b FROM ct WHERE a = 1"); got != "z" {
		t.Fatalf("got %q", got)
	}
	if got := p.must("SELECT b FROM ct WHERE a = 1"); got != "z" {
		t.Fatalf("got %q", got)
	}
	t.Log(hits(), p.must("SHOW POOL_CACHE"))
	x := f.connect()
	for range 4 {
		var b string
		if err := x.QueryRow(t.Context(), "SELECT b FROM ct WHERE a = $1", 2).Scan(&b); err != nil || b != "y" {
			t.Fatal(b, err)
		}
		t.Log(hits(), p.must("SHOW POOL_CACHE"))
	}
}
