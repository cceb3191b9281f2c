package catalog

import (
	"sync"
	"time"

	"pgpool-go/parser"
)

// Mutations remembers which tables have been written a moment ago, by any
// session: under disable_load_balance_on_write = dml_adaptive_global their reads
// stay on the primary until the standbys have surely caught up. Names are bare,
// as those of dml_adaptive.
type Mutations struct {
	mu    sync.RWMutex
	o     MutationOptions
	until map[table]time.Time
	ready time.Time // when enough is known: the end of the cold start
}

type table struct{ db, name string }

// MutationOptions are the track_table_mutation_* settings.
type MutationOptions struct {
	Factor       float64       // ttl_factor: an entry lives so many times the replication delay
	MaxStaleness time.Duration // the longest life; 0: unlimited
	ColdStart    time.Duration // after the start, so long all reads go to the primary
	Size         int           // tables remembered
}

// NewMutations starts with nothing known, at the time given.
func NewMutations(o MutationOptions, now time.Time) *Mutations {
	return &Mutations{o: o, until: map[table]time.Time{}, ready: now.Add(o.ColdStart)}
}

// Configure replaces the measures; what is known stays.
func (m *Mutations) Configure(o MutationOptions) {
	m.mu.Lock()
	m.o = o
	m.mu.Unlock()
}

// least is the shortest life of an entry: a delay measured as nothing was
// measured a while ago.
const least = 100 * time.Millisecond

// Note remembers that tables have been written; delay is that of the standby
// furthest behind.
func (m *Mutations) Note(db string, tables []string, delay time.Duration, now time.Time) {
	if len(tables) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	life := max(time.Duration(float64(delay)*m.o.Factor), least)
	if m.o.MaxStaleness > 0 {
		life = min(life, m.o.MaxStaleness)
	}
	end := now.Add(life)
	if len(m.until)+len(tables) > m.o.Size {
		for k, t := range m.until {
			if !now.Before(t) {
				delete(m.until, k)
			}
		}
		if len(m.until)+len(tables) > m.o.Size {
			// No room to remember them: for their life nothing is known.
			if end.After(m.ready) {
				m.ready = end
			}
			return
		}
	}
	for _, n := range tables {
		k := table{db, n}
		if end.After(m.until[k]) {
			m.until[k] = end
		}
	}
}

// Recent gives the first of the names that has been written a moment ago, or "".
// cold: too little is known to say.
func (m *Mutations) Recent(db string, names []parser.Name, now time.Time) (name string, cold bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if now.Before(m.ready) {
		return "", true
	}
	for _, n := range names {
		if t, ok := m.until[table{db, n.Name}]; ok && now.Before(t) {
			return n.String(), false
		}
	}
	return "", false
}
