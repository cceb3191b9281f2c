package session

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// act is one statement of the client on its way to the nodes.
type act struct {
	verdict  *parser.Verdict
	decision route.Decision
	text     string // as the client sent it, for the log and for what a comment in it wishes
	volley   volley
	server   *server   // that has the portal it reads from, if it is on one node only
	making   *prepared // by PREPARE
}

// everywhere tells whether a statement goes to all nodes rather than to one that
// is read.
func (s *Session) everywhere(v *parser.Verdict, d route.Decision, text []byte) bool {
	switch {
	case v.Class == parser.Empty, v.Class == parser.Show:
		return false
	case v.Class == parser.SetTx && v.Transaction.Snapshot:
		return false // it is the main node's, where the reads of the transaction are then
	case !v.Reads || d.Write || d.Reason == route.ReasonUnresolved:
		return true
	}
	return v.Class == parser.Select && (s.cfg.ReplicateSelect || wishes(text, "/*REPLICATION*/"))
}

// wishes tells whether a text begins with a comment.
func wishes(text []byte, comment string) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) >= len(comment) && strings.EqualFold(string(text[:len(comment)]), comment)
}

// consult routes a statement as if it were a read of one node, or a write.
func (s *Session) consult(v *parser.Verdict, text []byte, extended bool) (route.Decision, error) {
	if !s.rep.open {
		s.snap = s.Cluster.Now()
		if s.snap.Main >= 0 {
			s.main = s.snap.Main
		}
		for len(s.conns) < len(s.snap.Nodes) {
			s.conns = append(s.conns, nil)
		}
	}
	if v.Database != "" {
		s.Pool.Leave(v.Database, s.task.Now())
	}
	s.askTemp = false // temporary tables are on all nodes
	in := s.input(v, text, extended, 0)
	return s.decide(&in)
}

// encloses tells whether a statement may and should run in a block of our own.
func encloses(v *parser.Verdict) bool {
	switch v.Class {
	case parser.Unknown, parser.Call, parser.Do, parser.Maintenance, parser.Replicate, parser.Discard, parser.CommitPrepared, parser.RollbackPrepared,
		parser.Set, parser.Reset, parser.SetCharacter, parser.Deallocate, parser.Prepare, parser.Listen, parser.Unlisten, parser.SetTx, parser.Lock,
		parser.Declare, parser.Fetch, parser.CloseCursor:
		return false
	case parser.DDL:
		return v.Enclosable
	}
	return v.Transaction == nil
}

// outside is the server's error for a statement that needs a block of the client's
// while only one of ours is open, of which the server knows nothing. A string of
// several statements is block enough for some.
func (s *Session) outside(v *parser.Verdict, several bool) error {
	if r := s.rep; !r.open || !r.inner || r.failed() {
		return nil
	}
	what := ""
	switch {
	case v.Class == parser.Savepoint:
		what = "SAVEPOINT"
	case v.Class == parser.Release:
		what = "RELEASE SAVEPOINT"
	case v.Class == parser.RollbackTo:
		what = "ROLLBACK TO SAVEPOINT"
	case v.Class == parser.Commit && v.Transaction.Chain:
		what = "COMMIT AND CHAIN"
	case v.Class == parser.Rollback && v.Transaction.Chain:
		what = "ROLLBACK AND CHAIN"
	case several:
	case v.Class == parser.Declare && !v.Hold:
		what = "DECLARE CURSOR"
	case v.Class == parser.Lock:
		what = "LOCK TABLE"
	}
	if what == "" {
		return nil
	}
	return &wire.Error{Severity: "ERROR", Code: "25P01", Message: what + " can only be used in transaction blocks"}
}

// sees tells whether a statement takes a snapshot.
func sees(v *parser.Verdict) bool {
	switch v.Class {
	case parser.Set, parser.Reset, parser.SetTx, parser.SetCharacter, parser.SetConstraints, parser.Show, parser.Empty, parser.Deallocate, parser.Listen, parser.Unlisten, parser.Lock:
		return false
	}
	return v.Transaction == nil
}

