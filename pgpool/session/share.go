package session

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/conf"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// In transaction mode a session has a server connection from the first statement
// of a transaction to its last. What the session owns travels: when a connection
// is borrowed it is brought from the state of the session before into this one's
// (state.go), and statements are prepared on it under names of their text
// (copies.go), so that sessions meet only in what means the same to all of them.
// What cannot travel keeps the session where it is (audit.go).

// sharing is what a session in transaction mode has besides.
type sharing struct {
	on       bool
	shares   []*backend.Share // by node
	login    []wire.Param     // of the startup packet
	turn     backend.Turn
	told     []wire.Param // the reported settings as the client knows them
	toldSum  uint64       // of them; see backend.Conn.Reported
	bringing bool         // a server is brought into the session's state: the client need not know
	sticky   []string     // of what pins the session, that which stays for good
	risky    bool         // the database has functions that leave something behind
	audit    bool         // what the main server holds for the session is to be found out
	defaults *backend.Defaults
	last     lastMain // where the session has been, for the query cache
}

// shared is what is known of a server connection that sessions have in turns.
type shared struct {
	holder  *Session // who has it
	muddy   bool     // code that no text shows has run on it, and nobody has looked after it; see cached_shared.go
	murky   bool     // it may have settings that it does not list: all are reset before the next use
	foreign bool     // what it knows of sequences may be another session's
	names   *Session // whose names those in server.stmts are
	state   *state   // what its settings come to; nil: not known
	copies  map[textID]*copied
	strays  []string // of copies to be closed
	clock   uint64   // of copies used
	batch   []byte   // the last pipeline sent that calls copies
}

// errNoTurn is an error of a wait for one of a Share's connections.
var errNoTurn = errors.New("no connection of the pool is free")

// share is the share of a node.
func (s *Session) share(node int) *backend.Share {
	for len(s.sharing.shares) <= node {
		s.sharing.shares = append(s.sharing.shares, nil)
	}
	if s.sharing.shares[node] == nil {
		s.sharing.shares[node] = s.Pool.Share(node, s.database, s.user)
	}
	return s.sharing.shares[node]
}

// borrow makes a node's server connection this session's own for a while.
func (s *Session) borrow(node int) error {
	if !s.due.empty() { // by another server
		if err := s.cut(); err != nil {
			return err
		}
		if s.pipe.skipping {
			return errPassedOver
		}
	}
	sh, t := s.share(node), &s.sharing.turn
	if s.router == nil || t.Task == nil {
		t.Key, t.Task = s.poolKey(node), s.task
	}
	t.Key.Node = node
	for {
		// Who has the main node's connection must not wait for another: those who have
		// that one may wait for the main node's.
		if patient := node == s.main || s.conns[s.main] == nil; !sh.Borrow(t, s.task.Now(), patient) {
			if !patient {
				return &backend.Error{Node: node, Err: errNoTurn}
			}
			if err := s.queue(sh); err != nil {
				return err
			}
		}
		c := t.Conn()
		if c == nil {
			return s.openShared(sh, node)
		}
		c.Attach(s.task)
		err := s.occupy(c)
		if bad, ok := errors.AsType[*backend.Error](err); !ok || bad.Node != node {
			return err
		}
		// It had ended without our knowing; nothing of the client was sent to it.
	}
}

// openShared opens a connection that the share has room for.
func (s *Session) openShared(sh *backend.Share, node int) error {
	c, err := s.startServer(node)
	if err == nil {
		c, err = s.finishServer(c)
	}
	if err != nil {
		sh.Lose()
		return err
	}
	sh.Adopt(c, &s.sharing.turn)
	return s.occupy(c)
}

// queue waits for the session's turn.
func (s *Session) queue(sh *backend.Share) error {
	t := &s.sharing.turn
	told := false
	for {
		waited := s.task.Now().Sub(t.Since)
		next := time.Duration(0)
		until := func(d time.Duration) {
			if left := d - waited; left > 0 && (next == 0 || left < next) {
				next = left
			}
		}
		switch limit := s.cfg.PoolWaitTimeout; {
		case limit > 0 && waited >= limit:
			sh.GiveUp(t, s.task.Now())
			return s.unserved(t.Key.Node, waited)
		case limit > 0:
			until(limit)
		}
		switch after := s.cfg.PoolWaitNotice; {
		case after <= 0 || told:
		case waited >= after:
			told = true
			if err := s.tellWait(t.Key.Node, waited); err != nil {
				sh.GiveUp(t, s.task.Now())
				return err
			}
			continue
		default:
			until(after)
		}
		if s.cfg.ReservePoolSize > 0 {
			after := s.cfg.ReservePoolTimeout
			if waited >= after {
				if sh.Insist(t) {
					return nil
				}
				after = waited + reservePoll
			}
			until(after)
		}
		t.Remind(next)
		err := s.task.WaitFor(func() bool { return t.Done() || t.Due() || s.client.HungUp() })
		switch {
		case err == nil && t.Done():
			return nil
		case err == nil && s.client.HungUp():
			err = &ClientGone{errGaveUp}
		case err == nil:
			continue
		}
		sh.GiveUp(t, s.task.Now())
		return err
	}
}

