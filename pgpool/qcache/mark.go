package qcache

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Mark is something that replies depend on.
type Mark struct {
	name    name
	epoch   atomic.Uint64
	doubts  atomic.Int32              // commits under way that concern it
	changed atomic.Pointer[time.Time] // when the epoch was last moved on; nil: not since the start
	version atomic.Uint64             // the one last seen in a remote store
}

// name is a table of a database; without a table, the database's schema, and
// without both, everything.
type name struct{ database, table string }

// Mark is that of a table, given as "schema.name"; without a table, of the
// database's schema, on which all its replies depend.
func (q *Cache) Mark(database, table string) *Mark {
	n := name{database, table}
	q.mu.RLock()
	m := q.marks[n]
	q.mu.RUnlock()
	if m != nil {
		return m
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if m = q.marks[n]; m == nil {
		m = &Mark{name: n}
		q.marks[n] = m
	}
	return m
}

// All is the mark that every reply depends on.
func (q *Cache) All() *Mark { return q.all }

// Epoch grows with each change.
func (m *Mark) Epoch() uint64 { return m.epoch.Load() }

// Doubtful tells that a change may be under way.
func (m *Mark) Doubtful() bool { return m.doubts.Load() != 0 }

// A Doubt is a commit on its way: until it has ended nothing that depends on its
// marks is given out.
type Doubt struct {
	cache *Cache
	marks []*Mark
	once  sync.Once
}

// Doubt begins one.
func (q *Cache) Doubt(marks []*Mark) *Doubt {
	for _, m := range marks {
		m.doubts.Add(1)
	}
	return &Doubt{cache: q, marks: marks}
}

// Widen adds marks.
func (d *Doubt) Widen(marks ...*Mark) {
	for _, m := range marks {
		m.doubts.Add(1)
	}
	d.marks = append(d.marks[:len(d.marks):len(d.marks)], marks...)
}

// Marks are what is in doubt.
func (d *Doubt) Marks() []*Mark { return d.marks }

// End tells the outcome. If it has been committed, or perhaps has, all that
// depends on the marks is wrong from now on.
func (d *Doubt) End(committed bool) {
	d.once.Do(func() {
		if committed {
			for _, m := range d.marks {
				m.epoch.Add(1)
			}
			d.cache.store.moved(d.marks)
			now := d.cache.now() // when all is done: who has seen everything up to then has seen this
			for _, m := range d.marks {
				m.changed.Store(&now)
			}
		}
		for _, m := range d.marks {
			m.doubts.Add(-1)
		}
	})
}

// orphans are doubts whose session has ended before the outcome was known: the
// server may still be at work on them.
type orphans struct {
	mu   sync.Mutex
	list []Orphan
}

// An Orphan is a commit whose outcome nobody waits for any more. It is over when
// the server's process has ended, or its server is not the primary any more.
type Orphan struct {
	*Doubt
	Node int
	PID  uint32
}

// Abandon leaves a doubt to whoever looks after Orphans.
func (q *Cache) Abandon(d *Doubt, node int, pid uint32) {
	q.orphans.mu.Lock()
	defer q.orphans.mu.Unlock()
	q.orphans.list = append(q.orphans.list, Orphan{d, node, pid})
}

// Orphans takes the doubts that somebody has to look after. Those that are still
// in doubt are to be given back by Abandon.
func (q *Cache) Orphans() []Orphan {
	q.orphans.mu.Lock()
	defer q.orphans.mu.Unlock()
	list := q.orphans.list
	q.orphans.list = nil
	return list
}
