package pgpool_test

import (
	"testing"
)

func TestReadsAreSpread(t *testing.T) {
	f := usual(t)
	c := f.plain()
	c.must("create table t as select generate_series(1, 10) i")
	f.Must(f.WaitCatchup())
	count := make(map[int]int)
	for range 60 {
		count[f.node(c.must("select inet_server_port() from t limit 1"))]++
	}
	if count[0] != 0 || count[1] < 10 || count[2] < 10 {
		t.Errorf("reads per node: %v", count)
	}
}
