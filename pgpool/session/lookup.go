package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/catalog"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// catalogLimit bounds how long a statement waits for the catalog.
const catalogLimit = 10 * time.Second

// searchPath is the session's search_path: as the server reports it (PostgreSQL
// 18 and later), or as it was after login with what the session has made of it
// since. nil, that is not known: any schema may be meant.
func (s *Session) searchPath() *catalog.Path {
	main := s.conns[s.main]
	login := s.sharing.defaults
	if main != nil && !s.sharing.on {
		login = main.Defaults
	}
	if main != nil && s.pathOf == (pathOf{main.Conn, main.Told(), login, s.settings.seq, len(s.settings.list)}) && s.settings.settled() {
		return s.path
	}
	var text string
	switch {
	case main != nil && !s.sharing.on:
		text = main.Param("search_path")
	case main == nil && !s.sharing.on:
		return nil
	}
	if text == "" {
		var known bool
		if text, known = s.settings.searchPath(login); !known {
			return nil
		}
	}
	if s.path == nil || text != s.pathText {
		s.path, s.pathText, s.pathOf = s.Catalog.Path(text, s.user), text, pathOf{}
	}
	if main != nil && s.settings.settled() {
		s.pathOf = pathOf{main.Conn, main.Told(), login, s.settings.seq, len(s.settings.list)}
	}
	return s.path
}

// pathOf is what the session's path was made of. While all of that is the same, so
// is the path.
type pathOf struct {
	main     *backend.Conn
	told     uint64
	login    *backend.Defaults
	settings uint64 // the newest of the session, and how many there are: DISCARD ALL leaves none
	count    int
}

// facts are what the catalog knows of a statement's names; nil if nothing has to
// be known or nobody could be asked.
func (s *Session) facts(v *parser.Verdict) *route.Facts {
	if !route.Needs(v, s.cfg.Rules) {
		return nil
	}
	if len(v.Relations) > 0 && s.pristine() {
		s.learnDefaults()
	}
	path := s.searchPath()
	if f, ok := s.Catalog.Lookup(s.database, path, v); ok {
		return f
	}
	var f *route.Facts
	known := func() (ok bool) {
		f, ok = s.Catalog.Lookup(s.database, path, v)
		return ok
	}
	err := s.aside(s.informant(), known, func(limit context.Context, a backend.Asker) (err error) {
		f, err = s.Catalog.Resolve(limit, a, s.database, path, v)
		return err
	})
	if err != nil {
		s.logLookup(err)
		return nil
	}
	return f
}

// informant is the node that answers look-ups: relcache_query_target.
func (s *Session) informant() int {
	if n := s.router.ReadNode; s.cfg.RelcacheQueryTarget == conf.RelcacheLoadBalanceNode && s.snap.Usable(n) {
		return n
	}
	return s.main
}

// aside puts questions to a node over a connection of their own, so that they
// have no part in the client's transaction and see a session as it is after login.
// While it waits to be allowed that, others may have found out: known, if not nil,
// tells.
func (s *Session) aside(node int, known func() bool, ask func(context.Context, backend.Asker) error) error {
	if s.cred.Form() == auth.FormPassed {
		return errAlone
	}
	done := false
	stop := s.task.Limit(catalogLimit, errCrowded)
	err := s.task.WaitFor(func() bool {
		done = known != nil && known()
		return done || s.asides.enter(s.task)
	})
	stop()
	if done || err != nil {
		return err
	}
	defer s.asides.leave()
	key := s.poolKey(node)
	c := s.Pool.Get(key, s.task)
	if c == nil {
		if c, err = s.startServer(node); err != nil {
			return err
		}
		if c, err = s.finishServer(c); err != nil {
			return err
		}
	}
	limit, cancel := context.WithTimeout(ctx, catalogLimit)
	defer cancel()
	err = ask(limit, backend.Asker{Conn: c, Task: s.task})
	if s.poolable() && err == nil {
		s.Pool.Put(c, key, s.task.Now())
	} else {
		c.Bye()
	}
	return err
}

// asides bounds how many sessions at once ask aside. After a change of the schema all
// of them want to know the same, and would open as many connections again as they
// have. Safe for all goroutines.
type asides struct {
	mu      sync.Mutex
	inside  int
	outside []*wire.Task
}

// maxAsides is enough for a slow server: questions take milliseconds.
const maxAsides = 4

