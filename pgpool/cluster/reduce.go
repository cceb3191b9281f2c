package cluster

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"pgpool-go/conf"
)

// Rules is what Reduce goes by: the configuration, and the time of the event.
type Rules struct {
	Config *conf.Config
	Now    time.Time
}

// levelLog is LOG, as eventlog counts it.
const levelLog slog.Level = 10

// Who causes what is seen rather than asked for.
const (
	byMonitor    = "monitor"
	byStatusFile = "pgpool_status"
	byReload     = "reload"
	byFalse      = "detach_false_primary"
	byHealth     = "health_check"
	bySessions   = "failover_on_backend_error"
	byFollow     = "follow_primary_command"
	byFailback   = "auto_failback"
	byReplicas   = "replication"
)

// First is the snapshot at start: everything configured is waiting and used
// on trust until it is probed.
func First(r Rules) Snapshot {
	t := turn{
		next:  Snapshot{Primary: -1, Main: -1, LastPrimary: -1},
		prev:  &Snapshot{Primary: -1, Main: -1, LastPrimary: -1},
		rules: r,
	}
	t.configure(true)
	t.settle()
	t.next.Epoch = 1
	return t.next
}

// Reduce gives the snapshot that follows from an event, and what is to be
// done. If nothing changed it returns s itself, with its epoch. It does not
// touch s or its nodes.
func Reduce(s Snapshot, ev Event, r Rules) (Snapshot, []Effect) {
	t := turn{next: s.clone(), prev: &s, rules: r}
	switch ev := ev.(type) {
	case Probed:
		t.probed(ev)
	case ProbeFailed:
		t.probeFailed(ev)
	case Measured:
		t.measured(ev)
	case HealthFailed:
		t.healthFailed(ev)
	case Suspected:
		t.suspected(ev)
	case Ended:
		t.ended(ev)
	case Connected:
		t.connected(ev)
	case Attach:
		t.attach(ev)
	case Detach:
		t.detach(ev)
	case Diverged:
		t.diverged(ev)
	case Promote:
		t.promote(ev)
	case ConfigChanged:
		t.rules.Config = ev.Config
		t.configure(false)
	case StatusRead:
		t.statusRead(ev)
	case Agreed:
		t.agreed(ev)
	}
	t.settle()
	if t.next.equal(&s) {
		return s, t.effects
	}
	t.next.Epoch = s.Epoch + 1
	return t.next, t.effects
}

// turn is one call of Reduce.
type turn struct {
	next    Snapshot
	prev    *Snapshot // as it was before the event
	rules   Rules
	effects []Effect
	orders  []Effect // effects that are to come last
}

// order has something done when all else that follows from the event is done: a
// command must not run while sessions still use the node it is about.
func (t *turn) order(e Effect) { t.orders = append(t.orders, e) }

func (t *turn) do(e Effect) { t.effects = append(t.effects, e) }

func (t *turn) say(level slog.Level, detail, format string, args ...any) {
	t.do(Report{Level: level, Text: fmt.Sprintf(format, args...), Detail: detail})
}

// used returns the node if its slot is in use, else nil.
func (t *turn) used(id int) *Node {
	if n := t.next.Node(id); n != nil && n.Used() {
		return n
	}
	return nil
}

func (t *turn) probed(ev Probed) {
	n := t.used(ev.Node)
	if n == nil {
		return
	}
	// A server that was known and now refuses the login, because it is full,
	// is still what it was.
	if n.Reach == Reachable && ev.Facts.Role == Unknown {
		n.Suspect = false
		return
	}
	if n.Reach == Unreachable && ev.Facts.Role == Standby {
		t.arrears(n, ev.Facts.Position)
	}
	n.Reach, n.Failing, n.Suspect, n.Quarantined = Reachable, time.Time{}, false, false
	n.PgRole = ev.Facts.Role
	n.Version = ev.Facts.Version
	n.SystemID = ev.Facts.SystemID
	n.Timeline = ev.Facts.Timeline
	n.Position = ev.Facts.Position
	n.Loaded = ev.Facts.Loaded
}

// arrears is the delay of a standby that comes back until it is measured, so that
// it is not read as if it were where it was when it went away: what it lacks of
// what the primary had at its last probe, for as long as it was away.
func (t *turn) arrears(n *Node, position uint64) {
	p := t.next.Node(t.next.Primary)
	if p == nil || position == 0 || t.rules.Config.SrCheckPeriod == 0 { // it would never be measured
		return
	}
	n.Lag, n.LagTime = 0, 0
	if p.Position > position && !n.Failing.IsZero() {
		n.Lag, n.LagTime = int64(p.Position-position), t.rules.Now.Sub(n.Failing)
	}
}

func (t *turn) probeFailed(ev ProbeFailed) {
	n := t.used(ev.Node)
	if n == nil {
		return
	}
	n.Reach = Unreachable
	n.PgRole = Unknown
	n.ReplicationState, n.ReplicationSyncState = "", ""
	if n.Failing.IsZero() {
		n.Failing = t.rules.Now
	}
	if !n.Detached {
		n.Reason, n.By = ev.Cause, byMonitor
		t.weigh(n, ev.Stopping)
	}
}

