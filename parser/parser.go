package parser

import (
	"bytes"
	"sync"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// Options are the measures of a Parser.
type Options struct {
	// CacheBytes bounds the memory that cached verdicts hold on to; 0 means 32 MiB.
	CacheBytes int
}

// A Parser classifies statements and remembers its verdicts. It is safe for all
// sessions at once; a hit takes no lock and allocates nothing.
type Parser struct {
	exact *table // by the very text
	norm  *table // by the text without its literals
	door  door
	scans sync.Pool
}

// New makes a Parser.
func New(o Options) *Parser {
	if o.CacheBytes <= 0 {
		o.CacheBytes = 32 << 20
	}
	return &Parser{
		exact: newTable(o.CacheBytes / 2),
		norm:  newTable(o.CacheBytes / 2),
		scans: sync.Pool{New: func() any { return &scan{norm: make([]byte, 0, 512)} }},
	}
}

// Classify gives the verdict on a text. It never fails: what cannot be read is
// Unknown. It keeps no reference to sql.
func (p *Parser) Classify(sql []byte) *Verdict {
	var hash uint64
	varies := len(sql) <= shortText && mayVary(sql)
	if !varies {
		hash = hashOf(sql)
		if v := p.exact.find(hash, sql); v != nil {
			return v
		}
	}
	if len(sql) > maxScan || bytes.IndexByte(sql, 0) >= 0 {
		return unread(sql, nil)
	}
	s := p.scans.Get().(*scan)
	defer p.put(s)
	s.run(sql)
	var key []byte
	var keyHash uint64
	if s.exact && !s.deep && s.literals {
		key = append(s.norm, s.lead.byte())
		s.norm = key[:len(s.norm)]
		keyHash = hashOf(key)
		if v := p.norm.find(keyHash, key); v != nil {
			if !varies && p.door.seen(hash) {
				p.exact.add(hash, sql, v, 0)
			}
			return v
		}
	}
	if varies {
		hash = hashOf(sql)
		if v := p.exact.find(hash, sql); v != nil {
			return v
		}
	}
	v := fresh(sql, s)
	switch {
	case key != nil && v.shareable:
		p.norm.add(keyHash, key, v, v.size)
	case !s.literals || p.door.seen(hash):
		p.exact.add(hash, sql, v, v.size)
	}
	return v
}

// shortText is the length in bytes up to which a text with literals is first looked
// for without them: to take them out costs no more than to look in vain for the text
// itself, in memory that the processor has in no cache, among texts that each came
// once.
const shortText = 256

// mayVary tells whether there seems to be a literal in a text.
func mayVary(sql []byte) bool {
	before := byte(' ')
	for _, c := range sql {
		if c == '\'' || '0' <= c && c <= '9' && !wordChars[before] && before != '$' {
			return true
		}
		before = c
	}
	return false
}

// put gives a scan back, unless a large text has made it large.
func (p *Parser) put(s *scan) {
	if cap(s.norm) <= 1<<20 {
		p.scans.Put(s)
	}
}

// fresh reads a text without the caches. The scan is that of the text.
func fresh(sql []byte, s *scan) (v *Verdict) {
	defer func() {
		if r := recover(); r != nil {
			v = unread(sql, s)
		}
		v.Lead = s.lead
		for _, part := range v.Parts {
			part.Lead = s.lead
		}
		v.measure()
	}()
	if pool, ok := poolCommand(sql); ok {
		return &Verdict{Class: Pool, Pool: pool}
	}
	if s.closed && s.count == 0 {
		return &Verdict{Class: Empty, Kind: KindOther, Reads: true}
	}
	if s.deep {
		return unread(sql, s)
	}
	if len(sql) > reduceAt && s.exact && s.literals && len(s.norm) <= maxParse {
		if v := reduced(s.norm); v != nil {
			return v
		}
	}
	if len(sql) > maxParse {
		return large(sql, s)
	}
	text, ok := sanitize(sql)
	if !ok {
		return unread(sql, s)
	}
	tree, err := pg.Parse(string(text))
	if err != nil {
		return unread(sql, s)
	}
	switch len(tree.Stmts) {
	case 0:
		return &Verdict{Class: Empty, Reads: true}
	case 1:
		v = statement(tree.Stmts[0].Stmt, func() string { return rawText(sql, tree.Stmts[0]) })
		return v
	}
	m := &Verdict{Class: Multi}
	for _, raw := range tree.Stmts {
		own := rawText(sql, raw)
		part := statement(raw.Stmt, func() string { return own })
		part.Text = own
		part.measure()
		m.join(part)
	}
	m.Kind = m.Parts[0].Kind
	return m
}

// reduced gives the verdict on a long text, read from its normalised form, if it
// does not depend on the values of literals; nil if it does.
func reduced(norm []byte) *Verdict {
	tree, err := pg.Parse(string(sample(norm)))
	if err != nil || len(tree.Stmts) != 1 {
		return nil
	}
	v := statement(tree.Stmts[0].Stmt, func() string { return "" })
	if !v.shareable {
		return nil
	}
	return v
}

// maxParts bounds the statements of a long string that are told apart.
const maxParts = 20000

// large gives the verdict on a text that is too long to be parsed, by what is left of it
// without most of its literals, and without names that are not UTF-8. A long string of
// statements is read in pieces.
func large(sql []byte, s *scan) *Verdict {
	names := &foreignNames{}
	src, ok := newSource(sql, Plain, names)
	if !ok || len(names.means) > 0 {
		return unread(sql, s)
	}
	if cuts := src.statements(); len(cuts) > 1 {
		if len(cuts) > maxParts {
			return unread(sql, s)
		}
		m := &Verdict{Class: Multi}
		piece := &scan{}
		known := make(map[string]*Verdict)
		for _, own := range cuts {
			piece.run(own)
			v := known[string(piece.norm)]
			if v == nil || !piece.exact || piece.lead != v.Lead {
				v = fresh(own, piece)
				switch v.Class {
				case Unknown, Empty, Pool, Multi: // a mistake, of which the server tells before it runs anything
					return unread(sql, s)
				}
				if v.shareable && piece.exact {
					known[string(piece.norm)] = v
				}
			}
			m.join(v.as(string(own)))
		}
		m.Kind = m.Parts[0].Kind
		return m
	}
	look := &scan{}
	if look.run(src.text); look.deep || len(src.text) > maxParse {
		return unread(sql, s)
	}
	tree, err := pg.Parse(string(src.text))
	if err != nil || len(tree.Stmts) != 1 {
		return unread(sql, s)
	}
	v := statement(tree.Stmts[0].Stmt, func() string { return rawText(sql, &pg.RawStmt{}) })
	if len(v.Settings) > 0 || v.SettingsUnknown != ScopeNone || v.SetsConfig || v.Terminates != 0 {
		return unread(sql, s) // their values may be among what is left out
	}
	return v
}

// as is a verdict that is shared, for a part of a string, which has its own text.
func (v *Verdict) as(text string) *Verdict {
	own := &Verdict{
		Class: v.Class, Kind: v.Kind, Text: text, Reads: v.Reads, Writes: v.Writes, Locks: v.Locks, LightLock: v.LightLock, WritingWith: v.WritingWith,
		Opaque: v.Opaque, SetsConfig: v.SetsConfig, Relations: v.Relations, Functions: v.Functions, Operators: v.Operators, Types: v.Types, Written: v.Written,
		Fickle: v.Fickle, Everywhere: v.Everywhere, Database: v.Database, Creates: v.Creates, Drops: v.Drops, Renames: v.Renames, DropsTemp: v.DropsTemp,
		Catalog: v.Catalog, Enclosable: v.Enclosable, Transaction: v.Transaction, Settings: v.Settings, SettingsUnknown: v.SettingsUnknown, Inner: v.Inner,
		Name: v.Name, Hold: v.Hold, Analyze: v.Analyze, Terminates: v.Terminates, Lead: v.Lead, shareable: v.shareable,
	}
	own.measure()
	return own
}

// statements cuts a text at its semicolons; nil, if some may stand inside of statements.
func (s *source) statements() (list [][]byte) {
	depth, from, any := 0, 0, false
	end := func(to int) {
		if any {
			list = append(list, trimSpace(s.sql[from:to]))
		}
		any = false
	}
	for i, t := range s.toks {
		switch t.kind {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ';':
			if depth == 0 {
				end(t.from)
				from = t.to
			}
			continue
		case 'w':
			if s.word(i, "atomic") {
				return nil
			}
		}
		any = true
	}
	end(len(s.sql))
	return list
}

// rawText cuts a statement's own text out of the string.
func rawText(sql []byte, raw *pg.RawStmt) string {
	from := min(max(int(raw.StmtLocation), 0), len(sql))
	to := len(sql)
	if raw.StmtLen > 0 {
		to = min(from+int(raw.StmtLen), len(sql))
	}
	b := trimSpace(sql[from:to])
	for len(b) > 0 && b[len(b)-1] == ';' {
		b = trimSpace(b[:len(b)-1])
	}
	return string(b)
}

// join adds a part of a multi-statement string and unites the facts.
func (v *Verdict) join(part *Verdict) {
	if len(v.Parts) == 0 {
		v.Reads = true
	}
	v.Parts = append(v.Parts, part)
	v.Reads = v.Reads && part.Reads
	v.Writes = v.Writes || part.Writes
	v.Locks = v.Locks || part.Locks
	v.SkipsLocked = v.SkipsLocked || part.SkipsLocked
	v.WritingWith = v.WritingWith || part.WritingWith
	v.Opaque = v.Opaque || part.Opaque
	v.SetsConfig = v.SetsConfig || part.SetsConfig
	v.DropsTemp = v.DropsTemp || part.DropsTemp
	v.Catalog = v.Catalog || part.Catalog
	v.Everywhere = v.Everywhere || part.Everywhere
	v.SettingsUnknown = max(v.SettingsUnknown, part.SettingsUnknown)
	v.Settings = append(v.Settings, part.Settings...)
	v.Creates = append(v.Creates, part.Creates...)
	v.Drops = append(v.Drops, part.Drops...)
	v.Renames = append(v.Renames, part.Renames...)
	for _, n := range part.Relations {
		v.Relations = addName(v.Relations, n)
	}
	for _, n := range part.Functions {
		v.Functions = addName(v.Functions, n)
	}
	for _, n := range part.Operators {
		v.Operators = addName(v.Operators, n)
	}
	for _, n := range part.Written {
		v.Written = addName(v.Written, n)
	}
}

// measure estimates the memory the verdict holds.
func (v *Verdict) measure() {
	n := 512 + len(v.Text) + len(v.Name)
	for _, list := range [][]Name{v.Relations, v.Functions, v.Operators, v.Types, v.Written, v.Drops} {
		for _, name := range list {
			n += 48 + len(name.Schema) + len(name.Name)
		}
	}
	n += 64*len(v.Creates) + 64*len(v.Renames)
	for _, s := range v.Settings {
		n += 96 + len(s.Value) + len(s.Replay)
	}
	if v.Transaction != nil {
		n += 64 + len(v.Transaction.GID)
	}
	if v.Pool != nil {
		n += 64 + len(v.Pool.Value)
	}
	for _, part := range v.Parts {
		n += part.size
	}
	if v.Inner != nil {
		v.Inner.measure()
		n += v.Inner.size
	}
	v.size = n
}

// byte packs what a lead says, for the key of the normalised cache.
func (l Lead) byte() byte {
	b := byte(l.Target)
	if l.Space {
		b |= 0x10
	}
	if l.Comment {
		b |= 0x20
	}
	if l.NoLoadBalance {
		b |= 0x40
	}
	b |= byte(l.Cache) << 2
	return b | 0x80
}

// unread is the verdict on a text that cannot be read: whatever it does, it may
// write. The first word still tells a little.
func unread(sql []byte, s *scan) *Verdict {
	if s == nil { // too large to look at
		s = &scan{}
		s.run(sql[:min(len(sql), 4096)])
		s.count = 2
	}
	v := &Verdict{Class: Unknown, Kind: KindOther, Writes: true, Opaque: true, Catalog: true, SettingsUnknown: ScopeSession, Lead: s.lead}
	word := fold(string(bytes.TrimRight(s.first[:], "\x00")))
	if walsender[word] {
		return &Verdict{Class: Replicate, Kind: KindOther, Writes: true, Lead: s.lead}
	}
	switch word {
	case "insert":
		v.Kind = KindInsert
	case "update":
		v.Kind = KindUpdate
	case "delete":
		v.Kind = KindDelete
	case "select", "with", "merge", "values", "table":
	default:
		return v
	}
	// One statement of a kind that changes no settings and no schema by itself.
	if s.closed && s.count == 1 && !bytes.Contains(bytes.ToLower(sql), []byte("set_config")) {
		v.SettingsUnknown, v.Catalog = ScopeNone, false
	}
	return v
}

// walsender are the first words (the first 16 bytes of them) of the replication protocol.
var walsender = map[string]bool{
	"identify_system": true, "start_replicatio": true, "create_replicati": true, "drop_replication": true,
	"alter_replicatio": true, "read_replication": true, "timeline_history": true, "base_backup": true, "upload_manifest": true,
}
