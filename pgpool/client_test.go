package pgpool_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
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

func TestCopyIn(t *testing.T) {
	f := usual(t)
	c := f.connect()
	if _, err := c.Exec(t.Context(), "create table t (i int, s text)"); err != nil {
		t.Fatal(err)
	}
	var rows [][]any
	for i := range 10000 {
		rows = append(rows, []any{i, "some text in each row"})
	}
	if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"t"}, []string{"i", "s"}, pgx.CopyFromRows(rows)); err != nil || n != int64(len(rows)) {
		t.Fatal(n, err)
	}
}
