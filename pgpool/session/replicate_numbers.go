package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/wire"
)

// Nodes number what users create as they like. Clients know the main node's numbers:
// those of types in Parse and of functions in FunctionCall are made the other node's
// before it is sent them, and those in its descriptions of rows the main node's.
// Numbers within values, as of an array's elements in binary form, are left alone:
// servers pass over them, from PostgreSQL 14 on.

// number is an OID of a kind of thing.
type number struct {
	kind byte // 't' type, 'r' relation, 'f' function
	oid  uint32
}

// firstOwn is the lowest OID of what users create.
const firstOwn = 16384

// noOID is what is sent instead of the OID of something that a node has not: it has
// nothing of that number either.
const noOID = 0xfffffffe

// oidUnknown is the type that is told instead of one that the main node has not.
const oidUnknown = 705

// numbering is what a session has found out about numbers.
type numbering struct {
	used  bool              // the client has named something by its number
	base  int               // the node whose numbers the client knows
	names map[number]string // of those it has used
	of    map[*server]map[number]uint32
}

// numbers are those of users' things that a message names.
func (m *message) numbers() (list []number) {
	switch {
	case m.kind == wire.Parse && m.stmt != nil:
		for _, oid := range m.stmt.sent {
			if oid >= firstOwn {
				list = append(list, number{'t', oid})
			}
		}
	case m.kind == wire.FunctionCall && len(m.frame) >= functionOID+4:
		if oid := binary.BigEndian.Uint32(m.frame[functionOID:]); oid >= firstOwn {
			list = append(list, number{'f', oid})
		}
	}
	return list
}

// numbered is a message as a server is sent it.
func (s *Session) numbered(c *server, m *message) []byte {
	if c.Node == s.main || m.kind != wire.Parse && m.kind != wire.FunctionCall {
		return m.frame
	}
	of := s.rep.numbers.of[c]
	if len(of) == 0 {
		return m.frame
	}
	at, kind := functionOID, byte('f')
	if m.kind == wire.Parse {
		at, kind = len(m.frame)-4*len(m.stmt.sent), 't' // they are its end
	}
	frame, count := m.frame, 0
	for ; at+4 <= len(frame) && (kind == 't' || count == 0); at += 4 {
		count++
		was := binary.BigEndian.Uint32(frame[at:])
		if is, ok := of[number{kind, was}]; ok && was >= firstOwn && is != was {
			if &frame[0] == &m.frame[0] {
				frame = bytes.Clone(frame)
			}
			binary.BigEndian.PutUint32(frame[at:], is)
		}
	}
	return frame
}

// learnNumbers finds out what a server calls the things that it is about to be sent
// the numbers of. It is idle, and so is the main node.
func (s *Session) learnNumbers(c *server, a *act) error {
	n := &s.rep.numbers
	if !n.used || s.rep.failed() {
		return nil
	}
	if len(n.names) > 0 && n.base != s.main {
		if err := s.checkNumbers(); err != nil {
			return err
		}
	}
	if c.Node == s.main {
		return nil
	}
	var lacking []number
	s.each(c, a, func(m *message, _ bool) {
		for _, x := range m.numbers() {
			if _, ok := n.of[c][x]; !ok {
				lacking = append(lacking, x)
			}
		}
	})
	if len(lacking) == 0 {
		return nil
	}
	main, err := s.mainIdle()
	if err != nil {
		return err
	}
	names, err := s.bid(main, askNames(lacking))
	if err != nil {
		return err
	}
	oids, err := s.bid(c, askNumbers(lacking, names[0]))
	if err != nil {
		return err
	}
	if n.of[c] == nil {
		n.of[c] = make(map[number]uint32)
	}
	n.base = s.main
	for i, x := range lacking {
		if names[0][i] == strconv.FormatUint(uint64(x.oid), 10) { // the main node has none, and will say so
			n.of[c][x] = x.oid
			continue
		}
		n.names[x] = names[0][i]
		n.of[c][x] = oidOf(oids[0][i], noOID)
	}
	return nil
}

// mainIdle is the main node's server, to be asked something.
func (s *Session) mainIdle() (*server, error) {
	if s.rep.open {
		return s.rep.main(), nil
	}
	return s.lone(s.main)
}

// checkNumbers ends the session if what the client has used has another number on the
// node that leads now.
func (s *Session) checkNumbers() error {
	n := &s.rep.numbers
	main, err := s.mainIdle()
	if err != nil {
		return err
	}
	var list []number
	var names []string
	for x, name := range n.names {
		list, names = append(list, x), append(names, name)
	}
	oids, err := s.bid(main, askNumbers(list, names))
	if err != nil {
		return err
	}
	for i, x := range list {
		if oidOf(oids[0][i], noOID) != x.oid {
			return &wire.Error{Severity: "FATAL", Code: "57P01", Message: fmt.Sprintf("node %d leads now, and numbers types and functions otherwise than node %d did", main.Node, n.base),
				Detail: fmt.Sprintf("This session has used %s by its number.", names[i]), Hint: "Connect again."}
		}
	}
	n.base = s.main
	clear(n.of)
	return nil
}

func oidOf(text string, none uint32) uint32 {
	if oid, err := strconv.ParseUint(text, 10, 32); err == nil && oid != 0 {
		return uint32(oid)
	}
	return none
}

