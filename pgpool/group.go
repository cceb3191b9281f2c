package pgpool

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"pgpool-go/pcp"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/watchdog"
	"pgpool-go/watchdog/election"
)

// joinGroup starts the watchdog, and waits a moment for what the group has decided
// about the backends: a leader's word counts more than the own status file.
func (s *Server) joinGroup(ctx, background context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	w, err := watchdog.Start(watchdog.Options{
		Config: s.config.Load().Config, Host: member{s}, Log: s.log.With(slog.String("app", "watchdog")),
		Guardian: []string{exe, watchdog.GuardianName},
	})
	if err != nil {
		return err
	}
	s.group.Store(w)
	s.work.Go(func() { s.publish(background, w) })
	patience := time.NewTimer(joinPatience)
	defer patience.Stop()
	tick := time.NewTicker(100 * time.Millisecond) // a group without a quorum does not tell
	defer tick.Stop()
	for {
		r, over := w.Register()
		if r != nil || w.Status().Caretaker {
			return nil
		}
		select {
		case <-over:
		case <-tick.C:
		case <-patience.C:
			s.log.LogAttrs(ctx, eventlog.Warning, "the group of pgpools has not been found in time",
				slog.String("detail", "The backends are taken to be as the status file has them."))
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// joinPatience bounds how long the start waits for the group.
const joinPatience = 10 * time.Second

// leaveGroup hands over and gives the delegate IP up, in that order.
func (s *Server) leaveGroup() {
	if w := s.group.Load(); w != nil {
		ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
		defer cancel()
		w.Stop(ctx)
	}
}

const leavePatience = 7 * time.Second

// publish tells the group, while this node leads, what its own cluster has become:
// the leader's failovers are the group's.
func (s *Server) publish(ctx context.Context, w *watchdog.Watchdog) {
	tick := time.NewTicker(time.Second) // to lead is no event of the cluster
	defer tick.Stop()
	escalated := false
	for {
		if was := escalated; s.cache != nil {
			if escalated = w.Status().Escalated; escalated && !was {
				s.escalated()
			}
		}
		_, changed := s.owner.Watch()
		r, newer := w.Register()
		if r != nil && r.Open() == nil && w.Status().Decisive {
			// What was agreed on has been submitted before the register was shown.
			snap, err := s.owner.Do(ctx, cluster.Agreed{})
			if err == nil && settled(snap) {
				s.tellGroup(ctx, w, r, snap)
			}
		}
		select {
		case <-changed:
		case <-newer:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// tellGroup has the differences between the register and this node written.
func (s *Server) tellGroup(ctx context.Context, w *watchdog.Watchdog, r *election.Register, snap *cluster.Snapshot) {
	if now, _ := w.Register(); now != r {
		return // there is something newer to compare with
	}
	var down, up []int
	for i := range snap.Nodes {
		switch n := &snap.Nodes[i]; {
		case !n.Used() || n.Detached == r.Backend(i).Down:
		case n.Detached:
			down = append(down, i)
		default:
			up = append(up, i)
		}
	}
	limited, cancel := context.WithTimeout(ctx, patienceForGroup)
	defer cancel()
	for _, change := range []struct {
		act   election.Act
		nodes []int
	}{{election.ActDetach, down}, {election.ActAttach, up}} {
		if len(change.nodes) > 0 {
			w.Request(limited, change.act, change.nodes, true) // if it is not written, the next round sees to it
		}
	}
	if p := snap.Primary; p >= 0 && !snap.Assumed && p != r.Primary && !slices.Contains(down, p) && len(up) == 0 {
		w.Found(p)
	}
}

// patienceForGroup bounds how long a change waits for the group.
const patienceForGroup = 30 * time.Second

// settled reports that the jobs are done. Not the followers: what they are told to do
// may end with an attach, which is the group's business again.
func settled(s *cluster.Snapshot) bool { return len(s.Jobs) == 0 }

// agree makes a change an operator wants by the group, or alone where this pgpool
// has no group, or a group that cannot decide: then it holds here, until there is
// a leader again.
func (s *Server) agree(ctx context.Context, act election.Act, node int, change cluster.Event) (*cluster.Snapshot, error) {
	w := s.group.Load()
	if w == nil {
		return s.owner.Do(ctx, change)
	}
	if p, ok := change.(cluster.Promote); ok && p.Switchover {
		if st := w.Status(); !st.Decisive {
			return s.owner.Now(), fmt.Errorf("a switchover must be asked of the leader of the watchdog cluster, which is %s", st.LeaderName)
		}
	}
	if w.Status().Decisive {
		return s.owner.Do(ctx, change) // publish tells the others
	}
	verdict, err := w.Request(ctx, act, []int{node}, true)
	switch {
	case err != nil:
		return s.owner.Now(), err
	case verdict == election.NoQuorum:
		s.log.LogAttrs(ctx, eventlog.Warning, "the watchdog cluster does not hold the quorum: the change is made on this pgpool only",
			slog.String("detail", "It is undone when a leader says otherwise."))
		return s.owner.Do(ctx, change)
	case verdict == election.Granted || verdict == election.Already:
		return s.taken(ctx, act, node)
	}
	return s.owner.Now(), fmt.Errorf("the watchdog cluster has refused: %v", verdict)
}

// taken waits until this node has heard of a decision, whose announcement may come
// behind the leader's answer.
func (s *Server) taken(ctx context.Context, act election.Act, node int) (*cluster.Snapshot, error) {
	limited, cancel := context.WithTimeout(ctx, patienceForNews)
	defer cancel()
	s.owner.Wait(limited, func(snap *cluster.Snapshot) bool {
		n := snap.Node(node)
		switch {
		case n == nil:
			return true
		case act == election.ActPromote:
			return snap.Primary == node
		}
		return n.Detached == (act == election.ActDetach)
	})
	return s.owner.Now(), nil
}

// patienceForNews bounds that wait: what has not come by then was undone meanwhile.
const patienceForNews = 10 * time.Second

// askVote has the group decide what this node's cluster wants. An answer that is no
// decision leaves the node in quarantine; the question comes again.
func (s *Server) askVote(v cluster.AskVote) {
	w := s.group.Load()
	if w == nil {
		return // it is not up yet, or the process ends
	}
	act := election.ActDetach
	if v.Attach {
		act = election.ActAttach
	}
	if _, asked := s.asking.LoadOrStore(v.Node, true); asked {
		return
	}
	s.work.Go(func() {
		defer s.asking.Delete(v.Node)
		ctx, cancel := context.WithTimeout(s.background, patienceForGroup)
		defer cancel()
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("failover request noted: %v of node %d", act, v.Node), slog.String("detail", v.Reason))
		verdict, err := w.Request(ctx, act, []int{v.Node}, false)
		switch {
		case err != nil || verdict == election.Granted || verdict == election.Already || verdict == election.Stale:
		case verdict == election.Building || verdict == election.MayFail:
			s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("building consensus for request: %v of node %d, changed to quarantine node request", act, v.Node))
		case verdict == election.NoQuorum && !s.config.Load().FailoverWhenQuorumExists:
			s.log.LogAttrs(ctx, eventlog.Warning, fmt.Sprintf("node %d is failed over by this pgpool alone", v.Node),
				slog.String("detail", "There is no quorum, and failover_when_quorum_exists is off: other pgpools may decide otherwise."))
			if v.Attach {
				s.owner.Submit(cluster.Attach{Node: v.Node, By: "watchdog"})
			} else {
				s.owner.Submit(cluster.Detach{Node: v.Node, By: "watchdog", Reason: v.Reason})
			}
		default:
			s.log.LogAttrs(ctx, eventlog.Warning, fmt.Sprintf("node %d stays in quarantine: the watchdog cluster answers: %v", v.Node, verdict))
		}
	})
}

// orderOthers passes a command on to all members, where that is wanted and there
// are any.
func (s *Server) orderOthers(ctx context.Context, scope pcp.Scope, order watchdog.Order) error {
	if w := s.group.Load(); w != nil && scope == pcp.Cluster {
		return w.Order(ctx, order)
	}
	return nil
}

// member is the server as its watchdog sees it.
type member struct{ *Server }

var _ watchdog.Host = member{}

func (m member) Backends() ([]election.Backend, int) {
	snap := m.owner.Now()
	var all []election.Backend
	for i := range snap.Nodes {
		if n := &snap.Nodes[i]; n.Used() {
			all = append(all, election.Backend{ID: i, Down: n.Detached})
		}
	}
	return all, snap.Primary
}

// Apply brings the nodes into the state that was decided. A leader has decided by
// itself: it takes over only what it has found when it began. What is still being
// carried out waits for its end: whoever leads next may have to do it again, and
// must find it undone.
func (m member) Apply(r *election.Register) {
	if r.Version.Term.Node == m.config.Load().NodeID && r.Version.Index > 1 {
		return
	}
	var agreed cluster.Agreed
	for _, b := range r.Backends {
		if open := r.Open(); open == nil || !slices.Contains(open.Nodes, b.ID) {
			agreed.Nodes = append(agreed.Nodes, cluster.AgreedNode{Node: b.ID, Detached: b.Down})
		}
	}
	m.owner.Submit(agreed)
}

// Candidate is the main node after a detach, as the original chooses it, if the
// primary is among those that go.
func (m member) Candidate(r election.Request) int {
	if r.Act == election.ActPromote {
		return r.Nodes[0]
	}
	snap := m.owner.Now()
	if r.Act != election.ActDetach || !slices.Contains(r.Nodes, snap.Primary) {
		return -1
	}
	return slices.IndexFunc(snap.Nodes, func(n cluster.Node) bool { return n.Usable() && !slices.Contains(r.Nodes, n.ID) })
}

// CarryOut makes a decision true on this node, whose cluster runs the commands that
// belong to it.
// If an earlier leader has begun and the primary has moved already, the commands
// have done their work.
func (m member) CarryOut(ctx context.Context, d election.Decision, again bool) (int, error) {
	moved := again && d.Candidate >= 0 && m.owner.Now().Primary == d.Candidate
	for _, id := range d.Nodes {
		if moved {
			m.owner.Submit(cluster.Agreed{Nodes: []cluster.AgreedNode{{Node: id, Detached: d.Act == election.ActDetach}}})
			continue
		}
		switch d.Act {
		case election.ActDetach:
			m.owner.Submit(cluster.Detach{Node: id, By: "watchdog", Reason: "detached by the group of pgpools"})
		case election.ActAttach:
			m.owner.Submit(cluster.Attach{Node: id, By: "watchdog"})
		case election.ActPromote:
			m.owner.Submit(cluster.Promote{Node: id, By: "watchdog"})
		}
	}
	snap, err := m.owner.Do(ctx, cluster.Agreed{})
	if err == nil {
		snap, err = m.owner.Wait(ctx, settled)
	}
	return snap.Primary, err
}

func (m member) Ordered(o watchdog.Order) error {
	modes := map[watchdog.Order]ShutdownMode{
		watchdog.OrderStopSmart: Smart, watchdog.OrderStopFast: Fast, watchdog.OrderStopImmediate: Immediate,
	}
	if mode, stop := modes[o]; stop {
		go m.Shutdown(context.Background(), mode) // which waits for the watchdog, and so for this
		return nil
	}
	switch o {
	case watchdog.OrderReload:
		return m.Reload()
	case watchdog.OrderRotateLog:
		if !m.config.Load().LoggingCollector {
			return nil // there is nothing to rotate here
		}
		return m.journal.Rotate()
	}
	return fmt.Errorf("this pgpool does not know the order %q", o)
}

// Ask sends the life check's query to a pgpool.
func (m member) Ask(ctx context.Context, host string, port int) error {
	c := m.config.Load()
	asker, err := m.login(ctx, cluster.Node{Host: host, Port: port}, c.WdLifecheckUser, c.WdLifecheckPassword, c.WdLifecheckDbname)
	if err != nil {
		return err
	}
	defer asker.Close()
	_, err = asker.Ask(ctx, c.WdLifecheckQuery)
	return err
}

// Lost: this node must not serve any more, since nobody knows what it does.
func (m member) Lost(why string) {
	m.log.LogAttrs(context.Background(), eventlog.Error, "pgpool shuts down, the watchdog says it is cut off", slog.String("detail", why))
	go m.Shutdown(context.Background(), Fast)
}

// describeGroup is the answer to watchdog_info.
func describeGroup(s watchdog.Status) pcp.Watchdog {
	w := pcp.Watchdog{
		RemoteNodes: len(s.Members) - 1, NodesForQuorum: s.Required, Quorum: int(s.Quorum), AliveNodes: s.Alive,
		LeaderName: s.LeaderName, LeaderHost: s.LeaderHost,
	}
	if s.Escalated {
		w.Escalated = 1
	}
	for i, m := range s.Members {
		if i > 0 && m.Membership == election.Member {
			w.MemberRemoteNodes++
		}
		ready := pcp.Flag(m.LifecheckReady)
		w.Nodes = append(w.Nodes, pcp.WatchdogNode{
			ID: m.ID, State: int(m.State), StateName: m.State.String(), Membership: int(m.Membership), MembershipString: m.Membership.String(),
			Name: m.Name, Host: m.Host, DelegateIP: s.DelegateIP, WdPort: m.WdPort, PgpoolPort: m.PgpoolPort, Priority: m.Priority,
			LifecheckStarted: &ready,
		})
	}
	return w
}

// showWatchdog are the rows of SHOW POOL_WATCHDOG.
func (s *Server) showWatchdog() [][]string {
	w := s.group.Load()
	if w == nil {
		return nil
	}
	st := w.Status()
	var rows [][]string
	for _, m := range st.Members {
		contact := "never"
		if m.Contact >= 0 {
			contact = strconv.FormatInt(m.Contact.Milliseconds(), 10)
		}
		rows = append(rows, []string{
			strconv.Itoa(m.ID), m.Name, m.Host, strconv.Itoa(m.PgpoolPort), strconv.Itoa(m.WdPort), m.State.String(), m.Membership.String(),
			strconv.Itoa(m.Priority), contact,
			strconv.Itoa(st.Leader), st.Term.String(), strconv.FormatInt(st.LeaseLeft.Milliseconds(), 10), st.Quorum.String(), st.Why,
		})
	}
	return rows
}
