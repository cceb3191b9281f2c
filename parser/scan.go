package parser

import (
	"bytes"
	"unicode/utf8"
)

// Limits beyond which a text is not parsed at all. The C parser recurses once per
// nesting level when it hands out its tree, and would overflow its stack (which
// kills the process) long before it runs out of text.
const (
	maxScan  = 64 << 20  // bytes of a text
	maxParse = 256 << 10 // bytes that are given to the C parser
	reduceAt = 16 << 10  // from here on the text is reduced before it is parsed
	maxNest  = 256       // parentheses and brackets, one inside the other
	maxChain = 4500      // operators, joins and set operations that lean on each other
)

// Placeholders stand for literals in a normalised text. No text that is
// normalised contains these bytes elsewhere.
const (
	phInt    = 1
	phFloat  = 2
	phString = 3
)

// A scan is what one pass over the bytes of a text tells.
type scan struct {
	lead Lead
	// norm is the text with literals replaced by placeholders, comments emptied
	// and white space collapsed. It says nothing unless exact is true.
	norm []byte
	// exact: every byte was understood, so texts with the same norm and lead have
	// the same tree but for the values of literals.
	exact bool
	// literals: norm contains a placeholder.
	literals bool
	// closed: all quotes and comments are closed; lexical structure is certain.
	closed bool
	// deep: the tree would be deeper than it is safe to parse, or the C scanner would
	// take long, as it goes back to the beginning of an operator or comment with each
	// sign that makes it longer or deeper.
	deep bool
	// first is the first word, and count the number of statements that are not empty.
	first [16]byte
	count int

	levels [maxNest + 1]level
}

// A level counts what leans on each other inside one pair of parentheses.
type level struct{ ops, sets int32 }