// prepareAll does what must be done on the nodes before a statement that all of
// them run.
func (s *Session) prepareAll(v *parser.Verdict, inBlock bool) error {
	if err := s.gather(); err != nil {
		return err
	}
	r := s.rep
	if r.foreign && v.Writes {
		return &wire.Error{Severity: "ERROR", Code: "0A000", Message: "a transaction that has imported a snapshot cannot write", Detail: "The snapshot is the main node's, and others have none that is the same."}
	}
	if inBlock || encloses(v) {
		if err := s.enclose(); err != nil {
			return err
		}
	}
	if r.failed() || !sees(v) {
		return nil
	}
	return s.align()
}

// performAll has all nodes run a statement for which they have been prepared. It
// reports whether it has failed: then the client has been told.
func (s *Session) performAll(a *act) (ok bool, err error) {
	r, v := s.rep, a.verdict
	s.countRoute(a.decision)
	s.router.Send(v, a.decision)
	switch {
	case v.Transaction == nil:
		ok, err = s.runAll(a)
	case v.Transaction.Op == parser.TxCommit, v.Transaction.Op == parser.TxRollback:
		ok, err = s.finish(a)
	case v.Transaction.Op == parser.TxPrepare:
		ok, err = s.prepareTransaction(a)
	default:
		ok, err = s.runAll(a)
	}
	if err != nil {
		return false, err
	}
	main := r.main()
	if ok && v.Catalog || v.Class == parser.Do || v.Class == parser.Call || v.Class == parser.Unknown {
		r.schema = true
		clear(r.tables)
	}
	if len(v.Settings) > 0 || v.SettingsUnknown != parser.ScopeNone || v.Class == parser.Rollback || v.Class == parser.RollbackTo {
		clear(r.tables) // names may mean others
	}
	if !ok {
		s.pipe.failed = true
		s.router.Failed(0)
	} else {
		s.note(a)
		s.router.Done()
	}
	switch {
	case main.Status != 'I' && !r.open: // the client has begun a block
		r.open = true
		if err := s.isolate(); err != nil {
			return ok, err
		}
	case v.Class == parser.Begin && ok:
		r.inner = false // what was ours is the client's now
	case v.Class == parser.SetTx && ok && s.cfg.BackendClusteringMode == conf.SnapshotIsolation:
		if err := s.isolate(); err != nil {
			return ok, err
		}
	case main.Status == 'T' && v.Transaction != nil && v.Transaction.Chain && ok:
		r.aligned, r.now = false, ""
		if err := s.isolate(); err != nil {
			return ok, err
		}
	case main.Status == 'I':
		s.endBlock()
	}
	return ok, nil
}

// note remembers what follows from a statement that has succeeded.
func (s *Session) note(a *act) {
	s.noteNames(a.verdict)
	if t := a.verdict.Transaction; t != nil && t.Snapshot && s.rep.open {
		s.rep.foreign = true
	}
	v := ran(a.verdict, a.decision)
	if !plain(v) || a.decision.Opaque {
		tag := []byte("")
		if v.Class == parser.Commit && s.rep.main().Status == 'I' && s.pipe.failed {
			tag = []byte("ROLLBACK")
		}
		s.pipe.note(v, &expectation{opaque: a.decision.Opaque}, tag)
	}
}

