package cluster

import (
	"log/slog"
	"time"

	"pgpool-go/conf"
)

// Event is something that happened. Reduce knows what follows from it.
type Event interface{ event() }

// Probed: the server of a node answered, and this is what it said.
type Probed struct {
	Node  int
	Facts Facts
}

// Facts is what one probe found out. What the server did not tell is zero.
type Facts struct {
	Role     Role // Unknown: it answers but does not let us in
	Version  int
	SystemID string
	Timeline uint32
	Position uint64
	Loaded   string // when it has loaded its configuration, as it tells
}

// ProbeFailed: the server of a node did not answer a probe. Stopping tells that
// it did, but that it is shutting down or starting up.
type ProbeFailed struct {
	Node     int
	Cause    string
	Stopping bool
}

// HealthFailed: a health check of a node has failed with all its retries.
type HealthFailed struct {
	Node  int
	Cause string
}

// Measured: the replication delays of one round of probes.
type Measured struct{ Delays []Delay }

// Delay is one standby's delay and what the primary says about its replication.
type Delay struct {
	Node      int
	Bytes     int64
	Time      time.Duration
	State     string
	SyncState string
}

// Suspected: a session had trouble with a node. That is no proof of anything,
// so all that follows is a probe.
type Suspected struct {
	Node  int
	Cause error
}

// Connected: a client has been connected to a node that was Waiting.
type Connected struct{ Node int }

// Attach: somebody wants a detached node to be used again.
type Attach struct {
	Node int
	By   string
}

// Detach: somebody wants a node not to be used until it is attached.
type Detach struct {
	Node   int
	By     string
	Reason string
}

// Diverged: what a node holds is not, or may not be, what the others hold. It is
// detached, unless it is the last one.
type Diverged struct {
	Node  int
	Cause string
}

// Promote: somebody makes a node the primary. The present one is detached;
// the new one takes the writes as soon as it says that it is a primary. With
// Switchover failover_command is to bring that about.
type Promote struct {
	Node       int
	By         string
	Switchover bool
}

// Ended: what a job has had done (RunCommand, PromoteBest, Repoint) is over.
type Ended struct {
	Job uint64
	Err error // nil: it went well
}

// ConfigChanged: the configuration was read again.
type ConfigChanged struct{ Config *conf.Config }

// StatusRead: pgpool_status was read, at start. Words has its lines.
type StatusRead struct{ Words []string }

func (Probed) event()        {}
func (ProbeFailed) event()   {}
func (Measured) event()      {}
func (Suspected) event()     {}
func (Connected) event()     {}
func (Attach) event()        {}
func (Detach) event()        {}
func (Diverged) event()      {}
func (Promote) event()       {}
func (ConfigChanged) event() {}
func (StatusRead) event()    {}
func (HealthFailed) event()  {}
func (Ended) event()         {}

// Effect is something to be done because of an event.
type Effect interface{ effect() }

// ProbeNow: ask the node, over a new connection, without waiting for its turn.
type ProbeNow struct{ Node int }

// DrainPool: the node is not used any more; close its idle connections.
type DrainPool struct {
	Node   int
	Reason string
}

// RunCommand: have the shell run the operator's command, once. Its end is
// submitted as Ended.
type RunCommand struct {
	Job  uint64
	Name string // the setting it comes from
	Line string
}

// PromoteBest: have the standby promoted, among these, that has received most of
// the primary's WAL. Its end is submitted as Ended.
type PromoteBest struct {
	Job   uint64
	Nodes []int
}

// Repoint: have a standby stream from another primary. Its end is submitted as
// Ended.
type Repoint struct {
	Job           uint64
	Node, Primary int
}

// AskVote: have the group of pgpools decide that a node is detached, or attached.
// What it decides comes back as Detach or Attach to who leads, and as Agreed to the
// others.
type AskVote struct {
	Node   int
	Attach bool
	Reason string
}

// WriteStatus: pgpool_status no longer says what is.
type WriteStatus struct{}

// Report: a line for the log, at a level of package eventlog.
type Report struct {
	Level        slog.Level
	Text, Detail string
}

func (ProbeNow) effect()    {}
func (DrainPool) effect()   {}
func (WriteStatus) effect() {}
func (Report) effect()      {}
func (AskVote) effect()     {}
func (RunCommand) effect()  {}
func (PromoteBest) effect() {}
func (Repoint) effect()     {}
