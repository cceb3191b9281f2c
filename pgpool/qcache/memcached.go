package qcache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"pgpool-go/conf"
)

// memcached keeps replies in a memcached, and with them the versions of marks, so
// that all pgpools that share it learn of each other's writes. A version is a
// random number: if memcached has lost one, its successor makes what depends on
// it wrong. A reply and the versions it depends on come in one round trip.
//
// While it cannot be had there is no cache. Should a change not have been told to
// it, nothing is taken from it until it has been told that everything has changed.
type memcached struct {
	client *memcache.Client
	all    *Mark
	log    *slog.Logger
	addr   string

	untold, made atomic.Uint64 // changes that it was not told of, and up to which that is made good
	down         atomic.Bool
	mu           sync.Mutex // held by whoever looks whether it is back
	retry        time.Time  // guarded: when to look next
}

const (
	memcachedLimit   = 1<<20 - 4<<10 // of an item, as memcached is configured by default, and room for our own data
	memcachedTimeout = 500 * time.Millisecond
	memcachedRetry   = time.Second
	memcachedIdle    = 64      // connections kept
	longestExpiry    = 2592000 // seconds; what is longer memcached takes for a date
)

// levelLog is LOG as the event log counts levels.
const levelLog slog.Level = 10

func newMemcached(c *conf.Config, all *Mark, log *slog.Logger) *memcached {
	addr := net.JoinHostPort(c.MemqcacheMemcachedHost, strconv.Itoa(c.MemqcacheMemcachedPort))
	m := &memcached{client: memcache.New(addr), all: all, log: log, addr: addr}
	m.client.Timeout, m.client.MaxIdleConns = memcachedTimeout, memcachedIdle
	return m
}

func (m *memcached) remote() bool { return true }

// keyOf names a reply, and nameOf a mark.
func keyOf(key []byte) string {
	sum := sha256.Sum256(key)
	return "pgpool-go:r:" + hex.EncodeToString(sum[:])
}

func nameOf(k *Mark) string {
	sum := sha256.Sum256([]byte(k.name.database + "\x00" + k.name.table))
	return "pgpool-go:m:" + hex.EncodeToString(sum[:20])
}

// usable tells whether memcached can be asked; if it could not, it is looked
// whether it is back.
func (m *memcached) usable() bool {
	if !m.down.Load() && m.untold.Load() == m.made.Load() {
		return true
	}
	if !m.mu.TryLock() {
		return false
	}
	defer m.mu.Unlock()
	if time.Now().Before(m.retry) {
		return false
	}
	m.retry = time.Now().Add(memcachedRetry)
	untold := m.untold.Load()
	if m.client.Set(versionItem(m.all, freshVersion())) != nil {
		m.client.Close()
		return false
	}
	m.made.Store(untold)
	if m.down.Swap(false) {
		m.log.LogAttrs(context.Background(), levelLog, "memcached is used again", slog.String("detail", m.addr))
	}
	return m.untold.Load() == untold
}

// do asks memcached something, twice if the first connection was an old one that
// memcached has left meanwhile.
func (m *memcached) do(ask func() error) error {
	err := ask()
	if answered(err) {
		return err
	}
	m.client.Close()
	if err = ask(); answered(err) {
		return err
	}
	if !m.down.Swap(true) {
		m.log.LogAttrs(context.Background(), slog.LevelWarn, "memcached cannot be used, queries go on without cache",
			slog.String("detail", m.addr+": "+err.Error()))
	}
	return err
}

// answered tells that memcached has answered, if only that there is nothing.
func answered(err error) bool {
	return err == nil || errors.Is(err, memcache.ErrCacheMiss) || errors.Is(err, memcache.ErrNotStored)
}

func (m *memcached) find(key []byte, marks []*Mark, now time.Time) (reply []byte, versions []uint64) {
	if !m.usable() {
		return nil, nil
	}
	untold := m.untold.Load()
	names := make([]string, 1, 1+len(marks))
	names[0] = keyOf(key)
	for _, k := range marks {
		names = append(names, nameOf(k))
	}
	var items map[string]*memcache.Item
	err := m.do(func() (err error) {
		items, err = m.client.GetMulti(names)
		return err
	})
	if err != nil {
		return nil, nil
	}
	versions = make([]uint64, len(marks))
	for i, k := range marks {
		it := items[names[1+i]]
		if it == nil {
			if it = m.introduce(k); it == nil {
				return nil, nil
			}
			delete(items, names[0])
		}
		if len(it.Value) != 8 {
			return nil, nil // not ours
		}
		versions[i] = binary.BigEndian.Uint64(it.Value)
		if k.version.Load() != versions[i] { // perhaps another pgpool's doing, some time before
			k.changed.Store(&now)
			k.version.Store(versions[i])
		}
	}
	if m.untold.Load() != untold {
		return nil, nil
	}
	if it := items[names[0]]; it != nil {
		return unpack(it.Value, versions), versions
	}
	return nil, versions
}

// introduce makes a version for a mark that memcached does not know (any more).
func (m *memcached) introduce(k *Mark) *memcache.Item {
	it := versionItem(k, freshVersion())
	err := m.do(func() error { return m.client.Add(it) })
	if errors.Is(err, memcache.ErrNotStored) { // somebody was faster
		err = m.do(func() (err error) {
			it, err = m.client.Get(it.Key)
			return err
		})
	}
	if err != nil {
		return nil
	}
	return it
}

func (m *memcached) keep(key []byte, marks []*Mark, versions []uint64, reply []byte, expires time.Time) {
	if !m.usable() {
		return
	}
	it := &memcache.Item{Key: keyOf(key), Value: pack(versions, reply)}
	if !expires.IsZero() {
		seconds := max(1, int64(time.Until(expires)/time.Second))
		if seconds > longestExpiry {
			seconds = expires.Unix()
		}
		it.Expiration = int32(min(seconds, 1<<31-1))
	}
	m.do(func() error { return m.client.Set(it) })
}

func (m *memcached) forget(key []byte) bool {
	return m.usable() && m.do(func() error { return m.client.Delete(keyOf(key)) }) == nil
}

// moved tells memcached of changes. What it cannot be told is made up for when it
// is back.
func (m *memcached) moved(marks []*Mark) {
	for _, k := range marks {
		if !m.usable() || m.do(func() error { return m.client.Set(versionItem(k, freshVersion())) }) != nil {
			m.untold.Add(1)
			return
		}
	}
}

// size is nothing, as in the original: memcached knows.
func (m *memcached) size() Size { return Size{} }

// freshVersion is never 0.
func freshVersion() uint64 { return rand.Uint64() | 1 }

func versionItem(k *Mark, version uint64) *memcache.Item {
	return &memcache.Item{Key: nameOf(k), Value: binary.BigEndian.AppendUint64(nil, version)}
}

// pack writes a reply behind the versions it depends on; unpack gives it back if
// those are as they were, else nil.
func pack(versions []uint64, reply []byte) []byte {
	b := make([]byte, 0, 2+8*len(versions)+len(reply))
	b = binary.BigEndian.AppendUint16(b, uint16(len(versions)))
	for _, v := range versions {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, reply...)
}

func unpack(b []byte, versions []uint64) []byte {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) != len(versions) || len(b) <= 2+8*len(versions) {
		return nil
	}
	b = b[2:]
	for i, v := range versions {
		if binary.BigEndian.Uint64(b[8*i:]) != v {
			return nil
		}
	}
	return b[8*len(versions):]
}