// runAll sends a statement to the main node and, if that has run it, to the others.
func (s *Session) runAll(a *act) (ok bool, err error) {
	r, v := s.rep, a.verdict
	main := r.main()
	sum := sums(v, a.text)
	s.count(main, v)
	main.note([]byte(a.text))
	s.running(main)
	defer s.running()
	wants, err := s.fire(main, a)
	if err != nil {
		return false, err
	}
	heard := make(map[*server]outcome, len(r.set))
	said, err := s.hear(main, &wants, true, sum)
	var data *spool
	if err == nil && said.copies {
		data = newSpool(s.task)
		defer data.close()
		said, err = s.copyToMain(main, wants, said, data)
	}
	if err != nil {
		return false, s.mainLost(main, err, v)
	}
	if err := s.ran(); err != nil {
		return false, s.mainLost(main, err, v)
	}
	heard[main] = said
	if said.said != nil && !s.repeats(said.said, v) {
		return false, nil
	}
	owing := make(map[*server][]want, len(r.set))
	if r.open { // else it is done on the main node for good, and must be on the others
		s.running(r.others()...)
	}
	for _, c := range slices.Clone(r.others()) {
		s.count(c, v)
		c.note([]byte(a.text))
		wants, err := s.fire(c, a)
		owing[c] = wants
		if err == nil && data != nil {
			heard[c], err = s.copyToOther(c, wants, data)
		}
		if err != nil {
			if err := s.without(c, err, !r.open); err != nil {
				return false, err
			}
			delete(heard, c)
		}
	}
	for _, c := range slices.Clone(r.others()) {
		if data != nil {
			continue
		}
		wants := owing[c]
		got, err := s.hear(c, &wants, false, sum)
		if err == nil && got.copies {
			err = s.outOfPlace(c, wire.CopyInResponse)
		}
		if err != nil {
			if err := s.without(c, err, !r.open); err != nil {
				return false, err
			}
			continue
		}
		heard[c] = got
	}
	if err := s.ran(); err != nil {
		return false, err
	}
	if r.open && said.said == nil {
		for _, c := range r.others() {
			if word := heard[c].said; word != nil && passing(word) {
				return false, word
			}
		}
	}
	if err := s.judge(a.text, heard, v, !r.open && lasts(v)); err != nil {
		return false, err
	}
	return said.said == nil, nil
}

// lasts tells whether a statement that has run outside of a block has changed data
// that lasts.
func lasts(v *parser.Verdict) bool {
	switch v.Class {
	case parser.Set, parser.Reset, parser.SetCharacter, parser.Deallocate, parser.Prepare, parser.Listen, parser.Unlisten, parser.Begin, parser.Discard,
		parser.Fetch, parser.CloseCursor, parser.Declare, parser.Lock, parser.SetTx:
		return false
	}
	return true
}

// sums tells whether the rows that a statement returns are to be the same on all
// nodes: those of a write that do not tell where they are stored.
func sums(v *parser.Verdict, text string) bool {
	switch v.Class {
	case parser.Insert, parser.Update, parser.Delete, parser.Merge:
	case parser.Select:
		return slices.ContainsFunc(v.Functions, func(n parser.Name) bool {
			switch n.Name {
			case "nextval", "lo_creat", "lo_create", "lo_from_bytea", "lo_import", "lastval", "currval", "setval":
				return true
			}
			return false
		})
	default:
		return false
	}
	low := strings.ToLower(text)
	for _, word := range []string{"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "pid", "txid", "xact", "oid", "inet_"} {
		if strings.Contains(low, word) {
			return false
		}
	}
	return true
}

// mainLost is what becomes of the loss of the main node while it was running a
// statement. In a block nothing has been committed; outside of one it may have done
// what the others have not.
func (s *Session) mainLost(main *server, err error, v *parser.Verdict) error {
	var bad *backend.Error
	var no *backend.Refusal
	if !s.rep.open && lasts(v) && (errors.As(err, &bad) && bad.Node == main.Node || errors.As(err, &no)) && len(s.rep.set) > 1 {
		s.condemn(main, "its connection was lost while it was running a statement outside of a transaction")
	}
	return err
}

