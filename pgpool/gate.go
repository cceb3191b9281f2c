package pgpool

import (
	"context"
	"slices"
	"sync"

	"pgpool-go/pgpool/wire"
)

// gate counts the clients inside and, while somebody wants to see all of them
// leave, keeps new ones outside. The zero gate is open.
type gate struct {
	mu      sync.Mutex
	inside  int
	waiters int             // who want everybody to leave; the gate is shut while there are any
	over    bool            // and is open for good at the end of the server
	outside []*wire.Task    // to be woken when it opens
	left    []chan struct{} // to be closed when nobody is inside
}

// enter waits until the gate is open and counts one client in. Only end can
// hurry it.
func (g *gate) enter(t *wire.Task) {
	pass := func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.waiters > 0 && !g.over {
			if !slices.Contains(g.outside, t) {
				g.outside = append(g.outside, t)
			}
			return false
		}
		g.inside++
		return true
	}
	for t.WaitFor(pass) != nil {
		t.Forgive()
	}
}

// leave counts one client out.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 {
		for _, done := range g.left {
			close(done)
		}
		g.left = nil
	}
}

// vacate shuts the gate and waits until nobody is inside. The caller opens it
// again in any case. Where ctx ends first the error is its cause.
func (g *gate) vacate(ctx context.Context) (reopen func(), err error) {
	g.mu.Lock()
	g.waiters++
	var done chan struct{}
	if g.inside > 0 {
		done = make(chan struct{})
		g.left = append(g.left, done)
	}
	g.mu.Unlock()
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return g.reopen, err
}

func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiters--; g.waiters == 0 {
		g.wake()
	}
}

// end opens the gate for good.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	g.wake()
}

// wake lets those outside look again; the lock is held.
func (g *gate) wake() {
	for _, t := range g.outside {
		t.Wake()
	}
	g.outside = nil
}
