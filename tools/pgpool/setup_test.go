package main

import (
	"bytes"
	"context"
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
	ctx, cancel := context.WithTimeout(u.t.Context(), 2*time.Minute)
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

// TestSetup: pgpool_setup makes a cluster that starts, shows its nodes, gets
// a lost standby back, and shuts down without leaving anything.
func TestSetup(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	u := unprivileged{t: t}
	u.dir = strings.TrimSpace(u.must("mktemp", "-d"))
	t.Cleanup(func() { os.RemoveAll(u.dir) })
	u.install()
	bin := func(name string) string { return filepath.Join(u.dir, "bin", name) }
	u.env = []string{"PGPOOL_INSTALL_DIR=" + u.dir, "PGSOCKET_DIR=" + u.dir}
	c := u
	c.dir = filepath.Join(u.dir, "c")
	u.must("mkdir", c.dir)
	port := consecutivePorts(t, 4)
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(c.dir + "/log/*.log")
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", log, text[max(0, len(text)-2000):])
			}
			c.run(c.dir + "/shutdownall")
		}
	})

	said := c.must(bin("pgpool_setup"), "-n", "2", "-s", "-r", "-p", strconv.Itoa(port))
	for _, want := range []string{" 0       | 127.0.0.1 | ", "To start the whole system, use " + c.dir + "/startall.",
		fmt.Sprintf("#1 port is %d\n#2 port is %d\npgpool port is %d\npcp port is %d\n", port+2, port+3, port, port+1)} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in\n%s", want, said)
		}
	}
	gone := func() {
		t.Helper()
		for i := range 4 {
			if nc, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port+i)); err == nil {
				nc.Close()
				t.Errorf("port %d is still listened on", port+i)
			}
		}
		if left := runningBelow(c.dir); left != "" {
			t.Errorf("still running: %s", left)
		}
	}
	gone()
	if text, err := c.run(bin("pgpool_setup")); err == nil || !strings.Contains(text, "not empty") {
		t.Errorf("in a directory that is not empty: %v\n%s", err, text)
	}

	c.must(c.dir + "/startall")
	c.must(c.dir + "/pgpool_reload")
	pool := func() string {
		return c.must("bash", "-c", `. ./bashrc.ports; "$PGBIN/psql" -h 127.0.0.1 -p "$PGPOOL_PORT" -d test -XAtqc 'SHOW POOL_NODES'`)
	}
	up := func(rows string) bool {
		return strings.Count(rows, "|up|up|") == 2 && strings.Contains(rows, "|streaming|")
	}
	var rows string
	for end := time.Now().Add(time.Minute); !up(rows) && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		rows = pool()
	}
	if !up(rows) {
		t.Fatalf("nodes:\n%s", rows)
	}

	c.must("bash", "-c", `. ./bashrc.ports
pcp() { "$PGPOOL_BIN/pcp_$1" -w -h 127.0.0.1 -p "$PCP_PORT" "${@:2}"; }
pcp detach_node 1 && "$PGBIN/pg_ctl" -D data1 -m immediate stop && rm -r data1 && pcp recovery_node 1 | grep Successful`)
	for end := time.Now().Add(time.Minute); !up(rows) && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		rows = pool()
	}
	if !up(rows) {
		t.Fatalf("nodes after the recovery of one:\n%s", rows)
	}
	c.must(c.dir + "/shutdownall")
	gone()
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
		{"-m r", `mode "r" is not built yet`}, {"-n 0", "-n must be a number from 1 to 128"}, {"-p x", "-p must be a number"},
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