// enter lets t in, or has it woken when somebody leaves.
func (a *asides) enter(t *wire.Task) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inside < maxAsides {
		a.inside++
		return true
	}
	if !slices.Contains(a.outside, t) {
		a.outside = append(a.outside, t)
	}
	return false
}

func (a *asides) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inside--
	for _, t := range a.outside {
		t.Wake()
	}
	clear(a.outside)
	a.outside = a.outside[:0]
}

var errCrowded = errors.New("too many sessions ask for names")

// errAlone is no loss: where one server is all there is, everything goes to it.
var errAlone = errors.New("there is no password for another connection")

// pristine tells that the main server can be asked over the session's own
// connection, and would answer as right after login.
func (s *Session) pristine() bool {
	main := s.conns[s.main]
	return main != nil && main.Status == 'I' && s.due.empty() && !s.pipe.open() && s.settings.untouched()
}

// learnDefaults asks, once for each connection to the main server, for settings
// that matter to routing and that servers do not report: their default may come
// from the role or the database. It reports whether there was something to learn.
func (s *Session) learnDefaults() bool {
	main := s.conns[s.main]
	if main == nil || main.Defaults != nil || s.sharing.on { // who shares has learnt them when it borrowed
		return false
	}
	var err error
	if s.pristine() {
		main.Defaults, err = s.askDefaults(main.Conn)
		delete(main.stmts, "") // the question took the unnamed statement's place
	} else {
		err = s.aside(s.main, nil, func(_ context.Context, a backend.Asker) (err error) {
			main.Defaults, err = s.askDefaults(a.Conn)
			return err
		})
	}
	if err != nil {
		s.logLookup(err)
		return false
	}
	s.router.Default("default_transaction_isolation", main.Defaults.Isolation)
	return true
}

// askDefaults asks over a connection on which nothing has been set.
func (s *Session) askDefaults(c *backend.Conn) (*backend.Defaults, error) {
	limit, stop := context.WithTimeout(ctx, catalogLimit)
	defer stop()
	rows, err := backend.Asker{Conn: c, Task: s.task}.Ask(limit,
		"SELECT pg_catalog.current_setting('default_transaction_isolation'), pg_catalog.current_setting('search_path')")
	switch {
	case err != nil:
		return nil, err
	case len(rows) != 1 || len(rows[0]) != 2:
		return nil, errors.New("not what was asked for")
	}
	return &backend.Defaults{Isolation: rows[0][0], SearchPath: rows[0][1]}, nil
}

// ownTemp asks the main server which temporary relations the session has, after
// a statement whose effects are not in its text, and before one to which it
// matters. Inside a transaction that other statement has taken its snapshot, so
// that the question changes nothing.
func (s *Session) ownTemp() error {
	main := s.conns[s.main]
	if main == nil || main.Status == 'E' || !s.due.empty() || s.pipe.open() {
		return nil
	}
	limit, stop := context.WithTimeout(ctx, catalogLimit)
	defer stop()
	names, err := catalog.OwnTemp(limit, backend.Asker{Conn: main.Conn, Task: s.task})
	if err != nil {
		return err
	}
	s.askTemp = false
	delete(main.stmts, "") // the question took the unnamed statement's place
	if len(names) > 0 {
		s.hold("temporary objects")
	}
	s.router.OwnTemp(names)
	return nil
}

// recent is a table of a statement that some session has written a moment ago.
// cold: it is too early to say.
func (s *Session) recent(v *parser.Verdict, f *route.Facts) (name string, cold bool) {
	now := s.task.Now()
	name, cold = s.Mutations.Recent(s.database, v.Relations, now)
	if name == "" && !cold && f != nil {
		name, cold = s.Mutations.Recent(s.database, f.Base, now)
	}
	return name, cold
}

// slowest is how far the standby is behind that is furthest behind.
func slowest(snap *cluster.Snapshot) time.Duration {
	var d time.Duration
	for i := range snap.Nodes {
		if i != snap.Primary && snap.Nodes[i].Usable() {
			d = max(d, snap.Nodes[i].LagTime)
		}
	}
	return d
}

// portalOf is the node of the portal that a statement names like a cursor, as
// id+1: one that the client has made by Bind is where that went.
func (s *Session) portalOf(v *parser.Verdict) int {
	if v.Class != parser.Fetch && v.Class != parser.CloseCursor {
		return 0
	}
	if p := s.portals.named[v.Name]; p != nil && p.server != nil {
		return p.server.Node + 1
	}
	return 0
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
