package session

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// relation is what the main node knows of a relation, for INSERT and COPY.
type relation struct {
	columns   []parser.Column
	sequences []sequence      // that give its columns values
	steady    map[string]bool // of defaults, as parser.Replace has it
}

type sequence struct {
	oid  uint32 // on the main node; the others' differ
	name string // quoted
	ours bool   // the user may read and set it
	deep bool   // sessions take several values at once, and keep them
}

// askTable takes the relation's name as text. A view's sequences are those of the
// tables it is made of. The schema of temporary ones has another name on each node.
const askTable = `SELECT 'c', a.attname, CASE WHEN a.attgenerated = '' THEN coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '') ELSE '' END,
 pg_catalog.concat_ws(' ', CASE WHEN a.attgenerated <> '' THEN 'g' END, CASE WHEN b.typsend <> 0 AND b.typreceive <> 0 THEN 'b' END,
  CASE WHEN pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'INSERT') THEN 'i' END), pg_catalog.format_type(b.oid, -1), a.attnum
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attnum IS NOT NULL
UNION ALL
SELECT DISTINCT 's', s.oid::pg_catalog.text, pg_catalog.format('%I.%I', CASE WHEN n.oid = pg_catalog.pg_my_temp_schema() THEN 'pg_temp' ELSE n.nspname END, s.relname),
 (pg_catalog.has_sequence_privilege(s.oid, 'UPDATE') AND pg_catalog.has_sequence_privilege(s.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'))::pg_catalog.text
 || CASE WHEN (SELECT q.seqcache FROM pg_catalog.pg_sequence q WHERE q.seqrelid = s.oid) > 1 THEN ' deep' ELSE '' END, '', 0
FROM pg_catalog.pg_class s JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
WHERE s.relkind = 'S' AND (s.oid = pg_catalog.to_regclass($1)
 OR s.oid IN (SELECT p.refobjid FROM pg_catalog.pg_depend p JOIN pg_catalog.pg_attrdef d ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
   WHERE p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.adrelid IN (SELECT * FROM (
     SELECT pg_catalog.to_regclass($1)::pg_catalog.oid UNION SELECT v.refobjid FROM pg_catalog.pg_depend v JOIN pg_catalog.pg_rewrite w
       ON v.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND v.objid = w.oid AND v.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
       WHERE w.ev_class = pg_catalog.to_regclass($1)) t))
 OR s.oid IN (SELECT p.objid FROM pg_catalog.pg_depend p WHERE p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.deptype = 'i'
   AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.refobjid IN (SELECT * FROM (
     SELECT pg_catalog.to_regclass($1)::pg_catalog.oid UNION SELECT v.refobjid FROM pg_catalog.pg_depend v JOIN pg_catalog.pg_rewrite w
       ON v.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND v.objid = w.oid AND v.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
       WHERE w.ev_class = pg_catalog.to_regclass($1)) t)))
ORDER BY 6`

// age changes when a relation may have changed, or a name may mean another one.
func (s *Session) age() uint64 { return s.schema.Load() + s.rep.shifts }

// shift notes that names may mean other relations from now on, and others again when
// the block ends.
func (r *replicas) shift() {
	r.shifts++
	r.shifted = true
}

// reshapes tells whether an act has run code that may have done so, though its text
// does not show it.
func reshapes(a *act) bool {
	switch v := a.verdict; v.Class {
	case parser.Do, parser.Call, parser.Unknown, parser.CommitPrepared:
		return true
	case parser.Execute:
		return a.decision.Opaque || a.decision.Effect == nil || a.decision.Effect.Class == parser.Select
	}
	return a.decision.Opaque
}

// settleNames draws the conclusions of a transaction's end for what names mean.
func (s *Session) settleNames() {
	r := s.rep
	if r.schema {
		s.schema.Add(1)
	}
	if r.shifted {
		r.shifts++
	}
	r.schema, r.shifted = false, false
}

