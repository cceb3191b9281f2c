package parser

import (
	"cmp"
	"errors"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// A text is rewritten by edits at its tokens: all else stays as the client has
// written it, and nothing depends on a printer of trees, which might lose something
// (and, being C, end the process on a tree that it does not expect).

// An editor gathers what is to be changed in a source.
type editor struct {
	*source
	edits []edit
}

// An edit puts text in the place of some tokens, in front of the first or behind the last.
type edit struct {
	first, last int
	place       int8
	text        string
}

const (
	inFront = iota
	instead
	behind
)

func (e *editor) insert(tok int, text string) {
	e.edits = append(e.edits, edit{tok, tok, inFront, text})
}
func (e *editor) append(tok int, text string) {
	e.edits = append(e.edits, edit{tok, tok, behind, text})
}
func (e *editor) replace(first, last int, text string) {
	e.edits = append(e.edits, edit{first, last, instead, text})
}

// errPlace is a tree that the tokens do not bear out: something is not as thought.
var errPlace = errors.New("a place in the text is not found")

// at is the token at a place of the tree.
func (e *editor) at(location int32) int {
	i := sort.Search(len(e.toks), func(i int) bool { return e.toks[i].at >= int(location) })
	if location < 0 || i == len(e.toks) || e.toks[i].at != int(location) {
		panic(errPlace)
	}
	return i
}

func (e *editor) is(i int, kind byte) bool {
	return i >= 0 && i < len(e.toks) && e.toks[i].kind == kind
}

// closing is the token that closes what is opened by one.
func (e *editor) closing(open int) int {
	depth := 0
	for i := open; i < len(e.toks); i++ {
		switch e.toks[i].kind {
		case '(', '[':
			depth++
		case ')', ']':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	panic(errPlace)
}

// opening is the first parenthesis behind a token.
func (e *editor) opening(i int) int {
	for ; i < len(e.toks); i++ {
		if e.toks[i].kind == '(' {
			return i
		}
	}
	panic(errPlace)
}

// find is the first of the words behind a token, outside of further parentheses.
func (e *editor) find(i int, word string) int {
	for ; i < len(e.toks); i++ {
		switch e.toks[i].kind {
		case '(', '[':
			i = e.closing(i)
		case ')', ']', ';':
			panic(errPlace)
		default:
			if e.word(i, word) {
				return i
			}
		}
	}
	panic(errPlace)
}

// nameEnd is the last token of a qualified name.
func (e *editor) nameEnd(i int) int {
	for e.is(i+1, '.') && i+2 < len(e.toks) {
		i += 2
	}
	return i
}

// follow are the words, all reserved, that may follow an expression in a list of
// results.
var follow = map[string]bool{
	"into": true, "from": true, "where": true, "group": true, "having": true, "window": true, "union": true, "intersect": true, "except": true,
	"order": true, "limit": true, "offset": true, "fetch": true, "for": true, "on": true, "returning": true, "with": true,
}

// exprEnd is the last token of the expression, with its name, that begins at a token; with
// whole, of the list of them.
func (e *editor) exprEnd(start int, whole bool) int {
	i := start
	for ; i < len(e.toks); i++ {
		t := e.toks[i]
		switch t.kind {
		case '(', '[':
			i = e.closing(i)
			continue
		case ')', ']', ';':
			return i - 1
		case ',':
			if !whole {
				return i - 1
			}
			continue
		case 'w':
		default:
			continue
		}
		w := fold(string(e.plain[t.from:t.to]))
		if !follow[w] || i == start {
			continue
		}
		switch {
		case e.is(i-1, '.'), e.word(i-1, "as"):
		case w == "from" && e.word(i-1, "distinct") && (e.word(i-2, "is") || e.word(i-2, "not")):
		case w == "group" && e.word(i-1, "within"):
		case w == "with" && (e.word(i+1, "time") || e.word(i+1, "unique")):
		default:
			return i - 1
		}
	}
	return i - 1
}

// original is what the client has written from one token to another.
func (e *editor) original(first, last int) string {
	return string(e.sql[e.toks[first].from:e.toks[last].to])
}

// Values that are new in each row stand in edits between marks, behind the mark for
// their kind.
const mark = "\x00"

func marked(c Chance, param bool, text string) string {
	kind := 'a' + rune(c)
	if param {
		kind = 'A' + rune(c)
	}
	return mark + string(kind) + text + mark
}

// settled is a text with the values that are marked; again, if it is given, makes others
// instead.
func settled(text string, again func(c Chance, param bool) string) string {
	if !strings.Contains(text, mark) {
		return text
	}
	parts := strings.Split(text, mark)
	for i := 1; i < len(parts); i += 2 {
		if again != nil {
			kind := parts[i][0]
			parts[i] = again(Chance(kind|0x20-'a'), kind < 'a')
		} else {
			parts[i] = parts[i][1:]
		}
	}
	return strings.Join(parts, "")
}

func (e *editor) sort() {
	slices.SortStableFunc(e.edits, func(a, b edit) int {
		key := func(x edit) int {
			if x.place == behind {
				return 3*x.last + behind
			}
			return 3*x.first + int(x.place)
		}
		return cmp.Compare(key(a), key(b))
	})
}

// write is the client's text with the edits. again makes values for rows that have been
// left out; without it the values stay marked.
func (e *editor) write(again func(c Chance, param bool) string) (string, error) {
	e.sort()
	out := make([]byte, 0, len(e.sql)+len(e.sql)/4+64*len(e.edits))
	pos := 0
	gone := e.gone
	copyTo := func(to int) error {
		for len(gone) > 0 && gone[0].from < to {
			g := gone[0]
			gone = gone[1:]
			if g.from < pos || g.to > to {
				return errPlace
			}
			out = append(out, e.sql[pos:g.from]...)
			pos = g.to
			var err error
			if out, err = e.writeRows(out, g, again); err != nil {
				return err
			}
		}
		if to < pos {
			return errPlace
		}
		out = append(out, e.sql[pos:to]...)
		pos = to
		return nil
	}
	for _, x := range e.edits {
		to := e.toks[x.first].from
		if x.place == behind {
			to = e.toks[x.last].to
		}
		if err := copyTo(to); err != nil {
			return "", err
		}
		if text := x.text; again == nil {
			out = append(out, text...)
		} else {
			out = append(out, settled(text, nil)...)
		}
		if x.place == instead {
			pos = e.toks[x.last].to
		}
	}
	err := copyTo(len(e.sql))
	return string(out), err
}

// writeReduced is the text that has been parsed with the edits.
func (e *editor) writeReduced(enc Encoding) ([]byte, error) {
	e.sort()
	out := make([]byte, 0, len(e.text)+64*len(e.edits))
	pos := 0
	for _, x := range e.edits {
		to := e.toks[x.first].at
		if x.place == behind {
			to = e.toks[x.last].end
		}
		if to < pos {
			return nil, errPlace
		}
		text := []byte(settled(x.text, nil))
		if !ascii(text) {
			named := &source{sql: text, plain: enc.mask(text), names: e.names}
			if !named.reduce(enc == Plain && utf8.Valid(text), false) {
				return nil, errPlace
			}
			text = named.text
		}
		out = append(append(out, e.text[pos:to]...), text...)
		if pos = to; x.place == instead {
			pos = e.toks[x.last].end
		}
	}
	return append(out, e.text[pos:]...), nil
}

// writeRows writes rows that have been left out, with the edits of those of their shape.
func (e *editor) writeRows(out []byte, g gone, again func(c Chance, param bool) string) ([]byte, error) {
	var row []token
	var key []byte
	depth := 0
	before := byte(0)
	for i := g.from; i < g.to; {
		t, ok := lex(e.plain, i, before)
		if !ok || t.kind == 0 || t.to > g.to {
			return out, errPlace
		}
		if depth == 0 {
			out = append(out, e.sql[i:t.from]...) // what stands between rows
		}
		i, before = t.to, t.kind
		switch t.kind {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		}
		if depth == 0 && len(row) == 0 {
			if t.kind != ',' {
				return out, errPlace
			}
			out = append(out, ',')
			continue
		}
		if row = append(row, t); depth > 0 {
			continue
		}
		key = e.shape(key[:0], row)
		model, seen := g.list.kept[string(key)]
		if !seen || model[1]-model[0] != len(row)-1 {
			return out, errPlace
		}
		pos := row[0].from
		first, _ := slices.BinarySearchFunc(e.edits, model[0], func(x edit, tok int) int { return cmp.Compare(x.first, tok) })
		for _, x := range e.edits[first:] {
			if x.first > model[1] {
				break
			}
			a, b := row[x.first-model[0]], row[x.last-model[0]]
			to := a.from
			if x.place == behind {
				to = b.to
			}
			if to < pos {
				return out, errPlace
			}
			out = append(append(out, e.sql[pos:to]...), settled(x.text, again)...)
			if pos = to; x.place == instead {
				pos = b.to
			}
		}
		out = append(out, e.sql[pos:row[len(row)-1].to]...)
		row = row[:0]
	}
	if depth != 0 || len(row) > 0 {
		return out, errPlace
	}
	return out, nil
}
