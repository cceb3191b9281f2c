package session

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/conf"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// ctx is for logs: no value of it matters here.
var ctx = context.Background()

var errAuthTimeout = wire.Fatal("57014", "canceling authentication due to timeout")

// admit takes the client from its first byte to ReadyForQuery.
func (s *Session) admit() error {
	stop := s.task.Limit(s.cfg.AuthenticationTimeout, errAuthTimeout)
	known := s.strangers.enter(s.task)
	startup, err := s.hello()
	known()
	if err == nil {
		err = s.open(startup)
	}
	stop() // the queue for a slot has no time limit, as in the original
	if err != nil {
		return err
	}
	slot, err := s.Slots.Acquire(s.task, s.client, s.cfg.ReservedConnections)
	if err != nil {
		return err
	}
	s.slot = slot
	s.setConfig(s.Config())
	s.since = s.task.Now()
	s.slot.enter(Occupant{Database: s.database, User: s.user, App: s.app, Host: s.host, Port: s.port, Since: s.since}, s)
	s.setStatus(Connecting)
	own := func() *conf.Config { return s.cfg.Config }
	if s.cfg.LogConnections {
		detail := "connecting host=" + s.clientName()
		if s.port != "" {
			detail += " port=" + s.port
		}
		s.Journal.Session(slot.ID, nil, own).LogAttrs(ctx, eventlog.Log, "new connection received", slog.String("detail", detail))
	}
	s.log = s.Journal.Session(slot.ID, &eventlog.Client{App: s.app, User: s.user, Database: s.database}, own)
	s.log.LogAttrs(ctx, eventlog.Debug5, "connection_count_up: a client has taken a slot")

	stop = s.task.Limit(s.cfg.AuthenticationTimeout, errAuthTimeout)
	err = s.authenticate()
	stop()
	if err != nil {
		return err
	}
	return s.welcome()
}

// open reads the startup packet's wishes.
func (s *Session) open(st *wire.Startup) error {
	var unknown []string
	for _, p := range st.Params {
		switch {
		case p.Name == "user":
			s.user = p.Value
		case p.Name == "database":
			s.database = p.Value
		case p.Name == "replication":
			if v := strings.ToLower(p.Value); !slices.Contains([]string{"", "false", "off", "no", "0"}, v) {
				s.replication = p.Value
			}
		case strings.HasPrefix(p.Name, "_pq_."):
			unknown = append(unknown, p.Name)
		default:
			if p.Name == "application_name" {
				s.app = p.Value
			}
			s.login.Params = append(s.login.Params, wire.Param(p))
		}
	}

	if s.user == "" {
		return wire.Fatal("28000", "no PostgreSQL user name specified in startup packet")
	}
	if s.database == "" {
		s.database = s.user
	}
	s.chooseMode()
	if st.Minor >= longKeys {
		s.minor = longKeys
	}
	if st.Minor != s.minor || len(unknown) > 0 {
		// The field is named for the minor version, but servers send, and libpq reads,
		// the whole.
		if err := s.client.Send(&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: uint32(3<<16 | s.minor), UnrecognizedOptions: unknown}); err != nil {
			return err
		}
	}
	s.login.User, s.login.Database = s.user, s.database
	s.settingsKey = settingsKey(s.login.Params)
	return nil
}

// settingsKey is the same for settings that differ in their order only.
func settingsKey(params []wire.Param) string {
	if byName := func(a, b wire.Param) int { return strings.Compare(a.Name, b.Name) }; !slices.IsSortedFunc(params, byName) {
		params = slices.Clone(params)
		slices.SortStableFunc(params, byName)
	}
	return canonical(params)
}

// longKeys is the minor version of the protocol, the newest we speak, from which on
// the secret of a cancel key may be longer than 4 bytes. There is no version 3.1.
const longKeys = 2

// keySize is the length of the secrets we give, in bytes.
func keySize(minor int) int {
	if minor >= longKeys {
		return 32
	}
	return 4
}

// SendAuth implements auth.Frontend.
func (s *Session) SendAuth(body []byte) error {
	if err := s.client.SendRaw(wire.Authentication, body); err != nil {
		return err
	}
	return s.client.Flush()
}

// maxProof bounds what a client may send as proof of its identity.
const maxProof = 65536

