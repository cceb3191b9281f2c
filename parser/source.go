package parser

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A token is a word, name, literal or sign of a text.
type token struct {
	at, end  int // in source.text
	from, to int // in source.sql
	// 'w' a word, 'q' a quoted name, 's' a string, 'n' a number, '$' a parameter,
	// 'o' part of an operator; else its byte, and 0 at the end.
	kind byte
}

// A source is a text of a client's and what the C parser is given in its place, which
// has the same tree but for what is left out: of large texts the ends of long strings,
// further literals of a list, and rows of VALUES that differ from one before only in
// literals. So what is parsed of a bulk insert is short, however many rows it has.
// Names that are not UTF-8 have others in their place.
type source struct {
	sql   []byte
	plain []byte // sql, or with bytes that are half a character made unlike ASCII
	text  []byte
	toks  []token
	rows  []*rowShapes
	gone  []gone
	param int // the highest
	names *foreignNames
	valid bool // it is UTF-8
}

// rowShapes are the rows of one VALUES list that are kept, each the first of its shape:
// its tokens, the last one included.
type rowShapes struct{ kept map[string][2]int }

// gone are rows left out, with the commas in front of them. What stands there is sql[from:to].
type gone struct {
	list     *rowShapes
	from, to int
}

// foreignNames have names that stand for those which are not UTF-8.
type foreignNames struct {
	stands map[string]string
	means  map[string]string
}

// stand is the name that stands for another.
func (f *foreignNames) stand(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	s, ok := f.stands[name]
	if !ok {
		if f.stands == nil {
			f.stands, f.means = make(map[string]string), make(map[string]string)
		}
		s = fmt.Sprintf("name %d in another encoding", len(f.stands))
		f.stands[name], f.means[s] = s, name
	}
	return s
}

// mean is the name that another stands for.
func (f *foreignNames) mean(name string) string {
	if m, ok := f.means[name]; ok {
		return m
	}
	return name
}

// Strings longer than this are left out. No name is as long.
const longString = 300

// lex finds the token at or behind i; before is the kind of the one before. ok is false
// if a quote or comment does not end.
func lex(b []byte, i int, before byte) (t token, ok bool) {
	for i < len(b) {
		t.from = i
		c := b[i]
		kind := charKinds[c]
		switch kind {
		case ckSpace:
			i++
			continue
		case ckWord:
			j := i + 1
			if j < len(b) && (b[j] == '\'' || b[j] == '&') {
				switch c | 0x20 {
				case 'e':
					if b[j] == '\'' {
						end, ok, _ := skipEscapes(b, j)
						t.to, t.kind = end, 's'
						return t, ok
					}
				case 'b', 'x', 'n':
					if b[j] == '\'' {
						t.to, t.kind = skipQuoted(b, j, '\''), 's'
						return t, t.to > 0
					}
				case 'u':
					if j+1 < len(b) && b[j] == '&' && (b[j+1] == '\'' || b[j+1] == '"') {
						t.to, t.kind = skipQuoted(b, j+1, b[j+1]), 's'
						if b[j+1] == '"' {
							t.kind = 'q'
						}
						return t, t.to > 0
					}
				}
			}
			for j < len(b) && wordChars[b[j]] {
				j++
			}
			t.to, t.kind = j, 'w'
			return t, true
		case ckQuote, ckDouble:
			t.to, t.kind = skipQuoted(b, i, c), 's'
			if c == '"' {
				t.kind = 'q'
			}
			return t, t.to > 0
		case ckDigit:
			t.to, _, _ = skipNumber(b, i)
			t.kind = 'n'
			return t, true
		case ckDollar:
			if i+1 < len(b) && charKinds[b[i+1]] == ckDigit {
				j := i + 1
				for j < len(b) && charKinds[b[j]] == ckDigit {
					j++
				}
				t.to, t.kind = j, '$'
				return t, true
			}
			if j, is := skipDollar(b, i); is {
				t.to, t.kind = j, 's'
				return t, j > 0
			}
		case ckMinus, ckSlash, ckOp:
			if kind == ckMinus && i+1 < len(b) && b[i+1] == '-' {
				for i < len(b) && b[i] != '\n' && b[i] != '\r' {
					i++
				}
				continue
			}
			if kind == ckSlash && i+1 < len(b) && b[i+1] == '*' {
				if i = skipComment(b, i); i < 0 {
					return t, false
				}
				continue
			}
			if (c == '-' || c == '+') && (before == '(' || before == ',') && i+1 < len(b) && charKinds[b[i+1]] == ckDigit {
				t.to, _, _ = skipNumber(b, i+1) // a sign is part of a value in a list
				t.kind = 'n'
				return t, true
			}
			t.to, t.kind = i+1, 'o'
			return t, true
		}
		t.to, t.kind = i+1, c
		return t, true
	}
	t.from, t.to = len(b), len(b)
	return t, true
}

