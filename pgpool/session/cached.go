package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/catalog"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/qcache"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// A read that has been answered before is answered from the query cache, if the
// answer is still true and would be the same for this session now. What cannot be
// had from there but may be kept is recorded on its way to the client
// (recording.go); what a session writes takes from the cache what depends on it
// (written.go).

// caching is a session's part in the query cache.
type caching struct {
	prefix    []byte // of all keys: everything but the statement
	of        prefixOf
	steady    bool // the settings in prefix leave answers the same in every transaction
	muddle    muddle
	key       []byte
	recording recording
	written   written
}

// muddle is that some statement may have changed settings unseen: a DO, a CALL, a
// function of somebody's. What they are is asked then, but not after every such
// statement: not before a few reads have come that the answer is good for.
type muddle struct {
	is    bool   // it is not known what they are
	reads int    // that were not cached because of that
	state string // a digest of what they were when asked; empty, never asked
	seq   uint64 // of the newest change that counts in it
}

const muddledReads = 2

// prefixOf is what a prefix was made of.
type prefixOf struct {
	main     *server // nil in transaction mode, where servers come and go
	node     int     // instead
	system   string
	told     uint64
	seq      uint64
	settings int
	state    string
	muddle   string
	asked    uint64 // the muddle's seq
}

// Kinds of keys: an answer to a Query; to an Execute; to one with its Describe.
const (
	keyQuery     = 'Q'
	keyExecute   = 'E'
	keyDescribed = 'D'
)

// fromCache was the decision on a statement that the cache has answered.
var fromCache = route.Decision{Node: route.Self, Reason: route.ReasonCache}

// cachedQuery answers the Query message at the head of the client's buffer from
// the cache, if it can. If not, its answer is perhaps recorded.
func (s *Session) cachedQuery(v *parser.Verdict, sql []byte, size int) (bool, error) {
	reply := s.recall(v, sql, keyQuery, sql, sql)
	if reply == nil {
		return false, nil
	}
	s.noteHit(sql)
	s.client.Skip(size)
	if err := s.glance(nil); err != nil {
		return true, err
	}
	return true, s.giveKept(reply)
}

// giveKept sends the client a reply from the cache, and that all is done.
func (s *Session) giveKept(reply []byte) error {
	if _, err := s.client.Write(reply); err != nil {
		return err
	}
	status := [1]byte{s.status()}
	return s.client.SendRaw(wire.ReadyForQuery, status[:])
}

// noteHit logs and counts an answer from the cache.
func (s *Session) noteHit(sql []byte) {
	s.countRoute(fromCache)
	if s.marks.loud && s.cfg.LogPerNodeStatement {
		s.log.LogAttrs(ctx, eventlog.Log, "fetch from memory cache", slog.String("detail", "query result fetched from cache. statement: "+string(sql)))
	}
}

// recall looks a statement up. text is its text, what all that tells it from others
// of its kind, and moods is where a word may hide that means the present moment.
// Where nothing is found the recording is armed if the answer may be kept.
func (s *Session) recall(v *parser.Verdict, text []byte, kind byte, what, moods []byte) []byte {
	s.caching.recording.armed = false
	if v.Class != parser.Select || !v.Reads || v.Lead.Cache == parser.CacheNo || s.follow() != nil || !s.mayCache() || !s.addressed() {
		if v.Class == parser.Begin && !s.tx.open && s.follow() == nil {
			s.learnStates() // or its reads could not be cached
		}
		return nil
	}
	d := s.dependence(v)
	if d == nil {
		return nil
	}
	force := v.Lead.Cache == parser.CacheForce
	if d.Refusal != "" && !(force && d.Forced == "") {
		return nil
	}
	for _, n := range v.Relations {
		if s.router.Temp(n) {
			return nil
		}
	}
	key := append(append(s.caching.key[:0], s.caching.prefix...), kind)
	key = append(key, what...)
	s.caching.key = key
	marks := s.readMarks(d, text)
	reply, ticket := s.find(key, marks.read)
	s.Cache.Count(marks.tally, reply != nil)
	if reply != nil || ticket == nil || !force && parser.Moody(moods) || !s.listed(d, force) {
		return reply
	}
	s.learnStates()
	s.caching.recording.arm(bytes.Clone(key), ticket, text, kind == keyExecute)
	return nil
}