func (t *turn) measured(ev Measured) {
	for _, d := range ev.Delays {
		n := t.used(d.Node)
		if n == nil || n.Reach != Reachable {
			continue
		}
		n.Lag, n.LagTime = max(0, d.Bytes), max(0, d.Time)
		n.ReplicationState, n.ReplicationSyncState = d.State, d.SyncState
		t.failBack(n)
	}
}

// connected takes the nodes a client was connected to from waiting to up. The
// original connects every client to every node, except in raw mode, so its
// users expect all of them to be up once one client was served.
func (t *turn) connected(ev Connected) {
	for i := range t.next.Nodes {
		n := &t.next.Nodes[i]
		if n.Usable() && (i == ev.Node || t.next.Mode != conf.Raw && n.Reach == Reachable) {
			n.Served = true
		}
	}
}

func (t *turn) attach(ev Attach) {
	n := t.used(ev.Node)
	if n == nil || !n.Detached {
		return
	}
	t.enqueue(Failback, n.ID, -1)
	n.Detached = false
	n.Reason, n.By = "", ev.By
	if n.Reach == Unreachable {
		n.Reason = "not reachable when attached"
	}
	// Who attaches a node knows better than our memory which primary is true.
	if n.PgRole == Primary {
		t.forget()
	}
	t.do(ProbeNow{n.ID})
}

func (t *turn) detach(ev Detach) {
	n := t.used(ev.Node)
	if n == nil || n.Detached {
		return
	}
	t.failover(n, ev.Reason, ev.By)
	if n.ID == t.next.LastPrimary && n.Reach != Unreachable {
		t.forget()
	}
}

func (t *turn) promote(ev Promote) {
	n := t.used(ev.Node)
	if n == nil || !n.ready() || n.ID == t.next.Primary {
		return
	}
	if n.PgRole == Primary {
		t.forget()
	}
	old := t.next.Node(t.next.Primary)
	reason := fmt.Sprintf("node %d is promoted instead", n.ID)
	if ev.Switchover && old != nil {
		t.enqueue(Failover, old.ID, n.ID)
	} else {
		t.enqueue(Promotion, n.ID, n.ID)
	}
	if old != nil && !old.Detached {
		old.Detached, old.Reason, old.By = true, reason, ev.By
	}
	t.do(ProbeNow{n.ID})
}

// forget drops the memory of the last primary: an operator's word stands
// above it.
func (t *turn) forget() {
	t.next.LastPrimary, t.next.SystemID, t.next.Timeline = -1, "", 0
}

// configure brings the nodes in line with the configuration. At start all are
// attached; a node added later waits to be attached, as in the original.
func (t *turn) configure(start bool) {
	c := t.rules.Config
	t.next.Mode = c.BackendClusteringMode
	for len(t.next.Nodes) < len(c.Backends) {
		t.next.Nodes = append(t.next.Nodes, Node{ID: len(t.next.Nodes)})
	}
	for i := range t.next.Nodes {
		n := &t.next.Nodes[i]
		var b conf.Backend
		if i < len(c.Backends) {
			b = c.Backends[i]
		}
		fresh := b.Used() && (n.Status == Unused || b.Hostname != n.Host || b.Port != n.Port)
		if fresh {
			*n = Node{ID: i, Status: Waiting, Changed: t.rules.Now}
			if !start {
				n.Detached, n.By = true, byReload
				n.Reason = "added by reload, to be attached"
			}
		}
		if !b.Used() {
			*n = Node{ID: i, Changed: n.Changed}
			continue
		}
		if !start && !fresh && n.Weight != b.Weight {
			t.say(levelLog, fmt.Sprintf("old: %f new: %f", n.Weight, b.Weight),
				"backend weight of node %d changed", i)
		}
		n.Host, n.Port, n.Weight = b.Hostname, b.Port, b.Weight
		n.ApplicationName, n.Flag = b.ApplicationName, b.Flag
		if fresh || !n.Usable() { // a server in use cannot have moved
			n.DataDirectory = b.DataDirectory
		}
	}
}

