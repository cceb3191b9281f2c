package watchdog_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgpool-go/watchdog"
	"pgpool-go/watchdog/election"
)

// shown is a node's state and membership, as another sees it.
func (m *member) shown(id int) (election.Shown, election.Membership) {
	for _, n := range m.Status().Members {
		if n.ID == id {
			return n.State, n.Membership
		}
	}
	return -1, -1
}

func (m *member) lost() string {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	return m.host.lost
}

func TestLifecheckByQueries(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 2, "wd_lifecheck_method = 'query'", "wd_life_point = 2")
	doors := make([]net.Listener, 2) // the pgpools, as far as anybody can see
	open := func(id int) {
		t.Helper()
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", g.ports[id][1]))
		if err != nil {
			t.Fatal(err)
		}
		doors[id] = ln
	}
	open(0)
	open(1)
	t.Cleanup(func() { doors[0].Close(); doors[1].Close() })
	g.start(0, "wd_priority = 5")
	g.start(1)
	leader := g.leader()
	other := 1 - leader
	eventually(t, "both were heard of", func() bool { return strings.Contains(g.nodes[leader].log.String(), "lifecheck started") })
	doors[other].Close()
	eventually(t, "who does not answer is lost", func() bool {
		state, _ := g.nodes[leader].shown(other)
		return state == election.ShownLost
	})
	eventually(t, "and knows it", func() bool { return strings.Contains(g.nodes[other].lost(), "2 queries failed") })
	open(other)
	eventually(t, "who answers again is there again", func() bool {
		state, _ := g.nodes[leader].shown(other)
		return state == election.ShownStandby
	})
	if why := g.nodes[leader].lost(); why != "" {
		t.Errorf("the leader is lost: %s", why)
	}
}

// TestTrustedServers: with one of them standing by it, half of the members acts; a
// node that reaches none of them gives up.
func TestTrustedServers(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 2, "enable_consensus_with_half_votes = on", "wd_tie_breaker = 'trusted_servers'",
		"trusted_servers = 'first, second'", "trusted_server_command = 'knock -x %h'")
	m := g.nodes[0]
	there := filepath.Join(m.dir, "second.answers")
	knock := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s/knocks\n[ -e %[1]s/$2.answers ]\n", m.dir)
	if err := os.WriteFile(filepath.Join(m.dir, "knock"), []byte(knock), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.start(0, "ping_path = '"+m.dir+"'")
	g.leader(0)
	if s := m.Status(); s.Quorum != election.QuorumOnEdge || !s.Decisive {
		t.Errorf("%+v", s.View)
	}
	knocks, _ := os.ReadFile(filepath.Join(m.dir, "knocks"))
	for _, want := range []string{"-x first\n", "-x second\n"} {
		if !strings.Contains(string(knocks), want) {
			t.Errorf("%q is missing in %q", want, knocks)
		}
	}
	if why := m.lost(); why != "" {
		t.Errorf("lost: %s", why)
	}
	os.Remove(there)
	eventually(t, "it is lost", func() bool { return m.lost() == "none of the trusted servers answers: first, second" })
	eventually(t, "it does not act", func() bool { s := m.Status(); return !s.Decisive && s.Quorum < election.QuorumOnEdge })
}

func TestWhoIsGoneIsRemoved(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 4, "wd_remove_shutdown_nodes = on", "wd_lost_node_removal_timeout = 1", "wd_no_show_node_removal_timeout = 1",
		"wd_heartbeat_deadtime = 3")
	g.start(0, "wd_priority = 5")
	killed := g.process(1, nil)
	g.start(2)
	leader := g.nodes[0]
	revoked := func(id int, as election.Membership) {
		t.Helper()
		eventually(t, fmt.Sprintf("node %d is %v", id, as), func() bool {
			if s := leader.Status(); s.Leader > 0 && bound(s) {
				g.nodes[2].Resign("this test wants another")
			}
			_, membership := leader.shown(id)
			return membership == as
		})
	}
	revoked(3, election.RevokedNoShow)
	eventually(t, "node 0 leads", func() bool { return leader.Status().Decisive && bound(leader.Status()) })
	g.nodes[2].stop()
	revoked(2, election.RevokedShutdown)
	killed.Process.Kill()
	revoked(1, election.RevokedLost)
	if s := leader.Status(); !s.Decisive || s.Quorum != election.QuorumExists || s.Required != 1 {
		t.Errorf("who is left alone does not lead: %+v", s.View)
	}
	for _, why := range []string{"REVOKED-NO-SHOW", "REVOKED-SHUTDOWN", "REVOKED-LOST"} {
		eventually(t, "a line says "+why, func() bool { return strings.Count(leader.log.String(), "revoking the membership of ["+why+"]") == 1 })
	}
	g.start(3)
	eventually(t, "who comes is a member again", func() bool {
		state, membership := leader.shown(3)
		return state == election.ShownStandby && membership == election.Member
	})
}

