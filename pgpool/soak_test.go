package pgpool_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/pgpool/wire"
	"pgpool-go/tools/testcluster"
)

var (
	soakFor     = flag.Duration("soak", 10*time.Second, "how long the soak lasts")
	soakSeed    = flag.Uint64("soakseed", 0, "of its randomness; 0: another each time")
	soakClients = flag.Int("soakclients", 200, "how many at once")
)

// Many clients do everything at once, each against a model of its own session:
// what it has prepared, set and written, and the state of its transaction. Every
// value a server is asked for is known to one client only, so that an answer
// that goes astray, comes twice or is missing is noticed at once.
func TestSoak(t *testing.T) { soak(t, *soakFor) }

// The same with few server connections, which the clients have in turns.
func TestSoakInTurns(t *testing.T) {
	soak(t, *soakFor/2, "pool_mode = transaction", "pool_size = 20", "max_prepared_statements = 10", "pool_wait_notice = 0", "pool_wait_timeout = 0")
}

func soak(t *testing.T, length time.Duration, extra ...string) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	rnd := rand.New(rand.NewPCG(seed, 1<<63))
	lines := []string{
		fmt.Sprintf("num_init_children = %d", *soakClients), "max_pool = 2",
		"disable_load_balance_on_write = " + []string{"off", "transaction", "trans_transaction", "always", "dml_adaptive"}[rnd.IntN(5)],
		"statement_level_load_balance = " + []string{"on", "on", "off"}[rnd.IntN(3)],
	}
	lines = append(lines, extra...)
	t.Logf("seed %d, %d clients for %v, %q", seed, *soakClients, length, lines)
	c := servers(t, testcluster.Options{Standbys: 2, Conf: map[string]string{"max_connections": "500"}})
	f := serve(t, c, append(backends(c, rnd.IntN(2), 1, 1), lines...)...)
	f.MustExec(0, `create role alice superuser login; create role bob superuser login; create database other;
		create table soak (client int, v text); create index on soak (client);
		\c other
		create table soak (client int, v text); create index on soak (client)`)
	f.Must(f.WaitCatchup())

	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var did tally
	var all sync.WaitGroup
	var here sync.Map
	for id := range *soakClients {
		s := &soaker{f: f, id: id, rnd: rand.New(rand.NewPCG(seed, uint64(id))), did: &did}
		here.Store(id, s)
		all.Go(func() {
			if err := s.live(ctx); err != nil {
				t.Errorf("client %d (%s): %v\nlast steps:\n%s", id, s.who, err, strings.Join(s.diary, "\n"))
				stop()
			}
			here.Delete(id)
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	<-ctx.Done()
	select {
	case <-over:
	case <-time.After(patience):
		here.Range(func(id, s any) bool {
			t.Errorf("client %v hangs in: %v", id, *s.(*soaker).doing.Load())
			return true
		})
		var b bytes.Buffer
		pprof.Lookup("goroutine").WriteTo(&b, 1)
		t.Logf("%s", b.String())
		for _, v := range f.Server.Slots().Sessions() {
			v.Interrupt(wire.Fatal("57P01", "the soak is over"))
		}
		<-over
	}
	t.Log(did.String())
	f.checkLeaks(t)
}

// checkLeaks compares the servers' clients with what the pools say they hold,
// and then with nothing.
func (f *front) checkLeaks(t *testing.T) {
	t.Helper()
	eventually(t, "all clients have left", func() bool { return len(f.Server.Slots().Sessions()) == 0 })
	pids := func(node int) string {
		return f.MustExec(node, `select coalesce(string_agg(pid::text, ' ' order by pid), '') from pg_stat_activity
			where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name <> 'pgpool'`)
	}
	for _, n := range f.Nodes {
		eventually(t, n.Name+" has the clients that the pool says", func() bool {
			have := make(map[string]bool)
			for _, idle := range f.Server.Idle() {
				if idle.Node == n.ID {
					have[strconv.Itoa(int(idle.PID))] = true
				}
			}
			at := strings.Fields(pids(n.ID))
			for _, pid := range at {
				if !have[pid] {
					return false
				}
			}
			return len(at) == len(have)
		})
	}
	f.Server.DrainPool()
	for _, n := range f.Nodes {
		eventually(t, n.Name+" has no clients", func() bool { return pids(n.ID) == "" })
	}
}

type tally struct{ statements, pipelines, errors, cancels, cancelled, copies, transactions, sessions, vanished atomic.Int64 }

func (y *tally) String() string {
	return fmt.Sprintf("%d sessions (%d vanished), %d statements, %d pipelines, %d transactions, %d copies, %d errors, %d cancel requests of which %d hit",
		y.sessions.Load(), y.vanished.Load(), y.statements.Load(), y.pipelines.Load(), y.transactions.Load(), y.copies.Load(), y.errors.Load(), y.cancels.Load(), y.cancelled.Load())
}

// world is what a rollback brings back.
type world struct {
	rows  int    // of ours in table soak
	set   string // the setting soak.x
	local string // the same by SET LOCAL
}

func (w world) x() string {
	if w.local != "" {
		return w.local
	}
	return w.set
}

// soaker is one client with the model of its session.
type soaker struct {
	f    *front
	id   int
	rnd  *rand.Rand
	did  *tally
	conn *raw
	who  string
	seq  int

	now   world
	state byte              // I, T or E
	base  world             // at BEGIN
	saves []world           // at the savepoints s0, s1, …
	stmts map[string]string // named statements, and the word that each adds

	want  []want
	ahead bool // an error of this pipeline is expected: the rest is passed over
	start world
	diary []string
	doing atomic.Pointer[string] // the last of them, for others
	loose bool                   // a cancel request may hit
}

// want is an expected answer.
type want struct {
	word  string // exactly
	maybe bool   // may be a cancelled statement instead
}

// vanished is how a client ends that has closed its socket in the middle.
var vanished = errors.New("vanished")

func (s *soaker) live(ctx context.Context) error {
	rows := 0
	for ctx.Err() == nil {
		if err := s.connect(rows); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		err := s.session(ctx)
		s.conn.Close()
		if err != nil && !errors.Is(err, vanished) {
			return err
		}
		if s.state != 'I' {
			s.now = s.base
		}
		rows = s.now.rows
	}
	return nil
}

func (s *soaker) note(format string, args ...any) {
	step := fmt.Sprintf(format, args...)
	s.doing.Store(&step)
	s.diary = append(s.diary, step)
	if len(s.diary) > 60 {
		s.diary = s.diary[20:]
	}
}

func (s *soaker) pick(list ...string) string { return list[s.rnd.IntN(len(list))] }

// unique is a value that nobody else knows.
func (s *soaker) unique() string {
	s.seq++
	return fmt.Sprintf("c%dn%dx%x", s.id, s.seq, s.rnd.Uint32())
}

func (s *soaker) connect(rows int) error {
	user := s.pick("postgres", "alice", "bob")
	database := []string{"postgres", "other"}[s.id%2] // its rows stay in one
	mem := s.pick("1MB", "2MB")
	s.who = user + "@" + database + " " + mem
	s.note("connect %s", s.who)
	c, err := s.f.login("user", user, "database", database, "work_mem", mem, "application_name", "soak-"+user)
	if err != nil {
		return err
	}
	s.conn, s.state, s.now = c, 'I', world{rows: rows}
	s.stmts = make(map[string]string)
	s.did.sessions.Add(1)
	// Whatever connections it gets from the pools, they are its own.
	for range 2 {
		got, err := c.value("select concat_ws(' ', current_user, current_database(), current_setting('work_mem'), current_setting('application_name'), coalesce(current_setting('soak.x', true), ''))")
		if w := fmt.Sprintf("%s %s %s soak-%s ", user, database, mem, user); err != nil || got != w {
			return fmt.Errorf("got %q, %v, want %q", got, err, w)
		}
	}
	return nil
}

func (s *soaker) session(ctx context.Context) error {
	steps := []func() error{
		s.simple, s.simple, s.multi, s.extended, s.extended, s.partial, s.pipeline, s.pipeline, s.pipeline,
		s.transaction, s.savepoints, s.settings, s.copyIn, s.copyOut, s.named, s.cancels, s.count, s.forget, s.listen, s.temporary,
	}
	for range 5 + s.rnd.IntN(200) {
		if ctx.Err() != nil {
			break
		}
		if err := steps[s.rnd.IntN(len(steps))](); err != nil {
			return err
		}
		if s.rnd.IntN(150) == 0 {
			return s.vanish()
		}
	}
	if s.state != 'I' {
		if err := s.query("rollback", "C(ROLLBACK)"); err != nil {
			return err
		}
	}
	if err := s.count(); err != nil {
		return err
	}
	if s.rnd.IntN(2) == 0 {
		s.conn.send(&pgproto3.Terminate{})
	}
	return nil
}

// read compares what comes with what is wanted.
func (s *soaker) read() error {
	defer func() { s.want = s.want[:0] }()
	for i, w := range s.want {
		msg, err := s.conn.next()
		if err != nil {
			return fmt.Errorf("instead of answer %d, %s: %w", i, w.word, err)
		}
		got := word(msg)
		if got == w.word {
			continue
		}
		if w.maybe && got == "E(57014)" {
			s.did.cancelled.Add(1)
			return s.cancelledAt(s.want[i:])
		}
		detail := ""
		if e, is := msg.(*pgproto3.ErrorResponse); is {
			detail = ": " + e.Message + " " + e.Detail
		}
		return fmt.Errorf("answer %d: got %s%s, want %s", i, got, detail, w.word)
	}
	return nil
}

// cancelledAt goes on after a statement that was cancelled: to ReadyForQuery.
func (s *soaker) cancelledAt(rest []want) error {
	msg, err := s.conn.next()
	if err != nil {
		return err
	}
	state := byte('I')
	if s.state != 'I' {
		s.state, state = 'E', 'E'
	}
	if got := word(msg); got != "Z("+string(state)+")" {
		return fmt.Errorf("after a cancelled statement: got %s", got)
	}
	return nil
}

// run sends messages while it reads the answers, in pieces that know nothing of
// frames.
func (s *soaker) run(msgs ...pgproto3.FrontendMessage) error {
	var b []byte
	for _, m := range msgs {
		var err error
		if b, err = m.Encode(b); err != nil {
			return err
		}
	}
	return s.bytes(b)
}

func (s *soaker) bytes(b []byte) error {
	sent := make(chan error, 1)
	cuts := s.rnd.IntN(4)
	sizes := make([]int, cuts)
	for i := range sizes {
		sizes[i] = s.rnd.IntN(len(b) + 1)
	}
	go func() {
		for _, n := range sizes {
			n = min(n, len(b))
			if _, err := s.conn.Write(b[:n]); err != nil {
				sent <- err
				return
			}
			b = b[n:]
		}
		_, err := s.conn.Write(b)
		sent <- err
	}()
	err := s.read()
	if err != nil {
		s.conn.Close()
	}
	return errors.Join(err, <-sent)
}

func (s *soaker) expect(words ...string) {
	for _, w := range words {
		s.want = append(s.want, want{word: w, maybe: s.loose})
	}
}

func (s *soaker) ready() { s.expect("Z(" + string(s.state) + ")") }

// query runs a Query that leaves the state as it is, unless it is one of those
// that change it.
func (s *soaker) query(sql string, words ...string) error {
	s.note("Q %s", sql)
	s.did.statements.Add(1)
	if s.state == 'E' && sql != "" && sql != "rollback" && sql != "commit" && !strings.HasPrefix(sql, "rollback to") {
		s.expect("E(25P02)")
		s.ready()
		return s.run(q(sql))
	}
	s.expect(words...)
	switch {
	case sql == "begin":
		s.state, s.base, s.saves = 'T', s.now, nil
	case sql == "commit":
		s.now.local = ""
		s.state = 'I'
	case sql == "rollback":
		s.now, s.state = s.base, 'I'
	case strings.HasPrefix(sql, "rollback to"):
		s.state = 'T'
	}
	s.ready()
	return s.run(q(sql))
}

// fails runs a Query that ends with an error.
func (s *soaker) fails(sql, code string, words ...string) error {
	if s.state == 'E' && code != "42601" {
		return s.query(sql)
	}
	s.note("Q %s → %s", sql, code)
	s.did.errors.Add(1)
	s.expect(words...)
	s.expect("E(" + code + ")")
	if s.state == 'T' {
		s.state = 'E'
	}
	s.ready()
	return s.run(q(sql))
}

func row(values ...string) string { return "D(" + strings.Join(values, "|") + ")" }

func (s *soaker) simple() error {
	v := s.unique()
	switch s.rnd.IntN(8) {
	case 0:
		return s.fails("select '"+v+"'::int", "22P02")
	case 1:
		return s.fails("selec '"+v+"'", "42601")
	case 2:
		return s.fails("select 1/(length('"+v+"')-length('"+v+"'))", "22012")
	case 3:
		return s.query("", "I")
	case 4: // a row larger than any buffer
		n := 1 + s.rnd.IntN(200_000)
		return s.query(fmt.Sprintf("select repeat('%s', %d)", v, n/len(v)+1), "T", row(strings.Repeat(v, n/len(v)+1)), "C(SELECT 1)")
	}
	return s.query("select '"+v+"'", "T", row(v), "C(SELECT 1)")
}

func (s *soaker) multi() error {
	a, b := s.unique(), s.unique()
	if s.rnd.IntN(3) == 0 {
		return s.fails("select '"+a+"'; insert into soak values (-1, 'must not stay'); select 1/0; select '"+b+"'", "22012", "T", row(a), "C(SELECT 1)", "C(INSERT 0 1)")
	}
	return s.query("select '"+a+"'; select '"+b+"'", "T", row(a), "C(SELECT 1)", "T", row(b), "C(SELECT 1)")
}

// batch composes a pipeline and what is to come of it.
type batch struct {
	s    *soaker
	msgs []pgproto3.FrontendMessage
}

func (s *soaker) batch() *batch {
	s.ahead, s.start = s.state == 'E', s.now
	b := &batch{s: s}
	return b
}

// add adds a message; unless an earlier one fails, it is answered by words.
func (b *batch) add(m pgproto3.FrontendMessage, words ...string) {
	b.msgs = append(b.msgs, m)
	if !b.s.ahead {
		b.s.expect(words...)
	}
	if b.s.rnd.IntN(20) == 0 {
		b.msgs = append(b.msgs, &pgproto3.Flush{})
	}
}

// fail adds a message that ends in an error.
func (b *batch) fail(m pgproto3.FrontendMessage, code string) {
	if !b.s.ahead {
		b.s.note("  fails: %s", code)
	}
	b.add(m, "E("+code+")")
	b.s.ahead = true
}

// sync ends the pipeline and runs it.
func (b *batch) sync() error {
	s := b.s
	if s.ahead && s.state != 'E' {
		s.did.errors.Add(1)
		if s.state == 'T' {
			s.state = 'E'
		} else {
			s.now = s.start // it was one transaction
		}
	}
	b.msgs = append(b.msgs, sync_)
	s.ready()
	s.did.pipelines.Add(1)
	return s.run(b.msgs...)
}

// aborted begins a batch in a transaction that has failed: the first Parse is
// refused.
func (b *batch) aborted() bool {
	if b.s.state != 'E' {
		return false
	}
	b.s.ahead = false
	b.fail(parse("", "select 1"), "25P02")
	return true
}

func (s *soaker) extended() error {
	b := s.batch()
	s.note("extended")
	if b.aborted() {
		return b.sync()
	}
	s.read1(b)
	return b.sync()
}

// read1 adds one read with all its messages to a batch.
func (s *soaker) read1(b *batch) {
	s.did.statements.Add(1)
	v, w := s.unique(), s.unique()
	b.add(parse("", "select $1::text || '"+w+"'"), "1")
	if s.rnd.IntN(3) == 0 {
		b.add(describe('S', ""), "t", "T")
	}
	portal := s.pick("", "", "p"+v)
	b.add(bind(portal, "", v), "2")
	if s.rnd.IntN(2) == 0 {
		b.add(describe('P', portal), "T")
	}
	b.add(execute(portal, 0), row(v+w), "C(SELECT 1)")
	if s.rnd.IntN(3) == 0 {
		b.add(closes('P', portal), "3")
	}
}

// write1 adds an INSERT to a batch.
func (s *soaker) write1(b *batch) {
	s.did.statements.Add(1)
	b.add(parse("", "insert into soak values ($1::text::int, $2)"), "1")
	b.add(bind("", "", strconv.Itoa(s.id), s.unique()), "2")
	b.add(execute("", 0), "C(INSERT 0 1)")
	if !s.ahead {
		s.now.rows++
	}
}

// partial reads a portal in pieces, over several Syncs inside a transaction.
func (s *soaker) partial() error {
	b := s.batch()
	s.note("partial")
	if b.aborted() {
		return b.sync()
	}
	v := s.unique()
	n := 1 + s.rnd.IntN(30)
	portal := s.pick("", "part"+v)
	b.add(parse("", "select $1::text || i from generate_series(1, "+strconv.Itoa(n)+") i"), "1")
	b.add(bind(portal, "", v), "2")
	for at := 0; ; {
		piece := 1 + s.rnd.IntN(12)
		var words []string
		for i := at + 1; i <= min(at+piece, n); i++ {
			words = append(words, row(v+strconv.Itoa(i)))
		}
		if at+piece <= n { // a server notices the end only when asked for more than there is
			words = append(words, "s")
		} else {
			words = append(words, fmt.Sprintf("C(SELECT %d)", n-at))
		}
		at = min(at+piece, n+1)
		b.add(execute(portal, piece), words...)
		if words[len(words)-1] != "s" {
			break
		}
		if s.state == 'T' && s.rnd.IntN(3) == 0 {
			if err := b.sync(); err != nil {
				return err
			}
			b = s.batch()
		} else if s.rnd.IntN(4) == 0 {
			break
		}
	}
	return b.sync()
}

// pipeline is many statements before one Sync, reads and writes mixed, with an
// error somewhere in every third.
func (s *soaker) pipeline() error {
	b := s.batch()
	n := 1 + s.rnd.IntN(1+s.rnd.IntN(60))
	bad := -1
	if s.rnd.IntN(3) == 0 {
		bad = s.rnd.IntN(n)
	}
	s.note("pipeline of %d, error at %d, in %c", n, bad, s.state)
	if b.aborted() {
		n = min(n, 3)
	}
	for i := range n {
		if i == bad {
			s.error1(b)
			continue
		}
		switch s.rnd.IntN(10) {
		case 0, 1, 2:
			s.write1(b)
		case 3:
			s.named1(b)
		case 4:
			x := s.unique()
			b.add(parse("", "set soak.x = '"+x+"'"), "1")
			b.add(bind("", ""), "2")
			b.add(execute("", 0), "C(SET)")
			if !s.ahead {
				s.now.set, s.now.local = x, ""
			}
		case 5:
			b.add(parse("", "select coalesce(current_setting('soak.x', true), '')"), "1")
			b.add(bind("", ""), "2")
			b.add(execute("", 0), row(s.now.x()), "C(SELECT 1)")
		default:
			s.read1(b)
		}
	}
	return b.sync()
}

// error1 adds an error of some kind to a batch.
func (s *soaker) error1(b *batch) {
	switch s.rnd.IntN(6) {
	case 0:
		b.fail(parse("", "selec"), "42601")
	case 1:
		b.fail(parse("", "select * from nothing_like_it"), "42P01")
	case 2:
		b.add(parse("", "select $1::int"), "1")
		b.fail(bind("", "", "no number"), "22P02")
	case 3:
		b.add(parse("", "select 1/(i-1) from generate_series(1, 1) i"), "1")
		b.add(bind("", ""), "2")
		b.fail(execute("", 0), "22012")
	case 4:
		b.fail(bind("", "never_prepared"), "26000")
	case 5:
		b.add(parse("", "insert into soak select 1/(i-1), 'must not stay' from generate_series(1, 1) i"), "1")
		b.add(bind("", ""), "2")
		b.fail(execute("", 0), "22012")
	}
}

// named1 adds something about named statements to a batch.
func (s *soaker) named1(b *batch) {
	name := "st" + strconv.Itoa(s.rnd.IntN(4))
	w, known := s.stmts[name]
	switch {
	case !known:
		w = s.unique()
		b.add(parse(name, "select $1::text || '"+w+"'"), "1")
		if !s.ahead {
			s.stmts[name] = w
		}
	case s.rnd.IntN(4) == 0:
		b.add(closes('S', name), "3")
		if !s.ahead {
			delete(s.stmts, name)
		}
	case s.rnd.IntN(12) == 0:
		b.fail(parse(name, "select 1"), "42P05")
	default:
		v := s.unique()
		b.add(bind("", name, v), "2")
		b.add(execute("", 0), row(v+w), "C(SELECT 1)")
	}
}

func (s *soaker) named() error {
	b := s.batch()
	s.note("named")
	if b.aborted() {
		return b.sync()
	}
	for range 1 + s.rnd.IntN(4) {
		s.named1(b)
	}
	return b.sync()
}

// forget ends prepared statements by SQL.
func (s *soaker) forget() error {
	if s.state != 'I' {
		return nil
	}
	switch s.rnd.IntN(3) {
	case 0:
		for name := range s.stmts {
			delete(s.stmts, name)
			return s.query("deallocate "+name, "C(DEALLOCATE)")
		}
	case 1:
		clear(s.stmts)
		return s.query("deallocate all", "C(DEALLOCATE ALL)")
	case 2:
		clear(s.stmts)
		s.now.set, s.now.local = "", ""
		return s.query("discard all", "C(DISCARD ALL)")
	}
	return nil
}

func (s *soaker) transaction() error {
	s.did.transactions.Add(1)
	switch {
	case s.state == 'I':
		return s.query("begin", "C(BEGIN)")
	case s.state == 'E':
		return s.query(s.pick("rollback", "rollback"), "C(ROLLBACK)")
	case s.rnd.IntN(2) == 0:
		return s.query("rollback", "C(ROLLBACK)")
	}
	return s.query("commit", "C(COMMIT)")
}

func (s *soaker) savepoints() error {
	if s.state == 'I' {
		return s.simple()
	}
	n := len(s.saves)
	switch {
	case n > 0 && (s.state == 'E' || s.rnd.IntN(3) == 0):
		i := s.rnd.IntN(n)
		s.now, s.saves = s.saves[i], s.saves[:i+1]
		return s.query(fmt.Sprintf("rollback to s%d", i), "C(ROLLBACK)")
	case s.state == 'E':
		return s.transaction()
	case n > 0 && s.rnd.IntN(3) == 0:
		i := s.rnd.IntN(n)
		s.saves = s.saves[:i]
		return s.query(fmt.Sprintf("release s%d", i), "C(RELEASE)")
	}
	s.saves = append(s.saves, s.now)
	return s.query(fmt.Sprintf("savepoint s%d", n), "C(SAVEPOINT)")
}

func (s *soaker) settings() error {
	if s.state == 'E' {
		return s.simple()
	}
	switch s.rnd.IntN(4) {
	case 0:
		x := s.unique()
		s.now.set, s.now.local = x, ""
		return s.query("set soak.x = '"+x+"'", "C(SET)")
	case 1:
		if s.state == 'T' {
			x := s.unique()
			s.now.local = x
			return s.query("set local soak.x = '"+x+"'", "C(SET)")
		}
	case 2:
		x := s.unique()
		s.now.set, s.now.local = x, ""
		return s.query("select set_config('soak.x', '"+x+"', false)", "T", row(x), "C(SELECT 1)")
	}
	return s.query("select coalesce(current_setting('soak.x', true), '')", "T", row(s.now.x()), "C(SELECT 1)")
}

// count checks what has been written, on the primary, where it is known at once.
func (s *soaker) count() error {
	return s.query(fmt.Sprintf("/*NO LOAD BALANCE*/ select count(*) from soak where client = %d", s.id), "T", row(strconv.Itoa(s.now.rows)), "C(SELECT 1)")
}

func (s *soaker) copyIn() error {
	if s.state == 'E' {
		return s.simple()
	}
	s.did.copies.Add(1)
	sql := "copy soak from stdin"
	var data []pgproto3.FrontendMessage
	n := s.rnd.IntN(50)
	for range n {
		data = append(data, &pgproto3.CopyData{Data: fmt.Appendf(nil, "%d\t%s%s\n", s.id, s.unique(), strings.Repeat("y", s.rnd.IntN(300)))})
	}
	how := s.rnd.IntN(4)
	s.note("copy in %d rows, how %d", n, how)
	fail := func(code string) {
		s.did.errors.Add(1)
		s.expect("E(" + code + ")")
		if s.state == 'T' {
			s.state = 'E'
		}
	}
	msgs := []pgproto3.FrontendMessage{q(sql)}
	extended := s.rnd.IntN(2) == 0
	if extended {
		msgs = []pgproto3.FrontendMessage{parse("", sql), bind("", ""), execute("", 0)}
		s.expect("1", "2")
	}
	s.expect("G")
	msgs = append(msgs, data...)
	switch how {
	case 0:
		msgs = append(msgs, &pgproto3.CopyFail{Message: "changed my mind"})
		fail("57014")
	case 1:
		msgs = append(msgs, &pgproto3.CopyData{Data: []byte("no number\tx\n")}, &pgproto3.CopyDone{})
		fail("22P02")
	default:
		msgs = append(msgs, &pgproto3.CopyDone{})
		s.expect(fmt.Sprintf("C(COPY %d)", n))
		s.now.rows += n
	}
	if extended {
		msgs = append(msgs, sync_)
	}
	s.ready()
	return s.run(msgs...)
}

func (s *soaker) copyOut() error {
	if s.state == 'E' {
		return s.simple()
	}
	s.did.copies.Add(1)
	v := s.unique()
	n := s.rnd.IntN(200)
	s.note("copy out %d", n)
	s.expect("H")
	for i := range n {
		s.expect("d(" + v + strconv.Itoa(i+1) + "\n)")
	}
	s.expect("c", fmt.Sprintf("C(COPY %d)", n))
	s.ready()
	return s.run(q(fmt.Sprintf("copy (select '%s' || i from generate_series(1, %d) i) to stdout", v, n)))
}

// cancels has a statement cancelled at some moment, perhaps too late. The
// statement after it may be hit instead, but nobody else's.
func (s *soaker) cancels() error {
	if s.state == 'E' || s.rnd.IntN(4) > 0 {
		return s.simple()
	}
	s.did.cancels.Add(1)
	v := s.unique()
	s.note("cancel")
	s.loose = true
	defer func() { s.loose = false }()
	delay := time.Duration(s.rnd.IntN(30)) * time.Millisecond
	done := make(chan error, 1)
	conn := s.conn
	time.AfterFunc(delay, func() { done <- conn.cancel() })
	var err error
	if s.rnd.IntN(2) == 0 {
		err = s.query(fmt.Sprintf("select '%s' from pg_sleep(0.02)", v), "T", row(v), "C(SELECT 1)")
	} else {
		b := s.batch()
		for range 1 + s.rnd.IntN(10) {
			b.add(parse("", "select '"+v+"' from pg_sleep(0.005)"), "1")
			b.add(bind("", ""), "2")
			b.add(execute("", 0), row(v), "C(SELECT 1)")
		}
		err = b.sync()
	}
	if err = errors.Join(err, <-done); err != nil || s.state == 'E' {
		return err
	}
	// The signal may still be on its way.
	return s.query("select '"+v+"'", "T", row(v), "C(SELECT 1)")
}

// listen hears what it says itself, and nobody else does.
func (s *soaker) listen() error {
	if s.state != 'I' || s.rnd.IntN(5) > 0 {
		return s.simple()
	}
	v := s.unique()
	if err := s.query("listen "+v, "C(LISTEN)"); err != nil {
		return err
	}
	s.note("notify %s", v)
	s.expect("C(NOTIFY)", "A("+v+" "+v+")")
	s.ready()
	if err := s.run(q("notify " + v + ", '" + v + "'")); err != nil {
		return err
	}
	if s.rnd.IntN(2) == 0 {
		return s.query("unlisten *", "C(UNLISTEN)")
	}
	return nil
}

// temporary tables have the same name for everybody.
func (s *soaker) temporary() error {
	if s.state != 'I' || s.rnd.IntN(5) > 0 {
		return s.simple()
	}
	v := s.unique()
	if err := s.query("create temp table scratch (v text)", "C(CREATE TABLE)"); err != nil {
		return err
	}
	if err := s.query("insert into scratch values ('"+v+"')", "C(INSERT 0 1)"); err != nil {
		return err
	}
	if err := s.query("select v from scratch", "T", row(v), "C(SELECT 1)"); err != nil {
		return err
	}
	return s.query("drop table scratch", "C(DROP TABLE)")
}

// vanish leaves without a word, with something under way that must not stay.
func (s *soaker) vanish() error {
	s.did.vanished.Add(1)
	s.note("vanish in %c", s.state)
	insert := []pgproto3.FrontendMessage{parse("", "insert into soak values ($1::text::int, $2)"), bind("", "", strconv.Itoa(s.id), s.unique()), execute("", 0)}
	var b bytes.Buffer
	add := func(msgs ...pgproto3.FrontendMessage) {
		for _, m := range msgs {
			p, _ := m.Encode(nil)
			b.Write(p)
		}
	}
	half := false
	switch s.rnd.IntN(6) {
	case 0: // executed and shown, but never synced
		add(insert...)
		add(&pgproto3.Flush{})
	case 1:
		add(insert...)
	case 2:
		add(q("copy soak from stdin"), &pgproto3.CopyData{Data: fmt.Appendf(nil, "%d\tnever\n", s.id)})
	case 3:
		add(insert...)
		half = true
	case 4:
		add(q(fmt.Sprintf("select repeat('%s', 1000) from generate_series(1, 3000)", s.unique())))
	case 5:
		if s.state == 'I' {
			add(q("begin"), q(fmt.Sprintf("insert into soak values (%d, 'never')", s.id)))
		}
	}
	p := b.Bytes()
	if half {
		p = p[:s.rnd.IntN(len(p))]
	}
	s.conn.Write(p)
	if s.rnd.IntN(2) == 0 {
		s.conn.SetReadDeadline(time.Now().Add(time.Duration(s.rnd.IntN(20)) * time.Millisecond))
		s.conn.Read(make([]byte, 1+s.rnd.IntN(3000)))
	}
	if s.state != 'I' {
		s.now, s.state = s.base, 'I'
	}
	return vanished
}
