package session

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
)

// What a session in transaction mode owns and cannot take along keeps it where it
// is. Most of it shows in the text of statements (settle.go). After one whose
// effects do not, the server is asked what there is, when the transaction is over
// and before the connection can go to anybody else. Settings found that way travel
// by their values; of what has gone meanwhile the session is free.

// pinned tells why the session keeps its main server between transactions; empty,
// it does not.
func (s *Session) pinned() string {
	if s.settings.unknown {
		return "settings that the text does not show"
	}
	return s.holds()
}

// stays tells whether the session is pinned, and shows why.
func (s *Session) stays() bool {
	why := s.pinned()
	if was := s.slot.pinned.Load(); why == "" && was == nil || was != nil && *was == why {
		return why != ""
	}
	if why == "" {
		s.slot.pinned.Store(nil)
		return false
	}
	shown := why // which alone is kept
	s.slot.pinned.Store(&shown)
	return true
}

// auditSQL lists what a session may own on a server, by kind, name and value.
const auditSQL = `SELECT 'setting', name, setting FROM pg_catalog.pg_settings WHERE source = 'session'
UNION ALL SELECT 'role', '', pg_catalog.current_setting('role')
UNION ALL SELECT 'user', '', session_user
UNION ALL SELECT 'listens', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
UNION ALL SELECT 'cursor', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)
UNION ALL SELECT 'lock', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())
UNION ALL SELECT 'temp', relname, '' FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND pg_catalog.pg_my_temp_schema() <> 0
UNION ALL SELECT 'temp object', '', '' WHERE pg_catalog.pg_my_temp_schema() <> 0 AND
	(EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema())
	OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()))
UNION ALL SELECT 'prepared', name, '' FROM pg_catalog.pg_prepared_statements WHERE from_sql`

// auditMain asks the main server what it holds for the session.
func (s *Session) auditMain(c *server) error {
	limit, stop := context.WithTimeout(ctx, catalogLimit)
	rows, err := backend.Asker{Conn: c.Conn, Task: s.task}.Ask(limit, auditSQL)
	stop()
	delete(c.stmts, "") // the question took the unnamed statement's place
	if err != nil {
		s.log.LogAttrs(ctx, eventlog.Warning, "could not find out what a session owns on its server", slog.Any("err", err))
		s.suspect(err)
		return err // what nobody can answer for is not passed on
	}
	s.sharing.audit = false
	s.marks.held, s.marks.listens, s.askTemp = slices.Clone(s.sharing.sticky), false, false
	var temps []string
	var found []setting
	role, user := "none", s.user
	for _, r := range rows {
		switch kind, name, value := r[0], r[1], r[2]; kind {
		case "setting":
			found = append(found, byValue(strings.ToLower(name), value))
		case "role":
			role = value
		case "user":
			user = value
		case "listens":
			s.marks.listens = true
			s.hold("LISTEN")
		case "cursor":
			s.hold("cursors WITH HOLD")
		case "lock":
			s.hold(advisoryLocks)
		case "temp":
			temps = append(temps, name)
			s.hold("temporary objects")
		case "temp object":
			s.hold("temporary objects")
		case "prepared":
			if s.sqlStmts[name] == nil { // prepared by a function: its text is not ours to repeat
				s.hold("statements prepared by a function")
			}
		}
	}
	s.router.OwnTemp(temps)
	if user != s.user {
		found = append([]setting{{name: "session_authorization", sql: "SET SESSION AUTHORIZATION " + quoteIdent(user)}}, found...)
	}
	if role != "none" {
		found = append(found, setting{name: "role", sql: "SET ROLE " + quoteIdent(role)})
	}
	s.settings.adopt(found)
	c.applied = s.settings.seq
	c.shared.murky = true
	return nil
}

func byValue(name, value string) setting {
	level, _ := parser.ParseIsolation(value)
	return setting{name: name, sql: "SELECT pg_catalog.set_config(" + quoteText(name) + ", " + quoteText(value) + ", false)", value: value,
		primaryOnly: name == "default_transaction_isolation" && level == parser.Serializable}
}

// adopt makes what was found on the main server all that has been set.
// The server does not list settings of a class of somebody's own (my.setting):
// what is known of those stays.
func (st *settings) adopt(found []setting) {
	for _, l := range st.list {
		if strings.Contains(l.name, ".") && !l.toDefault && !slices.ContainsFunc(found, func(f setting) bool { return f.name == l.name }) {
			found = append(found, l)
		}
	}
	st.list = st.list[:0]
	st.unknown, st.doubted = false, false
	st.seq++ // so that no other server counts as having it
	for _, f := range found {
		st.add(f)
	}
}

// keepsHere tells by a function's name that a session which calls it keeps what
// only its server has. sticky: there is no way to find out whether it still does.
func keepsHere(n parser.Name) (what string, sticky bool) {
	if n.Schema != "" && n.Schema != "pg_catalog" && !strings.HasPrefix(n.Name, "dblink") {
		return "", false
	}
	switch n.Name {
	case "pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared":
		return advisoryLocks, false
	case "dblink_connect", "dblink_connect_u":
		return "connections of dblink", true
	case "setseed":
		return "a seed of random()", true
	case "currval", "lastval":
		return "values of sequences", true
	}
	return "", false
}

// freesHere tells statements after which something that pins the session may have
// gone.
func freesHere(v *parser.Verdict) bool {
	switch v.Class {
	case parser.Unlisten, parser.CloseCursor, parser.Discard:
		return true
	}
	return v.DropsTemp || len(v.Drops) > 0 || slices.ContainsFunc(v.Functions, func(n parser.Name) bool {
		return strings.HasPrefix(n.Name, "pg_advisory_unlock")
	})
}

// heed notes what a completed statement leaves on its server that cannot travel,
// besides what settle.go finds.
func (s *Session) heed(v *parser.Verdict, opaque bool) {
	for _, n := range v.Functions {
		if what, sticky := keepsHere(n); what != "" {
			s.hold(what)
			if sticky && !slices.Contains(s.sharing.sticky, what) {
				s.sharing.sticky = append(s.sharing.sticky, what)
			}
		}
	}
	s.sharing.audit = s.sharing.audit || s.hides(v, opaque) || len(s.marks.held) > 0 && freesHere(v)
}
