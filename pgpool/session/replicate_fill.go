package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/wire"
)

// What a COPY FROM STDIN gets for columns that it leaves out: the values of their
// defaults, which the main node is asked for; those that are new for every row are
// made here, or asked of another node, as the main node is busy with the COPY.

// steady is parser.Replace's: whether the main node takes an expression for one
// that is not volatile.
func (s *Session) steady(failed *error) func(parser.Name, parser.Column, string) bool {
	return func(n parser.Name, c parser.Column, expr string) bool {
		t, err := s.relation(quotedName(n))
		if err != nil || *failed != nil {
			return false // an error has been noted
		}
		yes, known := t.steady[c.Default]
		if !known {
			yes, *failed = s.explained(expr)
			t.steady[c.Default] = yes
		}
		return yes
	}
}

// explained is steady's look at the main node's plan: a condition that no row can
// change is none of the scan's. What cannot be explained, as the user may not name what
// a default uses, is not steady.
func (s *Session) explained(expr string) (bool, error) {
	main := s.rep.main()
	rows, err := s.bid(main, "SAVEPOINT "+own,
		"EXPLAIN (COSTS OFF) SELECT FROM pg_catalog.generate_series(1, 2) WHERE pg_catalog.num_nulls("+expr+") OPERATOR(pg_catalog.=) 0",
		"RELEASE SAVEPOINT "+own)
	if no, refused := errors.AsType[*backend.Refusal](err); refused && main.Status == 'E' && no.Said.Code != "57014" {
		_, err = s.bid(main, "ROLLBACK TO SAVEPOINT "+own, "RELEASE SAVEPOINT "+own)
		return false, err
	}
	return !slices.ContainsFunc(rows, func(row []string) bool { return strings.HasPrefix(strings.TrimSpace(row[0]), "Filter:") }), err
}

// fillerFor asks for the values that are needed first.
func (s *Session) fillerFor(what *parser.Filling) (*filler, error) {
	main := s.rep.main()
	f := newFiller(what)
	encoding := main.Param("client_encoding")
	foreign := what.Form.Encoding != "" && encodingName(what.Form.Encoding) != encodingName(encoding)
	if foreign {
		encoding = what.Form.Encoding
	}
	f.wide, f.foreign = wideEncoding(encoding), foreign
	var major int
	fmt.Sscan(main.Param("server_version"), &major)
	f.dots = !what.Form.CSV || major < 18 // where it is data
	var once []string
	var to []*supply
	for _, o := range f.supplies {
		if !o.Every {
			once, to = append(once, o.expression()), append(to, o)
		}
	}
	if len(once) > 0 {
		rows, err := s.values(main, "SELECT "+strings.Join(once, ", "), what.Form.Binary)
		if err != nil {
			return nil, err
		}
		for i, o := range to {
			if o.fixed, err = f.rendered(o, rows[0][i]); err != nil {
				return nil, err
			}
		}
	}
	return f, s.refill(f)
}

// expression has the value as the column's type, whose modifiers COPY applies.
func (o *supply) expression() string { return "CAST(" + o.Expr + " AS " + o.Type + ")" }

// rendered is a value of the server's as it is put into data.
func (f *filler) rendered(o *supply, v []byte) ([]byte, error) {
	out, ok := f.render(nil, v)
	for _, c := range v {
		ok = ok && (c < 0x80 || !f.foreign || f.form.Binary)
	}
	if !ok {
		return nil, &wire.Error{Severity: "ERROR", Code: "0A000", Message: "this statement cannot be made to do the same on all nodes",
			Detail: fmt.Sprintf("COPY leaves out column \"%s\", and its data has no way of writing the default.", o.Name)}
	}
	return out, nil
}

// refillRows is how many values are asked for at a time.
const refillRows = 500

// refill asks for values of which there must be a new one for every row, of another
// node than the main one.
func (s *Session) refill(f *filler) error {
	if !f.lacks() {
		return nil
	}
	var each []string
	var to []*supply
	for _, o := range f.supplies {
		if o.asked() && len(o.queue) == 0 {
			each, to = append(each, o.expression()), append(to, o)
		}
	}
	rows, err := s.values(s.rep.set[len(s.rep.set)-1], fmt.Sprintf("SELECT %s FROM pg_catalog.generate_series(1, %d)", strings.Join(each, ", "), refillRows), f.form.Binary)
	if err != nil {
		return err
	}
	for i, o := range to {
		o.queue = o.queue[:0]
		for _, row := range rows {
			v, err := f.rendered(o, row[i])
			if err != nil {
				return err
			}
			o.queue = append(o.queue, v)
		}
	}
	return nil
}

