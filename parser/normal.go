package parser

import (
	"bytes"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// Normal is a text as anybody may read it: a question mark in the place of each
// literal, no comments, white space collapsed, and no more than limit bytes. Lists of
// literals are one question mark. What cannot be read is told by its first word.
func Normal(sql []byte, limit int) string {
	s := &scan{}
	if s.run(sql); !s.exact && s.closed && !s.deep && len(sql) <= maxParse && bytes.IndexByte(sql, 0) < 0 {
		// Literals of rare forms: the C parser knows them.
		if text, err := pg.Normalize(string(sql)); err == nil {
			s.run([]byte(text))
		}
	}
	if !s.exact {
		return strings.ToValidUTF8(string(bytes.TrimRight(s.first[:], "\x00")), "?") + " ..."
	}
	return shown(s.norm, limit)
}

// shown writes a normalised text for people.
func shown(norm []byte, limit int) string {
	out := make([]byte, 0, min(len(norm), limit)+4)
	space := func() {
		if n := len(out); n > 0 && out[n-1] != ' ' {
			out = append(out, ' ')
		}
	}
	for i := 0; i < len(norm) && len(out) <= limit; i++ {
		switch c := norm[i]; {
		case c == '"':
			end := skipQuoted(norm, i, '"')
			out = append(out, norm[i:end]...)
			i = end - 1
		case c == phInt, c == phFloat, c == phString:
			out = append(out, '?')
		case bytes.HasPrefix(norm[i:], []byte("/**/")):
			space()
			i += 3
		case bytes.HasPrefix(norm[i:], []byte("--\n")):
			space()
			i += 2
		case c == ' ', c == '\n':
			space()
		default:
			out = append(out, c)
		}
	}
	text := strings.ToValidUTF8(string(out), "?")
	if len(text) > limit {
		return strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return strings.TrimRight(text, " ;")
}