// ReceivePassword implements auth.Frontend.
func (s *Session) ReceivePassword() ([]byte, error) {
	typ, body, err := s.proof()
	if err != nil {
		return nil, err
	}
	if typ != wire.Password {
		return nil, wire.Fatal("08P01", fmt.Sprintf("expected password response, got message type %d", typ))
	}
	return body, nil
}

// logRefusal tells the operator what the client need not know: which rule it met,
// and in what form its password is known. Never the secret.
func (s *Session) logRefusal(rule *conf.Rule, client auth.Client, err error) {
	if _, ours := errors.AsType[*auth.Error](err); !ours {
		return // the client has gone
	}
	source := "pool_passwd"
	if client.Conceal {
		source = "auth_query"
	}
	tls := "without TLS"
	if s.tls {
		tls = "with TLS"
	}
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("user was refused by line %d of pool_hba.conf", rule.Line),
		slog.String("detail", fmt.Sprintf("method %s, client %s %s, password in %s: %s", rule.Method, s.host, tls, source, client.Stored.Form())))
}

// proof reads the client's next message. It need not come at once, unless others
// wait for the slot that this client holds without having shown who it is.
func (s *Session) proof() (typ byte, body []byte, err error) {
	for {
		stop := s.task.Limit(proofPatience, errSlowProof)
		typ, body, err = s.client.Next(maxProof)
		stop()
		if !errors.Is(err, errSlowProof) || s.Slots.Waiting() > 0 {
			return typ, body, err
		}
	}
}

// proofPatience is long for a program. People are asked for passwords before their
// programs connect.
const proofPatience = 5 * time.Second

var errSlowProof = wire.Fatal("57014", "canceling authentication because other clients wait")

// authenticate has the client prove who it is and opens its first server
// connection.
func (s *Session) authenticate() error {
	client := auth.Client{
		User: s.user, Database: s.database, Host: s.host,
		SSL: s.tls, CertName: s.certName,
		Stored: s.cfg.stored(s.user), ClearText: s.cfg.AllowClearTextFrontendAuth,
		Alone: s.cfg.Alone,
	}
	if s.cfg.EnablePoolHba {
		rule, err := s.rule()
		if err != nil {
			return err
		}
		if rule == nil {
			return auth.NoHBAEntry(client)
		}
		s.hbaMethod = string(rule.Method)
		client.CertWanted = rule.Option("clientcert")
		if rule.Method == conf.MethodMD5 || rule.Method == conf.MethodScram {
			if err := s.lookUp(&client); err != nil {
				return err
			}
		}
		if s.cred, err = auth.Challenge(s, s.user, auth.Admit(s.hbaMethod, client)); err != nil {
			s.logRefusal(rule, client, err)
			return err
		}
		if err := s.vouched(rule, client); err != nil {
			return err
		}
	}
	proven := false
	plan := func(m auth.Method) (auth.Plan, error) {
		if s.hbaMethod != "" {
			return auth.Present(m, s.hbaMethod, client, s.cred), nil
		}
		if m.Kind == auth.KindMD5 || m.Kind == auth.KindSCRAM {
			if err := s.lookUp(&client); err != nil {
				return auth.Plan{}, err
			}
		}
		return auth.Relay(m, client), nil
	}
	enter := func() error { return s.enter(plan, &proven) }
	err := enter()
	if err != nil {
		err, _ = s.persist(err, "a login", enter)
	}
	return err
}

// enter opens the session's first server connection. What the client is asked for
// follows plan; it is asked but once, and proven notes that it has been.
func (s *Session) enter(plan func(auth.Method) (auth.Plan, error), proven *bool) error {
	s.seeNodes()
	node, err := s.firstNode()
	if err != nil {
		return err
	}
	s.main = node
	if *proven { // to a server that was lost then
		return s.reach(node)
	}
	if s.sharing.on {
		return s.enterShared(node, plan, proven)
	}
	// An idle connection of the same user tells what its server had asked, so
	// that the client can be asked the same without one being opened.
	if m, ok := s.Pool.Method(node, s.database, s.user); ok && s.poolable() {
		p, err := plan(m)
		if err != nil {
			return err
		}
		if !p.Pass {
			*proven = true
			if s.cred, err = auth.Challenge(s, s.user, p); err != nil {
				return err
			}
			return s.reach(node)
		}
	}
	c, err := s.startServer(node)
	if err != nil {
		return err
	}
	p, err := plan(c.Method)
	switch {
	case err != nil:
	case p.Pass:
		s.cred = auth.Passed()
		err = s.refusedBy(c.Pass(s))
		if lost, ok := errors.AsType[*failed](err); ok {
			err = lost.word // for good: the client cannot prove itself to another server
		}
	default:
		*proven = true
		s.cred, err = auth.Challenge(s, s.user, p)
	}
	if err != nil {
		c.Close()
		return err
	}
	if !p.Pass {
		if c, err = s.finishServer(c); err != nil {
			return err
		}
	}
	s.take(c)
	return nil
}

