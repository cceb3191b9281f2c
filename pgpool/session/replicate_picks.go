package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/wire"
)

// Rows that a write chooses by what differs between nodes, as those that nobody has
// locked: the main node is asked for them first, which locks them there, and all nodes
// are sent what it has chosen.

// pick is a subselect of a prepared statement, whose columns are parameters of what
// nodes are sent.
type pick struct {
	parser.Pick
	types   []uint32 // of the client's parameters, as far as it has them
	columns int
}

// picksFor finds the picks of a statement that is about to run on several nodes.
func (s *Session) picksFor(v *parser.Verdict, text []byte) *parser.Picking {
	if !s.canPick() || !v.Writes && !v.WritingWith {
		return nil
	}
	return parser.Picks(text)
}

// canPick tells whether there are others for whom the main node can choose.
func (s *Session) canPick() bool { return len(s.rep.set) >= 2 && !s.rep.failed() }

// withPicks is a text with what the main node has chosen. What cannot be asked of it
// alone is left as it is.
func (s *Session) withPicks(v *parser.Verdict, text []byte) ([]byte, error) {
	p := s.picksFor(v, text)
	if p == nil || p.Params > 0 || !s.rep.open {
		return text, nil
	}
	main := s.rep.main()
	var tables []parser.Picked
	for _, q := range p.Picks {
		found, err := s.explore(main, q.SQL, nil, &pgproto3.Bind{})
		if err != nil || found == nil {
			return text, err
		}
		types, err := s.typesOf(main, found.fields)
		if err != nil || types == nil {
			return text, err
		}
		tables = append(tables, parser.Picked{Names: found.names(), Types: types, Values: found.arrays()})
	}
	sql, err := p.Text(tables)
	if err != nil {
		return nil, s.unfit(err)
	}
	return []byte(sql), nil
}

// prepareWithPicks is the text of a prepared statement whose picks are parameters
// behind the client's.
func (s *Session) prepareWithPicks(st *prepared) (text string, err error) {
	st.picks, st.sent = nil, st.types
	if !st.verdict.Writes && !st.verdict.WritingWith {
		return st.text, nil
	}
	p := parser.Picks([]byte(st.text))
	if p == nil {
		return st.text, nil
	}
	if err := s.gather(); err != nil {
		return "", err
	}
	if err := s.align(); err != nil {
		return "", err
	}
	if !s.canPick() {
		return st.text, nil
	}
	main := s.rep.main()
	n := max(len(st.types), p.Params)
	types := make([]uint32, n)
	copy(types, st.types)
	next := n + 1
	var tables []parser.Picked
	var picks []pick
	for _, q := range p.Picks {
		own := make([]uint32, n)
		for i := range own {
			own[i] = oidText // what it does not have is of any type
		}
		for _, k := range q.Params {
			own[k-1] = types[k-1]
		}
		found, err := s.explore(main, q.SQL, own, nil)
		if err != nil || found == nil {
			return st.text, err
		}
		for _, k := range q.Params {
			if k <= len(found.params) {
				types[k-1], own[k-1] = found.params[k-1], found.params[k-1]
			}
		}
		columns, err := s.typesOf(main, found.fields)
		if err != nil || columns == nil {
			return st.text, err
		}
		tables = append(tables, parser.Picked{Names: found.names(), Types: columns, First: next})
		picks = append(picks, pick{Pick: q, types: own, columns: len(columns)})
		next += len(columns)
	}
	sql, err := p.Text(tables)
	if err != nil {
		return "", s.unfit(err)
	}
	st.picks, st.sent = picks, types
	return sql, nil
}

// pickedColumns are how many parameters the picks of a prepared statement are.
func (p *prepared) pickedColumns() (n int) {
	for i := range p.picks {
		n += p.picks[i].columns
	}
	return n
}

// picked asks the main node what a prepared statement's picks are, given the client's
// parameters.
func (s *Session) picked(st *prepared, args []byte) (values []string, err error) {
	formats, params, ok := bindParams(args)
	if !ok || len(params) != st.params {
		return make([]string, st.pickedColumns()), nil // the server will say so
	}
	for _, q := range st.picks {
		b := &pgproto3.Bind{Parameters: make([][]byte, len(q.types)), ParameterFormatCodes: make([]int16, len(q.types))}
		for _, k := range q.Params {
			b.Parameters[k-1], b.ParameterFormatCodes[k-1] = params[k-1], formats[k-1]
		}
		found, err := s.explore(s.rep.main(), q.SQL, q.types, b)
		if err != nil {
			return nil, err
		}
		if found == nil || len(found.fields) != q.columns {
			return nil, &wire.Error{Severity: "ERROR", Code: "0A000", Message: "cached plan must not change result type"}
		}
		values = append(values, found.arrays()...)
	}
	return values, nil
}

