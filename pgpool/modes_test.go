package pgpool_test

import (
	"fmt"
	"strings"
	"testing"

	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/testcluster"
)

// The modes in which pgpool appoints the primary.
func TestAppointedPrimary(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	c.MustExec(0, "create table if not exists appointed (v text)")
	c.Must(c.WaitCatchup())

	for _, mode := range []string{"logical_replication", "slony"} {
		f := serve(t, c, append(backends(c, 0, 1), "backend_clustering_mode = '"+mode+"'", "backend_flag0 = 'ALWAYS_PRIMARY'")...)
		if warned := strings.Contains(f.Log.String(), "slony is taken for logical_replication"); warned != (mode == "slony") {
			t.Errorf("%s: warned: %v", mode, warned)
		}
		r := f.reader(1)
		r.expect(t, "C(INSERT 0 1) Z(I)", q("insert into appointed values ('"+mode+"')"))
		if s := f.Server.Snapshot(); s.RoleName(0) != "main" || s.RoleName(1) != "replica" {
			t.Errorf("%s: %s and %s", mode, s.RoleName(0), s.RoleName(1))
		}
	}

	// Raw: all is done on one node, and the next takes over when it has failed.
	f := serve(t, c, append(backends(c, 1, 1), "backend_clustering_mode = 'raw'", "failover_hold_timeout = 90",
		"health_check_max_retries = 1", "health_check_retry_delay = 1")...)
	path, notes := f.failoverScript()
	f.reload("failover_command = '" + path + " failover " + placeholders + "'")
	r := f.raw()
	r.expect(t, "C(SET) Z(I)", q("set raw.x = 'mine'"))
	for range 8 {
		if v, err := r.value("select inet_server_port()"); err != nil || f.node(v) != 0 {
			t.Fatalf("read at port %s, %v", v, err)
		}
	}
	f.Must(f.WaitCatchup())
	f.Must(f.Nodes[0].Pause()) // it stands still before it ends, so that no connection does by itself
	f.Must(f.Nodes[0].Kill())
	want := "failover d=0 h=127.0.0.1 p=port0 D=n0 m=1 H=127.0.0.1 M=0 P=0 r=port1 R=n1 N=127.0.0.1 S=port0 %"
	if got := f.noted(notes, 1, 1); got[0] != want {
		t.Errorf("got  %s\nwant %s", got[0], want)
	}
	f.settled("node 1 has taken over", func(s *cluster.Snapshot) bool { return s.Primary == 1 && len(s.Jobs) == 0 })
	r.expect(t, "C(INSERT 0 1) Z(I)", q("insert into appointed values (current_setting('raw.x'))"))
	f.Must(f.Nodes[0].Start())
	f.settled("node 0 answers", func(s *cluster.Snapshot) bool { return s.Nodes[0].Reach == cluster.Reachable })
	if s := f.Server.Snapshot(); s.Primary != 1 || s.Nodes[0].Usable() {
		t.Errorf("node 0 is %s, the primary is %d", s.Nodes[0].Status, s.Primary)
	}
	if v, err := f.raw().value("select inet_server_port()"); err != nil || v != fmt.Sprint(f.Nodes[1].Port) {
		t.Errorf("read at port %s, %v", v, err)
	}
}
