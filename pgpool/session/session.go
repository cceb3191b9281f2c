package session

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/catalog"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// Session is one client. All of it belongs to the goroutine of Serve, except
// what other files mark as safe for others.
type Session struct {
	// First what every statement touches, in few cache lines: after another
	// session's turn each of them is a miss.
	*Shared
	task     *wire.Task
	client   *wire.Conn
	slot     *Slot
	cfg      *Current // as of the last settle, with what PGPOOL SET has changed
	base     *Current // what cfg was made from
	snap     *cluster.Snapshot
	router   *route.Session
	main     int            // the node for everything that may not be elsewhere
	cur      *server        // who owes or last owed replies
	conns    []*server      // by node; nil where none is open
	watch    []*wire.Conn   // client and all of conns, for the idle wait
	watching [4]*wire.Conn  // behind watch while it is short
	rnd      func() float64 // for draws
	rep      *replicas      // where all nodes run every write; nil in other modes

	due       expectations
	asked     asked
	flight    cancels // cancel requests under way
	askTemp   bool    // the main server may have temporary tables that route does not know of
	heard     bool    // the client has been sent a byte of the answer under way
	mayRepeat bool    // and if not, its statement may be run again elsewhere, see again.go
	behind    bool    // some standby has yet to be told that a block is over
	mended    bool    // an error was dealt with, and its frame consumed; see mend.go
	batch     batch
	tx        transaction
	pipe      pipeline
	unnamed   *statement
	spare     *statement // to be filled by the next unnamed one
	stmts     map[string]*statement
	portals   portals
	marks     marks
	path      *catalog.Path // of pathText, see lookup.go
	pathOf    pathOf
	settings  settings
	sharing   sharing
	caching   caching

	placed   choice // what was chosen for pipe.parsed
	pathText string
	sqlStmts map[string]*sqlStatement // prepared by SQL, on the main server only
	changed  *statement               // found to be described otherwise by the server asked last
	params   []byte                   // of the description that is being read

	over                func() // to be called at the end
	log                 *slog.Logger
	user, database, app string
	host, port          string // of the client, as logs and pool_hba see it
	tls                 bool   // the client speaks TLS,
	certName            string // has shown a good certificate of this common name,
	binding             []byte // and this is what ties its login to the channel; see auth.Frontend
	login               backend.Login
	settingsKey         string // login's settings in canonical form
	cred                auth.Credential
	hbaMethod           string // of the pool_hba rule that matched; empty without pool_hba
	minor               int    // of the protocol's version
	replication         string // value of the startup parameter; empty for ordinary sessions
	since               time.Time
	cancelKey           cancelKey
}

// Serve holds the whole conversation with a client, closes the connection, and
// calls over when all is over. Between statements the task rests: Serve may have
// returned long before. A panic ends this session alone.
func (sh *Shared) Serve(task *wire.Task, client *wire.Conn, over func()) {
	s := &Session{Shared: sh, task: task, client: client, over: over, main: -1, rnd: rand.Float64, log: sh.Log}
	s.watch = s.watching[:0]
	s.host, s.port = peer(client)
	task.Next(func(*wire.Task) { s.talk(s.goOn) }) // before others know the task, and may wake it
	sh.enter(task)
	client.Mark(func(err error) error { return &ClientGone{err} })
	client.Attach(s.task)
	s.setConfig(sh.Config())
	s.talk(s.run)
}