var registers = map[byte]string{'t': "regtype", 'r': "regclass", 'f': "regprocedure"}

// askNames asks for the names of numbers, under the search path that is also
// that of who is asked for the numbers of names.
func askNames(list []number) string {
	columns := make([]string, len(list))
	for i, x := range list {
		columns[i] = fmt.Sprintf("'%d'::pg_catalog.oid::pg_catalog.%s::pg_catalog.text", x.oid, registers[x.kind])
	}
	return "SELECT " + strings.Join(columns, ", ")
}

func askNumbers(list []number, names []string) string {
	columns := make([]string, len(list))
	for i, x := range list {
		if names[i] == strconv.FormatUint(uint64(x.oid), 10) { // there is no such thing
			columns[i] = "NULL"
			continue
		}
		columns[i] = fmt.Sprintf("pg_catalog.to_%s(%s)::pg_catalog.oid", registers[x.kind], quoteText(names[i]))
	}
	return "SELECT " + strings.Join(columns, ", ")
}

// numberings are what nodes' numbers are on others, as far as it was needed. The zero
// value knows nothing. Safe for all goroutines.
type numberings struct {
	mu sync.Mutex
	of map[between]map[number]uint32
}

// between is whose numbers become whose, while both are what they are.
type between struct {
	database string
	from, to int
	since    [2]time.Time
}

// numberingsKept bounds what is remembered of two nodes.
const numberingsKept = 20000

func (n *numberings) find(b between, x number) (oid uint32, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	oid, known = n.of[b][x]
	return oid, known
}

func (n *numberings) note(b between, list []number, oids []uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of == nil {
		n.of = make(map[between]map[number]uint32)
	}
	m := n.of[b]
	if m == nil || len(m) > numberingsKept {
		for old := range n.of {
			if old.database == b.database && old.from == b.from && old.to == b.to {
				delete(n.of, old)
			}
		}
		m = make(map[number]uint32)
		n.of[b] = m
	}
	for i, x := range list {
		m[x] = oids[i]
	}
}

// renumbered is a RowDescription or ParameterDescription of another node with the main
// node's numbers. That of a table which the main node has not, as a temporary one that
// the session has, becomes 0.
func (s *Session) renumbered(c *server, frame []byte) ([]byte, error) {
	var list []number
	var at []int
	describedNumbers(frame, func(kind byte, pos int) {
		if oid := binary.BigEndian.Uint32(frame[pos:]); oid >= firstOwn {
			list, at = append(list, number{kind, oid}), append(at, pos)
		}
	})
	if len(list) == 0 {
		return frame, nil
	}
	snap := s.Cluster.Now()
	b := between{database: s.database, from: c.Node, to: s.main, since: [2]time.Time{changed(snap, c.Node), changed(snap, s.main)}}
	var lacking []number
	for _, x := range list {
		if _, ok := s.numberings.find(b, x); !ok {
			lacking = append(lacking, x)
		}
	}
	if len(lacking) > 0 {
		oids, err := s.askOther(b, lacking)
		if err != nil {
			return nil, err
		}
		s.numberings.note(b, lacking, oids)
	}
	out := frame
	for i, x := range list {
		is, ok := s.numberings.find(b, x)
		if !ok || is == x.oid {
			continue
		}
		if &out[0] == &frame[0] {
			out = bytes.Clone(frame)
		}
		binary.BigEndian.PutUint32(out[at[i]:], is)
	}
	return out, nil
}

func changed(snap *cluster.Snapshot, node int) time.Time {
	if n := snap.Node(node); n != nil {
		return n.Changed
	}
	return time.Time{}
}

// askOther asks both nodes, over connections of their own: the session's are at work.
func (s *Session) askOther(b between, list []number) (oids []uint32, err error) {
	var names, found [][]string
	err = s.aside(b.from, nil, func(limit context.Context, a backend.Asker) (err error) {
		names, err = a.Ask(limit, askNames(list))
		return err
	})
	if err == nil {
		err = s.aside(b.to, nil, func(limit context.Context, a backend.Asker) (err error) {
			found, err = a.Ask(limit, askNumbers(list, names[0]))
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("asking what a type or table is numbered: %w", err)
	}
	for i, x := range list {
		none := uint32(0)
		if x.kind == 't' {
			none = oidUnknown
		}
		oids = append(oids, oidOf(found[0][i], none))
	}
	return oids, nil
}

// describedNumbers calls f for where a description has the number of something.
func describedNumbers(frame []byte, f func(kind byte, at int)) {
	const head = 7 // type, length, count
	if len(frame) < head {
		return
	}
	n, at := int(binary.BigEndian.Uint16(frame[5:])), head
	for range n {
		if frame[0] == wire.ParameterDesc {
			if at+4 > len(frame) {
				return
			}
			f('t', at)
			at += 4
			continue
		}
		end := bytes.IndexByte(frame[at:], 0)
		if at += end + 1; end < 0 || at+18 > len(frame) {
			return
		}
		f('r', at)
		f('t', at+6)
		at += 18
	}
}

// seesParsed tells whether a statement takes a snapshot when it is only parsed or
// described.
func (q volley) seesParsed() bool {
	for i := range q {
		if m := &q[i]; m.stmt != nil && m.stmt.verdict != nil && m.kind != wire.Close && sees(m.stmt.verdict) {
			return true
		}
	}
	return false
}
