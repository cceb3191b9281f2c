package session

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/pgpool/wire"
)

// guards keep sequences for a statement until all nodes have run it. The lock on the
// main node (insert_lock) keeps them to the end of the transaction, but no longer than
// that is alive there: when the statement fails, or the server's process ends, it is
// free while others have yet to run the statement, or are running it. The zero value
// is open. Safe for all goroutines.
type guards struct {
	mu    sync.Mutex
	held  map[guarded]struct{}
	queue []*guardWaiter
}

// guarded is a sequence.
type guarded struct {
	database string
	name     string
}

type guardWaiter struct {
	keys []guarded
	task *wire.Task
	let  atomic.Bool
}

// guardLimit bounds how long a statement waits for another to be over on all nodes
// that is over on the main node.
const guardLimit = 30 * time.Second

// enter takes all keys at once, and waits until nobody has one of them. Without an
// error leave must follow.
func (g *guards) enter(t *wire.Task, keys []guarded) error {
	g.mu.Lock()
	if g.free(keys) {
		g.take(keys)
		g.mu.Unlock()
		return nil
	}
	w := &guardWaiter{keys: keys, task: t}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	late := atomic.Bool{}
	timer := time.AfterFunc(guardLimit, func() { late.Store(true); t.Wake() })
	defer timer.Stop()
	err := t.WaitFor(func() bool { return w.let.Load() || late.Load() })
	if err == nil && w.let.Load() {
		return nil
	}
	g.mu.Lock()
	i := slices.Index(g.queue, w)
	if i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
	g.mu.Unlock()
	switch {
	case i < 0 && err == nil:
		return nil // it was let in at the last moment
	case i < 0:
		g.leave(keys)
	}
	if err == nil {
		err = &wire.Error{Severity: "ERROR", Code: "55P03", Message: "another session's statement with the same sequence has not ended on all nodes"}
	}
	return err
}

func (g *guards) free(keys []guarded) bool {
	return !slices.ContainsFunc(keys, func(k guarded) bool { _, taken := g.held[k]; return taken })
}

func (g *guards) take(keys []guarded) {
	if g.held == nil {
		g.held = make(map[guarded]struct{})
	}
	for _, k := range keys {
		g.held[k] = struct{}{}
	}
}

// leave gives them back, and lets those in who can be.
func (g *guards) leave(keys []guarded) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys {
		delete(g.held, k)
	}
	g.queue = slices.DeleteFunc(g.queue, func(w *guardWaiter) bool {
		if !g.free(w.keys) {
			return false
		}
		g.take(w.keys)
		w.let.Store(true)
		w.task.Wake()
		return true
	})
}

// guard has sequences for the statement that is about to run, until unguard.
func (s *Session) guard(names []string) error {
	s.unguard()
	if len(s.rep.set) < 2 {
		return nil
	}
	var keys []guarded
	for _, n := range names {
		if k := (guarded{s.database, n}); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	if err := s.guards.enter(s.task, keys); err != nil {
		return err
	}
	s.rep.guarded = keys
	return nil
}

// unguard is told when a statement has ended on all nodes, or will not run.
func (s *Session) unguard() {
	if s.rep != nil && len(s.rep.guarded) > 0 {
		keys := s.rep.guarded
		s.rep.guarded = nil
		s.guards.leave(keys)
	}
}
