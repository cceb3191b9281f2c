package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgpool-go/conf"
	"pgpool-go/tools/golden"
)

// settings makes a configuration of n nodes on ports 5001, 5002, … with more
// lines of pgpool.conf.
func settings(t testing.TB, n int, lines ...string) *conf.Config {
	t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "backend_hostname%d = 'h'\nbackend_port%d = %d\nbackend_weight%d = 1\n", i, i, 5001+i, i)
	}
	b.WriteString(strings.Join(lines, "\n") + "\n")
	path := filepath.Join(t.TempDir(), "pgpool.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "pgpool_node_id"), []byte("0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := conf.Load(conf.Paths{Conf: path})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestReduce runs testdata/failover: "nodes" and "conf" lines, then events;
// the answer has, per event, what is to be done and what is believed.
func TestReduce(t *testing.T) {
	golden.Run(t, "failover", func(t *testing.T, c golden.Case) string {
		nodes, _ := strconv.Atoi(c.Field("nodes"))
		var lines []string
		var cfg *conf.Config
		var s Snapshot
		var out strings.Builder
		now := time.Unix(0, 0)
		for _, f := range c.Fields() {
			switch f.Key {
			case "nodes":
				continue
			case "conf":
				lines = append(lines, f.Value)
				continue
			}
			if cfg == nil {
				cfg = settings(t, nodes, lines...)
				s = First(Rules{cfg, now})
			}
			now = now.Add(time.Second)
			var ev Event
			if f.Key == "later" {
				d, err := time.ParseDuration(f.Value)
				if err != nil {
					t.Fatal(err)
				}
				now = now.Add(d)
				continue
			}
			if f.Key == "reload" {
				lines = append(lines, f.Value)
				cfg = settings(t, nodes, lines...)
				ev = ConfigChanged{cfg}
			} else {
				ev = parseEvent(t, f.Key, strings.Fields(f.Value))
			}
			var effects []Effect
			s, effects = Reduce(s, ev, Rules{cfg, now})
			fmt.Fprintf(&out, "%s %s\n", f.Key, f.Value)
			for _, e := range effects {
				fmt.Fprintf(&out, "    %s\n", describe(e))
			}
			fmt.Fprintf(&out, "  %s\n", state(&s))
		}
		return out.String()
	})
}

// parseEvent reads one event: "probed 0 primary sys=a tl=2 pos=9",
// "failed 1 connection refused", "suspected 1", "detach 1 reason" …
func parseEvent(t *testing.T, key string, words []string) Event {
	t.Helper()
	node := 0
	if key != "status" && key != "delays" && key != "agreed" {
		n, err := strconv.Atoi(words[0])
		if err != nil {
			t.Fatalf("%s %v: no node", key, words)
		}
		node = n
	}
	switch key {
	case "probed":
		f := Facts{}
		for _, w := range words[1:] {
			name, value, _ := strings.Cut(w, "=")
			n, _ := strconv.Atoi(value)
			switch name {
			case "primary":
				f.Role = Primary
			case "standby":
				f.Role = Standby
			case "refused":
			case "sys":
				f.SystemID = value
			case "tl":
				f.Timeline = uint32(n)
			case "pos":
				f.Position = uint64(n)
			default:
				t.Fatalf("fact %q", w)
			}
		}
		return Probed{node, f}
	case "failed":
		return ProbeFailed{Node: node, Cause: strings.Join(words[1:], " ")}
	case "stopping":
		return ProbeFailed{Node: node, Cause: "the database system is shutting down", Stopping: true}
	case "unhealthy":
		return HealthFailed{node, strings.Join(words[1:], " ")}
	case "ended":
		ev := Ended{Job: uint64(node)}
		if len(words) > 1 {
			ev.Err = errors.New(strings.Join(words[1:], " "))
		}
		return ev
	case "switchover":
		return Promote{node, "pcp", true}
	case "suspected":
		return Suspected{node, errors.New("reset")}
	case "connected":
		return Connected{node}
	case "attach":
		return Attach{node, "pcp"}
	case "detach":
		return Detach{node, "pcp", "asked for"}
	case "promote":
		return Promote{node, "pcp", false}
	case "status":
		return StatusRead{words}
	case "agreed": // the nodes that the group has detached
		var agreed Agreed
		for i := range 3 {
			agreed.Nodes = append(agreed.Nodes, AgreedNode{Node: i, Detached: slices.Contains(words, strconv.Itoa(i))})
		}
		return agreed
	case "delays":
		var m Measured
		for _, w := range words {
			id, bytes, _ := strings.Cut(w, "=")
			n, _ := strconv.Atoi(id)
			b, _ := strconv.Atoi(bytes)
			m.Delays = append(m.Delays, Delay{Node: n, Bytes: int64(b), State: "streaming", SyncState: "async"})
		}
		return m
	}
	t.Fatalf("event %q", key)
	return nil
}

func describe(e Effect) string {
	switch e := e.(type) {
	case Report:
		text := map[bool]string{true: "LOG ", false: "WARNING "}[e.Level == levelLog] + e.Text
		if e.Detail != "" {
			text += " / " + strings.ReplaceAll(e.Detail, "\n", " / ")
		}
		return text
	case ProbeNow:
		return fmt.Sprintf("probe %d", e.Node)
	case DrainPool:
		return fmt.Sprintf("drain %d", e.Node)
	case RunCommand:
		return fmt.Sprintf("run job %d: %s", e.Job, e.Name)
	case AskVote:
		return fmt.Sprintf("ask for a vote on %d", e.Node)
	case PromoteBest:
		return fmt.Sprintf("promote job %d: best of %v", e.Job, e.Nodes)
	case Repoint:
		return fmt.Sprintf("repoint job %d: node %d to %d", e.Job, e.Node, e.Primary)
	case WriteStatus:
		return "write status"
	}
	return fmt.Sprint(e)
}

func state(s *Snapshot) string {
	primary := "none"
	if s.Primary >= 0 {
		primary = strconv.Itoa(s.Primary)
	}
	if s.Assumed {
		primary += "?"
	}
	words := []string{fmt.Sprintf("%d: primary %s", s.Epoch, primary)}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		w := fmt.Sprintf("%d %s", i, n.Status)
		if n.Used() {
			w += " " + s.PgRoleName(i)
		}
		if n.Lag > 0 {
			w += fmt.Sprintf(" lag %d", n.Lag)
		}
		if n.Detached {
			w += " detached"
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}