// repeats tells whether a statement that the main node has refused is sent to the
// others all the same: what it depends on is data that they have, too, and it may
// have had effects that no rollback takes back.
func (s *Session) repeats(word *wire.Error, v *parser.Verdict) bool {
	class := ""
	if len(word.Code) >= 2 {
		class = word.Code[:2]
	}
	switch class {
	case "21", "22", "23", "27", "2F", "38", "39", "44", "P0":
		return true
	}
	return false
}

// passing tells whether an error has to do with when a statement ran, and not with
// the data that it found: the client asked for its end, or it had to wait for
// somebody. A block that fails of it on one node has failed on all, as nothing of it
// is committed.
func passing(word *wire.Error) bool {
	switch word.Code {
	case "57014", "55P03", "40P01", "40001":
		return true
	}
	return false
}

// fire sends a volley to a server.
func (s *Session) fire(c *server, a *act) ([]want, error) {
	wants := s.owed(c, a)
	s.compose(c, a)
	return wants, c.Flush()
}

// finish ends a block of the client's: COMMIT on the others first and on the main
// node last, whose answer the client gets.
func (s *Session) finish(a *act) (ok bool, err error) {
	r := s.rep
	main := r.main()
	if !r.open { // the server says what it thinks of that
		return s.runOnMain(a)
	}
	if r.inner { // as the server would say, which knows of a block
		if err := s.client.Send(&pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "25P01", Message: "there is no transaction in progress"}); err != nil {
			return false, err
		}
	}
	if main.Status == 'E' || a.verdict.Transaction.Op == parser.TxRollback {
		end := "ROLLBACK"
		if a.verdict.Transaction.Chain {
			end = "ROLLBACK AND CHAIN"
		}
		s.abandon(end)
		if len(r.set) == 0 {
			return false, errLeaderless
		}
		return s.runOnMain(a)
	}
	r.inner = false
	return s.commit(a)
}

// runOnMain has the main node alone run a statement.
func (s *Session) runOnMain(a *act) (ok bool, err error) {
	main := s.rep.main()
	s.count(main, a.verdict)
	wants, err := s.fire(main, a)
	if err != nil {
		return false, err
	}
	said, err := s.hear(main, &wants, true, false)
	if err == nil && said.copies {
		return false, s.outOfPlace(main, wire.CopyInResponse)
	}
	return said.said == nil, err
}

// abandon rolls back on the other nodes. A node that cannot is left to the session
// after next: its connection is closed, which rolls back as well.
func (s *Session) abandon(end string) {
	r := s.rep
	for _, c := range r.others() {
		s.put(c, end)
		c.Flush()
	}
	for _, c := range slices.Clone(r.others()) {
		if _, err := s.took(c); err != nil {
			s.suspect(err)
			c.Taint()
			s.drop(c)
			r.set = slices.DeleteFunc(r.set, func(o *server) bool { return o == c })
		}
	}
}

// commit commits on all nodes while none takes a snapshot. With an act that is the
// client's own COMMIT, whose answer it gets; else ours.
func (s *Session) commit(a *act) (ok bool, err error) {
	r := s.rep
	if err := s.together(); err != nil {
		return false, err
	}
	if err := s.gates.enter(s.task, toCommit); err != nil {
		return false, err
	}
	defer s.gates.leave()
	// From here on the session does not end before the nodes agree.
	end := "COMMIT"
	if a != nil && a.verdict.Transaction.Chain {
		end = "COMMIT AND CHAIN"
	}
	main := r.main()
	heard := make(map[*server]outcome, len(r.set))
	for _, c := range r.others() {
		s.put(c, end)
		c.Flush() // an error shows below
	}
	for _, c := range slices.Clone(r.others()) {
		wants := ownWants()
		got, err := s.hear(c, &wants, false, false)
		if err != nil {
			if err := s.without(c, err, true); err != nil {
				return false, s.split(err)
			}
			continue
		}
		heard[c] = committed(got)
	}
	wants, forward := ownWants(), false
	if a != nil {
		forward, wants = true, s.owed(main, a)
		s.compose(main, a)
	} else {
		s.put(main, end)
	}
	err = main.Flush()
	var said outcome
	if err == nil {
		said, err = s.hear(main, &wants, forward, false)
	}
	if err != nil {
		return false, s.split(err)
	}
	if a == nil && said.said != nil {
		s.rep.tail = nil
		s.client.Send(said.said.Response())
	}
	heard[main] = committed(said)
	if err := s.judge(end, heard, nil, true); err != nil {
		return false, err
	}
	return said.said == nil, nil
}