// rule is the line of pool_hba.conf for this client; nil, none.
func (s *Session) rule() (*conf.Rule, error) {
	if s.cfg.Hba == nil {
		return nil, auth.BadHBAFile()
	}
	q := conf.Conn{Type: conf.TypeLocal, Database: s.database, User: s.user}
	if s.port != "" {
		addr, err := netip.ParseAddr(s.host)
		if err != nil {
			return nil, fmt.Errorf("client address %q: %w", s.host, err)
		}
		q.Type, q.Addr, q.SSL = conf.TypeHost, addr.Unmap(), s.tls
	}
	var rule *conf.Rule
	s.task.Block(func() { rule = s.cfg.Hba.Match(q) }) // host names are looked up
	return rule, nil
}

// firstNode is where a session begins: the primary, or while there is none the
// first node that answers, which can at least be read.
func (s *Session) firstNode() (int, error) {
	if p := s.snap.Primary; p >= 0 && s.snap.Nodes[p].Usable() {
		return p, nil
	}
	for i := range s.snap.Nodes {
		if s.snap.Nodes[i].Usable() && s.replication == "" && s.snap.Mode != conf.Raw {
			return i, nil
		}
	}
	var why []string
	for i := range s.snap.Nodes {
		n := &s.snap.Nodes[i]
		if n.Host != "" {
			why = append(why, fmt.Sprintf("node %d (%s:%d): %s", i, n.Host, n.Port, n.Reason))
		}
	}
	return -1, &failed{cause: errLeaderless, word: &wire.Error{Severity: "FATAL", Code: "57P03",
		Message: "all backend nodes are down, pgpool requires at least one valid node",
		Detail:  strings.Join(why, "; "),
		Hint:    "repair the backend nodes and restart pgpool"}}
}

// poolable tells whether the session's server connections may be another's before or
// afterwards. One on which the server has judged the client is of no use to others:
// nobody here could tell whether they know the password.
func (s *Session) poolable() bool {
	return s.cfg.ConnectionCache && s.replication == "" && s.cred.Form() != auth.FormPassed
}

func (s *Session) poolKey(node int) backend.Key {
	return backend.Key{Node: node, Database: s.database, User: s.user, Settings: s.settingsKey, Proof: s.cred.Digest()}
}

var errLoginTimeout = errors.New("the server did not let us in within connect_timeout")

// startServer dials a node and hears what proof its server asks.
func (s *Session) startServer(node int) (*backend.Conn, error) {
	c, err := s.hail(node)
	if s.makePlace(node, err) {
		return s.hail(node)
	}
	return c, err
}

// makePlace answers a server that has no place for us by giving up what we have
// there unused. It reports whether asking again may help.
func (s *Session) makePlace(node int, err error) bool {
	var no *backend.Refusal
	if !errors.As(err, &no) || no.Said.Code != "53300" {
		return false
	}
	stop := s.task.Limit(resetLimit, errResetSlow)
	n, err := s.Pool.GiveUp(node, s.task)
	stop()
	if n > 0 {
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("node %d is full, %d idle connections to it were given up", node, n), slog.String("detail", no.Said.Message))
	}
	return n > 0 && err == nil
}

func (s *Session) hail(node int) (*backend.Conn, error) {
	if !s.cfg.knows(node) {
		return nil, s.unreachable(&backend.Error{Node: node, Err: errors.New("not configured")})
	}
	target := s.cfg.Target(node)
	c, err := s.greet(target)
	if again, ok := target.Insist(err); ok {
		return s.greet(again)
	}
	return c, err
}

