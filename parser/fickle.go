package parser

import (
	"bytes"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// steadyTypes are those to which anything may be cast without a look at the
// clock, at the catalog or at functions of users. Dates and times are not among
// them, as the text 'now' may be what is cast; nor is regclass.
var steadyTypes = map[string]bool{
	"text": true, "varchar": true, "bpchar": true, "char": true, "name": true, "bytea": true, "bit": true, "varbit": true,
	"int2": true, "int4": true, "int8": true, "float4": true, "float8": true, "numeric": true, "bool": true, "money": true, "oid": true,
	"json": true, "jsonb": true, "jsonpath": true, "uuid": true, "xml": true, "interval": true, "tsvector": true, "tsquery": true,
	"inet": true, "cidr": true, "macaddr": true, "macaddr8": true,
	"point": true, "line": true, "lseg": true, "box": true, "path": true, "polygon": true, "circle": true,
}

// timeTypes are steady for constants, given that those are not moods (see Moody).
var timeTypes = map[string]bool{
	"date": true, "time": true, "timetz": true, "timestamp": true, "timestamptz": true,
	"daterange": true, "tsrange": true, "tstzrange": true, "int4range": true, "int8range": true, "numrange": true,
}

func fickleCast(c *pg.TypeCast) bool {
	n := lastTwo(c.TypeName.GetNames())
	if n.Schema != "" && n.Schema != "pg_catalog" {
		return true
	}
	constant := c.Arg.GetAConst() != nil || c.Arg.GetParamRef() != nil
	return !steadyTypes[n.Name] && !(constant && timeTypes[n.Name])
}

// Moody tells whether a text contains a word that PostgreSQL reads as a moment or a
// day which depends on the clock, if it is the text of a date or time: now, today,
// tomorrow, yesterday. It may be wrong to the safe side. Texts in which such a word
// could be hidden, by escapes or by literals in pieces, are moody, too.
func Moody(text []byte) bool {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c | 0x20 {
		case 'n':
			if wordAt(text, i, "now") {
				return true
			}
		case 't':
			if wordAt(text, i, "today") || wordAt(text, i, "tomorrow") {
				return true
			}
		case 'y':
			if wordAt(text, i, "yesterday") {
				return true
			}
		case 'e': // E'\x6eow'
			if i+1 < len(text) && text[i+1] == '\'' && (i == 0 || !wordChars[text[i-1]]) && bytes.IndexByte(text[i:], '\\') >= 0 {
				return true
			}
		case 'u': // U&'\006eow'
			if i+2 < len(text) && text[i+1] == '&' && (i == 0 || !wordChars[text[i-1]]) {
				return true
			}
		}
		if text[i] == '\'' && piecewise(text[i+1:]) {
			return true
		}
	}
	return false
}

// wordAt tells that the word w stands at i, in whatever case.
func wordAt(text []byte, i int, w string) bool {
	if len(text)-i < len(w) || i > 0 && letter(text[i-1]) || i+len(w) < len(text) && letter(text[i+len(w)]) {
		return false
	}
	for k := range len(w) {
		if text[i+k]|0x20 != w[k] {
			return false
		}
	}
	return true
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c >= 0x80 }

// piecewise tells that a quote is followed by white space with a line's end and
// another quote, so that two literals are one.
func piecewise(rest []byte) bool {
	line := false
	for _, c := range rest {
		switch c {
		case '\n', '\r':
			line = true
		case ' ', '\t', '\f', '\v':
		case '-': // a comment may stand there
			return line || bytes.IndexByte(rest, '\n') >= 0 && bytes.HasPrefix(bytes.TrimLeft(rest, " \t\n\r"), []byte("--"))
		default:
			return line && c == '\''
		}
	}
	return false
}
