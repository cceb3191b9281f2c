package watchdog_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgpool-go/watchdog"
	"pgpool-go/watchdog/election"
)

func TestOneLeadsAndTheOthersTakeOverWhatItDecides(t *testing.T) {
	g := newGroup(t, 3)
	g.startAll()
	leader := g.leader()
	g.leader(0, 1, 2)
	standby := g.nodes[(leader+1)%3]
	eventually(t, "everybody knows everybody", func() bool {
		s := standby.Status()
		return len(s.Members) == 3 && s.Members[0].ID == standby.id && s.Members[1].ID < s.Members[2].ID &&
			s.Alive == 2 && s.Quorum == election.QuorumExists && s.Required == 2 && s.LeaderName == g.nodes[leader].Status().Members[0].Name
	})

	t.Run("an operator's word needs no votes", func(t *testing.T) {
		v, err := standby.Request(t.Context(), election.ActDetach, []int{0}, true)
		if err != nil || v != election.Granted {
			t.Fatalf("%v, %v", v, err)
		}
		for _, m := range g.nodes {
			eventually(t, "all take it over", func() bool {
				r, _ := m.Register()
				return r != nil && r.Backend(0).Down && r.Primary == 1
			})
		}
		if n := len(g.nodes[leader].host.ran); n != 1 {
			t.Errorf("the leader carried out %d decisions", n)
		}
	})
	t.Run("a failover needs two", func(t *testing.T) {
		other := g.nodes[(leader+2)%3]
		v, err := standby.Request(t.Context(), election.ActDetach, []int{2}, false)
		if err != nil || v != election.Building {
			t.Fatalf("%v, %v", v, err)
		}
		if v, err = other.Request(t.Context(), election.ActDetach, []int{2}, false); err != nil || v != election.Granted {
			t.Fatalf("%v, %v", v, err)
		}
	})
	t.Run("orders reach all others", func(t *testing.T) {
		if err := standby.Order(t.Context(), watchdog.OrderReload); err != nil {
			t.Fatal(err)
		}
		for _, m := range g.nodes {
			m.host.mu.Lock()
			if n := len(m.host.orders); n != 1 && m != standby || n != 0 && m == standby {
				t.Errorf("node %d had %d orders", m.id, n)
			}
			m.host.mu.Unlock()
		}
		if err := standby.Order(t.Context(), watchdog.OrderRotateLog); err == nil || strings.Count(err.Error(), "there is no log") != 2 {
			t.Errorf("%v", err)
		}
	})
	t.Run("garbage and strangers change nothing", func(t *testing.T) {
		before := g.nodes[leader].Status()
		for _, port := range []int{g.ports[leader][0], g.ports[leader][2]} {
			c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			for i := range 500 {
				c.Write([]byte(strings.Repeat(string(rune(i)), i%200)))
				c.Write(fmt.Appendf(nil, "pgpool-go release 1 %0*d", i, 0)) // as a guardian's letter begins
			}
			c.Close()
		}
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", g.ports[leader][0])); err == nil {
			c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
			c.Close()
		}
		eventually(t, "they are counted", func() bool { return g.nodes[leader].Status().Refused > before.Refused+50 })
		after := g.nodes[leader].Status()
		if after.Term != before.Term || after.Leader != leader || !after.Decisive {
			t.Errorf("%+v", after.View)
		}
		if n := strings.Count(g.nodes[leader].log.String(), "trouble on the network"); n > 2 {
			t.Errorf("%d lines in the log", n)
		}
	})
	t.Run("a clean stop hands over", func(t *testing.T) {
		began := time.Now()
		g.nodes[leader].stop()
		rest := []int{(leader + 1) % 3, (leader + 2) % 3}
		next := g.leader(rest...)
		t.Logf("a new leader %v after the stop began", time.Since(began).Round(time.Millisecond))
		eventually(t, "the state is told", func() bool {
			for _, m := range g.nodes[next].Status().Members {
				if m.ID == leader && m.State == election.ShownShutdown {
					return true
				}
			}
			return false
		})
		g.start(leader)
		if again := g.leader(); again != next {
			t.Errorf("node %d leads after node %d came back, before it was node %d", again, leader, next)
		}
		eventually(t, "it takes over the backends' states", func() bool {
			r, _ := g.nodes[leader].Register()
			return r != nil && r.Backend(0).Down && r.Backend(2).Down && r.Primary == 1
		})
	})
}

