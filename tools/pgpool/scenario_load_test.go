package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// clients put load on pgpool: some write, some read, some do nothing. Each uses
// one connection for as long as it lasts, every other one with prepared
// statements, the rest with the simple protocol.
type clients struct {
	t    *testing.T
	url  string
	name string // of their table's part: values begin with it
	end  context.CancelFunc
	all  sync.WaitGroup
	idle []*pgx.Conn

	reads atomic.Int64

	mu      sync.Mutex
	acked   []string // values whose INSERT was confirmed
	refused []string // what writers were told instead
	failed  []string // reads that failed
	last    time.Time
	pause   time.Duration // the longest time between two confirmations
}

// pace is how long a client thinks between two statements.
const pace = 20 * time.Millisecond

// statementLimit is far more than any failover takes: a statement that is not
// answered by then never will be.
const statementLimit = 2 * time.Minute

func startClients(t *testing.T, url, name string, writers, readers, idle int) *clients {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	l := &clients{t: t, url: url, name: name, end: end, last: time.Now()}
	for i := range idle {
		c, err := l.connect(ctx, i)
		if err == nil {
			_, err = c.Exec(ctx, fmt.Sprintf("set scenario.client = '%d'", i))
		}
		if err != nil {
			t.Fatal(err)
		}
		l.idle = append(l.idle, c)
	}
	for i := range writers {
		l.all.Go(func() { l.write(ctx, i) })
	}
	for i := range readers {
		l.all.Go(func() { l.read(ctx, i) })
	}
	return l
}

func (l *clients) connect(ctx context.Context, i int) (*pgx.Conn, error) {
	conf, err := pgx.ParseConfig(l.url)
	if err != nil {
		return nil, err
	}
	if i%2 == 0 {
		conf.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	}
	return pgx.ConnectConfig(ctx, conf)
}

// reconnect tries until it succeeds or all is over: then it is nil.
func (l *clients) reconnect(ctx context.Context, i int, note func(error)) *pgx.Conn {
	for ctx.Err() == nil {
		c, err := l.connect(ctx, i)
		if err == nil {
			return c
		}
		if ctx.Err() == nil {
			note(fmt.Errorf("login: %w", err))
		}
		time.Sleep(5 * pace)
	}
	return nil
}

func (l *clients) write(ctx context.Context, id int) {
	refused := func(err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.refused = append(l.refused, err.Error())
	}
	c := l.reconnect(ctx, id, refused)
	for n := 0; c != nil && ctx.Err() == nil; n++ {
		v := fmt.Sprintf("%s-%d-%d", l.name, id, n)
		limit, stop := context.WithTimeout(ctx, statementLimit)
		_, err := c.Exec(limit, "insert into scenario values ($1)", v)
		stop()
		switch {
		case err == nil:
			l.confirmed(v)
		case ctx.Err() == nil:
			refused(err)
		}
		if c.IsClosed() {
			c = l.reconnect(ctx, id, refused)
		}
		time.Sleep(pace)
	}
	l.close(c)
}

func (l *clients) confirmed(v string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.acked = append(l.acked, v)
	l.pause = max(l.pause, now.Sub(l.last))
	l.last = now
}

func (l *clients) read(ctx context.Context, id int) {
	failed := func(err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failed = append(l.failed, err.Error())
	}
	c := l.reconnect(ctx, id, failed)
	for c != nil && ctx.Err() == nil {
		var n int
		limit, stop := context.WithTimeout(ctx, statementLimit)
		err := c.QueryRow(limit, "select count(*) from scenario where v > $1", l.name).Scan(&n)
		stop()
		switch {
		case err == nil:
			l.reads.Add(1)
		case ctx.Err() == nil:
			failed(err)
		}
		if c.IsClosed() {
			c = l.reconnect(ctx, id, failed)
		}
		time.Sleep(pace)
	}
	l.close(c)
}

func (l *clients) close(c *pgx.Conn) {
	if c != nil {
		c.Close(context.Background())
	}
}

func (l *clients) count() (writes, reads int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked), int(l.reads.Load())
}

// served waits for so many more writes and reads.
func (l *clients) served(writes, reads int) {
	l.t.Helper()
	w, r := l.count()
	writes, reads = writes+w, reads+r
	for end := time.Now().Add(statementLimit); time.Now().Before(end); time.Sleep(pace) {
		if w, r = l.count(); w >= writes && r >= reads {
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Fatalf("no service: %d writes of %d, %d reads of %d; writers were told %.1000q, readers %.1000q",
		w, writes, r, reads, newest(l.refused), newest(l.failed))
}

func newest(all []string) []string { return all[max(0, len(all)-5):] }

// stop ends the clients and tells how many idle ones have lost their session.
func (l *clients) stop() (lost int) {
	l.end()
	l.all.Wait()
	for i, c := range l.idle {
		ctx, stop := context.WithTimeout(l.t.Context(), statementLimit)
		var v string
		if err := c.QueryRow(ctx, "select current_setting('scenario.client')").Scan(&v); err != nil || v != fmt.Sprint(i) {
			l.t.Logf("idle client %d: %q, %v", i, v, err)
			lost++
		}
		stop()
		l.close(c)
	}
	return lost
}

// missing are the confirmed writes that a server does not have.
func (l *clients) missing(server *pgx.Conn) []string {
	l.t.Helper()
	rows, err := server.Query(l.t.Context(), "select v from scenario where v like $1", l.name+"-%")
	if err != nil {
		l.t.Fatal(err)
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		l.t.Fatal(err)
	}
	slices.Sort(there)
	return slices.DeleteFunc(slices.Clone(l.acked), func(v string) bool {
		_, found := slices.BinarySearch(there, v)
		return found
	})
}