// reservePoll is how often somebody who has waited long looks whether a connection
// of the reserve has become free.
const reservePoll = time.Second

// unserved is the answer to a statement that has waited in vain. It has been sent
// nowhere.
func (s *Session) unserved(node int, waited time.Duration) error {
	word := &wire.Error{Severity: "ERROR", Code: "53300",
		Message: fmt.Sprintf("no connection to node %d has become free within pool_wait_timeout", node),
		Detail:  fmt.Sprintf("All %d of user %q to database %q have been in use for %d seconds.", s.cfg.PoolSize, s.user, s.database, int(waited.Seconds())),
		Hint:    "SHOW POOL_SHARES and SHOW POOL_PROCESSES tell who has them."}
	if s.router == nil {
		word.Severity = "FATAL"
	} else {
		s.log.LogAttrs(ctx, eventlog.Warning, word.Message, slog.String("detail", word.Detail))
	}
	return word
}

// tellWait tells the client why it gets no answer.
func (s *Session) tellWait(node int, waited time.Duration) error {
	if s.router == nil {
		return nil // it has only just knocked
	}
	if err := s.sendNotice(fmt.Sprintf("waiting for a connection to node %d for %d seconds", node, int(waited.Seconds()))); err != nil {
		return err
	}
	return s.client.Flush()
}

// occupy takes a connection of a share over and brings it into the session's state.
func (s *Session) occupy(c *backend.Conn) error {
	srv, known := c.Kept.(*server)
	if !known {
		srv = &server{Conn: c, stmts: make(map[string]*statement), shared: &shared{state: login, copies: make(map[textID]*copied)}}
		c.Kept = srv
		srv.hear = func(typ byte, body []byte) {
			if h := srv.shared.holder; h != nil {
				h.overheard(c, typ, body)
			}
		}
	}
	srv.shared.holder = s
	c.Overheard = srv.hear
	s.conns[c.Node] = srv
	if !known {
		s.arrived(s.snap, c.Node)
	}
	s.slot.lend(srv, c.Node == s.main)
	if err := s.bringState(srv); err != nil {
		c.Taint()
		s.drop(srv)
		return err
	}
	err := s.knowState(srv)
	if err == nil && c.Node != s.main {
		return nil
	}
	if err == nil {
		err = s.knowDefaults(srv)
	}
	if err == nil {
		err = s.learnHidden(srv)
	}
	if err != nil {
		c.Taint()
		s.drop(srv)
		return err
	}
	return s.tellParams(srv)
}

// bringState gives a connection just borrowed the session's settings.
func (s *Session) bringState(c *server) error {
	want := s.settings.state(c.Node != s.main)
	if s.clears(c) {
		if err := s.exchange(c, clearing); err != nil {
			return err
		}
		c.shared.muddy, c.shared.state = false, nil
	}
	if !want.same(c.shared.state) {
		s.sharing.bringing = true
		defer func() { s.sharing.bringing = false }()
		for _, sql := range want.since(c.shared.state) {
			c.shared.state = nil
			if err := s.exchange(c, sql); err != nil {
				return err
			}
		}
	}
	c.shared.state = want
	c.applied = s.settings.seq
	return s.ownNames(c)
}

// ownNames closes what another session has prepared under names of its own.
func (s *Session) ownNames(c *server) error {
	if c.shared.names == s {
		return nil
	}
	c.shared.names, c.shared.foreign = s, true
	if _, ask := s.sequenced.Load(s.database); ask && c.Node == s.main {
		if err := s.exchange(c, "DISCARD SEQUENCES"); err != nil {
			return err
		}
		c.shared.foreign = false
	}
	some := false
	for name := range c.stmts {
		if name != "" {
			c.Send(&pgproto3.Close{ObjectType: 'S', Name: name})
			delete(c.stmts, name)
			some = true
		}
	}
	if !some {
		return nil
	}
	c.SendRaw(wire.Sync, nil)
	return s.converse(c)
}

