package watchdog_test

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgpool-go/conf"
	"pgpool-go/watchdog"
	"pgpool-go/watchdog/election"
)

// runNode is a node in a process of its own, for tests that kill it. It ends with
// its standard input.
func runNode(path string) {
	c, _, err := conf.Load(conf.Paths{Conf: path})
	if err == nil {
		exe, _ := os.Executable()
		_, err = watchdog.Start(watchdog.Options{Config: c, Host: &host{}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			Guardian: []string{exe, watchdog.GuardianName}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// process starts a node in a process of its own, as the last words of a command.
func (g *group) process(id int, within []string, lines ...string) *exec.Cmd {
	g.t.Helper()
	g.config(g.nodes[id], lines...)
	exe, err := os.Executable()
	if err != nil {
		g.t.Fatal(err)
	}
	words := append(within[:len(within):len(within)], exe)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "WATCHDOG_TEST_NODE="+filepath.Join(g.nodes[id].dir, "pgpool.conf"))
	log := &record{}
	cmd.Stderr = log
	if _, err := cmd.StdinPipe(); err != nil {
		g.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if g.t.Failed() {
			g.t.Logf("log of process %d:\n%s", id, log)
		}
	})
	return cmd
}

func TestALeaderThatIsFrozenOrKilledLosesTheAddressFirst(t *testing.T) {
	g := newGroup(t, 3, "wd_leader_lease = 0", "wd_heartbeat_keepalive = 2", "delegate_ip = '192.0.2.78'", "arping_cmd = ''")
	words := filepath.Join(g.nodes[0].dir, "words")
	lines := func(id int) []string {
		script := filepath.Join(g.nodes[id].dir, "say")
		if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\necho %d $1 >> %s\n", id, words), 0o755); err != nil {
			t.Fatal(err)
		}
		return []string{"if_up_cmd = '" + script + " up'", "if_down_cmd = '" + script + " down'"}
	}
	// Of higher priority, so that it is the next when another makes room.
	proc := g.process(0, nil, append(lines(0), "wd_priority = 5")...)
	g.start(1, lines(1)...)
	g.start(2, lines(2)...)
	said := func() string {
		b, _ := os.ReadFile(words)
		return string(b)
	}
	// leads waits until a node leads that is, or is not, the one in the process, and
	// both others know that all three count; it returns how long that took.
	leads := func(first bool) time.Duration {
		t.Helper()
		began := time.Now()
		eventually(t, "the right leader", func() bool {
			a, b := g.nodes[1].Status(), g.nodes[2].Status()
			if first && a.Leader > 0 && a.Leader == b.Leader && bound(a) && bound(b) { // the next may lead then, with what this one wrote
				g.nodes[a.Leader].Resign("this test wants another")
			}
			return a.Leader >= 0 && a.Leader == b.Leader && !a.Caretaker && (a.Leader == 0) == first && a.Quorum == election.QuorumExists &&
				bound(a) && bound(b)
		})
		return time.Since(began)
	}
	// inTurn checks that nobody brings the address up before it is down elsewhere.
	inTurn := func() {
		t.Helper()
		holder := ""
		for l := range strings.Lines(said()) {
			node, what, _ := strings.Cut(strings.TrimSpace(l), " ")
			if what == "up" && holder != "" {
				t.Fatalf("node %s brings the address up while node %s has it:\n%s", node, holder, said())
			}
			if holder = node; what == "down" {
				holder = ""
			}
		}
	}
	up := func(id int) {
		t.Helper()
		eventually(t, "the address is up", func() bool { return strings.HasSuffix(said(), fmt.Sprintf("%d up\n", id)) })
		inTurn()
	}

	leads(true)
	up(0)
	proc.Process.Signal(syscall.SIGSTOP)
	took := leads(false)
	up(g.nodes[1].Status().Leader)
	t.Logf("after SIGSTOP: a new leader after %v", took.Round(10*time.Millisecond))
	term := g.nodes[1].Status().Term
	proc.Process.Signal(syscall.SIGCONT)
	eventually(t, "the thawed one follows", func() bool {
		s := g.nodes[1].Status()
		for _, m := range s.Members {
			if m.ID == 0 && m.State == election.ShownStandby {
				return s.Leader > 0 && s.Term == term
			}
		}
		return false
	})
	inTurn()

	leads(true)
	up(0)
	proc.Process.Kill()
	took = leads(false)
	up(g.nodes[1].Status().Leader)
	t.Logf("after SIGKILL: a new leader after %v", took.Round(10*time.Millisecond))
}