// newSource reads a text. ok is false if it cannot be read, as a quote does not end.
func newSource(sql []byte, enc Encoding, names *foreignNames) (s *source, ok bool) {
	s = &source{sql: sql, plain: enc.mask(sql), names: names}
	// What is masked may look like UTF-8 by chance, but has other names.
	s.valid = (enc == Plain || ascii(sql)) && utf8.Valid(sql)
	if s.valid && len(sql) <= reduceAt {
		s.text = sql
		return s, s.readAll()
	}
	return s, s.reduce(s.valid, len(sql) > reduceAt)
}

// readAll finds the tokens of a text that is parsed as it is.
func (s *source) readAll() bool {
	before := byte(0)
	for i := 0; ; {
		t, ok := lex(s.sql, i, before)
		if !ok || t.kind == 0 {
			return ok
		}
		t.at, t.end = t.from, t.to
		s.add(t)
		i, before = t.to, t.kind
	}
}

// add takes a token in.
func (s *source) add(t token) {
	if t.kind == '$' {
		n := 0
		for _, c := range s.sql[t.from+1 : t.to] {
			n = min(n*10+int(c-'0'), 1<<20)
		}
		s.param = max(s.param, n)
	}
	s.toks = append(s.toks, t)
}

// reduce makes the text that is parsed, without much of one that is large.
func (s *source) reduce(valid, large bool) bool {
	var (
		open   []bool // the parentheses and brackets; true, those of a list of values
		list   *rowShapes
		level  int // where the rows of list stand
		row    int // its first token, if one is open
		inRow  bool
		copies = false // in COPY the values of strings matter
		key    []byte
	)
	before := byte(0)
	for i := 0; ; {
		t, ok := lex(s.plain, i, before)
		if !ok {
			return false
		}
		if t.kind == 0 {
			return true
		}
		if gap := s.plain[i:t.from]; len(gap) > 0 {
			if bytes.IndexByte(gap, '\n') >= 0 || bytes.IndexByte(gap, '\r') >= 0 {
				s.text = append(s.text, '\n')
			} else {
				s.text = append(s.text, ' ')
			}
		}
		i, before = t.to, t.kind
		raw := s.plain[t.from:t.to]
		if t.kind == ';' {
			copies = false
		}
		copies = copies || t.kind == 'w' && len(raw) == 4 && equalFold2(raw, "copy")
		if n := len(s.toks); large && !inRow && len(open) > 0 && open[len(open)-1] && n > 2 && literal(t.kind) &&
			s.toks[n-1].kind == ',' && literal(s.toks[n-2].kind) && (s.toks[n-3].kind == '(' || s.toks[n-3].kind == '[') {
			s.toks = s.toks[:n-2]
			s.text = s.text[:s.toks[n-3].end]
		}
		t.at = len(s.text)
		switch {
		case t.kind == 's' && large && len(raw) > longString && !copies && raw[0]|0x20 != 'u':
			s.text = append(s.text, "'x'"...)
		case valid || ascii(raw):
			s.text = append(s.text, raw...)
		case t.kind == 'w' || t.kind == 'q':
			s.text = append(s.text, quoted(s.names.stand(s.name(t)))...)
		default:
			for _, c := range raw {
				if c >= 0x80 {
					c = '?'
				}
				s.text = append(s.text, c)
			}
		}
		t.end = len(s.text)
		n := len(s.toks)
		s.add(t)
		switch t.kind {
		case '(', '[':
			if list != nil && len(open) == level && !inRow {
				if t.kind == '(' && n > 0 && (s.toks[n-1].kind == ',' || s.word(n-1, "values")) {
					row, inRow = n, true
				} else {
					list = nil
				}
			}
			if list == nil && large && t.kind == '(' && n > 0 && s.word(n-1, "values") {
				list, level, row, inRow = &rowShapes{kept: make(map[string][2]int)}, len(open), n, true
			}
			open = append(open, t.kind == '[' || n > 0 && s.word(n-1, "in"))
		case ')', ']':
			if len(open) == 0 {
				break
			}
			if open = open[:len(open)-1]; list == nil {
				break
			}
			if len(open) < level {
				list, inRow = nil, false
			} else if len(open) == level && inRow {
				inRow = false
				key = s.shape(key[:0], s.toks[row:])
				if _, seen := list.kept[string(key)]; !seen {
					if len(list.kept) == 0 {
						s.rows = append(s.rows, list)
					}
					list.kept[string(key)] = [2]int{row, n}
					break
				}
				s.toks = s.toks[:row-1] // with the comma
				last := s.toks[len(s.toks)-1]
				s.text = s.text[:last.end]
				if k := len(s.gone) - 1; k >= 0 && s.gone[k].list == list && s.gone[k].from >= last.to {
					s.gone[k].to = t.to
				} else {
					s.gone = append(s.gone, gone{list: list, from: last.to, to: t.to})
				}
			}
		case ',':
		default:
			if list != nil && !inRow && len(open) == level && !s.word(n, "values") {
				list = nil // behind the last row
			}
		}
	}
}

