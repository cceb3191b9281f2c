package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgpool-go/tools/testcluster"
)

// unprivileged runs programs as the user that PostgreSQL runs as, in dir.
type unprivileged struct {
	t   *testing.T
	dir string
	env []string
}

func (u unprivileged) run(name string, args ...string) (string, error) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.t.Context()), 2*time.Minute) // in a Cleanup, too
	defer cancel()
	cmd, err := testcluster.Command(ctx, name, args...)
	if err != nil {
		u.t.Fatal(err)
	}
	out, err := os.CreateTemp("", "") // a file, so that daemons are not waited for
	if err != nil {
		u.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = u.dir, out, out
	cmd.Env = append(cmd.Env, u.env...)
	err = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	return string(text), err
}

func (u unprivileged) must(name string, args ...string) string {
	u.t.Helper()
	text, err := u.run(name, args...)
	if err != nil {
		u.t.Fatalf("%s %q: %v\n%s", name, args, err, text)
	}
	return text
}

// install puts this program under all its names into dir/bin.
func (u unprivileged) install() {
	u.t.Helper()
	self, err := os.Executable()
	if err != nil {
		u.t.Fatal(err)
	}
	bin := filepath.Join(u.dir, "bin")
	u.must("mkdir", bin)
	from, err := os.Open(self)
	if err != nil {
		u.t.Fatal(err)
	}
	defer from.Close()
	program := filepath.Join(bin, "program")
	to, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = io.Copy(to, from)
		to.Close()
	}
	if err != nil {
		u.t.Fatal(err)
	}
	for _, t := range tools() {
		text := fmt.Sprintf("#!/bin/sh\n%s=%s GORACE=atexit_sleep_ms=0 exec %s \"$@\"\n", asTool, t.name, program)
		if err := os.WriteFile(filepath.Join(bin, t.name), []byte(text), 0o755); err != nil {
			u.t.Fatal(err)
		}
	}
}

// consecutivePorts finds so many free ports in a row.
func consecutivePorts(t *testing.T, count int) int {
	t.Helper()
	for range 100 {
		first, err := testcluster.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		free := 1
		for ; free < count && first+free < 65000; free++ {
			ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(first+free))
			if err != nil {
				break
			}
			ln.Close()
		}
		if free == count {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row", count)
	return 0
}

// newStage has pgpool_setup make a cluster of three nodes.
func newStage(t *testing.T) *stage {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers")
	}
	u := unprivileged{t: t}
	u.dir = strings.TrimSpace(u.must("mktemp", "-d"))
	t.Cleanup(func() { os.RemoveAll(u.dir) })
	u.install()
	u.env = []string{"PGPOOL_INSTALL_DIR=" + u.dir, "PGSOCKET_DIR=" + u.dir}
	s := &stage{unprivileged: u, nodes: 3, port: consecutivePorts(t, 5), user: strings.TrimSpace(u.must("id", "-un"))}
	s.dir = filepath.Join(u.dir, "c")
	s.env = append(s.env, "PCPPASSFILE="+s.dir+"/pcppass")
	u.must("mkdir", s.dir)
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(s.dir + "/log/*.log")
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", log, text[max(0, len(text)-*logTail):])
			}
			s.run(s.dir + "/shutdownall")
		}
	})
	said := s.must(s.tool("pgpool_setup"), "-n", "3", "-s", "-r", "-p", strconv.Itoa(s.port))
	for _, want := range []string{" 0       | 127.0.0.1 | ", "To start the whole system, use " + s.dir + "/startall.",
		fmt.Sprintf("#1 port is %d\n#2 port is %d\n#3 port is %d\npgpool port is %d\npcp port is %d\n", s.pg(0), s.pg(1), s.pg(2), s.port, s.port+1)} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in\n%s", want, said)
		}
	}
	s.gone()
	s.must("bash", "-c", "cat >>etc/pgpool.conf <<'END'\n"+impatient+"END")
	s.must("bash", "-c", "for d in data?; do cat >>$d/postgresql.conf <<'END'\n"+synchronous+"END\ndone")
	return s
}

var logTail = flag.Int("log-tail", 2000, "of a cluster's logs, show so many bytes when a test fails")

// gone looks that nothing is left of a cluster but its files.
func (s *stage) gone() {
	s.t.Helper()
	for i := range s.nodes + 2 {
		if nc, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.port+i)); err == nil {
			nc.Close()
			s.t.Errorf("port %d is still listened on", s.port+i)
		}
	}
	if left := runningBelow(s.dir); left != "" {
		s.t.Errorf("still running: %s", left)
	}
}

