package session

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// Status is what a slot is doing, in the words of SHOW POOL_PROCESSES.
type Status int32

const (
	WaitForConnection Status = iota
	Connecting
	Idle
	IdleInTransaction
	ExecuteCommand
)

func (s Status) String() string {
	return [...]string{"Wait for connection", "Connecting", "Idle", "Idle in transaction", "Execute command"}[s]
}

// Slot is a place for one client at a time. Its number stands where the original
// shows the pid of a child process.
type Slot struct {
	ID      int
	Started time.Time

	status    atomic.Int32
	idleSince atomic.Int64 // unix nanoseconds of the engine's clock, while idle
	reader    atomic.Int32 // the node that the session's reads go to
	session   atomic.Pointer[Session]
	routes    route.Counters         // decisions of this slot's sessions: one at a time counts, so they do not meet
	pinned    atomic.Pointer[string] // why the session keeps its main server; nil: it does not
	lentMain  atomic.Pointer[server] // the one of them where the session writes

	mu       sync.Mutex
	lent     []atomic.Pointer[server] // by node, connections of a share; changed under mu by the session that is here
	clients  int
	occupant Occupant
	lastLeft time.Time // when the client before left
}

// lend shows a connection that the session has for a transaction; regain ends that.
func (s *Slot) lend(c *server, main bool) {
	c.since.Store(int32(c.Uses()))
	if c.Node >= len(s.lent) {
		more := make([]atomic.Pointer[server], c.Node+1)
		s.mu.Lock()
		for i := range s.lent {
			more[i].Store(s.lent[i].Load())
		}
		s.lent = more
		s.mu.Unlock()
	}
	s.lent[c.Node].Store(c)
	if main {
		s.lentMain.Store(c)
	}
}

func (s *Slot) regain(c *server) {
	s.lent[c.Node].Store(nil)
	s.lentMain.CompareAndSwap(c, nil)
}

// loans are the connections lent now; the lock is held.
func (s *Slot) loans(yield func(*server) bool) {
	for i := range s.lent {
		if c := s.lent[i].Load(); c != nil && !yield(c) {
			return
		}
	}
}

// Occupant describes the client in a slot.
type Occupant struct {
	Database, User, App string
	Host, Port          string
	Since               time.Time
	Servers             []Server
}

// Server describes a server connection that a session uses.
type Server struct {
	Node      int
	PID       uint32
	Born      time.Time
	Uses      int    // sessions before this one
	Main      bool   // where the session writes
	Statement string // the last one sent, or its beginning

	last *lastStatement
	conn *backend.Conn
}

// lastStatement is the text last sent to a server. Its session writes it, others
// read it.
type lastStatement struct {
	mu   sync.Mutex
	text []byte
}

// statementShown is how much of a statement is kept.
const statementShown = 1023

func (l *lastStatement) set(sql []byte) {
	l.mu.Lock()
	l.text = append(l.text[:0], sql[:min(len(sql), statementShown)]...)
	l.mu.Unlock()
}

func (l *lastStatement) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// View is a slot as SHOW POOL_PROCESSES and its kin see it.
type View struct {
	ID        int
	Started   time.Time
	Clients   int
	Status    Status
	IdleSince time.Time
	IdleLimit time.Duration // the client's client_idle_limit
	Reader    int           // the node its reads go to
	Occupant                // of the client present, or of none
	LastLeft  time.Time     // when the client before it left
	Pinned    string        // in transaction mode, why it keeps its server between transactions
}

// Table is the slots of a process and the queue of clients that wait for one.
type Table struct {
	started time.Time
	mu      sync.Mutex
	limit   int
	slots   []*Slot
	free    []*Slot
	queue   []*waiter
	blocked []*wire.Task // to be woken when the queue has become shorter
	closed  bool
}

type waiter struct {
	task *wire.Task
	slot atomic.Pointer[Slot]
}

// NewTable makes a table of limit slots.
func NewTable(limit int, now time.Time) *Table {
	return &Table{limit: limit, started: now}
}

// AwaitRoom waits while so many clients wait for a slot that the next one had
// better wait in the kernel's queue. After Close it returns at once.
func (t *Table) AwaitRoom(task *wire.Task, waiting int) error {
	return task.WaitFor(func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		room := len(t.queue) < waiting || t.closed
		if !room && !slices.Contains(t.blocked, task) {
			t.blocked = append(t.blocked, task)
		}
		return room
	})
}

// shorter wakes who waits for the queue to become shorter; the lock is held.
func (t *Table) shorter() {
	for _, task := range t.blocked {
		task.Wake()
	}
	t.blocked = t.blocked[:0]
}

// Close ends all waits of AwaitRoom.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.shorter()
}

// Limit is the number of slots.
func (t *Table) Limit() int { return t.limit }

