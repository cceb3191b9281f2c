package pcp

import (
	"context"
	"log/slog"
	"time"
)

// Admin is what stands behind the port: it knows the nodes and does what is
// asked. Its methods are called from many goroutines at once. A context ends at
// the command's deadline and when serving ends; a method then returns its
// error, and what it has begun may go on.
//
// An error of type *Error goes out as it is, see the constructors in error.go;
// any other one is the detail of "... failed".
type Admin interface {
	// NodeCount is the highest configured node id plus one.
	NodeCount(ctx context.Context) (int, error)
	// Nodes describes one node, 0 <= id < NodeCount, or with All each slot up to
	// the highest configured one in order, see UnusedNode.
	Nodes(ctx context.Context, id int) ([]Node, error)
	HealthStats(ctx context.Context, id int) (HealthStats, error) // 0 <= id < NodeCount
	// Processes lists all pooled connections, or those of one process or slot; no
	// rows means that there is no such pid. Zero is all.
	Processes(ctx context.Context, pid int) ([]Process, error)
	ProcessIDs(ctx context.Context) ([]int, error)
	Settings(ctx context.Context) ([]Setting, error)
	// Watchdog describes all members, the local one first, or says WatchdogDisabled.
	Watchdog(ctx context.Context) (Watchdog, error)

	// The next four return when the change has happened or cannot happen. The id
	// is 0 to 127 for attaching and detaching, and below NodeCount otherwise.

	AttachNode(ctx context.Context, id int) error
	// DetachNode with gracefully first waits until all sessions have ended.
	DetachNode(ctx context.Context, id int, gracefully bool) error
	// PromoteNode with switchover detaches the primary and has failover_command
	// promote the node; without it only pgpool's own view changes.
	PromoteNode(ctx context.Context, id int, gracefully, switchover bool) error
	// RecoverNode runs online recovery and attaches the node.
	RecoverNode(ctx context.Context, id int) error

	// Stop says whether pgpool may be stopped. Begin starts the shutdown without
	// waiting for it; it is called when the client has its answer.
	Stop(ctx context.Context, mode StopMode, scope Scope) (begin func(), err error)
	Reload(ctx context.Context, scope Scope) error
	RotateLog(ctx context.Context, scope Scope) error
	InvalidateQueryCache(ctx context.Context) error
}

// Command names what a client asks for, for deadlines and logs.
type Command string

// The names are those of the tools, without their prefix.
const (
	NodeCount        Command = "node_count"
	NodeInfo         Command = "node_info"
	HealthCheckStats Command = "health_check_stats"
	ProcCount        Command = "proc_count"
	ProcInfo         Command = "proc_info"
	PoolStatus       Command = "pool_status"
	WatchdogInfo     Command = "watchdog_info"
	AttachNode       Command = "attach_node"
	DetachNode       Command = "detach_node"
	PromoteNode      Command = "promote_node"
	RecoveryNode     Command = "recovery_node"
	StopPgpool       Command = "stop_pgpool"
	ReloadConfig     Command = "reload_config"
	LogRotate        Command = "log_rotate"
	InvalidateCache  Command = "invalidate_query_cache"
	SetParameter     Command = "set_parameter"
)

// Options of a server. The zero value lets nobody in.
type Options struct {
	// Credentials returns what pcp.conf holds for a user: hexadecimal MD5 hashes
	// of passwords, of which any may match. It is asked at each login.
	Credentials func(user string) ([]string, error)
	Layout      Layout
	// Deadline bounds a command; nil means DefaultDeadline. Those that wait for
	// sessions or for a script need more than a listing.
	Deadline func(Command) time.Duration
	// LoginTimeout bounds the time from connecting to being logged in, default
	// 30 s. IdleTimeout bounds the wait for the next command, default 10 min.
	LoginTimeout, IdleTimeout time.Duration
	// MaxConnections bounds the connections at a time, default 100. When they are
	// all taken, the one that has waited longest to log in makes room.
	MaxConnections int
	Log            *slog.Logger // nil: nothing is logged
	Visits         bool         // connections are logged when they come and go

	salt func() []byte // tests only; nil: random
}

// DefaultDeadline fits the defaults of pgpool.conf.
func DefaultDeadline(c Command) time.Duration {
	switch c {
	case AttachNode, DetachNode, PromoteNode:
		return 5 * time.Minute
	case RecoveryNode: // copies a whole database
		return 24 * time.Hour
	}
	return 30 * time.Second
}

func (o Options) withDefaults() Options {
	if o.Credentials == nil {
		o.Credentials = func(string) ([]string, error) { return nil, nil }
	}
	if o.Deadline == nil {
		o.Deadline = DefaultDeadline
	}
	if o.LoginTimeout <= 0 {
		o.LoginTimeout = 30 * time.Second
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = 10 * time.Minute
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 100
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.salt == nil {
		o.salt = newSalt
	}
	return o
}
