package election

import (
	"strconv"
	"time"
)

// Input is something that has happened. A Message is one.
type Input interface{ input() }

// Output is something to be done.
type Output interface{ output() }

// Kind of a message.
type Kind int

const (
	KindPreVote       Kind = iota // would you vote for Term?
	KindPreVoteReply              // Yes, or Why not; Promised
	KindVote                      // vote for Term
	KindVoteReply                 // as PreVoteReply, and it binds
	KindHeartbeat                 // Term, Seq, Committed, Quorum; Register where the receiver's is older
	KindAck                       // to a heartbeat: Term, Seq
	KindNack                      // to a heartbeat of an old term: Term, Promised
	KindRelease                   // the leader of Term has given up and its address is down; also sent by its guardian
	KindLeave                     // the sender is about to stop
	KindFailoverVote              // Request
	KindFailoverReply             // Request.ID, Verdict
)

func (k Kind) String() string {
	return word(int(k), "pre-vote", "pre-vote reply", "vote", "vote reply", "heartbeat", "ack", "nack",
		"release", "leave", "failover vote", "failover reply")
}

// word names a number that may have come from outside.
func word(i int, words ...string) string {
	if i < 0 || i >= len(words) {
		return "unknown " + strconv.Itoa(i)
	}
	return words[i]
}

// Reliable reports whether the loss of a message costs more than a heartbeat's time.
func (m Message) Reliable() bool {
	switch m.Kind {
	case KindHeartbeat:
		return m.Register != nil
	case KindAck, KindNack:
		return false
	}
	return true
}

// Message is what nodes say to each other.
type Message struct {
	Kind Kind

	// Of the sender, in every message.
	From        int
	Incarnation uint64
	Started     int64
	Priority    int     // effective
	Version     Version // of its register

	Term      Term
	Seq       uint64
	Yes       bool
	Why       string        // of a no
	Promised  Term          // by the sender
	Constancy time.Duration // the promise that the sender's lease takes; of votes and heartbeats
	Committed Version
	Quorum    Quorum
	Register  *Register // not to be changed
	Request   Request
	Verdict   Verdict
}

// Tick lets time pass; due at State.Wake at the latest.
type Tick struct{}

// Gossip is what the membership says of a node: hints, never relied on.
type Gossip struct {
	ID          int
	Alive       bool
	Priority    int
	Started     int64
	Initialised bool // it has a register
}

// Lifecheck is the life check's word on a node.
type Lifecheck struct {
	ID    int
	Alive bool
}

// AddressDown reports that the address is surely down since the order with this
// serial: the answer to an order to drop it, or news that it was lost.
type AddressDown struct{ Serial uint64 }

// Witness says until when a witness stands by us and by nobody else.
type Witness struct{ Until time.Duration }

// Resign makes a leader give up. Humble: with priority -1 until the next
// election is over.
type Resign struct {
	Why    string
	Humble bool
}

// Leave begins a clean stop; the output Left ends it.
type Leave struct{}

// Force is the operator's word that the nodes Gone are off and stay off until
// told otherwise: the others go on without them. If it is wrong, the group splits.
type Force struct {
	Ticket uint64 // returned in Refused
	Gone   []int
}

// Ask is a failover request of this node; an Answer follows.
type Ask struct{ Request Request }

// Decide is what the leader makes of a request that was Carried, or of its own
// sight (KindFound). It is followed by Run once committed, or by Refused.
type Decide struct {
	Ticket    uint64 // returned in Refused
	Act       Act
	Nodes     []int
	Candidate int    // who becomes primary; -1 nobody
	Flag      string // of ActRaise and ActLower
	Basis     uint64 // the number of decisions known when this one was made
}

// Finish ends the open decision of this number.
type Finish struct {
	Number  uint64
	Primary int // -1 none
	OK      bool
}

// Reload brings new settings; those that hold for a process are not looked at.
type Reload struct{ Options Options }

func (Message) input()     {}
func (Tick) input()        {}
func (Gossip) input()      {}
func (Lifecheck) input()   {}
func (AddressDown) input() {}
func (Witness) input()     {}
func (Resign) input()      {}
func (Leave) input()       {}
func (Force) input()       {}
func (Ask) input()         {}
func (Decide) input()      {}
func (Finish) input()      {}
func (Reload) input()      {}

// Persist must be durable before any later output of the same answer is begun.
type Persist struct{ Saved Saved }

// Send a message; it may be lost.
type Send struct {
	To      int
	Message Message
}

// Lease tells the guardian until when it leaves the address alone; it never
// gets shorter but by an order to drop the address.
type Lease struct {
	Term  Term
	Until time.Duration
}

// Address orders the delegate address up or down. Before it is brought up the
// lease is looked at again. AddressDown with the serial reports that it is down.
type Address struct {
	Up     bool
	Serial uint64
}

// Changed tells of a new role or a new leader (-1 none).
type Changed struct {
	Role   Role
	Leader int
	Term   Term
	Why    string
}

// Apply gives the newest committed register; versions grow.
type Apply struct{ Register *Register }

// Carried tells the leader that a request has the votes it needs: it is to
// answer with Decide.
type Carried struct {
	Request Request
	Voters  []int
}

// Run orders the leader to carry out a committed decision and to Finish it.
// Again: an earlier leader may have begun.
type Run struct {
	Decision Decision
	Again    bool
}

// Refused ends a Decide that was not written, or a Force.
type Refused struct {
	Ticket uint64
	Why    string
}

// Answer ends an Ask.
type Answer struct {
	ID      uint64
	Verdict Verdict
}

// Left ends a Leave: the process may stop.
type Left struct{}

func (Persist) output() {}
func (Send) output()    {}
func (Lease) output()   {}
func (Address) output() {}
func (Changed) output() {}
func (Apply) output()   {}
func (Carried) output() {}
func (Run) output()     {}
func (Refused) output() {}
func (Answer) output()  {}
func (Left) output()    {}
