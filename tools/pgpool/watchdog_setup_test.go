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

// TestWatchdogSetup: watchdog_setup makes pgpools that form a group over the same
// servers, start and stop together, and leave nothing behind.
func TestWatchdogSetup(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	u := unprivileged{t: t}
	u.dir = strings.TrimSpace(u.must("mktemp", "-d"))
	t.Cleanup(func() { os.RemoveAll(u.dir) })
	u.install()
	u.env = []string{"PGPOOL_INSTALL_DIR=" + u.dir, "PGSOCKET_DIR=" + u.dir}
	c := u
	c.dir = filepath.Join(u.dir, "c")
	u.must("mkdir", c.dir)
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(c.dir + "/*/log/*.log")
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", log, text[max(0, len(text)-2000):])
			}
			c.run(c.dir + "/shutdownall")
		}
	})
	port := consecutivePorts(t, 14)
	setup := filepath.Join(u.dir, "bin", "watchdog_setup")
	said := c.must(setup, "-wn", "3", "-n", "2", "-wp", strconv.Itoa(port), "-pg", strconv.Itoa(port+12))
	for _, want := range []string{"============= setting up pgpool 2 =============",
		fmt.Sprintf("#1 port is %d\n#2 port is %d\npgpool port is %d\npcp port is %d\n", port+12, port+13, port+8, port+9)} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in\n%s", want, said)
		}
	}
	if text, err := c.run(setup); err == nil || !strings.Contains(text, "not empty") {
		t.Errorf("in a directory that is not empty: %v\n%s", err, text)
	}

	c.must(c.dir + "/startall")
	for id := range 3 {
		var rows string
		whole := func() bool {
			rows, _ = c.run("bash", "-c", fmt.Sprintf(`. pgpool%d/bashrc.ports; for show in WATCHDOG NODES; do "$PGBIN/psql" -h 127.0.0.1 -p "$PGPOOL_PORT" -d test -XAtqc "SHOW POOL_$show"; done`, id))
			return strings.HasPrefix(rows, strconv.Itoa(id)+"|") && strings.Count(rows, "|LEADER|") == 1 && strings.Count(rows, "|STANDBY|") == 2 &&
				strings.Count(rows, "|up|up|") == 2
		}
		for end := time.Now().Add(90 * time.Second); !whole(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("pgpool %d shows\n%s", id, rows)
			}
		}
	}
	c.must(c.dir + "/shutdownall")
	if left := runningBelow(c.dir); left != "" {
		t.Errorf("still running: %s", left)
	}
}

func TestWatchdogSetupRefuses(t *testing.T) {
	p := place{dir: t.TempDir()}
	for _, tt := range []struct{ args, want string }{
		{"--help", "Usage:\n"}, {"-wn", "Usage:\n"}, {"-wn 0", "-wn must be a number from 1 to 128"}, {"-wp x", "-wp must be a number"},
	} {
		if got := p.ours(t, "watchdog_setup", strings.Fields(tt.args)...); got.exit != 1 || got.stdout != "" || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%s: %+v", tt.args, got)
		}
	}
	if left, _ := os.ReadDir(p.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
