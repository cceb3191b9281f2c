package pgpool_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgpool-go/tools/testcluster"
)

// memcached is a real one.
type memcached struct {
	t    *testing.T
	port int
	cmd  *exec.Cmd
}

func (m *memcached) start() {
	m.t.Helper()
	cmd, err := testcluster.Command(m.t.Context(), "memcached", "-l", "127.0.0.1", "-p", fmt.Sprint(m.port), "-U", "0", "-m", "64")
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		m.t.Fatalf("%v (make testdeps)", err)
	}
	m.cmd = cmd
	eventually(m.t, "memcached listens", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (m *memcached) stop() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

// Two pgpools share a memcached, which is stopped and started while clients read
// and write.
func TestQueryCacheMemcached(t *testing.T) {
	mem := &memcached{t: t, port: freePort(t)}
	mem.start()
	t.Cleanup(func() { mem.stop() })
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	lines := append(backends(c, 1, 0, 0), "memory_cache_enabled = on", "memqcache_method = 'memcached'", "memqcache_memcached_host = '127.0.0.1'",
		fmt.Sprintf("memqcache_memcached_port = %d", mem.port), "num_init_children = 20")
	fronts := []*front{serve(t, c, lines...), serve(t, c, lines...)}
	fronts[0].MustExec(0, "CREATE TABLE mc (k int PRIMARY KEY, v int); INSERT INTO mc SELECT k, 0 FROM generate_series(0, 3) k")
	a, b := fronts[0].plain(), fronts[1].plain()
	const r = "SELECT v FROM mc WHERE k = 0"
	a.must(r)
	for i, p := range []*plain{a, b} {
		// Of the same servers, with the same user: either gives out what the other has kept.
		eventually(t, fmt.Sprintf("a hit on pgpool %d", i), func() bool { _, hit := p.hit(r); return hit })
	}
	for i := range 5 {
		b.must(fmt.Sprintf("UPDATE mc SET v = %d WHERE k = 0", i))
		if got := a.must(r); got != fmt.Sprint(i) {
			t.Errorf("the other pgpool's write: %s, want %d", got, i)
		}
		if _, hit := b.hit(r); !hit {
			t.Error("what one has kept the other does not find")
		}
		a.must("PGPOOL SET CACHE DELETE '" + r + "'")
		if _, hit := b.hit(r); hit {
			t.Error("kept after CACHE DELETE")
		}
	}

	// Each client has a row of its own, so that it knows what it must read.
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	for k := range 4 {
		f := fronts[k%2]
		p := f.plain()
		wg.Go(func() {
			for v := 1; ctx.Err() == nil; v++ {
				if _, err := p.run(fmt.Sprintf("UPDATE mc SET v = %d WHERE k = %d", v, k)); err != nil {
					t.Errorf("write: %v", err)
					failed.Add(1)
					return
				}
				for range 5 {
					if got, err := p.run(fmt.Sprintf("SELECT v FROM mc WHERE k = %d", k)); err != nil || got != fmt.Sprint(v) {
						t.Errorf("read %q, want %d: %v", got, v, err)
						failed.Add(1)
						return
					}
					done.Add(1)
				}
			}
		})
	}
	for range 2 {
		mem.stop()
		before := done.Load()
		for _, f := range fronts {
			eventually(t, "a warning", func() bool { return strings.Contains(f.Log.String(), "memcached cannot be used") || failed.Load() > 0 })
		}
		eventually(t, "reads go on", func() bool { return done.Load() > before+100 || failed.Load() > 0 })
		mem.start()
		for _, p := range []*plain{a, b} {
			eventually(t, "the cache is used again", func() bool {
				p.must("SELECT 'again'")
				_, hit := p.hit("SELECT 'again'")
				return hit || failed.Load() > 0
			})
		}
	}
	stop()
	wg.Wait()
	for i, f := range fronts {
		log := f.Log.String()
		if n := strings.Count(log, "memcached cannot be used"); n > 2 {
			t.Errorf("pgpool %d warns %d times", i, n)
		}
		if !strings.Contains(log, "memcached is used again") {
			t.Errorf("pgpool %d does not tell that memcached is back", i)
		}
	}
	t.Logf("%d reads, %s and %s", done.Load(), a.must("SHOW POOL_CACHE"), b.must("SHOW POOL_CACHE"))
}