// talk is a stretch of the conversation, up to a rest or to its end.
func (s *Session) talk(stretch func() error) {
	resting := false
	defer func() {
		if !resting {
			s.depart()
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			for _, c := range s.conns {
				if c != nil {
					c.Taint()
				}
			}
			s.end(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	err := stretch()
	if resting = err == errResting; !resting {
		s.end(err)
	}
}

// depart is the last that is heard of a session.
func (s *Session) depart() {
	defer s.over()
	defer s.Shared.leave(s.task)
	s.leave()
}

// peer tells a client's address in the original's words.
func peer(client *wire.Conn) (host, port string) {
	if a, ok := client.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String(), strconv.Itoa(a.Port)
	}
	return "[local]", ""
}

func (s *Session) run() error {
	if err := s.admit(); err != nil {
		return err
	}
	return s.turns()
}

// goOn is run after a rest.
func (s *Session) goOn() error {
	var err error
	if s.asked.due {
		err = s.turned(s.takeAnswer())
	} else {
		err = s.rest()
	}
	if err != nil {
		return err
	}
	return s.turns()
}

// turns are the client's messages and what becomes of them.
func (s *Session) turns() error {
	for {
		typ, size, err := s.await()
		if err == nil {
			s.setStatus(ExecuteCommand)
			if s.rep != nil {
				err = s.replicateDispatch(typ, size)
			} else {
				s.keep(typ, size)
				err = s.dispatch(typ, size)
			}
		}
		if err := s.turned(err); err != nil {
			return err
		}
	}
}

// turned is what follows a message that has been dealt with.
func (s *Session) turned(err error) error {
	if err == errResting || err != nil && !s.rerun(err) {
		return err
	}
	if s.sharing.on {
		return s.giveUpTurns()
	}
	return nil
}

func (s *Session) dispatch(typ byte, size int) error {
	if typ != wire.Bind {
		s.pipe.parsed = nil
	}
	switch typ {
	case wire.Query:
		return s.simple(size)
	case wire.Parse, wire.Bind:
		if s.Cache != nil && !s.pipe.open() {
			if done, err := s.cachedPipeline(); done {
				return err
			}
		}
		if typ == wire.Parse {
			return s.parse(size)
		}
		return s.bind(size)
	case wire.Describe:
		return s.describe(size)
	case wire.Execute:
		return s.execute(size)
	case wire.Close:
		return s.closeObject(size)
	case wire.Flush:
		return s.flush(size)
	case wire.Sync:
		return s.sync(size)
	case wire.FunctionCall:
		return s.function(size)
	case wire.Terminate:
		s.message("Terminate", "")
		return s.goodbye()
	case wire.CopyData, wire.CopyDone, wire.CopyFail:
		if !s.due.empty() { // perhaps a COPY, whose data the client sends without waiting to be asked
			return s.cut()
		}
		// Left over from a COPY that failed: PostgreSQL passes them over too.
		return s.client.Discard(size)
	}
	return wire.Fatal("08P01", fmt.Sprintf("invalid frontend message type %d", typ))
}

// goodbye ends the session at the client's wish, who may still want to read what
// it has asked for before.
func (s *Session) goodbye() error {
	if err := s.client.Flush(); err != nil {
		return err
	}
	return errGoodbye
}

// smallMessage bounds the messages that only name something, as in PostgreSQL.
const smallMessage = 10000

// await returns the header of the client's next message. While it waits, it
// passes on what servers say unasked.
func (s *Session) await() (typ byte, size int, err error) {
	for {
		typ, size, ok, err := s.client.Peek()
		if err != nil {
			return 0, 0, err
		}
		if ok {
			switch typ {
			case wire.Close, wire.Describe, wire.Execute, wire.Flush, wire.Sync, wire.Terminate, wire.CopyDone, wire.CopyFail:
				if size > smallMessage {
					return 0, 0, wire.Fatal("08P01", "invalid message length")
				}
			}
			return typ, size, nil
		}
		if got, err := s.client.TryFill(); err != nil {
			if errors.Is(err, io.EOF) && s.client.Buffered() == 0 {
				return 0, 0, s.goodbye() // not polite, but common
			}
			return 0, 0, err
		} else if got {
			continue
		}
		if err := s.idle(); err != nil {
			return 0, 0, err
		}
	}
}

// idle waits until the client sends something. It is the only wait that may be
// long with nothing under way, so that it is a rest: see rest.
func (s *Session) idle() error {
	if err := s.relinquish(); err != nil {
		return err
	}
	if s.rep != nil && s.rep.queue.any() { // the client may wait to hear of an error
		if err := s.discharge(false); err != nil {
			return err
		}
	}
	if err := s.client.Post(); err != nil {
		return err
	}
	if s.pipe.open() {
		return s.linger()
	}
	s.keepUp()
	s.refresh()
	s.batch.trim()
	s.client.Release()
	for _, c := range s.conns {
		if c != nil {
			c.Release()
		}
	}
	s.slot.idleSince.Store(s.task.Now().UnixNano())
	if s.tx.open {
		s.setStatus(IdleInTransaction)
	} else {
		s.setStatus(Idle)
	}
	s.watch = append(s.watch[:0], s.client)
	for _, c := range s.conns {
		if c != nil && c.errands == 0 { // answers to errands can wait
			s.watch = append(s.watch, c.Conn.Conn)
		}
	}
	return s.rest()
}

// rest returns when there is news while the session is idle; if there is none, it
// has the session rest until there is.
func (s *Session) rest() error {
	news, err := s.task.Look(s.watch...)
	if err != nil {
		return err
	}
	s.refresh() // a reload that came before the client's next message counts for it
	if !news && !s.leftover() {
		s.client.Await(true)
		s.task.Rest(wire.Request)
		return errResting
	}
	s.client.Await(false)
	s.client.Heed()
	for _, c := range s.conns {
		if c != nil && c.Stirred() {
			if err := s.unasked(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// leftover tells whether a server's words have come behind the end of an answer, in
// one piece with it: no event will tell of them.
func (s *Session) leftover() bool {
	for _, c := range s.conns {
		if c != nil && c.errands == 0 && c.Buffered() > 0 {
			return true
		}
	}
	return false
}

// linger is idle in the middle of a pipeline. A server speaks up there if it has met
// an error, has much to say already, or has come to its end.
func (s *Session) linger() error {
	s.pipe.parsed = nil
	if err := s.hasten(); err != nil {
		return err
	}
	s.watch = append(s.watch[:0], s.client)
	for _, c := range s.pipe.touched {
		s.watch = append(s.watch, c.Conn.Conn)
	}
	if err := s.task.Wait(s.watch...); err != nil {
		return err
	}
	for _, c := range s.pipe.touched {
		if !c.Stirred() {
			continue
		}
		if _, err := c.TryFill(); err != nil {
			return err
		}
		switch {
		case c.Buffered() == 0:
		case c == s.due.server && !s.due.empty():
			return s.cut()
		default:
			return s.unasked(c)
		}
	}
	return nil
}

// glance passes on what the main server has to say while another one has
// answered, before the client is told that its statement is done: notifications,
// or the end of the session. PostgreSQL promises a listener that a statement's
// reply comes after the notifications of what was committed before it: for those,
// the server is asked whether there are any.
func (s *Session) glance(answered *server) error {
	main := s.conns[s.main]
	switch {
	case main == nil || main == answered:
		return nil
	case s.marks.listens && !s.tx.open && !slices.Contains(s.pipe.touched, main):
		if err := main.SendRaw(wire.Sync, nil); err != nil {
			return err
		}
		return s.converse(main)
	case main.Stirred():
		return s.unasked(main)
	}
	return nil
}

// overheard passes on what came among answers to ourselves and is for the client: a
// notification, or a setting whose change is reported when a statement is over,
// which may be that of a reload.
func (s *Session) overheard(c *backend.Conn, typ byte, body []byte) {
	if c.Node == s.main && !(s.sharing.bringing && typ == wire.ParameterStatus) {
		s.client.SendRaw(typ, body)
	}
}

// unasked deals with what a server says while nothing is due from it.
func (s *Session) unasked(c *server) error {
	main := c.Node == s.main
	got, err := c.TryFill()
	if err != nil {
		return s.lost(c, err)
	}
	if !got && c.Buffered() == 0 {
		return nil
	}
	for c.Buffered() > 0 {
		typ, body, err := c.Frame(answerLimit)
		if err != nil {
			return s.lost(c, err)
		}
		if c.errands > 0 {
			if err := s.reply(c, typ, body); err != nil {
				s.strayed(c, err)
				return nil
			}
			continue
		}
		switch typ {
		case wire.NoticeResponse, wire.Notification:
			if main {
				s.client.SendRaw(typ, body)
			}
		case wire.ParameterStatus:
			c.NoteParam(body)
			if main {
				s.client.SendRaw(typ, body)
			}
		case wire.ErrorResponse:
			word := wire.ParseError(body)
			s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("server connection of node %d ended", c.Node), slog.String("detail", word.Message))
			if !main || s.survives(c, word.Code) {
				c.Taint()
				s.drop(c)
				return nil
			}
			s.client.SendRaw(typ, body)
			c.Taint()
			return s.said(&backend.Refusal{Node: c.Node, Said: word})
		default:
			return s.lost(c, &backend.Error{Node: c.Node, Err: fmt.Errorf("message %q out of place", typ)})
		}
		c.Skip(5 + len(body))
	}
	return s.client.Flush()
}

// answerLimit bounds the server messages that are opened: errors, notices,
// descriptions. Rows and copy data are not.
const answerLimit = 256 << 20

// lost deals with a server connection that has failed while nothing was due.
func (s *Session) lost(c *server, err error) error {
	s.suspect(err)
	c.Taint()
	if c.Node == s.main && (s.tx.open || s.askTemp || s.holds() != "") {
		return err
	}
	// Nothing of the session is lost with it: the next statement will find
	// another, perhaps on another node.
	s.drop(c)
	return nil
}

// suspect tells the cluster of a failed path; whether the node is down is not
// for a session to say.
func (s *Session) suspect(err error) {
	var bad *backend.Error
	if errors.As(err, &bad) {
		s.Cluster.Submit(cluster.Suspected{Node: bad.Node, Cause: bad.Err})
	}
}

// ended is an error whose words the client has already been given.
type ended struct{ err error }

func (e *ended) Error() string { return e.err.Error() }
func (e *ended) Unwrap() error { return e.err }

func (s *Session) said(err error) error { return &ended{err} }

// end is the only place where an error becomes words for the client, an event
// and a log line.
func (s *Session) end(err error) {
	if !errors.Is(err, errGoodbye) {
		s.fail(err)
	}
}

func (s *Session) fail(err error) {
	var (
		gone *ClientGone
		word *wire.Error
		bad  *backend.Error
		said *ended
		odd  *wire.FrameError
	)
	switch {
	case errors.As(err, &said):
		s.passOn()
		s.client.SendNow()
	case errors.As(err, &gone):
		if errors.As(err, &odd) {
			s.client.Send(wire.Fatal("08P01", "invalid message length").Response())
			s.client.SendNow()
		} else if shake, ok := errors.AsType[*wire.HandshakeError](err); ok {
			s.log.LogAttrs(ctx, eventlog.Log, "could not accept an SSL connection", slog.String("detail", "client host="+s.host+": "+shake.Err.Error()))
		} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, errGaveUp) {
			s.log.LogAttrs(ctx, eventlog.Log, "lost the connection to the client", slog.Any("err", gone.Err))
		} else if s.slot != nil {
			s.log.LogAttrs(ctx, eventlog.Log, "unexpected EOF on client connection")
		}
	case errors.As(err, &word):
		s.client.Send(word.Response())
		s.client.SendNow()
		s.log.LogAttrs(ctx, eventlog.Fatal, word.Message, slog.String("detail", word.Detail), slog.String("hint", word.Hint))
	case errors.As(err, &bad):
		s.suspect(err)
		s.passOn()
		s.client.Send((&wire.Error{Severity: "FATAL", Code: "57P01",
			Message: fmt.Sprintf("the connection to the server of node %d was lost", bad.Node),
			Detail:  bad.Err.Error(),
			Hint:    "What was under way may or may not have been executed. Connect again.",
		}).Response())
		s.client.SendNow()
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("unable to read data from DB node %d", bad.Node), slog.Any("err", bad.Err))
	default:
		s.client.Send(wire.Fatal("XX000", "internal error of the proxy; its log tells more").Response())
		s.client.SendNow()
		s.log.LogAttrs(ctx, eventlog.Error, "session ended by an internal error", slog.Any("err", err))
	}
}

// passOn gives a client that reads slowly some time to take what is on its way to
// it, lest the last words come amid a row.
func (s *Session) passOn() {
	stop := s.task.Limit(lastWordsLimit, errSlowReader)
	s.client.Flush() // an error leaves no more to be said than before
	stop()
}

const lastWordsLimit = 2 * time.Second

var errSlowReader = errors.New("the client does not read")

// leave gives back whatever the session holds. The client is let go first; the
// servers' reset runs without it.
func (s *Session) leave() {
	s.client.Close()
	s.forget() // no cancel request finds the session from here on
	if s.slot == nil {
		return
	}
	s.task.Forgive()
	s.abandonWrites()
	if s.relinquish() != nil {
		s.task.Forgive()
	}
	s.logReset()
	for _, c := range s.conns {
		if c != nil {
			s.giveBack(c)
		}
	}
	if s.rep != nil {
		s.unguard()
		s.leaveQuiet()
	}
	if s.cfg.LogDisconnections {
		s.logGoodbye()
	}
	s.slot.leave(s.task.Now())
	s.Slots.Release(s.slot)
}

// giveBack resets a server connection for the next session, or closes it.
func (s *Session) giveBack(c *server) {
	s.conns[c.Node] = nil
	if c.errands > 0 {
		stop := s.task.Limit(resetLimit, errResetSlow)
		if s.collect(c) != nil {
			c.Taint()
		}
		stop()
	}
	unread := s.due.server == c && !s.due.empty() || c.Buffered() > 0
	// What the client has not ended with a Sync must not be committed by a
	// statement of ours; and a cancel request must not hit whoever comes next.
	unsynced := slices.Contains(s.pipe.touched, c)
	if unread || unsynced || s.flying() || !s.poolable() {
		if unread || unsynced {
			c.Taint()
		}
		c.Bye()
		return
	}
	if c.shared != nil {
		s.resetShared(c)
		return
	}
	s.recordReset(c)
	stop := s.task.Limit(resetLimit, errResetSlow)
	err := c.Reset(s.cfg.ResetQueryList)
	stop()
	if err != nil {
		c.Taint()
		c.Bye()
		return
	}
	s.Pool.Put(c.Conn, s.poolKey(c.Node), s.task.Now())
}

const resetLimit = 10 * time.Second

var errResetSlow = errors.New("the reset statements took too long")

func (s *Session) logGoodbye() {
	d := time.Since(s.since)
	text := fmt.Sprintf("frontend disconnection: session time: %d:%02d:%02d.%03d user=%s database=%s host=%s",
		int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60, d.Milliseconds()%1000, s.user, s.database, s.host)
	if s.port != "" {
		text += " port=" + s.port
	}
	s.log.LogAttrs(ctx, eventlog.Log, text)
}

func (s *Session) setStatus(st Status) { s.slot.status.Store(int32(st)) }

// fill reads more from a server. Before it waits, the client is given all there
// is for it.
func (s *Session) fill(c *server) error {
	if got, err := c.TryFill(); got || err != nil {
		return err
	}
	if err := s.client.Post(); err != nil {
		return err
	}
	return c.Fill()
}

// Interrupt ends the session at its next wait, with words for the client. Safe
// for all goroutines.
func (s *Session) Interrupt(word *wire.Error) { s.task.Interrupt(word) }

// IdleSince is when the session began to wait for its client; false while it is
// at work. Safe for all goroutines.
func (s *Session) IdleSince() (time.Time, bool) {
	st := Status(s.slot.status.Load())
	return time.Unix(0, s.slot.idleSince.Load()), st == Idle || st == IdleInTransaction
}

// IdleLimit is the session's client_idle_limit. Safe for all goroutines.
func (s *Session) IdleLimit() time.Duration { return time.Duration(s.marks.idleLimit.Load()) }

// IdleLimitInRecovery is the session's client_idle_limit_in_recovery. Safe for all
// goroutines.
func (s *Session) IdleLimitInRecovery() time.Duration {
	return time.Duration(s.marks.recoveryLimit.Load())
}

// setConfig takes over a configuration.
func (s *Session) setConfig(c *Current) {
	s.base = c
	s.adopt(c)
}

// adopt makes c the configuration that counts for this session, and derives what
// the hot path asks of it.
func (s *Session) adopt(c *Current) {
	s.cfg = c
	if s.router != nil {
		s.router.Preference = c.Rules.Preference(s.database, s.user, s.app)
	}
	s.marks.idleLimit.Store(int64(c.ClientIdleLimit))
	s.marks.recoveryLimit.Store(int64(c.ClientIdleLimitInRecovery))
	s.marks.loud = c.LogStatement || c.LogPerNodeStatement || c.NoticePerNodeStatement || c.LogMinMessages <= conf.LevelDebug1
}

// refresh takes over what has changed in the world since the last statement: a
// reloaded configuration.
func (s *Session) refresh() {
	if now := s.Config(); now != s.base && !s.marks.ownConfig {
		s.setConfig(now)
	}
}

func canonical(params []wire.Param) string {
	var b strings.Builder
	size := 0
	for _, p := range params {
		size += len(p.Name) + len(p.Value) + 2
	}
	b.Grow(size)
	for _, p := range params {
		b.WriteString(p.Name)
		b.WriteByte('=')
		b.WriteString(p.Value)
		b.WriteByte(0)
	}
	return b.String()
}

// holds tells what on the main server would be lost with its connection; empty,
// nothing.
func (s *Session) holds() string {
	held := s.marks.held
	if len(s.sqlStmts) > 0 && !s.sharing.on {
		held = append(slices.Clip(held), "prepared statements of SQL")
	}
	return strings.Join(held, ", ")
}

// Nudge makes an idle session take over a reloaded configuration. Safe for all
// goroutines.
func (s *Session) Nudge() { s.task.Wake() }
