package election

import (
	"fmt"
	"slices"
)

// Term is the number a leader leads under. Only one node, with one disk, ever
// campaigns with it, so it has at most one leader whatever is lost.
type Term struct {
	Round       uint64
	Node        int
	Incarnation uint64
}

// Less orders terms: by round first.
func (t Term) Less(u Term) bool {
	if t.Round != u.Round {
		return t.Round < u.Round
	}
	if t.Node != u.Node {
		return t.Node < u.Node
	}
	return t.Incarnation < u.Incarnation
}

// Zero reports that there was no term yet.
func (t Term) Zero() bool { return t == Term{} }

func (t Term) String() string { return fmt.Sprintf("%d.%d", t.Round, t.Node) }

// Version orders registers: by the term they were written in, then by its index.
type Version struct {
	Term  Term
	Index uint64
}

// Less orders versions.
func (v Version) Less(w Version) bool {
	return v.Term.Less(w.Term) || v.Term == w.Term && v.Index < w.Index
}

// Zero reports that nothing was written yet.
func (v Version) Zero() bool { return v == Version{} }

func (v Version) String() string { return fmt.Sprintf("%v/%d", v.Term, v.Index) }

// Register is all the nodes agree on. It is always sent whole and never changed:
// the leader writes the next one.
type Register struct {
	Version  Version
	Old, New Voters // differ while a change of voters is open; a quorum of both is needed then
	Removed  []Removal
	Founding bool // by the first leader, who has not met everybody yet: nothing may be decided

	Decided  uint64 // number of decisions so far
	Log      []Decision
	Backends []Backend
	Primary  int      // -1 none
	Flags    []string // raised by the leader of Version.Term; they end with it
}

// logged is how many decisions a register still tells.
const logged = 16

// Voter is a node that counts, with the disk it must answer from.
type Voter struct {
	ID          int
	Incarnation uint64 // 0: never heard, counts for nothing yet
}

// Voters is a set of them, in order of their ids.
type Voters struct {
	Members       []Voter
	Distinguished int // exactly half of a shrunk set is a quorum with this node; -1 none
}

// Removal of a node from the voters.
type Removal struct {
	ID  int
	Why Membership
}

// Membership as pcp_watchdog_info shows it.
type Membership int

const (
	Member Membership = iota
	RevokedShutdown
	RevokedNoShow
	RevokedLost
)

func (m Membership) String() string {
	return word(int(m), "MEMBER", "REVOKED-SHUTDOWN", "REVOKED-NO-SHOW", "REVOKED-LOST")
}

// Backend is what was agreed on a backend node.
type Backend struct {
	ID      int
	Down    bool
	Decided uint64 // number of the last decision about it; 0 none
}

// Act is what a decision does.
type Act int

const (
	ActDetach  Act = iota // backends go down; Candidate is to become primary
	ActAttach             // backends come back (failback)
	ActPromote            // Candidate is to become primary
	ActFound              // the leader saw that Candidate is primary; nothing to run
	ActRaise              // a flag, such as the follow-primary lock; nothing to run
	ActLower              // a flag
)

func (a Act) String() string {
	return word(int(a), "detach", "attach", "promote", "found", "raise", "lower")
}

// runs reports whether something is to be carried out.
func (a Act) runs() bool { return a <= ActPromote }

// Decision was made once, by the leader of Made.Term, and has its Number for
// good. Until it is closed nothing else is decided that runs a command, and
// nobody picks another candidate for it.
type Decision struct {
	Number    uint64
	Made      Version
	Act       Act
	Nodes     []int
	Candidate int // -1 nobody
	Closed    bool
	OK        bool
	Primary   int // after it
}

// Open is the decision that is being carried out, nil if there is none.
func (r *Register) Open() *Decision {
	if n := len(r.Log); n > 0 && !r.Log[n-1].Closed {
		return &r.Log[n-1]
	}
	return nil
}

// Backend gives what was agreed on a backend; one never spoken of is up.
func (r *Register) Backend(id int) Backend {
	for _, b := range r.Backends {
		if b.ID == id {
			return b
		}
	}
	return Backend{ID: id}
}

// Membership of a node.
func (r *Register) Membership(id int) Membership {
	for _, m := range r.Removed {
		if m.ID == id {
			return m.Why
		}
	}
	return Member
}

// unsettled reports that nothing can have been decided yet.
func (r *Register) unsettled() bool { return r.Version.Zero() || r.Founding }

// firstRegister holds before the first election: all configured nodes, none
// known by its disk.
func firstRegister(nodes []int) *Register {
	all := Voters{Distinguished: -1}
	for _, id := range nodes {
		all.Members = append(all.Members, Voter{ID: id})
	}
	return &Register{Old: all, New: all, Primary: -1}
}

func (r *Register) clone() *Register {
	c := *r
	c.Removed = slices.Clone(r.Removed)
	c.Log = slices.Clone(r.Log)
	c.Backends = slices.Clone(r.Backends)
	c.Flags = slices.Clone(r.Flags)
	return &c // voters are replaced, never changed
}

// set changes the agreed state of a backend.
func (r *Register) set(b Backend) {
	for i := range r.Backends {
		if r.Backends[i].ID == b.ID {
			r.Backends[i] = b
			return
		}
	}
	r.Backends = append(r.Backends, b)
}

// joint reports that a change of voters is open.
func (r *Register) joint() bool {
	return r.Old.Distinguished != r.New.Distinguished || !slices.Equal(r.Old.Members, r.New.Members)
}

// has reports whether a node is a voter of the old or the new set.
func (r *Register) has(id int) bool {
	_, old := r.Old.find(id)
	_, cur := r.New.find(id)
	return old || cur
}

func (v Voters) find(id int) (Voter, bool) {
	for _, m := range v.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Voter{}, false
}

// with is the set with a node bound to a disk, new to it or not.
func (v Voters) with(id int, incarnation uint64) Voters {
	v = v.without(id)
	i, _ := slices.BinarySearchFunc(v.Members, id, func(m Voter, id int) int { return m.ID - id })
	v.Members = slices.Insert(v.Members, i, Voter{id, incarnation})
	return v
}

func (v Voters) without(id int) Voters {
	v.Members = slices.DeleteFunc(slices.Clone(v.Members), func(m Voter) bool { return m.ID == id })
	return v
}