// find is Cache.Find, which may have to wait.
func (s *Session) find(key []byte, marks []*qcache.Mark) (reply []byte, ticket *qcache.Ticket) {
	if !s.Cache.Remote() {
		return s.Cache.Find(key, marks)
	}
	return s.findAfar(key, marks)
}

// findAfar is find in a memcached.
func (s *Session) findAfar(key []byte, marks []*qcache.Mark) (reply []byte, ticket *qcache.Ticket) {
	s.task.Block(func() { reply, ticket = s.Cache.Find(key, marks) })
	return reply, ticket
}

// mayCache tells whether the session is in a state in which an answer from the
// cache is as good as a server's: every transaction sees the latest, it has
// written nothing itself, and all its settings are known.
func (s *Session) mayCache() bool {
	main := s.conns[s.main]
	switch {
	case s.reloading(s.task.Now()):
		return false
	case s.sharing.on && !s.knowsOwnState(main):
		return false
	case main == nil && !s.sharing.on || s.pipe.open() || s.pipe.skipping || s.askTemp && !s.knowTemp() || s.marks.listens || s.replication != "":
		return false
	case s.caching.muddle.is && !s.clearUp() || s.settings.unknown || s.settings.unknownTx != parser.ScopeNone || len(s.settings.pending) > 0:
		return false
	case s.snap.Mode == conf.StreamingReplication && s.snap.Primary != s.main:
		return false
	case !s.tx.open:
		return (main == nil || main.Status == 'I') && s.caching.written.nothing()
	case main == nil:
		return false
	}
	level := s.router.Isolation()
	return main.Status == 'T' && !s.tx.poisoned && !s.router.Wrote() && s.caching.written.nothing() &&
		(level == parser.ReadCommitted || level == parser.ReadUncommitted)
}

// clearUpSQL asks for all settings on which results may depend as they are now.
const clearUpSQL = `SELECT pg_catalog.string_agg(name OPERATOR(pg_catalog.||) '=' OPERATOR(pg_catalog.||) coalesce(setting, ''), E'\n' ORDER BY name),
 pg_catalog.current_setting('role'), session_user,
 pg_catalog.current_setting('default_transaction_isolation')
FROM pg_catalog.pg_settings
WHERE category OPERATOR(pg_catalog.~) '^(Client Connection Defaults|Version and Platform|Customized|Developer)'`

// clearUp finds out what settings are after a statement that may have changed them
// unseen, if now is the time.
func (s *Session) clearUp() bool {
	m := &s.caching.muddle
	if m.reads++; s.sharing.on || m.reads <= muddledReads || s.tx.open || s.pipe.open() || !s.due.empty() {
		return false
	}
	main := s.conns[s.main]
	if main.Status != 'I' || main.HungUp() {
		return false
	}
	limit, stop := context.WithTimeout(ctx, catalogLimit)
	rows, err := (backend.Asker{Conn: main.Conn, Task: s.task}).Ask(limit, clearUpSQL)
	stop()
	delete(main.stmts, "") // the question took the unnamed statement's place
	if err != nil || len(rows) != 1 {
		s.logLookup(err)
		return false
	}
	if level, ok := parser.ParseIsolation(rows[0][3]); !ok || level > parser.ReadCommitted {
		return false // blocks would not be what they seem
	}
	sum := sha256.Sum256([]byte(strings.Join(rows[0], "\x00")))
	*m = muddle{state: string(sum[:]), seq: s.settings.seq}
	return true
}

// knowTemp finds out which temporary tables the session has.
func (s *Session) knowTemp() bool {
	if !s.tx.open {
		if err := s.ownTemp(); err != nil {
			s.logLookup(err)
		}
	}
	return !s.askTemp
}

// addressed brings the prefix of keys up to date. It is false while there is none.
func (s *Session) addressed() bool {
	main, c := s.conns[s.main], &s.caching
	of := prefixOf{system: s.snap.Nodes[s.main].SystemID, seq: s.settings.seq, settings: len(s.settings.list), muddle: c.muddle.state, asked: c.muddle.seq}
	if s.sharing.on {
		of.node = s.main
		of.state, of.told = s.ownState(main)
	} else {
		if s.stateOf(main.Conn) == "" {
			s.learnStates()
		}
		of.main, of.told, of.state = main, main.Told(), s.stateOf(main.Conn)
	}
	if of.state == "" || of.system == "" && s.Cache.Remote() {
		return false
	}
	if of != c.of {
		c.of = of
		s.address()
	}
	return c.steady
}

