package pgpool_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"pgpool-go/tools/testcluster"
)

var (
	modelTime = flag.Duration("qcache.time", 6*time.Second, "how long TestQueryCacheModel runs")
	modelSeed = flag.Uint64("qcache.seed", 0, "its seed; 0: another each time")
	modelLoad = flag.Bool("qcache.standbys", false, "standbys read, too: they are synchronous, so that what was seen on the primary has to be seen everywhere")
)

// modelSchema holds what only grows, whatever is written: so it can be told of any
// two answers which is the older one.
const modelSchema = `
CREATE SCHEMA m; CREATE SCHEMA s1; CREATE SCHEMA s2;
SET search_path = m;
CREATE TABLE counters (k int PRIMARY KEY, v bigint NOT NULL); INSERT INTO counters SELECT k, 1 FROM generate_series(0, 7) k;
CREATE TABLE parted (k int, v bigint) PARTITION BY LIST (k);
CREATE TABLE part0 PARTITION OF parted FOR VALUES IN (0); CREATE TABLE part1 PARTITION OF parted FOR VALUES IN (1);
INSERT INTO parted VALUES (0, 1), (1, 1);
CREATE VIEW seen AS SELECT k, v FROM counters WHERE k < 4; CREATE VIEW seen_by AS SELECT sum(v) AS v FROM seen;
CREATE TABLE logged (n bigint); INSERT INTO logged VALUES (0);
CREATE TABLE triggered (v bigint); INSERT INTO triggered VALUES (1);
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE m.logged SET n = n + 1; RETURN NEW; END';
CREATE TRIGGER log_it AFTER UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE FUNCTION bump() RETURNS bigint LANGUAGE sql AS 'UPDATE m.logged SET n = n + 1 RETURNING n';
CREATE PROCEDURE bump2() LANGUAGE plpgsql AS 'BEGIN UPDATE m.logged SET n = n + 1; COMMIT; UPDATE m.logged SET n = n + 1; END';
CREATE TABLE cut (g bigint, n bigint); CREATE SEQUENCE generation START 2; INSERT INTO cut VALUES (1, 1);
CREATE TABLE one (id bigint PRIMARY KEY); INSERT INTO one VALUES (1);
CREATE TABLE two (id bigint REFERENCES one ON UPDATE CASCADE); INSERT INTO two VALUES (1);
CREATE TABLE grants (n bigint); INSERT INTO grants VALUES (0);
CREATE TABLE granted (v bigint); INSERT INTO granted VALUES (1);
CREATE TABLE s1.mine (tenant int, v bigint); INSERT INTO s1.mine VALUES (1, 1);
CREATE TABLE s2.mine (tenant int, v bigint); INSERT INTO s2.mine VALUES (2, 1);
CREATE TABLE rows (owner name, v bigint); INSERT INTO rows VALUES ('r1', 1), ('r2', 2);
CREATE ROLE r1; CREATE ROLE r2; CREATE ROLE owner;
GRANT USAGE ON SCHEMA m, s1, s2 TO r1, r2; GRANT SELECT ON ALL TABLES IN SCHEMA m, s1, s2 TO r1, r2;
ALTER TABLE rows ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON rows USING (owner = current_user);
`

// modelReads give numbers that never become less.
var modelReads = []string{
	"SELECT v FROM m.counters WHERE k = 0", "SELECT v FROM m.counters WHERE k = 5", "SELECT sum(v), max(v) FROM m.counters",
	"SELECT sum(v) FROM m.seen", "SELECT v FROM m.seen_by", "SELECT sum(v) FROM m.parted", "SELECT v FROM m.part0", "SELECT v FROM m.parted WHERE k = 1",
	"SELECT n FROM m.logged", "SELECT max(g) * 1000000 + sum(n) FROM m.cut", "SELECT max(id) FROM m.two", "SELECT max(id) FROM m.one",
	"SELECT sum(c.v) + sum(l.n) FROM m.counters c, m.logged l",
	"WITH x AS (SELECT v FROM m.triggered) SELECT v + (SELECT v FROM m.counters WHERE k = 1) FROM x",
}