// committed reduces an answer to COMMIT to what the nodes must agree about.
func committed(a outcome) outcome {
	if a.said == nil && len(a.tags) > 0 && !strings.HasPrefix(a.tags[len(a.tags)-1], "ROLLBACK") {
		return outcome{kinds: []byte("C"), tags: []string{"COMMIT"}}
	}
	return outcome{kinds: []byte("E"), said: a.said}
}

// ownWants are the replies to one statement that was put.
func ownWants() []want {
	return []want{{kind: wire.Close}, {kind: wire.Close}, {kind: wire.Parse}, {kind: wire.Bind}, {kind: wire.Execute}, {kind: wire.Close}, {kind: wire.Close}, {kind: wire.Sync}}
}

// split is the end of a session that was lost in the middle of a commit: the main
// node, which was to be last, is the one whose state is not known, unless all are
// in the same.
func (s *Session) split(err error) error {
	r := s.rep
	if len(r.set) > 1 {
		s.condemn(r.main(), "the session ended while a transaction was being committed")
	}
	return err
}

// prepareTransaction is PREPARE TRANSACTION: the main node first. Where one of the
// others cannot, all take it back.
func (s *Session) prepareTransaction(a *act) (ok bool, err error) {
	r := s.rep
	if !r.open || r.main().Status == 'E' {
		if r.open {
			s.abandon("ROLLBACK")
		}
		return s.runOnMain(a)
	}
	main := r.main()
	gid := "'" + strings.ReplaceAll(a.verdict.Transaction.GID, "'", "''") + "'"
	s.rep.inner = false
	wants, err := s.fire(main, a)
	if err != nil {
		return false, err
	}
	said, err := s.hear(main, &wants, true, false)
	if err != nil || said.said != nil || main.Status != 'I' || len(said.tags) > 0 && said.tags[0] == "ROLLBACK" {
		s.abandon("ROLLBACK")
		return false, err
	}
	var failed []string
	for _, c := range slices.Clone(r.others()) {
		_, err := s.bid(c, "PREPARE TRANSACTION "+gid)
		switch _, refused := errors.AsType[*backend.Refusal](err); {
		case err == nil:
		case refused:
			failed = append(failed, err.Error())
		default:
			if err := s.without(c, err, true); err != nil {
				return false, err
			}
		}
	}
	if len(failed) == 0 {
		return true, nil
	}
	for _, c := range r.set {
		s.bid(c, "ROLLBACK PREPARED "+gid) // where it failed there is none
	}
	return false, &wire.Error{Severity: "FATAL", Code: "XX000", Message: "kind mismatch among backends",
		Detail: fmt.Sprintf("The main node has prepared transaction %s, others have not: %s. It was rolled back.", gid, strings.Join(failed, "; ")),
		Hint:   "check data consistency among db nodes"}
}

// endReplicated ends a Query or a pipeline: a block of our own is committed, or rolled
// back if it has failed, and the client is told what comes of it.
func (s *Session) endReplicated() error {
	r := s.rep
	if r.open && r.inner {
		if err := s.endInner(); err != nil {
			return err
		}
	}
	if err := s.writeTail(); err != nil {
		return err
	}
	if !r.open {
		clear(r.portals)
		s.leaveQuiet()
	}
	c := s.conns[s.main]
	if c == nil {
		for _, o := range s.conns {
			if o != nil && c == nil {
				c = o
			}
		}
	}
	if c == nil {
		return errLeaderless
	}
	schema := s.schema.Load()
	status := s.settle(c)
	for _, o := range s.conns {
		if o != nil {
			o.part = part{}
			if r.joined[o] {
				o.applied = s.settings.seq
			}
		}
	}
	s.behind = false
	if r.age != schema {
		r.age = schema
		clear(r.tables)
	}
	s.pipe.reset()
	return s.client.SendRaw(wire.ReadyForQuery, []byte{status})
}

