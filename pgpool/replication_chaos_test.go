package pgpool_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// -chaos.time is how long TestReplicatedChaos runs in each mode.
var chaosTime = flag.Duration("chaos.time", 5*time.Second, "how long TestReplicatedChaos runs for each mode")

// TestReplicatedChaos: clients whose transactions collide, fail, are cancelled or given
// up, and whose servers' processes are ended, leave the same on every node in use.
func TestReplicatedChaos(t *testing.T) {
	for _, mode := range []string{"native_replication", "snapshot_isolation"} {
		for _, disturb := range []string{"", "pg_cancel_backend", "pg_terminate_backend"} {
			t.Run(mode+" "+disturb, func(t *testing.T) { chaos(t, mode, disturb) })
		}
	}
}

func chaos(t *testing.T, mode, disturb string) {
	r := replicate(t, 3, mode, "num_init_children = 40")
	r.plain().must(`create table acc (id int primary key, v int not null); insert into acc select i, 0 from generate_series(1, 30) i;
		create table hist (id bigserial primary key, acc int references acc, d int, at timestamptz default now(), c timestamptz default clock_timestamp());
		create table uniq (k int primary key deferrable initially deferred, w int)`)
	ctx, stop := context.WithTimeout(t.Context(), *chaosTime)
	defer stop()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var all sync.WaitGroup
	var mu sync.Mutex
	said := make(map[string]int)
	for w := range 10 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			var c *pgx.Conn
			for ctx.Err() == nil {
				if c == nil || c.IsClosed() {
					conf, err := pgx.ParseConfig(r.URL("postgres", "postgres"))
					if err != nil {
						t.Error(err)
						return
					}
					conf.DefaultQueryExecMode = pgx.QueryExecMode(1 + rnd.IntN(5))
					if c, err = pgx.ConnectConfig(ctx, conf); err != nil {
						time.Sleep(50 * time.Millisecond)
						continue
					}
				}
				once, end := ctx, func() {}
				if disturb != "" && rnd.IntN(12) == 0 {
					once, end = context.WithTimeout(ctx, time.Duration(rnd.IntN(30))*time.Millisecond)
				}
				err := chaosStep(once, c, rnd)
				end()
				word := sqlstate(err)
				if err != nil && word == "" {
					word = "lost"
				}
				mu.Lock()
				said[word]++
				mu.Unlock()
			}
			if c != nil {
				c.Close(context.WithoutCancel(ctx))
			}
		})
	}
	for rnd := rand.New(rand.NewPCG(seed, 99)); disturb != "" && ctx.Err() == nil; time.Sleep(time.Duration(20+rnd.IntN(150)) * time.Millisecond) {
		r.nodes[rnd.IntN(3)].Exec("select " + disturb + `(pid) from pg_stat_activity where datname = 'postgres' and pid <> pg_backend_pid() and backend_type = 'client backend'
			and state <> 'idle' and application_name = '' order by random() limit 1`)
	}
	all.Wait()
	t.Log(slices.Sorted(maps.Keys(said)), said[""], "were well")
	if said[""] < 20 {
		t.Error("hardly anything was done")
	}
	if said["XX000"] > 0 {
		t.Errorf("%d mismatches", said["XX000"])
	}
	// What a session that was given up has begun may yet be under way.
	eventually(t, "all is over", func() bool {
		for _, n := range r.nodes {
			got, err := n.Exec("select count(*) from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid() and backend_type = 'client backend' and query ~ 'acc|hist|uniq'")
			if err != nil || got != "0" {
				return false
			}
		}
		return true
	})
	s := r.Server.Snapshot()
	for _, table := range []string{"acc", "hist", "uniq"} {
		held := make(map[string]int)
		for i, n := range r.nodes {
			if got, err := n.Exec("select count(*), md5(string_agg(x::text, '|' order by x::text)) from " + table + " x"); err != nil {
				t.Error(err)
			} else if s.Usable(i) {
				held[got]++
			}
		}
		if len(held) != 1 {
			t.Errorf("%s: %v", table, held)
		}
	}
	if disturb != "pg_terminate_backend" { // a node whose process has ended while committing is not used any more
		for i := range r.nodes {
			if !s.Usable(i) {
				t.Errorf("node %d is not used any more: %s", i, s.Nodes[i].Reason)
			}
		}
	}
}

// chaosStep is one thing that a client does.
func chaosStep(ctx context.Context, c *pgx.Conn, rnd *rand.Rand) error {
	id, id2 := 1+rnd.IntN(30), 1+rnd.IntN(30)
	own := errors.New("the client has changed its mind")
	switch rnd.IntN(10) {
	case 0:
		_, err := c.Exec(ctx, "update acc set v = v + $1 where id = $2", rnd.IntN(100)-50, id)
		return err
	case 1:
		_, err := c.Exec(ctx, "insert into hist (acc, d) values ($1, $2)", id, 5)
		return err
	case 2:
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "update acc set v = v - 1 where id = $1", min(id, id2)); err != nil {
				return err
			}
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "insert into hist (acc, d) values ($1, $2)", id, -1); err != nil {
					return err
				}
				if rnd.IntN(2) == 0 {
					_, err := tx.Exec(ctx, "insert into hist (acc, d) values ($1, $2)", 1000, 1) // no such
					return err
				}
				return nil
			})
			if err != nil && sqlstate(err) != "23503" {
				return err
			}
			_, err = tx.Exec(ctx, "update acc set v = v + 1 where id = $1", max(id, id2))
			return err
		})
	case 3:
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "declare k cursor for select id from acc order by id for update"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "fetch 2 from k"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "update acc set v = v + 3 where current of k")
			return err
		})
	case 4:
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into uniq values ($1, $2)", rnd.IntN(2000), 1)
			return err
		})
	case 5:
		b := &pgx.Batch{}
		b.Queue("update acc set v = v + 1 where id = $1", min(id, id2))
		b.Queue("insert into hist (acc, d) values ($1, 7)", id)
		b.Queue("select count(*) from hist where acc = $1", id)
		if rnd.IntN(3) == 0 {
			b.Queue("insert into hist (acc, d) values ($1, 7)", 5000)
		}
		return c.SendBatch(ctx, b).Close()
	case 6:
		_, err := c.CopyFrom(ctx, pgx.Identifier{"uniq"}, []string{"k", "w"}, pgx.CopyFromRows([][]any{{2000 + rnd.IntN(100000), id}, {2000 + rnd.IntN(100000), id}}))
		return err
	case 7:
		return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
			var n int
			if err := tx.QueryRow(ctx, "select coalesce(sum(v), 0) from acc").Scan(&n); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "insert into hist (acc, d) select $1, sum(v)::int from acc", id)
			return err
		})
	case 8:
		err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "insert into hist (acc, d) select id, v from acc where id < 4 order by id"); err != nil {
				return err
			}
			return own
		})
		if errors.Is(err, own) {
			return nil
		}
		return err
	}
	_, err := c.Exec(ctx, fmt.Sprintf("delete from uniq where k = %d", rnd.IntN(2000)))
	return err
}
