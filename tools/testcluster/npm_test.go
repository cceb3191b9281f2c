package testcluster

import (
	"strconv"
	"strings"
	"testing"
)

// The driver of another language; make testdeps fetches it.
func TestNpmDriver(t *testing.T) {
	if testing.Short() {
		t.Skip("comes from npm")
	}
	if _, err := NpmDriver(); err != nil {
		t.Fatal(err)
	}
}

// The other major versions that pgpool-go serves; make testdeps fetches them.
func TestNpmPostgres(t *testing.T) {
	for _, major := range []int{17, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			if testing.Short() {
				t.Skip("needs real PostgreSQL servers: skipped by -short")
			}
			bin, err := NpmPostgres(major)
			if err != nil {
				t.Fatal(err)
			}
			c := New(t, Options{BinDir: bin, Standbys: 1})
			c.MustExec(0, "create table t as select 1 as i")
			c.Must(c.WaitCatchup())
			if got := c.MustExec(1, "select i, current_setting('server_version') from t"); !strings.HasPrefix(got, "1|"+strconv.Itoa(major)+".") {
				t.Errorf("standby answers %q", got)
			}
			c.Must(c.Nodes[0].Kill())
			c.Must(c.Nodes[1].Promote())
			c.MustExec(1, "insert into t values (2)")
		})
	}
}
