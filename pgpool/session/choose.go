package session

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// choice is where a statement goes, with the server ready for it.
type choice struct {
	server   *server
	decision route.Decision
}

// choose finds the node for a statement and makes its server ready: connected,
// with the session's settings, in the client's transaction. home is the node
// where a read is to stay if nothing speaks against it, as id+1; 0, nowhere. A
// statement that needs a primary waits for one during a failover.
func (s *Session) choose(v *parser.Verdict, text []byte, extended bool, home int) (choice, error) {
	ch, err := s.chooseNow(v, text, extended, home)
	if err != nil {
		return s.chooseLater(err, v, text, extended, home)
	}
	return ch, nil
}

// chooseLater tries again as long as that may help.
func (s *Session) chooseLater(err error, v *parser.Verdict, text []byte, extended bool, home int) (ch choice, _ error) {
	err = s.holdOn(err, func() (err error) {
		ch, err = s.chooseNow(v, text, extended, home)
		return err
	})
	return ch, err
}

// chooseNow is choose as things are now.
func (s *Session) chooseNow(v *parser.Verdict, text []byte, extended bool, home int) (choice, error) {
	if err := s.follow(); err != nil {
		return choice{}, err
	}
	if v.Database != "" {
		s.Pool.Leave(v.Database, s.task.Now())
	}
	in := s.input(v, text, extended, home)
	d, err := s.decide(&in)
	if err != nil {
		return choice{}, err
	}
	if s.pipe.pinned && d.Node != s.main && d.Reason != route.ReasonPortal {
		d.Node, d.Balanced = s.main, false
	}
	if d.Node != s.main && s.tx.poisoned {
		d.Node, d.Balanced = s.main, false
	}
	if s.tx.reader != nil && d.Balanced && d.Node != s.main {
		d.Node = s.tx.reader.Node // a block has one standby, even if another was drawn before its first read
	}
	if d.Balanced {
		s.drawn(d)
	}
	c, err := s.ready(d.Node)
	if err == nil {
		if s.sharing.on && len(v.Functions) > 0 {
			err = s.sequences(c, v)
		}
		return choice{c, d}, err
	}
	if d.Node == s.main || !blames(err, d.Node) {
		return choice{}, err
	}
	// A reader that cannot be had is no reason to fail: the main node can read.
	if errors.Is(err, errNoTurn) {
		d.Node, d.Balanced = s.main, false
		c, err = s.ready(s.main)
		return choice{c, d}, err
	}
	s.suspect(err)
	s.log.LogAttrs(ctx, eventlog.Warning, fmt.Sprintf("node %d cannot take a read, node %d does", d.Node, s.main), slog.Any("err", err))
	if old := s.conns[d.Node]; old != nil {
		old.Taint()
		s.drop(old)
	}
	if err := s.torn(); err != nil {
		return choice{}, err
	}
	s.router.ReadNode = -1
	d.Node, d.Balanced = s.main, false
	c, err = s.ready(s.main)
	return choice{c, d}, err
}

// input is all that the decision on a statement considers.
func (s *Session) input(v *parser.Verdict, text []byte, extended bool, home int) route.Input {
	in := route.Input{
		Verdict: v, Text: text, Facts: s.facts(v), Session: s.router, Cluster: s.snap, Rules: s.cfg.Rules,
		Extended: extended, Random: s.rnd(), Home: home, Prepared: s.prepared(v), Process: s.process(v),
		Portal: s.portalOf(v),
	}
	if v.Reads && in.Rules.OnWrite == conf.DlbowDmlAdaptiveGlobal {
		in.Recent, in.ColdStart = s.recent(v, in.Facts)
	}
	return in
}

