package election

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgpool-go/tools/golden"
)

// A case is a script for a world without chance: messages take 5 ms, the edges
// 10 ms. Its first line says what the nodes are, each later one what happens:
//
//	nodes 3 [promise 4s] [priorities 1,1,3] [half|witness] [consensus off]
//	        [many votes] [remove shutdown|lost 8s|no-show 8s]
//	start [id...]       processes start, all or these
//	5s                  time passes
//	kill|power|wipe id  the process ends; the host; the host without its disk
//	freeze id 6s        the process is stopped; its guardian is not
//	isolate id | cut a b | mute a b | heal
//	ask id detach|attach|promote backend [confirmed]
//	found id backend | raise|lower id flag
//	resign id [humble] | leave id | force id gone... | dead|alive id other | witness id 5s
//	tell id kind from x [round r] [node n] [version r.n/i] [old disk]
//	show                what the nodes say of the group
//
// The answer is what happened, with the time, and what was shown.
func TestCases(t *testing.T) {
	golden.Run(t, "election", func(t *testing.T, c golden.Case) string {
		p := &play{}
		for _, line := range strings.Split(c.Input, "\n") {
			if err := p.line(strings.Fields(line)); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if p.w.judge.broken != "" {
				t.Fatalf("%s: %s", line, p.w.judge.broken)
			}
		}
		return p.out.String()
	})
}

type play struct {
	w   *world
	out strings.Builder
}

func (p *play) say(format string, args ...any) {
	fmt.Fprintf(&p.out, "%7.2f  %s\n", p.w.now.Seconds(), fmt.Sprintf(format, args...))
}

func (p *play) line(f []string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot read it: %v", r)
		}
	}()
	if f[0] == "nodes" {
		return p.nodes(f[1:])
	}
	w := p.w
	if d, err := time.ParseDuration(f[0]); err == nil {
		w.run(w.now + d)
		return nil
	}
	num := func(i int) int {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	host := func() *host { return w.hosts[num(1)] }
	switch f[0] {
	case "start":
		for i := range w.hosts {
			if len(f) == 1 || slices.Contains(f[1:], strconv.Itoa(i)) {
				w.start(w.hosts[i])
			}
		}
	case "kill":
		w.kill(host())
	case "power":
		w.power(host())
	case "wipe":
		w.power(host())
		w.wipe(host())
	case "freeze":
		d, err := time.ParseDuration(f[2])
		if err != nil {
			return err
		}
		h := host()
		p.say("n%d frozen", h.id)
		h.paused = w.now + d
	case "isolate":
		for i := range w.hosts {
			w.link[num(1)][i], w.link[i][num(1)] = i == num(1), i == num(1)
		}
	case "cut":
		w.link[num(1)][num(2)], w.link[num(2)][num(1)] = false, false
	case "mute":
		w.link[num(1)][num(2)] = false
	case "heal":
		w.heal()
	case "ask":
		act, ok := map[string]Act{"detach": ActDetach, "attach": ActAttach, "promote": ActPromote}[f[2]]
		if !ok {
			return fmt.Errorf("no such act")
		}
		w.ask(host(), act, num(3), len(f) > 4)
	case "found":
		w.input(host(), Decide{Act: ActFound, Candidate: num(2), Basis: host().st.committed.Decided})
	case "raise", "lower":
		act := ActRaise
		if f[0] == "lower" {
			act = ActLower
		}
		w.input(host(), Decide{Act: act, Flag: f[2], Candidate: -1})
	case "resign":
		w.input(host(), Resign{Why: "resigns", Humble: len(f) > 2})
	case "leave":
		p.say("n%d is to stop", num(1))
		w.input(host(), Leave{})
	case "force":
		var gone []int
		for i := range f[2:] {
			gone = append(gone, num(i+2))
		}
		p.say("the operator tells n%d that %v are off", num(1), gone)
		w.input(host(), Force{Gone: gone})
	case "dead", "alive":
		w.input(host(), Lifecheck{ID: num(2), Alive: f[0] == "alive"})
	case "witness":
		d, err := time.ParseDuration(f[2])
		if err != nil {
			return err
		}
		w.input(host(), Witness{Until: w.now + d})
	case "tell":
		return p.tell(f[1:])
	case "show":
		p.show()
	default:
		return fmt.Errorf("no such command")
	}
	return nil
}

