package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sshHere stands in for ssh in the original's scripts, which start a node's server
// by it: there is no other host.
const sshHere = `#!/bin/bash
while [[ $1 == -* ]]; do shift; done
shift
exec bash -c "$*"
`

// TestSetupOfOriginal: what the original's pgpool_setup makes in each mode works with
// our program as it is: it starts, fails over, gets its nodes back by pcp_recovery_node
// or, where that is not to be had, by pcp_attach_node, and stops.
func TestSetupOfOriginal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	script := original(t, "pgpool_setup")
	u := unprivileged{t: t}
	u.dir = strings.TrimSpace(u.must("mktemp", "-d"))
	t.Cleanup(func() { os.RemoveAll(u.dir) })
	u.install()
	u.must("cp", "-r", u.dir+"/bin", u.dir+"/sbin")
	u.must("mkdir", u.dir+"/etc")
	share, err := filepath.Abs("../../share")
	if err != nil {
		t.Fatal(err)
	}
	samples, err := filepath.Glob(share + "/*.conf.sample")
	if err != nil || len(samples) == 0 {
		t.Fatal(samples, err)
	}
	for _, from := range samples {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(u.dir, "etc", filepath.Base(from)), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(u.dir+"/bin/ssh", []byte(sshHere), 0o755); err != nil {
		t.Fatal(err)
	}
	u.env = []string{"PGPOOL_INSTALL_DIR=" + u.dir, "PGPOOLDIR=" + u.dir + "/etc", "PGSOCKET_DIR=" + u.dir,
		"PATH=" + u.dir + "/bin:" + strings.TrimSpace(u.must("bash", "-c", ". <(grep ^PGBIN= "+script+"); echo $PGBIN")) + ":" + os.Getenv("PATH")}
	for _, letter := range []string{"s", "r", "i", "l", "n"} {
		t.Run(setupModes[letter].Mode, func(t *testing.T) {
			c := u
			c.t, c.dir = t, filepath.Join(u.dir, letter)
			u.must("mkdir", c.dir)
			t.Cleanup(func() {
				if t.Failed() {
					text, _ := os.ReadFile(c.dir + "/log/pgpool.log")
					t.Logf("%s", text[max(0, len(text)-*logTail):])
				}
				c.run("bash", c.dir+"/shutdownall")
			})
			d := debianCluster{c, consecutivePorts(t, 4), setupModes[letter]}
			said := c.must(script, "-m", letter, "-n", "2", "-p", strconv.Itoa(d.port), "-pg", strconv.Itoa(d.port+2), "--no-stop")
			if !strings.Contains(said, "pgpool-II setting for "+d.Title+" mode is done.") {
				t.Fatal(said)
			}
			d.play()
			c.must("bash", c.dir+"/shutdownall")
			if left := runningBelow(c.dir); left != "" {
				t.Errorf("still running: %s", left)
			}
		})
	}
}

// debianCluster is a cluster of two nodes that the original's pgpool_setup has made.
type debianCluster struct {
	unprivileged
	port int
	setupMode
}

// ask asks the server at a port above pgpool's, which has 0.
func (d debianCluster) ask(offset int, sql string) (string, error) {
	out, err := d.run("psql", "-h", "localhost", "-p", strconv.Itoa(d.port+offset), "-d", "test", "-XAtqc", sql)
	return strings.TrimSpace(out), err
}

// until asks until it is answered in a way that will do.
func (d debianCluster) until(what string, offset int, sql string, will func(string) bool) {
	d.t.Helper()
	got, err := "", error(nil)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if got, err = d.ask(offset, sql); err == nil && will(got) {
			return
		}
	}
	d.t.Fatalf("%s: %s: %q, %v", what, sql, got, err)
}

func anything(string) bool { return true }

func (d debianCluster) play() {
	d.t.Helper()
	d.until("at first", 0, "create table if not exists kept (id serial primary key, v int, at timestamptz default now())", anything)
	alike := d.Streams() || d.Replicates()
	if !alike { // what the nodes hold is not pgpool's affair
		for _, sql := range []string{"create database test", "create table kept (id serial primary key, v int, at timestamptz default now())"} {
			d.run("psql", "-h", "localhost", "-p", strconv.Itoa(d.port+3), "-d", map[bool]string{true: "postgres", false: "test"}[strings.HasPrefix(sql, "create database")], "-Xqc", sql)
		}
	}
	d.until("at first", 0, "insert into kept(v) select generate_series(1, 5)", anything)
	for _, node := range []int{1, 0} {
		data := fmt.Sprintf("%s/data%d", d.dir, node)
		d.must("pg_ctl", "-D", data, "-m", "immediate", "stop")
		d.until("without the node", 0, fmt.Sprintf("insert into kept(v) values (%d)", 10+node), anything)
		if alike || node == 0 {
			d.until("without the node", 0, "show pool_nodes", func(s string) bool { return d.status(s, node) == "down" })
		}
		pcp := func(name string) {
			d.t.Helper()
			if said := d.must("bash", "-c", fmt.Sprintf(`. ./bashrc.ports; "$PGPOOL_INSTALL_DIR/bin/%s" -w -h localhost -p "$PCP_PORT" -n %d`, name, node)); !strings.Contains(said, "Command Successful") {
				d.t.Fatal(said)
			}
		}
		if alike {
			pcp("pcp_recovery_node")
		} else {
			said, _ := d.run("bash", "-c", fmt.Sprintf(`. ./bashrc.ports; "$PGPOOL_INSTALL_DIR/bin/pcp_recovery_node" -w -h localhost -p "$PCP_PORT" -n %d`, node))
			if !strings.Contains(said, "recovery request is only allowed in replication and streaming replication modes.") {
				d.t.Error(said)
			}
			d.must("bash", "-c", "pg_ctl -w -D "+data+" start >/dev/null")
			pcp("pcp_attach_node")
		}
		d.until("with the node", 0, "show pool_nodes", func(s string) bool { return d.status(s, node) != "down" })
		d.until("with the node", 0, fmt.Sprintf("insert into kept(v) values (%d)", 20+node), anything)
		const sum = "select count(*), md5(string_agg(kept::text, ',' order by id)) from kept"
		if alike {
			want, err := d.ask(2, sum)
			if err != nil {
				d.t.Fatal(want)
			}
			d.until("the nodes are alike", 3, sum, func(s string) bool { return s == want })
		}
	}
	want := "11,20,21" // what was written on node 0, and once on node 1
	if alike {
		want = "10,11,20,21"
	} else {
		d.until("while node 0 was away", 3, "select string_agg(v::text, ',') from kept where v >= 10", func(s string) bool { return s == "10" })
	}
	d.until("at last", 2, "select string_agg(v::text, ',' order by v) from kept where v >= 10", func(s string) bool { return s == want })
}

// status is a node's in the answer to SHOW POOL_NODES.
func (d debianCluster) status(answer string, node int) string {
	for _, line := range strings.Split(answer, "\n") {
		if f := strings.Split(line, "|"); len(f) > 4 && f[0] == strconv.Itoa(node) {
			return f[3]
		}
	}
	return ""
}