// knowDefaults keeps what a connection's settings are after login, asking if nobody
// has: while the session has no connection, its reads are routed by them.
func (s *Session) knowDefaults(c *server) error {
	if c.Defaults == nil && c.shared.state == login && s.cfg.Rules.Balance && c.Status == 'I' {
		rows, err := s.askDefaults(c.Conn)
		delete(c.stmts, "")
		if c.Tainted() {
			return err // the answer may still come
		}
		c.Defaults = rows
	}
	if c.Defaults == nil || c.Defaults == s.sharing.defaults {
		return nil
	}
	s.sharing.defaults = c.Defaults
	if s.router != nil {
		s.router.Default("default_transaction_isolation", c.Defaults.Isolation)
	}
	return nil
}

// tellParams tells the client of reported settings that are otherwise on this
// server than on the one before.
func (s *Session) tellParams(c *server) error {
	if s.router == nil || c.Reported() == s.sharing.toldSum {
		return nil
	}
	for _, p := range c.Params() {
		if !slices.Contains(s.sharing.told, p) {
			if err := s.client.Send(&pgproto3.ParameterStatus{Name: p.Name, Value: p.Value}); err != nil {
				return err
			}
		}
	}
	s.noteTold(c)
	return nil
}

// noteTold remembers what the client knows of the main server's settings.
func (s *Session) noteTold(c *server) {
	if sum := c.Reported(); sum != s.sharing.toldSum || s.sharing.told == nil {
		s.sharing.told, s.sharing.toldSum = slices.Clone(c.Params()), sum
	}
}

// between tells that no transaction is under way, so that connections may be given
// back.
func (s *Session) between() bool {
	return s.sharing.on && !s.tx.open && !s.tx.poisoned && !s.pipe.open() && s.due.empty()
}

// giveUpTurns gives connections back for which others wait, while the client has
// more to say.
func (s *Session) giveUpTurns() error {
	if !s.between() {
		return nil
	}
	for node, c := range s.conns {
		if c != nil && c.shared != nil && s.share(node).Wanted() {
			return s.relinquish()
		}
	}
	return nil
}

// relinquish gives back the connections whose transaction is over.
func (s *Session) relinquish() error {
	if !s.between() {
		return nil
	}
	busy := false
	for _, c := range s.conns {
		if c == nil || c.shared == nil {
			continue
		}
		if c.errands > 0 || len(c.part.before) > 0 || c.Node == s.main && s.sharing.audit {
			busy = true
			continue
		}
		if err := s.handOver(c); err != nil {
			return err
		}
	}
	if !busy {
		return nil
	}
	// The rest takes a question and its answer: the client need not wait for that.
	s.keepUp()
	if err := s.client.Flush(); err != nil {
		return err
	}
	for _, c := range s.conns {
		if c == nil || c.shared == nil {
			continue
		}
		if err := s.collect(c); err != nil {
			s.strayed(c, err)
			continue
		}
		if c.Node == s.main && s.sharing.audit {
			if err := s.auditMain(c); err != nil {
				return err
			}
		}
		if err := s.handOver(c); err != nil {
			return err
		}
	}
	return nil
}

// handOver gives a connection back, unless the session is to keep it.
func (s *Session) handOver(c *server) error {
	if c.Node == s.main && s.stays() {
		return nil
	}
	if c.Stirred() {
		if err := s.unasked(c); err != nil {
			return err
		}
		if s.conns[c.Node] != c {
			return nil // that was its end
		}
	}
	if s.flying() { // a cancel request might hit whoever comes next
		s.drop(c)
		return nil
	}
	c.shared.state = nil
	if c.applied == s.settings.seq && !c.shared.murky {
		c.shared.state = s.settings.state(c.Node != s.main)
	}
	c.shared.muddy = c.shared.muddy && !c.shared.murky
	c.shared.murky = false
	if c.Node == s.main {
		s.noteTold(c)
		s.noteLast(c)
		if s.settings.undone {
			s.settings.restore()
		}
	}
	s.part(c)
	c.Hand(s.task.Now())
	return nil
}

