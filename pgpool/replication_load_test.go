package pgpool_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgpool-go/tools/testcluster"
)

// -replicate.time is how long TestReplicatedLoad runs in each mode; the whole of
// it is `go test ./pgpool -run TestReplicatedLoad -replicate.time 10m -timeout 2h`.
var replicateTime = flag.Duration("replicate.time", 4*time.Second, "how long pgbench runs for each mode and number of nodes")

// archiving is how servers are started that others are recovered from.
var archiving = testcluster.Options{Conf: map[string]string{
	"archive_mode": "on", "archive_command": "mkdir -p ../archive && cp %p ../archive/%f.new && mv ../archive/%f.new ../archive/%f",
}}

// tpcb is pgbench's own transaction, with the time by two ways and a serial.
const tpcb = `\set aid random(1, 10000)
\set tid random(1, 10)
\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :aid;
select abalance from pgbench_accounts where aid = :aid;
update pgbench_tellers set tbalance = tbalance + :delta where tid = :tid;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (:tid, 1, :aid, :delta, current_timestamp);
insert into stamped (aid, delta) values (:aid, :delta);
update stamped set changed = now() where id = (select max(id) from stamped) and aid = :aid;
end;
insert into stamped (aid, delta) values (:aid, :delta) returning id, made;
update pgbench_branches set bbalance = bbalance + :delta where bid = 1;
`

// TestReplicatedLoad: pgbench by three protocols from 20 clients, while a node is
// killed and recovered online. Afterwards all nodes hold the same.
func TestReplicatedLoad(t *testing.T) {
	for _, c := range []struct {
		mode  string
		nodes int
	}{{"native_replication", 2}, {"snapshot_isolation", 2}, {"native_replication", 3}, {"snapshot_isolation", 3}} {
		if *replicateTime < time.Minute && c.nodes == 3 {
			continue // two of the four are enough for every day
		}
		t.Run(fmt.Sprintf("%s, %d nodes", c.mode, c.nodes), func(t *testing.T) {
			r := replicateOn(t, archiving, c.nodes, c.mode, "recovery_user = 'postgres'", "recovery_1st_stage_command = 'basebackup'", "recovery_2nd_stage_command = 'lastlog'",
				"recovery_timeout = 60", "num_init_children = 64", "log_min_messages = log")
			if _, err := r.nodes[0].ExecIn("template1", "create extension pgpool_recovery"); err != nil {
				t.Fatal(err)
			}
			r.recoveryScripts()
			r.mustProgram("", "pgbench", "-i", "-q", "-s", "1")
			r.plain().must(`create table stamped (id serial primary key, aid int, delta int, made timestamptz default now(), day date default current_date, changed timestamptz)`)
			path, err := r.WriteFile("tpcb.sql", tpcb, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			var mu sync.Mutex
			var outs []string
			for i, protocol := range []string{"simple", "extended", "prepared"} {
				clients := []string{"7", "7", "6"}[i]
				all.Go(func() {
					out, words, err := r.program("", "pgbench", "-n", "-f", path, "-M", protocol, "-c", clients, "-T", fmt.Sprint(int(replicateTime.Seconds())), "--max-tries=1000")
					mu.Lock()
					defer mu.Unlock()
					if err != nil || strings.Contains(words, "abort") {
						t.Errorf("pgbench -M %s: %v\n%s", protocol, err, words)
					}
					outs = append(outs, protocol+"\n"+out)
				})
			}
			time.Sleep(*replicateTime / 4)
			victim := r.nodes[len(r.nodes)-1]
			r.Must(victim.Kill())
			p := r.pcpTools()
			id := len(r.nodes) - 1
			status := func() string { return strings.Fields(p.run(fmt.Sprintf("node_info %d", id)).stdout)[4] }
			eventually(t, "the dead node is detached", func() bool { return status() == "down" })
			if err := r.client().RecoverNode(id); err != nil {
				t.Errorf("recovery: %v", err)
			}
			eventually(t, "the node is used again", func() bool { return status() == "up" })
			all.Wait()
			for _, out := range outs {
				for _, line := range strings.Split(out, "\n") {
					if strings.HasPrefix(line, "tps") || strings.Contains(line, "transactions actually") || strings.Contains(line, "failed") {
						t.Log(line)
					}
				}
			}
			// A server that has replayed its log is up to 32 values ahead, until a
			// sequence is used the next time.
			r.plain().must("insert into stamped (aid, delta) values (1, 1)")
			for _, table := range []string{"pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history", "stamped"} {
				sum := r.all("select count(*), md5(string_agg(x::text, '|' order by x::text)) from " + table + " x")
				t.Logf("%s: %s", table, sum)
			}
			r.all("select last_value, is_called from stamped_id_seq")
			if strings.Contains(r.Log.String(), "mismatch") || strings.Contains(r.Log.String(), "difference of the number") {
				t.Error("the nodes have answered differently")
			}
			r.Must(victim.Stop(testcluster.Fast)) // it is no child of the test's
		})
	}
}

// recoveryScripts puts the scripts of online recovery into the data directories: a
// copy while clients write, then the rest from the archive while they are held.
func (r *replicated) recoveryScripts() {
	r.t.Helper()
	program := func(name string) string {
		path, err := r.Program(name)
		if err != nil {
			r.t.Fatal(err)
		}
		return path
	}
	scripts := map[string]string{
		"basebackup": fmt.Sprintf(`#!/bin/bash
set -eu
keep=$(cat "$3/node.conf")
rm -rf "$3"
'%s' -h "$7" -p "$4" -U postgres -D "$3" -X none -c fast --no-sync --no-manifest
echo "$keep" >"$3/node.conf"
echo "restore_command = 'cp $1/../archive/%%f %%p'" >>"$3/postgresql.auto.conf"
touch "$3/recovery.signal"
`, program("pg_basebackup")),
		"lastlog": fmt.Sprintf(`#!/bin/bash
set -eu
last=$('%s' -XAtq -h "$7" -p "$4" -U postgres -d template1 -c "select pg_walfile_name(pg_current_wal_lsn()) from pg_switch_wal()" )
for ((i = 0; i < 300; i++)); do [ ! -e "$1/../archive/$last" ] || exit 0; sleep 0.1; done
exit 1
`, program("psql")),
		"pgpool_remote_start": fmt.Sprintf("#!/bin/bash\nexec '%s' -D \"$2\" -l \"$2/started.log\" -w start >/dev/null\n", program("pg_ctl")),
	}
	for name, text := range scripts {
		path, err := r.WriteFile(name, text, 0o755)
		if err == nil {
			err = os.Rename(path, filepath.Join(r.nodes[0].DataDir, name))
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}
