package pgpool_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/golden"
	"pgpool-go/tools/testcluster"
)

// The corpus of routing decisions, played through a pgpool in this process in
// front of a real primary with two standbys. Where each statement ran is read
// from the servers' logs: it carries a number in a comment behind it, which
// nobody's routing looks at.
//
// What the original sends to all nodes ("both", "all") must run on the primary: a
// standby is told before it is read, see better.md.

type routingCase struct {
	ID, Proto, DB, User, App string
	Conf, Options            map[string]string
	Setup, Cleanup           []string
	NoWait                   bool
	Steps                    []*routingStep
}

type routingStep struct {
	SQL, Proto, Conn, Do, Name, Portal, Data string
	Params, Accept                           []string
	MaxRows                                  uint32 `json:"max_rows"`
	Func                                     uint32
	Pipeline                                 []*routingStep
	CancelMS                                 int `json:"cancel_ms"`
	WaitMS                                   int `json:"wait_ms"`
	Direct, Exact, Closed                    bool
	Node, Repeat                             int
	To, SQLState                             string
	Spread                                   map[int][2]int
	SameAs                                   *int `json:"same_as"`

	number int
	closed bool // the session ended in this step
}

func TestRouting(t *testing.T) {
	cases := routingCases(t)
	c := testcluster.New(t, testcluster.Options{Standbys: 2, LogStatements: true, Conf: map[string]string{
		"max_prepared_transactions": "20", "hot_standby_feedback": "on", "max_standby_streaming_delay": "2s",
	}})
	schema, err := os.ReadFile(filepath.Join(golden.Testdata(t), "routing", "schema.sql"))
	c.Must(err)
	p := &routingPlayer{t: t, c: c, better: betterSteps(t), ran: map[int][]int{}, marked: map[int][]*routingStep{}}
	for _, n := range c.Nodes {
		conn, err := pgx.Connect(t.Context(), n.URL())
		c.Must(err)
		defer conn.Close(context.Background())
		p.direct = append(p.direct, conn)
	}
	for _, sql := range strings.Split(string(schema), ";\n") {
		p.mustDo(0, sql)
	}
	p.catchUp()

	// One pgpool for all cases of a configuration.
	var order []string
	groups := map[string][]*routingCase{}
	for _, x := range cases {
		key := ""
		for _, name := range slices.Sorted(maps.Keys(x.Conf)) {
			key += fmt.Sprintf("%s = '%s'\n", name, x.Conf[name])
		}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], x)
	}
	base := append(backends(c, 0, 1, 1), "num_init_children = 8", "check_temp_table = catalog",
		"disable_load_balance_on_write = 'transaction'", "read_only_function_list = ''", "write_function_list = ''")
	var since []testcluster.LogMark
	for _, n := range c.Nodes {
		m, err := n.LogMark()
		c.Must(err)
		since = append(since, m)
	}
	for _, key := range order {
		t.Run(strings.ReplaceAll(strings.TrimSpace(key), "\n", ","), func(t *testing.T) {
			p.t, p.f = t, serve(t, c, append(slices.Clone(base), strings.Split(key, "\n")...)...)
			for _, x := range groups[key] {
				// Patterns see the whole text, and a number would hide the end of it.
				p.play(x, !strings.Contains(key, "pattern") && !slices.ContainsFunc(x.Steps, x.withoutText))
			}
		})
	}
	p.t = t
	p.read(since)
	for _, x := range cases {
		p.judge(x)
	}
	t.Logf("%d cases, %d steps judged, %d of them otherwise than the original on purpose", len(cases), p.judged, p.otherwise)
	if len(cases) < 1000 || p.judged < 2000 {
		t.Error("too few")
	}
}

