package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
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

// TestSetup: pgpool_setup makes a cluster that starts and shows its nodes; when
// the primary is killed a standby is promoted, the other follows, and the dead
// node comes back by recovery; it shuts down without leaving anything.
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
	port := consecutivePorts(t, 5)
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

	said := c.must(bin("pgpool_setup"), "-n", "3", "-s", "-r", "-p", strconv.Itoa(port))
	for _, want := range []string{" 0       | 127.0.0.1 | ", "To start the whole system, use " + c.dir + "/startall.",
		fmt.Sprintf("#1 port is %d\n#2 port is %d\n#3 port is %d\npgpool port is %d\npcp port is %d\n", port+2, port+3, port+4, port, port+1)} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in\n%s", want, said)
		}
	}
	gone := func() {
		t.Helper()
		for i := range 5 {
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

	c.must("bash", "-c", "printf 'health_check_period = 1\nhealth_check_max_retries = 1\n' >>etc/pgpool.conf")
	c.must(c.dir + "/startall")
	c.must(c.dir + "/pgpool_reload")
	// nodes waits until the given node is the primary, and so many others stream from it.
	nodes := func(what string, primary, streaming int) {
		t.Helper()
		var rows string
		for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			rows, _ = c.run("bash", "-c", `. ./bashrc.ports; "$PGBIN/psql" -h 127.0.0.1 -p "$PGPOOL_PORT" -d test -XAtqc 'SHOW POOL_NODES'`)
			leads := regexp.MustCompile(fmt.Sprintf(`(?m)^%d\|.*\|up\|up\|[0-9.]+\|primary\|primary\|`, primary))
			if leads.MatchString(rows) && len(regexp.MustCompile(`\|up\|up\|.*\|streaming\|`).FindAllString(rows, -1)) == streaming {
				return
			}
		}
		t.Fatalf("%s:\n%s", what, rows)
	}
	nodes("at the start", 0, 2)

	c.must("bash", "-c", "kill -9 $(head -n 1 data0/postmaster.pid)")
	nodes("after the loss of the primary", 1, 1)
	calls := c.must("cat", "log/failover.log")
	want := fmt.Sprintf(" failover 0 127.0.0.1 %d %[2]s/data0 1 127.0.0.1 0 0 %d %[2]s/data1 127.0.0.1 %[1]d\n", port+2, c.dir, port+3)
	if strings.Count(calls, " failover ") != 1 || !strings.Contains(calls, want) {
		t.Errorf("calls:\n%swant %s", calls, want)
	}
	c.must("bash", "-c", `. ./bashrc.ports; "$PGPOOL_BIN/pcp_recovery_node" -w -h 127.0.0.1 -p "$PCP_PORT" 0 | grep Successful`)
	nodes("after its recovery", 1, 2)
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