// run scans a text. The result is valid until the next run.
func (s *scan) run(sql []byte) {
	s.norm = s.norm[:0]
	s.exact, s.closed, s.deep, s.literals = true, true, false, false
	s.count, s.first = 0, [16]byte{}
	s.lead = Lead{}
	s.levels[0] = level{}
	var (
		nest  int
		total int32  // sum of all open levels
		start = true // nothing but space and comments so far
		idle  = true // the same since the last semicolon
		inSet = -1   // nesting level of the parentheses behind IN
		wasIn bool   // the token before was IN
		rows  = rowList{level: -1}
		sign  int // where the last operator ended
		signs int // its length
		out   = s.norm
		n     = len(sql)
	)
	lean := func(sets bool) {
		if sets {
			s.levels[nest].sets++
		} else {
			s.levels[nest].ops++
		}
		if total++; total > maxChain {
			s.deep = true
		}
	}
	token := func() {
		if start = false; idle {
			idle = false
			s.count++
		}
	}
	for i := 0; i < n; {
		c := sql[i]
		switch kind := charKinds[c]; kind {
		case ckSpace:
			nl := false
			for i < n && charKinds[sql[i]] == ckSpace {
				if sql[i] == '\n' || sql[i] == '\r' {
					nl = true
				}
				i++
			}
			if start {
				if !s.lead.Comment {
					s.lead.Space = true
				}
				continue
			}
			if nl {
				out = append(out, '\n')
			} else {
				out = append(out, ' ')
			}
			continue

		case ckWord:
			token()
			j := i + 1
			for j < n && wordChars[sql[j]] {
				j++
			}
			w := sql[i:j]
			if s.count == 1 && s.first[0] == 0 {
				copy(s.first[:], w)
			}
			if j < n && (sql[j] == '\'' || sql[j] == '&') && len(w) == 1 {
				switch w[0] | 0x20 {
				case 'e':
					if sql[j] == '\'' {
						end, ok, e := skipEscapes(sql, j)
						if !ok {
							s.closed, s.exact = false, false
							s.norm = out
							return
						}
						if !e.plain() {
							s.exact = false
						}
						out = append(out, w[0], phString)
						s.literals = true
						i, wasIn = end, false
						continue
					}
				case 'b', 'x':
					if sql[j] == '\'' {
						s.exact = false
					}
				case 'u':
					if sql[j] == '&' && j+1 < n && (sql[j+1] == '\'' || sql[j+1] == '"') {
						s.exact = false
					}
				}
			}
			wasIn = false
			switch len(w) {
			case 2:
				if wasIn = equalFold2(w, "in"); wasIn || equalFold2(w, "is") || equalFold2(w, "at") {
					lean(false)
				}
			case 3:
				if equalFold2(w, "not") {
					lean(false)
				}
			case 4:
				if equalFold2(w, "join") {
					lean(true)
				} else if equalFold2(w, "like") {
					lean(false)
				}
			case 5:
				if equalFold2(w, "union") {
					lean(true)
				} else if equalFold2(w, "ilike") {
					lean(false)
				} else if equalFold2(w, "float") {
					s.exact = s.exact && !parenFollows(sql[j:])
				}
			case 6:
				if equalFold2(w, "except") {
					lean(true)
				} else if equalFold2(w, "values") {
					rows = rowList{level: nest, open: -1, from: -1}
				} else if equalFold2(w, "isnull") {
					lean(false)
				}
			case 7:
				if equalFold2(w, "collate") || equalFold2(w, "notnull") || equalFold2(w, "between") || equalFold2(w, "similar") {
					lean(false)
				}
			case 8:
				if equalFold2(w, "operator") {
					lean(false)
				}
			case 9:
				if equalFold2(w, "intersect") {
					lean(true)
				}
			}
			out = append(out, w...)
			i = j
			continue

		case ckDigit:
			token()
			j, ph, ok := skipNumber(sql, i)
			if !ok {
				s.exact = false
			}
			if inSet == nest {
				out = dropTwin(out, ph)
			}
			out = append(out, ph)
			s.literals = true
			i, wasIn = j, false
			continue

		case ckQuote:
			token()
			j := skipQuoted(sql, i, '\'')
			if j < 0 {
				s.closed, s.exact = false, false
				s.norm = out
				return
			}
			if inSet == nest {
				out = dropTwin(out, phString)
			}
			out = append(out, phString)
			s.literals = true
			i, wasIn = j, false
			continue

		case ckDouble:
			token()
			j := skipQuoted(sql, i, '"')
			if j < 0 {
				s.closed, s.exact = false, false
				s.norm = out
				return
			}
			for _, b := range sql[i:j] {
				if b < ' ' {
					s.exact = false
				}
			}
			out = append(out, sql[i:j]...)
			i, wasIn = j, false
			continue

		case ckDollar:
			token()
			if i+1 < n && charKinds[sql[i+1]] == ckDigit { // $1
				j := i + 1
				for j < n && charKinds[sql[j]] == ckDigit {
					j++
				}
				if j < n && (wordChars[sql[j]] || sql[j] == '.') || j-i > 9 {
					s.exact = false
				}
				out = append(out, sql[i:j]...)
				i, wasIn = j, false
				continue
			}
			j, is := skipDollar(sql, i)
			switch {
			case !is:
				s.exact = false
				out = append(out, c)
				i++
			case j < 0:
				s.closed, s.exact = false, false
				s.norm = out
				return
			default:
				out = append(out, phString)
				s.literals = true
				i = j
			}
			wasIn = false
			continue

		case ckMinus, ckSlash, ckOp:
			if kind == ckMinus && i+1 < n && sql[i+1] == '-' {
				j := i + 2
				for j < n && sql[j] != '\n' && sql[j] != '\r' {
					j++
				}
				if start {
					s.noteLead(sql[i+2 : j])
				}
				out = append(out, '-', '-', '\n')
				i = j
				continue
			}
			if kind == ckSlash && i+1 < n && sql[i+1] == '*' {
				j := skipComment(sql, i)
				body := sql[i:]
				if j > 0 {
					body = sql[i:j]
				}
				s.deep = s.deep || len(body) > 2*maxNest && bytes.Count(body, []byte("/*")) > maxNest
				if j < 0 {
					s.closed, s.exact = false, false
					s.norm = out
					return
				}
				if start {
					s.noteLead(sql[i+2 : j-2])
				}
				out = append(out, '/', '*', '*', '/')
				i = j
				continue
			}
			token()
			lean(false)
			if sign != i {
				signs = 0
			}
			signs -= i
			out = append(out, c)
			i++
			for i < n && charKinds[sql[i]] == ckOp { // the rest of a longer operator
				out = append(out, sql[i])
				i++
			}
			if sign, signs = i, signs+i; signs > maxNest {
				s.deep = true
			}
			wasIn = false
			continue

		case ckOpen:
			token()
			if nest == maxNest {
				s.deep, s.exact = true, false
				s.norm = out
				s.closed = false
				return
			}
			if nest == rows.level {
				rows.open = len(out)
			}
			nest++
			s.levels[nest] = level{}
			if wasIn {
				inSet = nest
			}
		case ckClose:
			token()
			if nest > 0 {
				total -= s.levels[nest].ops + s.levels[nest].sets
				if inSet == nest {
					inSet = -1
				}
				nest--
			}
			if out = append(out, c); nest == rows.level && rows.open >= 0 {
				out = rows.close(out)
			} else if nest < rows.level {
				rows.level = -1
			}
			i, wasIn = i+1, false
			continue
		case ckComma:
			token()
			total -= s.levels[nest].ops
			s.levels[nest].ops = 0
		case ckSemicolon:
			start, idle = false, true
			total -= s.levels[nest].ops + s.levels[nest].sets
			s.levels[nest] = level{}
		case ckDot:
			token()
			if i+1 < n && (charKinds[sql[i+1]] == ckDigit || sql[i+1] == '.') {
				s.exact = false
			}
		case ckColon: // :: casts lean on each other; a[1:2] does no harm
			token()
			if i+1 < n && sql[i+1] == ':' {
				lean(false)
				out = append(out, ':')
				i++
			}
		default:
			token()
			s.exact = false
		}
		wasIn = false
		out = append(out, c)
		i++
	}
	s.norm = out
}

