package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// In native replication and snapshot isolation every node runs every write by
// itself. What is not a read goes to the main node first, which is the lowest one:
// it alone decides who waits for whom, so that no two sessions can wait for each
// other on different nodes. When it has answered, the others are sent the same,
// all at once, and their answers are compared with its own. A transaction is
// committed on the others first and on the main node last, whose locks keep
// whoever waits for it from seeing it on one node and not on the next.
//
// A statement outside of a transaction runs in a block of our own, which is rolled
// back where the nodes do not agree. So nothing is committed anywhere that has not
// been done everywhere; where that cannot be helped (a node dies during COMMIT,
// or VACUUM fails on one node), the node that differs is detached.

// replicas is a session's dealings with all nodes; nil in other modes.
type replicas struct {
	set     []*server // the nodes of the block or statement under way, the main one first
	open    bool      // they are in a transaction block
	inner   bool      // which is ours: the client has not begun one
	level   string    // its isolation
	aligned bool      // the block's snapshot has been taken on all nodes
	schema  bool      // the block has changed the schema
	entered bool      // Quiet counts us
	foreign bool      // its snapshot is one of the main node's that another session has exported
	now     string    // when the block began
	tail    []byte    // the end of an answer, kept back until our own block is committed
	news    []byte    // what the main node has told meanwhile: notifications, reported settings

	begun   bool // some node was connected to for a transaction
	joined  map[*server]bool
	stmts   map[string]*prepared
	known   map[*server]map[string]*prepared
	portals map[string]*replicaPortal
	sql     map[string]*prepared // what PREPARE has made; text is how
	making  *prepared            // by the PREPARE under way
	fill    *filler              // of the COPY under way
	queue   volley
	at      *server // that has the portals named in the queue, if they are on one node only

	tables  map[string]*relation
	age     uint64 // of tables, as Session.age
	shifts  uint64 // how often names may have come to mean other relations, for the session alone
	shifted bool   // and may again when the block ends, as after SET LOCAL

	numbers  numbering
	promised uint32    // the last large object's OID that this block was given
	guarded  []guarded // sequences, for the statement under way
}

// replicates tells whether the session writes to all nodes.
func (s *Session) replicates() bool { return s.rep != nil }

// startReplicas makes the session one that writes to all nodes, if that is the mode.
func (s *Session) startReplicas() {
	if s.cfg.BackendClusteringMode.Replicates() {
		s.rep = &replicas{
			joined: make(map[*server]bool), stmts: make(map[string]*prepared), known: make(map[*server]map[string]*prepared),
			portals: make(map[string]*replicaPortal), sql: make(map[string]*prepared), tables: make(map[string]*relation),
			numbers: numbering{names: make(map[number]string), of: make(map[*server]map[number]uint32)},
		}
	}
}

func (r *replicas) main() *server     { return r.set[0] }
func (r *replicas) others() []*server { return r.set[1:] }

// failed tells that the block has failed: servers refuse all but its end.
func (r *replicas) failed() bool { return r.open && r.set[0].Status == 'E' }

// gather makes the servers of all nodes ready for a statement or a transaction.
// A node that is in use and cannot be reached is waited for until it is detached.
func (s *Session) gather() error {
	r := s.rep
	if r.open {
		return s.together()
	}
	if !r.entered {
		if err := s.Quiet.enter(s.task); err != nil {
			return err
		}
		r.entered = true
	}
	since := s.task.Now()
	for {
		node, err := s.gatherNow()
		if err == nil {
			return nil
		}
		rest := max(s.cfg.FailoverHoldTimeout, patienceWithNodes) - s.task.Now().Sub(since)
		if !s.mendable(err) || rest <= 0 {
			s.leaveQuiet()
			return err
		}
		if node >= 0 {
			s.Cluster.Submit(cluster.Suspected{Node: node, Cause: err})
		}
		if err := s.awaitCluster(s.snap.Epoch, min(rest, holdPoll)); err != nil {
			return err
		}
	}
}

