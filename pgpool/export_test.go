package pgpool

import (
	"time"

	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/session"
)

// What the tests look at from within.

func (s *Server) Idle() []backend.Idle           { return s.pool.List() }
func (s *Server) DrainPool()                     { s.pool.Drain(-1) }
func (s *Server) Shares() []backend.ShareView    { return s.pool.Shares(time.Now()) }
func (s *Server) Slots() *session.Table          { return s.shared.Slots }
func (s *Server) Snapshot() *cluster.Snapshot    { return s.owner.Now() }
func (s *Server) Health(node int) cluster.Health { return s.owner.Health(node) }

// Trip has every session panic that asks for SHOW POOL_WATCHDOG from now on.
func (s *Server) Trip(over any) { s.shared.Watchdog = func() [][]string { panic(over) } }

// Held tells whether new clients are kept waiting.
func (s *Server) Held() bool {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return s.gate.waiters > 0
}
