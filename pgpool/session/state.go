package session

import (
	"maps"
	"slices"
	"strings"

	"pgpool-go/parser"
)

// state is what the lasting settings of a session come to: what a server
// connection has on top of what it had after login. It is immutable, and known by
// its key: so a connection that sessions have in turns is brought from the state
// of one into that of the next, which mostly is the same.
type state struct {
	list    []setting
	key     string
	meaning string // the same, of the settings that texts are understood by
	simple  bool   // each is a value under a name, and goes by RESET of that name
}

// login is the state after login.
var login = &state{simple: true}

// state is what the lasting settings come to on a server of either kind. It is
// worked out once for each change.
func (st *settings) state(standby bool) *state {
	if len(st.list) == 0 {
		return login
	}
	at := &st.states[0]
	if standby {
		at = &st.states[1]
	}
	if at.made == nil || at.seq != st.seq {
		at.seq, at.made = st.seq, newState(st.list, standby)
	}
	return at.made
}

// made remembers a state, and up to which change it counts.
type made struct {
	seq  uint64
	made *state
}

func newState(list []setting, standby bool) *state {
	s := &state{simple: true}
	others := false // somebody else than who logged in
	for i := range list {
		others = others || identity(list[i].name) && !list[i].toDefault
	}
	for _, l := range list {
		switch {
		case l.name == resetAll, standby && l.primaryOnly:
		case l.toDefault && (!identity(l.name) || !others):
		default:
			s.list = append(s.list, l)
			s.simple = s.simple && l.name != "" && !identity(l.name)
		}
	}
	if len(s.list) == 0 {
		return login
	}
	if s.simple {
		slices.SortFunc(s.list, func(a, b setting) int { return strings.Compare(a.name, b.name) })
	}
	var key, meaning strings.Builder
	for _, l := range s.list {
		key.WriteString(l.sql)
		key.WriteByte(0)
		if !meaningless(l.name) {
			meaning.WriteString(l.sql)
			meaning.WriteByte(0)
		}
	}
	s.key, s.meaning = key.String(), meaning.String()
	return s
}

// same tells whether two states are. A nil one is not known.
func (s *state) same(o *state) bool { return s == o || s != nil && o != nil && s.key == o.key }

// since is the SQL that brings a connection from a state into this one, each text
// a Query of its own.
func (s *state) since(from *state) []string {
	var out []string
	if from == nil || !from.simple || !s.simple {
		if from == nil || slices.ContainsFunc(from.list, func(l setting) bool { return identity(l.name) }) {
			out = append(out, "SET SESSION AUTHORIZATION DEFAULT")
		}
		out = append(out, "RESET ALL")
		for _, l := range s.list {
			out = append(out, l.sql)
		}
	} else {
		has := make(map[string]string, len(s.list))
		for _, l := range s.list {
			has[l.name] = l.sql
		}
		for _, l := range from.list {
			switch has[l.name] {
			case "":
				out = append(out, "RESET "+quoteSetting(l.name))
			case l.sql:
				delete(has, l.name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(has)) {
			out = append(out, has[name])
		}
	}
	for _, sql := range out {
		if !ascii(sql) { // how it is read may depend on those before it
			return out
		}
	}
	return []string{strings.Join(out, "\n;")} // a comment may be the end of any
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// quoteSetting writes a setting's name, which may have a class before a dot.
func quoteSetting(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = quoteIdent(p)
	}
	return strings.Join(parts, ".")
}

// quoteText writes a literal that means the same under every setting.
func quoteText(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// begin gives the session the settings of its startup packet that travel with it.
// RESET goes back to them.
func (st *settings) begin(base []setting) {
	st.base = base
	for _, s := range base {
		st.add(s)
	}
	st.born = st.seq
}

// restore adds again what has been reset of the startup packet's settings.
func (st *settings) restore() {
	st.undone = false
	for _, b := range st.base {
		if !slices.ContainsFunc(st.list, func(l setting) bool { return l.name == b.name && !l.toDefault }) {
			st.add(b)
		}
	}
}

// tentative tells that a transaction has changed settings, or may have, which
// texts are understood by.
func (st *settings) tentative() bool {
	return st.unknown || st.unknownTx != parser.ScopeNone || st.doubted ||
		slices.ContainsFunc(st.pending, func(s setting) bool { return !meaningless(s.name) })
}

// travelling are the settings of a startup packet that sessions of one server
// connection may have each their own of. All others make connections different.
func travelling(name string) bool {
	switch strings.ToLower(name) {
	case "application_name", "client_encoding", "datestyle", "timezone", "intervalstyle", "extra_float_digits", "bytea_output",
		"client_min_messages", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "work_mem":
		return true
	}
	return false
}