// relation looks a relation up on the main node.
func (s *Session) relation(name string) (*relation, error) {
	r := s.rep
	if age := s.age(); r.age != age { // another session may have changed the schema since the last statement
		clear(r.tables)
		r.age = age
	}
	if t := r.tables[name]; t != nil {
		return t, nil
	}
	if err := s.gather(); err != nil {
		return nil, err
	}
	main := r.main()
	main.Send(&pgproto3.Close{ObjectType: 'S', Name: own}, &pgproto3.Parse{Name: own, Query: askTable, ParameterOIDs: []uint32{oidText}}, &pgproto3.Bind{PreparedStatement: own, DestinationPortal: own, Parameters: [][]byte{[]byte(name)}},
		&pgproto3.Execute{Portal: own}, &pgproto3.Close{ObjectType: 'P', Name: own}, &pgproto3.Close{ObjectType: 'S', Name: own}, &pgproto3.Sync{})
	rows, err := s.took(main)
	if no, ok := errors.AsType[*backend.Refusal](err); ok && strings.HasPrefix(no.Said.Code, "42") {
		rows, err = nil, nil // not a name; the server will say so
		if main.Status == 'E' {
			return nil, no
		}
	}
	if err != nil {
		return nil, err
	}
	t := &relation{steady: make(map[string]bool)}
	for _, row := range rows {
		if row[0] == "c" {
			has := func(c string) bool { return strings.Contains(row[3], c) }
			t.columns = append(t.columns, parser.Column{Name: row[1], Default: row[2], Generated: has("g"), Type: row[4], Insert: has("i"), Binary: has("b")})
			continue
		}
		q := sequence{name: row[2], ours: strings.HasPrefix(row[3], "true"), deep: strings.HasSuffix(row[3], " deep")}
		fmt.Sscan(row[1], &q.oid)
		t.sequences = append(t.sequences, q)
	}
	if !r.schema {
		r.tables[name] = t
	}
	return t, nil
}

func quotedName(n parser.Name) string {
	if n.Schema == "" {
		return quoteIdent(n.Name)
	}
	return quoteIdent(n.Schema) + "." + quoteIdent(n.Name)
}

// lockFor has the statement's sequences for the session alone until its block ends,
// by locks on the main node, and makes them stand the same on all nodes: insert_lock.
// The original locks a row of pgpool_catalog.insert_lock, or the whole table; an
// advisory lock named for the sequence does the same and is in nobody's way.
func (s *Session) lockFor(v *parser.Verdict, text []byte) error {
	r := s.rep
	if !r.open || r.failed() {
		return nil
	}
	wanted := s.cfg.InsertLock && !wishes(text, "/*NO INSERT LOCK*/") || wishes(text, "/*INSERT LOCK*/")
	if !wanted {
		return nil
	}
	if v.Class == parser.Execute {
		if p := r.sql[v.Name]; p != nil {
			v, text = p.verdict, []byte(p.text)
		} else if st := r.stmts[v.Name]; st != nil {
			v, text = st.verdict, []byte(st.text)
		}
	}
	if v.Class == parser.Explain && v.Analyze {
		v = v.Inner
	}
	var names []string
	switch {
	case v.Class == parser.Insert, v.Class == parser.CopyIn, v.Class == parser.Merge, v.WritingWith,
		v.Class == parser.CopyFile, v.Class == parser.Update && strings.Contains(strings.ToLower(string(text)), "default"):
		for _, n := range v.Written {
			names = append(names, quotedName(n))
		}
	}
	all := false
	for _, f := range v.Functions {
		if f.Name == "nextval" || f.Name == "setval" {
			more, known := parser.Sequences(text)
			names, all = append(names, more...), !known
			break
		}
	}
	var locks []string
	var state []string
	var found []sequence
	var sequences []string
	for _, name := range names {
		t, err := s.relation(name)
		if err != nil {
			return err
		}
		for _, q := range t.sequences {
			locks = append(locks, fmt.Sprintf("SELECT pg_catalog.pg_advisory_xact_lock(%d, %d)", lockClass, int32(q.oid)))
			sequences = append(sequences, q.name)
			if q.ours {
				state = append(state, "SELECT last_value, is_called FROM "+q.name)
				found = append(found, q)
			}
		}
	}
	if all {
		locks = append(locks, fmt.Sprintf("SELECT pg_catalog.pg_advisory_xact_lock(%d, 0)", lockClass))
		sequences = append(sequences, "")
	}
	if len(locks) == 0 {
		return nil
	}
	main := r.main()
	s.running(main)
	s.put(main, append(locks, state...)...)
	rows, err := s.took(main)
	if err := s.ran(); err != nil {
		return err
	}
	if err == nil {
		err = s.guard(sequences)
	}
	if err != nil || len(state) == 0 {
		return err
	}
	rows = rows[len(rows)-len(state):]
	set := make([]string, len(rows))
	var deep []string
	for i, row := range rows {
		set[i] = fmt.Sprintf("SELECT pg_catalog.setval('%s'::pg_catalog.regclass, %s, '%s')", strings.ReplaceAll(found[i].name, "'", "''"), row[0], row[1])
	}
	if len(r.set) > 1 {
		for i := range found {
			if found[i].deep { // what the main node's session has kept is forgotten by this
				deep = append(deep, set[i])
			}
		}
		if len(deep) > 0 {
			if _, err := s.bid(main, deep...); err != nil {
				return err
			}
		}
	}
	return s.bidAll(r.others(), set...)
}