// modelWrites only add, if they are committed.
var modelWrites = []string{
	"UPDATE m.counters SET v = v + 1 WHERE k = %d", "UPDATE m.counters SET v = v + 1 WHERE k IN (0, 5)", "UPDATE m.seen SET v = v + 1 WHERE k = 1",
	"INSERT INTO m.counters VALUES (0, 1) ON CONFLICT (k) DO UPDATE SET v = counters.v + 1",
	"MERGE INTO m.counters c USING (VALUES (2)) x(k) ON c.k = x.k WHEN MATCHED THEN UPDATE SET v = v + 1",
	"UPDATE m.parted SET v = v + 1 WHERE k = 0", "UPDATE m.part1 SET v = v + 1", "UPDATE m.triggered SET v = v + 1",
	"SELECT m.bump()", "CALL m.bump2()", "DO $$BEGIN PERFORM m.bump(); END$$", "UPDATE m.one SET id = id + 1",
	"BEGIN; LOCK TABLE m.cut; TRUNCATE m.cut; INSERT INTO m.cut VALUES (nextval('m.generation'), 1); COMMIT",
	"UPDATE m.cut SET n = n + 1",
	"BEGIN; UPDATE m.counters SET v = v + 1000000000000; UPDATE m.one SET id = id + 1000000000000; ROLLBACK",
	"BEGIN; UPDATE m.counters SET v = v + 1 WHERE k = %d; SAVEPOINT s; UPDATE m.parted SET v = v + 1000000000000; ROLLBACK TO s; COMMIT",
	"BEGIN; UPDATE m.counters SET v = v + 1 WHERE k = 3; COMMIT AND CHAIN; UPDATE m.counters SET v = v + 1000000000000 WHERE k = 3; ROLLBACK",
	"WITH x AS (UPDATE m.counters SET v = v + 1 WHERE k = 4 RETURNING v) SELECT v FROM x",
	"UPDATE s1.mine SET v = v + 1", "UPDATE s2.mine SET v = v + 1",
}

// modelDDL changes the schema, and not what is read.
var modelDDL = []string{
	"CREATE OR REPLACE VIEW m.seen_by AS SELECT sum(v) AS v FROM m.counters WHERE k < 4", "CREATE OR REPLACE VIEW m.seen_by AS SELECT sum(v) AS v FROM m.seen",
	"ALTER TABLE m.counters ADD COLUMN IF NOT EXISTS x int", "ALTER TABLE m.counters DROP COLUMN IF EXISTS x",
	"ALTER TABLE m.part0 RENAME TO part0_; ALTER TABLE m.part0_ RENAME TO part0",
	"BEGIN; ALTER TABLE m.parted DETACH PARTITION m.part1; UPDATE m.part1 SET v = v + 1; ALTER TABLE m.parted ATTACH PARTITION m.part1 FOR VALUES IN (1); COMMIT",
	"BEGIN; REVOKE SELECT ON m.granted FROM r1; UPDATE m.grants SET n = n + 1; COMMIT",
	"BEGIN; GRANT SELECT ON m.granted TO r1; UPDATE m.grants SET n = n + 1; COMMIT",
	"BEGIN; CREATE TABLE m.later AS SELECT 1 AS a; ROLLBACK", "VACUUM m.counters", "ANALYZE m.counters",
}

// TestQueryCacheModel lets many clients read and write at random, and compares each
// read with the same read asked directly before and after it.
func TestQueryCacheModel(t *testing.T) {
	o, weights := testcluster.Options{Standbys: 2}, []int{1, 0, 0}
	if *modelLoad {
		o.Conf = map[string]string{"synchronous_standby_names": "2 (*)", "synchronous_commit": "remote_apply", "max_standby_streaming_delay": "100ms"}
		weights = []int{4, 1, 1}
	}
	c := testcluster.New(t, o)
	f := serve(t, c, append(backends(c, weights...), "memory_cache_enabled = on", "num_init_children = 40", "cache_safe_memqcache_table_list = 'm\\..*'",
		"disable_load_balance_on_write = 'transaction'", "pool_size = 4")...)
	f.MustExec(0, modelSchema)
	f.Must(f.WaitCatchup())
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	m := &model{front: f}
	ctx, stop := context.WithTimeout(t.Context(), *modelTime)
	defer stop()
	var wg sync.WaitGroup
	for i := range 16 {
		if i == 8 { // the rest shares connections, and what is cached with all
			f.reload("pool_mode = transaction")
		}
		if c := m.client(i); c != nil {
			wg.Go(func() { c.play(ctx, rand.New(rand.NewPCG(seed, uint64(i)))) })
		}
	}
	wg.Wait()
	stats := strings.Split(f.plain().must("SHOW POOL_CACHE"), "|")
	t.Logf("%d reads compared, %d written, %d failed; %s hits, %s misses", m.reads.Load(), m.writes.Load(), m.failures.Load(), stats[0], stats[1])
	if hits, _ := strconv.Atoi(stats[0]); hits < 20 || m.reads.Load() < 100 {
		t.Error("hardly anything was tested")
	}
}

// model is what the clients have in common.
type model struct {
	*front
	reads, writes, failures atomic.Int64
	wrong                   atomic.Int64
}

// modelClient is one of them: a connection to pgpool, and one to the primary.
type modelClient struct {
	*model
	via, direct *pgx.Conn
	standbys    []*pgx.Conn // which may have it earlier than the primary lets it be seen
	mode        pgx.QueryExecMode
}

