package parser

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
)

var seed = maphash.MakeSeed()

func hashOf(b []byte) uint64 { return maphash.Bytes(seed, b) }

const ways = 8

// A table is a set-associative cache of verdicts by text. Readers take no lock:
// each slot is an atomic pointer to an immutable entry. Writers queue up; they
// have just parsed a statement and are in no hurry.
type table struct {
	sets []bucket // a power of two
	mask uint64

	mu    sync.Mutex // held to change slots
	bytes int        // held by the entries
	limit int
	hand  int // the set where the last sweep ended
}

type bucket [ways]atomic.Pointer[entry]

type entry struct {
	hash    uint64
	text    []byte
	verdict *Verdict
	size    int
	used    atomic.Bool // since the last sweep came by
}

func newTable(limit int) *table {
	n := 1 << bits.Len(uint(max(limit/(1024*ways), 1)))
	return &table{sets: make([]bucket, n), mask: uint64(n - 1), limit: limit}
}

func (t *table) find(hash uint64, text []byte) *Verdict {
	set := &t.sets[hash&t.mask]
	for i := range set {
		e := set[i].Load()
		if e != nil && e.hash == hash && bytes.Equal(e.text, text) {
			if !e.used.Load() { // only then: a shared cache line is not written in vain
				e.used.Store(true)
			}
			return e.verdict
		}
	}
	return nil
}

// add remembers a verdict; size is what it holds beyond the text.
func (t *table) add(hash uint64, text []byte, v *Verdict, size int) {
	size += len(text) + 96
	if size > t.limit/16 {
		return
	}
	e := &entry{hash: hash, text: bytes.Clone(text), verdict: v, size: size}
	t.mu.Lock()
	defer t.mu.Unlock()
	set := &t.sets[hash&t.mask]
	victim := -1
	for i := range set {
		old := set[i].Load()
		if old == nil {
			victim = i
			break
		}
		if old.hash == hash && bytes.Equal(old.text, text) {
			return // another session was faster
		}
		if victim < 0 && !old.used.Swap(false) {
			victim = i
		}
	}
	if victim < 0 {
		victim = int(hash>>56) % ways
	}
	if old := set[victim].Load(); old != nil {
		t.bytes -= old.size
	}
	set[victim].Store(e)
	t.bytes += size
	for t.bytes > t.limit {
		t.sweep(&set[victim])
	}
}

// sweep visits one set: entries not used since the last visit go. keep stays.
func (t *table) sweep(keep *atomic.Pointer[entry]) {
	t.hand = (t.hand + 1) & int(t.mask)
	set := &t.sets[t.hand]
	for i := range set {
		old := set[i].Load()
		if old == nil || &set[i] == keep || old.used.Swap(false) {
			continue
		}
		set[i].Store(nil)
		t.bytes -= old.size
	}
}

// A door lets a text in when it is seen for the second time, so that texts seen
// only once do not push out others.
type door [4096]atomic.Uint64

func (d *door) seen(hash uint64) bool {
	slot := &d[(hash>>20)%uint64(len(d))]
	if slot.Load() == hash {
		return true
	}
	slot.Store(hash)
	return false
}