// greet opens a server connection up to the server's question for proof.
func (s *Session) greet(target backend.Target) (*backend.Conn, error) {
	var c *backend.Conn
	var err error
	s.task.Block(func() { c, err = backend.Dial(s.Dialing, s.Engine, target) })
	if err != nil && s.Dialing.Err() != nil {
		return nil, wire.Fatal("57P01", "terminating connection due to administrator command") // we are shutting down
	}
	if err != nil {
		s.suspect(err)
		return nil, s.unreachable(err)
	}
	c.Attach(s.task)
	login := s.login
	if s.replication != "" {
		login.Params = append(slices.Clone(login.Params), wire.Param{Name: "replication", Value: s.replication})
	}
	stop := s.task.Limit(target.Timeout, &backend.Error{Node: target.Node, Err: errLoginTimeout})
	_, err = c.Start(login)
	stop()
	if err != nil {
		c.Close()
		return nil, s.refusedBy(err)
	}
	return c, nil
}

// finishServer proves to a server who the session is. It closes a connection
// that fails, and returns another if a full server has a place after all.
func (s *Session) finishServer(c *backend.Conn) (*backend.Conn, error) {
	err := s.prove(c)
	if err == nil {
		return c, nil
	}
	c.Close()
	if !s.makePlace(c.Node, err) {
		return nil, err
	}
	if c, err = s.hail(c.Node); err != nil {
		return nil, err
	}
	if err = s.prove(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (s *Session) prove(c *backend.Conn) error {
	stop := s.task.Limit(s.cfg.HealthCheck(c.Node).ConnectTimeout, &backend.Error{Node: c.Node, Err: errLoginTimeout})
	err := c.Finish(s.user, s.cred)
	stop()
	return s.refusedBy(err)
}

// connect opens a node's server connection with what the client has proven.
func (s *Session) connect(node int) error {
	c, err := s.startServer(node)
	if err != nil {
		return err
	}
	if c, err = s.finishServer(c); err != nil {
		return err
	}
	s.take(c)
	return nil
}

// unreachable is what the client reads when its first server cannot be reached,
// in the original's words.
func (s *Session) unreachable(err error) error {
	s.log.LogAttrs(ctx, eventlog.Log, "failed to create a backend connection", slog.Any("err", err))
	return &failed{cause: err, word: &wire.Error{Severity: "FATAL", Code: "08006",
		Message: "failed to create a backend connection", Detail: "executing failover on backend"}}
}

// failed carries both what to tell the client and what had happened.
type failed struct {
	cause error
	word  *wire.Error
}

func (f *failed) Error() string   { return f.word.Error() + ": " + f.cause.Error() }
func (f *failed) Unwrap() []error { return []error{f.word, f.cause} }

// refusedBy passes on a server's own refusal word for word.
func (s *Session) refusedBy(err error) error {
	var no *backend.Refusal
	var bad *backend.Error
	var word *auth.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &word): // auth has found the words
		return err
	case errors.As(err, &no):
		return &failed{cause: err, word: &wire.Error{Severity: "FATAL", Code: no.Said.Code, Message: no.Said.Message, Detail: no.Said.Detail, Hint: no.Said.Hint}}
	case errors.As(err, &bad):
		s.suspect(err)
		return s.unreachable(err)
	}
	return err // somebody ended the session meanwhile
}

// server is a server connection while a session has it.
type server struct {
	*backend.Conn
	applied uint64                // how far the session's lasting settings have been repeated on it
	stmts   map[string]*statement // what is prepared there, by name
	closing []*statement          // of these, what the client has closed
	part    part                  // of a standby: its part in the session's state
	shared  *shared               // nil: the session has it for itself
	hear    func(typ byte, body []byte)
	errands int // statements of our own whose answers are still to come
	last    lastStatement
	since   atomic.Int32 // sessions that a shared one has served before this one
	noted   *statement   // whose text last has, if it is a named one
}

// take makes a server connection this session's own.
func (s *Session) take(c *backend.Conn) {
	s.conns[c.Node] = &server{Conn: c, stmts: make(map[string]*statement)}
	c.Overheard = func(typ byte, body []byte) { s.overheard(c, typ, body) }
	if c.Node == s.main && c.Defaults != nil && s.router != nil {
		s.router.Default("default_transaction_isolation", c.Defaults.Isolation)
	}
	s.arrived(s.snap, c.Node)
	s.listServers()
}