// harmless are settings of which no result depends.
var harmless = map[string]bool{
	"application_name": true, "client_min_messages": true, "statement_timeout": true, "lock_timeout": true, "synchronous_commit": true,
	"idle_in_transaction_session_timeout": true, "idle_session_timeout": true, "work_mem": true, "maintenance_work_mem": true, "pgpool.target": true,
}

// address makes the prefix: whom the answer is for, and all settings it may depend
// on, as the client has made them, as the server tells them and as they were after
// login; a digest of all that.
func (s *Session) address() {
	c := &s.caching
	var b []byte
	add := func(t string) { b = append(binary.BigEndian.AppendUint32(b, uint32(len(t))), t...) }
	b = binary.BigEndian.AppendUint16(b, uint16(s.main))
	for _, t := range []string{c.of.system, s.database, s.user, c.of.state, c.of.muddle} {
		add(t)
	}
	for _, p := range s.login.Params {
		if p.Name != "application_name" {
			add(p.Name)
			add(p.Value)
		}
	}
	for _, p := range s.reported() {
		if p.Name != "application_name" && p.Name != "in_hot_standby" {
			add(p.Name)
			add(p.Value)
		}
	}
	c.steady = true
	for i := range s.settings.list {
		set := &s.settings.list[i]
		if harmless[set.name] {
			continue
		}
		// Characteristics of transactions have no name.
		c.steady = c.steady && set.name != "" && !strings.HasPrefix(set.name, "default_transaction_")
		if c.of.muddle != "" && set.seq > c.of.asked { // on top of what was found then
			add("again")
		}
		add(set.sql)
	}
	sum := sha256.Sum256(b)
	c.prefix = sum[:]
}

// stateSQL asks for what settings are after login, where servers do not report
// them and results may depend on them.
const stateSQL = `SELECT pg_catalog.string_agg(name OPERATOR(pg_catalog.||) '=' OPERATOR(pg_catalog.||) coalesce(reset_val, ''), E'\n' ORDER BY name),
 pg_catalog.max(reset_val) FILTER (WHERE name OPERATOR(pg_catalog.=) 'default_transaction_isolation'),
 pg_catalog.max(reset_val) FILTER (WHERE name OPERATOR(pg_catalog.=) 'search_path')
FROM pg_catalog.pg_settings
WHERE category OPERATOR(pg_catalog.~) '^(Client Connection Defaults|Version and Platform|Customized|Developer)'
 AND name OPERATOR(pg_catalog.!~) '(_timeout|_preload_libraries|tablespaces?)$|^(vacuum|transaction)_'`

// learnStates asks the session's servers that are at rest what their settings were
// after login, once for each connection.
func (s *Session) learnStates() {
	if s.tx.open || s.pipe.open() || !s.due.empty() {
		return
	}
	for _, c := range s.conns {
		if c == nil || s.stateOf(c.Conn) != "" || c.Status != 'I' || c.errands > 0 || c.HungUp() {
			continue
		}
		if learnt, err := s.learnState(c); err != nil {
			s.logLookup(err)
		} else if learnt && c.Node == s.main {
			s.router.Default("default_transaction_isolation", c.Defaults.Isolation)
		}
	}
}

// learnState asks one of them. It reports whether its Defaults were unknown until
// now.
func (s *Session) learnState(c *server) (learnt bool, err error) {
	asked := s.task.Now()
	limit, stop := context.WithTimeout(ctx, catalogLimit)
	rows, err := (backend.Asker{Conn: c.Conn, Task: s.task}).Ask(limit, stateSQL)
	stop()
	delete(c.stmts, "") // the question took the unnamed statement's place
	if err != nil || len(rows) != 1 || len(rows[0]) != 3 {
		return false, err
	}
	sum := sha256.Sum256([]byte(rows[0][0]))
	c.State, c.Asked = string(sum[:]), asked
	if learnt = c.Defaults == nil; learnt {
		c.Defaults = &backend.Defaults{Isolation: rows[0][1], SearchPath: rows[0][2]}
	}
	return learnt, nil
}