// TestSetup: pgpool_setup makes a cluster that starts and shows its nodes; when
// the primary is killed a standby is promoted, the other follows, and the dead
// node comes back by recovery; it shuts down without leaving anything.
func TestSetup(t *testing.T) {
	s := newStage(t)
	if text, err := s.run(s.tool("pgpool_setup")); err == nil || !strings.Contains(text, "not empty") {
		t.Errorf("in a directory that is not empty: %v\n%s", err, text)
	}
	s.must(s.dir + "/startall")
	s.must(s.dir + "/pgpool_reload")
	s.prepare()
	s.play(&scenarios[0], 4, 4, 2)
	s.must(s.dir + "/shutdownall")
	s.gone()
}

// runningBelow names processes that have to do with a directory.
func runningBelow(dir string) string {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var found []string
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if strings.Contains(string(text), dir) {
			found = append(found, string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
		}
	}
	return strings.Join(found, "\n")
}

func TestSetupRefuses(t *testing.T) {
	p := place{dir: t.TempDir()}
	for _, tt := range []struct{ args, want string }{
		{"--help", "Usage:\n"}, {"-o", "Usage:\n"}, {"-n", "Usage:\n"},
		{"-m y", `mode "y" is none of s, r, i, l and n`}, {"-n 0", "-n must be a number from 1 to 128"}, {"-p x", "-p must be a number"},
		{"-p 11000 -pg 11001", "the servers' ports from 11001 are also pgpool's"},
	} {
		if got := p.ours(t, "pgpool_setup", strings.Fields(tt.args)...); got.exit != 1 || got.stdout != "" || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%s: %+v", tt.args, got)
		}
	}
	if left, _ := os.ReadDir(p.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSetupModes: clusters whose servers do not stream.
func TestSetupModes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	u := unprivileged{t: t}
	u.dir = strings.TrimSpace(u.must("mktemp", "-d"))
	t.Cleanup(func() { os.RemoveAll(u.dir) })
	u.install()
	u.env = []string{"PGPOOL_INSTALL_DIR=" + u.dir, "PGSOCKET_DIR=" + u.dir}
	for _, tt := range []struct{ letter, mode, copied string }{
		{"n", "raw", ""},
		{"l", "logical_replication", "1"},
		{"r", "native_replication", "1"},
		{"i", "snapshot_isolation", "1"},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			c := u
			c.t, c.dir = t, filepath.Join(u.dir, tt.letter)
			u.must("mkdir", c.dir)
			t.Cleanup(func() { c.run(c.dir + "/shutdownall") })
			port := consecutivePorts(t, 4)
			said, err := c.run(filepath.Join(u.dir, "bin", "pgpool_setup"), "-m", tt.letter, "-p", strconv.Itoa(port), "--no-stop")
			if err != nil || !strings.Contains(said, " main ") || !strings.Contains(said, " replica ") || !strings.Contains(said, "pgpool-II setting for "+setupModes[tt.letter].Title+" mode is done.") {
				t.Fatalf("%v: %s", err, said)
			}
			psql := func(port int, sql string) string {
				return strings.TrimSpace(c.must("bash", "-c", fmt.Sprintf(`. ./bashrc.ports; "$PGBIN/psql" -h 127.0.0.1 -p %d -d test -XAtqc "%s"`, port, sql)))
			}
			if got := psql(port, "PGPOOL SHOW backend_clustering_mode"); got != tt.mode {
				t.Errorf("mode %s", got)
			}
			for i := range 2 {
				psql(port+2+i, "create table copied (v int primary key)")
			}
			if tt.letter == "l" {
				psql(port+3, "alter subscription node1 refresh publication")
			}
			psql(port, "insert into copied values (1)")
			got := ""
			for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if got = psql(port+3, "select v from copied"); got == tt.copied {
					break
				}
			}
			if got != tt.copied || psql(port+2, "select v from copied") != "1" {
				t.Errorf("node 1 has %q", got)
			}
			if !setupModes[tt.letter].Replicates() {
				return
			}
			// The lost node is made anew: what was written since, and while it is copied, is there.
			with := `. ./bashrc.ports; cd data1; set -e; `
			c.must("bash", "-c", with+`"$PGBIN/pg_ctl" -D . -m immediate stop >/dev/null; "$PGPOOL_BIN/pcp_detach_node" -w -h 127.0.0.1 -p "$PCP_PORT" -n 1`)
			psql(port, "insert into copied values (2)")
			c.must("bash", "-c", `. ./bashrc.ports; "$PGPOOL_BIN/pcp_recovery_node" -w -h 127.0.0.1 -p "$PCP_PORT" -n 1 | grep Successful`)
			psql(port, "insert into copied values (3)")
			for i := range 2 {
				if got := psql(port+2+i, "select string_agg(v::text, ' ' order by v) from copied"); got != "1 2 3" {
					t.Errorf("node %d has %q", i, got)
				}
			}
		})
	}
}
