package pgpool_test

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"pgpool-go/pcp"
	"pgpool-go/pgpool"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/testcluster"
)

// group starts n pgpools with one watchdog over a cluster. Its leader's lease is
// long enough that it leads on while a busy machine stops it for a while.
func group(t *testing.T, c *testcluster.Cluster, n int, lines ...string) []*front {
	t.Helper()
	common := append(backends(c, 0, 1, 1), "use_watchdog = on", "wd_authkey = 'of this test'", "wd_leader_lease = 3000",
		"wd_heartbeat_keepalive = 1", "wd_heartbeat_deadtime = 10", "wd_interval = 1")
	for id := range n {
		common = append(common, fmt.Sprintf("hostname%d = '127.0.0.1'", id), fmt.Sprintf("wd_port%d = %d", id, freeBoth(t)),
			fmt.Sprintf("pgpool_port%d = %d", id, freePort(t)),
			fmt.Sprintf("heartbeat_hostname%d = '127.0.0.1'", id), fmt.Sprintf("heartbeat_port%d = %d", id, freeBoth(t)))
	}
	var all []*front
	for id := range n {
		f := serve(t, c, append(append(common[:len(common):len(common)], fmt.Sprintf("pgpool_node_id = %d", id)), lines...)...)
		f.account("admin", "secret")
		all = append(all, f)
	}
	return all
}

// freeBoth is a port that is free for TCP and UDP.
func freeBoth(t *testing.T) int {
	t.Helper()
	for {
		port := freePort(t)
		if c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			c.Close()
			return port
		}
	}
}

// watchdog asks once, over a connection of its own.
func (f *front) watchdog() (pcp.Watchdog, error) {
	f.t.Helper()
	c := f.client()
	defer c.Close()
	return c.Watchdog(pcp.All)
}

// leads waits until all of them agree on who leads.
func leads(t *testing.T, all ...*front) string {
	t.Helper()
	leader := ""
	eventually(t, "a leader of all", func() bool {
		for i, f := range all {
			w, err := f.watchdog()
			if err != nil || w.Quorum != 1 || i > 0 && w.LeaderName != leader || w.AliveNodes != len(all)-1 {
				return false
			}
			leader = w.LeaderName
		}
		return true
	})
	return leader
}

func TestAGroupOfPgpoolsSpeaksAsOne(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	all := group(t, c, 3)
	first := leads(t, all...)

	// shows waits until what is shown has all that is wanted; missing says what has not.
	shows := func(t *testing.T, missing func() string) {
		t.Helper()
		last := ""
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(last)
			}
		})
		eventually(t, "all is shown", func() bool { last = missing(); return last == "" })
	}
	t.Run("the original's tool shows it", func(t *testing.T) {
		for i, f := range all {
			tool := f.pcpTools()
			want := regexp.MustCompile(fmt.Sprintf(`(?s)^3 3 (YES|NO) %s 127\.0\.0\.1\n\n127\.0\.0\.1:\d+ Linux \S+ 127\.0\.0\.1 \d+ \d+ (4 LEADER|7 STANDBY) 0 MEMBER\n.*MEMBER\n.*MEMBER\n$`,
				regexp.QuoteMeta(first)))
			shows(t, func() string {
				if out := tool.run("watchdog_info"); !want.MatchString(out.stdout) || strings.Count(out.stdout, "LEADER") != 1 {
					return fmt.Sprintf("node %d:\n%s%s", i, out.stdout, out.stderr)
				}
				return ""
			})
			shows(t, func() string {
				out := tool.run("watchdog_info -v").stdout
				for _, line := range []string{"Total Nodes              : 3", "Alive Remote Nodes       : 2", "Nodes required for quorum: 2",
					"Quorum state             : QUORUM EXIST", "Delegate IP       : Not_Set", "Leader Node Name         : " + first} {
					if !strings.Contains(out, line+"\n") {
						return fmt.Sprintf("node %d: %q is missing in\n%s", i, line, out)
					}
				}
				return ""
			})
		}
	})
	t.Run("a client is shown it", func(t *testing.T) {
		p := all[1].plain()
		shows(t, func() string {
			if out := p.must("SHOW POOL_WATCHDOG"); strings.Count(out, "\n") != 2 || strings.Count(out, "|LEADER|") != 1 || !strings.HasPrefix(out, "1|127.0.0.1:") {
				return out
			}
			return ""
		})
	})
	detached := func(f *front, node int) bool {
		return f.Server.Snapshot().Nodes[node].Status == cluster.Down
	}
	t.Run("attach and detach from any of them", func(t *testing.T) {
		all[2].pcpTools().done("detach_node -n 1")
		for i, f := range all {
			eventually(t, fmt.Sprintf("pgpool %d detaches it", i), func() bool { return detached(f, 1) })
		}
		all[0].pcpTools().done("attach_node -n 1")
		for i, f := range all {
			eventually(t, fmt.Sprintf("pgpool %d attaches it", i), func() bool { return !detached(f, 1) })
		}
		all[1].pcpTools().done("detach_node -n 2")
	})
	t.Run("reload on all", func(t *testing.T) {
		all[0].pcpTools().done("reload_config -s cluster")
		for i, f := range all {
			reloads := func() int { return strings.Count(f.Log.String(), "reload config files.") }
			eventually(t, fmt.Sprintf("pgpool %d reloads", i), func() bool { return reloads() > 0 })
			if n := reloads(); n != 1 {
				t.Errorf("pgpool %d has reloaded %d times", i, n)
			}
		}
	})
	t.Run("another leads when the leader stops, and knows what was decided", func(t *testing.T) {
		first = leads(t, all...)
		var rest []*front
		for i, f := range all {
			if w, err := f.watchdog(); err != nil {
				t.Fatal(err)
			} else if w.Nodes[0].Name == first {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				f.Server.Shutdown(ctx, pgpool.Fast)
				rest = append(append(rest, all[:i]...), all[i+1:]...)
			}
		}
		eventually(t, "another leads", func() bool {
			w, err := rest[0].watchdog()
			return err == nil && w.Quorum == 1 && w.LeaderName != first && w.LeaderName != "Not Set"
		})
		for _, f := range rest {
			eventually(t, "it knows that a node is detached", func() bool { return detached(f, 2) })
		}
		all = rest
	})
	t.Run("stop all", func(t *testing.T) {
		all[0].pcpTools().done("stop_pgpool -s cluster -m fast")
		for _, f := range all {
			ended := make(chan struct{})
			go func() { f.Server.Wait(); close(ended) }()
			eventually(t, "its end", func() bool {
				select {
				case <-ended:
					return true
				default:
					return false
				}
			})
		}
	})
	t.Run("two of which one goes on", func(t *testing.T) { twoHalves(t, c) })
}