// decide routes a statement, and finds out first what only the main server knows
// of the session, where that matters.
func (s *Session) decide(in *route.Input) (route.Decision, error) {
	if s.askTemp && route.NeedsTemp(in.Verdict, in.Rules) {
		if err := s.ownTemp(); err != nil {
			return route.Decision{}, err
		}
	}
	d := route.Route(in)
	if d.Balanced && d.Node != s.main && s.learnDefaults() {
		d = route.Route(in)
	}
	if d.Reason == route.ReasonNoPrimary && !s.tx.open && s.expectsPrimary() {
		d.Node = route.NoNode // for now
	}
	if d.Node == route.NoNode {
		s.slot.routes.Note(d)
		return d, s.nobody(d)
	}
	if d.Node != s.main && s.askTemp && route.NeedsTemp(in.Verdict, in.Rules) {
		// It could not be asked now: perhaps one of the names is a temporary table.
		d.Node, d.Reason, d.Balanced = s.main, route.ReasonTemporary, false
	}
	return d, nil
}

// blames tells whether an error is a node's own trouble, so that another may
// step in for it.
func blames(err error, node int) bool {
	var said *ended
	var bad *backend.Error
	var no *backend.Refusal
	var login *auth.Error
	switch {
	case errors.As(err, &said):
		return false
	case errors.As(err, &bad):
		return bad.Node == node
	case errors.As(err, &no):
		return no.Node == node
	}
	return errors.As(err, &login)
}

// torn is the answer to a read of a block whose snapshot was lost with a standby.
func (s *Session) torn() error {
	if s.tx.lost && s.router.Isolation() == parser.RepeatableRead {
		return errSnapshotLost
	}
	return nil
}

var errSnapshotLost = &wire.Error{Severity: "ERROR", Code: "40001", Message: "the standby with this transaction's snapshot was lost",
	Hint: "Roll back and try the transaction again."}

// seeNodes takes over how the cluster is now.
func (s *Session) seeNodes() {
	s.snap = s.Cluster.Now()
	for len(s.conns) < len(s.snap.Nodes) { // at first none; a reload may add some
		s.conns = append(s.conns, nil)
	}
}

// follow makes the session follow the cluster, but never in the middle of a
// transaction or a pipeline: those end where they began.
func (s *Session) follow() error {
	if s.tx.open || s.pipe.open() {
		return nil
	}
	s.seeNodes()
	main := s.snap.Primary
	if main < 0 && !s.expectsPrimary() && !s.snap.Appoints() {
		main = s.snap.Main
	}
	if main < 0 || main == s.main {
		return nil
	}
	if s.holds() != "" {
		return &wire.Error{Severity: "FATAL", Code: "57P01",
			Message: fmt.Sprintf("the primary has moved from node %d to node %d", s.main, main),
			Detail:  "This session owned what exists on the old primary only: " + s.holds() + ".",
			Hint:    "Connect again."}
	}
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("session follows the primary from node %d to node %d", s.main, main))
	s.main = main
	s.listServers()
	return nil
}

// ready returns the node's server in the state in which the client's next
// statement shall find it.
func (s *Session) ready(node int) (*server, error) {
	c := s.conns[node]
	if c != nil && c.Tainted() && (c != s.due.server || s.due.empty()) {
		// A question of our own was not answered in time: what comes next from there
		// would be taken for the answer to the client's statement.
		if s.tx.open && (node == s.main || c == s.tx.reader) || slices.Contains(s.pipe.touched, c) {
			return nil, &backend.Error{Node: node, Err: errors.New("a question to it has not been answered")}
		}
		s.drop(c)
		c = nil
	}
	if c != nil && node == s.main && c != s.due.server && c.Stirred() {
		// Perhaps its end: had the client waited a moment it would know by now.
		if err := s.unasked(c); err != nil {
			return nil, err
		}
	}
	if c != nil && c.HungUp() && !(s.tx.open && (node == s.main || c == s.tx.reader)) && c != s.due.server {
		c.Taint()
		s.drop(c)
		c = nil
	}
	if c == nil {
		if node == s.main && s.holds() != "" {
			return nil, &wire.Error{Severity: "FATAL", Code: "57P01",
				Message: "the connection to the primary was lost",
				Detail:  "This session owned what existed on it only: " + s.holds() + ".",
				Hint:    "Connect again."}
		}
		if err := s.reach(node); err != nil {
			return nil, err
		}
		c = s.conns[node]
	}
	if node != s.main {
		return c, s.bringUp(c)
	}
	if !s.settings.current(c) && !s.tx.open {
		for _, sql := range s.settings.due(c, false) {
			if err := s.exchange(c, sql); err != nil {
				return nil, err
			}
		}
		c.applied = s.settings.seq
	}
	return c, s.poison(c)
}

