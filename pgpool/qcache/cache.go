package qcache

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/conf"
)

// A Cache is the query cache of a process. Safe for all goroutines.
type Cache struct {
	store   store
	limit   int // bytes of a reply that is kept
	expire  time.Duration
	started time.Time
	now     func() time.Time
	all     *Mark

	mu    sync.RWMutex
	marks map[name]*Mark // guarded; a mark is never taken out

	hits, misses atomic.Uint64
	replayed     sync.Map // node → time.Time
	orphans      orphans
	tallies      tallies
}

// store is where replies are. Its calls may block if it is remote.
type store interface {
	// find gives the reply kept under a key, if what it depends on is as it was then;
	// else how that is now. A nil versions: this cannot be told, so that nothing can
	// be kept either.
	find(key []byte, marks []*Mark, now time.Time) (reply []byte, versions []uint64)
	// keep keeps a reply with how what it depends on was before the server was asked.
	keep(key []byte, marks []*Mark, versions []uint64, reply []byte, expires time.Time)
	forget(key []byte) bool
	// moved hears of marks that have moved on, before anybody is told so.
	moved(marks []*Mark)
	remote() bool
	size() Size
}

// Size is what SHOW POOL_CACHE tells of a store.
type Size struct {
	Slots, Used int // entries there can be, and are
	Bytes, Free int64
}

// overhead is what the original adds to a reply's length for its own data.
const overhead = 64

// New makes the cache that a configuration describes; nil if it is off.
func New(c *conf.Config, log *slog.Logger) *Cache {
	if !c.MemoryCacheEnabled {
		return nil
	}
	q := &Cache{limit: int(min(c.MemqcacheMaxcache, c.MemqcacheCacheBlockSize-overhead)), expire: c.MemqcacheExpire, now: time.Now, marks: make(map[name]*Mark)}
	q.started = q.now()
	q.all = q.Mark("", "")
	if c.MemqcacheMethod == conf.MemqcacheMemcached {
		q.limit = int(min(c.MemqcacheMaxcache, memcachedLimit))
		q.store = newMemcached(c, q.all, log)
	} else {
		q.store = newLocal(c.MemqcacheTotalSize, c.MemqcacheMaxNumCache, q.limit)
	}
	return q
}

// Limit is the size of the largest reply that is kept, in bytes.
func (q *Cache) Limit() int { return q.limit }

// Remote tells that Find, Keep, Forget, Clear and what ends a Doubt may have to
// wait for a network.
func (q *Cache) Remote() bool { return q.store.remote() }

// A Ticket is the right to keep a reply that Find did not have.
type Ticket struct {
	marks    []*Mark
	epochs   []uint64
	versions []uint64
	// Settled is when what the reply depends on was last changed, as far as known: it
	// must come from a server that has seen all of that.
	Settled time.Time
}

// Find gives the reply that is kept under a key, or a ticket to keep one, which is
// nil if nothing can be kept now. marks are what the reply depends on. Neither key
// nor marks are kept.
func (q *Cache) Find(key []byte, marks []*Mark) ([]byte, *Ticket) {
	for _, m := range marks {
		if m.doubts.Load() != 0 {
			q.misses.Add(1)
			return nil, nil // what comes back now may be wrong in a moment
		}
	}
	var now time.Time
	if q.expire > 0 || q.store.remote() { // else nobody asks
		now = q.now()
	}
	reply, versions := q.store.find(key, marks, now)
	// Doubts are looked at again: those that were there before what was found have
	// ended by now, so that Settled counts them, and those that begin from here on
	// will find the ticket outdated.
	for _, m := range marks {
		if m.doubts.Load() != 0 {
			q.misses.Add(1)
			return nil, nil
		}
	}
	if reply != nil {
		q.hits.Add(1)
		return reply, nil
	}
	q.misses.Add(1)
	if versions == nil {
		return nil, nil
	}
	t := &Ticket{marks: marks, versions: versions, Settled: q.started}
	if !q.store.remote() {
		t.epochs = versions
	} else {
		for _, m := range marks {
			t.epochs = append(t.epochs, m.epoch.Load())
		}
	}
	for _, m := range marks {
		if at := m.changed.Load(); at != nil && at.After(t.Settled) {
			t.Settled = *at
		}
	}
	return nil, t
}

// Keep keeps a reply, if nothing it depends on has changed since its ticket was
// given. Neither key nor reply may be changed afterwards.
func (q *Cache) Keep(key []byte, t *Ticket, reply []byte) {
	if len(reply) > q.limit {
		return
	}
	for i, m := range t.marks {
		if m.epoch.Load() != t.epochs[i] {
			return
		}
	}
	var expires time.Time
	if q.expire > 0 {
		expires = q.now().Add(q.expire)
	}
	q.store.keep(key, t.marks, t.versions, reply, expires)
}

// Forget drops what is kept under a key, and reports whether there was something.
func (q *Cache) Forget(key []byte) bool { return q.store.forget(key) }

// Clear drops everything.
func (q *Cache) Clear() { q.Doubt([]*Mark{q.all}).End(true) }

// Replayed tells that a standby has all that was committed before a moment.
func (q *Cache) Replayed(node int, before time.Time) { q.replayed.Store(node, before) }

// CaughtUp tells whether a standby has all that a ticket knows to have been
// written. That must be asked before the standby is.
func (q *Cache) CaughtUp(node int, t *Ticket) bool {
	before, ok := q.replayed.Load(node)
	return ok && before.(time.Time).After(t.Settled)
}

// Desert is told that another node has become the primary: what is known of
// standbys is out of date, and perhaps so is what is kept.
func (q *Cache) Desert() {
	q.replayed.Clear()
	q.Clear()
}

// Stats are the figures of the cache.
type Stats struct {
	Size
	Hits, Misses uint64 // SELECTs answered, and not answered, from the cache
	Since        time.Time
}

// Stats gives the figures as they are now; without a cache they are the original's
// while its cache is off.
func (q *Cache) Stats() Stats {
	if q == nil {
		return Stats{Since: time.Unix(0, 0)}
	}
	return Stats{Size: q.store.size(), Hits: q.hits.Load(), Misses: q.misses.Load(), Since: q.started}
}
