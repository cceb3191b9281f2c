package session

import (
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/pgpool/wire"
)

// Pool commands in the extended protocol, which most drivers speak. The original
// leaves them to the server, who knows them not.
//
// Their statements and portals are ours alone: no server hears of them. Each
// message is answered when it comes, after what is still due from a server, so
// that the pipeline keeps its order.

// oidText is the type of all columns. Its binary form is its text, so whatever
// format a Bind asks for is given.
const oidText = 25

// local is a portal of a pool command.
type local struct {
	stmt    *statement
	formats []int16
	cols    []string
	rows    [][]string // that are left
	tag     string
	run     bool
}

// local tells whether the statement is answered here.
func (st *statement) local() bool { return st != nil && st.verdict.Pool != nil }

// inOrder settles what is due before a local answer. It reports false if the
// pipeline has failed, or fails now because the transaction has; the message is
// consumed then.
func (s *Session) inOrder(size int, st *statement) (bool, error) {
	s.batch.safe = false
	err := s.cut()
	if err == nil && !s.pipe.skipping {
		if st == nil || s.readyForQuery().TxStatus != 'E' {
			return true, nil
		}
		err = aborted(st.text())
	}
	s.client.Skip(size)
	return false, s.refuseInPipeline(err)
}

// parseLocal takes the statement st of a pool command; its frame is the message.
func (s *Session) parseLocal(st *statement, size int) error {
	if ok, err := s.inOrder(size, st); !ok {
		return err
	}
	s.client.Skip(size)
	if st.name != "" {
		s.stmts[st.name] = st
	} else {
		if s.unnamed != nil {
			s.recycle(s.unnamed)
		}
		s.unnamed = st
	}
	return s.client.Send(&pgproto3.ParseComplete{})
}

func (s *Session) bindLocal(st *statement, size int) error {
	if size > smallMessage { // it has nothing to say but names
		if err := s.client.Discard(size); err != nil {
			return err
		}
		return s.refuseInPipeline(errFormat)
	}
	_, body, err := s.client.Frame(smallMessage)
	if err != nil {
		return err
	}
	name, rest, _ := wire.CString(body)
	_, rest, _ = wire.CString(rest)
	p := &portal{name: string(name), verdict: st.verdict, local: &local{stmt: st}}
	params, formats, ok := bound(rest)
	if ok, err := s.inOrder(size, st); !ok {
		return err
	}
	s.client.Skip(size)
	switch old := s.portals.find([]byte(p.name)); {
	case !ok:
		return s.refuseInPipeline(errFormat)
	case params != 0:
		return s.refuseInPipeline(&wire.Error{Severity: "ERROR", Code: "08P01",
			Message: fmt.Sprintf("bind message supplies %d parameters, but prepared statement \"%s\" requires 0", params, st.name)})
	case p.name != "" && old != nil && (old.server != nil || old.local != nil):
		return s.refuseInPipeline(cursorExists(p.name))
	}
	p.local.formats = formats
	s.portals.put(p)
	return s.client.Send(&pgproto3.BindComplete{})
}

func cursorExists(name string) *wire.Error {
	return &wire.Error{Severity: "ERROR", Code: "42P03", Message: fmt.Sprintf("cursor \"%s\" already exists", name)}
}

// bound reads what follows the names in a Bind without parameters. If there are
// some it only counts them.
func bound(b []byte) (params int, formats []int16, ok bool) {
	next := func() (int, bool) {
		if len(b) < 2 {
			return 0, false
		}
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		return n, true
	}
	n, ok := next()
	for ; ok && n > 0; n-- {
		_, ok = next() // formats of parameters
	}
	if !ok {
		return 0, nil, false
	}
	if params, ok = next(); !ok || params > 0 {
		return params, nil, ok
	}
	for n, ok = next(); ok && n > 0; n-- {
		var f int
		f, ok = next()
		formats = append(formats, int16(f))
	}
	return 0, formats, ok && len(b) == 0
}

// describeLocal describes a statement, or the portal p of it.
func (s *Session) describeLocal(st *statement, p *local, size int) error {
	if ok, err := s.inOrder(size, st); !ok {
		return err
	}
	s.client.Skip(size)
	cols, word := s.columns(st.verdict.Pool)
	if word != nil {
		return s.refuseInPipeline(word)
	}
	var formats []int16
	if p != nil {
		formats = p.formats
	} else if err := s.client.Send(&pgproto3.ParameterDescription{}); err != nil {
		return err
	}
	if cols == nil {
		return s.client.Send(&pgproto3.NoData{})
	}
	return s.client.Send(describeRows(cols, oidText, formats))
}

// executeLocal carries a pool command out, or goes on with its rows. With limit
// positive it stops after so many.
func (s *Session) executeLocal(p *local, limit, size int) error {
	if ok, err := s.inOrder(size, p.stmt); !ok {
		return err
	}
	s.client.Skip(size)
	s.logStatement(p.stmt.text())
	if !p.run {
		s.slot.routes.Note(answered)
		a := s.perform(p.stmt.verdict.Pool, true)
		if a.fatal != nil {
			return a.fatal
		}
		if err := s.sendNotice(a.notice); err != nil {
			return err
		}
		if a.err != nil {
			return s.refuseInPipeline(a.err)
		}
		p.run, p.cols, p.rows, p.tag = true, a.cols, a.rows, a.tag
	}
	rows := p.rows
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
	}
	p.rows = p.rows[len(rows):]
	if err := s.sendRows(rows); err != nil {
		return err
	}
	if len(p.rows) > 0 {
		return s.client.Send(&pgproto3.PortalSuspended{})
	}
	return s.client.Send(&pgproto3.CommandComplete{CommandTag: completion(p.cols, len(rows), p.tag)})
}

// closeLocal answers a Close; the object is forgotten already.
func (s *Session) closeLocal(size int) error {
	if ok, err := s.inOrder(size, nil); !ok {
		return err
	}
	s.client.Skip(size)
	return s.client.Send(&pgproto3.CloseComplete{})
}