// lockClass is the first half of the keys of our advisory locks: "pgpi".
const lockClass = 0x70677069

// reword is a statement's text as all nodes are to be sent it, and sees to its
// sequences. fill is for the data of a COPY.
func (s *Session) reword(v *parser.Verdict, text []byte) (sent []byte, fill *parser.Filling, err error) {
	r := s.rep
	r.making = nil
	if r.failed() {
		return text, nil, nil
	}
	if err := s.lockFor(v, text); err != nil {
		return nil, nil, err
	}
	if err := s.renewCalled(v); err != nil {
		return nil, nil, err
	}
	if err := s.teachAll(v); err != nil {
		return nil, nil, err
	}
	said := text
	if text, err = s.withPicks(v, text); err == nil && !bytes.Equal(text, said) {
		err = s.readAlike(said)
	}
	if err != nil {
		return nil, nil, err
	}
	text, r.making, fill, err = s.withValues(v, text)
	return text, fill, err
}

// withValues puts values in the place of what differs between nodes. making is what
// a PREPARE makes, fill is for the data of a COPY.
func (s *Session) withValues(v *parser.Verdict, text []byte) (sent []byte, making *prepared, fill *parser.Filling, err error) {
	r := s.rep
	var failed error
	replace := parser.Replace{
		Value: func(c parser.Chance) string {
			value, err := s.chance(c)
			failed = errors.Join(failed, err)
			return value
		},
		Columns: s.columnsFor(&failed),
		Execute: func(name string) []parser.Added {
			if p := r.sql[name]; p != nil {
				return p.added
			} else if st := r.stmts[name]; st != nil {
				if len(st.picks) > 0 {
					failed = errors.Join(failed, &wire.Error{Severity: "ERROR", Code: "0A000", Message: "prepared statement " + quote([]byte(name)) + " cannot be executed by SQL",
						Detail: "It chooses rows by what differs between nodes."})
				}
				return st.added
			}
			return nil
		},
	}
	source := text
	alone := v.Class == parser.CopyIn && len(r.set) < 2 // whose data need not be filled
	if !alone {
		replace.Steady = s.steady(&failed)
	}
	out, err := s.rewrite(text, replace, &failed)
	if err != nil {
		return nil, nil, nil, err
	}
	if !alone {
		s.warnUnequal(out.Unequal)
	}
	if out.SQL != "" {
		text = []byte(out.SQL)
	}
	if v.Class == parser.Prepare {
		making = &prepared{name: v.Name, verdict: v.Inner, text: string(text), source: string(source), added: out.Added, params: out.Params}
		making.age, making.shifts = s.schema.Load(), r.shifts
	}
	return text, making, out.Fill, nil
}