var modelModes = []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeCacheStatement}

// client is one of each way of asking; nil, it cannot be had.
func (m *model) client(id int) *modelClient {
	c := &modelClient{model: m, mode: modelModes[id%len(modelModes)]}
	var err error
	if c.via, err = pgx.Connect(m.t.Context(), m.URL(testcluster.Superuser, "postgres")); err == nil {
		c.direct, err = pgx.Connect(m.t.Context(), m.Nodes[0].URL())
	}
	for _, n := range m.Nodes[1:] {
		if *modelLoad && err == nil {
			var s *pgx.Conn
			if s, err = pgx.Connect(m.t.Context(), n.URL()); err == nil {
				c.standbys = append(c.standbys, s)
			}
		}
	}
	if err != nil {
		m.t.Error(err)
		return nil
	}
	return c
}

func (c *modelClient) play(ctx context.Context, rnd *rand.Rand) {
	for _, conn := range append(c.standbys, c.via, c.direct) {
		defer conn.Close(context.Background())
	}
	m := c.model
	for ctx.Err() == nil && m.wrong.Load() < 5 {
		switch n := rnd.IntN(1000); {
		case n < 40:
			c.write(modelWrites[rnd.IntN(len(modelWrites))], rnd)
		case n < 43:
			c.write(modelDDL[rnd.IntN(len(modelDDL))], rnd)
		case n < 80:
			c.tenant(1+rnd.IntN(2), tenantSets[max(0, rnd.IntN(20)-17)]) // a DO may have written anything
		case n < 120:
			c.role(rnd)
		case n < 140:
			c.transaction(rnd)
		case n < 160:
			c.snapshot(rnd)
		default:
			c.compare(modelReads[rnd.IntN(len(modelReads))], c.via)
		}
	}
}

func (c *modelClient) complain(format string, args ...any) {
	c.wrong.Add(1)
	c.t.Errorf(format, args...)
}

// ask gives the numbers of one row.
func (c *modelClient) ask(conn *pgx.Conn, q string) ([]int64, error) {
	ctx, stop := context.WithTimeout(c.t.Context(), patience)
	defer stop()
	rows, err := conn.Query(ctx, q, c.mode)
	if err != nil {
		return nil, err
	}
	var out []int64
	for rows.Next() {
		row := make([]any, len(rows.FieldDescriptions()))
		numbers := make([]pgtype.Numeric, len(row)) // what sums are; takes any integer
		for i := range row {
			row[i] = &numbers[i]
		}
		if err := rows.Scan(row...); err != nil {
			return nil, err
		}
		for _, n := range numbers {
			v, err := n.Int64Value()
			if err != nil {
				return nil, err
			}
			out = append(out, v.Int64)
		}
	}
	return out, rows.Err()
}

// tolerable tells the errors that come of doing all this at once, as a client
// without pgpool has them.
func (c *modelClient) tolerable(err error) bool {
	c.failures.Add(1)
	var no *pgconn.PgError
	if !errors.As(err, &no) {
		return false
	}
	switch no.Code {
	case "40P01", "40001", "55P03", "XX000", "42P16", "0A000", "42P07", "42P01", "57014", "42703", "23505": // XX000: tuple concurrently updated
		return true
	}
	return false
}

// compare asks directly, through pgpool, and directly again.
func (c *modelClient) compare(q string, via *pgx.Conn) {
	low, err1 := c.ask(c.direct, q)
	got, err2 := c.ask(via, q)
	high, err3 := c.ask(c.direct, q)
	for _, s := range c.standbys {
		more, err := c.ask(s, q)
		err3 = errors.Join(err3, err)
		for i := range min(len(high), len(more)) {
			high[i] = max(high[i], more[i])
		}
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		if !c.tolerable(err) {
			c.complain("%s: %v", q, err)
		}
		return
	}
	c.reads.Add(1)
	if len(got) != len(low) || len(got) != len(high) {
		c.complain("%s: %v, directly %v and %v", q, got, low, high)
		return
	}
	for i := range got {
		if got[i] < low[i] || got[i] > high[i] {
			c.complain("%s: %v, directly %v before and %v after", q, got, low, high)
		}
	}
}