func (p *play) nodes(f []string) error {
	n, err := strconv.Atoi(f[0])
	if err != nil {
		return err
	}
	promise := 4 * time.Second
	priorities := make([]int, n)
	for i := range priorities {
		priorities[i] = 1
	}
	o := Options{NeedQuorum: true, NeedConsensus: true, VoteLife: 15 * time.Second, Primary: 0}
	for f = f[1:]; len(f) > 0; f = f[1:] {
		next := func() string { f = f[1:]; return f[0] }
		switch f[0] {
		case "promise":
			promise, err = time.ParseDuration(next())
		case "priorities":
			for i, s := range strings.Split(next(), ",") {
				priorities[i], err = strconv.Atoi(s)
			}
		case "half":
			o.HalfVotes = HalfIsQuorum
		case "witness":
			o.HalfVotes = HalfWithWitness
		case "consensus":
			o.NeedConsensus = next() == "on"
		case "many":
			o.ManyVotes = next() == "votes"
		case "remove":
			switch next() {
			case "shutdown":
				o.RemoveShutdown = true
			case "lost":
				o.RemoveLost, err = time.ParseDuration(next())
			case "no-show":
				o.RemoveNoShow, err = time.ParseDuration(next())
			}
		default:
			return fmt.Errorf("no option %s", f[0])
		}
		if err != nil {
			return err
		}
	}
	o.Times = TimesFor(promise)
	p.w = newWorld(1, n, priorities, rules{opts: o, exact: true})
	if o.HalfVotes == HalfIsQuorum {
		p.w.judge.two = true
	}
	p.w.trace = p.say
	return nil
}

// tell gives a node a message by hand and says what it answers.
func (p *play) tell(f []string) error {
	id, err := strconv.Atoi(f[0])
	if err != nil {
		return err
	}
	from, err := strconv.Atoi(f[3])
	if err != nil {
		return err
	}
	sender := p.w.hosts[from]
	m := Message{From: from, Incarnation: sender.disk.Incarnation, Started: 1, Priority: sender.opts.Priority}
	kinds := map[string]Kind{"pre-vote": KindPreVote, "vote": KindVote, "heartbeat": KindHeartbeat, "nack": KindNack, "release": KindRelease}
	kind, ok := kinds[f[1]]
	if !ok {
		return fmt.Errorf("no such message")
	}
	m.Kind = kind
	m.Term = Term{Node: from, Incarnation: m.Incarnation}
	if r := sender.disk.Register; r != nil {
		m.Version = r.Version
	}
	for i := 4; i < len(f); i += 2 {
		switch f[i] {
		case "round":
			m.Term.Round, err = strconv.ParseUint(f[i+1], 10, 64)
		case "node":
			m.Term.Node, err = strconv.Atoi(f[i+1])
			m.Term.Incarnation = p.w.hosts[m.Term.Node].disk.Incarnation
		case "seq":
			m.Seq, err = strconv.ParseUint(f[i+1], 10, 64)
		case "version":
			_, err = fmt.Sscanf(f[i+1], "%d.%d/%d", &m.Version.Term.Round, &m.Version.Term.Node, &m.Version.Index)
			m.Version.Term.Incarnation = uint64(m.Version.Term.Node + 1)
		case "promised":
			_, err = fmt.Sscanf(f[i+1], "%d.%d", &m.Promised.Round, &m.Promised.Node)
		default:
			err = fmt.Errorf("no %s in a message", f[i])
		}
		if err != nil {
			return err
		}
	}
	answered := false
	p.w.sent = func(_, to int, m Message) {
		if to != from {
			return
		}
		answered = true
		words := m.Kind.String()
		switch {
		case m.Kind == KindNack:
			words += fmt.Sprintf(": promised %v, it %s", m.Promised, m.Why)
		case m.Yes:
			words += ": yes"
		case m.Why != "":
			words += ": no, it " + m.Why
		case m.Kind == KindAck:
			words += fmt.Sprintf(" %v seq %d, has %v", m.Term, m.Seq, m.Version)
		}
		p.say("n%d answers %s", id, words)
	}
	p.w.input(p.w.hosts[id], m)
	p.w.sent = func(int, int, Message) {}
	if !answered {
		p.say("n%d does not answer", id)
	}
	return nil
}

