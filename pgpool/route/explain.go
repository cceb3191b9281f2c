package route

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"pgpool-go/conf"
	"pgpool-go/parser"
)

// Evidence is one line of what a decision rests on.
type Evidence struct{ What, Value string }

// Explain decides like Route and says what it looked at: for EXPLAIN ROUTING.
func Explain(in Input) (Decision, []Evidence) {
	d := Route(&in)
	var list []Evidence
	say := func(what, format string, args ...any) {
		if value := fmt.Sprintf(format, args...); value != "" {
			list = append(list, Evidence{what, value})
		}
	}
	c, r, v, s := in.Cluster, in.Rules, in.Verdict, in.Session
	switch {
	case d.Node == Self:
		say("node", "none: pgpool answers")
	case d.Node < 0:
		say("node", "none can be used")
	case d.Node == c.Primary:
		say("node", "%d, the primary", d.Node)
	default:
		say("node", "%d, a standby", d.Node)
	}
	say("reason", "%s", d.Reason)
	say("because", "%s", d.Text())
	if d.Everywhere {
		say("effect", "also on every other node that the session reads")
	}
	if d.Write {
		say("counts as", "a write")
	}
	say("class", "%s", v.Class)
	say("relations", "%s", joined(v.Relations))
	say("functions", "%s", joined(v.Functions))
	if f := in.Facts; f != nil {
		say("may write", "%s", f.Volatile)
		say("system catalog", "%s", f.Catalog)
		say("unlogged", "%s", f.Unlogged)
		say("foreign", "%s", f.Foreign)
		say("behind views", "%s", joined(f.Base))
	} else if Needs(v, r) {
		say("catalog", "not looked up")
	}
	var temps []parser.Name
	for _, n := range v.Relations {
		if s.Temp(n) {
			temps = append(temps, n)
		}
	}
	say("temporary", "%s", joined(temps))
	if len(r.ReadOnlyFunctions) > 0 {
		say("functions judged by", "read_only_function_list")
	} else if len(r.WriteFunctions) > 0 {
		say("functions judged by", "write_function_list")
	}
	if len(r.PrimaryPatterns) > 0 {
		say("primary_routing_query_pattern_list", "%s", [2]string{"no match", "matches"}[b2i(r.pattern(in.Text))])
	}
	say("transaction", "%s", s.transaction())
	say("pgpool.target", "%s", [...]string{"", "auto", "primary", "standby"}[s.now.vars.target])
	say("load_balance_mode", "%s", [2]string{"off", "on"}[b2i(r.Balance)])
	say("disable_load_balance_on_write", "%s", r.OnWrite)
	if p := s.Preference; p.Found {
		target := [...]string{conf.ToNode: strconv.Itoa(p.Node), conf.ToPrimary: "primary", conf.ToStandby: "standby"}[p.Target]
		say(p.List, "%s, with weight %g", target, p.Weight)
	}
	if s.ReadNode >= 0 {
		say("load balance node", "%d", s.ReadNode)
	}
	for id := range c.Nodes {
		n := &c.Nodes[id]
		words := []string{n.Status.String(), "weight " + strconv.FormatFloat(n.Weight, 'g', -1, 64)}
		if id == c.Primary {
			words = append(words, "primary")
		} else {
			words = append(words, "standby", fmt.Sprintf("%d bytes and %v behind", n.Lag, n.LagTime))
			if n.ReplicationState != "" {
				words = append(words, n.ReplicationState)
			}
			if n.Usable() && lags(c, r, id) {
				words = append(words, "too far behind")
			}
		}
		if n.Usable() && !readable(c, id) {
			words = append(words, "not read")
		}
		say("node "+strconv.Itoa(id), "%s", strings.Join(words, ", "))
	}
	return d, list
}

// transaction says in words what is remembered of the open transaction.
func (s *Session) transaction() string {
	t := &s.now.tx
	if !t.open {
		return "none"
	}
	words := []string{"open"}
	if t.isolation != parser.IsolationDefault {
		words = append(words, t.isolation.String())
	}
	for _, x := range []struct {
		is   bool
		word string
	}{
		{t.failed, "failed"}, {t.mark.wrote, "has written"}, {t.mark.any, "any table may be written"}, {t.inMulti, "begun in a multi-statement string"},
		{t.imported, "with an imported snapshot"},
	} {
		if x.is {
			words = append(words, x.word)
		}
	}
	if len(t.mark.tables) > 0 {
		words = append(words, "tables written: "+strings.Join(t.mark.tables, " "))
	}
	if t.node >= 0 {
		words = append(words, "reads on node "+strconv.Itoa(t.node))
	}
	return strings.Join(words, ", ")
}

func joined(names []parser.Name) string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = n.String()
	}
	return strings.Join(list, ", ")
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Counters count decisions by reason, for SHOW POOL_ROUTING. They are safe for
// all sessions at once.
type Counters struct{ n [NumReasons]atomic.Uint64 }

// Note counts a decision.
func (c *Counters) Note(d Decision) { c.n[d.Reason].Add(1) }

// Count is how often a reason has decided.
func (c *Counters) Count(r Reason) uint64 { return c.n[r].Load() }
