package pgpool_test

import (
	"strings"
	"testing"

	"pgpool-go/pgpool/cluster"
)

// A standby that receives nothing and one that receives from another standby are
// read like others while they have what the primary has written, and not when they
// have fallen behind, nor right after they were restarted like that.
func TestStarvedStandby(t *testing.T) {
	f := usual(t, "delay_threshold = 100000", "backend_weight0 = 0", "backend_application_name1 = ''", "backend_application_name2 = ''")
	f.MustExec(0, "create table t (v text)")
	f.Must(f.Nodes[2].Follow(f.Nodes[1]))
	fed := f.MustExec(1, "show primary_conninfo")
	f.MustExec(1, "alter system set primary_conninfo = ''")
	f.MustExec(1, "select pg_reload_conf()")
	f.settled("nobody is known to stream from the primary, and all are used", func(s *cluster.Snapshot) bool {
		for i := range s.Nodes {
			if !s.Nodes[i].Usable() || s.Nodes[i].ReplicationState != "" || s.Nodes[i].Lag > 1000 {
				return false
			}
		}
		return f.MustExec(0, "select count(*) from pg_stat_replication") == "0"
	})
	c := f.plain()
	if at := f.reads(c, 40); at[0] > 0 || at[1] == 0 || at[2] == 0 {
		t.Errorf("reads are on %v", at)
	}
	f.MustExec(0, "insert into t select repeat('x', 100) from generate_series(1, 10000)")
	behind := func(s *cluster.Snapshot) bool {
		return s.Nodes[1].Usable() && s.Nodes[2].Usable() && s.Nodes[1].Lag > 100000 && s.Nodes[2].Lag > 100000
	}
	f.settled("both are behind", behind)
	if at := f.reads(c, 20); at[0] != 20 {
		t.Errorf("reads are on %v", at)
	}
	f.Must(f.Nodes[1].Kill())
	f.settled("node 1 is out", usable(1, false))
	f.Must(f.Nodes[1].Start())
	f.settled("node 1 is back", usable(1, true))
	if at := f.reads(c, 20); at[0] != 20 {
		t.Errorf("reads are on %v as soon as node 1 is back", at)
	}
	f.MustExec(1, "alter system set primary_conninfo = '"+strings.ReplaceAll(fed, "'", "''")+"'")
	f.MustExec(1, "select pg_reload_conf()")
	f.settled("both have caught up", func(s *cluster.Snapshot) bool {
		return s.Nodes[1].Usable() && s.Nodes[2].Usable() && s.Nodes[1].Lag == 0 && s.Nodes[2].Lag == 0
	})
	if at := f.reads(c, 40); at[0] > 0 || at[1] == 0 || at[2] == 0 {
		t.Errorf("reads are on %v", at)
	}
}
