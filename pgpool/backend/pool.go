package backend

import (
	"maps"
	"sync"
	"time"

	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/wire"
)

// Key is everything that makes two server connections different to a session.
type Key struct {
	Node           int
	Database, User string
	Settings       string      // of the startup packet, in canonical form
	Proof          auth.Digest // of the secret the session's client has shown
}

// Limits bound what a Pool keeps. Zero durations and a zero count mean no limit,
// but PerNode zero keeps nothing.
type Limits struct {
	PerNode int           // idle connections kept for each node
	Idle    time.Duration // how long one is kept unused
	Uses    int           // sessions after which one is retired
}

// Pool keeps idle server connections. Safe for all goroutines; no call blocks
// on a socket.
type Pool struct {
	limits func() Limits

	mu    sync.Mutex
	idle  map[Key][]*Conn // the last one put is the first to be lent
	kept  map[int]int     // by node
	whose map[account]asked
	left  map[string]time.Time // databases of which none is kept, until then

	shareLimits func() ShareLimits
	shares      map[account]*Share
}

// account is whom a server lets in, asked what it wants as proof, as known from
// so many idle connections.
type account struct {
	node           int
	database, user string
}

type asked struct {
	method auth.Method
	conns  int
}

// NewPool makes a pool; limits are asked at each decision, so that a reload
// counts at once.
func NewPool(limits func() Limits, shareLimits func() ShareLimits) *Pool {
	return &Pool{limits: limits, idle: make(map[Key][]*Conn), kept: make(map[int]int), whose: make(map[account]asked), left: make(map[string]time.Time),
		shareLimits: shareLimits, shares: make(map[account]*Share)}
}

// Get lends an idle connection to a task, or returns nil.
func (p *Pool) Get(k Key, t *wire.Task) *Conn {
	for {
		p.mu.Lock()
		list := p.idle[k]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		c := list[len(list)-1]
		p.remove(k, len(list)-1)
		p.mu.Unlock()
		if c.Stirred() { // the server had something to say to nobody, most likely good-bye
			c.Close()
			continue
		}
		c.Attach(t)
		return c
	}
}

// remove takes the i-th connection of k out; the lock is held.
func (p *Pool) remove(k Key, i int) {
	list := p.idle[k]
	p.kept[list[i].Node]--
	p.heard(k, list[i], -1)
	list = append(list[:i], list[i+1:]...)
	if len(list) == 0 {
		delete(p.idle, k)
		return
	}
	p.idle[k] = list
}

// Put takes a connection back that has been Reset under key k. It closes what
// may not be kept.
func (p *Pool) Put(c *Conn, k Key, now time.Time) {
	l := p.limits()
	c.uses++
	c.Attach(nil)
	c.Overheard = nil
	c.Release()
	if c.tainted || c.Status != 'I' || c.Stirred() || l.PerNode <= 0 || l.Uses > 0 && c.uses >= l.Uses {
		c.Bye()
		return
	}
	c.idle, c.key = now, k
	p.mu.Lock()
	if now.Before(p.left[k.Database]) {
		p.mu.Unlock()
		c.Bye()
		return
	}
	p.idle[k] = append(p.idle[k], c)
	p.kept[c.Node]++
	p.heard(k, c, 1)
	var old *Conn
	if p.kept[c.Node] > l.PerNode {
		old = p.oldest(c.Node)
	}
	p.mu.Unlock()
	if old != nil {
		old.Bye()
	}
}

// oldest takes out the node's longest unused connection; the lock is held.
func (p *Pool) oldest(node int) *Conn {
	var found *Conn
	var at Key
	for k, list := range p.idle {
		if k.Node == node && (found == nil || list[0].idle.Before(found.idle)) {
			found, at = list[0], k // lists are in order of their last use
		}
	}
	if found != nil {
		p.remove(at, 0)
	}
	return found
}

