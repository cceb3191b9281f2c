package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgpool-go/pcp"
	"pgpool-go/tools/testcluster"
)

// TestPairs puts the same commands to Debian's server and to ours, in front of
// one cluster, with Debian's tools and with ours: four times the same output and
// exit code, whatever the state of the nodes.
func TestPairs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	theirs, ours := startOriginal(t, c), startOurs(t, c)
	servers := []*originalServer{theirs, ours}
	p := pcpPlace(t, "*:*:*:secret")
	wrong := pcpPlace(t, "*:*:*:wrong")

	both := func(what string, ok func([]pcp.Node) bool) {
		t.Helper()
		for _, s := range servers {
			s.await(what, ok)
		}
	}
	// do gives a command to each server, by its own kind's tool.
	do := func(line string) {
		t.Helper()
		tool, args := theirs.args(line)
		want := p.theirs(t, tool, args...)
		for end := time.Now().Add(20 * time.Second); strings.Contains(want.stderr, "at the moment") && time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
			want = p.theirs(t, tool, args...) // it is still busy with an earlier one
		}
		tool, args = ours.args(line)
		same(t, p.ours(t, tool, args...), want)
	}
	ask := func(state string, p place, lines ...string) {
		for _, line := range lines {
			t.Run(state+" "+line, func(t *testing.T) {
				tool, args := theirs.args(line)
				_, there := ours.args(line)
				all := func() (want said, got [2]said) {
					return measureless(p.theirs(t, tool, args...)), [2]said{measureless(p.theirs(t, tool, there...)), measureless(p.ours(t, tool, there...))}
				}
				want, got := all()
				for end := time.Now().Add(10 * time.Second); (want != got[0] || want != got[1]) && time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
					want, got = all() // each looks at the nodes at its own pace
				}
				same(t, got[0], want)
				same(t, got[1], want)
			})
		}
	}
	streaming := func(nodes []pcp.Node) bool {
		return nodes[1].ReplicationState == "streaming" && nodes[1].PgStatus == "up" && nodes[0].PgStatus == "up"
	}

	both("streaming standby", streaming)
	ask("waiting", p, "pcp_node_info", "pcp_node_info -v 1", "pcp_health_check_stats 0")
	ask("all well", p,
		"pcp_node_count", "pcp_node_count -v", "pcp_node_count -d", "pcp_node_info -a", "pcp_node_info 0", "pcp_node_info -d -n 1",
		"pcp_node_info 2", "pcp_node_info 7", "pcp_node_info -n 127", "pcp_node_info 128", "pcp_node_info abc", "pcp_node_info -n -1",
		"pcp_health_check_stats 1", "pcp_health_check_stats -v 1", "pcp_health_check_stats -d 0", "pcp_health_check_stats 2", "pcp_health_check_stats 9", "pcp_health_check_stats 128",
		"pcp_proc_info 999999", "pcp_proc_info -P 999999 -d", "pcp_watchdog_info", "pcp_watchdog_info -v -n 0", "pcp_watchdog_info 3",
		"pcp_detach_node 7", "pcp_detach_node -g 7", "pcp_detach_node 128", "pcp_detach_node", "pcp_attach_node 7", "pcp_attach_node 128",
		"pcp_promote_node 0", "pcp_promote_node -s 0", "pcp_promote_node -g 0", "pcp_promote_node 7", "pcp_promote_node -s 128",
		"pcp_recovery_node 0", "pcp_recovery_node 1", "pcp_recovery_node 7", "pcp_recovery_node 128", "pcp_recovery_node -d 1",
		"pcp_reload_config", "pcp_reload_config -s cluster", "pcp_reload_config -d -s l", "pcp_stop_pgpool -m banana")
	ask("wrong password", wrong, "pcp_node_count", "pcp_node_info -d", "pcp_recovery_node 1")
	ask("no such user", p, "pcp_node_count -U nosuch", "pcp_stop_pgpool -U nosuch")

	do("pcp_detach_node 1")
	both("detached node", status(1, pcp.Down))
	ask("node 1 detached", p, "pcp_node_info", "pcp_node_info -v 1", "pcp_detach_node 1", "pcp_detach_node -g -d 1", "pcp_promote_node -s 1", "pcp_health_check_stats -v 1")
	c.Must(c.Nodes[1].Stop(testcluster.Fast))
	both("server that is down", func(nodes []pcp.Node) bool { return nodes[1].PgStatus == "down" })
	// Not compared: node_info, in which the original shows the replication state
	// that was, and recovery_node, whose error it cuts in the middle.
	ask("node 1 stopped", p, "pcp_detach_node 1", "pcp_promote_node -s 1")
	c.Must(c.Nodes[1].Start())
	both("server that is back", func(nodes []pcp.Node) bool { return nodes[1].PgStatus == "up" })
	do("pcp_attach_node 1")
	both("attached node", func(nodes []pcp.Node) bool { return nodes[1].Status != pcp.Down && streaming(nodes) })
	ask("node 1 attached", p, "pcp_node_info", "pcp_attach_node 1")
	do("pcp_stop_pgpool -m fast")
	for _, s := range servers {
		s.ended()
	}
	ask("nobody there", p, "pcp_node_count", "pcp_stop_pgpool", "pcp_node_info -v")
}

var (
	// The original warns clients of its empty pool_passwd at times; it skips a health check of a node that is down.
	passing = regexp.MustCompile(`(?m)^DEBUG: recv: tos="N".*\nBACKEND WARNING.*\n|^Last Skip Health Check .*\n`)
	length  = regexp.MustCompile(`len=[0-9]+`)
	figure  = regexp.MustCompile(`[0-9]+(\.[0-9]{6})?`)
)

// measureless blots out what passes: times, counts and durations.
func measureless(s said) said {
	s = timeless(s)
	s.stdout = length.ReplaceAllString(passing.ReplaceAllString(s.stdout, ""), "len=N")
	if strings.Contains(s.stdout, " Health Check") || strings.Contains(s.stdout, "TIME TIME") { // health check statistics
		s.stdout = figure.ReplaceAllString(s.stdout, "N")
	}
	return s
}
