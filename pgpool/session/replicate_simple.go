package session

import (
	"bytes"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// replicateQuery runs a Query message. The statements of a string of several are
// run one after the other, in one block as on a server.
func (s *Session) replicateQuery(size int) error {
	_, body, err := s.client.Frame(wire.MaxFrame)
	if err != nil {
		return err
	}
	sql, _, ok := wire.CString(body)
	whole := ok && len(sql) == len(body)-1
	sql = bytes.Clone(sql)
	if s.logsMessages() {
		s.message("Query", "query: "+quote(sql))
	}
	if s.rep.queue.any() {
		if err := s.discharge(false); err != nil {
			return err
		}
	}
	s.client.Skip(size)
	if s.pipe.skipping {
		return nil
	}
	if !whole {
		return s.refuseAll(errFormat)
	}
	v := s.verdictOn(sql)
	s.logStatement(sql)
	if v.Pool != nil {
		return s.poolCommand(v, sql)
	}
	s.unnamed = nil
	delete(s.rep.stmts, "")
	if v.Class != parser.Empty {
		delete(s.rep.portals, "")
		s.portals.unnamed.close()
	}
	parts := v.Parts
	if v.Class != parser.Multi {
		parts = []*parser.Verdict{v}
	}
	for _, part := range parts {
		text := sql
		if len(parts) > 1 {
			text = []byte(part.Text)
		}
		ok, err := s.replicatePart(part, text, len(parts) > 1)
		if err != nil {
			return s.refuseAll(err)
		}
		if !ok {
			break
		}
	}
	return s.endReplicated()
}

// replicatePart runs one statement of a Query.
func (s *Session) replicatePart(v *parser.Verdict, text []byte, several bool) (ok bool, err error) {
	r := s.rep
	if err := s.writeTail(); err != nil {
		return false, err
	}
	d, err := s.consult(v, text, false)
	if err != nil {
		return false, err
	}
	a := &act{verdict: v, decision: d, text: string(text)}
	if r.failed() && v.Transaction == nil {
		a.volley = volley{query(text)}
		s.router.Send(v, d)
		ok, err := s.runOnMain(a)
		if !ok {
			s.pipe.failed = true
			s.router.Failed(0)
		}
		return ok, err
	}
	if v.Class == parser.Execute && r.stmts[v.Name] == nil && r.sql[v.Name] == nil {
		return false, noStatement(v.Name)
	}
	if a.server = s.cursorAt(v); a.server != nil || !s.everywhere(v, d, text) {
		a.volley = volley{query(text)}
		if several && locksAlone(v) { // for what follows
			if err := s.prepareAll(v, true); err != nil {
				return false, err
			}
		}
		return s.alone(a)
	}
	if err := s.outside(v, several); err != nil {
		return false, err
	}
	if err := s.prepareAll(v, several && v.Transaction == nil); err != nil {
		return false, err
	}
	sent, fill, err := s.reword(v, text)
	if err != nil {
		return false, err
	}
	a.fill = fill
	a.volley = volley{query(sent)}
	return s.performAll(a)
}

func query(sql []byte) message {
	frame, _ := (&pgproto3.Query{String: string(sql)}).Encode(nil)
	return message{kind: wire.Query, frame: frame}
}

// refuseAll answers with an error of our own, which fails the client's block.
func (s *Session) refuseAll(err error) error {
	word, err := s.ownWord(err)
	if err != nil {
		return err
	}
	r := s.rep
	r.tail = r.tail[:0]
	s.pipe.failed = true
	s.router.Failed(0)
	if err := s.client.Send(word.Response()); err != nil {
		return err
	}
	if err := s.failBlock(); err != nil {
		return err
	}
	return s.endReplicated()
}

// failBlock makes the main node fail the client's block, because of an error of
// our own.
func (s *Session) failBlock() error {
	r := s.rep
	if !r.open {
		s.endBlock()
		return nil
	}
	if !r.inner && r.main().Status == 'T' {
		if _, err := s.bid(r.main(), `ROLLBACK TO SAVEPOINT "a statement of this transaction was refused by the proxy"`); err == nil {
			return s.outOfPlace(r.main(), wire.CommandComplete)
		} else if r.main().Status != 'E' {
			return err
		}
	}
	return nil
}

// replicateFunction runs a FunctionCall on all nodes.
func (s *Session) replicateFunction(size int) error {
	_, body, err := s.client.Frame(wire.MaxFrame)
	if err != nil {
		return err
	}
	body = bytes.Clone(body)
	if s.rep.queue.any() {
		if err := s.discharge(false); err != nil {
			return err
		}
	}
	s.client.Skip(size)
	if s.pipe.skipping {
		return nil
	}
	a := &act{verdict: opaque, decision: route.Decision{Node: s.main, Reason: route.ReasonOpaque, Write: true}, text: "function call"}
	err = s.prepareAll(opaque, true)
	if err == nil {
		body, err = s.largeObject(body)
	}
	if err == nil {
		frame := append([]byte{wire.FunctionCall}, 0, 0, 0, 0)
		frame = append(frame, body...)
		setLength(frame)
		a.volley = volley{{kind: wire.FunctionCall, frame: frame}}
		s.rep.numbers.used = s.rep.numbers.used || len(a.volley[0].numbers()) > 0
		_, err = s.performAll(a)
	}
	if err != nil {
		return s.refuseAll(err)
	}
	return s.endReplicated()
}