// Method tells what proof the node's server asks of a user, as known from an
// idle connection or those of a Share.
func (p *Pool) Method(node int, database, user string) (auth.Method, bool) {
	who := account{node, database, user}
	p.mu.Lock()
	a, ok := p.whose[who]
	s := p.shares[who]
	p.mu.Unlock()
	if ok || s == nil {
		return a.method, ok
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.method, s.open > 0 && s.method != auth.Method{}
}

// heard counts a connection that comes or goes; the lock is held.
func (p *Pool) heard(k Key, c *Conn, n int) {
	who := account{k.Node, k.Database, k.User}
	a := p.whose[who]
	if a.conns += n; a.conns == 0 {
		delete(p.whose, who)
		return
	}
	if n > 0 {
		a.method = c.Method // the latest: what the server asks may have changed
	}
	p.whose[who] = a
}

// Sweep closes what has been unused for too long and what its server has
// closed. Call it now and then.
func (p *Pool) Sweep(now time.Time) {
	l := p.limits()
	for _, c := range p.takeOut(func(c *Conn) bool { return l.Idle > 0 && now.Sub(c.idle) >= l.Idle || c.Stirred() }) {
		c.Bye()
	}
	for _, s := range p.allShares() {
		for _, c := range s.sweep(now) {
			c.Bye()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.left, func(_ string, until time.Time) bool { return !now.Before(until) })
}

// Drain closes every idle connection of a node; with node -1, all.
func (p *Pool) Drain(node int) {
	p.renew(func(who account) bool { return node < 0 || who.node == node })
	p.drop(func(c *Conn) bool { return node < 0 || c.Node == node })
}

// Oust closes every idle connection of a user, whose password is another now.
func (p *Pool) Oust(user string) {
	p.renew(func(who account) bool { return who.user == user })
	p.drop(func(c *Conn) bool { return c.key.User == user })
}

// Leave closes every idle connection to a database, on all nodes, and for a while
// each that comes back: somebody wants to drop or rename it. A server takes a
// moment to see them go, and waits as long for it.
func (p *Pool) Leave(database string, now time.Time) {
	p.mu.Lock()
	p.left[database] = now.Add(leaveTime)
	p.mu.Unlock()
	p.renew(func(who account) bool { return who.database == database })
	p.drop(func(c *Conn) bool { return c.key.Database == database })
}

const leaveTime = 5 * time.Second

// drop closes idle connections, also those of shares.
func (p *Pool) drop(which func(*Conn) bool) {
	for _, c := range p.takeOutAll(which) {
		c.Bye()
	}
}

// renew has connections of some shares that are lent now closed when they come
// back.
func (p *Pool) renew(which func(account) bool) {
	for _, s := range p.allShares() {
		if which(s.who) {
			s.renew()
		}
	}
}

func (p *Pool) takeOutAll(which func(*Conn) bool) []*Conn {
	out := p.takeOut(which)
	for _, s := range p.allShares() {
		out = append(out, s.takeOut(which)...)
	}
	return out
}

func (p *Pool) takeOut(which func(*Conn) bool) (out []*Conn) {
	p.mu.Lock()
	for k, list := range p.idle {
		for i := len(list) - 1; i >= 0; i-- {
			if which(list[i]) {
				out = append(out, list[i])
				p.remove(k, i)
			}
		}
	}
	p.mu.Unlock()
	return out
}

// GiveUp closes the idle connections of a node for a task that finds its server
// full, and waits until the server has let them go. It reports how many there
// were, and why the wait ended before its time.
func (p *Pool) GiveUp(node int, t *wire.Task) (n int, err error) {
	out := p.takeOutAll(func(c *Conn) bool { return c.Node == node })
	for _, c := range out {
		c.Attach(t)
		if c.SendRaw(wire.Terminate, nil) == nil {
			c.SendNow()
		}
	}
	for _, c := range out {
		for err == nil {
			if _, gone := c.TryFill(); gone != nil {
				break
			}
			c.Skip(c.Buffered())
			err = t.Wait(c.Conn)
		}
		c.Close()
	}
	return len(out), err
}

// Idle is a kept connection, for those who list them.
type Idle struct {
	Key
	PID   uint32
	Born  time.Time
	Since time.Time
	Uses  int
}

// List describes the idle connections, in no order.
func (p *Pool) List() []Idle {
	p.mu.Lock()
	var out []Idle
	for k, list := range p.idle {
		for _, c := range list {
			out = append(out, Idle{Key: k, PID: c.PID, Born: c.born, Since: c.idle, Uses: c.uses})
		}
	}
	p.mu.Unlock()
	for _, s := range p.allShares() {
		s.mu.Lock()
		for _, c := range s.idle {
			out = append(out, Idle{Key: c.key, PID: c.PID, Born: c.born, Since: c.idle, Uses: c.uses})
		}
		s.mu.Unlock()
	}
	return out
}