// routingCases are the cases that can be replayed here.
func routingCases(t *testing.T) (list []*routingCase) {
	f, err := os.Open(filepath.Join(golden.Testdata(t), "routing", "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		c := &routingCase{}
		if err := json.Unmarshal(sc.Bytes(), c); err != nil {
			t.Fatal(err)
		}
		slow := func(s *routingStep) bool { return s.CancelMS > 0 || s.WaitMS > 0 || s.Func != 0 }
		if c.NoWait || c.Options["replication"] != "" || slices.ContainsFunc(c.Steps, slow) {
			continue // delays, cancels and walsenders have tests of their own
		}
		list = append(list, c)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// betterSteps are the steps that better.md names.
func betterSteps(t *testing.T) map[string]bool {
	text, err := os.ReadFile(filepath.Join(golden.Testdata(t), "routing", "better.md"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, id := range regexp.MustCompile(`\b[a-z0-9_]+-\d+-[sx]/\d+\b`).FindAllString(string(text), -1) {
		out[id] = true
	}
	return out
}

type routingPlayer struct {
	t      *testing.T
	c      *testcluster.Cluster
	f      *front
	better map[string]bool
	direct []*pgx.Conn
	last   int                    // number given
	marked map[int][]*routingStep // steps whose statements do not carry their numbers
	ran    map[int][]int          // by number: nodes

	judged, otherwise int
}

func (p *routingPlayer) mustDo(node int, sql string) {
	p.t.Helper()
	if strings.TrimSpace(sql) == "" {
		return
	}
	if _, err := p.direct[node].PgConn().Exec(p.t.Context(), sql).ReadAll(); err != nil {
		p.t.Fatalf("directly on node %d: %s: %v", node, sql, err)
	}
}

// catchUp waits until the standbys have what the primary has.
func (p *routingPlayer) catchUp() {
	p.t.Helper()
	r := p.direct[0].PgConn().ExecParams(p.t.Context(), "SELECT pg_current_wal_flush_lsn()", nil, nil, nil, nil).Read()
	p.c.Must(r.Err)
	lsn := string(r.Rows[0][0])
	for n := range p.direct[1:] {
		p.mustDo(n+1, fmt.Sprintf(`DO $$BEGIN FOR i IN 1 .. 10000 LOOP
			IF pg_last_wal_replay_lsn() >= '%s' THEN RETURN; END IF; PERFORM pg_sleep(0.002); END LOOP; RAISE 'the standby lags'; END$$`, lsn))
	}
}

// read notes on which nodes the steps have run, all at once: a statement carries
// its number, or stands between two marks that carry it.
func (p *routingPlayer) read(since []testcluster.LogMark) {
	note := func(number, node int) { p.ran[number] = append(p.ran[number], node) }
	for node, n := range p.c.Nodes {
		entries, err := n.Entries(since[node])
		p.c.Must(err)
		marked := 0 // the step between marks
		for _, e := range entries {
			text := e.Ran()
			switch {
			case e.Application == "pgpool": // its health checks
				continue
			case text == "" && e.Severity == "ERROR":
				text = e.Statement
			}
			if m := stepMark.FindStringSubmatch(text); m != nil {
				marked, _ = strconv.Atoi(m[1])
				continue
			}
			if marked != 0 {
				for _, sub := range p.marked[marked] {
					if trimmed(text) == trimmed(sub.SQL) {
						note(sub.number, node)
					}
				}
				continue
			}
			for _, m := range numberBehind.FindAllStringSubmatch(text, -1) {
				number, _ := strconv.Atoi(m[1])
				note(number, node)
			}
		}
	}
}

var (
	numberBehind = regexp.MustCompile(`\n/\* (\d+) \*/`)
	stepMark     = regexp.MustCompile(`^SELECT 'step (\d+)'$`)
)

// mark writes a step's number into all logs; 0 ends it.
func (p *routingPlayer) mark(number int) {
	for node := range p.direct {
		p.mustDo(node, fmt.Sprintf("SELECT 'step %d'", number))
	}
}

// play runs the steps of a case.
func (p *routingPlayer) play(c *routingCase, numbered bool) {
	for _, sql := range c.Setup {
		p.mustDo(0, sql)
	}
	if len(c.Setup) > 0 {
		p.catchUp()
	}
	sessions := map[string]*raw{}
	states := map[string]string{}
	for _, s := range c.Steps {
		if s.Direct {
			p.mustDo(s.Node, s.SQL)
			p.catchUp()
			continue
		}
		r := sessions[s.Conn]
		if r == nil {
			var err error
			if r, err = p.f.login(c.startup()...); err != nil {
				p.t.Errorf("%s: %v", c.ID, err)
				return
			}
			sessions[s.Conn] = r
		}
		subs := []*routingStep{s}
		if len(s.Pipeline) > 0 {
			subs = s.Pipeline
		}
		for _, sub := range subs {
			p.last++
			sub.number = p.last
		}
		if !numbered {
			p.marked[p.last] = subs
			p.mark(p.last)
		}
		for range max(1, s.Repeat) {
			state, err := p.send(r, c, s, subs, numbered)
			if states[s.Conn] = state; err != nil {
				for _, sub := range subs {
					sub.closed = true
				}
				r.Close()
				delete(sessions, s.Conn)
				break
			}
		}
		if !numbered {
			p.mark(0)
		}
		if states[s.Conn] != "T" && states[s.Conn] != "E" && !onlyReads.MatchString(s.SQL) {
			p.catchUp()
		}
	}
	for _, r := range sessions {
		r.send(&pgproto3.Terminate{})
		r.Close()
	}
	for p.leftPrepared() {
	}
	for _, sql := range c.Cleanup {
		p.mustDo(0, sql)
	}
	if len(c.Cleanup) > 0 {
		p.catchUp()
	}
}

// onlyReads matches statements after which the standbys have nothing to replay.
var onlyReads = regexp.MustCompile(`(?i)^\s*(select|show|table|values|begin|start|set|reset|explain|fetch|prepare|execute|deallocate)\b`)

// extended tells the protocol of a step.
func (c *routingCase) extended(s *routingStep) bool {
	return s.Proto == "extended" || s.Proto == "" && c.Proto == "extended"
}

// withoutText tells a step that executes what an earlier one has parsed.
func (c *routingCase) withoutText(s *routingStep) bool {
	return c.extended(s) && s.Do != "" && !strings.Contains(s.Do, "P")
}

func trimmed(sql string) string { return strings.TrimRight(strings.TrimSpace(sql), "; \n") }

// leftPrepared rolls one prepared transaction back, if there is any.
func (p *routingPlayer) leftPrepared() bool {
	r := p.direct[0].PgConn().ExecParams(p.t.Context(),
		"SELECT quote_literal(gid) FROM pg_prepared_xacts WHERE database = current_database() LIMIT 1", nil, nil, nil, nil).Read()
	p.c.Must(r.Err)
	if len(r.Rows) == 0 {
		return false
	}
	p.mustDo(0, "ROLLBACK PREPARED "+string(r.Rows[0][0]))
	return true
}

// startup are the settings of the case's start-up packet.
func (c *routingCase) startup() []string {
	pairs := []string{"application_name", "oracle"}
	for _, x := range [][2]string{{"user", c.User}, {"database", c.DB}, {"application_name", c.App}} {
		if x[1] != "" {
			pairs = append(pairs, x[:]...)
		}
	}
	for name, value := range c.Options {
		pairs = append(pairs, name, value)
	}
	return pairs
}

// send sends a step and reads all answers. It returns the transaction's state, or
// an error if the session is over.
func (p *routingPlayer) send(r *raw, c *routingCase, s *routingStep, subs []*routingStep, numbered bool) (state string, err error) {
	extended := c.extended(s)
	r.SetDeadline(time.Now().Add(patience))
	var msgs []pgproto3.FrontendMessage
	ready := 0
	for _, sub := range subs {
		sql := sub.SQL
		if numbered && trimmed(sql) != "" {
			sql = fmt.Sprintf("%s\n/* %d */", sql, sub.number)
		}
		if !extended {
			msgs = append(msgs, q(sql))
			ready++
			continue
		}
		do := sub.Do
		switch {
		case do == "" && len(s.Pipeline) > 0:
			do = "PBDE"
		case do == "":
			do = "PBDES"
		}
		for _, letter := range do {
			switch letter {
			case 'P':
				msgs = append(msgs, parse(sub.Name, sql))
			case 'B':
				msgs = append(msgs, bind(sub.Portal, sub.Name, sub.Params...))
			case 'D':
				msgs = append(msgs, describe('P', sub.Portal))
			case 'd':
				msgs = append(msgs, describe('S', sub.Name))
			case 'E':
				msgs = append(msgs, execute(sub.Portal, int(sub.MaxRows)))
			case 'C':
				msgs = append(msgs, closes('S', sub.Name))
			case 'c':
				msgs = append(msgs, closes('P', sub.Portal))
			case 'H':
				msgs = append(msgs, &pgproto3.Flush{})
			case 'S':
				msgs = append(msgs, sync_)
				ready++
			}
		}
	}
	if len(s.Pipeline) > 0 {
		msgs = append(msgs, sync_)
		ready++
	}
	if err := r.send(msgs...); err != nil {
		return "", err
	}
	for ready > 0 {
		msg, err := r.next()
		if err != nil {
			return "", err
		}
		switch m := msg.(type) {
		case *pgproto3.ReadyForQuery:
			ready--
			state = string(m.TxStatus)
		case *pgproto3.ErrorResponse:
			if m.Severity == "FATAL" {
				return "", refusalOf(m)
			}
		case *pgproto3.CopyInResponse:
			answer := []pgproto3.FrontendMessage{&pgproto3.CopyDone{}}
			switch s.Data {
			case "":
			case "!fail":
				answer[0] = &pgproto3.CopyFail{Message: "no"}
			default:
				answer = append([]pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte(s.Data)}}, answer...)
			}
			if extended { // the server has passed over the Sync that came before the data
				answer = append(answer, sync_)
			}
			if err := r.send(answer...); err != nil {
				return "", err
			}
		}
	}
	return state, nil
}

// judge compares where the steps of a case ran with where the original ran them.
func (p *routingPlayer) judge(c *routingCase) {
	var flat []*routingStep
	for i, s := range c.Steps {
		subs := []*routingStep{s}
		if len(s.Pipeline) > 0 {
			subs = s.Pipeline
		}
		for _, sub := range subs {
			flat = append(flat, sub)
			if s.Direct || trimmed(sub.SQL) == "" || c.extended(s) && sub.Do != "" && !strings.Contains(sub.Do, "E") {
				continue // not seen in logs
			}
			id := fmt.Sprintf("%s/%d", c.ID, i)
			ran := p.ran[sub.number]
			wrong := ""
			if s.Spread != nil {
				for node, limits := range s.Spread {
					n := len(slices.DeleteFunc(slices.Clone(ran), func(x int) bool { return x != node }))
					if n < limits[0] || n > limits[1] {
						wrong = fmt.Sprintf("node %d was chosen %d times of %d, want %v", node, n, s.Repeat, limits)
					}
				}
			} else if got := sub.class(ran); !sub.satisfied(got) {
				wrong = fmt.Sprintf("ran on %s, want %s or %v", got, sub.To, sub.Accept)
			}
			if sub.SameAs != nil {
				if before := p.ran[flat[*sub.SameAs].number]; len(before) > 0 && !slices.Equal(slices.Compact(slices.Sorted(slices.Values(before))), slices.Compact(slices.Sorted(slices.Values(ran)))) {
					wrong = fmt.Sprintf("ran on %v, step %d on %v", ran, *sub.SameAs, before)
				}
			}
			p.judged++
			switch {
			case wrong != "" && p.better[id]:
				p.t.Logf("better: %s: %s: %s", id, sub.SQL, wrong)
				p.otherwise++
			case wrong != "":
				p.t.Errorf("%s: %s: %s", id, sub.SQL, wrong)
			}
		}
	}
}

// class names the nodes where a step ran, as the corpus does.
func (s *routingStep) class(ran []int) string {
	nodes := slices.Compact(slices.Sorted(slices.Values(ran)))
	switch {
	case len(nodes) == 0 && s.closed:
		return "none"
	case len(nodes) == 0:
		return "pgpool"
	case s.Exact && len(nodes) == 1:
		return fmt.Sprintf("node%d", nodes[0])
	case len(nodes) == 1 && nodes[0] == 0:
		return "primary"
	case len(nodes) == 1:
		return "standby"
	case nodes[0] != 0:
		return "standbys"
	case len(nodes) == 3:
		return "all"
	}
	return "both"
}

func (s *routingStep) satisfied(got string) bool {
	everywhere := func(to string) bool { return to == "both" || to == "all" }
	for _, to := range append([]string{s.To}, s.Accept...) {
		if got == to || everywhere(to) && (got == "primary" || everywhere(got)) {
			return true
		}
	}
	return false
}