// rewordPrepared makes the Parse message that all nodes are sent for a statement.
// PREPARE and what takesNoParams are sent with values.
func (s *Session) rewordPrepared(st *prepared) error {
	if st.verdict.Class == parser.Prepare || takesNoParams(st.verdict) {
		if err := s.renewCalled(st.verdict); err != nil {
			return err
		}
		text, making, fill, err := s.withValues(st.verdict, []byte(st.text))
		if err != nil {
			return err
		}
		st.making, st.fill, st.added, st.params = making, fill, nil, len(st.types)
		st.frame, err = (&pgproto3.Parse{Name: st.name, Query: string(text), ParameterOIDs: st.types}).Encode(nil)
		return err
	}
	sql, err := s.prepareWithPicks(st)
	if err != nil {
		return err
	}
	given := len(st.sent)
	for _, oid := range st.sent {
		s.rep.numbers.used = s.rep.numbers.used || oid >= firstOwn
	}
	var failed error
	out, err := s.rewrite([]byte(sql), parser.Replace{Params: true, Given: given + st.pickedColumns(), Columns: s.columnsFor(&failed)}, &failed)
	if err == nil && sql != st.text {
		err = s.readAlike([]byte(st.text))
	}
	if err != nil {
		return err
	}
	s.warnUnequal(out.Unequal)
	st.params, st.added = given, nil
	if out.SQL != "" {
		sql, st.added, st.params = out.SQL, out.Added, out.Params-st.pickedColumns()
	}
	st.frame, err = (&pgproto3.Parse{Name: st.name, Query: sql, ParameterOIDs: st.sent}).Encode(nil)
	return err
}

// longText is the length from which on others are not made to wait until a text has been
// rewritten: about a millisecond's work.
const longText = 8 << 10

// rewrite has a text rewritten. What the nodes are asked for in failed's errors is told.
func (s *Session) rewrite(text []byte, replace parser.Replace, failed *error) (out parser.Rewriting, err error) {
	if !isASCII(text) {
		if err := s.gather(); err != nil {
			return out, err
		}
		replace.Encoding = parser.EncodingOf(s.rep.main().Param("client_encoding"))
	}
	if len(text) < longText {
		out, err = parser.Rewrite(text, replace)
	} else {
		out, err = s.rewriteAside(text, replace, failed)
	}
	if err = errors.Join(*failed, err); err == nil && (out.SQL != "" || out.Fill != nil) {
		err = s.readAlike(text)
	}
	if err != nil {
		return out, s.unfit(err)
	}
	return out, nil
}

// rewriteAside does the work where nobody else waits for it. Nodes cannot be asked
// there: what turns out to be missing is asked for here, and the work begun again.
func (s *Session) rewriteAside(text []byte, replace parser.Replace, failed *error) (out parser.Rewriting, err error) {
	columns := make(map[parser.Name][]parser.Column)
	values := make(map[parser.Chance]string)
	type question struct {
		table  parser.Name
		column parser.Column
		expr   string
	}
	steady := make(map[question]bool)
	var objects []string
	for *failed == nil {
		var ask func()
		used := 0 // of objects
		aside := replace
		aside.Columns = func(n parser.Name) []parser.Column {
			list, known := columns[n]
			if !known {
				ask = func() { columns[n] = replace.Columns(n) }
			}
			return list
		}
		aside.Value = func(c parser.Chance) string {
			switch c {
			case parser.LargeObject:
				if used == len(objects) {
					ask = func() { objects = append(objects, replace.Value(c)) }
					return "0"
				}
				used++
				return objects[used-1]
			case parser.UUID, parser.Random:
				return replace.Value(c) // which asks nobody
			}
			value, known := values[c]
			if !known {
				ask = func() { values[c] = replace.Value(c) }
			}
			return value
		}
		if replace.Steady != nil {
			aside.Steady = func(n parser.Name, c parser.Column, expr string) bool {
				q := question{n, c, expr}
				is, known := steady[q]
				if !known {
					ask = func() { steady[q] = replace.Steady(n, c, expr) }
				}
				return is
			}
		}
		s.task.Block(func() { out, err = parser.Rewrite(text, aside) })
		if ask == nil {
			return out, err
		}
		ask()
	}
	return out, nil
}