// statusRead takes over what pgpool_status says. A file that has no node up
// says nothing, and neither does a missing line.
func (t *turn) statusRead(ev StatusRead) {
	if !slices.ContainsFunc(ev.Words, func(w string) bool { return hasPrefixFold(w, "up") }) {
		return
	}
	for i, word := range ev.Words {
		n := t.used(i)
		if n == nil {
			continue
		}
		switch {
		case hasPrefixFold(word, "down"):
			n.Detached, n.Reason, n.By = true, "down in the status file", byStatusFile
			t.say(levelLog, "", "reading status file: %d th backend is set to down status", i)
		case hasPrefixFold(word, "up"), hasPrefixFold(word, "unused"):
			// A server that is configured now is used, whatever was there before.
		default:
			t.say(slog.LevelWarn, fmt.Sprintf("node %d: %q", i, word), "invalid data in status file, ignoring...")
		}
	}
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// settle draws the conclusions from what the event changed: who is primary,
// what each node's status is, what is to be done, and who must hear of it.
func (t *turn) settle() {
	t.conclude()
	for t.work() {
		t.conclude()
	}
	for i := range t.next.Nodes {
		n := &t.next.Nodes[i]
		var old Node
		if o := t.prev.Node(i); o != nil {
			old = *o
		}
		if n.Status != old.Status || n.Host != old.Host || n.Port != old.Port {
			n.Changed = t.rules.Now
		}
		t.tell(&old, n)
	}
	t.tellPrimary(t.prev)
	if !slices.Equal(statusWords(t.prev), statusWords(&t.next)) {
		t.do(WriteStatus{})
	}
	t.effects = append(t.effects, t.orders...)
}

// conclude works out who plays which part.
func (t *turn) conclude() {
	t.elect()
	for i := range t.next.Nodes {
		t.status(&t.next.Nodes[i])
	}
	t.next.Main = slices.IndexFunc(t.next.Nodes, func(n Node) bool { return n.Usable() })
	switch {
	case t.next.Appoints():
		t.appoint()
	case t.next.Mode != conf.StreamingReplication:
		t.next.Primary = t.next.Main
	}
	for i := range t.next.Nodes {
		n := &t.next.Nodes[i]
		n.Role = Unknown
		if n.Used() {
			n.Role = Standby
		}
		if i == t.next.Primary {
			n.Role = Primary
			n.Lag, n.LagTime, n.ReplicationState, n.ReplicationSyncState = 0, 0, "", ""
		}
	}
	switch {
	case t.next.Primary >= 0:
		t.next.PrimaryLost = time.Time{}
	case t.next.PrimaryLost.IsZero() && t.prev.Primary >= 0:
		t.next.PrimaryLost = t.rules.Now
	}
}

// status works out what operators see, from what they decided and what is.
func (t *turn) status(n *Node) {
	if !n.Used() {
		return
	}
	switch {
	case n.Detached:
		n.Status = Down
	case n.Quarantined:
		n.Status = Quarantine
	case n.Reach == Unreachable && !t.next.Mode.Replicates(): // there what is not written to a node is missing from it: see replicas.go
		n.Status = Down
	case n.Excluded != "":
		n.Status, n.Reason, n.By = Down, n.Excluded, byMonitor
	default:
		n.Status, n.Reason, n.By = Waiting, "", ""
		if n.Served {
			n.Status = Up
		}
	}
	n.PgStatus = "unknown"
	if t.rules.Config.HealthCheck(n.ID).Period > 0 {
		switch n.Reach {
		case Reachable:
			n.PgStatus = "up"
		case Unreachable:
			n.PgStatus = "down"
		}
	}
}

// tell reports that a node began or ceased to be used.
func (t *turn) tell(old, n *Node) {
	if old.Usable() && !n.Usable() {
		level := slog.LevelWarn
		if n.Detached {
			level = levelLog
		}
		t.say(level, because(n.Reason, n.By), "node %d (%s) is not used any more", n.ID, n.Addr())
		t.do(DrainPool{Node: n.ID, Reason: n.Reason})
	} else if n.Excluded != "" && n.Excluded != old.Excluded {
		t.say(slog.LevelWarn, n.Excluded, "node %d (%s) answers but is not used", n.ID, n.Addr())
	}
	if old.Used() && !old.Usable() && n.Usable() {
		t.say(levelLog, "", "node %d (%s) is used again", n.ID, n.Addr())
	}
}

func because(reason, by string) string {
	if by == "" || by == byMonitor {
		return reason
	}
	return strings.TrimPrefix(reason+" (by "+by+")", " ")
}

func (t *turn) tellPrimary(prev *Snapshot) {
	s := &t.next
	first := s.Probed() && !prev.Probed()
	if s.Mode != conf.StreamingReplication || s.Primary == prev.Primary && s.Assumed == prev.Assumed && !(first && s.Primary < 0) {
		return
	}
	switch {
	case s.Primary < 0:
		t.say(slog.LevelWarn, s.Why(), "no primary node, writes are refused until one is found")
	case s.Assumed:
		t.say(slog.LevelWarn, "no server says whether it is a primary; check sr_check_user and sr_check_password",
			"primary node is assumed to be %d", s.Primary)
	default:
		t.say(levelLog, "", "find_primary_node: primary node is %d", s.Primary)
		for i := range s.Nodes {
			if n := &s.Nodes[i]; i != s.Primary && n.Usable() && n.PgRole == Standby {
				t.say(levelLog, "", "find_primary_node: standby node is %d", i)
			}
		}
	}
}

// statusWords is what pgpool_status says of a snapshot: what was decided, not
// what is only seen, so that a restart does not make an outage permanent.
func statusWords(s *Snapshot) []string {
	words := make([]string, len(s.Nodes))
	for i := range s.Nodes {
		switch n := &s.Nodes[i]; {
		case !n.Used():
			words[i] = "unused"
		case n.Detached:
			words[i] = "down"
		default:
			words[i] = "up"
		}
	}
	return words
}