// Acquire waits for a free slot, first come first served. It gives up when
// client goes away. reserved is reserved_connections: if positive, nobody waits
// and the last so many slots are never given.
func (t *Table) Acquire(task *wire.Task, client *wire.Conn, reserved int) (*Slot, error) {
	t.mu.Lock()
	if reserved > 0 && t.busy() >= t.limit-reserved {
		t.mu.Unlock()
		return nil, wire.Fatal("53300", "Sorry, too many clients already")
	}
	if s := t.take(); s != nil {
		t.mu.Unlock()
		return s, nil
	}
	w := &waiter{task: task}
	t.queue = append(t.queue, w)
	t.mu.Unlock()
	err := task.WaitFor(func() bool { return w.slot.Load() != nil || client.HungUp() })
	t.mu.Lock()
	for i, q := range t.queue {
		if q == w {
			t.queue = append(t.queue[:i], t.queue[i+1:]...)
			t.shorter()
			break
		}
	}
	t.mu.Unlock()
	s := w.slot.Load()
	switch {
	case err == nil && s != nil && !client.HungUp():
		return s, nil
	case s != nil:
		t.Release(s)
	}
	if err == nil {
		err = &ClientGone{errGaveUp}
	}
	return nil, err
}

func (t *Table) busy() int { return len(t.slots) - len(t.free) }

// take gives a free slot or makes one; the lock is held.
func (t *Table) take() *Slot {
	if n := len(t.free); n > 0 {
		s := t.free[n-1]
		t.free = t.free[:n-1]
		return s
	}
	if len(t.slots) < t.limit {
		s := &Slot{ID: len(t.slots) + 1, Started: t.started}
		t.slots = append(t.slots, s)
		return s
	}
	return nil
}

// Release frees a slot, or hands it to whoever has waited longest.
func (t *Table) Release(s *Slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) > 0 {
		w := t.queue[0]
		t.queue = t.queue[1:]
		t.shorter()
		w.slot.Store(s)
		w.task.Wake()
		return
	}
	t.free = append(t.free, s)
}

// Routes sums up by reason how statements have been routed since the start.
func (t *Table) Routes() (counts [route.NumReasons]uint64, since time.Time) {
	t.mu.Lock()
	slots := slices.Clone(t.slots)
	t.mu.Unlock()
	for _, s := range slots {
		for _, r := range route.Reasons() {
			counts[r] += s.routes.Count(r)
		}
	}
	return counts, t.started
}

// Waiting is the number of clients without a slot.
func (t *Table) Waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue)
}

// Views lists all slots in order, those never used included.
func (t *Table) Views() []View {
	t.mu.Lock()
	slots := append([]*Slot(nil), t.slots...)
	t.mu.Unlock()
	out := make([]View, 0, t.limit)
	for _, s := range slots {
		out = append(out, s.view())
	}
	for id := len(slots) + 1; id <= t.limit; id++ {
		out = append(out, View{ID: id, Started: t.started})
	}
	return out
}

// Sever ends the connections that sessions have to a node: whoever waits for an
// answer of its server waits no longer.
func (t *Table) Sever(node int) {
	t.mu.Lock()
	slots := slices.Clone(t.slots)
	t.mu.Unlock()
	for _, s := range slots {
		s.sever(node)
	}
}

// Sessions are the sessions under way.
func (t *Table) Sessions() []*Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*Session
	for _, s := range t.slots {
		if session := s.session.Load(); session != nil {
			out = append(out, session)
		}
	}
	return out
}

func (s *Slot) view() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := View{ID: s.ID, Started: s.Started, Clients: s.clients, Status: Status(s.status.Load()), Reader: int(s.reader.Load()),
		Occupant: s.occupant, LastLeft: s.lastLeft}
	if why := s.pinned.Load(); why != nil {
		v.Pinned = *why
	}
	v.Servers = append([]Server(nil), s.occupant.Servers...)
	for c := range s.loans {
		v.Servers = append(v.Servers, Server{Node: c.Node, PID: c.PID, Born: c.Born(), Uses: int(c.since.Load()), Main: s.lentMain.Load() == c, last: &c.last})
	}
	for i := range v.Servers {
		v.Servers[i].Statement = v.Servers[i].last.String()
	}
	if session := s.session.Load(); session != nil {
		v.IdleLimit = session.IdleLimit()
	}
	if ns := s.idleSince.Load(); ns != 0 {
		v.IdleSince = time.Unix(0, ns)
	}
	return v
}

func (s *Slot) enter(o Occupant, session *Session) {
	s.mu.Lock()
	s.occupant = o
	s.clients++
	s.mu.Unlock()
	s.session.Store(session)
}

func (s *Slot) leave(now time.Time) {
	s.session.Store(nil)
	s.status.Store(int32(WaitForConnection))
	s.pinned.Store(nil)
	s.idleSince.Store(0)
	s.mu.Lock()
	s.lastLeft = now
	s.occupant = Occupant{}
	s.mu.Unlock()
}

// sever ends the connections to a node, under the session that uses them.
func (s *Slot) sever(node int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, server := range s.occupant.Servers {
		if server.Node == node {
			server.conn.Shutdown()
		}
	}
	for c := range s.loans {
		if c.Node == node {
			c.Shutdown()
		}
	}
}

func (s *Slot) setServers(list []Server) {
	s.mu.Lock()
	s.occupant.Servers = list
	s.mu.Unlock()
}
