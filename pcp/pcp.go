// Package pcp is the admin wire: the small request and reply protocol between
// pgpool's control port and the pcp_* programs, from both ends. Serve answers
// on a listener for an Admin; Client asks.
//
// It knows the bytes, the order of the fields and the original's words for what
// goes wrong. It does not know what a node or a failover is: whatever is asked
// for comes from Admin, and the room takes its own small Options rather than a
// configuration. Bytes are those of pgpool-II 4.3.5; where later versions send
// more, Options.Layout chooses.
//
// A new command is an entry in commands (command.go), a method of Admin and a
// method of Client. A new field of a listing is a field of its struct here and
// a line in rows.go.
package pcp

import (
	"fmt"
	"time"
)

// All asks for every node, instead of one id.
const All = -1

// maxNodes is how many nodes the original can hold; ids from here on are
// refused even where an unknown id is not.
const maxNodes = 128

// Layout tells which rows are sent in listings that grew over the versions.
type Layout int

const (
	// Layout43 is understood by the tools of 4.3 and before: 12 fields per node,
	// 17 per process.
	Layout43 Layout = iota
	// LayoutNew is what the tools of 4.8 expect: 13 fields per node, 21 per
	// process, and whether a watchdog member's lifecheck has started.
	LayoutNew
)

// NodeStatus is the state of a node as pgpool sees it.
type NodeStatus int

// The numbers go over the wire.
const (
	Unused NodeStatus = iota
	Waiting
	Up
	Down
)

// Name is the word the tools print. A quarantined node is one that is down
// until the watchdog has its quorum again.
func (s NodeStatus) Name(quarantined bool) string {
	switch s {
	case Unused:
		return "unused"
	case Waiting:
		return "waiting"
	case Up:
		return "up"
	case Down:
		if quarantined {
			return "quarantine"
		}
		return "down"
	}
	return "unknown"
}

// Role is the part pgpool has given to a node: primary and standby with
// streaming replication, main and replica in the other modes.
type Role int

// The numbers go over the wire.
const (
	Main Role = iota
	Replica
	Primary
	Standby
)

// String is the word the tools print.
func (r Role) String() string {
	switch r {
	case Main:
		return "main"
	case Replica:
		return "replica"
	case Primary:
		return "primary"
	case Standby:
		return "standby"
	}
	return "unknown"
}

// Node is one row of node_info.
type Node struct {
	ID          int // not on the wire: the position in the listing, or the id asked for
	Host        string
	Port        int
	Status      NodeStatus
	Quarantined bool
	PgStatus    string  // up, down or unknown: asked of the server now
	Weight      float64 // share of the reads, 0 to 1
	Role        Role
	PgRole      string // primary, standby or unknown: asked of the server now
	Delay       int64  // bytes behind the primary, or microseconds
	DelayByTime bool   // Delay is in microseconds; lost in Layout43

	ReplicationState     string // of pg_stat_replication, empty for none
	ReplicationSyncState string
	Changed              time.Time // last change of Status

	// Fields counts what the server sent; a server leaves it alone.
	Fields int
}

// UnusedNode is the row of a slot without a server, as the original sends it.
func UnusedNode(id int, changed time.Time) Node {
	return Node{ID: id, PgStatus: "down", Role: Standby, PgRole: "unknown", Changed: changed}
}

// HealthStats is the reply to health_check_stats. Times are text, see WallTime.
type HealthStats struct {
	NodeID     int
	Host       string
	Port       int
	Status     string // NodeStatus.Name
	Role       string // Role.String
	LastChange string

	Total, Success, Fail, Skip, Retry int64

	AverageRetry             float64
	MaxRetry                 int64
	MaxDuration, MinDuration int64   // milliseconds
	AverageDuration          float64 // milliseconds

	LastCheck, LastSuccess, LastSkip, LastFail string
}