// twoHalves has two pgpools with the primary as tie-breaker lose each other.
func twoHalves(t *testing.T, c *testcluster.Cluster) {
	all := group(t, c, 2, "enable_consensus_with_half_votes = on", "wd_tie_breaker = primary")
	leads(t, all...)
	// leading is the one that leads when the other says that it does not; nil: no such one.
	leading := func() (one, other *front) {
		for i, f := range all {
			w, err := f.watchdog()
			o, err2 := all[1-i].watchdog()
			if err == nil && err2 == nil && w.LeaderName == w.Nodes[0].Name && w.Quorum == 0 && o.Quorum == -1 {
				return f, all[1-i]
			}
		}
		return nil, nil
	}
	all[1].reload("wd_authkey = 'another'") // twice another key, as below
	all[1].reload("wd_authkey = 'a third'")
	eventually(t, "one goes on with its half, the other says that it has no quorum", func() bool {
		one, other := leading()
		return one != nil && strings.Contains(other.Log.String(), "the tie-breaker does not stand by this node")
	})
	var leader, other *front
	eventually(t, "it decides", func() bool {
		if leader, other = leading(); leader == nil {
			return false
		}
		leader.pcpTools().done("detach_node -n 1")
		return leader.Server.Snapshot().Nodes[1].Detached
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	leader.Server.Shutdown(ctx, pgpool.Fast)
	eventually(t, "the other half goes on when the primary is free to stand by it", func() bool {
		w, err := other.watchdog()
		return err == nil && w.LeaderName == w.Nodes[0].Name && w.Quorum == 0
	})
}

func TestAGroupFailsOverOnceAndWithoutWhoIsCutOff(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	all := group(t, c, 3)
	script, notes := all[0].failoverScript()
	for _, f := range all {
		f.reload("failover_command = '" + script + " failover " + placeholders + "'")
		f.healthy()
	}
	first := leads(t, all...)
	// Whoever is cut off hears nothing of the others, nor they of it: twice another
	// key, since the one before the last is no longer known.
	var cut *front
	var rest []*front
	for _, f := range all {
		if w, err := f.watchdog(); err == nil && w.Nodes[0].Name != first && cut == nil {
			cut = f
		} else {
			rest = append(rest, f)
		}
	}
	cut.reload("wd_authkey = 'another'")
	cut.reload("wd_authkey = 'a third'")
	eventually(t, "it is alone", func() bool {
		w, err := cut.watchdog()
		return err == nil && w.Quorum == -1
	})

	all[0].Must(c.Nodes[0].Kill())
	for _, f := range rest {
		eventually(t, "the new primary", func() bool {
			s := f.Server.Snapshot()
			return s.Primary == 1 && s.Nodes[0].Status == cluster.Down && s.Nodes[0].Detached
		})
	}
	eventually(t, "who is cut off puts it into quarantine", func() bool {
		return cut.Server.Snapshot().Nodes[0].Status == cluster.Quarantine
	})
	all[0].noted(notes, 1, 1)

	cut.reload("wd_authkey = 'of this test'")
	eventually(t, "it follows when it is back", func() bool {
		s := cut.Server.Snapshot()
		return s.Primary == 1 && s.Nodes[0].Status == cluster.Down && s.Nodes[0].Detached
	})
	all[0].noted(notes, 1, 1)
}
