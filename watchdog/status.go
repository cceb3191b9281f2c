package watchdog

import (
	"slices"
	"time"

	"pgpool-go/watchdog/election"
)

// Status is what this node can say of the group at one moment.
type Status struct {
	election.View
	Members    []Member // this node first, then by id
	DelegateIP string   // Not_Set: none
	LeaderName string   // Not Set: no leader
	LeaderHost string
	Alive      int           // members besides the leader that it counts on
	Refused    uint64        // messages of strangers, since the start
	Promise    time.Duration // times of the protocol follow from it
}

// Member is one node of the group.
type Member struct {
	election.MemberView
	Name           string
	Host           string
	WdPort         int
	PgpoolPort     int
	LifecheckReady bool
}

// Status tells what this node knows now.
func (w *Watchdog) Status() Status {
	var v election.View
	if s := w.state.Load(); s != nil {
		v = s.View(now())
	} else {
		v = election.View{Self: election.ShownLoading, Leader: -1, Quorum: election.NoLeader, Why: "start"}
		for _, id := range w.ids() {
			m := election.MemberView{ID: id, Contact: -1}
			if id == w.self.id {
				m.State, m.Priority = v.Self, w.config.Load().WdPriority
			}
			v.Members = append(v.Members, m)
		}
	}
	s := Status{View: v, DelegateIP: notSet, LeaderName: "Not Set", LeaderHost: "Not Set", Refused: w.strangers.refused(), Promise: w.times.Promise}
	if ip := w.config.Load().DelegateIp; ip != "" {
		s.DelegateIP = ip
	}
	for _, m := range v.Members {
		n := w.nodes[m.ID]
		s.Members = append(s.Members, Member{MemberView: m, Name: n.name(), Host: n.host, WdPort: n.wdPort, PgpoolPort: n.pgpoolPort,
			LifecheckReady: w.life.ready()})
		if v.Leader >= 0 && m.ID != v.Leader && m.Membership == election.Member && m.State == election.ShownStandby {
			s.Alive++
		}
	}
	slices.SortStableFunc(s.Members, func(a, b Member) int {
		switch {
		case a.ID == w.self.id:
			return -1
		case b.ID == w.self.id:
			return 1
		}
		return a.ID - b.ID
	})
	if n := w.nodes[v.Leader]; n != nil {
		s.LeaderName, s.LeaderHost = n.name(), n.host
	}
	return s
}