// Process is one row of proc_info: one pooled server connection of one slot for
// clients, which is a child process in the original. Times are text, see
// WallTime; Start and Idle may carry a remark, see StartText and IdleText.
type Process struct {
	PID               int
	Start             string
	ClientConnections int64 // clients served since Start
	PoolID            int
	BackendID         int
	Database, User    string // both empty for a pool entry nobody uses

	BackendConnected   string
	ClientConnected    string
	ClientDisconnected string
	Idle               string // seconds, a number first

	Major, Minor int // protocol version
	PoolCounter  int64
	BackendPID   int
	Connected    bool
	Status       string

	// In LayoutNew only.
	LoadBalanceNode bool
	ClientHost      string
	ClientPort      string
	Statement       string

	// Fields counts what the server sent, so that a client need not show what
	// was never told. A server leaves it alone.
	Fields int
}

// Setting is one row of pool_status.
type Setting struct {
	Name, Value, Description string
}

// Watchdog is the reply to watchdog_info. On the wire it is JSON with these names.
type Watchdog struct {
	RemoteNodes       int            `json:"RemoteNodeCount"`
	MemberRemoteNodes int            `json:"MemberRemoteNodeCount"`
	NodesForQuorum    int            `json:"NodesRequireForQuorum"`
	Quorum            int            `json:"QuorumStatus"` // 1 exists, 0 on the edge, -1 absent, -2 no leader
	AliveNodes        int            `json:"AliveNodeCount"`
	Escalated         int            `json:"Escalated"` // 1 if the node asked holds the delegate IP
	LeaderName        string         `json:"LeaderNodeName"`
	LeaderHost        string         `json:"LeaderHostName"`
	NodeCount         int            `json:"NodeCount"` // len(Nodes), set by the server's end
	Nodes             []WatchdogNode `json:"WatchdogNodes"`
}

// WatchdogNode is one member in Watchdog.
type WatchdogNode struct {
	ID               int    `json:"ID"`
	State            int    `json:"State"`
	Membership       int    `json:"Membership"`
	MembershipString string `json:"MembershipString"`
	Name             string `json:"NodeName"`
	Host             string `json:"HostName"`
	StateName        string `json:"StateName"`
	DelegateIP       string `json:"DelegateIP"`
	WdPort           int    `json:"WdPort"`
	PgpoolPort       int    `json:"PgpoolPort"`
	Priority         int    `json:"Priority"`
	LifecheckStarted *Flag  `json:"LifecheckStarted,omitempty"` // in LayoutNew only
}

// Flag is a truth that JSON carries as 0 or 1, and is also read from false and true.
type Flag bool

// MarshalJSON writes 0 or 1.
func (f Flag) MarshalJSON() ([]byte, error) {
	if f {
		return []byte("1"), nil
	}
	return []byte("0"), nil
}

// UnmarshalJSON reads 0, 1, false or true.
func (f *Flag) UnmarshalJSON(text []byte) error {
	switch string(text) {
	case "0", "false":
		*f = false
	case "1", "true":
		*f = true
	default:
		return fmt.Errorf("neither true nor false: %s", text)
	}
	return nil
}

// StopMode says how pgpool is to end.
type StopMode byte

// The letters go over the wire.
const (
	Smart     StopMode = 's' // waits for the sessions
	Fast      StopMode = 'f'
	Immediate StopMode = 'i'
)

// Scope says whether a command is for this pgpool or for all watchdog members.
type Scope byte

// The letters go over the wire.
const (
	Local   Scope = 'l'
	Cluster Scope = 'c'
)

// WallTime is how listings show a time: in the server's zone, which the wire
// does not name, so a client can do no more than print it. The zero time,
// something that never happened, is empty.
func WallTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("2006-01-02 15:04:05")
}

// StartText is a process's start, with what is left of child_life_time while
// that runs (zero: it does not).
func StartText(start time.Time, left time.Duration) string {
	if left <= 0 {
		return WallTime(start)
	}
	return fmt.Sprintf("%s (%s before process restarting)", WallTime(start), clock(left))
}

// IdleText is how long a client has been idle, with what is left of
// client_idle_limit (zero: there is none).
func IdleText(idle, left time.Duration) string {
	seconds := int64(idle / time.Second)
	if left <= 0 {
		return fmt.Sprint(seconds)
	}
	return fmt.Sprintf("%d (%s before client disconnected)", seconds, clock(left))
}

// clock is minutes and seconds, m:ss.
func clock(d time.Duration) string {
	seconds := int64(d / time.Second)
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}