// reach opens a node's server, an idle one if there is.
func (s *Session) reach(node int) error {
	if s.sharing.on {
		return s.borrow(node)
	}
	if s.poolable() {
		if c := s.Pool.Get(s.poolKey(node), s.task); c != nil {
			s.take(c)
			return nil
		}
	}
	return s.connect(node)
}

// poison fails the main node's block after a read of it has failed on a standby:
// the client has seen the failure, and nothing of the block may be committed.
func (s *Session) poison(main *server) error {
	if !s.tx.poisoned {
		return nil
	}
	err := s.exchange(main, `ROLLBACK TO SAVEPOINT "a read of this transaction has failed on a standby"`)
	var no *backend.Refusal
	if !errors.As(err, &no) {
		return errors.Join(err, &backend.Error{Node: main.Node, Err: errors.New("could not fail the transaction block")})
	}
	s.tx.poisoned = false
	return nil
}

// poisonIfOpen notes that the client has been shown an error of our own, which
// fails its block like any other.
func (s *Session) poisonIfOpen() {
	if main := s.conns[s.main]; s.tx.open && main != nil && main.Status == 'T' {
		s.tx.poisoned = true
	}
}

// errPassedOver: the pipeline has failed meanwhile, so that what was under way is
// not to be done.
var errPassedOver = errors.New("passed over after an error")

// exchange runs a statement of our own on a server and drops its answer. An
// error of the server's is a *backend.Refusal.
func (s *Session) exchange(c *server, sql string) error {
	if !s.due.empty() {
		if err := s.cut(); err != nil {
			return err
		}
	}
	if s.pipe.skipping {
		return errPassedOver
	}
	if s.marks.loud {
		s.record(c, "", []byte(sql))
	}
	delete(c.stmts, "") // a Query ends it on the server
	if err := c.SendRaw(wire.Query, append([]byte(sql), 0)); err != nil {
		return err
	}
	return s.converse(c)
}

// converse sends what is composed of our own and drops the answers up to
// ReadyForQuery, but for an error.
func (s *Session) converse(c *server) error { return s.converseTo(c, wire.ReadyForQuery) }

// converseTo does so up to another message, which a Flush behind what is composed
// brings about. An error comes in its place, and then the server waits for Sync.
// Whatever else goes wrong leaves an answer under way that nobody waits for: the
// connection must not go to anybody then.
func (s *Session) converseTo(c *server, last byte) error {
	if err := c.Flush(); err != nil {
		c.Taint()
		return err
	}
	var refused error
	for {
		typ, body, err := s.frame(c)
		if err != nil {
			c.Taint()
			return err
		}
		size := 5 + len(body)
		switch typ {
		case wire.ErrorResponse:
			refused = s.refusal(c, body)
			if last != wire.ReadyForQuery {
				c.Skip(size)
				return refused
			}
		case wire.ParameterStatus:
			c.NoteParam(body)
			s.overheard(c.Conn, typ, body)
		case wire.Notification:
			s.overheard(c.Conn, typ, body)
		case wire.ReadyForQuery:
			c.Status = body[0]
			c.Skip(size)
			return refused
		case wire.CopyInResponse, wire.CopyBothResponse:
			return s.outOfPlace(c, typ)
		}
		c.Skip(size)
		if typ == last {
			return nil
		}
	}
}

