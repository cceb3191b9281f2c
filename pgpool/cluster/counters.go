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

// Figures are what Counters have come to.
type Figures struct {
	Select, Insert, Update, Delete, DDL, Other uint64
	Panic, Fatal, Error                        uint64
}

// lanes is how many sets of counters there are: sessions of different loops count
// in different ones, lest many processors contend for a cache line with each statement.
const lanes = 32

// AllCounters has the counters of every node by its id.
type AllCounters [lanes][conf.MaxBackends]Counters

// sum adds up a node's counters.
func (a *AllCounters) sum(node int) (f Figures) {
	for i := range a {
		c := &a[i][node]
		f.Select += c.Select.Load()
		f.Insert += c.Insert.Load()
		f.Update += c.Update.Load()
		f.Delete += c.Delete.Load()
		f.DDL += c.DDL.Load()
		f.Other += c.Other.Load()
		f.Panic += c.Panic.Load()
		f.Fatal += c.Fatal.Load()
		f.Error += c.Error.Load()
	}
	return f
}