// patienceWithNodes is how long at least a statement waits for a node that cannot
// be reached to be detached, or to come back.
const patienceWithNodes = 10 * time.Second

// mendable tells whether an error may go away when the cluster has taken note of it.
func (s *Session) mendable(err error) bool {
	var bad *backend.Error
	var no *backend.Refusal
	return errors.As(err, &bad) || errors.As(err, &no) && (no.Said.Code == "57P03" || no.Said.Code == "57P01") || errors.Is(err, errLeaderless)
}

// gatherNow is gather as things are now. An error is that of node, or of nobody
// with -1.
func (s *Session) gatherNow() (node int, err error) {
	r := s.rep
	s.snap = s.Cluster.Now()
	for len(s.conns) < len(s.snap.Nodes) { // a reload has added some
		s.conns = append(s.conns, nil)
	}
	main := s.snap.Main
	if main < 0 {
		return -1, &failed{cause: errLeaderless, word: &wire.Error{Severity: "ERROR", Code: "57P03", Message: "no node can take this statement", Detail: s.snap.Why()}}
	}
	if main != s.main {
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("session follows the main node from node %d to node %d", s.main, main))
	}
	if err := s.followMain(main); err != nil {
		return -1, err
	}
	r.set = r.set[:0]
	for i := range s.snap.Nodes {
		c := s.conns[i]
		if c != nil && c.Stirred() {
			if err := s.unasked(c); err != nil {
				return i, err
			}
			c = s.conns[i]
		}
		if c != nil && (!s.snap.Usable(i) || c.HungUp()) {
			c.Taint()
			s.drop(c)
			c = nil
		}
		if !s.snap.Usable(i) {
			continue
		}
		if c == nil {
			if err := s.reach(i); err != nil {
				return i, err
			}
			c = s.conns[i]
		}
		if !r.joined[c] {
			if held := strings.Join(s.marks.held, ", "); held != "" && r.begun {
				return i, &wire.Error{Severity: "FATAL", Code: "57P01", Message: fmt.Sprintf("node %d has been attached, or its connection was lost", i),
					Detail: "This session owns what exists on the other nodes only: " + held + ".", Hint: "Connect again."}
			}
			for _, sql := range s.settings.due(c, false) {
				if _, err := s.bid(c, sql); err != nil {
					return i, err
				}
			}
			c.applied = s.settings.seq
			for _, p := range r.sql { // what SQL has prepared
				if _, err := s.bid(c, p.text); err != nil {
					return i, err
				}
			}
			r.joined[c] = true
		}
		r.set = append(r.set, c)
	}
	if len(r.set) == 0 || r.set[0].Node != main {
		return -1, &failed{cause: errLeaderless, word: &wire.Error{Severity: "ERROR", Code: "57P03", Message: "no node can take this statement"}}
	}
	r.begun = true
	s.listServers()
	return -1, nil
}

// together makes sure that the block under way still has all its nodes, and that
// no node has come in that does not know of it.
func (s *Session) together() error {
	r := s.rep
	snap := s.Cluster.Now()
	for _, c := range slices.Clone(r.others()) {
		if s.conns[c.Node] == c && !snap.Usable(c.Node) {
			c.Taint()
			s.drop(c) // it was detached; the others go on
		}
		if s.conns[c.Node] != c {
			if err := s.without(c, &backend.Error{Node: c.Node, Err: errors.New("the connection was lost")}, false); err != nil {
				return err
			}
		}
	}
	snap = s.Cluster.Now()
	if main := r.main(); s.conns[main.Node] != main || !snap.Usable(main.Node) {
		return &wire.Error{Severity: "FATAL", Code: "57P01", Message: fmt.Sprintf("the main node, node %d, was lost during a transaction", main.Node), Hint: "Connect again."}
	}
	for i := range snap.Nodes {
		if snap.Usable(i) && !slices.ContainsFunc(r.set, func(c *server) bool { return c.Node == i }) {
			return &wire.Error{Severity: "FATAL", Code: "40001", Message: fmt.Sprintf("node %d was attached during this transaction", i), Hint: "Connect again."}
		}
	}
	return nil
}

