package session

import "slices"

// story is what is to be said to a standby so that it is in the same transaction
// block as the main server: BEGIN, and the savepoints and settings that still
// stand. What has been undone, and savepoints that are gone, are not told, so
// that a long block has no longer story than it needs. A story may also begin
// later, with what one standby that takes part has not been told yet.
type story []line

type line struct {
	sql  string
	mark string // the savepoint it makes; empty: none
}

// find returns the index of the innermost savepoint of a name, or -1: it has
// been told before this story begins.
func (st story) find(name string) int {
	for i := len(st) - 1; i >= 0; i-- {
		if st[i].mark == name && name != "" {
			return i
		}
	}
	return -1
}

func (st story) say(sql string) story { return append(st, line{sql: sql}) }

func (st story) savepoint(name string) story {
	return append(st, line{"SAVEPOINT " + quoteIdent(name), name})
}

// release ends a savepoint and those within it; settings made since stay.
func (st story) release(name string) story {
	i := st.find(name)
	from := max(i, 0)
	rest := slices.DeleteFunc(st[from:], func(l line) bool { return l.mark != "" })
	st = st[:from+len(rest)]
	if i < 0 {
		st = st.say("RELEASE SAVEPOINT " + quoteIdent(name))
	}
	return st
}

// rollbackTo undoes everything since a savepoint.
func (st story) rollbackTo(name string) story {
	if i := st.find(name); i >= 0 {
		return st[:i+1]
	}
	return st[:0].say("ROLLBACK TO SAVEPOINT " + quoteIdent(name))
}