// refusal is an error with which a server answers a statement of our own. After
// a FATAL one there is no server any more.
func (s *Session) refusal(c *server, body []byte) error {
	word := wire.ParseError(body)
	if word.Severity == "FATAL" || word.Severity == "PANIC" {
		c.Taint()
		return &backend.Error{Node: c.Node, Err: errors.New(word.Message)}
	}
	return &backend.Refusal{Node: c.Node, Said: word}
}

// mainServer is the main node's server, ready.
func (s *Session) mainServer() (*server, error) {
	if err := s.follow(); err != nil {
		return nil, err
	}
	c, err := s.ready(s.main)
	if err != nil {
		err = s.holdOn(err, func() error {
			if err := s.follow(); err != nil {
				return err
			}
			_, err := s.ready(s.main)
			return err
		})
		c = s.conns[s.main]
	}
	return c, err
}

// nobody is the answer when no node can take a statement.
func (s *Session) nobody(d route.Decision) error {
	if d.Reason == route.ReasonSnapshotLost {
		return errSnapshotLost
	}
	word := &wire.Error{Severity: "ERROR", Code: "57P03", Message: "no node can take this statement", Detail: s.snap.Why()}
	if s.snap.Primary >= 0 {
		return word
	}
	if d.Reason == route.ReasonNoPrimary {
		word.Message = "there is no primary that could take this statement"
	}
	return &failed{cause: errLeaderless, word: word}
}

// ownWord finds the words for an error that fails a statement but not the
// session; any other error is returned.
func (s *Session) ownWord(err error) (*wire.Error, error) {
	var word *wire.Error
	var no *backend.Refusal
	var bad *backend.Error
	var said *ended
	switch {
	case errors.As(err, &said):
		return nil, err
	case errors.As(err, &no):
		w := *no.Said
		w.Severity = "ERROR"
		return &w, nil
	case errors.As(err, &word) && word.Severity == "ERROR":
		return word, nil
	case errors.As(err, &word), errors.As(err, &bad):
		return nil, err
	}
	return nil, err
}

// refuse answers a Query with an error of our own.
func (s *Session) refuse(err error) error {
	word, err := s.ownWord(err)
	if err != nil {
		return err
	}
	if s.pipe.open() { // left with what is refused, which fails it
		if err := s.failPipeline(); err != nil {
			return err
		}
		if err := s.endLeft(true); err != nil {
			return err
		}
		s.pipe.reset()
	} else {
		s.poisonIfOpen()
	}
	if err := s.client.Send(word.Response()); err != nil {
		return err
	}
	return s.client.Send(s.readyForQuery())
}

// draw gives the session the node of its reads before there is one to route, as
// the original does at the start of every session.
func (s *Session) draw() {
	d := route.Route(&route.Input{
		Verdict: anyRead, Session: s.router, Cluster: s.snap, Rules: s.cfg.Rules, Random: s.rnd(),
	})
	if d.Balanced {
		s.drawn(d)
		s.router.ReadNode = d.ReadNode
	}
}

// anyRead stands for a read of nothing in particular.
var anyRead = &parser.Verdict{Class: parser.Select, Reads: true}

// drawn tells of a choice of the node for reads: per statement of each, else of
// a new one.
func (s *Session) drawn(d route.Decision) {
	changed := d.ReadNode != s.router.ReadNode
	if changed {
		s.slot.reader.Store(int32(d.ReadNode))
	}
	if d.ReadNode >= 0 && s.marks.loud && (changed || s.cfg.Rules.StatementLevel) && s.log.Enabled(ctx, eventlog.Debug1) {
		s.log.LogAttrs(ctx, eventlog.Debug1, "selecting load balance node", slog.String("detail", fmt.Sprintf("selected backend id is %d", d.ReadNode)))
	}
}

func (s *Session) logLookup(err error) {
	if errors.Is(err, errAlone) {
		return
	}
	s.log.LogAttrs(ctx, eventlog.Warning, "could not look up the names of a statement", slog.Any("err", err))
}
