package pgpool_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgpool-go/tools/testcluster"
)

var (
	ormFor     = flag.Duration("orm", 5*time.Second, "how long the ORM's workload lasts")
	ormClients = flag.Int("ormclients", 4, "how many clients of pgpool it has, besides one of the primary")
)

// An application as an object-relational mapper makes it. One client talks to the
// primary itself, the others to pgpool, in each of pgx's ways to run a query.
// What is an error to any of them fails the test: none occurs directly. Rows belong
// to one client, which knows what it has written: after a write in a transaction
// it must read exactly that, outside of transactions what was there then or before.
func TestORM(t *testing.T) {
	f := usual(t, "disable_load_balance_on_write = 'transaction'", fmt.Sprintf("num_init_children = %d", *ormClients+2))
	f.MustExec(0, `
		CREATE TABLE account (id int PRIMARY KEY, version int NOT NULL DEFAULT 0);
		INSERT INTO account SELECT generate_series(0, 1000);
		CREATE TABLE orders (id bigserial PRIMARY KEY, account int NOT NULL REFERENCES account, note text NOT NULL, UNIQUE (account, note));
		CREATE TABLE item (orders bigint NOT NULL REFERENCES orders ON DELETE CASCADE, n int NOT NULL, PRIMARY KEY (orders, n));
		CREATE TABLE product AS SELECT n AS id, 'product ' || n AS name FROM generate_series(1, 500) n;
		CREATE SEQUENCE numbers;
		CREATE SCHEMA red; CREATE TABLE red.who AS SELECT 'red'::text AS name;
		CREATE SCHEMA blue; CREATE TABLE blue.who AS SELECT 'blue'::text AS name`)
	f.Must(f.WaitCatchup())

	ctx, stop := context.WithTimeout(t.Context(), *ormFor)
	defer stop()
	ways := []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol,
		pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec}
	var did [2]atomic.Int64
	var all sync.WaitGroup
	for id := range *ormClients + 1 {
		c := &ormClient{url: f.URL(testcluster.Superuser, "postgres"), id: id, way: ways[id%len(ways)],
			rnd: rand.New(rand.NewPCG(rand.Uint64(), uint64(id))), did: &did[1]}
		if id == 0 {
			c.url, c.did = f.Nodes[0].URL(), &did[0]
		}
		all.Go(func() {
			if err := c.live(ctx); err != nil {
				t.Errorf("client %d (%v, directly: %v): %v", id, c.way, id == 0, err)
				stop()
			}
		})
	}
	all.Wait()
	reads := [3]uint64{}
	for i := range reads {
		reads[i] = f.counters(i)
	}
	t.Logf("%d units of work directly, %d through pgpool; reads per node %v", did[0].Load(), did[1].Load(), reads)
	if did[0].Load() == 0 || did[1].Load() == 0 || reads[1] == 0 || reads[2] == 0 {
		t.Error("somebody had nothing to do")
	}
}

// counters is select_cnt of a node.
func (f *front) counters(node int) (n uint64) {
	fmt.Sscan(f.plain().table("SHOW POOL_NODES")[node]["select_cnt"], &n)
	return n
}

type ormClient struct {
	url     string
	id      int
	way     pgx.QueryExecMode
	rnd     *rand.Rand
	did     *atomic.Int64
	c       *pgx.Conn
	version int // of its account, committed
	last    int // of its notes
}

