package route

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/golden"
)

// The corpus holds what the original did, observed on real servers. Here each
// case is played against the pure decision alone: a statement for "all" or "both"
// is one for the primary whose effect is to be everywhere.

type corpusCase struct {
	ID, Proto, DB, User, App string
	Conf                     map[string]string
	Options                  map[string]string
	NoWait                   bool
	Steps                    []*corpusStep
}

type corpusStep struct {
	SQL, Do, Name, Portal, To, SQLState, Proto, Conn string
	Params                                           []string
	Accept                                           []string
	Exact, Direct, Closed                            bool
	Repeat                                           int
	Spread                                           map[string][2]int
	Pipeline                                         []*corpusStep
	SameAs                                           *int `json:"same_as"`
	Func                                             uint32
}

// better are the steps where the original is wrong and no accept list says so:
// see testdata/routing/better.md.
var better = map[string]string{
	"mis-007-s/1": "an imported snapshot exists on the primary only",
	"mis-007-x/1": "an imported snapshot exists on the primary only",
}

func TestCorpus(t *testing.T) {
	f, err := os.Open(filepath.Join(golden.Testdata(t), "routing", "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	judged, skipped := 0, map[string]int{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	rules := map[string]*Rules{}
	confs := map[string]*conf.Config{}
	for sc.Scan() {
		c := &corpusCase{}
		if err := json.Unmarshal(sc.Bytes(), c); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(c.Conf)
		if rules[key] == nil {
			rules[key], confs[key] = rulesFor(t, c.Conf)
		}
		p := &player{t: t, c: c, rules: rules[key], cluster: snapshotFor(confs[key]), skipped: skipped}
		p.play()
		judged += p.judged
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d steps judged; not judged: %v", judged, skipped)
	if judged < 2200 {
		t.Errorf("only %d steps were judged", judged)
	}
}

type player struct {
	t       *testing.T
	c       *corpusCase
	rules   *Rules
	cluster *cluster.Snapshot
	skipped map[string]int
	judged  int
	drawn   uint32

	sessions map[string]*Session
	prepared map[string]*Prepared       // by SQL and by Parse
	nodes    map[string]int             // where a named statement was parsed
	parsed   map[string]*parser.Verdict // by Parse
	ran      []int                      // node of each step
}

func (p *player) random() float64 {
	p.drawn = p.drawn*1664525 + 1013904223
	return float64(p.drawn>>8) / (1 << 24)
}

func (p *player) session(name string) *Session {
	s := p.sessions[name]
	if s == nil {
		db, user, app := p.c.DB, p.c.User, p.c.App
		if db == "" {
			db = "postgres"
		}
		if user == "" {
			user = "postgres"
		}
		if app == "" {
			app = "oracle"
		}
		s = NewSession(db, user, app, p.c.Options)
		s.Preference = p.rules.Preference(db, user, app)
		p.sessions[name] = s
	}
	return s
}

func (p *player) play() {
	p.sessions, p.prepared, p.nodes, p.parsed = map[string]*Session{}, map[string]*Prepared{}, map[string]int{}, map[string]*parser.Verdict{}
	for i, st := range p.c.Steps {
		proto := st.Proto
		if proto == "" {
			proto = p.c.Proto
		}
		s := p.session(st.Conn)
		subs := []*corpusStep{st}
		if len(st.Pipeline) > 0 {
			subs = st.Pipeline
		}
		switch {
		case st.Direct:
			p.skipped["run on a node directly"]++
			p.ran = append(p.ran, -9)
			continue
		case p.c.NoWait:
			p.skipped["needs real delay"]++
			p.ran = append(p.ran, -9)
			continue
		}
		var after []func()
		for j, sub := range subs {
			for range max(1, sub.Repeat) {
				if done := p.step(s, sub, proto, fmt.Sprintf("%s/%d", p.c.ID, i+j)); done != nil {
					after = append(after, done)
				}
			}
		}
		for _, done := range after {
			done()
		}
		status := byte('I')
		if s.InTransaction() {
			status = 'T'
			if s.TransactionFailed() {
				status = 'E'
			}
		}
		s.Ready(status)
	}
}

// step routes one statement and judges; the function returned tells its end.
func (p *player) step(s *Session, st *corpusStep, proto, id string) func() {
	do := st.Do
	ext := proto == "extended"
	if do == "" && ext {
		do = "PBDES"
	}
	if ext && !strings.ContainsAny(do, "PBE") {
		p.skipped["only Close, Describe or Sync"]++
		p.ran = append(p.ran, -9)
		return nil
	}
	sql := []byte(st.SQL)
	in := Input{Text: sql, Session: s, Cluster: p.cluster, Rules: p.rules, Extended: ext, Random: p.random()}
	named := ext && st.Name != ""
	switch {
	case st.Func != 0:
		in.Verdict = parser.FunctionCall
	case named && !strings.Contains(do, "P"):
		v := p.parsed[st.Name]
		if q := p.prepared[st.Name]; v == nil && q != nil { // an SQL-level PREPARE, bound
			in.Verdict, in.Prepared = parse().Classify([]byte("EXECUTE x")), q
			break
		}
		if v == nil {
			p.skipped["statement or portal unknown"]++
			p.ran = append(p.ran, -9)
			return nil
		}
		in.Verdict, in.Home = v, p.nodes[st.Name]+1
	case st.Portal != "" && !strings.Contains(do, "P"):
		p.skipped["a portal stays where it is open"]++
		p.ran = append(p.ran, -9)
		return nil
	default:
		in.Verdict = parse().Classify(sql)
	}
	v := in.Verdict
	if Needs(v, p.rules) {
		in.Facts = factsOf(v)
	}
	if v.Class == parser.Execute || v.Class == parser.Deallocate {
		if in.Prepared == nil {
			in.Prepared = p.prepared[v.Name]
		}
	}
	d := Route(&in)
	p.judge(st, id, v, d)
	p.ran = append(p.ran, d.Node)
	if st.SameAs != nil && d.Node != p.ran[*st.SameAs] {
		p.t.Errorf("%s: %s: node %d, want that of step %d, %d", id, st.SQL, d.Node, *st.SameAs, p.ran[*st.SameAs])
	}
	if named && strings.Contains(do, "P") {
		p.parsed[st.Name], p.nodes[st.Name] = v, d.Node
		p.prepared[st.Name] = &Prepared{Verdict: v, Facts: factsOf(v), Text: sql, Node: -1}
	}
	if ext && !strings.Contains(do, "E") {
		if d.Balanced && !s.InTransaction() {
			s.ReadNode = d.ReadNode
		}
		return nil
	}
	s.Send(v, d)
	return func() {
		if st.SQLState != "" && !st.Closed { // where the original ended the session, the statement itself is good
			s.Failed(0)
			return
		}
		s.Done()
		switch v.Class {
		case parser.Prepare:
			p.prepared[v.Name] = &Prepared{Verdict: v.Inner, Facts: factsOf(v.Inner), Node: d.Node}
		case parser.Deallocate:
			delete(p.prepared, v.Name)
		case parser.Discard:
			clear(p.prepared)
		}
	}
}

// judge compares a decision with where the original sent the statement.
func (p *player) judge(st *corpusStep, id string, v *parser.Verdict, d Decision) {
	if st.To == "" || st.Spread != nil {
		p.skipped["judged by a spread of draws"]++
		return
	}
	p.judged++
	got := []string{"none"}
	switch {
	case d.Node == Self:
		got = []string{"pgpool"}
	case d.Node >= 0 && st.Exact:
		got = []string{fmt.Sprintf("node%d", d.Node)}
	case d.Node == 0 && d.Everywhere && !p.rules.StatementLevel:
		got = []string{"both"}
	case d.Node == 0 && d.Everywhere:
		got = []string{"all"}
	case d.Node == 0:
		got = []string{"primary"}
	case d.Node > 0:
		got = []string{"standby"}
	}
	if slices.Contains(got, st.To) || slices.ContainsFunc(st.Accept, func(a string) bool { return slices.Contains(got, a) }) {
		if better[id] != "" {
			p.t.Errorf("%s: needs no exception any more", id)
		}
		return
	}
	if better[id] != "" {
		return
	}
	p.t.Errorf("%s: %q (%s): got %v (%s, %s), want %s or %v", id, st.SQL, v.Class, got, d.Reason, d.Text(), st.To, st.Accept)
}
