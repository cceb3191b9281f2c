package conf

import "fmt"

// The tokens of pgpool.conf; the numbers are the ones the original names in its messages.
type tokenKind int

const (
	tokenEnd     tokenKind = 0
	tokenKey     tokenKind = 1
	tokenInteger tokenKind = 2
	tokenReal    tokenKind = 3
	tokenString  tokenKind = 4
	tokenWord    tokenKind = 5 // a bare word that is no key: it has a - . : or /
	tokenEquals  tokenKind = 6
	tokenNewline tokenKind = 7
	tokenOther   tokenKind = 8
)

type token struct {
	kind tokenKind
	text string
	line int
}

// value is a token as a parameter's value: without its quotes, nothing unescaped.
func (t token) value() string {
	if t.kind == tokenString {
		return t.text[1 : len(t.text)-1]
	}
	return t.text
}

// lexer cuts a file into tokens, always taking the longest one that fits.
type lexer struct {
	src  string
	pos  int
	line int // of the next byte
}

func newLexer(src string) *lexer { return &lexer{src: src, line: 1} }

func (l *lexer) next() token {
	l.skipBlanks()
	if l.pos == len(l.src) {
		return token{tokenEnd, "", l.line}
	}
	kind, end := l.longest()
	t := token{kind, l.src[l.pos:end], l.line}
	if kind == tokenNewline {
		l.line++
	}
	l.pos = end
	return t
}

// skipBlanks passes white space and comments, which end before their newline.
func (l *lexer) skipBlanks() {
	for l.pos < len(l.src) {
		switch l.src[l.pos] {
		case ' ', '\t', '\r':
			l.pos++
		case '#':
			l.pos = l.run(l.pos, func(b byte) bool { return b != '\n' })
		default:
			return
		}
	}
}

func (l *lexer) longest() (tokenKind, int) {
	switch b := l.src[l.pos]; {
	case b == '\n':
		return tokenNewline, l.pos + 1
	case b == '=':
		return tokenEquals, l.pos + 1
	case b == '\'':
		if end, ok := l.quoted(); ok {
			return tokenString, end
		}
	case isLetter(b):
		key := l.run(l.pos, isKeyByte)
		word := l.run(l.pos, func(b byte) bool { return isKeyByte(b) || b == '-' || b == '.' || b == ':' || b == '/' })
		if word > key {
			return tokenWord, word
		}
		return tokenKey, key
	default:
		if kind, end := l.number(); end > l.pos {
			return kind, end
		}
	}
	return tokenOther, l.pos + 1
}

// quoted finds the end of a string. A backslash protects the next byte, quotes
// too; but where no further quote follows on the line, a protected quote ends it.
func (l *lexer) quoted() (end int, ok bool) {
	for i := l.pos + 1; i < len(l.src) && l.src[i] != '\n'; i++ {
		if l.src[i] != '\'' {
			continue
		}
		end, ok = i+1, true
		if l.src[i-1] != '\\' {
			break
		}
	}
	return end, ok
}

// number finds an integer with letters attached (10s, 0x1F, 64MB) or a real.
func (l *lexer) number() (tokenKind, int) {
	at := func(i int) byte {
		if i < len(l.src) {
			return l.src[i]
		}
		return 0
	}
	start := l.pos
	if at(start) == '+' || at(start) == '-' {
		start++
	}
	whole := l.run(start, isDigit)
	integer := l.pos
	if whole > start {
		integer = whole
		if whole == start+1 && at(start) == '0' && at(whole) == 'x' && isHex(at(whole+1)) {
			integer = l.run(whole+1, isHex)
		}
		integer = l.run(integer, isASCIILetter)
	}
	realEnd := l.pos
	if at(whole) == '.' {
		realEnd = l.run(whole+1, isDigit)
		if e := at(realEnd); e == 'e' || e == 'E' {
			exp := realEnd + 1
			if at(exp) == '+' || at(exp) == '-' {
				exp++
			}
			if end := l.run(exp, isDigit); end > exp {
				realEnd = end
			}
		}
	}
	if realEnd > integer {
		return tokenReal, realEnd
	}
	return tokenInteger, integer
}

// run returns the end of the bytes of a class that start at from.
func (l *lexer) run(from int, class func(byte) bool) int {
	for from < len(l.src) && class(l.src[from]) {
		from++
	}
	return from
}

func isASCIILetter(b byte) bool { return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' }
func isLetter(b byte) bool      { return isASCIILetter(b) || b == '_' || b >= 0x80 }
func isKeyByte(b byte) bool     { return isLetter(b) || isDigit(b) }

// assignment is one "name = value" of a file.
type assignment struct {
	name  string
	value string
	file  string
	line  int
}

// statements reads a file's text as a list of assignments; include lines are
// among them, under the name "include".
func statements(file, src string) ([]assignment, *Error) {
	var all []assignment
	l := newLexer(src)
	for {
		key := l.next()
		switch key.kind {
		case tokenNewline:
			continue
		case tokenEnd:
			return all, nil
		case tokenKey:
		default:
			return nil, syntaxError(file, key)
		}
		value := l.next()
		if value.kind == tokenEquals {
			value = l.next()
		}
		switch value.kind {
		case tokenKey, tokenInteger, tokenReal, tokenString, tokenWord:
		default:
			return nil, noValue(file, key, value)
		}
		all = append(all, assignment{key.text, value.value(), file, key.line})
	}
}

func syntaxError(file string, t token) *Error {
	return &Error{File: file, Line: t.line,
		Text:   fmt.Sprintf("syntax error in configuration file %q", file),
		Detail: fmt.Sprintf("parse error at line %d '%s' token = %d", t.line, t.text, t.kind)}
}

// noValue is an error where the original would take a stray byte, or the end of the line, for the value.
func noValue(file string, key, t token) *Error {
	e := syntaxError(file, t)
	switch {
	case t.kind == tokenNewline || t.kind == tokenEnd:
		e.Line = key.line
		e.Detail = fmt.Sprintf("parse error at line %d: parameter %q has no value", key.line, key.text)
		e.Hint = "An empty value is written ''."
	case t.text == "'":
		e.Detail = fmt.Sprintf("parse error at line %d: parameter %q has an unterminated quoted value", t.line, key.text)
		e.Hint = "A quoted value ends with ' on the same line."
	case t.text == `"`:
		e.Detail += fmt.Sprintf(": parameter %q has a value in double quotes", key.text)
		e.Hint = "Values are quoted with ', not with \"."
	default:
		e.Hint = "Values with characters other than letters, digits and _ - . : / are quoted with '."
	}
	return e
}
