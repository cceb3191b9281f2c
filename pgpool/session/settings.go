package session

import (
	"strings"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
)

// settings is what the client has changed about its session, kept so that it can
// be repeated on every other server the session comes to use. Statements are
// kept, not values: what SET means is the server's affair.
//
// A change is pending until the outcome of its transaction, explicit or not, is
// known.
type settings struct {
	list    []setting // in order of seq
	seq     uint64    // of the newest
	meaning uint64    // of the newest that may change what the text of a statement means
	pending []setting
	marks   []mark // savepoints, oldest first
	// unknown: something changed that the text does not tell. Only the server
	// that ran it has the right settings, so reads stay there.
	unknown   bool
	unknownTx parser.Scope // the same, inside the transaction
	doubted   bool         // some statement may have changed the search path unseen

	base   []setting // of the startup packet, if they travel with the session; RESET goes back to them
	born   uint64    // seq, when there was nothing but those
	undone bool      // some of them have been reset
	states [2]made   // see state: on the main server, and on a standby
}

type setting struct {
	seq         uint64
	name        string // what a later change of the same name replaces; empty: replaced by nothing
	sql         string
	value       string // of search_path
	toDefault   bool
	local       bool // ends with the transaction
	primaryOnly bool // means nothing to a standby, or is refused there
}

type mark struct {
	name    string
	pending int
}

// searchPath is the search_path, given what settings were after login, if that is
// known. It is not known after statements whose effects are not in their text.
func (st *settings) searchPath(login *backend.Defaults) (path string, known bool) {
	if st.unknown || st.unknownTx != parser.ScopeNone {
		return "", false
	}
	begin := func() {
		if path, known = "", login != nil; known {
			path = login.SearchPath
		}
	}
	begin()
	renamed := false
	for k, list := range [2][]setting{st.list, st.pending} {
		known = known && !(k == 1 && st.doubted)
		for i := range list {
			switch s := &list[i]; {
			case s.name == "search_path" && !s.toDefault:
				path, known = s.value, true
			case s.name == "search_path", s.name == resetAll:
				begin()
			case s.name == opaqueEffects:
				known = false
			case identity(s.name):
				renamed = true
			}
		}
	}
	if renamed && strings.Contains(path, "$user") {
		return "", false
	}
	return path, known
}

// opaqueEffects is the name under which is pending that a statement may have
// changed the search path unseen. There is nothing to repeat.
const opaqueEffects = "?"

// doubt records that.
func (st *settings) doubt() { st.pending = append(st.pending, setting{name: opaqueEffects}) }

// untouched tells that the session is as after login.
func (st *settings) untouched() bool {
	return st.seq == st.born && !st.doubted && len(st.pending) == 0 && st.unknownTx == parser.ScopeNone
}

// settled tells that no transaction has changed settings, nor may have unseen.
func (st *settings) settled() bool {
	return !st.unknown && !st.doubted && len(st.pending) == 0 && st.unknownTx == parser.ScopeNone
}

// note records the changes of a statement that has succeeded; end decides what
// becomes of them.
func (st *settings) note(v *parser.Verdict) {
	st.unknownTx = max(st.unknownTx, v.SettingsUnknown)
	for i := range v.Settings {
		p := &v.Settings[i]
		name := p.Name
		if p.Op == parser.SetResetAll {
			name = resetAll
		}
		st.pending = append(st.pending, setting{
			name: name, sql: p.Replay, value: p.Value, toDefault: p.Op == parser.SetDefault, local: p.Local, primaryOnly: p.PrimaryOnly,
		})
	}
}

// resetAll is the name under which RESET ALL is kept: no setting has it.
const resetAll = "*"

// add makes a change lasting.
func (st *settings) add(s setting) {
	st.seq++
	s.seq = st.seq
	if !meaningless(s.name) {
		st.meaning = st.seq
	}
	list := st.list
	st.list = list[:0]
	for _, old := range list {
		// Who we are has an order among all changes, which may depend on it, and
		// RESET ALL does not touch it; all else is replaced by name.
		replaced := s.name != "" && old.name == s.name && !identity(s.name)
		wiped := s.name == resetAll && !identity(old.name)
		if !replaced && !wiped {
			st.keep(old)
		}
	}
	st.keep(s)
}

// keep appends a change. Of several in a row that say who the session is, only
// what the last has left standing is kept.
func (st *settings) keep(s setting) {
	n := len(st.list)
	for n > 0 && identity(s.name) && (st.list[n-1].name == s.name || s.name == "session_authorization" && st.list[n-1].name == "role") {
		n--
	}
	st.list = append(st.list[:n], s)
}

// meaningless tells the names of settings that no statement is understood by, but
// at most run by. Those with a dot are not PostgreSQL's own.
func meaningless(name string) bool {
	switch name {
	case "application_name", "client_min_messages", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
		"idle_session_timeout", "work_mem", "maintenance_work_mem", "extra_float_digits", "bytea_output", "synchronous_commit":
		return true
	}
	return strings.Contains(name, ".")
}

// identity tells the names that say who the session is.
func identity(name string) bool { return name == "role" || name == "session_authorization" }

// savepoint, release and rollbackTo follow the transaction's savepoints.
func (st *settings) savepoint(name string) {
	st.marks = append(st.marks, mark{name, len(st.pending)})
}

func (st *settings) find(name string) int {
	for i := len(st.marks) - 1; i >= 0; i-- {
		if st.marks[i].name == name {
			return i
		}
	}
	return -1
}

func (st *settings) release(name string) {
	if i := st.find(name); i >= 0 {
		st.marks = st.marks[:i]
	}
}

func (st *settings) rollbackTo(name string) {
	if i := st.find(name); i >= 0 {
		st.pending = st.pending[:st.marks[i].pending]
		st.marks = st.marks[:i+1]
	}
}

// end closes the transaction.
func (st *settings) end(committed bool) {
	if committed {
		for _, s := range st.pending {
			switch {
			case s.name == opaqueEffects:
				st.doubted = true
			case !s.local:
				st.doubted = st.doubted && s.name != "search_path" && s.name != resetAll
				st.add(s)
				st.undone = st.undone || len(st.base) > 0 && (s.toDefault || s.name == resetAll)
			}
		}
		st.unknown = st.unknown || st.unknownTx == parser.ScopeSession
	}
	st.pending, st.marks, st.unknownTx = st.pending[:0], st.marks[:0], parser.ScopeNone
}

// clear forgets everything, after DISCARD ALL.
func (st *settings) clear() {
	*st = settings{seq: st.seq, meaning: st.seq, base: st.base, undone: len(st.base) > 0, born: st.born}
}

// current tells whether c has all lasting changes.
func (st *settings) current(c *server) bool { return c.applied >= st.seq }

// due are the lasting changes c lacks, as SQL.
func (st *settings) due(c *server, standby bool) []string {
	var out []string
	for _, s := range st.list {
		if s.seq > c.applied && !(standby && s.primaryOnly) {
			out = append(out, s.sql)
		}
	}
	return out
}
