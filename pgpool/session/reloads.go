package session

import (
	"sync/atomic"
	"time"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
)

// When servers read their configuration files anew, sessions that are there already
// have other settings from then on, which nobody tells us of. Answers in the query
// cache are in a form that these settings give them. So what was known of settings,
// and what is cached, ends with a reload that is seen passing or that a probe finds.

// reloads is until when servers may be about to take over a new configuration. The
// zero value: none is known of. Safe for all goroutines.
type reloads struct {
	over atomic.Int64 // in ns since the epoch
}

// reloadTime is how long a server may take to have all its processes take over a new
// configuration. They do it before they look at their next statement.
const reloadTime = 2 * time.Second

// Reloaded is to be told that a server has been told to reload, or has. Safe for all
// goroutines.
func (s *Shared) Reloaded(now time.Time) {
	if s.Cache == nil {
		return
	}
	s.reloads.over.Store(now.Add(reloadTime).UnixNano())
	s.Cache.Clear()
}

// reloaded is Reloaded, which may have to wait for a memcached.
func (s *Session) reloaded() {
	now := s.task.Now()
	if s.Cache.Remote() {
		s.task.Block(func() { s.Reloaded(now) })
	} else {
		s.Reloaded(now)
	}
}

// reloading tells whether servers may be about to take over a new configuration.
func (s *Shared) reloading(now time.Time) bool { return now.UnixNano() < s.reloads.over.Load() }

// stateOf is a connection's State; empty, it is not known, or not any more.
func (s *Shared) stateOf(c *backend.Conn) string { return s.stateSince(c.State, c.Asked) }

func (s *Shared) stateSince(state string, asked time.Time) string {
	if asked.UnixNano() < s.reloads.over.Load() {
		return ""
	}
	return state
}

// reloading tells whether a statement has a server reload its configuration.
func reloading(v *parser.Verdict) bool {
	for _, f := range v.Functions {
		if f.Name == "pg_reload_conf" {
			return true
		}
	}
	for _, part := range v.Parts {
		if reloading(part) {
			return true
		}
	}
	return v.Inner != nil && reloading(v.Inner)
}
