package qcache

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgpool-go/conf"
)

func newCache(t testing.TB, change func(*conf.Config)) *Cache {
	t.Helper()
	c := &conf.Config{MemoryCacheEnabled: true, MemqcacheMethod: conf.MemqcacheShmem, MemqcacheTotalSize: 64 << 20, MemqcacheMaxNumCache: 1000,
		MemqcacheMaxcache: 1000, MemqcacheCacheBlockSize: 1 << 20}
	if change != nil {
		change(c)
	}
	return New(c, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// keep asks for a key, and keeps a reply if there is none.
func keep(q *Cache, key string, marks []*Mark, reply string) (had string) {
	got, ticket := q.Find([]byte(key), marks)
	if got == nil && ticket != nil {
		q.Keep([]byte(key), ticket, []byte(reply))
	}
	return string(got)
}

func TestMarks(t *testing.T) {
	q := newCache(t, nil)
	a, b := q.Mark("db", "public.a"), q.Mark("db", "public.b")
	if q.Mark("db", "public.a") != a || q.Mark("other", "public.a") == a {
		t.Fatal("a table has one mark, and each database its own")
	}
	marks := []*Mark{q.All(), q.Mark("db", ""), a}
	check := func(what, want string) {
		t.Helper()
		if got, _ := q.Find([]byte("k"), marks); string(got) != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	keep(q, "k", marks, "1")
	check("kept", "1")
	q.Doubt([]*Mark{b}).End(true)
	check("another table", "1")
	d := q.Doubt([]*Mark{a})
	check("in doubt", "")
	d.End(false)
	check("rolled back", "1")
	d = q.Doubt([]*Mark{a})
	d.End(true)
	d.End(true)
	check("committed", "")

	keep(q, "k", marks, "2")
	check("kept again", "2")
	_, ticket := q.Find([]byte("k2"), marks)
	q.Doubt([]*Mark{a}).End(true)
	q.Keep([]byte("k2"), ticket, []byte("old"))
	if got, _ := q.Find([]byte("k2"), marks); got != nil {
		t.Errorf("what was asked before a write is kept after it: %q", got)
	}
	keep(q, "k", marks, "3")
	q.Clear()
	check("cleared", "")
	keep(q, "k", marks, "4")
	if !q.Forget([]byte("k")) || q.Forget([]byte("k")) {
		t.Error("Forget")
	}
	check("forgotten", "")
}

func TestStandbysMustHaveCaughtUp(t *testing.T) {
	q := newCache(t, nil)
	a := q.Mark("db", "public.a")
	_, ticket := q.Find([]byte("k"), []*Mark{a})
	if q.CaughtUp(1, ticket) {
		t.Error("a standby of which nothing is known")
	}
	q.Replayed(1, time.Now())
	if !q.CaughtUp(1, ticket) {
		t.Error("a standby that has everything")
	}
	q.Doubt([]*Mark{a}).End(true)
	if _, ticket = q.Find([]byte("k"), []*Mark{a}); q.CaughtUp(1, ticket) {
		t.Error("a standby that perhaps lacks a write")
	}
	q.Replayed(1, time.Now())
	if !q.CaughtUp(1, ticket) {
		t.Error("a standby that has the write")
	}
	q.Desert()
	if _, ticket = q.Find([]byte("k"), []*Mark{a}); q.CaughtUp(1, ticket) {
		t.Error("a standby of another primary")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	q := newCache(t, func(c *conf.Config) { c.MemqcacheTotalSize = 100 << 10; c.MemqcacheMaxNumCache = 100 })
	marks := []*Mark{q.All()}
	reply := string(make([]byte, 900))
	keep(q, "used", marks, reply)
	for i := range 1000 {
		keep(q, fmt.Sprint(i), marks, reply)
		if i%10 == 0 && keep(q, "used", marks, reply) == "" {
			t.Fatalf("what is used is dropped at %d", i)
		}
		if s := q.Stats(); s.Bytes > 100<<10 || s.Used > 100 || s.Bytes+s.Free != 100<<10 {
			t.Fatalf("%+v", s)
		}
	}
	if s := q.Stats(); s.Used < 50 || s.Slots != 128 {
		t.Errorf("%+v", s)
	}
	if keep(q, "large", marks, string(make([]byte, 1001))); keep(q, "large", marks, "") != "" {
		t.Error("larger than memqcache_maxcache")
	}
}

func TestExpire(t *testing.T) {
	q := newCache(t, func(c *conf.Config) { c.MemqcacheExpire = time.Minute })
	now := time.Now()
	q.now = func() time.Time { return now }
	marks := []*Mark{q.All()}
	keep(q, "k", marks, "1")
	now = now.Add(59 * time.Second)
	if keep(q, "k", marks, "2") != "1" {
		t.Error("too early")
	}
	now = now.Add(2 * time.Second)
	if keep(q, "k", marks, "2") != "" {
		t.Error("too late")
	}
}

// Readers keep what they have seen of a table that writers change. Nobody may be
// given less than was committed, and made known, before.
func TestNeverStale(t *testing.T) {
	q := newCache(t, nil)
	mark := q.Mark("db", "public.t")
	var table, told atomic.Int64 // what is committed, and what somebody has been told of
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 3000 {
				d := q.Doubt([]*Mark{mark})
				n := table.Add(1)
				d.End(true)
				for old := told.Load(); old < n && !told.CompareAndSwap(old, n); old = told.Load() {
				}
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			for range 20000 {
				least := told.Load()
				got, ticket := q.Find([]byte("k"), []*Mark{mark})
				if got == nil {
					n := table.Load()
					if ticket != nil {
						q.Keep([]byte("k"), ticket, fmt.Append(nil, n))
					}
					continue
				}
				var n int64
				if fmt.Sscan(string(got), &n); n < least {
					t.Errorf("%d, although %d was known", n, least)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkHit(b *testing.B) {
	q := newCache(b, nil)
	marks := []*Mark{q.All(), q.Mark("db", ""), q.Mark("db", "public.t")}
	key := make([]byte, 120)
	keep(q, string(key), marks, "a reply")
	b.ReportAllocs()
	for b.Loop() {
		if got, _ := q.Find(key, marks); got == nil {
			b.Fatal("a miss")
		}
	}
}
