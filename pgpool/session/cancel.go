package session

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// cancelKey names a session to those who want to cancel what it runs.
type cancelKey struct {
	pid    uint32
	secret string
}

// cancels are the cancel requests that are being carried out for a session. A
// server connection must not go to another session while one is on its way to
// its server: it would cancel that one's statement.
type cancels struct {
	mu      sync.Mutex
	running []*server // where a statement runs now
	flying  int
	over    bool
}

// cancelLimit bounds how long one request may take; the client waits for it.
const cancelLimit = 10 * time.Second

func (s *Session) remember(k cancelKey) {
	s.cancelKey = k
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancels == nil {
		s.cancels = make(map[cancelKey]*Session)
	}
	s.cancels[k] = s
}

// forget makes the session unknown to cancel requests and waits for those that
// are on their way.
func (s *Session) forget() {
	s.mu.Lock()
	if s.cancels[s.cancelKey] == s {
		delete(s.cancels, s.cancelKey)
	}
	s.mu.Unlock()
	s.flight.mu.Lock()
	s.flight.over = true
	s.flight.mu.Unlock()
	for s.flying() {
		if s.task.WaitFor(func() bool { return !s.flying() }) != nil {
			s.task.Forgive() // the session is at its end already
		}
	}
}

func (s *Session) flying() bool {
	s.flight.mu.Lock()
	defer s.flight.mu.Unlock()
	return s.flight.flying > 0
}

// running marks the servers that a cancel request is meant for.
func (s *Session) running(on ...*server) {
	s.flight.mu.Lock()
	s.flight.running = append(s.flight.running[:0], on...)
	s.flight.mu.Unlock()
}

// ran takes back running and waits for the requests that are on their way, lest
// they hit a statement of ours that follows.
func (s *Session) ran() error {
	s.running()
	for s.flying() {
		if err := s.task.WaitFor(func() bool { return !s.flying() }); err != nil {
			return err
		}
	}
	return nil
}

// cancel carries out a request. As PostgreSQL, it says nothing to whoever asks.
func (sh *Shared) cancel(k wire.CancelKey) {
	sh.mu.Lock()
	found := sh.cancels[cancelKey{k.PID, k.Secret}]
	sh.mu.Unlock()
	if found == nil {
		sh.Log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("cancel request for process %d matches no session", k.PID))
		return
	}
	found.cancelRunning()
}

// cancelRunning has the servers of the running statement cancel it. Safe for all
// goroutines.
func (s *Session) cancelRunning() {
	s.flight.mu.Lock()
	if s.flight.over {
		s.flight.mu.Unlock()
		return
	}
	targets := make([]*backend.Conn, len(s.flight.running))
	for i, c := range s.flight.running {
		targets[i] = c.Conn
	}
	s.flight.flying += len(targets)
	s.flight.mu.Unlock()
	var all sync.WaitGroup
	for _, target := range targets {
		all.Go(func() { s.cancelOn(target) })
	}
	all.Wait()
}

// cancelOn carries out a request on one server.
func (s *Session) cancelOn(target *backend.Conn) {
	ctx, stop := context.WithTimeout(context.Background(), cancelLimit)
	err := target.Cancel(ctx)
	stop()
	s.flight.mu.Lock()
	s.flight.flying--
	s.flight.mu.Unlock()
	s.task.Wake()
	if err != nil {
		s.Log.LogAttrs(ctx, eventlog.Warning, fmt.Sprintf("could not cancel the statement on node %d", target.Node), slog.Any("err", err))
	}
}
