package backend

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/wire"
)

// Share is the server connections of one node, database and user that sessions
// have in turns, a transaction at a time. There are at most so many; whoever finds
// all of them lent waits, and those who wait are served in the order in which they
// came. Safe for all goroutines; no call blocks on a socket.
//
// Every connection of a Share counts until it is closed, whoever closes it.
type Share struct {
	who    account
	limits func() ShareLimits

	mu     sync.Mutex
	idle   []*Conn // the last one given back is the first to be lent
	open   int     // lent, idle and being opened
	era    uint    // connections of an earlier one are closed when they come back
	queue  []*Turn // the one who has waited longest first
	waits  atomic.Int32
	method auth.Method
}

// ShareLimits bound a Share.
type ShareLimits struct {
	Size    int           // connections
	Reserve int           // beyond them for those who have waited for so long:
	After   time.Duration //
	Min     int           // of the idle ones so many are kept however long they are idle
	Idle    time.Duration // how long one is kept unused; 0: no limit
	Uses    int           // sessions after which one is retired; 0: no limit
}

// Turn is one session's wish for a connection, and what has come of it. It may be
// used again and again, for one wish at a time.
type Turn struct {
	Key  Key
	Task *wire.Task

	Since time.Time // when the wait began
	conn  *Conn
	done  atomic.Bool  // conn is lent, or if that is nil one may be opened
	alarm atomic.Int64 // when the waiting task is to be woken in any case; unix nanoseconds, 0: never
}

// Remind has the task woken, and Due true, after d; without d, never.
func (t *Turn) Remind(d time.Duration) {
	at := int64(0)
	if d > 0 {
		at = t.Task.Now().Add(d).UnixNano()
	}
	t.alarm.Store(at)
}

// Due tells that the time set by Remind has come.
func (t *Turn) Due() bool { return t.rings(t.Task.Now()) }

func (t *Turn) rings(now time.Time) bool {
	at := t.alarm.Load()
	return at != 0 && now.UnixNano() >= at
}

// Done tells whether the wait is over.
func (t *Turn) Done() bool { return t.done.Load() }

// Conn is what is lent when the wait is over; nil: one may be opened.
func (t *Turn) Conn() *Conn { return t.conn }

// Borrow lends an idle connection, or lets the caller open one (then Conn is nil):
// Adopt tells of it, or Lose that it has failed. Else the caller is in the queue
// and is woken when its turn has come; patient false keeps it out of the queue.
func (s *Share) Borrow(t *Turn, now time.Time, patient bool) bool {
	t.conn, t.Since = nil, now
	t.done.Store(false)
	var old *Conn
	s.mu.Lock()
	if len(s.queue) == 0 {
		for len(s.idle) > 0 {
			c := s.pick(t)
			if c == nil {
				break
			}
			if c.Stirred() { // the server had something to say to nobody, most likely good-bye
				s.mu.Unlock()
				c.Close()
				s.mu.Lock()
				continue
			}
			s.lend(t, c)
			s.mu.Unlock()
			return true
		}
		l := s.limits()
		if s.open >= l.Size && len(s.idle) > 0 && len(s.queue) == 0 {
			old = s.idle[0] // of another kind: it makes way
			s.idle = slices.Delete(s.idle, 0, 1)
			old.share = nil
			s.open--
		}
		if s.open < l.Size && len(s.queue) == 0 {
			s.open++
			t.done.Store(true)
			s.mu.Unlock()
			if old != nil {
				old.Bye()
			}
			return true
		}
	}
	if patient {
		s.queue = append(s.queue, t)
		s.waits.Store(int32(len(s.queue)))
	}
	s.mu.Unlock()
	if old != nil { // there were more than there may be now
		old.Bye()
	}
	return false
}

// pick takes out the idle connection that suits best; nil, none does. The lock is
// held.
func (s *Share) pick(t *Turn) *Conn {
	found := -1
	for i := len(s.idle) - 1; i >= 0; i-- {
		if s.idle[i].key != t.Key {
			continue
		}
		if found < 0 {
			found = i
		}
		if s.idle[i].Near(t.Task) { // moving a socket to another loop costs system calls
			found = i
			break
		}
	}
	if found < 0 {
		return nil
	}
	c := s.idle[found]
	s.idle = slices.Delete(s.idle, found, found+1)
	return c
}

// lend ends a wait with a connection; the lock is held.
func (s *Share) lend(t *Turn, c *Conn) {
	if c.user != t.Task {
		c.user = t.Task
		c.uses++
	}
	t.conn = c
	t.done.Store(true)
}

// Insist lets somebody in the queue who has waited long enough open a connection
// of the reserve, if there is one left.
func (s *Share) Insist(t *Turn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.limits()
	if t.done.Load() {
		return true
	}
	if s.open >= l.Size+l.Reserve || !s.leaveQueue(t) {
		return false
	}
	s.open++
	t.done.Store(true)
	return true
}

