package session

import (
	"context"
	"time"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/catalog"
	"pgpool-go/pgpool/route"
)

// catalogLimit bounds how long a statement waits for the catalog.
const catalogLimit = 10 * time.Second

// searchPath is the session's search_path where servers report it (PostgreSQL 18
// and later); nil, any schema may be meant.
func (s *Session) searchPath() *catalog.Path {
	main := s.conns[s.main]
	if main == nil {
		return nil
	}
	text := main.Param("search_path")
	if text == "" {
		return nil
	}
	if s.path == nil || text != s.pathText {
		s.path, s.pathText = catalog.NewPath(text, s.user), text
	}
	return s.path
}

// facts are what the catalog knows of a statement's names; nil if nothing has to
// be known or nobody could be asked.
func (s *Session) facts(v *parser.Verdict) *route.Facts {
	if !route.Needs(v, s.cfg.Rules) {
		return nil
	}
	if f, ok := s.Catalog.Lookup(s.database, s.searchPath(), v); ok {
		return f
	}
	f, err := s.askCatalog(v)
	if err != nil {
		s.logLookup(err)
		return nil
	}
	return f
}

// askCatalog asks over a connection of its own, so that the look-up has no part
// in the client's transaction.
func (s *Session) askCatalog(v *parser.Verdict) (*route.Facts, error) {
	key := s.poolKey(s.main)
	c := s.Pool.Get(key, s.task)
	if c == nil {
		var err error
		if c, err = s.startServer(s.main); err != nil {
			return nil, err
		}
		if c, err = s.finishServer(c); err != nil {
			return nil, err
		}
	}
	limit, stop := context.WithTimeout(ctx, catalogLimit)
	defer stop()
	f, err := s.Catalog.Resolve(limit, backend.Asker{Conn: c, Task: s.task}, s.database, s.searchPath(), v)
	if s.poolable() && err == nil {
		s.Pool.Put(c, key, s.task.Now())
	} else {
		c.Bye()
	}
	return f, err
}

// ownTemp asks the main server which temporary relations the session has, after
// a statement whose effects are not in its text. It is asked between statements
// and outside transactions.
func (s *Session) ownTemp() error {
	main := s.conns[s.main]
	if main == nil || main.Status != 'I' {
		return nil
	}
	limit, stop := context.WithTimeout(ctx, catalogLimit)
	defer stop()
	rows, err := backend.Asker{Conn: main.Conn, Task: s.task}.Ask(limit,
		"SELECT relname FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()")
	if err != nil {
		return err
	}
	delete(main.stmts, "") // the question took the unnamed statement's place
	var names []string
	for _, r := range rows {
		names = append(names, r[0])
	}
	if len(names) > 0 {
		s.hold("temporary objects")
	}
	s.router.OwnTemp(names)
	return nil
}

// prepared is what an EXECUTE or DEALLOCATE names, where it came by Parse.
func (s *Session) prepared(v *parser.Verdict) *route.Prepared {
	if v.Class != parser.Execute && v.Class != parser.Deallocate || v.Name == "" {
		return nil
	}
	st := s.stmts[v.Name]
	if st == nil {
		return nil
	}
	return &route.Prepared{Verdict: st.verdict, Facts: s.facts(st.verdict), Text: st.text(), Node: st.home}
}

// process is the node of the server process that a statement would terminate,
// as id+1, if it serves one of our sessions.
func (s *Session) process(v *parser.Verdict) int {
	if v.Terminates == 0 {
		return 0
	}
	for _, slot := range s.Slots.Views() {
		for _, server := range slot.Servers {
			if int(server.PID) == v.Terminates {
				return server.Node + 1
			}
		}
	}
	for _, idle := range s.Pool.List() {
		if int(idle.PID) == v.Terminates {
			return idle.Node + 1
		}
	}
	return 0
}