// bindParams takes apart what follows the names in a Bind message.
func bindParams(args []byte) (formats []int16, values [][]byte, ok bool) {
	word := func() int {
		if len(args) < 2 {
			ok = false
			return 0
		}
		n := int(binary.BigEndian.Uint16(args))
		args = args[2:]
		return n
	}
	ok = true
	codes := make([]int16, word())
	for i := range codes {
		codes[i] = int16(word())
	}
	for range word() {
		if len(args) < 4 {
			return nil, nil, false
		}
		size := int(int32(binary.BigEndian.Uint32(args)))
		args = args[4:]
		if size > len(args) {
			return nil, nil, false
		}
		var v []byte
		if size >= 0 {
			v, args = args[:size:size], args[size:]
		}
		values = append(values, v)
	}
	formats = make([]int16, len(values))
	for i := range formats {
		switch {
		case len(codes) == 1:
			formats[i] = codes[0]
		case i < len(codes):
			formats[i] = codes[i]
		}
	}
	return formats, values, ok
}

// explored is what a server has said to a question of ours.
type explored struct {
	params []uint32
	fields []pgproto3.FieldDescription
	rows   [][][]byte
}

func (e *explored) names() (names []string) {
	for _, f := range e.fields {
		names = append(names, string(f.Name))
	}
	return names
}

// arrays are the columns as text of arrays.
func (e *explored) arrays() []string {
	out := make([]string, len(e.fields))
	for k := range e.fields {
		var b strings.Builder
		for i, row := range e.rows {
			if i > 0 {
				b.WriteByte(',')
			}
			if row[k] == nil {
				b.WriteString("NULL")
				continue
			}
			b.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(string(row[k])) + `"`)
		}
		out[k] = "{" + b.String() + "}"
	}
	return out
}

// typesOf are the names of the types of columns; nil if one of them has no values that
// can be written down.
func (s *Session) typesOf(c *server, fields []pgproto3.FieldDescription) ([]string, error) {
	list := make([]number, len(fields))
	pseudo := make([]string, len(fields))
	for i, f := range fields {
		list[i] = number{'t', f.DataTypeOID}
		pseudo[i] = fmt.Sprint(f.DataTypeOID)
	}
	rows, err := s.bid(c, askNames(list), "SELECT pg_catalog.count(*) FROM pg_catalog.pg_type WHERE typtype OPERATOR(pg_catalog.=) 'p' AND oid OPERATOR(pg_catalog.=) ANY ('{"+strings.Join(pseudo, ",")+"}'::pg_catalog.oid[])")
	if err != nil || rows[1][0] != "0" {
		return nil, err
	}
	return rows[0], nil
}

// choosing is the savepoint around a question that may be wrong.
const choosing = `"a choice of the proxy's"`

// explore describes a question to a server, and with b runs it. It is nil if the
// server does not understand it, which leaves a block as it was.
func (s *Session) explore(c *server, sql string, types []uint32, b *pgproto3.Bind) (found *explored, err error) {
	inBlock := c.Status == 'T'
	if inBlock {
		if _, err := s.bid(c, "SAVEPOINT "+choosing); err != nil {
			return nil, err
		}
	}
	if s.marks.loud {
		s.record(c, "", []byte(sql))
	}
	c.Send(&pgproto3.Close{ObjectType: 'S', Name: own}, &pgproto3.Parse{Name: own, Query: sql, ParameterOIDs: types}, &pgproto3.Describe{ObjectType: 'S', Name: own})
	if b != nil {
		run := *b
		run.DestinationPortal, run.PreparedStatement = own, own
		c.Send(&run, &pgproto3.Execute{Portal: own}, &pgproto3.Close{ObjectType: 'P', Name: own})
	}
	c.Send(&pgproto3.Close{ObjectType: 'S', Name: own})
	c.SendRaw(wire.Sync, nil)
	s.running(c)
	found, err = s.tookAll(c)
	if stopped := s.ran(); err == nil {
		err = stopped
	}
	no, refused := errors.AsType[*backend.Refusal](err)
	if err != nil && !refused {
		return nil, err
	}
	end := []string{"RELEASE SAVEPOINT " + choosing}
	if refused {
		end = []string{"ROLLBACK TO SAVEPOINT " + choosing, "RELEASE SAVEPOINT " + choosing}
		if err := s.sweep(c); err != nil {
			return nil, err
		}
	}
	if inBlock {
		if _, err := s.bid(c, end...); err != nil {
			return nil, err
		}
	}
	if refused && strings.HasPrefix(no.Said.Code, "42") {
		return nil, nil
	}
	return found, err
}

// pickLimit bounds what is chosen, all of which is held and sent to every node.
const pickLimit = 32 << 20

// tookAll is took with what is described, and with what is null.
func (s *Session) tookAll(c *server) (*explored, error) {
	var e explored
	size := 0
	refused, err := s.hearOut(c, func(typ byte, body []byte) (err error) {
		switch typ {
		case wire.ParameterDesc:
			var d pgproto3.ParameterDescription
			err = d.Decode(body)
			e.params = d.ParameterOIDs
		case wire.RowDescription:
			var d pgproto3.RowDescription
			err = d.Decode(bytes.Clone(body))
			e.fields = d.Fields
		case wire.DataRow:
			if size += len(body); size > pickLimit {
				return nil
			}
			var row pgproto3.DataRow
			err = row.Decode(bytes.Clone(body))
			e.rows = append(e.rows, row.Values)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if refused == nil && size > pickLimit {
		refused = &wire.Error{Severity: "ERROR", Code: "54000", Message: "a subselect that chooses rows by what differs between nodes has chosen too many",
			Detail: fmt.Sprintf("They are more than %d MB.", pickLimit>>20), Hint: "Give it an ORDER BY."}
	}
	return &e, refused
}
