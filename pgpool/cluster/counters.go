package cluster

import (
	"sync/atomic"

	"pgpool-go/conf"
)

// Counters counts what was sent to one node and what went wrong there, since
// start: the columns of SHOW POOL_BACKEND_STATS. Statements of our own are
// never counted.
type Counters struct {
	Select, Insert, Update, Delete, DDL, Other atomic.Uint64
	Panic, Fatal, Error                        atomic.Uint64

	_ [56]byte // sessions on other processors count other nodes beside it
}

// AllCounters has the counters of every node by its id.
type AllCounters [conf.MaxBackends]Counters
