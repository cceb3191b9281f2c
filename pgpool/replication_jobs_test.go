package pgpool_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestJobQueue: workers take jobs by SKIP LOCKED, in each of the ways that are usual.
// Every job is done once, and all nodes know by whom.
func TestJobQueue(t *testing.T) {
	for _, mode := range []string{"native_replication", "snapshot_isolation"} {
		t.Run(mode, func(t *testing.T) { jobQueue(t, mode) })
	}
}

func jobQueue(t *testing.T, mode string) {
	r := replicate(t, 3, mode)
	ctx := t.Context()
	const jobs, workers = 120, 6
	r.plain().must(fmt.Sprintf(`create type stage as enum ('new', 'done');
		create table job (id int primary key, state stage not null default 'new', what text, worker int, at timestamptz, tags text[] default '{a,"b c",NULL}', extra jsonb default '{"k": [1, "\\\\"]}', box box default '((1,2),(3,4))');
		insert into job(id, what) select i, 'say "hi" \ ' || i from generate_series(1, %d) i`, jobs))
	// Each takes one job, and returns its number, or none.
	ways := []func(tx pgx.Tx, worker int) (pgx.Rows, error){
		func(tx pgx.Tx, worker int) (pgx.Rows, error) {
			return tx.Query(ctx, `update job set state = 'done', worker = $1, at = now() where id = (select id from job where state = 'new' order by id limit 1 for update skip locked) returning id`, worker)
		},
		func(tx pgx.Tx, worker int) (pgx.Rows, error) {
			return tx.Query(ctx, `with picked as (select * from job where state = $2::stage and coalesce(at, now()) <= now() limit $3 for update skip locked)
				update job j set state = 'done', worker = $1, at = clock_timestamp() from picked where picked.id = j.id and picked.what = j.what returning j.id`, worker, "new", 1)
		},
		func(tx pgx.Tx, worker int) (pgx.Rows, error) {
			return tx.Query(ctx, fmt.Sprintf(`update job set state = 'done', worker = %d where id in (select id from job where state = 'new' limit 1 for no key update skip locked) returning id`, worker), pgx.QueryExecModeSimpleProtocol)
		},
		func(tx pgx.Tx, worker int) (pgx.Rows, error) {
			var id int
			err := tx.QueryRow(ctx, `select id from job where state = 'new' order by id for update skip locked limit 1`).Scan(&id)
			if err == pgx.ErrNoRows {
				id = -1
			} else if err != nil {
				return nil, err
			}
			return tx.Query(ctx, `update job set state = 'done', worker = $1 where id = $2 returning id`, worker, id)
		},
		func(tx pgx.Tx, worker int) (pgx.Rows, error) {
			return tx.Query(ctx, `with gone as (delete from job where id = any (array(select id from job where state = 'new' and id > $1 limit 1 for update skip locked)) returning *),
				back as (insert into job select id, 'done', what, $2 from gone returning id) select id from back`, 0, worker)
		},
	}
	for i, way := range ways {
		p := r.plain()
		p.must("update job set state = 'new', worker = null")
		var all sync.WaitGroup
		var mu sync.Mutex
		taken := make(map[int]int)
		for worker := range workers {
			all.Go(func() {
				c := r.connect()
				defer c.Close(context.WithoutCancel(ctx))
				for none := 0; none < 2; {
					var id int
					err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
						rows, err := way(tx, worker)
						if err != nil {
							return err
						}
						ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
						if err == nil && len(ids) == 1 {
							id = ids[0]
						}
						return err
					})
					switch {
					case sqlstate(err) == "40001":
					case err != nil:
						t.Errorf("way %d: %v", i, err)
						return
					case id == 0:
						none++
					default:
						mu.Lock()
						taken[id]++
						mu.Unlock()
					}
				}
			})
		}
		all.Wait()
		if len(taken) != jobs {
			t.Errorf("way %d: %d jobs are done", i, len(taken))
		}
		for id, n := range taken {
			if n != 1 {
				t.Errorf("way %d: job %d is done %d times", i, id, n)
			}
		}
		r.all("select * from job order by id")
	}
	// What cannot be asked alone is run as it is.
	p := r.plain()
	p.must("begin; update job j set worker = 77 where id = (select k.id from job k where k.id = j.id and k.id < 9 order by k.id for update skip locked); commit")
	if got := r.all("select count(*) from job where worker = 77"); got != "8" {
		t.Errorf("%s rows", got)
	}
	p.must("delete from job where id in (select id from job limit 3); insert into job(id) select id + 1000 from (select id from job limit 5) x; insert into job(id, what) select id + 2000, what from job tablesample bernoulli (50) limit 9")
	p.must("create table tokens (u uuid, id int, r float8); insert into tokens select gen_random_uuid(), id, random() from job where id < 20")
	if _, err := r.connect().Exec(ctx, "insert into tokens select gen_random_uuid(), id, random() * $1 from job where id < $2", 2.5, 30); err != nil {
		t.Error(err)
	}
	r.all("select * from tokens order by u")
	r.all("select * from job order by id")
}