func (s *Session) leaveQuiet() {
	if s.rep.entered {
		s.rep.entered = false
		s.Quiet.leave()
	}
}

// endBlock ends what began with gather.
func (s *Session) endBlock() {
	r := s.rep
	s.settleNames()
	r.open, r.inner, r.aligned, r.foreign, r.now, r.level = false, false, false, false, "", ""
	r.promised = 0
	clear(r.portals)
	s.leaveQuiet()
}

// own is the name of the statements and portals with which servers are asked on
// our own account: by Parse and not by Query, which would end the client's unnamed
// ones.
const own = "pgpool"

// put composes statements of our own. took reads the answers. One that fails leaves
// its prepared statement behind, and in a block that goes on its portal: BEGIN and
// ROLLBACK run in failed blocks as well. So both are closed first.
func (s *Session) put(c *server, statements ...string) {
	for _, sql := range statements {
		if s.marks.loud {
			s.record(c, "", []byte(sql))
		}
		c.Send(&pgproto3.Close{ObjectType: 'P', Name: own}, &pgproto3.Close{ObjectType: 'S', Name: own}, &pgproto3.Parse{Name: own, Query: sql}, &pgproto3.Bind{PreparedStatement: own, DestinationPortal: own},
			&pgproto3.Execute{Portal: own}, &pgproto3.Close{ObjectType: 'P', Name: own}, &pgproto3.Close{ObjectType: 'S', Name: own})
	}
	c.SendRaw(wire.Sync, nil)
}

// took reads the answers to what was put up to ReadyForQuery, and returns the
// rows as text. An error of the server is a *backend.Refusal.
func (s *Session) took(c *server) (rows [][]string, err error) {
	values, err := s.tookValues(c)
	for _, row := range values {
		texts := make([]string, len(row))
		for i, v := range row {
			texts[i] = string(v)
		}
		rows = append(rows, texts)
	}
	return rows, err
}

