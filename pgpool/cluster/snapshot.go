// Package cluster answers one question: what do we believe about the
// backends?
//
// The belief is a Snapshot, an immutable value that any goroutine reads
// without a lock. It changes in one place: Reduce, a pure function from a
// snapshot and an Event (something that happened) to the next snapshot and
// the Effects it calls for (something to be done). Owner is the one goroutine
// that applies it and publishes the result.
//
// The package never opens a connection to a backend, never routes a statement
// and never runs a command. To teach it something new, add an Event and its
// case to Reduce, and cases to testdata/failover; what decides who is primary
// is in primary.go.
package cluster

import (
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgpool-go/conf"
)

// Status is a node's state as operators know it.
type Status int8

// The states, with the original's numbers. Quarantine is a kind of Down.
const (
	Unused     Status = 0 // no server is configured in this slot
	Waiting    Status = 1 // used, but no client has been served by it yet
	Up         Status = 2
	Down       Status = 3
	Quarantine Status = 4
)

// String is the name shown in SHOW POOL_NODES.
func (s Status) String() string {
	switch s {
	case Unused:
		return "unused"
	case Waiting:
		return "waiting"
	case Up:
		return "up"
	case Down:
		return "down"
	case Quarantine:
		return "quarantine"
	}
	return "unknown"
}

// Number is the number shown by PCP, which has none for quarantine.
func (s Status) Number() int { return int(min(s, Down)) }

// Role is what a server is in streaming replication.
type Role int8

// Roles. A server that answers but refuses our login is of unknown role.
const (
	Unknown Role = iota
	Primary
	Standby
)

// String is the name shown in SHOW POOL_NODES.
func (r Role) String() string {
	switch r {
	case Primary:
		return "primary"
	case Standby:
		return "standby"
	}
	return "unknown"
}

// Reach says whether the server answers.
type Reach int8

// A node is unprobed until its first probe has ended.
const (
	Unprobed Reach = iota // used on trust
	Reachable
	Unreachable
)

// String names the state for logs and tests.
func (r Reach) String() string {
	switch r {
	case Reachable:
		return "reachable"
	case Unreachable:
		return "unreachable"
	}
	return "unprobed"
}

// Node is one backend slot. What an operator decided (Detached) and what is
// seen (Reach, Excluded) are kept apart: what is only seen mends itself.
type Node struct {
	ID              int
	Host            string
	Port            int
	Weight          float64
	DataDirectory   string
	ApplicationName string
	Flag            conf.BackendFlag

	Status   Status
	Detached bool      // taken out, until it is attached again
	Reach    Reach     // does it answer?
	Failing  time.Time // since when it does not; zero while it does
	Suspect  bool      // a session has had trouble with it, and it has not answered since
	// Quarantined: this pgpool wants it failed over, and the group has not agreed.
	Quarantined bool
	Excluded    string // why it is not used although it answers, or empty
	Served      bool   // a client has been connected to it

	Role   Role // what we take it for: Primary for Snapshot.Primary, else Standby
	PgRole Role // what it says itself
	// PgStatus is the server's state where health checks are on: up, down, unknown.
	PgStatus string

	Version  int    // server_version_num, 0 unknown
	SystemID string // of pg_control_system, empty unknown
	Timeline uint32 // 0 unknown
	Position uint64 // WAL written (primary) or replayed (standby)
	Lag      int64  // bytes behind the primary
	LagTime  time.Duration
	Loaded   string // when it has loaded its configuration, as it tells; empty unknown

	ReplicationState     string // of pg_stat_replication, empty where it is not told
	ReplicationSyncState string

	Changed time.Time // when Status last changed
	Reason  string    // why Status is what it is, empty for up
	By      string    // who caused it
}

// Usable reports whether sessions may use the node now.
func (n *Node) Usable() bool { return n.Status == Waiting || n.Status == Up }

// Used reports whether the slot names a server.
func (n *Node) Used() bool { return n.Status != Unused }

// Addr is host:port as the original writes it in messages; a Unix socket is
// shown with its directory.
func (n *Node) Addr() string {
	return n.Host + ":" + strconv.Itoa(n.Port)
}