func (s *Share) leaveQueue(t *Turn) bool {
	i := slices.Index(s.queue, t)
	if i < 0 {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	s.waits.Store(int32(len(s.queue)))
	return true
}

// GiveUp ends a wait without a connection. What has been lent meanwhile is given
// back.
func (s *Share) GiveUp(t *Turn, now time.Time) {
	s.mu.Lock()
	waited := s.leaveQueue(t)
	s.mu.Unlock()
	switch {
	case waited:
	case t.conn != nil:
		s.Return(t.conn, now)
	case t.done.Load():
		s.Lose()
	}
	t.conn = nil
}

// Adopt makes a connection that Borrow has allowed one of the Share's.
func (s *Share) Adopt(c *Conn, t *Turn) {
	s.mu.Lock()
	c.share, c.key, c.era = s, t.Key, s.era
	c.user = t.Task
	s.method = c.Method
	s.mu.Unlock()
}

// Lose tells that a connection is closed, or has not come about.
func (s *Share) Lose() {
	s.mu.Lock()
	s.open--
	s.serve()
	s.mu.Unlock()
}

// serve lets those in the queue open connections while there may be more of them;
// the lock is held.
func (s *Share) serve() {
	for l := s.limits(); len(s.queue) > 0 && s.open < l.Size; {
		s.open++
		s.next().end(nil)
	}
}

// next takes the first out of the queue; the lock is held.
func (s *Share) next() *Turn {
	t := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:] // a thousand may wait behind it: moving them up would cost more than all else here
	s.waits.Store(int32(len(s.queue)))
	return t
}

// end tells the waiting task, on behalf of another one or of nobody.
func (t *Turn) end(by *wire.Task) {
	t.done.Store(true)
	t.Task.WakeBy(by)
}

// Return takes a connection back whose state its user can answer for. It goes to
// whoever has waited longest.
func (s *Share) Return(c *Conn, now time.Time) {
	user := c.Task()
	c.Attach(nil)
	c.Overheard = nil
	l := s.limits()
	if c.tainted || c.Status != 'I' || c.Stirred() || c.Unsent() > 0 || l.Uses > 0 && c.uses >= l.Uses {
		c.Bye()
		return
	}
	s.mu.Lock()
	if c.era != s.era || s.open > l.Size+l.Reserve || s.open > l.Size && len(s.queue) == 0 {
		s.mu.Unlock()
		c.Bye()
		return
	}
	if len(s.queue) == 0 {
		c.idle = now
		s.idle = append(s.idle, c)
		s.mu.Unlock()
		return
	}
	t := s.next()
	if c.key == t.Key {
		s.lend(t, c)
		s.mu.Unlock()
		t.Task.WakeBy(user)
		return
	}
	c.share = nil // its place passes to another kind of connection
	s.mu.Unlock()
	c.Bye()
	t.end(user)
}

// Wanted tells whether somebody waits. It takes no lock.
func (s *Share) Wanted() bool { return s.waits.Load() > 0 }

// takeOut removes idle connections; they still count until they are closed.
func (s *Share) takeOut(which func(*Conn) bool) (out []*Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = slices.DeleteFunc(s.idle, func(c *Conn) bool {
		if which(c) {
			out = append(out, c)
			return true
		}
		return false
	})
	return out
}

// renew has connections that are lent now closed when they come back.
func (s *Share) renew() {
	s.mu.Lock()
	s.era++
	s.mu.Unlock()
}

// sweep takes out what has been unused for too long, and looks after the rest.
func (s *Share) sweep(now time.Time) (out []*Conn) {
	l := s.limits()
	s.mu.Lock()
	defer s.mu.Unlock()
	spare := s.open - l.Min
	s.idle = slices.DeleteFunc(s.idle, func(c *Conn) bool { // the longest unused come first
		old := l.Idle > 0 && now.Sub(c.idle) >= l.Idle && spare > 0
		if old || c.Stirred() || s.open-len(out) > l.Size {
			spare--
			out = append(out, c)
			return true
		}
		c.Release()
		return false
	})
	s.serve()
	return out
}

// Remind wakes those in queues whose time has come; see Turn.Remind. Call it a few
// times a second.
func (p *Pool) Remind(now time.Time) {
	for _, s := range p.allShares() {
		if !s.Wanted() {
			continue
		}
		s.mu.Lock()
		for _, t := range s.queue {
			if t.rings(now) {
				t.Task.Wake()
			}
		}
		s.mu.Unlock()
	}
}

// ShareView is a Share as it is shown.
type ShareView struct {
	Node           int
	Database, User string
	Size, Reserve  int
	Open, Idle     int
	Waiting        int
	Longest        time.Duration // how long the first in the queue has waited
}

func (s *Share) view(now time.Time) ShareView {
	l := s.limits()
	s.mu.Lock()
	defer s.mu.Unlock()
	v := ShareView{Node: s.who.node, Database: s.who.database, User: s.who.user, Size: l.Size, Reserve: l.Reserve,
		Open: s.open, Idle: len(s.idle), Waiting: len(s.queue)}
	if len(s.queue) > 0 {
		v.Longest = now.Sub(s.queue[0].Since)
	}
	return v
}

// Share is the one of a node, database and user; it is made when first asked for.
func (p *Pool) Share(node int, database, user string) *Share {
	who := account{node, database, user}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shares[who]
	if s == nil {
		s = &Share{who: who, limits: p.shareLimits}
		p.shares[who] = s
	}
	return s
}

// Shares describes all of them, in no order.
func (p *Pool) Shares(now time.Time) (out []ShareView) {
	for _, s := range p.allShares() {
		out = append(out, s.view(now))
	}
	return out
}

func (p *Pool) allShares() []*Share {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*Share, 0, len(p.shares))
	for _, s := range p.shares {
		out = append(out, s)
	}
	return out
}