// dependence is what the cache has to know of a statement; nil if nobody could be
// asked.
func (s *Session) dependence(v *parser.Verdict) *catalog.Dependence {
	path := s.searchPath()
	d, err := s.Catalog.Depend(ctx, nil, s.database, path, v)
	if d == nil && err == nil {
		// The primary is asked: a standby might not yet have what a commit has changed.
		ask := func(limit context.Context, a backend.Asker) (err error) {
			d, err = s.Catalog.Depend(limit, a, s.database, path, v)
			return err
		}
		if main := s.conns[s.main]; main != nil && main.Status == 'I' && !s.tx.open && !s.pipe.open() && s.due.empty() && !main.HungUp() {
			limit, stop := context.WithTimeout(ctx, catalogLimit)
			err = ask(limit, backend.Asker{Conn: main.Conn, Task: s.task})
			stop()
			delete(main.stmts, "") // the question took the unnamed statement's place
		} else {
			err = s.aside(s.main, nil, ask)
		}
	}
	if err != nil {
		s.logLookup(err)
		return nil
	}
	return d
}

// depMarks are the cache's marks for a dependence, kept with it.
type depMarks struct {
	read, written []*qcache.Mark
	tally         *qcache.Tally // of a statement that may be kept
}

func (s *Session) marksOf(d *catalog.Dependence) *depMarks {
	if m, ok := d.Marks.Load().(*depMarks); ok {
		return m
	}
	return s.makeMarks(d, nil)
}

// makeMarks makes them; text is that of a statement that is looked up.
func (s *Session) makeMarks(d *catalog.Dependence, text []byte) *depMarks {
	m := &depMarks{read: []*qcache.Mark{s.Cache.All(), s.Cache.Mark(s.database, "")}}
	for _, t := range d.Reads {
		m.read = append(m.read, s.Cache.Mark(s.database, t))
	}
	for _, t := range d.Writes {
		m.written = append(m.written, s.Cache.Mark(s.database, t))
	}
	if text != nil {
		m.tally = s.Cache.Tally(s.database, parser.Normal(text, qcache.TallyText))
	}
	d.Marks.Store(m)
	return m
}

// readMarks are those of a read that is looked up.
func (s *Session) readMarks(d *catalog.Dependence, text []byte) *depMarks {
	if m, ok := d.Marks.Load().(*depMarks); ok && m.tally != nil {
		return m
	}
	return s.makeMarks(d, text)
}

// listed tells whether the operator's lists let an answer be kept. As in the
// original, views and unlogged tables must be on the one, and nothing may be on
// the other, which goes before it. A client that forces overrules both.
func (s *Session) listed(d *catalog.Dependence, force bool) bool {
	if force {
		return true
	}
	for _, n := range d.Named {
		if s.cfg.CacheUnsafe.Match(n) {
			return false
		}
	}
	for _, list := range [][]parser.Name{d.Views, d.Unlogged} {
		for _, n := range list {
			if s.cfg.CacheUnsafe.Match(n) || !s.cfg.CacheSafe.Match(n) {
				return false
			}
		}
	}
	return true
}

// Tables is one of the operator's lists: patterns for names of tables, with or
// without their schema.
type Tables []*regexp.Regexp

// NewTables reads a list. Patterns that do not compile have been refused when the
// configuration was read.
func NewTables(list []string) (t Tables) {
	for _, p := range list {
		if re, err := conf.Pattern(p); err == nil {
			t = append(t, re)
		}
	}
	return t
}

// Match tells whether a table is on the list.
func (t Tables) Match(n parser.Name) bool {
	return slices.ContainsFunc(t, func(re *regexp.Regexp) bool { return re.MatchString(n.Name) || re.MatchString(n.String()) })
}

// cachedPipeline answers a pipeline of one execution from the cache, if all of it
// has arrived: perhaps a Parse, then Bind, perhaps Describe, Execute, Sync. That is
// how drivers send a query. If it cannot, the answer is perhaps recorded.
func (s *Session) cachedPipeline() (bool, error) {
	s.caching.recording.armed = false // whatever has come of what it was armed for
	p, ok := s.overview()
	if !ok {
		return false, nil
	}
	st := p.stmt
	if st == nil {
		st = s.lookup(p.name)
		if st == nil || st.local() || st.meaning != s.settings.meaning {
			return false, nil
		}
	}
	kind := byte(keyExecute)
	if p.described {
		kind = keyDescribed
	}
	text := st.text()
	what := append(s.caching.recording.what[:0], p.types...)
	if p.stmt == nil {
		what = append(what, st.types()...)
	}
	if st.described { // else the client might be told of other columns than before
		what = append(what, st.shape[:]...)
	}
	what = append(append(append(what, 0), text...), 0)
	what = append(what, p.values...)
	s.caching.recording.what = what
	reply := s.recall(st.verdict, text, kind, what, what)
	if reply == nil {
		return false, nil
	}
	s.logPipeline(p)
	s.noteHit(text)
	if p.parsed {
		s.adoptStatement(p)
		if err := s.client.SendRaw(wire.ParseComplete, nil); err != nil {
			return true, err
		}
	} else {
		st.bound = true
	}
	s.portals.unnamed.close()
	s.client.Skip(p.size)
	s.batch.end() // its first message is all that was kept of it
	if err := s.glance(nil); err != nil {
		return true, err
	}
	if err := s.client.SendRaw(wire.BindComplete, nil); err != nil {
		return true, err
	}
	return true, s.giveKept(reply)
}

