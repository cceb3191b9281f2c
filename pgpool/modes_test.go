package pgpool_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/testcluster"
)

var (
	mode     = flag.String("mode", "", "the backend_clustering_mode of every pgpool, whatever a test says")
	modesAll = flag.Bool("modes.all", false, "TestModes runs all tests of the main job, not the essential ones")
)

// mainJob are the tests of what pgpool does for its clients in whatever mode. They
// say what differs by f.spreads() and servers(). Those that take long are left to
// -modes.all. Not among them are what has to do with streaming: replication programs,
// promotion by others, and what a standby's delay does.
var mainJob = []struct {
	name string
	run  func(*testing.T)
	long bool
}{
	{"ReadsAreSpread", TestReadsAreSpread, false},
	{"Psql", TestPsql, false},
	{"Copy", TestCopy, false},
	{"Cancel", TestCancel, false},
	{"Notify", TestNotify, false},
	{"RandomDialogues", TestRandomDialogues, false},
	{"EveryServerHasTheSettings", TestEveryServerHasTheSettings, false},
	{"FailedReadFailsTheBlock", TestFailedReadFailsTheBlock, false},
	{"StatementsAreTheClients", TestStatementsAreTheClients, false},
	{"Portals", TestPortals, false},
	{"DescribeInFailedBlock", TestDescribeInFailedBlock, false},
	{"ErrorBeforeSync", TestErrorBeforeSync, false},
	{"LongBlockJoins", TestLongBlockJoins, false},
	{"SettingsAreTheSameEverywhere", TestSettingsAreTheSameEverywhere, false},
	{"OwnObjectsAreFound", TestOwnObjectsAreFound, false},
	{"PreparedStatements", TestPreparedStatements, false},
	{"FaultsOfTheOriginal", TestFaultsOfTheOriginal, false},
	{"Soak", func(t *testing.T) { soak(t, *soakFor/4) }, false},

	{"Pgbench", TestPgbench, true},
	{"DumpAndRestore", TestDumpAndRestore, true},
	{"AdministrationPrograms", TestAdministrationPrograms, true},
	{"UnixSocket", TestUnixSocket, true},
	{"OddNames", TestOddNames, true},
	{"OtherServers", TestOtherServers, true},
	{"LargeResults", TestLargeResults, true},
}

// TestModes has clients see in the other modes what they see in streaming
// replication. Where pgpool writes to all nodes, they hold the same afterwards.
func TestModes(t *testing.T) {
	for _, m := range []string{"raw", "logical_replication", "native_replication", "snapshot_isolation"} {
		t.Run(m, func(t *testing.T) {
			before := *mode
			t.Cleanup(func() { *mode = before })
			*mode = m
			for _, job := range mainJob {
				if !job.long || *modesAll {
					t.Run(job.name, job.run)
				}
			}
		})
	}
}

// replicates tells whether a mode is one in which pgpool writes to every node.
func replicates(mode string) bool {
	return mode == "native_replication" || mode == "snapshot_isolation"
}

// servers is testcluster.New for tests that are run in every mode: where pgpool
// writes to every node, the servers know nothing of each other.
func servers(t testing.TB, o testcluster.Options) *testcluster.Cluster {
	t.Helper()
	if replicates(*mode) {
		o.Apart = true
		o.Conf = maps.Clone(o.Conf)
		delete(o.Conf, "synchronous_standby_names")
		delete(o.Conf, "synchronous_commit")
	}
	return testcluster.New(t, o)
}

// spreads tells whether reads go to other nodes than the first. In raw one node
// serves, and the others wait for its failure.
func (f *front) spreads() bool { return f.mode != "raw" }

// MustExec asks a node directly. What is done on node 0 the others have by
// replication; where it is pgpool that replicates, they are told the same.
func (f *front) MustExec(node int, sql string) string {
	f.t.Helper()
	if node == 0 && replicates(f.mode) {
		for _, n := range f.Nodes[1:] {
			if n.Pid() != 0 {
				f.Cluster.MustExec(n.ID, sql)
			}
		}
	}
	return f.Cluster.MustExec(node, sql)
}

// agreed are the running nodes that are to hold the same, by what pgpool
// believes. That it has given one up that runs is an error.
func (f *front) agreed() (nodes []*testcluster.Node) {
	if !replicates(f.mode) {
		return nil
	}
	f.t.Helper()
	s := f.Server.Snapshot()
	for _, n := range f.Nodes {
		if s.Usable(n.ID) {
			nodes = append(nodes, n)
		} else if n.Pid() != 0 {
			f.t.Errorf("node %d, which runs, is not used any more: %s", n.ID, s.Nodes[n.ID].Status)
		}
	}
	return nodes
}

// agree compares what nodes hold: roles, databases, and in these all that is
// defined, rows, sequences and large objects.
func (f *front) agree(nodes []*testcluster.Node) {
	f.t.Helper()
	var first string
	for i, n := range nodes {
		held := f.held(n)
		if i == 0 {
			first = held
		} else if held != first {
			f.t.Errorf("node %d holds something else than node %d\n%s", n.ID, nodes[0].ID, difference(held, first))
		}
	}
}

// held is what a node holds, as text.
func (f *front) held(n *testcluster.Node) string {
	program, err := f.Program("pg_dumpall")
	f.Must(err)
	cmd, err := testcluster.Command(context.Background(), program, "-s", "--no-role-passwords", "-h", n.Host, "-p", fmt.Sprint(n.Port), "-U", testcluster.Superuser)
	f.Must(err)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || !strings.Contains(string(exit.Stderr), "server version mismatch") { // a newer server: rows only
		f.Must(err)
	}
	names, err := n.Exec("select datname from pg_database where datallowconn")
	f.Must(err)
	if before, rest, ok := strings.Cut(string(out), "\n-- Database \"direct\" dump\n"); ok { // what is compared with, on one node only
		_, after, _ := strings.Cut(rest, "\n-- PostgreSQL database dump complete\n")
		out = []byte(before + after)
	}
	dump := regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(string(out), "")
	for _, db := range slices.DeleteFunc(strings.Split(names, "\n"), func(db string) bool { return db == "direct" }) {
		rows, err := n.ExecIn(db, `select format('select %L, count(*), md5(string_agg(x::text, chr(10) order by x::text)) from %s x;', c.oid::regclass::text, c.oid::regclass)
				from pg_class c where relkind = 'r' and relnamespace::regnamespace::text !~ '^(pg_|information_schema)' order by c.oid::regclass::text \gexec
			select schemaname, sequencename, last_value from pg_sequences order by 1, 2;
			select 'large object', loid, pageno, md5(data) from pg_largeobject order by 2, 3;
			select 'prepared', gid from pg_prepared_xacts order by 2`)
		f.Must(err)
		dump += "\n-- " + db + "\n" + rows
	}
	return dump
}

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
