package session

import (
	"slices"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/wire"
)

// In transaction mode a session reads from the query cache without a server
// connection, so that it needs none for what has been answered before. What it would
// find on the next one it is lent is known: the lasting settings of its own, on top
// of how the last one was after login. An answer is kept only from a connection that
// proves to be so.
//
// Code that no text shows may have changed settings of a connection that goes from
// session to session. Where the database has code that does, the server is asked
// before the next session has it (audit.go); that there is none is read off the text
// of functions, which is good enough to pass a connection on, but not to answer others
// with what has come from it. So nothing is kept from such a connection until it has
// been cleared.

// lastMain is the server connection that the session last had to its main node.
type lastMain struct {
	conn  *backend.Conn
	state string // its State
	asked time.Time
}

// noteLast remembers the main server's connection when it is handed over.
func (s *Session) noteLast(c *server) {
	if s.Cache != nil {
		s.sharing.last = lastMain{c.Conn, c.State, c.Asked}
	}
}

// knowsOwnState tells whether the session in transaction mode would find on its main
// server, or finds on main if that is not nil, what it takes for granted. While it has
// no connection, that is as long as the one it last had is there: a server that has
// been started anew may have other settings.
func (s *Session) knowsOwnState(main *server) bool {
	if main != nil {
		return !s.sharing.audit && main.shared != nil && main.applied == s.settings.seq
	}
	if !slices.ContainsFunc(s.conns, func(c *server) bool { return c != nil }) {
		s.caching.muddle, s.askTemp = muddle{}, false // what was done unseen has stayed behind on the connections
	}
	last := s.sharing.last.conn
	return last != nil && last.Node == s.main && len(s.marks.held) == 0 && !s.tx.poisoned && last.Alive()
}

// ownState is how the settings are after login and what is reported of them, as
// digests.
func (s *Session) ownState(main *server) (state string, told uint64) {
	if main != nil {
		return s.stateOf(main.Conn), main.Reported()
	}
	return s.stateSince(s.sharing.last.state, s.sharing.last.asked), s.sharing.toldSum
}

// reported are the settings that the main server reports.
func (s *Session) reported() []wire.Param {
	if main := s.conns[s.main]; main != nil {
		return main.Params()
	}
	return s.sharing.told
}

// knowState finds out what the settings of a connection just borrowed were after
// login, if nobody has.
func (s *Session) knowState(c *server) error {
	if s.Cache == nil || s.stateOf(c.Conn) != "" || c.Status != 'I' {
		return nil
	}
	_, err := s.learnState(c)
	if c.Tainted() {
		return err // the answer may still come
	}
	return nil
}

// muddy notes that code which no text shows is about to run on the session's
// connections.
func (s *Session) muddy() {
	for _, c := range s.conns {
		if c != nil && c.shared != nil {
			c.shared.muddy = true
		}
	}
}

// clears tells that a connection is to be cleared of what code unseen may have left on
// it, as the answer that is about to come from it could be kept then.
func (s *Session) clears(c *server) bool { return c.shared.muddy && s.caching.recording.armed }

// clearing is what undoes all of that but settings, which go by RESET ALL.
const clearing = "DISCARD TEMP"

// vouches tells whether an answer of a shared connection is one that the session's
// key stands for: the key was made before it was known which connection it would be.
func (s *Session) vouches(c *server) bool {
	of := &s.caching.of
	if s.stateOf(c.Conn) != of.state || of.seq != s.settings.seq || c.applied != of.seq || c.shared == nil || c.shared.muddy || s.caching.muddle.is || s.sharing.audit {
		return false
	}
	if c.Node == s.main {
		return c.Reported() == of.told
	}
	return s.snap.Mode == conf.StreamingReplication && s.Cache.CaughtUp(c.Node, s.caching.recording.ticket)
}