// part ends the session's ties to a connection that is to go to another.
func (s *Session) part(c *server) {
	s.conns[c.Node] = nil
	if s.cur == c {
		s.cur = nil
	}
	if s.due.server == c {
		s.due.server = nil
	}
	if s.tx.reader == c {
		s.tx.reader = nil
	}
	s.slot.regain(c)
	c.shared.holder = nil
	c.part = part{before: c.part.before[:0], todo: c.part.todo[:0]}
	c.closing = c.closing[:0]
	if c.stmts[""] != nil {
		c.stmts[""] = orphan
	}
}

// resetShared brings a connection back to how it was after login, at the end of a
// session that has not left it between transactions.
func (s *Session) resetShared(c *server) {
	stop := s.task.Limit(resetLimit, errResetSlow)
	err := c.Reset(resetAllState)
	stop()
	if err != nil {
		c.Taint()
		c.Bye()
		return
	}
	s.part(c)
	clear(c.stmts)
	clear(c.shared.copies)
	c.shared.strays = c.shared.strays[:0]
	c.shared.state, c.shared.muddy = login, false
	c.Hand(s.task.Now())
}

// resetAllState leaves nothing of a session on a server. reset_query_list, which
// an operator may have made lighter, is for session mode.
var resetAllState = []string{"ABORT", "DISCARD ALL"}

// chooseMode decides for how long the client has server connections, and parts the
// settings of its startup packet.
func (s *Session) chooseMode() {
	s.sharing.on = s.cfg.PoolModeOf(s.user, s.database) == conf.PoolTransaction && s.replication == "" && !s.cfg.BackendClusteringMode.Replicates() && s.cfg.ConnectionCache
	if !s.sharing.on {
		return
	}
	var base []setting
	s.sharing.login = slices.Clone(s.login.Params)
	s.login.Params = slices.DeleteFunc(s.login.Params, func(p wire.Param) bool {
		if !travelling(p.Name) {
			return false
		}
		name := strings.ToLower(p.Name)
		base = append(base, setting{name: name, sql: "SET " + quoteSetting(name) + " TO " + quoteText(p.Value), value: p.Value})
		return true
	})
	s.settings.begin(base)
}

// keepServers takes back that servers are shared: a client that has proven itself
// to one server alone, as only that knows it, cannot be let in by another connection.
func (s *Session) keepServers() {
	s.login.Params = s.sharing.login
	s.settingsKey = settingsKey(s.login.Params)
	s.sharing, s.settings = sharing{}, settings{}
}

// enterShared has the client prove who it is, as its server wants it, and borrows
// the first connection; see enter.
func (s *Session) enterShared(node int, plan func(auth.Method) (auth.Plan, error), proven *bool) error {
	sh, t := s.share(node), &s.sharing.turn
	prove := func(m auth.Method) (pass bool, err error) {
		p, err := plan(m)
		if err != nil || p.Pass {
			return p.Pass, err
		}
		*proven = true
		s.cred, err = auth.Challenge(s, s.user, p)
		return false, err
	}
	for {
		if m, ok := s.Pool.Method(node, s.database, s.user); ok {
			pass, err := prove(m)
			if pass {
				s.keepServers()
				return s.enter(plan, proven)
			}
			if err != nil {
				return err
			}
			return fatal(s.borrow(node))
		}
		t.Key, t.Task = s.poolKey(node), s.task
		if !sh.Borrow(t, s.task.Now(), true) {
			if err := s.queue(sh); err != nil {
				return err
			}
			sh.GiveUp(t, s.task.Now()) // by now it is known what the server asks
			continue
		}
		if t.Conn() != nil {
			sh.GiveUp(t, s.task.Now())
			continue
		}
		c, err := s.startServer(node)
		pass := false
		if err == nil {
			if pass, err = prove(c.Method); err != nil || pass {
				c.Close()
			} else {
				c, err = s.finishServer(c)
			}
		}
		if err != nil || pass {
			sh.Lose()
		}
		if pass {
			s.keepServers()
			return s.enter(plan, proven)
		}
		if err != nil {
			return err
		}
		t.Key = s.poolKey(node)
		sh.Adopt(c, t)
		return fatal(s.occupy(c))
	}
}

// fatal makes an error of the first connection one that ends the session, as a
// setting of the startup packet does that no server accepts.
func fatal(err error) error {
	if no, ok := errors.AsType[*backend.Refusal](err); ok {
		word := *no.Said
		word.Severity = "FATAL"
		return &failed{cause: err, word: &word}
	}
	return err
}