// live does units of work until the time is over. One under way is finished.
func (c *ormClient) live(ctx context.Context) error {
	units := []struct {
		name string
		do   func(context.Context) error
	}{
		{"order", c.order}, {"order", c.order}, {"order", c.order}, {"look", c.look}, {"look", c.look}, {"look", c.look},
		{"report", c.report}, {"sequence", c.sequence}, {"temporary", c.temporary}, {"prepared", c.prepared},
		{"search path", c.searchPath}, {"locks", c.locks}, {"cursor", c.cursor}, {"batch", c.batch}, {"conflict", c.conflict},
		{"savepoints", c.savepoints}, {"settings", c.settings}, {"copy", c.copy}, {"own writes", c.ownWrites}, {"discard", c.discard},
	}
	for ctx.Err() == nil {
		config, err := pgx.ParseConfig(c.url)
		if err != nil {
			return err
		}
		config.DefaultQueryExecMode = c.way
		err = func() (err error) {
			work, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
			defer stop()
			if c.c, err = pgx.ConnectConfig(work, config); err != nil {
				return err
			}
			defer c.c.Close(work)
			for n := 50 + c.rnd.IntN(500); n > 0 && ctx.Err() == nil; n-- {
				u := units[c.rnd.IntN(len(units))]
				if err := u.do(work); err != nil {
					return fmt.Errorf("%s: %w", u.name, err)
				}
				if status := c.c.PgConn().TxStatus(); status != 'I' {
					return fmt.Errorf("%s: the transaction's state is %c", u.name, status)
				}
				c.did.Add(1)
				select {
				case <-time.After(time.Duration(c.rnd.IntN(20)) * time.Millisecond):
				case <-ctx.Done():
				}
			}
			return nil
		}()
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *ormClient) exec(ctx context.Context, list ...string) error {
	for _, sql := range list {
		if _, err := c.c.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// ask compares the only column of a query's rows with what must be there.
func ask[T comparable](ctx context.Context, c *ormClient, want []T, sql string, args ...any) error {
	rows, err := c.c.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s %v: %v, want %v", sql, args, got, want)
	}
	return nil
}

func (c *ormClient) note() string {
	c.last++
	return fmt.Sprintf("%d of %d at %d", c.last, c.id, c.rnd.Uint32())
}

// seen reads the account's version, which a standby may have an older one of.
func (c *ormClient) seen(ctx context.Context, written int, exactly bool) error {
	var v int
	if err := c.c.QueryRow(ctx, "SELECT version FROM account WHERE id = $1", c.id).Scan(&v); err != nil {
		return err
	}
	if v > written || v < 0 || exactly && v != written {
		return fmt.Errorf("the account has version %d, written was %d", v, written)
	}
	return nil
}

// block runs do in a transaction, which it ends as told. What do raises it rolls back.
func (c *ormClient) block(ctx context.Context, begin string, commit bool, do func() error) error {
	if err := c.exec(ctx, begin); err != nil {
		return err
	}
	if err := do(); err != nil {
		c.exec(ctx, "ROLLBACK")
		return err
	}
	if commit {
		return c.exec(ctx, "COMMIT")
	}
	return c.exec(ctx, "ROLLBACK")
}

func (c *ormClient) order(ctx context.Context) error {
	commit, written := c.rnd.IntN(5) > 0, c.version
	err := c.block(ctx, "BEGIN", commit, func() error {
		if err := c.seen(ctx, c.version, false); err != nil {
			return err
		}
		note := c.note()
		var order int64
		if err := c.c.QueryRow(ctx, "INSERT INTO orders (account, note) VALUES ($1, $2) RETURNING id", c.id, note).Scan(&order); err != nil {
			return err
		}
		if err := ask(ctx, c, []string{note}, "SELECT note FROM orders WHERE id = $1", order); err != nil {
			return err
		}
		for n := range 3 {
			if _, err := c.c.Exec(ctx, "INSERT INTO item (orders, n) VALUES ($1, $2)", order, n); err != nil {
				return err
			}
		}
		written++
		if err := ask(ctx, c, []int{written}, "UPDATE account SET version = version + 1 WHERE id = $1 RETURNING version", c.id); err != nil {
			return err
		}
		if err := ask(ctx, c, []int{0, 1, 2}, "SELECT n FROM orders JOIN item ON item.orders = orders.id WHERE orders.id = $1 ORDER BY n", order); err != nil {
			return err
		}
		return c.seen(ctx, written, true)
	})
	if err == nil && commit {
		c.version = written
	}
	return err
}

func (c *ormClient) look(ctx context.Context) error {
	if err := c.seen(ctx, c.version, false); err != nil {
		return err
	}
	id := 1 + c.rnd.IntN(500)
	if err := ask(ctx, c, []string{fmt.Sprint("product ", id)}, "SELECT name FROM product WHERE id = $1", id); err != nil {
		return err
	}
	return ask(ctx, c, []int64{500}, "SELECT count(*) FROM product")
}

// report reads twice in one snapshot.
func (c *ormClient) report(ctx context.Context) error {
	begin := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"}
	return c.block(ctx, begin[c.rnd.IntN(len(begin))], true, func() error {
		const sql = "SELECT count(*) FROM orders"
		var n int64
		if err := c.c.QueryRow(ctx, sql).Scan(&n); err != nil {
			return err
		}
		if err := c.seen(ctx, c.version, false); err != nil {
			return err
		}
		return ask(ctx, c, []int64{n}, sql)
	})
}

func (c *ormClient) sequence(ctx context.Context) error {
	var n int64
	if err := c.c.QueryRow(ctx, "SELECT nextval('numbers')").Scan(&n); err != nil {
		return err
	}
	if err := ask(ctx, c, []int64{n}, "SELECT currval('numbers')"); err != nil {
		return err
	}
	return ask(ctx, c, []int64{n}, "SELECT lastval()")
}

func (c *ormClient) temporary(ctx context.Context) error {
	value := c.rnd.IntN(1000)
	work := func() error {
		if _, err := c.c.Exec(ctx, "INSERT INTO scratch VALUES ($1)", value); err != nil {
			return err
		}
		return ask(ctx, c, []int{value}, "SELECT v FROM scratch")
	}
	if c.rnd.IntN(2) == 0 {
		return c.block(ctx, "BEGIN", c.rnd.IntN(2) == 0, func() error {
			if err := c.exec(ctx, "CREATE TEMP TABLE scratch (v int) ON COMMIT DROP"); err != nil {
				return err
			}
			return work()
		})
	}
	if err := c.exec(ctx, "CREATE TEMPORARY TABLE scratch (v int)"); err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	return c.exec(ctx, "DROP TABLE scratch")
}

func (c *ormClient) prepared(ctx context.Context) error {
	name := fmt.Sprintf("p%d", c.rnd.IntN(5))
	if _, err := c.c.Prepare(ctx, name, "SELECT name FROM product WHERE id = $1"); err != nil {
		return err
	}
	for range c.rnd.IntN(4) {
		id := 1 + c.rnd.IntN(500)
		if err := ask(ctx, c, []string{fmt.Sprint("product ", id)}, name, id); err != nil {
			return err
		}
	}
	if err := c.c.Deallocate(ctx, name); err != nil {
		return err
	}
	if err := c.exec(ctx, "PREPARE "+name+" (int) AS SELECT name FROM product WHERE id = $1"); err != nil {
		return err
	}
	rows, err := c.c.Query(ctx, "EXECUTE "+name+" (7)", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	if got, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || !slices.Equal(got, []string{"product 7"}) {
		return fmt.Errorf("EXECUTE: %v, %w", got, err)
	}
	return c.exec(ctx, "DEALLOCATE "+name)
}

func (c *ormClient) searchPath(ctx context.Context) error {
	who := func(want string) error { return ask(ctx, c, []string{want}, "SELECT name FROM who") }
	names := []string{"red", "blue"}
	c.rnd.Shuffle(2, func(i, j int) { names[i], names[j] = names[j], names[i] })
	if err := c.exec(ctx, "SET search_path = "+names[0]+", public"); err != nil {
		return err
	}
	if err := who(names[0]); err != nil {
		return err
	}
	err := c.block(ctx, "BEGIN", c.rnd.IntN(2) == 0, func() error {
		if err := who(names[0]); err != nil {
			return err
		}
		if err := c.exec(ctx, "SET LOCAL search_path = "+names[1]); err != nil {
			return err
		}
		return who(names[1])
	})
	if err != nil {
		return err
	}
	for range 3 {
		if err := who(names[0]); err != nil {
			return err
		}
	}
	return c.exec(ctx, "RESET search_path")
}

func (c *ormClient) locks(ctx context.Context) error {
	if err := c.exec(ctx, fmt.Sprintf("SELECT pg_advisory_lock(%d)", c.id)); err != nil {
		return err
	}
	if err := c.seen(ctx, c.version, false); err != nil {
		return err
	}
	if err := ask(ctx, c, []bool{true}, "SELECT pg_advisory_unlock($1)", int64(c.id)); err != nil {
		return err
	}
	return c.block(ctx, "BEGIN", true, func() error {
		if err := ask(ctx, c, []bool{true}, "SELECT pg_try_advisory_xact_lock($1)", int64(1000+c.id)); err != nil {
			return err
		}
		return ask(ctx, c, []int{c.version}, "SELECT version FROM account WHERE id = $1 FOR UPDATE", c.id)
	})
}

func (c *ormClient) cursor(ctx context.Context) error {
	hold := c.rnd.IntN(2) == 0
	declare := "DECLARE pages CURSOR FOR SELECT id FROM product ORDER BY id"
	if hold {
		declare = "DECLARE pages CURSOR WITH HOLD FOR SELECT id FROM product ORDER BY id"
	}
	err := c.block(ctx, "BEGIN", true, func() error {
		if err := c.exec(ctx, declare); err != nil {
			return err
		}
		if err := ask(ctx, c, []int{1, 2, 3}, "FETCH 3 FROM pages"); err != nil {
			return err
		}
		if err := c.seen(ctx, c.version, false); err != nil {
			return err
		}
		if err := ask(ctx, c, []int{4, 5}, "FETCH 2 FROM pages"); err != nil || hold {
			return err
		}
		return c.exec(ctx, "CLOSE pages")
	})
	if err != nil || !hold {
		return err
	}
	if err := ask(ctx, c, []int{6}, "FETCH NEXT FROM pages"); err != nil {
		return err
	}
	return c.exec(ctx, "CLOSE pages")
}

// batch is a pipeline: reads before the write, and after it what was written.
func (c *ormClient) batch(ctx context.Context) error {
	b, note, read := &pgx.Batch{}, c.note(), []string(nil)
	b.Queue("SELECT name FROM product WHERE id = $1", 11)
	b.Queue("SELECT name FROM product WHERE id = $1", 12)
	b.Queue("INSERT INTO orders (account, note) VALUES ($1, $2)", c.id, note)
	b.Queue("SELECT note FROM orders WHERE account = $1 AND note = $2", c.id, note)
	results := c.c.SendBatch(ctx, b)
	for i := range 4 {
		if i == 2 {
			if _, err := results.Exec(); err != nil {
				results.Close()
				return err
			}
			continue
		}
		var v string
		if err := results.QueryRow().Scan(&v); err != nil {
			results.Close()
			return fmt.Errorf("query %d: %w", i, err)
		}
		read = append(read, v)
	}
	if want := []string{"product 11", "product 12", note}; !slices.Equal(read, want) {
		results.Close()
		return fmt.Errorf("%v, want %v", read, want)
	}
	return results.Close()
}

// conflict fails on purpose.
func (c *ormClient) conflict(ctx context.Context) error {
	return c.block(ctx, "BEGIN", false, func() error {
		note := c.note()
		const insert = "INSERT INTO orders (account, note) VALUES ($1, $2)"
		if _, err := c.c.Exec(ctx, insert, c.id, note); err != nil {
			return err
		}
		if _, err := c.c.Exec(ctx, insert, c.id, note); sqlstate(err) != "23505" {
			return fmt.Errorf("a second row of the same key: %w", err)
		}
		var n int
		if err := c.c.QueryRow(ctx, "SELECT 1").Scan(&n); sqlstate(err) != "25P02" {
			return fmt.Errorf("after an error: %d, %w", n, err)
		}
		return nil
	})
}

func (c *ormClient) savepoints(ctx context.Context) error {
	return c.block(ctx, "BEGIN", true, func() error {
		kept, undone := c.note(), c.note()
		const insert, look = "INSERT INTO orders (account, note) VALUES ($1, $2)", "SELECT note FROM orders WHERE account = $1 AND note = ANY ($2)"
		if _, err := c.c.Exec(ctx, insert, c.id, kept); err != nil {
			return err
		}
		if err := c.exec(ctx, "SAVEPOINT one"); err != nil {
			return err
		}
		if _, err := c.c.Exec(ctx, insert, c.id, undone); err != nil {
			return err
		}
		if _, err := c.c.Exec(ctx, "SELECT 1 / (version - version) FROM account"); sqlstate(err) != "22012" {
			return fmt.Errorf("a division by zero: %w", err)
		}
		if err := c.exec(ctx, "ROLLBACK TO one"); err != nil {
			return err
		}
		if err := ask(ctx, c, []string{kept}, look, c.id, []string{kept, undone}); err != nil {
			return err
		}
		return c.exec(ctx, "RELEASE one")
	})
}

func (c *ormClient) settings(ctx context.Context) error {
	value := fmt.Sprint("client ", c.id, " ", c.rnd.Uint32())
	if err := c.exec(ctx, "SET my.setting = '"+value+"'", "SET TIME ZONE 'Asia/Tokyo'"); err != nil {
		return err
	}
	for range 2 {
		if err := ask(ctx, c, []string{value + " +09"}, "SELECT current_setting('my.setting') || to_char(now(), ' TZH') FROM product WHERE id = 1"); err != nil {
			return err
		}
	}
	return c.exec(ctx, "RESET my.setting", "RESET TIME ZONE")
}

func (c *ormClient) copy(ctx context.Context) error {
	return c.block(ctx, "BEGIN", false, func() error {
		note := c.note()
		var order int64
		if err := c.c.QueryRow(ctx, "INSERT INTO orders (account, note) VALUES ($1, $2) RETURNING id", c.id, note).Scan(&order); err != nil {
			return err
		}
		rows := make([][]any, 100)
		for i := range rows {
			rows[i] = []any{order, i}
		}
		if n, err := c.c.CopyFrom(ctx, pgx.Identifier{"item"}, []string{"orders", "n"}, pgx.CopyFromRows(rows)); n != 100 || err != nil {
			return fmt.Errorf("%d rows: %w", n, err)
		}
		var out strings.Builder
		if _, err := c.c.PgConn().CopyTo(ctx, &out, fmt.Sprintf("COPY (SELECT count(*) FROM item WHERE orders = %d) TO STDOUT", order)); err != nil {
			return err
		}
		if out.String() != "100\n" {
			return errors.New("COPY TO: " + out.String())
		}
		return nil
	})
}

// ownWrites asks for the primary where it has to be exact.
func (c *ormClient) ownWrites(ctx context.Context) error {
	if err := ask(ctx, c, []int{c.version + 1}, "UPDATE account SET version = version + 1 WHERE id = $1 RETURNING version", c.id); err != nil {
		return err
	}
	c.version++
	if err := c.exec(ctx, "SET pgpool.target = 'primary'"); err != nil {
		return err
	}
	if err := c.seen(ctx, c.version, true); err != nil {
		return err
	}
	return c.exec(ctx, "RESET pgpool.target")
}

func (c *ormClient) discard(ctx context.Context) error {
	if err := c.c.DeallocateAll(ctx); err != nil { // pgx's own list, too
		return err
	}
	return c.exec(ctx, "DISCARD ALL")
}