func (p *play) show() {
	for _, h := range p.w.hosts {
		if !h.up {
			p.say("n%d is off", h.id)
			continue
		}
		v := h.st.View(h.clock(p.w.now))
		var words []string
		add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
		add("n%d %v, leader %d, term %v, %v", h.id, v.Self, v.Leader, v.Term, v.Quorum)
		if v.Caretaker {
			add("caretaker")
		}
		if v.Decisive {
			add("decides")
		}
		if v.Escalated {
			add("holds the address")
		}
		for _, m := range v.Members {
			s := fmt.Sprintf("%d:%v", m.ID, m.State)
			if m.Membership != Member {
				s += " " + m.Membership.String()
			}
			words = append(words, s)
		}
		if r := v.Committed; r != nil {
			add("%d decisions", r.Decided)
			for _, b := range r.Backends {
				if b.Down {
					add("backend %d down", b.ID)
				}
			}
			add("primary %d", r.Primary)
			if len(r.Flags) > 0 {
				add("flags %v", r.Flags)
			}
		}
		p.say("%s", strings.Join(words, ", "))
	}
}

func TestTermsAndVersionsAreOrdered(t *testing.T) {
	in := []Version{
		{},
		{Term{1, 0, 7}, 1},
		{Term{1, 0, 7}, 2},
		{Term{1, 0, 8}, 1},
		{Term{1, 1, 1}, 1},
		{Term{2, 0, 1}, 1},
	}
	for i := range in {
		for j := range in {
			if in[i].Less(in[j]) != (i < j) {
				t.Errorf("%v before %v: %v", in[i], in[j], !(i < j))
			}
		}
	}
}

func TestALeaseEndsBeforeItsPromises(t *testing.T) {
	for _, promise := range []time.Duration{400 * time.Millisecond, 1500 * time.Millisecond, 2 * time.Second, 4 * time.Second, 30 * time.Second} {
		tm := TimesFor(promise)
		slow := float64(tm.Lease)/(1-drift) + float64(tm.Removal) // the leader's clock is slow
		if fast := float64(promise) / (1 + drift); slow > fast {
			t.Errorf("promise %v: the address may be there until %v, voters are free at %v", promise, time.Duration(slow), time.Duration(fast))
		}
		if tm.Lease < 3*tm.Beat || tm.Candidacy >= tm.Lease || tm.Margin >= tm.Lease {
			t.Errorf("promise %v: %+v", promise, tm)
		}
	}
}

func TestRequired(t *testing.T) {
	for _, c := range []struct {
		members, strict, half int
	}{{1, 1, 1}, {2, 2, 1}, {3, 2, 2}, {4, 3, 2}, {5, 3, 3}, {6, 4, 3}} {
		if a, b := Required(c.members, HalfIsNone), Required(c.members, HalfIsQuorum); a != c.strict || b != c.half {
			t.Errorf("%d members: %d and %d, want %d and %d", c.members, a, b, c.strict, c.half)
		}
	}
}

// What a State remembers must not be shared with the one before it.
func TestStepLeavesItsStateAlone(t *testing.T) {
	o := Options{ID: 0, Nodes: []int{0}, Times: TimesFor(4 * time.Second), VoteLife: time.Minute, Primary: 0}
	s, _ := New(o, Saved{Incarnation: 1}, 1, 1, 0)
	s, _ = Step(s, AddressDown{Serial: 1}, 0)
	s, _ = Step(s, Tick{}, 5*time.Second)
	s, _ = Step(s, Tick{}, 5200*time.Millisecond)
	if s.role != Leader {
		t.Fatalf("a node alone is %v", s.role)
	}
	for i, in := range []Input{
		Ask{Request{ID: 1, Nodes: []int{1}}}, Decide{Nodes: []int{1}, Candidate: -1}, Tick{}, Resign{}, Leave{},
		Lifecheck{ID: 0}, Reload{o}, Finish{Number: 1, Primary: 2},
	} {
		at := 5300*time.Millisecond + time.Duration(i)*time.Millisecond
		a, outA := Step(s, in, at)
		b, outB := Step(s, in, at)
		if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(outA, outB) {
			t.Errorf("%T gives two answers", in)
		}
		s = a
	}
}
