package route

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgpool-go/parser"
)

// A life plays random statements and checks what must hold in every session.
type life struct {
	t       *testing.T
	r       *rand.Rand
	s       *Session
	in      Input
	history []string

	open, failed bool
	node         int      // of the transaction's reads
	wrote        []bool   // for the transaction and each savepoint in it: written since
	saves        []string // names of the savepoints
}

// TestLives: whatever happens in a session, a transaction's reads stay on one
// node, and none of them misses a write of its own transaction.
func TestLives(t *testing.T) {
	rules, cfg := rulesFor(t, nil)
	for seed := range uint64(300) {
		l := &life{t: t, r: rand.New(rand.NewPCG(seed, 1)), s: NewSession("d", "u", "a", nil), node: -1}
		l.in = Input{Session: l.s, Cluster: snapshotFor(cfg), Rules: rules}
		for range 60 {
			l.statement()
		}
		if t.Failed() {
			t.Fatalf("seed %d: %q", seed, l.history)
		}
	}
}

func (l *life) statement() {
	statements := []string{
		"SELECT * FROM t3", "SELECT * FROM t1", "SHOW work_mem", "SELECT * FROM pg_class", "INSERT INTO t1 VALUES (1)", "SELECT f_vol(1)",
		"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT", "ROLLBACK", "SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO b", "RELEASE a",
		"SELECT * FROM t3", "SELECT * FROM t1", "SELECT * FROM t2", "SELECT 1; DELETE FROM t1", "SET work_mem = '5MB'", "COMMIT AND CHAIN",
	}
	sql := statements[l.r.IntN(len(statements))]
	v := parse().Classify([]byte(sql))
	l.in.Verdict, l.in.Text, l.in.Random, l.in.Facts = v, []byte(sql), l.r.Float64(), factsOf(v)
	d := Route(&l.in)
	fails := l.r.IntN(12) == 0
	switch v.Class {
	case parser.RollbackTo, parser.Release:
		fails = fails || !l.open || !slices.Contains(l.saves, v.Transaction.Savepoint)
	case parser.Savepoint:
		fails = fails || !l.open
	case parser.Commit, parser.Rollback: // fail only AND CHAIN outside a transaction
		fails = v.Transaction.Chain && !l.open
	}
	if l.failed && v.Class != parser.Commit && v.Class != parser.Rollback && v.Class != parser.RollbackTo {
		fails = true
	}
	l.history = append(l.history, sql)
	l.check(sql, d)
	l.s.Send(v, d)
	if fails {
		l.s.Failed(0)
	} else {
		l.s.Done()
	}
	l.model(v, d, fails)
	status := byte('I')
	switch {
	case l.failed:
		status = 'E'
	case l.open:
		status = 'T'
	}
	l.s.Ready(status)
	if l.s.InTransaction() != l.open || l.s.TransactionFailed() != l.failed {
		l.t.Errorf("after %q: open %v failed %v, want %v %v", sql, l.s.InTransaction(), l.s.TransactionFailed(), l.open, l.failed)
	}
}

// check compares a decision with the little that must hold.
func (l *life) check(sql string, d Decision) {
	if l.failed && d.Node != 0 {
		l.t.Errorf("%q in a failed transaction to %d", sql, d.Node)
	}
	if l.open && d.Node > 0 {
		if slices.Contains(l.wrote, true) {
			l.t.Errorf("%q to %d after a write", sql, d.Node)
		}
		if l.node >= 0 && d.Node != l.node {
			l.t.Errorf("%q to %d, the transaction reads on %d", sql, d.Node, l.node)
		}
	}
}

// model follows the transaction in the simplest way.
func (l *life) model(v *parser.Verdict, d Decision, fails bool) {
	if fails {
		l.failed = l.failed || l.open
		return
	}
	end := func() { l.open, l.failed, l.node, l.wrote, l.saves = false, false, -1, nil, nil }
	begin := func() { l.open, l.wrote = true, []bool{false} }
	switch v.Class {
	case parser.Begin:
		if !l.open {
			begin()
		}
	case parser.Commit, parser.Rollback:
		was := l.open
		end()
		if v.Transaction.Chain && was {
			begin()
		}
	case parser.Savepoint:
		l.saves, l.wrote = append(l.saves, v.Transaction.Savepoint), append(l.wrote, false)
	case parser.RollbackTo:
		i := lastIndex(l.saves, v.Transaction.Savepoint)
		l.saves, l.wrote = l.saves[:i+1], append(l.wrote[:i+1:i+1], false)
		l.failed = false
	case parser.Release:
		i := lastIndex(l.saves, v.Transaction.Savepoint)
		wrote := slices.Contains(l.wrote[i+1:], true)
		l.saves, l.wrote = l.saves[:i], l.wrote[:i+1]
		l.wrote[i] = l.wrote[i] || wrote
	case parser.Insert, parser.Multi:
		if l.open {
			l.wrote[len(l.wrote)-1] = true
		}
	}
	if d.Balanced && l.open {
		l.node = d.Node
	}
}

func lastIndex(list []string, s string) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == s {
			return i
		}
	}
	return -1
}