// overview is a pipeline of one execution. It refers to the client's buffer.
type overview struct {
	size       int // of all of it
	parsed     bool
	described  bool
	stmt       *statement // of its Parse
	frame      []byte     // of its Parse
	name       []byte     // of the statement
	types      []byte     // of its parameters, as its Parse gives them
	values     []byte     // of the parameters, with all formats
	parse, run []byte
}

// overview looks at what has arrived.
func (s *Session) overview() (p overview, ok bool) {
	rest := s.client.Bytes()
	take := func(letter byte) (frame, body []byte, ok bool) {
		if len(rest) < 5 || rest[0] != letter {
			return nil, nil, false
		}
		size := int(binary.BigEndian.Uint32(rest[1:])) + 1
		if size < 5 || size > len(rest) {
			return nil, nil, false
		}
		frame, rest = rest[:size], rest[size:]
		p.size += size
		return frame, frame[5:], true
	}
	if frame, body, is := take(wire.Parse); is {
		name, more, ok1 := wire.CString(body)
		sql, types, ok2 := wire.CString(more)
		if !ok1 || !ok2 || len(name) > 0 && s.taken(string(name)) {
			return p, false
		}
		v := s.Parser.Classify(sql)
		p.parsed, p.name, p.types, p.frame = true, name, types, frame
		p.stmt = &statement{frame: frame, verdict: v}
	}
	_, body, is := take(wire.Bind)
	if !is {
		return p, false
	}
	portal, more, ok1 := wire.CString(body)
	name, values, ok2 := wire.CString(more)
	if !ok1 || !ok2 || len(portal) > 0 || p.parsed && !bytes.Equal(name, p.name) {
		return p, false
	}
	p.name, p.values = name, values
	if _, body, is := take(wire.Describe); is {
		if len(body) != 2 || body[0] != 'P' || body[1] != 0 {
			return p, false
		}
		p.described = true
	}
	if _, body, is := take(wire.Execute); !is || len(body) != 5 || body[0] != 0 || binary.BigEndian.Uint32(body[1:]) != 0 {
		return p, false
	}
	_, body, is = take(wire.Sync)
	return p, is && len(body) == 0
}

// adoptStatement makes the statement of a Parse that no server has been sent the
// client's. It is prepared where it is needed, like any other.
func (s *Session) adoptStatement(p overview) {
	st, was := s.blank(), s.unnamed
	st.frame = append(st.frame[:0], p.frame...)
	st.name, st.verdict, st.home, st.meaning, st.bound, st.described = string(p.name), p.stmt.verdict, s.main, s.settings.meaning, true, false
	st.alias = alias{}
	if st.name != "" {
		s.stmts[st.name] = st
		return
	}
	s.unnamed = st
	if was != nil {
		s.recycle(was)
	}
}

// logPipeline logs what the messages of a pipeline would have logged one by one.
func (s *Session) logPipeline(p overview) {
	if s.logsMessages() {
		if p.parsed {
			s.message("Parse", "statement: "+quote(p.name)+", query: "+quote(p.stmt.text()))
		}
		s.message("Bind", "portal: \"\", statement: "+quote(p.name))
		if p.described {
			s.message("Describe", objectDetail('P', nil))
		}
		s.message("Execute", "portal: \"\"")
		s.message("Sync", "")
	}
	if s.marks.loud {
		if p.stmt != nil {
			s.logStatement(p.stmt.text())
		} else {
			s.logStatement(s.lookup(p.name).text())
		}
	}
}

// types are those of the parameters that the client's Parse gives, as it gives them.
func (st *statement) types() []byte {
	_, rest, _ := wire.CString(st.frame[5:])
	_, types, _ := wire.CString(rest)
	return types
}
