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
}

// ProbeFailed: the server of a node did not answer a probe.
type ProbeFailed struct {
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

// Promote: somebody makes a node the primary. The present one is detached;
// the new one takes the writes as soon as it says that it is a primary.
type Promote struct {
	Node int
	By   string
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
func (Promote) event()       {}
func (ConfigChanged) event() {}
func (StatusRead) event()    {}

// Effect is something to be done because of an event.
type Effect interface{ effect() }

// ProbeNow: ask the node, over a new connection, without waiting for its turn.
type ProbeNow struct{ Node int }

// DrainPool: the node is not used any more; close its idle connections.
type DrainPool struct {
	Node   int
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
