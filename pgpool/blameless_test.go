package pgpool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/testcluster"
)

// users are clients that write and read, come again when they are thrown out, and
// note what they were told.
type users struct {
	f      *front
	stop   context.CancelFunc
	all    sync.WaitGroup
	served atomic.Int64

	mu    sync.Mutex
	codes map[string]int // SQLSTATEs, and words where there was none
}

func (f *front) users(clients int) *users {
	ctx, stop := context.WithCancel(f.t.Context())
	c := &users{f: f, stop: stop, codes: map[string]int{}}
	for i := range clients {
		c.all.Go(func() {
			for ctx.Err() == nil {
				if err := c.visit(ctx, i%2 == 0); err != nil && ctx.Err() == nil {
					c.note(err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	return c
}

// visit is one connection, up to its first error.
func (c *users) visit(ctx context.Context, writes bool) error {
	conn, err := pgx.Connect(ctx, c.f.URL(testcluster.Superuser, "postgres", "default_query_exec_mode", "simple_protocol"))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for ctx.Err() == nil {
		if writes {
			_, err = conn.Exec(ctx, "insert into t values ('x')")
		} else {
			_, err = conn.Exec(ctx, "select count(*) from t")
		}
		if err != nil {
			return err
		}
		c.served.Add(1)
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

func (c *users) note(err error) {
	word := err.Error()
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		word = e.Code
	} else if _, ok := errors.AsType[net.Error](err); ok || strings.Contains(word, "unexpected EOF") {
		word = "ended" // the server closed while we were writing
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.codes[word]++
}

// goesOn waits until n more statements were answered.
func (c *users) goesOn(n int64) {
	c.f.t.Helper()
	from := c.served.Load()
	eventually(c.f.t, "clients are served", func() bool { return c.served.Load() >= from+n })
}

// end sends the clients away and fails the test if they were told more than may be.
func (c *users) end(t *testing.T, allowed ...string) {
	t.Helper()
	c.stop()
	c.all.Wait()
	t.Logf("%d statements answered, errors %v", c.served.Load(), c.codes)
	for _, code := range allowed {
		delete(c.codes, code)
	}
	if len(c.codes) > 0 {
		t.Errorf("clients were told %v", c.codes)
	}
}

// An operator's scripts are not run, and no node is detached, for what is no failure
// of a node: sessions that are terminated, ours among them, a standby that is
// restarted, and servers that take no more connections. Then one fails indeed.
func TestNoFailoverWithoutFailure(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2, Conf: map[string]string{"max_connections": "60"}})
	f := serve(t, c, append(backends(c, 1, 1, 1), "num_init_children = 200", "max_pool = 1", "failover_on_backend_error = on", "failover_hold_timeout = 60",
		"health_check_timeout = 20", "health_check_max_retries = 0", "connect_timeout = 10000")...)
	path, notes := f.failoverScript()
	f.reload("failover_command = '"+path+" failover "+placeholders+"'", "failback_command = '"+path+" failback "+placeholders+"'",
		"follow_primary_command = '"+path+" follow "+placeholders+"'")
	f.MustExec(0, "create table t (v text)")
	f.Must(f.WaitCatchup())
	f.healthy()
	// checked waits for so many more health checks of every node.
	checked := func(t *testing.T, n uint64) {
		t.Helper()
		var from [3]uint64
		for i := range from {
			from[i] = f.Server.Health(i).Total
		}
		eventually(t, "health checks", func() bool {
			for i := range from {
				if f.Server.Health(i).Total < from[i]+n {
					return false
				}
			}
			return true
		})
	}
	blameless := func(t *testing.T) {
		t.Helper()
		if text, err := os.ReadFile(notes); err == nil {
			t.Fatalf("commands were run:\n%s", text)
		}
		f.settled("all nodes are used", func(s *cluster.Snapshot) bool {
			return s.Primary == 0 && s.Nodes[0].Usable() && s.Nodes[1].Usable() && s.Nodes[2].Usable()
		})
		if h := f.Server.Snapshot(); h.LastJob != 0 {
			t.Errorf("there were %d failovers and failbacks", h.LastJob)
		}
	}

	t.Run("pg_terminate_backend", func(t *testing.T) {
		f.Log.forget()
		all := f.users(20)
		for round := range 9 {
			all.goesOn(40)
			for node := range f.Nodes {
				if node == 2 && round%3 > 0 {
					continue
				}
				f.MustExec(node, "select count(pg_terminate_backend(pid)) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()")
			}
		}
		checked(t, 1)
		all.end(t, "57P01", "ended")
		blameless(t)
		if strings.Contains(f.Log.String(), "is not used any more") {
			t.Errorf("a node was not used for a while:\n%s", f.Log.tail(60))
		}
	})

	t.Run("pg_ctl restart of a standby", func(t *testing.T) {
		f.reload("health_check_max_retries = 30", "health_check_retry_delay = 1")
		all := f.users(20)
		for _, mode := range []testcluster.StopMode{testcluster.Fast, testcluster.Immediate} {
			all.goesOn(40)
			f.Must(f.Nodes[1].Restart(mode))
			f.settled("node 1 is back", usable(1, true))
		}
		all.goesOn(40)
		all.end(t, "57P01", "57P02", "ended")
		blameless(t)
		f.reload("health_check_max_retries = 0")
	})

	t.Run("more than max_connections", func(t *testing.T) {
		f.Log.forget()
		// The servers are filled up from elsewhere, down to the places of superusers,
		// and many come to pgpool at once besides.
		var others []*pgx.Conn
		defer func() {
			for _, o := range others {
				o.Close(context.Background())
			}
		}()
		all := f.users(100)
		for node := range f.Nodes {
			for range 300 {
				o, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable", f.Nodes[node].Port, testcluster.Superuser))
				if err != nil {
					break
				}
				others = append(others, o)
			}
		}
		checked(t, 3)
		all.end(t, "53300")
		if len(others) == 0 {
			t.Error("nothing was filled up")
		}
		blameless(t)
		if strings.Contains(f.Log.String(), "is not used any more") {
			t.Errorf("a node was not used for a while:\n%s", f.Log.tail(60))
		}
	})

	f.Must(f.Nodes[2].Kill())
	f.noted(notes, 1, 1)
}
