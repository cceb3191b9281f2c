package election

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var mutate = flag.Int("mutate", 0, "also change the rules in the source one by one and run so many seeds on each; some minutes")

// What each rule is for is seen by leaving it out.
var mutations = []struct{ name, file, old, new string }{
	{"lease counted from the answer", "leader.go", "p.acked = max(p.acked, b.at)", "p.acked = t.now"},
	{"lease of a vote counted from the win", "leader.go", "p.acked = t.asked", "p.acked = t.now + t.opts.Times.Candidacy"},
	{"voters do not look at registers", "voter.go", "case m.Version.Less(t.register.Version):", "case false:"},
	{"a promise does not bind", "voter.go", "case t.promise > t.now && t.leader != m.From:", "case false:"},
	{"votes for lower terms", "voter.go", `if why == "" && !t.promised.Less(m.Term)`, `if false`},
	{"old terms are heard", "voter.go", "case m.Term.Less(t.promised):\n\t\tt.send", "case false:\n\t\tt.send"},
	{"what was promised is not kept on disk", "voter.go", "t.promised, t.dirty = term, true", "t.promised = term"},
	{"registers are not kept on disk", "voter.go", "t.register, t.dirty, news = m.Register, true, true", "t.register, news = m.Register, true"},
	{"any disk counts", "quorum.go", "return m.Incarnation == incarnation ||", "return true ||"},
	{"a change of voters needs the new ones alone", "quorum.go", "w := s.weighOne(r, r.Old, yes)", "w := s.weighOne(r, r.New, yes)"},
	{"a change of voters needs the old ones alone", "quorum.go", "w = min(w, s.weighOne(r, r.New, yes))", "_ = w"},
	{"a set of voters that cannot elect", "members.go", "}) != most {", "}) != most && false {"},
	{"the distinguished node changes without a joint set", "members.go", "r.New.Distinguished = t.tieBreaker(v)\n\t\tt.write(r)", "r.New.Distinguished = t.tieBreaker(v); r.Old = r.New\n\t\tt.write(r)"},
	{"a leader decides before its register is committed", "leader.go", "return t.role == Leader && t.active != never && t.lease > t.now", "t.committed, t.active = t.register, max(t.active, 0)\n\treturn t.role == Leader && t.lease > t.now"},
	{"who may hold the address votes", "voter.go", "case !t.down:", "case false:"},
	{"the address is announced down when it is ordered down", "leader.go", "if t.down && t.releasing != (Term{}) {", "if t.releasing != (Term{}) {"},
	{"the first leader hurries", "leader.go", "case t.hears(p, t.now) && t.now-t.won < patience:", "case false:"},
	{"decided while the first leader still looks for the others", "leader.go", "r.Founding = t.register.unsettled() && t.forced == nil", "_ = 0"},
	{"half is enough at once", "candidate.go", "if w == halfOf && (", "if false && ("},
	{"votes outlive a decision", "failover.go", "return slices.ContainsFunc(b.nodes, func(id int) bool { return slices.Contains(d.Nodes, id) })", "return b.act == d.Act && slices.Equal(b.nodes, d.Nodes)"},
	{"votes of before the decision count", "failover.go", "return slices.ContainsFunc(nodes, func(id int) bool { return r.Backend(id).Decided > basis })", "return false"},
	{"decided again", "failover.go", "return !slices.ContainsFunc(nodes, func(id int) bool { return r.Backend(id).Down != (act == ActDetach) })", "return false"},
	{"one decision does not wait for the other", "failover.go", "busy := t.register.Open() != nil", "busy := false"},
	{"repeated messages are votes", "failover.go", "case b.knows(from, r.ID):", "case false:"},
}

// byCase are those that only a case shows.
const byCase = "the first leader hurries, who may hold the address votes, half is enough at once"

// byShrinking are those that need small sets of voters.
const byShrinking = "a set of voters that cannot elect, the distinguished node changes without a joint set"

// alike are the mutations that may pass: what they break, something else mends.
var alike = map[string]string{
	"what was promised is not kept on disk": "the silence after a start outlasts the promise, and no two candidates share a term; kept for what is beyond the assumptions",
	"repeated messages are votes":           "then the same node voted before, and the answer is only another one",
}

func TestMutationsAreCaught(t *testing.T) {
	if *mutate == 0 {
		t.Skip("run with -mutate 3000")
	}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			dir := t.TempDir()
			overlay := filepath.Join(dir, "overlay.json")
			source, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(source), m.old) != 1 {
				t.Fatalf("%d times in %s: %s", strings.Count(string(source), m.old), m.file, m.old)
			}
			changed := filepath.Join(dir, m.file)
			if err := os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			here, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(overlay, fmt.Appendf(nil, `{"Replace": {%q: %q}}`, here, changed), 0o600); err != nil {
				t.Fatal(err)
			}
			run, mark, n := "TestSimulation", "seed ", *mutate
			if strings.Contains(byCase, m.name) {
				run, mark = "TestCases", "answer differs"
			}
			if strings.Contains(byShrinking, m.name) {
				run, n = "TestSimulation/shrinking", 20*n // all of them there
			}
			out, err := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-run", run, "-seeds", fmt.Sprint(n), ".").CombinedOutput()
			_, what, broken := strings.Cut(string(out), mark)
			if !broken {
				_, what, broken = strings.Cut(string(out), "panic: ")
			}
			what, _, _ = strings.Cut(what, "\n")
			why, may := alike[m.name]
			switch {
			case err != nil && broken:
				t.Logf("caught: %s%s", mark, what)
			case err == nil && may:
				t.Logf("not caught: %s", why)
			case err == nil:
				t.Errorf("not caught in %d seeds", n)
			default:
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
