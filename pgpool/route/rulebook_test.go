package route

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgpool-go/parser"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/golden"
)

// TestRuleBook plays testdata/routing/*.txt. A case is one client session:
//
//	conf   parameter value       over the defaults of the corpus: statement-level choice, weights 0 1 1
//	node   1 standby lag=5000    over a healthy primary 0 and standbys 1 and 2
//	client db=x user=y app=z     and settings of the start-up packet
//	random 0.7                   for draws; 0.25 unless said
//	sql    ...                   simple protocol; ext: extended; fail: the server refuses it
//	pipe   ...                   extended, no Sync after it; sync ends the pipeline
//	sql    _ ...                 with white space in front
//	parse  name ...              Parse and Sync; bind name: Bind, Execute, Sync
//	explain ...                  what Explain says of a statement
//	temp   a b                   what catalog.OwnTemp finds; recent t: written by another session
//
// Each statement is answered by one line: node, reason, and what follows from it.
func TestRuleBook(t *testing.T) {
	golden.Run(t, "routing", func(t *testing.T, c golden.Case) string { return playCase(t, c) })
}

func playCase(t *testing.T, c golden.Case) string {
	overrides, start := map[string]string{}, map[string]string{}
	db, user, app := "postgres", "postgres", ""
	random, recent := 0.25, ""
	var nodes []string
	var steps []golden.Field
	for _, f := range c.Fields() {
		key, rest, _ := strings.Cut(f.Value, " ")
		switch f.Key {
		case "conf":
			overrides[key] = strings.TrimSpace(rest)
		case "node":
			nodes = append(nodes, f.Value)
		case "client":
			for _, kv := range strings.Fields(f.Value) {
				k, v, _ := strings.Cut(kv, "=")
				switch k {
				case "db":
					db = v
				case "user":
					user = v
				case "app":
					app = v
				default:
					start[k] = strings.ReplaceAll(v, "_", " ")
				}
			}
		default:
			steps = append(steps, f)
		}
	}
	rules, cfg := rulesFor(t, overrides)
	rules.BalanceMulti = c.Field("option") == "balance multi"
	rules.BalanceExplain = c.Field("option") == "balance explain"
	snap := snapshotFor(cfg)
	for _, n := range nodes {
		changeNode(t, snap, n)
	}
	s := NewSession(db, user, app, start)
	s.Preference = rules.Preference(db, user, app)
	prepared := map[string]*Prepared{}
	home := map[string]int{}
	var out strings.Builder
	status := func() byte {
		switch {
		case s.TransactionFailed():
			return 'E'
		case s.InTransaction():
			return 'T'
		}
		return 'I'
	}
	piped := 0
	for _, f := range steps {
		in := Input{Text: []byte(f.Value), Session: s, Cluster: snap, Rules: rules, Random: random, Recent: recent}
		if text, ok := strings.CutPrefix(f.Value, "_"); ok { // stands for space in front
			in.Text = []byte(text)
		}
		name, text, _ := strings.Cut(f.Value, " ")
		switch f.Key {
		case "option":
			continue
		case "random":
			random, _ = strconv.ParseFloat(f.Value, 64)
			continue
		case "recent":
			recent = f.Value
			continue
		case "temp":
			s.OwnTemp(strings.Fields(f.Value))
			continue
		case "change":
			changeNode(t, snap, f.Value)
			continue
		case "sync":
			for range piped {
				s.Done()
			}
			piped = 0
			s.Ready(status())
			continue
		case "parse":
			in.Text, in.Extended = []byte(text), true
		case "bind":
			in.Text, in.Extended, in.Home = prepared[name].Text, true, home[name]+1
		case "ext", "pipe":
			in.Extended = true
		case "sql", "fail", "explain":
		default:
			t.Fatalf("what is %q?", f.Key)
		}
		in.Verdict = parse().Classify(in.Text)
		if Needs(in.Verdict, rules) {
			in.Facts = factsOf(in.Verdict)
		}
		if c := in.Verdict.Class; c == parser.Execute || c == parser.Deallocate {
			in.Prepared = prepared[in.Verdict.Name]
		}
		if f.Key == "explain" {
			d, evidence := Explain(in)
			if d != Route(&in) {
				t.Error("explained otherwise than decided")
			}
			for _, e := range evidence {
				fmt.Fprintf(&out, "%s: %s\n", e.What, e.Value)
			}
			continue
		}
		d := Route(&in)
		fmt.Fprintln(&out, tell(d))
		v := in.Verdict
		if f.Key == "parse" {
			prepared[name], home[name] = &Prepared{Verdict: v, Facts: factsOf(v), Text: in.Text, Node: -1}, d.Node
			continue
		}
		s.Send(v, d)
		switch f.Key {
		case "pipe":
			piped++
			continue
		case "fail":
			s.Failed(0)
		default:
			s.Done()
		}
		switch v.Class {
		case parser.Prepare:
			prepared[v.Name] = &Prepared{Verdict: v.Inner, Facts: factsOf(v.Inner), Node: d.Node}
		case parser.Deallocate:
			delete(prepared, v.Name)
		}
		if e := s.Ready(status()); e.Catalog {
			fmt.Fprintln(&out, "   the catalog has changed")
		}
	}
	return out.String()
}

// tell writes a decision down.
func tell(d Decision) string {
	node := strconv.Itoa(d.Node)
	switch d.Node {
	case Self:
		node = "-"
	case NoNode:
		node = "?"
	}
	s := node + "  " + d.Text()
	if d.Everywhere {
		s += ", everywhere"
	}
	if d.Write {
		s += ", counts as a write"
	}
	return s
}

// changeNode reads "1 standby lag=5000 weight=2 down".
func changeNode(t *testing.T, s *cluster.Snapshot, text string) {
	words := strings.Fields(text)
	id, err := strconv.Atoi(words[0])
	if err != nil || id >= len(s.Nodes) {
		t.Fatalf("node %q", text)
	}
	n := &s.Nodes[id]
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "down":
			n.Status = cluster.Down
			if s.Primary == id {
				s.Primary = -1
			}
		case "up":
			n.Status = cluster.Up
		case "primary":
			s.Primary = id
		case "standby":
		case "lag":
			n.Lag, _ = strconv.ParseInt(value, 10, 64)
		case "late":
			n.LagTime, _ = time.ParseDuration(value)
		case "weight":
			n.Weight, _ = strconv.ParseFloat(value, 64)
		case "state":
			n.ReplicationState = value
		default:
			t.Fatalf("node %q: what is %q?", text, w)
		}
	}
}
