package watchdog

import (
	"context"
	"fmt"

	"pgpool-go/watchdog/election"
)

// narrator remembers what the log was told last.
type narrator struct {
	told   bool
	view   election.View
	states map[int]election.Shown
}

// narrate tells the log what has changed, in the words people and scripts look
// for.
func (w *Watchdog) narrate(v election.View) {
	n := &w.narrator
	if !n.told {
		n.told, n.states = true, make(map[int]election.Shown)
		n.view = election.View{Self: election.ShownDead, Leader: -1, Quorum: election.NoLeader}
	}
	say := func(format string, args ...any) {
		w.log.Log(context.Background(), levelLog, fmt.Sprintf(format, args...))
	}
	old := n.view
	n.view = v
	if v.Self != old.Self {
		say("watchdog node state changed from [%v] to [%v]", old.Self, v.Self)
	}
	if old.Leader >= 0 && v.Leader < 0 {
		w.log.Log(context.Background(), levelLog, "watchdog cluster has lost the coordinator node", "detail", v.Why)
	}
	for _, m := range v.Members {
		was, known := n.states[m.ID]
		if n.states[m.ID] = m.State; m.ID == w.self.id || !known || was == m.State {
			continue
		}
		name := w.nodes[m.ID].name()
		switch m.State {
		case election.ShownLost:
			say("remote node \"%s\" is lost", name)
		case election.ShownShutdown:
			say("remote node \"%s\" is shutting down", name)
		case election.ShownStandby:
			if v.Self == election.ShownLeader {
				say("adding watchdog node \"%s\" to the standby list", name)
			}
		}
	}
	switch {
	case v.Leader == old.Leader && v.Caretaker == old.Caretaker && (v.Self == election.ShownLeader) == (old.Self == election.ShownLeader):
	case v.Self == election.ShownLeader && v.Caretaker:
		w.log.Warn("I am the cluster leader node but there is no quorum: no failover and no delegate IP until enough nodes are there", "detail", v.Why)
	case v.Self == election.ShownLeader:
		w.log.Log(context.Background(), levelLog, "I am the cluster leader node", "detail", fmt.Sprintf("term %v: %s", v.Term, v.Why))
	case v.Self == election.ShownStandby && v.Leader >= 0:
		say("successfully joined the watchdog cluster as standby node")
	}
	switch {
	case v.Quorum >= election.QuorumOnEdge && old.Quorum < election.QuorumOnEdge:
		say("quorum found")
	case v.Quorum < election.QuorumOnEdge && old.Quorum >= election.QuorumOnEdge:
		say("We have lost the quorum")
	}
	if v.Register == nil {
		return
	}
	for _, r := range v.Register.Removed {
		if old.Register == nil || old.Register.Membership(r.ID) != r.Why {
			say("revoking the membership of [%s] node:\"%s\" [node_id:%d]", r.Why, w.nodes[r.ID].name(), r.ID)
		}
	}
}