// arrived takes nodes that waited for their first client to "up". The original
// connects each client to all nodes before it answers, except in raw mode, so
// its users hardly ever see "waiting" from a session of their own: we wait for it.
func (s *Session) arrived(snap *cluster.Snapshot, node int) {
	waits := snap.Nodes[node].Status == cluster.Waiting
	for i := range snap.Nodes {
		n := &snap.Nodes[i]
		waits = waits || snap.Mode != conf.Raw && n.Status == cluster.Waiting && n.Reach == cluster.Reachable
	}
	if waits {
		limit, stop := context.WithTimeout(ctx, arrivalLimit)
		s.Cluster.Do(limit, cluster.Connected{Node: node})
		stop()
	}
}

// arrivalLimit is for a cluster that has stopped to listen.
const arrivalLimit = time.Second

// drop parts with a server connection that is not to be used again.
func (s *Session) drop(c *server) {
	s.conns[c.Node] = nil
	if s.cur == c {
		s.cur = nil
	}
	if s.tx.reader == c {
		s.tx.reader, s.tx.lost = nil, true
	}
	s.portals.lost(c)
	s.pipe.touched = slices.DeleteFunc(s.pipe.touched, func(t *server) bool { return t == c })
	if c.shared != nil {
		s.slot.regain(c)
		c.shared.holder = nil
	}
	if s.rep != nil {
		delete(s.rep.joined, c)
		delete(s.rep.known, c)
		delete(s.rep.numbers.of, c)
	}
	c.Bye()
	s.listServers()
}

// listServers tells the slot of the servers now in use.
func (s *Session) listServers() {
	var list []Server
	for _, c := range s.conns {
		if c != nil && c.shared == nil {
			list = append(list, Server{Node: c.Node, PID: c.PID, Born: c.Born(), Uses: c.Uses(), Main: c.Node == s.main, last: &c.last, conn: c.Conn})
		}
	}
	s.slot.setServers(list)
}

var authenticated [4]byte // the body of AuthenticationOk

// welcome completes the login towards the client.
func (s *Session) welcome() error {
	c := s.conns[s.main]
	if err := s.client.SendRaw(wire.Authentication, authenticated[:]); err != nil { // in one burst with what follows
		return err
	}
	if _, err := s.client.Write(c.Report()); err != nil {
		return err
	}
	// The server's own pid, since clients compare it with pg_backend_pid(), but
	// a secret of ours: the connection will serve others after this session.
	key := binary.BigEndian.AppendUint32(make([]byte, 0, 4+keySize(longKeys)), c.PID)
	key = key[:4+keySize(s.minor)]
	rand.Read(key[4:])
	s.remember(cancelKey{c.PID, string(key[4:])})
	if err := s.client.SendRaw(wire.BackendKeyData, key); err != nil {
		return err
	}
	key[0] = c.Status
	if err := s.client.SendRaw(wire.ReadyForQuery, key[:1]); err != nil {
		return err
	}
	s.router = route.NewSession(s.database, s.user, s.app, defaults(s.login.Params))
	if c.Defaults != nil {
		s.router.Default("default_transaction_isolation", c.Defaults.Isolation)
	}
	s.noteTold(c)
	s.router.Preference = s.cfg.Rules.Preference(s.database, s.user, s.app)
	s.slot.reader.Store(int32(s.reader()))
	s.stmts = make(map[string]*statement)
	if s.replication != "" {
		return s.tunnel(c)
	}
	s.startReplicas()
	return nil
}

// defaults are the settings of a startup packet by name, those in options
// included.
func defaults(params []wire.Param) map[string]string {
	out := make(map[string]string)
	for _, p := range params {
		if p.Name != "options" {
			out[strings.ToLower(p.Name)] = p.Value
			continue
		}
		words := strings.Fields(p.Value)
		for i, w := range words {
			set, ok := strings.CutPrefix(w, "--")
			if !ok {
				if set, ok = strings.CutPrefix(w, "-c"); ok && set == "" && i+1 < len(words) {
					set = words[i+1]
				}
			}
			if name, value, eq := strings.Cut(set, "="); ok && eq {
				out[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = value
			}
		}
	}
	return out
}
