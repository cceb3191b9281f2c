package parser

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
)

func TestSharedByLiterals(t *testing.T) {
	p := New(Options{})
	one := func(sql string) *Verdict { return p.Classify([]byte(sql)) }
	same := func(a, b string, want bool) {
		t.Helper()
		if got := one(a) == one(b); got != want {
			t.Errorf("%q and %q share a verdict: %v, want %v", a, b, got, want)
		}
	}
	same("SELECT * FROM t WHERE a = 1", "SELECT * FROM t WHERE a = 234567", true)
	same("SELECT * FROM t WHERE a = 'x'", "SELECT * FROM t WHERE a = 'it''s; DELETE FROM t'", true)
	same("SELECT * FROM t WHERE a = E'x'", "SELECT * FROM t WHERE a = E'it\\'s'", true)
	same("SELECT * FROM t WHERE a = $$x$$", "SELECT * FROM t WHERE a = $q$it's$q$", true)
	same("SELECT * FROM t WHERE a IN (1)", "SELECT * FROM t WHERE a IN (1, 2,3, 4)", true)
	same("SELECT * FROM t WHERE a = 1.5", "SELECT * FROM t WHERE a = 2e10", true)
	same("SELECT *  FROM t WHERE a = 1 -- x", "SELECT * FROM t WHERE a = 2 -- y", true)
	same("SELECT 1", "SELECT 'a'", false)
	same("SELECT 1", "SELECT 1.0", false)
	same("SELECT * FROM t1 WHERE a = 1", "SELECT * FROM t2 WHERE a = 1", false)
	same(`SELECT "1"`, `SELECT "2"`, false)
	same("/* a */ SELECT 1", "/*NO LOAD BALANCE*/ SELECT 1", false)
	same("SELECT 1", " SELECT 1", false)
	same("SELECT set_config('a', 'b', false)", "SELECT set_config('a', 'c', false)", false)
	same("SET a = 1", "SET a = 2", false)
	same("SELECT 1; SELECT 2", "SELECT 1; SELECT 3", false)
	same("SELECT pg_terminate_backend(1)", "SELECT pg_terminate_backend(2)", false)
}

func TestManySessions(t *testing.T) {
	p := New(Options{CacheBytes: 128 << 10})
	texts := make([][]byte, 400)
	want := make([]*Verdict, len(texts))
	for i := range texts {
		texts[i] = fmt.Appendf(nil, "SELECT f%d(i) FROM t%d WHERE i = %d AND j = '%d'", i%40, i%50, i, i)
		want[i] = plain(texts[i])
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			for range 1500 {
				i := r.IntN(len(texts))
				got := p.Classify(texts[i])
				if !reflect.DeepEqual(got.Relations, want[i].Relations) || !reflect.DeepEqual(got.Functions, want[i].Functions) {
					t.Errorf("%s: %v %v", texts[i], got.Relations, got.Functions)
				}
			}
		})
	}
	wg.Wait()
}

// TestCacheIsBounded: however many texts there are, the caches keep their limit
// and the bytes they count are those they hold.
func TestCacheIsBounded(t *testing.T) {
	p := New(Options{CacheBytes: 256 << 10})
	hot := []byte("SELECT hot FROM path WHERE a = 1")
	p.Classify(hot)
	v := p.Classify(hot)
	for i := range 5000 {
		sql := fmt.Appendf(nil, "SELECT c%d FROM t%d", i, i)
		p.Classify(sql)
		if i%20 == 0 && p.Classify(hot) != v {
			t.Fatal("a text in use was pushed out")
		}
	}
	for name, tab := range map[string]*table{"exact": p.exact, "norm": p.norm} {
		held := 0
		for i := range tab.sets {
			for j := range tab.sets[i] {
				if e := tab.sets[i][j].Load(); e != nil {
					held += e.size
				}
			}
		}
		if held != tab.bytes || held > tab.limit {
			t.Errorf("%s: holds %d, counts %d, limit %d", name, held, tab.bytes, tab.limit)
		}
	}
}

// TestSeenOnce: texts that differ in literals do not fill the exact cache.
func TestSeenOnce(t *testing.T) {
	p := New(Options{})
	for i := range 2000 {
		p.Classify(fmt.Appendf(nil, "SELECT * FROM t WHERE a = %d", i))
	}
	if p.exact.bytes > 0 {
		t.Errorf("%d bytes of texts seen once", p.exact.bytes)
	}
}

func TestKeepsNoReference(t *testing.T) {
	p := New(Options{})
	buf := []byte("SELECT a FROM t1")
	v := p.Classify(buf)
	copy(buf, "DELETE FROM    ")
	if v.Relations[0].Name != "t1" || p.Classify([]byte("SELECT a FROM t1")).Class != Select || p.Classify(buf).Class == Select {
		t.Error("the caller's buffer is remembered")
	}
}