func literal(kind byte) bool { return kind == 's' || kind == 'n' || kind == '$' }

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// word tells whether the i-th token is a word, which is given in lower case.
func (s *source) word(i int, w string) bool {
	if i < 0 || i >= len(s.toks) {
		return false
	}
	t := s.toks[i]
	return t.kind == 'w' && t.to-t.from == len(w) && equalFold(string(s.plain[t.from:t.to]), w)
}

// name is what a word or quoted name means.
func (s *source) name(t token) string {
	raw := s.sql[t.from:t.to]
	if t.kind == 'q' {
		return undouble(raw[1:len(raw)-1], '"')
	}
	b := bytes.Clone(raw)
	for i := range b {
		if s.plain[t.from+i] < 0x80 {
			b[i] = lower(b[i])
		}
	}
	return string(b)
}

// shape is what rows have in common that are treated alike: all but their literals.
// Strings that tell the time and names of sequences are no literals.
func (s *source) shape(key []byte, toks []token) []byte {
	for i, t := range toks {
		raw := s.plain[t.from:t.to]
		switch t.kind {
		case 'n', '$':
			key = append(key, phString)
			continue
		case 's':
			if !tellsTime(raw) && !(i > 1 && toks[i-1].kind == '(' && s.givesNumbers(toks[i-2])) {
				key = append(key, phString)
				continue
			}
		case 'w':
			switch len(raw) {
			case 4:
				if equalFold2(raw, "null") || equalFold2(raw, "true") {
					key = append(key, phString)
					continue
				}
			case 5:
				if equalFold2(raw, "false") {
					key = append(key, phString)
					continue
				}
			}
			for _, c := range raw {
				key = append(key, lower(c))
			}
			key = append(key, ' ')
			continue
		}
		key = append(append(key, raw...), ' ')
	}
	return key
}

// givesNumbers tells the names of functions that are called with those of sequences.
func (s *source) givesNumbers(t token) bool {
	raw := s.plain[t.from:t.to]
	return len(raw) >= 6 && len(raw) <= 9 && strings.HasSuffix(fold(strings.Trim(string(raw), `"`)), "val")
}

// tellsTime finds 'now' and the like.
func tellsTime(raw []byte) bool {
	if len(raw) > longString {
		return false
	}
	if k := bytes.IndexAny(raw, "'$"); k >= 0 && raw[k] == '$' {
		if k = bytes.IndexByte(raw[1:], '$'); k < 0 {
			return true
		}
		raw = raw[k+2 : max(len(raw)-k-2, k+2)]
	} else if k >= 0 {
		raw = raw[k+1 : len(raw)-1]
	}
	raw = bytes.TrimSpace(raw)
	if bytes.IndexByte(raw, '\\') >= 0 {
		return len(raw) <= 40 // perhaps
	}
	switch len(raw) {
	case 3, 5, 8, 9:
		switch strings.ToLower(string(raw)) {
		case "now", "today", "tomorrow", "yesterday":
			return true
		}
	}
	return false
}

// quoted is a name as it is written in any case.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