func TestAWrongKeyIsAStranger(t *testing.T) {
	g := newGroup(t, 3)
	g.start(0)
	g.start(1)
	g.start(2, "wd_authkey = 'another'")
	leader := g.leader(0, 1)
	eventually(t, "it is counted", func() bool { return g.nodes[leader].Status().Refused > 0 && g.nodes[2].Status().Refused > 0 })
	eventually(t, "it stays alone", func() bool {
		s := g.nodes[2].Status()
		return s.Leader == 2 && s.Caretaker && s.Quorum == election.QuorumAbsent && !s.Decisive
	})
	if v, err := g.nodes[2].Request(t.Context(), election.ActDetach, []int{1}, true); err != nil || v != election.NoQuorum {
		t.Errorf("%v, %v", v, err)
	}
	eventually(t, "it says so", func() bool { return strings.Contains(g.nodes[2].log.String(), "no quorum") })
	for _, m := range g.nodes[leader].Status().Members {
		if m.ID == 2 && m.State != election.ShownDead {
			t.Errorf("the stranger is shown as %v", m.State)
		}
	}
}

func TestDifferentSettingsAreNamed(t *testing.T) {
	g := newGroup(t, 2, "backend_hostname0 = 'a'", "backend_port0 = 5432", "max_pool = 4")
	g.start(0, "wd_priority = 2")
	g.start(1, "max_pool = 5", "failover_require_consensus = off", "backend_hostname0 = 'b'", "health_check_period0 = 7")
	leader := g.leader()
	there := "configuration of watchdog node \"" + g.nodes[1-leader].Status().Members[0].Name + "\" differs: "
	if leader != 0 {
		t.Fatalf("node %d leads", leader)
	}
	said := func(what string) int {
		return strings.Count(strings.ReplaceAll(g.nodes[leader].log.String(), "\\\"", "\""), what)
	}
	eventually(t, "they are compared", func() bool { return said("have been compared") == 1 })
	for _, what := range []string{"max_pool is \"5\" there, here it is \"4\"", "failover_require_consensus is \"off\" there, here it is \"on\"",
		"backend_hostname0 is \"b\" there, here it is \"a\"", "health_check_period0 is \"7\" there, here it is not set"} {
		if n := said(there + what); n != 1 {
			t.Errorf("%d times: %s", n, there+what)
		}
	}
	if n := said(" differs: "); n != 4 {
		t.Errorf("%d differences", n)
	}
}

func TestTheKeyIsChangedByReloads(t *testing.T) {
	g := newGroup(t, 2)
	g.startAll()
	leader := g.leader()
	term := g.nodes[leader].Status().Term
	for _, m := range g.nodes {
		m.Reload(g.config(m, "wd_authkey = 'a new one'"))
	}
	if v, err := g.nodes[1-leader].Request(t.Context(), election.ActDetach, []int{2}, true); err != nil || v != election.Granted {
		t.Fatalf("%v, %v", v, err)
	}
	if s := g.nodes[leader].Status(); s.Term != term {
		t.Errorf("term %v became %v", term, s.Term)
	}
}

func TestTheAddressIsHeldByTheLeaderOnly(t *testing.T) {
	g := newGroup(t, 2, "enable_consensus_with_half_votes = on")
	words := make([]string, 2)
	for id, m := range g.nodes {
		words[id] = filepath.Join(m.dir, "words")
		script := filepath.Join(m.dir, "say")
		os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\necho \"$@\" >> %s\n", words[id]), 0o755)
		g.start(id, "delegate_ip = '192.0.2.77'",
			"if_cmd_path = '"+m.dir+"'", "if_up_cmd = 'say up $_IP_$'", "if_down_cmd = 'say down $_IP_$'",
			"arping_cmd = '"+script+" arping $_IP_$'",
			"wd_escalation_command = '"+script+" escalation'", "wd_de_escalation_command = '"+script+" de-escalation'")
	}
	leader := g.leader()
	said := func(id int) string {
		b, _ := os.ReadFile(words[id])
		return string(b)
	}
	const upThenDown = "escalation\nup 192.0.2.77\narping 192.0.2.77\n"
	eventually(t, "the address is up", func() bool { return said(leader) == upThenDown })
	if said(1-leader) != "" {
		t.Errorf("the other node did something: %s", said(1-leader))
	}
	if s := g.nodes[leader].Status(); !s.Escalated || s.DelegateIP != "192.0.2.77" {
		t.Errorf("%+v", s)
	}
	g.nodes[leader].stop()
	if got := said(leader); got != upThenDown+"de-escalation\ndown 192.0.2.77\n" {
		t.Errorf("at the end:\n%s", got)
	}
	eventually(t, "the other has it", func() bool { return strings.Contains(said(1-leader), "up 192.0.2.77") })
}

