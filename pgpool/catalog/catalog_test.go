package catalog

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pgpool-go/parser"
)

// fake is a server that knows a few names.
type fake struct {
	mu     sync.Mutex
	rows   map[string][]string // by name: kind of row and its columns
	asked  int
	err    error
	during func()
}

func (f *fake) Ask(_ context.Context, sql string, args ...string) ([][]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.during != nil {
		f.during()
	}
	if f.err != nil {
		return nil, f.err
	}
	var rows [][]string
	for name, r := range f.rows {
		if strings.Contains(strings.Join(args, " "), `"`+name+`"`) {
			rows = append(rows, append([]string{r[0], r[1], name}, r[2:]...))
		}
	}
	return rows, nil
}

func newFake() *fake {
	return &fake{rows: map[string][]string{
		"t":  {"r", "public", "r", "p", "false"},
		"u":  {"r", "public", "r", "u", "false"},
		"fv": {"f", "public", "true", "", ""},
		"fi": {"f", "public", "false", "", ""},
	}}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
}

func TestExpiry(t *testing.T) {
	p := parser.New(parser.Options{})
	path := NewPath("public", "")
	resolve := func(c *Catalog, f *fake, sql string) string {
		t.Helper()
		x, err := c.Resolve(t.Context(), f, "db", path, p.Classify([]byte(sql)))
		if err != nil {
			t.Fatal(err)
		}
		return say(x)
	}

	t.Run("without relcache_expire an answer holds, an absence does not", func(t *testing.T) {
		k, f := &clock{now: time.Unix(1, 0)}, newFake()
		c := New(Options{Now: k.Now})
		resolve(c, f, "SELECT * FROM t")
		resolve(c, f, "SELECT * FROM new_one")
		k.pass(time.Hour)
		resolve(c, f, "SELECT * FROM t")
		if f.asked != 2 {
			t.Errorf("%d questions, want 2", f.asked)
		}
		f.rows["new_one"] = []string{"r", "public", "r", "u", "false"}
		if got := resolve(c, f, "SELECT * FROM new_one"); got != "unlogged public.new_one" || f.asked != 3 {
			t.Errorf("%s after %d questions", got, f.asked)
		}
	})
	t.Run("relcache_expire", func(t *testing.T) {
		k, f := &clock{now: time.Unix(1, 0)}, newFake()
		c := New(Options{Now: k.Now, Expire: time.Minute})
		resolve(c, f, "SELECT * FROM t")
		k.pass(59 * time.Second)
		resolve(c, f, "SELECT * FROM t")
		if f.asked != 1 {
			t.Errorf("%d questions, want 1", f.asked)
		}
		k.pass(2 * time.Second)
		f.rows["t"] = []string{"r", "public", "r", "u", "false"}
		if got := resolve(c, f, "SELECT * FROM t"); got != "unlogged public.t" {
			t.Errorf("%s", got)
		}
	})
	t.Run("schema change while a question is under way", func(t *testing.T) {
		f := newFake()
		c := New(Options{})
		f.during = func() {
			if f.asked == 1 {
				c.Invalidate("db")
				f.rows["t"][3] = "u"
			}
		}
		if got := resolve(c, f, "SELECT * FROM t"); got != "unlogged public.t" || f.asked != 2 {
			t.Errorf("%s after %d questions", got, f.asked)
		}
	})
	t.Run("a schema that never rests", func(t *testing.T) {
		f := newFake()
		c := New(Options{})
		f.during = func() { c.Invalidate("db") }
		if _, err := c.Resolve(t.Context(), f, "db", path, p.Classify([]byte("SELECT * FROM t"))); err == nil {
			t.Error("no error")
		}
	})
	t.Run("a server that refuses", func(t *testing.T) {
		f := newFake()
		f.err = errors.New("no")
		c := New(Options{})
		if _, err := c.Resolve(t.Context(), f, "db", path, p.Classify([]byte("SELECT * FROM t"))); !errors.Is(err, f.err) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a small memory", func(t *testing.T) {
		f := newFake()
		c := New(Options{Size: 2})
		for i := range 100 {
			resolve(c, f, fmt.Sprintf("SELECT f%d(1), g(2), h(3) FROM t%d, t, u", i, i))
		}
		d := c.database("db")
		if n := len(d.relations) + len(d.functions); n > 6 {
			t.Errorf("%d names remembered", n)
		}
	})
}

