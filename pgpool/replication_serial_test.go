package pgpool_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestReplicatedSerializable: transactions that could not have run one after the other
// fail as on one server, at COMMIT too, and no node is given up for it.
func TestReplicatedSerializable(t *testing.T) {
	for _, mode := range []string{"native_replication", "snapshot_isolation"} {
		t.Run(mode, func(t *testing.T) {
			r := replicate(t, 2, mode)
			r.plain().must("create table duty (id int primary key, on_call bool); insert into duty values (1, true), (2, true)")
			a, b := r.plain(), r.plain()
			a.must("begin isolation level serializable; select count(*) from duty where on_call")
			b.must("begin; set transaction isolation level serializable; select count(*) from duty where on_call")
			a.must("update duty set on_call = false where id = 1")
			b.must("update duty set on_call = false where id = 2")
			a.must("commit")
			if _, err := b.run("commit"); sqlstate(err) != "40001" {
				t.Errorf("a transaction that contradicts another: %v", err)
			}
			if got := r.all("select id from duty where on_call"); got != "2" {
				t.Errorf("on call is %q", got)
			}
			b.must("begin isolation level serializable; update duty set on_call = false where id = 2; commit and chain")
			b.must("update duty set on_call = true where id = 1; commit")
			if got := r.all("select id from duty where on_call"); got != "1" {
				t.Errorf("on call is %q", got)
			}

			// Many of them at once.
			r.plain().must("insert into duty select i, true from generate_series(3, 20) i")
			var all sync.WaitGroup
			for w := range 6 {
				all.Go(func() {
					c, rnd := r.connect(), rand.New(rand.NewPCG(1, uint64(w)))
					for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
						err := pgx.BeginTxFunc(t.Context(), c, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
							var n int
							if err := tx.QueryRow(t.Context(), "select count(*) from duty where on_call").Scan(&n); err != nil {
								return err
							}
							_, err := tx.Exec(t.Context(), "update duty set on_call = $1 where id = $2", n <= 3, 1+rnd.IntN(20))
							return err
						})
						if err != nil && sqlstate(err) != "40001" {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			r.all("select * from duty order by id")
			if s := r.Server.Snapshot(); !s.Usable(0) || !s.Usable(1) {
				t.Error(fmt.Sprint("a node is given up: ", s.Nodes[0].Reason, s.Nodes[1].Reason))
			}
		})
	}
}
