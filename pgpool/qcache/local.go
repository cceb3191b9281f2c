package qcache

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync"
	"time"
)

// local keeps replies in our own memory. It is cut into shards by key, each with
// its lock, its share of the room, and its own order of use.
type local struct {
	seed   maphash.Seed
	shards []shard
	slots  int
	total  int64
}

type shard struct {
	mu      sync.Mutex
	entries map[uint64]*kept
	recent  kept // ring of all, most recently used first
	bytes   int64

	room int64
	most int
	_    [64]byte // a shard's lock shares no cache line with its neighbour
}

// kept is a reply. Two keys of one hash are not kept both.
type kept struct {
	next, prev *kept
	hash       uint64
	key        []byte
	marks      []*Mark
	epochs     []uint64
	reply      []byte
	expires    time.Time // zero: never
}

func (e *kept) size() int64 {
	return int64(len(e.key) + len(e.reply) + 16*len(e.marks) + keptSize)
}

// keptSize is about what an entry takes besides its key, marks and reply.
const keptSize = 256

// true tells that nothing the reply depends on has changed.
func (e *kept) true(now time.Time) bool {
	for i, m := range e.marks {
		if m.epoch.Load() != e.epochs[i] {
			return false
		}
	}
	return e.expires.IsZero() || now.Before(e.expires)
}

// newLocal makes a store of so many bytes and entries. Replies of largest bytes
// must fit into a shard some times over.
func newLocal(total int64, slots, largest int) *local {
	n := 16
	for n > 1 && (total/int64(n) < 4*int64(largest) || slots/n < 64) {
		n /= 2
	}
	l := &local{seed: maphash.MakeSeed(), shards: make([]shard, n), total: total}
	if slots > 0 {
		l.slots = 1 << bits.Len(uint(slots-1)) // the original's table has a power of two
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.entries = make(map[uint64]*kept)
		s.recent.next, s.recent.prev = &s.recent, &s.recent
		s.room, s.most = total/int64(n), max(slots/n, 1)
	}
	return l
}

func (l *local) remote() bool { return false }

func (l *local) at(key []byte) (*shard, uint64) {
	h := maphash.Bytes(l.seed, key)
	return &l.shards[h%uint64(len(l.shards))], h
}

func (l *local) find(key []byte, marks []*Mark, now time.Time) ([]byte, []uint64) {
	s, hash := l.at(key)
	s.mu.Lock()
	if e := s.entries[hash]; e != nil && bytes.Equal(e.key, key) {
		if e.true(now) {
			s.unlink(e)
			s.link(e)
			s.mu.Unlock()
			return e.reply, nil
		}
		s.remove(e)
	}
	s.mu.Unlock()
	epochs := make([]uint64, len(marks))
	for i, m := range marks {
		epochs[i] = m.epoch.Load()
	}
	return nil, epochs
}

func (l *local) keep(key []byte, marks []*Mark, epochs []uint64, reply []byte, expires time.Time) {
	s, hash := l.at(key)
	e := &kept{hash: hash, key: key, marks: marks, epochs: epochs, reply: reply, expires: expires}
	size := e.size()
	if size > s.room {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[hash]; old != nil {
		s.remove(old)
	}
	for s.bytes+size > s.room || len(s.entries) >= s.most {
		s.remove(s.recent.prev)
	}
	s.entries[hash] = e
	s.bytes += size
	s.link(e)
}

func (l *local) forget(key []byte) bool {
	s, hash := l.at(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[hash]
	if e == nil || !bytes.Equal(e.key, key) {
		return false
	}
	s.remove(e)
	return true
}

// moved drops everything if everything has changed. Otherwise it has nothing to
// do: what has become wrong is dropped when it is asked for, or when its turn has
// come because nobody does.
func (l *local) moved(marks []*Mark) {
	for _, m := range marks {
		if m.name != (name{}) {
			continue
		}
		for i := range l.shards {
			s := &l.shards[i]
			s.mu.Lock()
			clear(s.entries)
			s.recent.next, s.recent.prev = &s.recent, &s.recent
			s.bytes = 0
			s.mu.Unlock()
		}
	}
}

// size counts what is true. It drops the rest, so that the figures are those of a
// cache from which a write has taken away what it made wrong.
func (l *local) size() Size {
	z := Size{Slots: l.slots}
	now := time.Now()
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			if !e.true(now) {
				s.remove(e)
			}
		}
		z.Used += len(s.entries)
		z.Bytes += s.bytes
		s.mu.Unlock()
	}
	z.Free = max(0, l.total-z.Bytes)
	return z
}

// remove, link and unlink want the lock to be held.
func (s *shard) remove(e *kept) {
	s.unlink(e)
	delete(s.entries, e.hash)
	s.bytes -= e.size()
}

func (s *shard) link(e *kept) {
	e.prev, e.next = &s.recent, s.recent.next
	e.prev.next, e.next.prev = e, e
}

func (s *shard) unlink(e *kept) { e.prev.next, e.next.prev = e.next, e.prev }