func TestANodeThatForgetsIsAnotherVoter(t *testing.T) {
	g := newGroup(t, 3)
	g.startAll()
	leader := g.leader()
	eventually(t, "everybody counts by his disk", func() bool {
		r, _ := g.nodes[leader].Register()
		return r != nil && !slices.ContainsFunc(r.New.Members, func(v election.Voter) bool { return v.Incarnation == 0 })
	})
	lost := (leader + 1) % 3
	g.nodes[lost].stop()
	path := filepath.Join(g.nodes[lost].dir, fmt.Sprintf("watchdog_state.%d", lost))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-5] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	g.start(lost)
	if !strings.Contains(g.nodes[lost].log.String(), "damaged") {
		t.Error("it does not say that its memory is damaged")
	}
	leader = g.leader()
	eventually(t, "it counts again", func() bool {
		r, _ := g.nodes[leader].Register()
		if r == nil {
			return false
		}
		for _, v := range r.New.Members {
			if v.ID == lost && v.Incarnation != 0 {
				return g.nodes[lost].Status().Self == election.ShownStandby && g.nodes[leader].Status().Alive == 2
			}
		}
		return false
	})
}

func TestAStoppedGroupAnswers(t *testing.T) {
	g := newGroup(t, 1)
	g.start(0)
	g.leader()
	g.nodes[0].stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if v, err := g.nodes[0].Request(ctx, election.ActDetach, []int{1}, true); err == nil {
		t.Errorf("%v", v)
	}
}

// TestOutsideCheck has the original's wd_cli speak to us.
func TestOutsideCheck(t *testing.T) {
	tool, err := exec.LookPath("wd_cli")
	if err != nil {
		tool = "/usr/sbin/wd_cli"
	}
	if _, err := os.Stat(tool); err != nil {
		t.Fatalf("Debian's package pgpool2 is not installed: %v", err)
	}
	g := newGroup(t, 2, "wd_lifecheck_method = 'external'")
	g.startAll()
	leader := g.leader()
	other := 1 - leader
	run := func(args ...string) string {
		out, _ := exec.CommandContext(t.Context(), tool, append([]string{"-f", filepath.Join(g.nodes[leader].dir, "pgpool.conf"),
			"-p", fmt.Sprint(g.ports[leader][0])}, args...)...).CombinedOutput()
		return string(out)
	}
	eventually(t, "both are there", func() bool { return g.nodes[leader].Status().Alive == 1 })
	want := fmt.Sprintf("Total Watchdog nodes configured for lifecheck:    2\n%d 0 \"LEADER\"\"%s\"\"127.0.0.1\" %d %d\n", leader,
		g.nodes[leader].Status().LeaderName, g.ports[leader][0], g.ports[leader][1])
	got := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the tool last showed\n%s\nwanted\n%s", got, want)
		}
	})
	eventually(t, "the tool shows both", func() bool {
		got = run("-i", "-a", "-k", "of this test")
		return strings.HasPrefix(got, want) && strings.Contains(got, "\"STANDBY\"")
	})
	if got := run("-i", "-a", "-k", "wrong"); !strings.Contains(got, "no data") {
		t.Errorf("with a wrong key:\n%s", got)
	}
	lost := func() bool {
		for _, m := range g.nodes[leader].Status().Members {
			if m.ID == other {
				return m.State == election.ShownLost
			}
		}
		return false
	}
	said := run("-I", "DEAD", "-n", fmt.Sprint(other), "-k", "of this test", "-m", "hello")
	eventually(t, "it is dead: "+said, lost)
	run("-I", "ALIVE", "-n", fmt.Sprint(other), "-k", "of this test")
	eventually(t, "it lives", func() bool { return !lost() })
}