// TestOperatorRemovesWhoIsOff: most of a group is lost at once, and the one that is
// left goes on when it is told that they are off.
func TestOperatorRemovesWhoIsOff(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	g.start(0)
	first, second := g.process(1, nil), g.process(2, nil)
	m := g.nodes[0]
	eventually(t, "all are there", func() bool { s := m.Status(); return s.Leader >= 0 && !s.Caretaker && bound(s) })
	remove := func(authkey string, ids ...int) string {
		t.Helper()
		c, err := net.Dial("unix", watchdog.IPCPath(m.dir, g.ports[0][0]))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		body, _ := json.Marshal(watchdog.IPCRemoval{NodeIDs: ids, IPCAuthKey: authkey})
		watchdog.WriteIPC(c, watchdog.IPCRemove, body)
		kind, reply, err := watchdog.ReadIPC(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(kind) + string(reply)
	}
	for _, c := range []struct {
		authkey string
		ids     []int
		want    string
	}{
		{"wrong", []int{1, 2}, "6"}, {"of this test", nil, "6"}, {"of this test", []int{0, 1}, "6node 0 is this one"},
		{"of this test", []int{7}, "6node 7 is not configured"}, {"of this test", []int{1, 2}, "6node 1 is not off"},
	} {
		if got := remove(c.authkey, c.ids...); !strings.HasPrefix(got, c.want) || c.want == "6" && got != "6" {
			t.Errorf("removal of %v: %q", c.ids, got)
		}
	}
	first.Process.Kill()
	second.Process.Kill()
	eventually(t, "it has no quorum", func() bool { s := m.Status(); return s.Caretaker && s.Leader == 0 })
	if got := remove("of this test", 1, 2); got != "7" {
		t.Errorf("removal of nodes that are off: %q", got)
	}
	if s := m.Status(); !s.Decisive || s.Quorum != election.QuorumExists {
		t.Errorf("%+v", s.View)
	}
}

// TestNamespacesLostNetwork: a node whose watched interfaces are down is lost, and
// does not start.
func TestNamespacesLostNetwork(t *testing.T) {
	t.Parallel()
	l := newLab(t, "n", 1)
	g := newGroup(t, 1)
	g.lines = []string{"use_watchdog = on", "wd_authkey = 'of this test'", "wd_interval = 30", "wd_monitoring_interfaces_list = 'eth0'",
		"hostname0 = '" + l.ip(0) + "'", "wd_port0 = 9000", "pgpool_port0 = 9999"}
	within := []string{"ip", "netns", "exec", l.ns(0)}
	p := g.process(0, within)
	said := p.Stderr.(*record)
	eventually(t, "it leads", func() bool { return strings.Contains(said.String(), "I am the cluster leader node") })
	l.cable(0, false)
	began := time.Now()
	eventually(t, "it knows that it is lost", func() bool { return strings.Contains(said.String(), "system has lost the network") })
	if took := time.Since(began); took > 5*time.Second { // wd_interval is longer
		t.Errorf("that took %v", took)
	}
	p.Process.Kill()
	p.Wait()
	p = g.process(0, within)
	if p.Wait() == nil || !strings.Contains(p.Stderr.(*record).String(), "none of the interfaces in wd_monitoring_interfaces_list is up: eth0") {
		t.Error("it starts without a network")
	}
}
