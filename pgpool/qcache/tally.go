package qcache

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// A Tally counts how often the reads of one text in one database have been answered
// from the cache, and how often they have not. Safe for all goroutines.
type Tally struct {
	of           tallied
	hits, misses atomic.Uint64
	unlisted     atomic.Bool // it has made room for others
	before       uint64      // guarded by tallies.mu: what it had counted when room was last made
}

type tallied struct{ database, statement string }

// tallies are those that are listed. When there are too many, the half goes that has
// been counted least since the last time.
type tallies struct {
	mu   sync.Mutex
	list map[tallied]*Tally
}

// TallyText is how much of a statement's text is kept, in bytes, and maxTallies of how
// many statements.
const (
	TallyText  = 1 << 10
	maxTallies = 1000
)

// Tally is that of a statement, given as it may be shown to anybody.
func (q *Cache) Tally(database, statement string) *Tally {
	l := &q.tallies
	l.mu.Lock()
	defer l.mu.Unlock()
	of := tallied{database, statement}
	t := l.list[of]
	if t == nil {
		t = &Tally{of: of}
		l.add(t)
	}
	return t
}

// Count adds a read to its statement's.
func (q *Cache) Count(t *Tally, hit bool) {
	if t.unlisted.Load() {
		t = q.relist(t)
	}
	if hit {
		t.hits.Add(1)
	} else {
		t.misses.Add(1)
	}
}

// relist lists a statement again that is in use after all.
func (q *Cache) relist(t *Tally) *Tally {
	l := &q.tallies
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.list[t.of]; now != nil {
		return now
	}
	l.add(t)
	t.unlisted.Store(false)
	return t
}

// add wants the lock to be held.
func (l *tallies) add(t *Tally) {
	if len(l.list) >= maxTallies {
		l.thin()
	}
	if l.list == nil {
		l.list = make(map[tallied]*Tally)
	}
	l.list[t.of] = t
}

func (l *tallies) thin() {
	all := make([]*Tally, 0, len(l.list))
	for _, t := range l.list {
		all = append(all, t)
	}
	recent := func(t *Tally) uint64 { return t.hits.Load() + t.misses.Load() - t.before }
	uses := make(map[*Tally]uint64, len(all)) // they go on counting
	for _, t := range all {
		uses[t] = recent(t)
	}
	slices.SortFunc(all, func(a, b *Tally) int { return cmp.Compare(uses[a], uses[b]) })
	for i, t := range all {
		if t.before += uses[t]; i < len(all)/2 {
			delete(l.list, t.of)
			t.unlisted.Store(true)
		}
	}
}

// StatementStats are the figures of one statement.
type StatementStats struct {
	Database, Statement string
	Hits, Misses        uint64
}

// Statements gives the figures of each statement that is listed, the most read first.
func (q *Cache) Statements() (out []StatementStats) {
	if q == nil {
		return nil
	}
	l := &q.tallies
	l.mu.Lock()
	for _, t := range l.list {
		out = append(out, StatementStats{t.of.database, t.of.statement, t.hits.Load(), t.misses.Load()})
	}
	l.mu.Unlock()
	slices.SortFunc(out, func(a, b StatementStats) int {
		return cmp.Or(cmp.Compare(b.Hits+b.Misses, a.Hits+a.Misses), cmp.Compare(a.Database, b.Database), cmp.Compare(a.Statement, b.Statement))
	})
	return out
}