// tookValues is took with the values as they come; nil is null.
func (s *Session) tookValues(c *server) (rows [][][]byte, err error) {
	refused, err := s.hearOut(c, func(typ byte, body []byte) error {
		if typ != wire.DataRow {
			return nil
		}
		var row pgproto3.DataRow
		err := row.Decode(bytes.Clone(body))
		rows = append(rows, row.Values)
		return err
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		if err := s.sweep(c); err != nil {
			return nil, err
		}
	}
	return rows, refused
}

// hearOut sends what was put and reads the answers up to ReadyForQuery. note is given
// them; what it keeps of a body it copies. refused is an error of the server's.
func (s *Session) hearOut(c *server, note func(typ byte, body []byte) error) (refused, err error) {
	if err := c.Flush(); err != nil {
		c.Taint() // the answer may still come
		return nil, err
	}
	for {
		typ, body, err := c.Frame(answerLimit)
		if err != nil {
			c.Taint()
			return nil, err
		}
		switch typ {
		case wire.ErrorResponse:
			refused = s.refusal(c, body)
		case wire.ParameterStatus:
			c.NoteParam(body)
			s.overheard(c.Conn, typ, body)
		case wire.Notification:
			s.overheard(c.Conn, typ, body)
		case wire.ReadyForQuery:
			c.Status = body[0]
			c.Skip(5 + len(body))
			return refused, nil
		default:
			if err := note(typ, body); err != nil {
				c.Taint()
				return nil, &backend.Error{Node: c.Node, Err: err}
			}
		}
		c.Skip(5 + len(body))
	}
}

// sweep closes what a statement of ours that has failed has left behind, lest the
// client find it in pg_prepared_statements.
func (s *Session) sweep(c *server) error {
	c.Send(&pgproto3.Close{ObjectType: 'S', Name: own}, &pgproto3.Sync{})
	_, err := s.took(c)
	return err
}

// bid is put and took.
func (s *Session) bid(c *server, statements ...string) ([][]string, error) {
	s.put(c, statements...)
	return s.took(c)
}

// bidAll runs statements of our own on several nodes of the block at once. It goes on
// without those that are lost. The first other error is returned when all have
// answered.
func (s *Session) bidAll(set []*server, statements ...string) (first error) {
	set = slices.Clone(set)
	for _, c := range set {
		s.put(c, statements...)
		c.Flush() // an error shows below
	}
	for _, c := range set {
		_, err := s.took(c)
		if bad, ok := errors.AsType[*backend.Error](err); ok && bad.Node == c.Node && c != s.rep.main() {
			err = s.without(c, err, false)
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return first
}

// enclose opens a block of our own on all nodes, unless one is open.
func (s *Session) enclose() error {
	r := s.rep
	if r.open {
		return nil
	}
	if err := s.bidAll(r.set, "BEGIN"); err != nil {
		return s.undone(err)
	}
	r.open, r.inner = true, true
	return s.isolate()
}

// undone is the end of the session because nodes may be left in different states
// of a block of which nothing is committed.
func (s *Session) undone(err error) error {
	var bad *backend.Error
	var no *backend.Refusal
	switch {
	case errors.As(err, &bad):
		return err
	case errors.As(err, &no):
		for _, c := range s.rep.set {
			c.Taint()
		}
		return &wire.Error{Severity: "FATAL", Code: no.Said.Code, Message: no.Said.Message, Detail: no.Said.Detail,
			Hint: "This was the answer of one node to a statement of the proxy. Connect again."}
	}
	return err
}

// isolate finds out the isolation of a block that has just begun, and makes it
// repeatable read at least in snapshot isolation.
func (s *Session) isolate() error {
	r := s.rep
	rows, err := s.bid(r.main(), "SHOW transaction_isolation")
	if err != nil {
		return s.undone(err)
	}
	if r.level = rows[0][0]; s.cfg.BackendClusteringMode == conf.SnapshotIsolation && r.level != "serializable" && r.level != "repeatable read" {
		if err := s.bidAll(r.set, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"); err != nil {
			return s.undone(err)
		}
		r.level = "repeatable read"
	}
	if r.level == "serializable" && len(r.others()) > 0 { // which that is the main node says: see commitSerial
		if err := s.bidAll(r.others(), "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"); err != nil {
			return s.undone(err)
		}
	}
	return nil
}

// align takes the block's snapshot on all nodes while none commits, where a
// snapshot lasts longer than a statement.
func (s *Session) align() error {
	r := s.rep
	if !r.open || r.aligned || r.level != "serializable" && r.level != "repeatable read" {
		return nil
	}
	if err := s.gates.enter(s.task, toSee); err != nil {
		return err
	}
	err := s.bidAll(r.set, "SELECT 1")
	s.gates.leave()
	if err != nil {
		return s.undone(err)
	}
	r.aligned = true
	return nil
}

// outcome is what a server has said to what it was sent in one go.
type outcome struct {
	kinds  []byte   // of its messages that matter, to be compared
	tags   []string // of the statements that it completed
	said   *wire.Error
	rows   uint64 // a sum over the rows, in whatever order
	copies bool   // it waits for the data of a COPY
}

// want is a reply that a server owes.
type want struct {
	kind byte     // of the message: P B D C E, S for Sync, Q, F
	from *message // the client's; nil: ours
	stmt *prepared
}

var rowSeed = maphash.MakeSeed()

// hear reads what a server owes. The client gets it if forward is set; sum adds up
// the rows. wants is consumed as far as it was answered. An error is one of the
// sockets, or a FATAL of the server.
func (s *Session) hear(c *server, wants *[]want, forward, sum bool) (a outcome, err error) {
	defer func() {
		if err != nil {
			c.Taint() // the rest of the answer may still come
		}
	}()
	pop := func(kind byte) (want, error) {
		if len(*wants) == 0 || (*wants)[0].kind != kind {
			c.Taint()
			return want{}, &backend.Error{Node: c.Node, Err: errors.New("a message out of place")}
		}
		w := (*wants)[0]
		*wants = (*wants)[1:]
		if w.from != nil {
			w.from.done = true
		}
		return w, nil
	}
	fill := func(n int) error {
		if forward {
			return s.fillTo(c, n)
		}
		return c.FillTo(max(0, n-c.Buffered()))
	}
	for {
		typ, size, ok, err := c.Peek()
		if err != nil {
			return a, err
		}
		if !ok {
			if err := fill(0); err != nil {
				return a, err
			}
			continue
		}
		if (typ == wire.DataRow || typ == wire.CopyData) && !sum {
			if forward {
				err = c.Forward(s.client, size)
			} else {
				err = c.Discard(size)
			}
			if err != nil {
				return a, err
			}
			continue
		}
		if size > c.Buffered() {
			if size > answerLimit {
				return a, &backend.Error{Node: c.Node, Err: &wire.FrameError{Type: typ, Length: uint32(size)}}
			}
			if err := fill(size); err != nil {
				return a, err
			}
			continue
		}
		frame := c.Bytes()[:size]
		body := frame[5:]
		pass := forward
		switch typ {
		case wire.DataRow:
			a.rows += maphash.Bytes(rowSeed, body)
		case wire.ParseComplete:
			w, err := pop(wire.Parse)
			if err != nil {
				return a, err
			}
			s.knows(c, w.stmt)
			pass = pass && w.from != nil
		case wire.BindComplete:
			if _, err := pop(wire.Bind); err != nil {
				return a, err
			}
		case wire.CloseComplete:
			w, err := pop(wire.Close)
			if err != nil {
				return a, err
			}
			if w.stmt != nil {
				delete(s.rep.known[c], w.stmt.name)
			}
			pass = pass && w.from != nil
		case wire.ParameterDesc:
			if pass && c.Node != s.main {
				if frame, err = s.renumbered(c, frame); err != nil {
					return a, err
				}
			}
			if w := first(*wants); w != nil && w.stmt != nil && len(w.stmt.added)+len(w.stmt.picks) > 0 && pass {
				pass = false
				if err := s.client.SendRaw(typ, w.stmt.lessParams(body)); err != nil {
					return a, err
				}
			}
		case wire.RowDescription, wire.NoData:
			if w := first(*wants); w != nil && w.kind == wire.Describe {
				pop(wire.Describe)
			}
			a.kinds = append(a.kinds, typ)
			if pass && typ == wire.RowDescription && c.Node != s.main {
				if frame, err = s.renumbered(c, frame); err != nil {
					return a, err
				}
			}
		case wire.CommandComplete, wire.EmptyQuery, wire.PortalSuspended:
			if w := first(*wants); w != nil && w.kind == wire.Execute {
				pop(wire.Execute)
			}
			tag, _, _ := wire.CString(body)
			a.tags = append(a.tags, string(tag))
			a.kinds = append(a.kinds, typ)
			if pass && s.rep.inner && len(*wants) > 0 && (*wants)[0].kind == wire.Query {
				s.rep.tail = append(s.rep.tail, frame...)
				pass = false
			}
		case wire.ErrorResponse:
			a.said = wire.ParseError(body)
			a.kinds = append(a.kinds, typ)
			s.countError(c, a.said)
			if fatal := a.said.Severity == "FATAL" || a.said.Severity == "PANIC"; fatal {
				c.Taint()
				if !forward {
					return a, &backend.Error{Node: c.Node, Err: errors.New(a.said.Message)}
				}
				if _, err := s.client.Write(frame); err != nil {
					return a, err
				}
				s.Cluster.Submit(cluster.Suspected{Node: c.Node, Cause: errors.New(a.said.Message)})
				return a, s.said(&backend.Refusal{Node: c.Node, Said: a.said})
			}
			s.logHeard(c, a.said)
		case wire.NoticeResponse:
			if pass && s.rep.inner && wire.ParseError(body).Code == "25001" {
				pass = false // "there is already a transaction in progress": it is ours
			}
		case wire.ParameterStatus, wire.Notification:
			if typ == wire.ParameterStatus {
				c.NoteParam(body)
			}
			if pass = c.Node == s.main; pass && len(s.rep.tail) > 0 {
				s.rep.news = append(s.rep.news, frame...)
				pass = false
			}
		case wire.FunctionResult:
			a.kinds = append(a.kinds, typ)
			a.rows += maphash.Bytes(rowSeed, body)
		case wire.CopyInResponse:
			if pass {
				if s.rep.fill != nil {
					body = s.rep.fill.lessColumns(body)
				}
				if err := s.client.SendRaw(typ, body); err != nil {
					return a, err
				}
			}
			c.Skip(size)
			a.copies = true
			return a, nil
		case wire.ReadyForQuery:
			c.Status = body[0]
			c.Skip(size)
			*wants = nil
			return a, nil
		case wire.CopyOutResponse, wire.CopyDone, wire.CopyData:
		default:
			return a, s.outOfPlace(c, typ)
		}
		if fill := s.rep.fill; fill != nil && pass && (typ == wire.ErrorResponse || typ == wire.NoticeResponse) {
			pass = false
			if err := s.client.SendRaw(typ, unfilled(fill, body)); err != nil {
				return a, err
			}
		}
		if pass {
			if _, err := s.client.Write(frame); err != nil {
				return a, err
			}
		}
		c.Skip(size)
	}
}

func first(wants []want) *want {
	if len(wants) == 0 {
		return nil
	}
	return &wants[0]
}

func (s *Session) logHeard(c *server, word *wire.Error) {
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("Error message from backend: DB node id: %d message: \"%s\"", c.Node, word.Message))
}

// kind and count are what two answers are compared by: what the server did, and
// to how many rows.
func (a *outcome) kind() string {
	words := make([]string, len(a.tags))
	for i, t := range a.tags {
		words[i] = strings.TrimRight(t, " 0123456789")
	}
	return string(a.kinds) + " " + strings.Join(words, ",")
}

// count leaves out answers of reads, whose rows may be each node's own affair.
func (a *outcome) count(writes bool) string {
	var b strings.Builder
	for _, t := range a.tags {
		word, _, _ := strings.Cut(t, " ")
		if word != "SELECT" || writes {
			b.WriteString(t + ",")
		}
	}
	if a.rows != 0 {
		fmt.Fprintf(&b, "%x", a.rows)
	}
	return b.String()
}

// judge compares what the nodes have answered. The smaller part is in the wrong,
// the part without the main node if both are equal. lasting tells that what they
// differ in has been committed, or may have been: then those in the wrong are
// detached whatever is configured. An error ends the session.
func (s *Session) judge(sql string, heard map[*server]outcome, v *parser.Verdict, lasting bool) error {
	r := s.rep
	writes := v == nil || !v.Reads && v.Class != parser.Select
	key := func(c *server, whole bool) string {
		a := heard[c]
		if whole {
			return a.kind() + "|" + a.count(writes)
		}
		return a.kind()
	}
	differ := func(whole bool) bool {
		return slices.ContainsFunc(r.others(), func(c *server) bool { return key(c, whole) != key(r.main(), whole) })
	}
	kinds := differ(false)
	if !kinds && !differ(true) {
		return nil
	}
	votes := make(map[string]int)
	for _, c := range r.set {
		votes[key(c, !kinds)]++
	}
	right := key(r.main(), !kinds)
	for _, c := range r.others() {
		if k := key(c, !kinds); votes[k] > votes[right] {
			right = k
		}
	}
	var wrong []*server
	var details []string
	for _, c := range r.set {
		a := heard[c]
		if key(c, !kinds) != right {
			wrong = append(wrong, c)
		}
		what := strings.Join(a.tags, ", ")
		if a.said != nil {
			what = "E: " + a.said.Message
		}
		details = append(details, fmt.Sprintf("%d[%s]", c.Node, what))
	}
	word := &wire.Error{Severity: "FATAL", Code: "XX000", Message: "pgpool detected difference of the number of inserted, updated or deleted tuples",
		Detail: fmt.Sprintf("Possible last query was: \"%s\". Details are: %s", sql, strings.Join(details, " ")), Hint: "check data consistency among db nodes"}
	detach := s.cfg.FailoverIfAffectedTuplesMismatch
	if kinds {
		word.Message = "kind mismatch among backends"
		word.Detail = fmt.Sprintf("Possible last query was: \"%s\" kind details are: %s", sql, strings.Join(details, " "))
		detach = s.cfg.ReplicationStopOnMismatch
	}
	s.log.LogAttrs(ctx, eventlog.Error, word.Message, slog.String("detail", word.Detail), slog.String("hint", word.Hint))
	if !lasting && !detach {
		for _, c := range r.set { // nothing of the block is committed
			c.Taint()
		}
		return word
	}
	for _, c := range wrong {
		s.condemn(c, word.Message)
	}
	if slices.Contains(wrong, r.main()) {
		for _, c := range r.set {
			c.Taint()
		}
		return word // the client was told what the main node said
	}
	r.set = slices.DeleteFunc(r.set, func(c *server) bool { return slices.Contains(wrong, c) })
	return nil
}

// condemn has a node detached whose data is not, or may not be, that of the
// others. It does not return before no session can use it.
func (s *Session) condemn(c *server, why string) {
	s.log.LogAttrs(ctx, eventlog.Warning, fmt.Sprintf("node %d is detached", c.Node), slog.String("detail", why))
	s.task.Block(func() {
		limit, stop := context.WithTimeout(ctx, patienceWithNodes)
		defer stop()
		s.Cluster.Do(limit, cluster.Diverged{Node: c.Node, Cause: why})
	})
	c.Taint()
	if s.conns[c.Node] == c {
		s.drop(c)
	}
}

// without goes on without a node whose connection has failed during a block: once
// it has been detached, which is waited for. With unsure it may have committed
// what others have not, or the other way round, and is detached at once.
func (s *Session) without(c *server, err error, unsure bool) error {
	bad, ok := errors.AsType[*backend.Error](err)
	r := s.rep
	if !ok || bad.Node != c.Node {
		return err
	}
	c.Taint()
	s.suspect(err)
	if unsure {
		s.condemn(c, "its connection was lost while a transaction was being committed")
	} else {
		if s.conns[c.Node] == c {
			s.drop(c)
		}
		if again, no := s.hail(c.Node); no == nil { // it was this connection that was meant
			again.Close()
			return err
		}
		for since := s.task.Now(); ; {
			snap := s.Cluster.Now()
			rest := patienceWithNodes - s.task.Now().Sub(since)
			if !snap.Usable(c.Node) {
				break
			}
			if rest <= 0 {
				return err
			}
			if err := s.awaitCluster(snap.Epoch, min(rest, holdPoll)); err != nil {
				return err
			}
			s.suspect(err)
		}
	}
	if c == r.main() {
		return err
	}
	r.set = slices.DeleteFunc(r.set, func(o *server) bool { return o == c })
	return nil
}