// TestPipelineErrors: what an error throws away is as if it had never been sent.
func TestPipelineErrors(t *testing.T) {
	rules, cfg := rulesFor(t, map[string]string{"disable_load_balance_on_write": "always"})
	s := NewSession("d", "u", "a", nil)
	send := func(sql string) Decision {
		v := parse().Classify([]byte(sql))
		d := Route(&Input{Verdict: v, Text: []byte(sql), Facts: factsOf(v), Session: s, Cluster: snapshotFor(cfg), Rules: rules, Extended: true, Random: 0.1})
		s.Send(v, d)
		return d
	}
	send("SELECT 1")
	send("SELECT no_such_thing")
	if d := send("BEGIN"); !d.Everywhere {
		t.Error("BEGIN")
	}
	send("INSERT INTO t1 VALUES (1)")
	if d := send("SELECT 1"); d.Node != 0 {
		t.Errorf("read behind a write of the pipeline: %+v", d)
	}
	s.Done()
	s.Failed(0)
	s.Ready('I')
	if s.InTransaction() || s.Wrote() {
		t.Error("what was thrown away had an effect")
	}
	if d := send("SELECT 1"); d.Node != 1 {
		t.Errorf("%+v", d)
	}
}

// TestSeenByTheServer: the state in ReadyForQuery puts right what was not understood.
func TestSeenByTheServer(t *testing.T) {
	rules, cfg := rulesFor(t, nil)
	s := NewSession("d", "u", "a", nil)
	run := func(sql string, status byte) Decision {
		v := parse().Classify([]byte(sql))
		d := Route(&Input{Verdict: v, Text: []byte(sql), Facts: factsOf(v), Session: s, Cluster: snapshotFor(cfg), Rules: rules, Random: 0.1})
		s.Send(v, d)
		s.Done()
		s.Ready(status)
		return d
	}
	run("BEGIN SOME NEW WAY", 'T')
	if !s.InTransaction() {
		t.Fatal("a transaction begun unseen")
	}
	if d := run("SELECT 1", 'T'); d.Node != 0 {
		t.Errorf("a read in it: %+v", d)
	}
	run("COMMIT SOME NEW WAY", 'I')
	if s.InTransaction() {
		t.Fatal("a transaction ended unseen")
	}
	run("BEGIN", 'T')
	run("CREATE TEMP TABLE tt (i int)", 'T')
	v := parse().Classify([]byte("COMMIT")) // a deferred constraint
	s.Send(v, Route(&Input{Verdict: v, Session: s, Cluster: snapshotFor(cfg), Rules: rules}))
	s.Failed(0)
	if s.Ready('I'); s.InTransaction() || s.Temp(parser.Name{Name: "tt"}) {
		t.Error("a COMMIT that failed is a ROLLBACK")
	}
}

// TestAskTemp: only code that the text does not show may have made temporary tables.
func TestAskTemp(t *testing.T) {
	rules, cfg := rulesFor(t, nil)
	for _, x := range []struct {
		sql    string
		custom bool
		ask    bool
	}{
		{"SELECT 1", false, false}, {"SELECT random()", false, false}, {"SELECT f_vol(1)", true, true}, {"CALL p_nop()", false, true},
		{"DO 'BEGIN NULL; END'", false, true}, {"CREATE TEMP TABLE t (i int)", false, false}, {"EXECUTE x", false, true},
	} {
		s := NewSession("d", "u", "a", nil)
		v := parse().Classify([]byte(x.sql))
		f := *factsOf(v)
		f.Custom = x.custom
		s.Send(v, Route(&Input{Verdict: v, Facts: &f, Session: s, Cluster: snapshotFor(cfg), Rules: rules}))
		s.Done()
		if e := s.Ready('I'); e.AskTemp != x.ask {
			t.Errorf("%s: %v", x.sql, e.AskTemp)
		}
	}
	for sql, want := range map[string]bool{
		"SELECT 1": false, "SELECT f(1)": false, "SELECT * FROM t": true, "SELECT * FROM a.t": false, "COPY t TO STDOUT": true,
		"INSERT INTO t VALUES (1)": false, "SELECT * FROM t FOR UPDATE": false, "SHOW x": false,
	} {
		if got := NeedsTemp(parse().Classify([]byte(sql)), rules); got != want {
			t.Errorf("%s needs: %v", sql, got)
		}
	}
}

func TestReasons(t *testing.T) {
	codes := map[string]bool{}
	var c Counters
	for _, r := range Reasons() {
		if r.String() == "" || r.Text() == "" || codes[r.String()] {
			t.Errorf("reason %d: %q %q", r, r.String(), r.Text())
		}
		codes[r.String()] = true
		c.Note(Decision{Reason: r})
		if c.Count(r) != 1 {
			t.Errorf("%s counted %d times", r, c.Count(r))
		}
	}
}

func BenchmarkRoute(b *testing.B) {
	rules, cfg := rulesFor(b, nil)
	snap := snapshotFor(cfg)
	for name, sql := range map[string]string{"read": "SELECT * FROM t1 WHERE i = 1", "write": "INSERT INTO t1 VALUES (1)"} {
		b.Run(name, func(b *testing.B) {
			s := NewSession("d", "u", "a", nil)
			v := parse().Classify([]byte(sql))
			in := Input{Verdict: v, Text: []byte(sql), Facts: factsOf(v), Session: s, Cluster: snap, Rules: rules, Random: 0.3}
			b.ReportAllocs()
			for b.Loop() {
				d := Route(&in)
				s.Send(v, d)
				s.Done()
				s.Ready('I')
			}
		})
	}
}
