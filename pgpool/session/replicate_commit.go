package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/wire"
)

// How a block ends on all nodes.

// finish ends a block of the client's: COMMIT on the others first and on the main
// node last, whose answer the client gets.
func (s *Session) finish(a *act) (ok bool, err error) {
	r := s.rep
	main := r.main()
	if !r.open { // the server says what it thinks of that
		return s.runOnMain(a)
	}
	if ok, err := s.prelude(a); !ok {
		return false, err
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

// prelude has the main node answer what stands before the Execute that ends a block.
// That may fail, as a Bind with parameters does, and then nothing is to be committed
// anywhere.
func (s *Session) prelude(a *act) (ok bool, err error) {
	n := slices.IndexFunc(a.volley, func(m message) bool { return m.run != nil })
	if n <= 0 {
		return true, nil
	}
	main := s.rep.main()
	head := *a
	head.volley, a.volley = a.volley[:n], a.volley[n:]
	wants, err := s.fire(main, &head)
	if err != nil {
		return false, err
	}
	said, err := s.hear(main, &wants, true, false)
	return err == nil && said.said == nil, err
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
	if r.level == "serializable" && len(r.others()) > 0 {
		return s.commitSerial(a, end)
	}
	heard := make(map[*server]outcome, len(r.set))
	if err := s.commitOthers(end, heard); err != nil {
		return false, err
	}
	ok, err = s.commitMain(a, end, heard)
	if err != nil {
		return false, err
	}
	return ok, s.judge(end, heard, nil, true)
}

// commitSerial commits on the main node first: it alone looks whether transactions that
// are serializable could have run one after the other, and may find out only now that
// they could not.
func (s *Session) commitSerial(a *act, end string) (ok bool, err error) {
	heard := make(map[*server]outcome, len(s.rep.set))
	ok, err = s.commitMain(a, end, heard)
	if err != nil {
		return false, err
	}
	if !ok || heard[s.rep.main()].said != nil || heard[s.rep.main()].kinds[0] != 'C' {
		s.abandon(strings.Replace(end, "COMMIT", "ROLLBACK", 1))
		return false, nil
	}
	if err := s.commitOthers(end, heard); err != nil {
		return false, err
	}
	return ok, s.judge(end, heard, nil, true)
}

// commitOthers commits on the nodes beside the main one.
func (s *Session) commitOthers(end string, heard map[*server]outcome) error {
	r := s.rep
	for _, c := range r.others() {
		s.put(c, end)
		c.Flush() // an error shows below
	}
	for _, c := range slices.Clone(r.others()) {
		wants := ownWants()
		got, err := s.hear(c, &wants, false, false)
		if err != nil {
			if err := s.without(c, err, true); err != nil {
				return s.split(err)
			}
			continue
		}
		if heard[c] = committed(got); got.said != nil {
			if err := s.sweep(c); err != nil {
				return s.split(err)
			}
		}
	}
	return nil
}

// commitMain commits on the main node. The client gets its answer if it is the
// client's COMMIT, or an error.
func (s *Session) commitMain(a *act, end string, heard map[*server]outcome) (ok bool, err error) {
	main := s.rep.main()
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
		if err := s.sweep(main); err != nil {
			return false, s.split(err)
		}
		s.rep.tail = nil
		s.client.Send(said.said.Response())
	}
	heard[main] = committed(said)
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
