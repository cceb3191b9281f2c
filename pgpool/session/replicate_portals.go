package session

import (
	"encoding/binary"
	"slices"

	"pgpool-go/parser"
	"pgpool-go/pgpool/wire"
)

// Where portals are, and what a pipeline that fails leaves of its statements.

// at has the queue go to a server whose portal the next message names, or with nil
// not to one alone, if that is where the portals named before are not.
func (s *Session) at(c *server) error {
	r := s.rep
	if len(r.queue) > 0 && r.at != c && (r.at != nil || s.anyForAll(r.queue) || s.queuedBind()) {
		if err := s.discharge(false); err != nil {
			return err
		}
	}
	r.at = c
	return nil
}

// cursorAt is the server that has the portal which FETCH, MOVE or CLOSE names, if it
// is on one node only.
func (s *Session) cursorAt(v *parser.Verdict) *server {
	if v.Class != parser.Fetch && v.Class != parser.CloseCursor || v.Name == "" {
		return nil
	}
	return s.portalAt(v.Name)
}

// portalAt is the server that has a portal, if it is on one node only.
func (s *Session) portalAt(name string) *server {
	if p := s.rep.portals[name]; p != nil && !p.all {
		return p.server
	}
	return nil
}

// forgetUndone undoes what was noted for the messages from an error on, the last
// first: what they were to make is not there, and what they were to end is. But a
// Parse that fails has ended the unnamed statement before.
func (s *Session) forgetUndone(q volley) {
	r := s.rep
	failed := slices.IndexFunc(q, func(m message) bool { return !m.done })
	for i := range slices.Backward(q) {
		m := &q[i]
		switch {
		case m.done:
		case m.kind == wire.Parse && r.stmts[m.stmt.name] == m.stmt:
			if delete(r.stmts, m.stmt.name); m.before != nil && i != failed {
				r.stmts[m.stmt.name] = m.before
			}
		case m.kind == wire.Close && m.stmt != nil:
			if m.stmt.verdict != nil {
				r.stmts[m.stmt.name] = m.stmt
			}
			if m.sql != nil {
				r.sql[m.stmt.name] = m.sql
			}
		}
	}
}

// noStatement is the error that names a statement which there is not. It is ours: a
// node that took no part in ending a statement may still have it.
func noStatement(name string) *wire.Error {
	word := &wire.Error{Severity: "ERROR", Code: "26000", Message: "prepared statement \"" + name + "\" does not exist"}
	if name == "" {
		word.Message = "unnamed prepared statement does not exist"
	}
	return word
}

// withParams is a Bind message with more parameters, as text. If the client has
// not given as many as it should, the server is to say so.
func withParams(portal, stmt string, args []byte, given int, values []string) []byte {
	frame := append([]byte{wire.Bind}, 0, 0, 0, 0)
	frame = append(append(frame, portal...), 0)
	frame = append(append(frame, stmt...), 0)
	plain := func() []byte {
		frame = append(frame, args...)
		setLength(frame)
		return frame
	}
	take := func(b []byte) (int, []byte, bool) {
		if len(b) < 2 {
			return 0, nil, false
		}
		return int(binary.BigEndian.Uint16(b)), b[2:], true
	}
	formats, rest, ok := take(args)
	if !ok || len(rest) < 2*formats {
		return plain()
	}
	codes := rest[:2*formats]
	n, rest, ok := take(rest[2*formats:])
	if !ok || n != given {
		return plain()
	}
	params := rest
	for range n {
		if len(rest) < 4 {
			return plain()
		}
		size := int(int32(binary.BigEndian.Uint32(rest)))
		rest = rest[4:]
		if size > 0 {
			if size > len(rest) {
				return plain()
			}
			rest = rest[size:]
		}
	}
	params = params[:len(params)-len(rest)]
	frame = binary.BigEndian.AppendUint16(frame, uint16(n+len(values)))
	for i := range n {
		switch {
		case formats == 1:
			frame = append(frame, codes...)
		case i < formats:
			frame = append(frame, codes[2*i:2*i+2]...)
		default:
			frame = append(frame, 0, 0)
		}
	}
	for range values {
		frame = append(frame, 0, 0)
	}
	frame = binary.BigEndian.AppendUint16(frame, uint16(n+len(values)))
	frame = append(frame, params...)
	for _, v := range values {
		frame = binary.BigEndian.AppendUint32(frame, uint32(len(v)))
		frame = append(frame, v...)
	}
	frame = append(frame, rest...)
	setLength(frame)
	return frame
}
