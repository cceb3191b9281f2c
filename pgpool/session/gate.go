package session

import (
	"slices"
	"sync"
	"sync/atomic"

	"pgpool-go/pgpool/wire"
)

// gate keeps snapshots and commits apart that concern several nodes: while one
// transaction takes its snapshot on all nodes none commits, so that it sees the
// same on all of them. Snapshots may be taken side by side, and so may commits be
// made. Whoever comes later waits behind those who wait already. The zero gate is
// open. Safe for all goroutines.
type gate struct {
	mu      sync.Mutex
	purpose purpose // of those inside
	inside  int
	queue   []*passer
}

// purpose is what somebody passes a gate for.
type purpose uint8

const (
	toSee    purpose = iota // take a snapshot
	toCommit                // commit
)

type passer struct {
	purpose purpose
	task    *wire.Task
	let     atomic.Bool
}

// enter waits until the gate is free for a purpose. Without an error leave must
// follow.
func (g *gate) enter(t *wire.Task, p purpose) error {
	g.mu.Lock()
	if g.inside == 0 || g.purpose == p && len(g.queue) == 0 {
		g.purpose = p
		g.inside++
		g.mu.Unlock()
		return nil
	}
	w := &passer{purpose: p, task: t}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	err := t.WaitFor(w.let.Load)
	if err == nil {
		return nil
	}
	g.mu.Lock()
	i := slices.Index(g.queue, w)
	if i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // it was let in meanwhile
		g.leave()
	}
	return err
}

// leave lets those in who wait, as many of one purpose as stand in front.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside > 0 {
		return
	}
	for len(g.queue) > 0 && (g.inside == 0 || g.queue[0].purpose == g.purpose) {
		w := g.queue[0]
		g.queue = g.queue[1:]
		g.purpose = w.purpose
		g.inside++
		w.let.Store(true)
		w.task.Wake()
	}
}

// Quiet lets what concerns all nodes be held up: nothing may be written while a
// node that has been away is brought to the others' state. The zero Quiet holds up
// nobody. Safe for all goroutines.
type Quiet struct {
	mu      sync.Mutex
	holds   int
	active  int
	waiting map[*wire.Task]struct{}
	idle    chan struct{} // closed when nobody is active; nil unless somebody waits for that
}

// enter waits until nobody holds things up. leave must follow unless it fails.
func (q *Quiet) enter(t *wire.Task) error {
	in := func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.holds > 0 {
			if q.waiting == nil {
				q.waiting = make(map[*wire.Task]struct{})
			}
			q.waiting[t] = struct{}{}
			return false
		}
		delete(q.waiting, t)
		q.active++
		return true
	}
	err := t.WaitFor(in)
	if err != nil {
		q.mu.Lock()
		delete(q.waiting, t)
		q.mu.Unlock()
	}
	return err
}

func (q *Quiet) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.active--; q.active == 0 && q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
}

// Hold holds up what has not begun. The channel is closed when nothing is under
// way any more. Release must follow.
func (q *Quiet) Hold() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holds++
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	over := q.idle
	if q.active == 0 {
		close(q.idle)
		q.idle = nil
	}
	return over
}

// Release lets everybody go on.
func (q *Quiet) Release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holds--; q.holds == 0 {
		for t := range q.waiting {
			t.Wake()
		}
	}
}
