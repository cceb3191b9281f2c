package cluster

import "log/slog"

// Where sessions write to all nodes (native replication, snapshot isolation), a node
// that was left out of a single write holds other data than the rest. So one that
// does not answer stays in use, and sessions wait for it, until it is failed over;
// and a node that was detached never comes back by itself, but by online recovery
// or when an operator attaches it. The last node stays: nobody else has its data,
// and no other could be ahead of it.

// diverged detaches a node that holds other data than the rest.
func (t *turn) diverged(ev Diverged) {
	if n := t.used(ev.Node); n != nil && !n.Detached {
		if t.failover(n, ev.Cause, byReplicas); t.rules.Config.UseWatchdog && n.Detached {
			t.do(AskVote{Node: n.ID, Reason: ev.Cause}) // the others must not use it either
		}
	}
}

// lastReplica tells that a node is not failed over, being the last one that is
// written to.
func (t *turn) lastReplica(n *Node, by string) bool {
	if !t.next.Mode.Replicates() || by != byHealth && by != bySessions && by != byReplicas && by != "failover_on_backend_shutdown" {
		return false
	}
	for i := range t.next.Nodes {
		if o := &t.next.Nodes[i]; o.ID != n.ID && o.Used() && !o.Detached {
			return false
		}
	}
	t.say(slog.LevelWarn, "it is the last one with the latest data", "node %d (%s) stays in use although it has failed", n.ID, n.Addr())
	n.Suspect, n.Quarantined = false, false
	return true
}