func TestLookupIsCheap(t *testing.T) {
	p, f := parser.New(parser.Options{}), newFake()
	c := New(Options{})
	path := NewPath("public", "")
	v := p.Classify([]byte("SELECT fi(i) FROM t WHERE i = 1"))
	if _, err := c.Resolve(t.Context(), f, "db", path, v); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := c.Lookup("db", path, v); !ok {
			t.Fatal("not known")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestManySessions(t *testing.T) {
	p, f := parser.New(parser.Options{}), newFake()
	c := New(Options{})
	paths := []*Path{NewPath("public", ""), NewPath("a, public", ""), nil}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				sql := []string{"SELECT * FROM t", "SELECT * FROM u WHERE i = 1", "SELECT fv(1)", "SELECT fi(i) FROM t, u"}[i%4]
				want := []string{"-", "unlogged public.u", "volatile fv, custom", "unlogged public.u"}[i%4]
				got, err := c.Resolve(context.Background(), f, []string{"a", "b"}[g%2], paths[(i/4)%3], p.Classify([]byte(sql)))
				if err != nil || say(got) != want {
					t.Errorf("%s: %v %v", sql, got, err)
				}
				if g == 0 && i%50 == 0 {
					c.Invalidate("b")
				}
			}
		})
	}
	wg.Wait()
}

func TestPath(t *testing.T) {
	for _, x := range []struct {
		setting string
		want    []string
	}{
		{`"$user", public`, []string{"pg_catalog", "bob", "public"}},
		{`App, "App"`, []string{"pg_catalog", "app", "App"}},
		{`a,"b,""c" , pg_catalog`, []string{"a", `b,"c`, "pg_catalog"}},
		{`""`, []string{"pg_catalog"}},
		{``, []string{"pg_catalog"}},
		{`pg_temp, public`, []string{"pg_catalog", "public"}},
	} {
		if got := NewPath(x.setting, "bob").schemas; !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: %q, want %q", x.setting, got, x.want)
		}
	}
}

func TestMutations(t *testing.T) {
	now := time.Unix(100, 0)
	m := NewMutations(MutationOptions{Factor: 5, MaxStaleness: 3 * time.Second, ColdStart: 2 * time.Second, Size: 3}, now)
	names := func(list ...string) (out []parser.Name) {
		for _, n := range list {
			out = append(out, parser.Name{Name: n})
		}
		return out
	}
	check := func(db string, at time.Duration, want string, cold bool, list ...string) {
		t.Helper()
		if got, c := m.Recent(db, names(list...), now.Add(at)); got != want || c != cold {
			t.Errorf("at %v: %q %v, want %q %v", at, got, c, want, cold)
		}
	}
	check("db", time.Second, "", true, "t")
	check("db", 2*time.Second, "", false, "t")
	m.Note("db", []string{"t"}, 100*time.Millisecond, now.Add(2*time.Second))
	check("db", 2400*time.Millisecond, "t", false, "a", "t")
	check("other", 2400*time.Millisecond, "", false, "t")
	check("db", 2500*time.Millisecond, "", false, "t")
	m.Note("db", []string{"t"}, time.Hour, now.Add(3*time.Second)) // at most MaxStaleness
	check("db", 5900*time.Millisecond, "t", false, "t")
	check("db", 6*time.Second, "", false, "t")
	m.Note("db", []string{"t"}, 0, now.Add(7*time.Second)) // no delay measured is not none
	check("db", 7099*time.Millisecond, "t", false, "t")
	check("db", 7100*time.Millisecond, "", false, "t")
	m.Note("db", []string{"a", "b", "c", "d"}, time.Second, now.Add(10*time.Second)) // too many to remember
	check("db", 11*time.Second, "", true, "x")
	check("db", 13*time.Second, "", false, "a")
}

func BenchmarkLookup(b *testing.B) {
	p, f := parser.New(parser.Options{}), newFake()
	c := New(Options{})
	path := NewPath("public", "")
	v := p.Classify([]byte("SELECT fi(i) FROM t WHERE i = 1"))
	if _, err := c.Resolve(b.Context(), f, "db", path, v); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Lookup("db", path, v)
	}
}