// run sends a string of statements to pgpool.
func (c *modelClient) run(sql string) error {
	ctx, stop := context.WithTimeout(c.t.Context(), patience)
	defer stop()
	_, err := c.via.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// write runs a writing statement, as one string or statement by statement.
func (c *modelClient) write(sql string, rnd *rand.Rand) {
	if strings.Contains(sql, "%d") {
		sql = fmt.Sprintf(sql, rnd.IntN(8))
	}
	var err error
	if parts := strings.Split(sql, "; "); !strings.HasPrefix(sql, "DO") && rnd.IntN(2) == 0 {
		for _, part := range parts {
			if err = c.run(part); err != nil {
				break
			}
		}
	} else {
		err = c.run(sql)
	}
	if err != nil {
		if !c.tolerable(err) {
			c.complain("%s: %v", sql, err)
		}
		c.run("ROLLBACK")
		return
	}
	c.writes.Add(1)
}

// tenantSets are ways to say whose names are meant.
var tenantSets = []string{"SET search_path = s%d", "SELECT set_config('search_path', 's%d', false)",
	"DO $$BEGIN PERFORM set_config('search_path', 's%d', false); END$$"}

// tenant reads what has the same name for others.
func (c *modelClient) tenant(id int, set string) {
	if err := c.run(fmt.Sprintf(set, id)); err != nil {
		c.complain("%v", err)
	}
	for range 4 { // the settings are asked for before the third, if they are not known
		got, err := c.ask(c.via, "SELECT tenant, v FROM mine")
		if err != nil && c.tolerable(err) {
			continue
		}
		if err != nil || len(got) != 2 || got[0] != int64(id) {
			c.complain("tenant %d reads %v %v", id, got, err)
		}
		c.reads.Add(1)
	}
	c.run("RESET search_path")
}

// role reads as somebody else, who perhaps may not, and sees own rows only.
func (c *modelClient) role(rnd *rand.Rand) {
	id := 1 + rnd.IntN(2)
	if err := c.run(fmt.Sprintf("SET ROLE r%d", id)); err != nil {
		c.complain("%v", err)
	}
	defer c.run("RESET ROLE")
	if got, err := c.ask(c.via, "SELECT v FROM m.rows"); err == nil && (len(got) != 1 || got[0] != int64(id)) || err != nil && !c.tolerable(err) {
		c.complain("role r%d sees rows %v %v", id, got, err)
	}
	const state = "SELECT n, has_table_privilege('r1', 'm.granted', 'SELECT')::int FROM m.grants"
	before, err1 := c.ask(c.direct, state)
	_, err := c.ask(c.via, "SELECT v FROM m.granted")
	after, err2 := c.ask(c.direct, state)
	if errors.Join(err1, err2) != nil || fmt.Sprint(before) != fmt.Sprint(after) {
		return
	}
	for _, s := range c.standbys { // which may have a GRANT earlier than the primary lets it be seen
		if there, err2 := c.ask(s, state); err2 != nil || fmt.Sprint(before) != fmt.Sprint(there) {
			return
		}
	}
	may := id == 2 || before[1] == 1
	var no *pgconn.PgError
	switch denied := errors.As(err, &no) && no.Code == "42501"; {
	case err == nil && !may:
		c.complain("role r%d reads what it may not", id)
	case denied && may:
		c.complain("role r%d may not read what it may", id)
	case err != nil && !denied && !c.tolerable(err):
		c.complain("role r%d: %v", id, err)
	}
	c.reads.Add(1)
}

// transaction reads before and after its own write, and perhaps takes it back.
func (c *modelClient) transaction(rnd *rand.Rand) {
	k := rnd.IntN(8)
	q := fmt.Sprintf("SELECT v FROM m.counters WHERE k = %d", k)
	err := c.run("BEGIN")
	var own, got []int64
	if err == nil {
		_, err = c.ask(c.via, q)
	}
	if err == nil {
		own, err = c.ask(c.via, fmt.Sprintf("UPDATE m.counters SET v = v + 1 WHERE k = %d RETURNING v", k))
	}
	for range 2 {
		if err == nil {
			if got, err = c.ask(c.via, q); err == nil && fmt.Sprint(got) != fmt.Sprint(own) {
				c.complain("own write is %v, read is %v", own, got)
			}
		}
	}
	end := "COMMIT"
	if rnd.IntN(3) == 0 || err != nil {
		end = "ROLLBACK"
	}
	if err2 := c.run(end); err == nil {
		err = err2
	}
	if err != nil {
		if !c.tolerable(err) {
			c.complain("transaction: %v", err)
		}
		return
	}
	c.compare(q, c.via)
}

// snapshot reads the same twice in a transaction that is to see no change.
func (c *modelClient) snapshot(rnd *rand.Rand) {
	q := modelReads[rnd.IntN(len(modelReads))]
	err := c.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
	var first, second []int64
	if err == nil {
		first, err = c.ask(c.via, q)
	}
	for range 3 {
		if err == nil {
			if second, err = c.ask(c.via, q); err == nil && fmt.Sprint(first) != fmt.Sprint(second) {
				c.complain("%s: %v, then %v in one snapshot", q, first, second)
			}
		}
	}
	if err2 := c.run("COMMIT"); err == nil {
		err = err2
	}
	if err != nil && !c.tolerable(err) {
		c.complain("snapshot: %v", err)
	}
	c.reads.Add(1)
}