// values asks a node. Texts are such that COPY understands them: some of the ways to
// write a time that clients may have set have names of zones that mean several.
func (s *Session) values(c *server, sql string, inBinary bool) ([][][]byte, error) {
	format := int16(0)
	if inBinary {
		format = 1
	}
	odd := !inBinary && !strings.HasPrefix(c.Param("DateStyle"), "ISO")
	if odd {
		if _, err := s.bid(c, "SELECT pg_catalog.set_config('pgpool_go.datestyle', pg_catalog.current_setting('DateStyle'), true)", "SELECT pg_catalog.set_config('DateStyle', 'ISO', true)"); err != nil {
			return nil, err
		}
	}
	if s.marks.loud {
		s.record(c, "", []byte(sql))
	}
	c.Send(&pgproto3.Close{ObjectType: 'P', Name: own}, &pgproto3.Close{ObjectType: 'S', Name: own}, &pgproto3.Parse{Name: own, Query: sql},
		&pgproto3.Bind{PreparedStatement: own, DestinationPortal: own, ResultFormatCodes: []int16{format}},
		&pgproto3.Execute{Portal: own}, &pgproto3.Close{ObjectType: 'P', Name: own}, &pgproto3.Close{ObjectType: 'S', Name: own}, &pgproto3.Sync{})
	rows, err := s.tookValues(c)
	if err == nil && odd {
		_, err = s.bid(c, "SELECT pg_catalog.set_config('DateStyle', pg_catalog.current_setting('pgpool_go.datestyle'), true)")
	}
	return rows, err
}

// fillFrame takes a frame of the client's data, of that size, to the main node,
// filled.
func (s *Session) fillFrame(main *server, size int, data *spool, fill *filler) error {
	for at := 5; at < size; {
		out, n := fill.feed(fill.frame(), s.client.Bytes()[at:size])
		if err := fill.deliver(main, data, out); err != nil {
			return err
		}
		if at += n; fill.lacks() {
			if err := s.refill(fill); err != nil {
				return err
			}
		}
	}
	if s.client.Buffered() == size {
		return main.Flush()
	}
	return nil
}

// noValues is what an error says that leaves the connections in order.
func noValues(err error) (why string, ok bool) {
	if no, ok := errors.AsType[*backend.Refusal](err); ok && no.Said.Severity == "ERROR" {
		return no.Said.Message, true
	}
	if word, ok := errors.AsType[*wire.Error](err); ok && word.Severity == "ERROR" {
		return word.Detail, true
	}
	return "", false
}

// frame is an empty CopyData, in room that is used again and again.
func (f *filler) frame() []byte { return append(f.out[:0], wire.CopyData, 0, 0, 0, 0) }

func (f *filler) deliver(main *server, data *spool, frame []byte) error {
	if f.out = frame; len(frame) == 5 {
		return nil
	}
	setLength(frame)
	if err := data.add(frame); err != nil {
		return err
	}
	_, err := main.Write(frame)
	return err
}

// lessColumns is a CopyInResponse without the columns that were put in front.
func (f *filler) lessColumns(body []byte) []byte {
	n := len(f.front)
	if len(body) < 3+2*n {
		return body
	}
	out := append([]byte{body[0], 0, 0}, body[3+2*n:]...)
	binary.BigEndian.PutUint16(out[1:], binary.BigEndian.Uint16(body[1:])-uint16(n))
	return out
}

// unfilled is an ErrorResponse or NoticeResponse as it would be without us.
func unfilled(f *filler, body []byte) []byte {
	out := make([]byte, 0, len(body))
	for len(body) > 0 && body[0] != 0 {
		text, rest, ok := wire.CString(body[1:])
		if !ok {
			break
		}
		out = append(out, body[0])
		if body[0] == 'W' || body[0] == 'M' {
			text = []byte(f.unfilled(body[0], string(text)))
		}
		out = append(append(out, text...), 0)
		body = rest
	}
	return append(out, body...)
}