// writeTail gives the client the end of the answer before, and what came with it.
func (s *Session) writeTail() error {
	r := s.rep
	for _, b := range [][]byte{r.tail, r.news} {
		if len(b) == 0 {
			continue
		}
		if _, err := s.client.Write(b); err != nil {
			return err
		}
	}
	r.tail, r.news = r.tail[:0], r.news[:0]
	return nil
}

// endInner commits or rolls back a block of our own.
func (s *Session) endInner() error {
	r := s.rep
	if r.main().Status == 'E' || s.pipe.failed {
		s.abandon("ROLLBACK")
		if _, err := s.bid(r.main(), "ROLLBACK"); err != nil {
			return err
		}
		s.pipe.failed = true
		r.tail = r.tail[:0]
		s.endBlock()
		return nil
	}
	ok, err := s.commit(nil)
	if err != nil {
		return err
	}
	if !ok {
		s.pipe.failed = true
		s.router.Failed(0)
	}
	s.endBlock()
	return nil
}

// alone has one node run a read.
func (s *Session) alone(a *act) (ok bool, err error) {
	r := s.rep
	s.sameShape(a)
	c, err := s.readerFor(a)
	if err != nil {
		return false, err
	}
	s.countRoute(a.decision)
	s.count(c, a.verdict)
	c.note([]byte(a.text))
	s.router.Send(a.verdict, a.decision)
	shut := !r.open && s.cfg.BackendClusteringMode == conf.SnapshotIsolation && sees(a.verdict)
	if shut {
		if err := s.gates.enter(s.task, toSee); err != nil {
			return false, err
		}
		_, err := s.bid(c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SELECT 1")
		s.gates.leave()
		if err != nil {
			return false, err
		}
	}
	for i := range a.volley {
		if m := &a.volley[i]; m.kind == wire.Bind && m.portal != nil {
			m.portal.server = c
		}
	}
	s.running(c)
	before := s.client.Sent() + uint64(s.client.Unsent())
	wants, err := s.fire(c, a)
	var said outcome
	if err == nil {
		said, err = s.hear(c, &wants, true, false)
	}
	if stopped := s.ran(); err == nil {
		err = stopped
	}
	if bad, lost := errors.AsType[*backend.Error](err); lost && bad.Node == c.Node && c.Node != s.main && !shut && before == s.client.Sent()+uint64(s.client.Unsent()) {
		return s.readAgain(c, a, err)
	}
	if err == nil && said.copies {
		err = s.outOfPlace(c, wire.CopyInResponse)
	}
	if err != nil {
		return false, err
	}
	if shut {
		if _, err := s.bid(c, "COMMIT"); err != nil {
			return false, err
		}
	}
	if said.said != nil {
		s.pipe.failed = true
		s.router.Failed(0)
		if r.open && c != r.main() && c.Status == 'E' {
			// The client's block has failed with it, on all nodes.
			if _, err := s.bid(r.main(), `ROLLBACK TO SAVEPOINT "a read of this transaction has failed on another node"`); err == nil {
				return false, s.outOfPlace(r.main(), wire.CommandComplete)
			} else if _, refused := errors.AsType[*backend.Refusal](err); !refused {
				return false, err
			}
		}
		return false, nil
	}
	if s.marks.listens && !r.open && c.Node != s.main {
		// A reply comes after the notifications of what was committed before the
		// statement was sent: see glance.
		if main := s.conns[s.main]; main != nil {
			main.SendRaw(wire.Sync, nil)
			if _, err := s.took(main); err != nil {
				return false, err
			}
		}
	}
	s.note(a)
	s.router.Done()
	return true, nil
}

// sameShape has a prepared statement that is older than the last change of the
// schema run where it is prepared already: its columns are those that the client has
// been told of, or the server refuses to run it.
func (s *Session) sameShape(a *act) {
	r := s.rep
	if a.server != nil || !a.decision.Balanced {
		return
	}
	for i := range a.volley {
		st := a.volley[i].stmt
		if a.volley[i].kind != wire.Bind || st == nil || st.age == s.schema.Load() {
			continue
		}
		knows := func(node int) bool {
			return node < len(s.conns) && s.conns[node] != nil && r.known[s.conns[node]][st.name] == st
		}
		for node := range s.conns {
			if !knows(a.decision.Node) && knows(node) {
				a.decision.Node = node
			}
		}
	}
}

// readAgain has the main node run a read whose node was lost before the client has
// heard of it.
func (s *Session) readAgain(c *server, a *act, err error) (bool, error) {
	c.Taint()
	s.suspect(err)
	if s.rep.open {
		if err := s.without(c, err, false); err != nil {
			return false, err
		}
	} else if s.conns[c.Node] == c {
		s.drop(c)
	}
	s.router.ReadNode = -1
	s.router.Failed(0)
	a.decision.Node, a.decision.Balanced = s.main, false
	return s.alone(a)
}

// readerFor is the server that runs a read, ready for it.
func (s *Session) readerFor(a *act) (*server, error) {
	r := s.rep
	if r.open {
		if err := s.together(); err != nil {
			return nil, err
		}
		if r.failed() {
			return r.main(), nil
		}
		if a.server != nil && slices.Contains(r.set, a.server) {
			return a.server, nil
		}
		if sees(a.verdict) {
			if err := s.align(); err != nil {
				return nil, err
			}
		}
		for _, c := range r.set {
			if c.Node == a.decision.Node && a.decision.Balanced {
				return c, nil
			}
		}
		return r.main(), nil
	}
	if a.decision.Balanced {
		s.drawn(a.decision)
	}
	node := a.decision.Node
	for {
		if node < 0 || node >= len(s.conns) {
			node = s.main
		}
		c, err := s.lone(node)
		if err == nil || node == s.main {
			if err == nil {
				return c, nil
			}
			if !s.mendable(err) {
				return nil, err
			}
			// Perhaps it is about to be detached: find out like a write.
			if err := s.gather(); err != nil {
				return nil, err
			}
			s.endBlock()
			return s.conns[s.main], nil
		}
		if !blames(err, node) {
			return nil, err
		}
		s.suspect(err)
		s.log.LogAttrs(ctx, eventlog.Warning, fmt.Sprintf("node %d cannot take a read, node %d does", node, s.main), slog.Any("err", err))
		s.router.ReadNode = -1
		node = s.main
	}
}

// lone makes one node's server ready for a read outside of a block.
func (s *Session) lone(node int) (*server, error) {
	r := s.rep
	c := s.conns[node]
	if c != nil && c.Stirred() {
		if err := s.unasked(c); err != nil {
			return nil, err
		}
		c = s.conns[node]
	}
	if c != nil && c.HungUp() {
		c.Taint()
		s.drop(c)
		c = nil
	}
	if c != nil && (r.joined[c] || !r.begun) {
		return c, nil
	}
	if r.begun { // it must be in the state that all share
		if err := s.gather(); err != nil {
			return nil, err
		}
		s.endBlock()
		if c := s.conns[node]; c != nil {
			return c, nil
		}
		return s.conns[s.main], nil
	}
	if c == nil {
		if err := s.reach(node); err != nil {
			return nil, err
		}
	}
	return s.conns[node], nil
}