func isASCII(text []byte) bool {
	for _, c := range text {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// takesNoParams tells of statements that need new values at every Bind, as they can
// have no parameters.
func takesNoParams(v *parser.Verdict) bool {
	switch v.Class {
	case parser.Execute, parser.DDL, parser.CopyIn, parser.CopyOut, parser.CopyFile:
		return true
	}
	return false
}

// readAlike refuses a statement that is to be rewritten and that servers may read
// otherwise than the parser, who takes a backslash in a string for itself.
func (s *Session) readAlike(text []byte) error {
	if bytes.IndexByte(text, '\\') < 0 {
		return nil
	}
	if err := s.gather(); err != nil {
		return err
	}
	if s.rep.main().Param("standard_conforming_strings") != "off" {
		return nil
	}
	return &wire.Error{Severity: "ERROR", Code: "0A000", Message: "this statement cannot be made to do the same on all nodes",
		Detail: "It has a backslash, and standard_conforming_strings is off.", Hint: "Write strings with backslashes as E'...' with standard_conforming_strings on."}
}

// unfit is the client's word for a statement that cannot be sent to all nodes.
func (s *Session) unfit(err error) error {
	if !errors.Is(err, parser.ErrRewrite) {
		return err
	}
	return &wire.Error{Severity: "ERROR", Code: "0A000", Message: "this statement cannot be made to do the same on all nodes", Detail: err.Error()}
}

func (s *Session) columnsFor(failed *error) func(parser.Name) []parser.Column {
	return func(n parser.Name) []parser.Column {
		t, err := s.relation(quotedName(n))
		if err != nil {
			*failed = errors.Join(*failed, err)
			return nil
		}
		return t.columns
	}
}

// warnUnequal tells of what may come out differently on each node.
func (s *Session) warnUnequal(what string) {
	if what == "" {
		return
	}
	s.log.LogAttrs(ctx, eventlog.Warning, "a statement may have different effects on each node", slog.String("detail", "It depends on "+what+"."))
}

// chance is a value of a kind that differs between servers: of time the main
// node's, of chance our own.
func (s *Session) chance(c parser.Chance) (string, error) {
	r := s.rep
	switch c {
	case parser.UUID:
		var b [16]byte
		rand.Read(b[:])
		return string(appendUUID(nil, version4(b[:]))), nil
	case parser.Random:
		return fmt.Sprint(math.Nextafter(mathrand.Float64(), 0)), nil
	case parser.LargeObject:
		oid, err := s.freeLargeObject()
		return fmt.Sprint(oid), err
	case parser.Now:
		if r.now != "" {
			return r.now, nil
		}
	}
	if err := s.gather(); err != nil {
		return "", err
	}
	const ask = "SELECT pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
	rows, err := s.bid(r.main(), ask)
	if err != nil {
		return "", err
	}
	if r.open {
		r.now = rows[0][0] + "+00"
	}
	return rows[0][c] + "+00", nil
}

// given is the value of a parameter that was put in.
func (s *Session) given(a parser.Added) (string, error) {
	if a.Count == 0 {
		return s.chance(a.Chance)
	}
	b := []byte{'{'}
	for i := range a.Count {
		value, err := s.chance(a.Chance)
		if err != nil {
			return "", err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, value...)
	}
	return string(append(b, '}')), nil
}

// noteNames follows what SQL does to the names of prepared statements and cursors.
func (s *Session) noteNames(v *parser.Verdict) {
	r := s.rep
	switch {
	case v.Class == parser.Prepare && r.making != nil:
		r.sql[v.Name] = r.making
		r.making = nil
	case v.Class == parser.CloseCursor && v.Name == "":
		clear(r.portals)
	case v.Class == parser.CloseCursor, v.Class == parser.Declare:
		delete(r.portals, v.Name)
	case v.Class == parser.Deallocate && v.Name != "":
		delete(r.sql, v.Name)
		delete(r.stmts, v.Name)
		for _, known := range r.known {
			delete(known, v.Name)
		}
	case v.Class == parser.Deallocate, v.Class == parser.Discard && (v.Name == "all" || v.Name == ""):
		clear(r.sql)
		for name := range r.stmts {
			if name != "" {
				delete(r.stmts, name)
			}
		}
		for _, known := range r.known {
			for name := range known {
				if name != "" {
					delete(known, name)
				}
			}
		}
	}
}

// aged tells whether a prepared statement is to be thought of again: what a column's
// default is may have changed since, or what a name means.
func (s *Session) aged(st *prepared) bool {
	return st.age != s.schema.Load() || st.shifts != s.rep.shifts
}

// renewCalled is renew for what a statement of SQL calls.
func (s *Session) renewCalled(v *parser.Verdict) error {
	if v.Class == parser.Explain && v.Inner != nil {
		v = v.Inner
	}
	if v.Class != parser.Execute {
		return nil
	}
	return s.renew(v.Name)
}

// renew has a prepared statement that is to be executed by its name in SQL, or was
// prepared by SQL, mean what its text means now.
func (s *Session) renew(name string) error {
	r := s.rep
	if r.failed() {
		return nil
	}
	if st := r.stmts[name]; st != nil && st.all && s.aged(st) {
		again := *st
		if err := s.think(&again, false); err != nil {
			return err
		}
		if !bytes.Equal(again.frame, st.frame) {
			st = &again // teachAll prepares it
			r.stmts[name] = st
		}
		st.age, st.shifts = again.age, again.shifts
	}
	p := r.sql[name]
	if p == nil || !s.aged(p) {
		return nil
	}
	text, making, _, err := s.withValues(s.Parser.Classify([]byte(p.source)), []byte(p.source))
	if err != nil || making == nil {
		return err
	}
	if string(text) != p.text {
		if err := s.gather(); err != nil {
			return err
		}
		if err := s.bidAll(r.set, "DEALLOCATE "+quoteIdent(name), string(text)); err != nil {
			delete(r.sql, name)
			return err
		}
	}
	r.sql[name] = making
	return nil
}

// teachAll prepares on all nodes what a statement of SQL, as EXECUTE, calls by a
// name that the client knows from a Parse.
func (s *Session) teachAll(v *parser.Verdict) error {
	r := s.rep
	if v.Class != parser.Execute && v.Class != parser.Deallocate || v.Name == "" {
		return nil
	}
	st := r.stmts[v.Name]
	if st == nil {
		return nil
	}
	made := &act{volley: volley{{kind: wire.Parse, frame: st.frame, stmt: st}}}
	for _, c := range r.set {
		if r.known[c][st.name] == st {
			continue
		}
		if err := s.learnNumbers(c, made); err != nil {
			return err
		}
		if r.known[c][st.name] != nil {
			c.Send(&pgproto3.Close{ObjectType: 'S', Name: st.name})
		}
		c.Write(s.numbered(c, &message{kind: wire.Parse, frame: st.frame, stmt: st}))
		c.SendRaw(wire.Sync, nil)
		if _, err := s.took(c); err != nil {
			return err
		}
		s.knows(c, st)
	}
	return nil
}

// Large objects by FunctionCall, as libpq does it.
const (
	oidLoCreat  = 957
	oidLoCreate = 715
)

// freeLargeObject is an OID that no large object of the main node has, while
// lobj_lock_table is locked there, or if there is none by a lock of our own.
func (s *Session) freeLargeObject() (uint32, error) {
	r := s.rep
	main := r.main()
	lock := fmt.Sprintf("SELECT pg_catalog.pg_advisory_xact_lock(%d, -1)", lockClass)
	if s.cfg.LobjLockTable != "" {
		lock = "LOCK TABLE " + strings.ReplaceAll(s.cfg.LobjLockTable, "\x00", "") + " IN SHARE ROW EXCLUSIVE MODE"
	}
	s.running(main)
	_, err := s.bid(main, lock)
	if stopped := s.ran(); err == nil {
		err = stopped
	}
	if err != nil {
		return 0, err
	}
	rows, err := s.bid(main, "SELECT coalesce(pg_catalog.max(oid::pg_catalog.int8), 16383) + 1 FROM pg_catalog.pg_largeobject_metadata")
	if err != nil {
		return 0, err
	}
	var oid uint32
	if _, err := fmt.Sscan(rows[0][0], &oid); err != nil {
		return 0, fmt.Errorf("OID of a large object: %w", err)
	}
	r.promised = max(r.promised+1, oid) // of those before some may not have been made yet
	return r.promised, nil
}

// largeObject makes a call of lo_creat() one of lo_create() with an OID that is free
// on the main node.
func (s *Session) largeObject(call []byte) ([]byte, error) {
	if len(call) < 4 || binary.BigEndian.Uint32(call) != oidLoCreat || len(s.rep.set) < 2 || s.rep.failed() {
		return call, nil
	}
	oid, err := s.freeLargeObject()
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(nil, oidLoCreate)
	out = append(out, 0, 1, 0, 1, 0, 1) // one format, binary; one argument
	out = binary.BigEndian.AppendUint32(out, 4)
	out = binary.BigEndian.AppendUint32(out, oid)
	return append(out, call[len(call)-2:]...), nil // the result's format
}
