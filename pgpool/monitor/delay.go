package monitor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
)

// round collects one answer per node, so that positions that are compared
// were asked for at the same time.
type round struct {
	began   time.Time
	waiting map[int]bool
	answers map[int]outcome
}

// begin starts a round of all nodes that can be expected to answer.
func (m *Monitor) begin(s *cluster.Snapshot) round {
	r := round{began: time.Now(), waiting: make(map[int]bool), answers: make(map[int]outcome)}
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Used() && n.Reach != cluster.Unreachable {
			r.waiting[i] = true
		}
	}
	return r
}

// add takes an answer and reports whether it was the last one.
func (r *round) add(out outcome) bool {
	if !r.waiting[out.node] || out.asked.Before(r.began) {
		return false
	}
	r.answers[out.node] = out
	delete(r.waiting, out.node)
	return len(r.waiting) == 0
}

// standstill is where a standby stands that is behind, and since when.
type standstill struct {
	position uint64
	since    time.Time
}

// measure makes delays of a round and submits them. The answers of a round
// that is not complete are good as far as they go.
func (m *Monitor) measure(r *round) {
	s := m.opts.Cluster.Now()
	if s.Mode != conf.StreamingReplication {
		return
	}
	primary, ok := r.primary(s.Primary)
	if !ok {
		return
	}
	m.seen.note(primary)
	var delays []cluster.Delay
	for i := range s.Nodes {
		out, ok := r.answers[i]
		if !ok || out.err != nil || out.facts.Role != cluster.Standby {
			continue
		}
		d := cluster.Delay{Node: i}
		d.Bytes = int64(primary.facts.Position - out.facts.Position)
		if d.Bytes < 0 || out.facts.Position == 0 || primary.facts.Position == 0 {
			d.Bytes = 0
		}
		lag, timed := time.Duration(0), false
		if from := matching(primary.detail.senders, s.Nodes[i].ApplicationName, out.detail); from != nil {
			d.State, d.SyncState = from.state, from.syncState
			lag, timed = from.replayLag, from.timed
		}
		d.Time = m.behind(i, d.Bytes, lag, timed, out)
		delays = append(delays, d)
		if m.opts.Replayed != nil {
			if t, ok := m.seen.through(out.facts); ok {
				m.opts.Replayed(i, t)
			}
		}
		m.logDelay(d, primary.node)
	}
	if len(delays) > 0 {
		m.opts.Cluster.Submit(cluster.Measured{Delays: delays})
	}
}

// primary is the answer of the primary: of the one that is believed to be it,
// else of the one on the newest timeline.
func (r *round) primary(believed int) (best outcome, ok bool) {
	for _, out := range r.answers {
		switch {
		case out.err != nil || out.facts.Role != cluster.Primary:
		case out.node == believed:
			return out, true
		case !ok || out.facts.Timeline > best.facts.Timeline:
			best, ok = out, true
		}
	}
	return best, ok
}

// behind is a standby's delay in time. One that has replayed everything has
// none. The primary measures the delay of what it hears back from the standby,
// so while nothing is heard, time passes on our clock.
func (m *Monitor) behind(node int, bytes int64, lag time.Duration, timed bool, out outcome) time.Duration {
	was, seen := m.still[node]
	if bytes == 0 {
		delete(m.still, node)
		return 0
	}
	if !seen || was.position != out.facts.Position {
		was = standstill{out.facts.Position, out.asked}
		m.still[node] = was
	}
	if !timed {
		lag = out.detail.behind
	}
	return max(lag, out.asked.Sub(was.since))
}

// matching finds a standby among the primary's senders: by the name that
// backend_application_name gives it, else by what the standby itself says.
// Several that cannot be told apart will do as long as they agree.
func matching(senders []sender, name string, d detail) *sender {
	pick := func(ok func(*sender) bool) []sender {
		return slices.DeleteFunc(slices.Clone(senders), func(s sender) bool { return !ok(&s) })
	}
	var found []sender
	if name != "" {
		found = pick(func(s *sender) bool { return s.application == name })
	} else {
		if d.application != "" {
			found = pick(func(s *sender) bool { return s.application == d.application })
		}
		if len(found) != 1 && len(d.addrs) > 0 {
			near := pick(func(s *sender) bool {
				return slices.Contains(d.addrs, s.address) && (d.application == "" || s.application == d.application)
			})
			if len(near) > 0 {
				found = near
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	one := found[0]
	for _, s := range found[1:] {
		if s.state != one.state || s.syncState != one.syncState {
			return nil
		}
		one.replayLag, one.timed = max(one.replayLag, s.replayLag), one.timed && s.timed
	}
	return &one
}

// logDelay writes what log_standby_delay asks for, in the original's words.
func (m *Monitor) logDelay(d cluster.Delay, primary int) {
	c := m.opts.Config()
	over := c.DelayThreshold > 0 && d.Bytes > c.DelayThreshold
	text := fmt.Sprintf("Replication of node:%d is behind %d bytes from the primary server (node:%d)", d.Node, d.Bytes, primary)
	if c.DelayThresholdByTime > 0 {
		over = d.Time > c.DelayThresholdByTime
		unit := "second"
		if d.Time >= 2*time.Second {
			unit = "seconds"
		}
		text = fmt.Sprintf("Replication of node:%d is behind %.6f %s from the primary server (node:%d)", d.Node, d.Time.Seconds(), unit, primary)
	}
	switch c.LogStandbyDelay {
	case conf.StandbyDelayNone:
		return
	case conf.StandbyDelayIfOverThreshold:
		if !over {
			return
		}
	case conf.StandbyDelayAlways:
		if d.Bytes == 0 {
			return
		}
	}
	m.log.LogAttrs(context.Background(), eventlog.Log, text)
}
