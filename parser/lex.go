package parser

import "bytes"

// charKind sorts bytes by what may begin with them.
type charKind uint8

const (
	ckOther charKind = iota
	ckSpace
	ckWord
	ckDigit
	ckQuote
	ckDouble
	ckDollar
	ckMinus
	ckSlash
	ckOp
	ckOpen
	ckClose
	ckComma
	ckSemicolon
	ckDot
	ckColon
)

var (
	charKinds [256]charKind
	wordChars [256]bool // may continue a word
)

func init() {
	set := func(chars string, k charKind) {
		for i := range len(chars) {
			charKinds[chars[i]] = k
		}
	}
	set(" \t\n\r\f", ckSpace)
	set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", ckWord)
	set("0123456789", ckDigit)
	set("'", ckQuote)
	set(`"`, ckDouble)
	set("$", ckDollar)
	set("-", ckMinus)
	set("/", ckSlash)
	set("+*<>=~!@#%^&|`?", ckOp)
	set("([", ckOpen)
	set(")]", ckClose)
	set(",", ckComma)
	set(";", ckSemicolon)
	set(".", ckDot)
	set(":", ckColon)
	for c := 0x80; c < 0x100; c++ {
		charKinds[c] = ckWord
	}
	for c := range 256 {
		k := charKinds[c]
		wordChars[c] = k == ckWord || k == ckDigit || k == ckDollar
	}
}

// skipQuoted returns the position behind the quoted text that begins at i, in
// which the quote is doubled; -1 if it does not end.
func skipQuoted(b []byte, i int, quote byte) int {
	for i++; i < len(b); i++ {
		k := bytes.IndexByte(b[i:], quote)
		if k < 0 {
			return -1
		}
		i += k
		if i+1 == len(b) || b[i+1] != quote {
			return i + 1
		}
		i++
	}
	return -1
}

// escapes is what an E'...' literal contains.
type escapes struct {
	odd  bool // an escape that could be wrong, as \x and \u
	back bool // a backslash at all
	high bool // a byte that is not ASCII
}

// plain tells that no value of the literal's other bytes could make it wrong.
func (e escapes) plain() bool { return !e.odd && !(e.back && e.high) }

// skipEscape is skipQuoted for one piece of E'...'; i is the position of the quote.
func skipEscape(b []byte, i int, e *escapes) (end int, ok bool) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			e.back = true
			if i++; i == len(b) {
				return 0, false
			}
			switch b[i] {
			case 'n', 't', 'r', 'b', 'f', '\\', '\'':
			default:
				e.odd = true
			}
		case c == '\'':
			if i+1 < len(b) && b[i+1] == '\'' {
				i++
				continue
			}
			return i + 1, true
		case c >= 0x80:
			e.high = true
		}
	}
	return 0, false
}

// skipEscapes returns the position behind E'...' with the pieces that follow on
// further lines, in which backslashes have their meaning too.
func skipEscapes(b []byte, i int) (end int, ok bool, e escapes) {
	end, ok = skipEscape(b, i, &e)
	for ok {
		k, newline := end, false
		for k < len(b) {
			if c := b[k]; charKinds[c] == ckSpace {
				newline = newline || c == '\n' || c == '\r'
				k++
			} else if c == '-' && k+1 < len(b) && b[k+1] == '-' {
				for k < len(b) && b[k] != '\n' && b[k] != '\r' {
					k++
				}
			} else {
				break
			}
		}
		if !newline || k == len(b) || b[k] != '\'' {
			break
		}
		end, ok = skipEscape(b, k, &e)
	}
	return end, ok, e
}

// skipDollar returns the position behind the dollar-quoted text that begins at i
// (-1 if it does not end), and whether it is one at all.
func skipDollar(b []byte, i int) (int, bool) {
	j := i + 1
	for j < len(b) && b[j] != '$' {
		if charKinds[b[j]] != ckWord && !(charKinds[b[j]] == ckDigit && j > i+1) {
			return 0, false
		}
		j++
	}
	if j == len(b) {
		return 0, false
	}
	tag := b[i : j+1]
	k := bytes.Index(b[j+1:], tag)
	if k < 0 {
		return -1, true
	}
	return j + 1 + k + len(tag), true
}

// skipComment returns the position behind the (nesting) comment that begins at
// i; -1 if it does not end.
func skipComment(b []byte, i int) int {
	depth := 1
	for i += 2; i+1 < len(b); {
		switch {
		case b[i] == '*' && b[i+1] == '/':
			i += 2
			if depth--; depth == 0 {
				return i
			}
		case b[i] == '/' && b[i+1] == '*':
			depth++
			i += 2
		default:
			i++
		}
	}
	return -1
}

// skipNumber returns the position behind the number that begins with the digit
// at i, its placeholder, and whether it is one of the plain forms.
func skipNumber(b []byte, i int) (end int, ph byte, ok bool) {
	j := i
	value := int64(0)
	for j < len(b) && charKinds[b[j]] == ckDigit {
		if value < 1<<40 {
			value = value*10 + int64(b[j]-'0')
		}
		j++
	}
	ph = phInt
	if value > 1<<31-1 {
		ph = phFloat
	}
	if j < len(b) && b[j] == '.' {
		k := j + 1
		for k < len(b) && charKinds[b[k]] == ckDigit {
			k++
		}
		if k == j+1 {
			return j, phFloat, false // "1." and "1..2"
		}
		j, ph = k, phFloat
	}
	if j < len(b) && b[j]|0x20 == 'e' {
		k := j + 1
		if k < len(b) && (b[k] == '+' || b[k] == '-') {
			k++
		}
		d := k
		for k < len(b) && charKinds[b[k]] == ckDigit {
			k++
		}
		if k == d {
			return j, phFloat, false
		}
		j, ph = k, phFloat
	}
	if j < len(b) && (wordChars[b[j]] || b[j] == '.') {
		return j, ph, false // 0x1F, 1_000, trailing junk
	}
	return j, ph, true
}

// parenFollows tells whether the next thing after white space is a parenthesis
// (or a comment, behind which it may be).
func parenFollows(b []byte) bool {
	for _, c := range b {
		switch {
		case charKinds[c] == ckSpace:
		default:
			return c == '(' || c == '/' || c == '-'
		}
	}
	return false
}

// equalFold compares ASCII text without regard to case.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// equalFold2 compares a word with a lower-case one of the same length.
func equalFold2(w []byte, low string) bool {
	for i := range len(low) {
		if w[i]|0x20 != low[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// fold lower-cases ASCII, as PostgreSQL folds names of settings.
func fold(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				b[j] = lower(b[j])
			}
			return string(b)
		}
	}
	return s
}

// cutFold takes a prefix off, without regard to case.
func cutFold(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || !equalFold(string(b[:len(prefix)]), prefix) {
		return nil, false
	}
	return b[len(prefix):], true
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && charKinds[b[0]] == ckSpace {
		b = b[1:]
	}
	for len(b) > 0 && charKinds[b[len(b)-1]] == ckSpace {
		b = b[:len(b)-1]
	}
	return b
}