// Network is what to dial: the arguments of net.Dial.
func (n *Node) Network() (network, address string) {
	if strings.HasPrefix(n.Host, "/") {
		return "unix", n.Host + "/.s.PGSQL." + strconv.Itoa(n.Port)
	}
	return "tcp", net.JoinHostPort(n.Host, strconv.Itoa(n.Port))
}

// Snapshot is everything believed at one moment. It and its nodes are never
// changed once published.
type Snapshot struct {
	Epoch uint64 // grows with every change
	Mode  conf.ClusteringMode

	// Primary is the usable node that takes the writes, or -1. Where servers do
	// not tell who it is, pgpool appoints it (appointed.go), or it is Main.
	Primary int
	Main    int  // the lowest usable node, or -1
	Assumed bool // Primary is a guess: no server says who is primary

	Nodes []Node // index is the node id

	// The last primary that said it was one: an older one that shows up
	// later must not take its place.
	LastPrimary int
	SystemID    string
	Timeline    uint32

	PrimaryLost time.Time // since when there is no primary; zero while there is, and before the first

	// What failovers and failbacks have yet to bring about. The first of each
	// list is under way; what is for the followers comes after the failover.
	Jobs         []Job
	Followers    []Job
	LastJob      uint64    // its number
	LastFailback time.Time // by auto_failback
}

// Node returns a node by its id, or nil.
func (s *Snapshot) Node(id int) *Node {
	if id < 0 || id >= len(s.Nodes) {
		return nil
	}
	return &s.Nodes[id]
}

// Usable reports whether sessions may use node id now.
func (s *Snapshot) Usable(id int) bool {
	n := s.Node(id)
	return n != nil && n.Usable()
}

// Share is the node's part of the sum of all weights, as SHOW POOL_NODES
// shows it; NaN if all weights are 0.
func (s *Snapshot) Share(id int) float64 {
	sum := 0.0
	for i := range s.Nodes {
		if s.Nodes[i].Used() {
			sum += s.Nodes[i].Weight
		}
	}
	if sum == 0 {
		return math.NaN()
	}
	return s.Nodes[id].Weight / sum
}

// RoleName is the role column: primary or standby in streaming replication,
// main or replica in all other modes.
func (s *Snapshot) RoleName(id int) string {
	switch {
	case s.Mode == conf.StreamingReplication && id == s.Primary:
		return "primary"
	case s.Mode == conf.StreamingReplication:
		return "standby"
	case id == s.Primary, s.Primary < 0 && id == s.Main:
		return "main"
	}
	return "replica"
}

// PgRoleName is the pg_role column: what the server says where it is asked,
// else the role.
func (s *Snapshot) PgRoleName(id int) string {
	if s.Mode == conf.StreamingReplication {
		return s.Nodes[id].PgRole.String()
	}
	return s.RoleName(id)
}

// Probed reports whether every attached node has been probed: before that, an
// absent primary means nothing.
func (s *Snapshot) Probed() bool {
	return !slices.ContainsFunc(s.Nodes, func(n Node) bool {
		return n.Used() && !n.Detached && n.Reach == Unprobed
	})
}

// Why says in one line per node why it is not used, for the client that finds
// no node to serve it.
func (s *Snapshot) Why() string {
	var b strings.Builder
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !n.Used() || n.Usable() {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("node " + strconv.Itoa(n.ID) + " (" + n.Addr() + "): " + n.Reason)
	}
	return b.String()
}

func (s *Snapshot) clone() Snapshot {
	next := *s
	next.Nodes = slices.Clone(s.Nodes)
	next.Jobs, next.Followers = slices.Clone(s.Jobs), slices.Clone(s.Followers)
	return next
}

func (s *Snapshot) equal(o *Snapshot) bool {
	return s.Mode == o.Mode && s.Primary == o.Primary && s.Main == o.Main && s.Assumed == o.Assumed &&
		s.LastPrimary == o.LastPrimary && s.SystemID == o.SystemID && s.Timeline == o.Timeline &&
		s.PrimaryLost.Equal(o.PrimaryLost) && s.LastJob == o.LastJob && s.LastFailback.Equal(o.LastFailback) &&
		slices.Equal(s.Jobs, o.Jobs) && slices.Equal(s.Followers, o.Followers) &&
		slices.Equal(s.Nodes, o.Nodes)
}