// A rowList is a VALUES list: a row that differs from the one before only in
// literals is left out, so that lists of any length are one text.
type rowList struct {
	level    int // of nesting where the rows stand; -1: no list
	open     int // where the row now open begins in the output; -1: none is
	from, to int // the row before; from is -1 if there is none
}

// close takes in the row that has just ended.
func (r *rowList) close(out []byte) []byte {
	row := r.open
	r.open = -1
	if r.from >= 0 && bytes.Equal(out[r.from:r.to], out[row:]) && isComma(out[r.to:row]) {
		return out[:r.to]
	}
	r.from, r.to = row, len(out)
	return out
}

// isComma tells a comma with nothing but white space around it.
func isComma(b []byte) bool {
	commas := 0
	for _, c := range b {
		switch c {
		case ',':
			commas++
		case ' ', '\n':
		default:
			return false
		}
	}
	return commas == 1
}

// sample writes a normalised text with values in the place of its literals: a
// text that is parsed like the original, but for those values.
func sample(norm []byte) []byte {
	out := make([]byte, 0, len(norm)+64)
	for _, c := range norm {
		switch c {
		case phInt:
			out = append(out, '1')
		case phFloat:
			out = append(out, "1.5"...)
		case phString:
			out = append(out, "'x'"...)
		default:
			out = append(out, c)
		}
	}
	return out
}

// noteLead looks at a comment that stands before the first word.
func (s *scan) noteLead(body []byte) {
	s.lead.Comment = true
	b := trimSpace(body)
	if equalFold(string(body), "NO LOAD BALANCE") {
		s.lead.NoLoadBalance = true
	}
	switch {
	case equalFold(string(body), "NO QUERY CACHE"):
		s.lead.Cache = CacheNo
	case equalFold(string(body), "FORCE QUERY CACHE"):
		s.lead.Cache = CacheForce
	}
	if t, ok := cutFold(b, "pgpool.target"); ok {
		t = trimSpace(t)
		if len(t) > 0 && t[0] == '=' {
			t = trimSpace(t[1:])
			if len(t) > 1 && t[0] == '\'' && t[len(t)-1] == '\'' {
				t = t[1 : len(t)-1]
			}
			if g, ok := ParseTarget(string(t)); ok {
				s.lead.Target = g
			}
		}
	}
}

// dropTwin takes back the last element of an IN list if the same kind of
// literal follows: lists of any length are one text.
func dropTwin(out []byte, ph byte) []byte {
	k := len(out)
	if k > 1 && out[k-1] == ' ' {
		k--
	}
	if k > 1 && out[k-1] == ',' && out[k-2] == ph && (k < 3 || out[k-3] == '(') {
		return out[:k-2]
	}
	return out
}

// sanitize makes text fit for the parser, which wants UTF-8 and ends at a NUL.
// Bytes of other encodings are blanked inside string literals and comments, where
// they do not matter; anywhere else the text cannot be read. Offsets stay.
func sanitize(sql []byte) ([]byte, bool) {
	if utf8.Valid(sql) {
		return sql, true
	}
	b := append([]byte(nil), sql...)
	blank := func(b []byte) {
		for i, c := range b {
			if c >= 0x80 {
				b[i] = '?'
			}
		}
	}
	for i := 0; i < len(b); {
		switch charKinds[b[i]] {
		case ckWord:
			j := i + 1
			for j < len(b) && wordChars[b[j]] {
				j++
			}
			if j-i == 1 && j < len(b) && b[i]|0x20 == 'e' && b[j] == '\'' {
				end, ok, e := skipEscapes(b, j)
				if !ok || e.back && e.high { // a backslash may be half a character
					return nil, false
				}
				blank(b[j:end])
				j = end
			}
			i = j
		case ckQuote:
			j := skipQuoted(b, i, '\'')
			if j < 0 {
				return nil, false
			}
			blank(b[i:j])
			i = j
		case ckDouble:
			j := skipQuoted(b, i, '"')
			if j < 0 {
				return nil, false
			}
			i = j
		case ckDollar:
			j, is := skipDollar(b, i)
			switch {
			case !is:
				i++
			case j < 0:
				return nil, false
			default:
				blank(b[i:j])
				i = j
			}
		case ckMinus:
			j := i + 1
			if j < len(b) && b[j] == '-' {
				for j < len(b) && b[j] != '\n' && b[j] != '\r' {
					j++
				}
				blank(b[i:j])
			}
			i = j
		case ckSlash:
			j := i + 1
			if j < len(b) && b[j] == '*' {
				if j = skipComment(b, i); j < 0 {
					return nil, false
				}
				blank(b[i:j])
			}
			i = j
		default:
			i++
		}
	}
	return b, utf8.Valid(b)
}
