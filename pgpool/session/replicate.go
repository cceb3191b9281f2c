package session

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

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
	server   *server         // that has the portal it reads from, if it is on one node only
	making   *prepared       // by PREPARE
	fill     *parser.Filling // for the data of a COPY
}

// everywhere tells whether a statement goes to all nodes rather than to one that
// is read.
func (s *Session) everywhere(v *parser.Verdict, d route.Decision, text []byte) bool {
	switch {
	case v.Class == parser.Empty, v.Class == parser.Show:
		return false
	case v.Class == parser.SetTx && v.Transaction.Snapshot:
		return false // it is the main node's, where the reads of the transaction are then
	case locksAlone(v):
		return false
	case !v.Reads || d.Write || d.Reason == route.ReasonUnresolved:
		return true
	}
	return v.Class == parser.Select && (s.cfg.ReplicateSelect || wishes(text, "/*REPLICATION*/"))
}

// locksAlone tells whether a statement locks rows that nobody has locked, or deals with
// advisory locks, and does nothing else. Who has which the main node says: asked one
// after the other, two sessions could each have a lock on one of two nodes. And whoever
// writes must have the locks there before it comes to other nodes.
func locksAlone(v *parser.Verdict) bool {
	return v.Class == parser.Select && !v.Writes && !v.WritingWith && (v.SkipsLocked || !v.Locks && parser.Advisory(v)) && v.PlainFunctions()
}

// followMain makes a node the session's main node. Locks that the session had on the one
// before are gone with it.
func (s *Session) followMain(node int) error {
	if node == s.main {
		return nil
	}
	was := s.main
	s.main = node
	if slices.Contains(s.marks.held, advisoryLocks) {
		return &wire.Error{Severity: "FATAL", Code: "57P01", Message: fmt.Sprintf("node %d leads now, and not node %d, on which this session had advisory locks", node, was), Hint: "Connect again."}
	}
	return nil
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
			if err := s.followMain(s.snap.Main); err != nil {
				return route.Decision{}, err
			}
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
	defer s.unguard()
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
	if ok && v.Catalog || reshapes(a) {
		r.schema = true
		r.shift()
	}
	if len(v.Settings) > 0 || v.SettingsUnknown != parser.ScopeNone || v.Class == parser.Discard || v.Class == parser.Rollback || v.Class == parser.RollbackTo {
		r.shift() // names may mean others
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
	case v.Class == parser.SetTx && ok && r.open:
		if err := s.isolate(); err != nil {
			return ok, err
		}
	case main.Status == 'T' && v.Transaction != nil && v.Transaction.Chain && ok:
		s.settleNames()
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
	if slices.ContainsFunc(a.verdict.Functions, keepsLock) {
		s.hold(advisoryLocks)
	}
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
	for _, c := range r.set {
		if err := s.learnNumbers(c, a); err != nil {
			return false, err
		}
	}
	main := r.main()
	var fill *filler
	if a.fill != nil {
		if fill, err = s.fillerFor(a.fill); err != nil {
			return false, err
		}
		r.fill = fill
		defer func() { r.fill = nil }()
	}
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
		said, err = s.copyToMain(main, wants, said, data, fill)
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
	if r.open && said.said != nil {
		// The block has failed, and the main node's locks with it: what others have
		// found since may be another's doing.
		for _, c := range r.others() {
			if heard[c].said == nil {
				s.log.LogAttrs(ctx, eventlog.Warning, fmt.Sprintf("node %d has run a statement that has failed on the main node", c.Node), slog.String("detail", "Its transaction is rolled back: "+a.text))
			}
		}
		return false, nil
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

// endReplicated ends a Query or a pipeline: a block of our own is committed, or rolled
// back if it has failed, and the client is told what comes of it.
func (s *Session) endReplicated() error {
	r := s.rep
	s.unguard()
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
