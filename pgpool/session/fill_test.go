package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgpool-go/parser"
)

// filling makes a filler whose values are V, or V1, V2, ... for every row, for columns
// at the given places.
func filling(form parser.CopyForm, every bool, at ...int) *filler {
	if form.Delimiter == 0 {
		form.Delimiter = map[bool]byte{false: '\t', true: ','}[form.CSV]
	}
	if form.CSV && form.Quote == 0 {
		form.Quote = '"'
	}
	if form.Escape == 0 {
		form.Escape = form.Quote
	}
	if form.Null == "" && !form.CSV {
		form.Null = `\N`
	}
	what := parser.Filling{Form: form}
	for i, at := range at {
		what.Columns = append(what.Columns, parser.Filled{Name: fmt.Sprintf("c%d", i), At: at, Every: every})
	}
	f := newFiller(&what)
	for _, o := range f.supplies {
		o.fixed, _ = f.render(nil, []byte("V"))
	}
	f.more()
	return f
}

// more gives values to one that lacks them, few at a time.
func (f *filler) more() {
	for _, o := range f.supplies {
		if o.asked() && len(o.queue) == 0 {
			for range 2 {
				f.used++ // not used by these supplies
				v, _ := f.render(nil, fmt.Appendf(nil, "V%d", f.used))
				o.queue = append(o.queue, v)
			}
		}
	}
}

// all feeds data that is cut at the given places.
func (f *filler) all(data []byte, cuts ...int) string {
	var out []byte
	from := 0
	for _, to := range append(cuts, len(data)) {
		for from < to {
			piece, n := f.feed(nil, data[from:to])
			out = append(out, piece...)
			from += n
			f.more()
		}
	}
	return string(f.finish(out))
}

var fillCases = []struct {
	name, in, want string
	form           parser.CopyForm
	every          bool
	at             []int
	change         func(*filler)
}{
	{name: "text", in: "1\tx\n2\ty\n", want: "V\t1\tx\nV\t2\ty\n"},
	{name: "no data", in: "", want: ""},
	{name: "no end of the last line", in: "1\n2", want: "V\t1\nV\t2"},
	{name: "empty lines", in: "\n\n", want: "V\t\nV\t\n"},
	{name: "two columns", in: "1\n", want: "V\tV\t1\n", at: []int{-1, -1}},
	{name: "a value for every row", every: true, in: "1\n2\n3\n4\n5", want: "V1\t1\nV2\t2\nV3\t3\nV4\t4\nV5\t5"},
	{name: "escaped newline", in: "a\\\nb\nc\\\\\nd\\\\\\\ne\n", want: "V\ta\\\nb\nV\tc\\\\\nV\td\\\\\\\ne\n"},
	{name: "\\r\\n", in: "a\r\nb\r\nc", want: "V\ta\r\nV\tb\r\nV\tc"},
	{name: "\\r", in: "a\rb\r\rc", want: "V\ta\rV\tb\rV\t\rV\tc"},
	{name: "\\r at the end of the first line", in: "a\r", want: "V\ta\r"},
	{name: "escaped \\r in the first line", in: "a\\\rb\nc\n", want: "V\ta\\\rb\nV\tc\n"},
	{name: "end marker", in: "a\n\\.\nb\n\\.\n", want: "V\ta\n\\.\nb\n\\.\n"},
	{name: "end marker, \\r\\n", in: "a\r\n\\.\r\nb\r\n", want: "V\ta\r\n\\.\r\nb\r\n"},
	{name: "end marker at once", in: "\\.\nb\n", want: "\\.\nb\n"},
	{name: "end marker without a newline", in: "a\n\\.", want: "V\ta\n\\."},
	{name: "not an end marker", in: "\\.x\n\\\\.\n\\", want: "V\t\\.x\nV\t\\\\.\nV\t\\"},
	{name: "end marker within a line", in: "a\\.\nb\n", want: "V\ta\\.\nV\tb\n"},
	{name: "text with a header", form: parser.CopyForm{Header: 1}, in: "h\n1\n", want: "h\nV\t1\n"},
	{name: "several lines of header", form: parser.CopyForm{Header: 2}, every: true, in: "h\nh\n1\n2\n", want: "h\nh\nV1\t1\nV2\t2\n"},
	{name: "header that must match", form: parser.CopyForm{Header: 1, Match: true}, in: "h\n1\n", want: "c0\th\nV\t1\n"},

	{name: "CSV", form: parser.CopyForm{CSV: true}, in: "1,x\n2,y\n\n3", want: "\"V\",1,x\n\"V\",2,y\n\"V\",\n\"V\",3"},
	{name: "newlines in quotes", form: parser.CopyForm{CSV: true}, in: "\"a\nb\"\"\n\",\"\"\nx\"\n\"y\n", want: "\"V\",\"a\nb\"\"\n\",\"\"\n\"V\",x\"\n\"y\n"},
	{name: "\\r\\n in quotes of the first line", form: parser.CopyForm{CSV: true}, in: "\"a\r\n\"\nb\n", want: "\"V\",\"a\r\n\"\n\"V\",b\n"},
	{name: "escape that is no quote", form: parser.CopyForm{CSV: true, Escape: '\\'}, in: "\"a\\\"\nb\\\\\"\n\\\"\nc\"\n", want: "\"V\",\"a\\\"\nb\\\\\"\n\"V\",\\\"\nc\"\n"},
	{name: "quote and delimiter", form: parser.CopyForm{CSV: true, Quote: '\'', Delimiter: '|'}, in: "a|'\n'\nb\n", want: "'V'|a|'\n'\n'V'|b\n"},
	{name: "CSV end marker", form: parser.CopyForm{CSV: true}, in: "a\n\\.\nb\n", want: "\"V\",a\n\\.\nb\n"},
	{name: "CSV end marker that is none", form: parser.CopyForm{CSV: true}, in: "\\.,b\n\"\n\\.\n\"\n\\.", want: "\"V\",\\.,b\n\"V\",\"\n\\.\n\"\n\"V\",\\."},
	{name: "CSV end marker of version 18", form: parser.CopyForm{CSV: true}, in: "a\n\\.\nb\n", want: "\"V\",a\n\"V\",\\.\n\"V\",b\n", change: func(f *filler) { f.dots = false }},
	{name: "CSV header", form: parser.CopyForm{CSV: true, Header: 1, Match: true}, in: "\"a\nb\"\n1\n", want: "\"c0\",\"a\nb\"\n\"V\",1\n"},

	{name: "second byte of SJIS is a backslash", in: "\x83\x5c\n\x83\\\\\n\n\xb1\\\\\n", want: "V\t\x83\x5c\nV\t\x83\\\\\n\nV\t\xb1\\\\\n", change: func(f *filler) { f.wide = wideEncoding("ShiftJIS") }},
	{name: "four bytes of GB18030", in: "\x81\x30\x81\x30\n\x81\\\nb\n\\\x81\\\nc\n", want: "V\t\x81\x30\x81\x30\nV\t\x81\\\nV\tb\nV\t\\\x81\\\nV\tc\n", change: func(f *filler) { f.wide = wideEncoding("gb18030") }},
	{name: "a quote within a character", form: parser.CopyForm{CSV: true, Quote: '|'}, in: "\x83|\n|\x83|\n|\n", want: "|V|,\x83|\n|V|,|\x83|\n|\n", change: func(f *filler) { f.wide = wideEncoding("SJIS") }},

	{name: "default asked for", form: parser.CopyForm{Default: `\D`, HasDefault: true}, at: []int{-1, 1}, in: "a\t\\D\n\\D\tx\\D\nb\t\\Dx\nc\t\\\nd\n\\D\t\\D", want: "V\ta\tV\nV\t\\D\tx\\D\nV\tb\t\\Dx\nV\tc\t\\\nd\nV\t\\D\tV"},
	{name: "default asked for, and \\r\\n", form: parser.CopyForm{Default: "D", HasDefault: true, CSV: true}, at: []int{0, 2}, every: true, in: "D,1,D\r\n2,D,x\r\n\"D\",D,D\r\nD,,\"\n,D\"\r\nD", want: "\"V1\",1,\"V3\"\r\n2,D,x\r\n\"D\",D,\"V4\"\r\n\"V2\",,\"\n,D\"\r\n\"V7\""},
	{name: "nothing asks for the default", form: parser.CopyForm{HasDefault: true}, at: []int{0}, in: "\n\t\n\nx\n", want: "V\nV\t\nV\nx\n"},
	{name: "default in a header", form: parser.CopyForm{Default: "D", HasDefault: true, Header: 1}, at: []int{0}, in: "D\nD\n", want: "D\nV\n"},

	{name: "binary", form: parser.CopyForm{Binary: true}, in: binHeader + "\x00\x02\x00\x00\x00\x01a\xff\xff\xff\xff\x00\x01\x00\x00\x00\x00\xff\xff",
		want: binHeader + "\x00\x03\x00\x00\x00\x01V\x00\x00\x00\x01a\xff\xff\xff\xff\x00\x02\x00\x00\x00\x01V\x00\x00\x00\x00\xff\xff"},
	{name: "binary with more in the header, without an end", form: parser.CopyForm{Binary: true}, every: true, in: binHeader[:15] + "\x00\x00\x00\x03abc\x00\x00\x00\x00",
		want: binHeader[:15] + "\x00\x00\x00\x03abc\x00\x01\x00\x00\x00\x02V1\x00\x01\x00\x00\x00\x02V2"},
	{name: "half a number", form: parser.CopyForm{Binary: true}, in: binHeader + "\x00", want: binHeader + "\x00"},
	{name: "half a size", form: parser.CopyForm{Binary: true}, in: binHeader + "\x00\x01\x00", want: binHeader + "\x00\x02\x00\x00\x00\x01V\x00"},
	{name: "what follows the end", form: parser.CopyForm{Binary: true}, in: binHeader + "\xff\xff\x00\x00", want: binHeader + "\xff\xff\x00\x00"},
	{name: "not binary", form: parser.CopyForm{Binary: true}, in: "1\ta\n2\tb\n3\tc\n4\td\n5\te\n6\tf\n", want: "1\ta\n2\tb\n3\tc\n4\td\n5\te\n6\tf\n"},
	{name: "a size below zero", form: parser.CopyForm{Binary: true}, in: binHeader + "\x00\x01\xff\xff\xff\x00\x00\x01\x00\x00\x00\x00", want: binHeader + "\x00\x02\x00\x00\x00\x01V\xff\xff\xff\x00\x00\x01\x00\x00\x00\x00"},
	{name: "too many columns", form: parser.CopyForm{Binary: true}, in: binHeader + "\x7f\xff\x00\x00\x00\x00", want: binHeader + "\x7f\xff\x00\x00\x00\x00"},
}

const binHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func TestFill(t *testing.T) {
	for _, c := range fillCases {
		t.Run(c.name, func(t *testing.T) {
			fresh := func() *filler {
				at := c.at
				if at == nil {
					at = []int{-1}
				}
				f := filling(c.form, c.every, at...)
				if c.change != nil {
					c.change(f)
				}
				return f
			}
			if got := fresh().all([]byte(c.in)); got != c.want {
				t.Fatalf("got  %q\nwant %q", got, c.want)
			}
			for i := range len(c.in) + 1 {
				for k := i; k <= len(c.in); k++ {
					if got := fresh().all([]byte(c.in), i, k); got != c.want {
						t.Fatalf("cut at %d and %d\ngot  %q\nwant %q", i, k, got, c.want)
					}
				}
			}
			var each []int
			for i := range c.in {
				each = append(each, i)
			}
			if got := fresh().all([]byte(c.in), each...); got != c.want {
				t.Fatalf("cut everywhere\ngot  %q\nwant %q", got, c.want)
			}
		})
	}
}

// What goes in front does not depend on how the data is cut, and without it the data
// is the client's.
func FuzzFill(f *testing.F) {
	for i, c := range fillCases {
		f.Add([]byte(c.in), uint8(i), uint64(i))
	}
	encodings := []string{"UTF8", "SJIS", "GB18030", "BIG5"}
	f.Fuzz(func(t *testing.T, data []byte, how uint8, seed uint64) {
		form := parser.CopyForm{CSV: how&1 > 0, Binary: how&3 == 2, Header: int(how >> 2 & 1)}
		if form.CSV && how&8 > 0 {
			form.Escape = '\\'
		}
		at := []int{-1}
		if how&16 > 0 && !form.Binary {
			form.HasDefault, form.Default, at = true, "ab", []int{-1, 0, 1}
		}
		fresh := func() *filler {
			p := filling(form, how&32 > 0, at...)
			p.wide = wideEncoding(encodings[how>>6])
			return p
		}
		whole := fresh().all(data)
		rnd := rand.New(rand.NewPCG(seed, 0))
		var cuts []int
		for i := 0; i < len(data); i += rnd.IntN(5) {
			cuts = append(cuts, i)
		}
		if got := fresh().all(data, cuts...); got != whole {
			t.Fatalf("cut at %v\ngot  %q\nwhole %q", cuts, got, whole)
		}
		if !form.HasDefault && !form.Binary && how&32 == 0 {
			front := "V\t"
			if form.CSV {
				front = "\"V\","
			}
			if !strings.Contains(string(data), front) && strings.ReplaceAll(whole, front, "") != string(data) {
				t.Fatalf("%q was made of %q", whole, data)
			}
		}
	})
}

func TestRenderedValues(t *testing.T) {
	for _, c := range []struct {
		form parser.CopyForm
		wide string
		in   string
		want string // empty: cannot be written
	}{
		{in: "a\tb\\c\nd\re", want: "a\\\tb\\\\c\\nd\\re"},
		{form: parser.CopyForm{Delimiter: '-'}, in: "2026-01-02", want: `2026\-01\-02`},
		{form: parser.CopyForm{Null: "2026"}, in: "2026", want: `\x32026`},
		{form: parser.CopyForm{Null: `\-1`, Delimiter: '-'}, in: "-1", want: `\x2d1`},
		{form: parser.CopyForm{Default: "x", HasDefault: true}, in: "x", want: `\x78`},
		{form: parser.CopyForm{HasDefault: true}, in: ""},
		{form: parser.CopyForm{CSV: true}, in: `a"b,` + "\n", want: `"a""b,` + "\n" + `"`},
		{form: parser.CopyForm{CSV: true, Quote: '-', Escape: '6'}, in: "2026-1", want: "-20266" + "6-1-"},
		{form: parser.CopyForm{CSV: true, ForceNull: true, Null: "x"}, in: "x"},
		{form: parser.CopyForm{CSV: true, ForceNull: true, Null: "y"}, in: "x", want: `"x"`},
		{wide: "sjis", in: "\x83\x5c\\\xb1\\", want: "\x83\x5c\\\\\xb1\\\\"},
		{form: parser.CopyForm{Binary: true}, in: "abc", want: "\x00\x00\x00\x03abc"},
	} {
		f := filling(c.form, false, -1)
		f.wide = wideEncoding(c.wide)
		got, ok := f.render([]byte("<"), []byte(c.in))
		if ok != (c.want != "") || ok && string(got) != "<"+c.want {
			t.Errorf("%+v: %q is %q, %t", c.form, c.in, got, ok)
		}
	}
	f := filling(parser.CopyForm{}, false, -1)
	if got, ok := f.render(nil, nil); !ok || string(got) != `\N` {
		t.Errorf("null is %q", got)
	}
}

// Rows that the server shows are shown without what was put in.
func TestUnfilledMessages(t *testing.T) {
	f := filling(parser.CopyForm{}, false, -1, -1)
	uuids := newFiller(&parser.Filling{Form: parser.CopyForm{CSV: true, Quote: '"', Escape: '"', Delimiter: ','}, Columns: []parser.Filled{{At: -1, Type: "uuid", Every: true, Known: true, Chance: parser.UUID}}})
	long := filling(parser.CopyForm{}, false, -1)
	long.front[0].fixed = []byte("VVVV")
	for _, c := range []struct {
		f        *filler
		kind     byte
		in, want string
	}{
		{f, 'W', "COPY t, line 3: \"V\tV\t1\tx\"\nmore", "COPY t, line 3: \"1\tx\"\nmore"},
		{f, 'W', "COPY t, line 3, column a: \"x\"", "COPY t, line 3, column a: \"x\""},
		{uuids, 'W', "COPY t, line 3: \"\"01234567-89ab-4def-8123-456789abcdef\",1,2\"", "COPY t, line 3: \"1,2\""},
		{uuids, 'W', "COPY t, line 3: \"\"01234567-8...\"", "COPY t, line 3: \"...\""},
		{long, 'W', "COPY t, line 3: \"VV...\"", "COPY t, line 3: \"...\""},
		{long, 'W', "COPY t, line 3: \"x...\"", "COPY t, line 3: \"x...\""},
		{f, 'M', "row field count is 3, expected 5", "row field count is 1, expected 3"},
		{f, 'M', "column name mismatch in header line field 4: got \"x\", expected \"b\"", "column name mismatch in header line field 2: got \"x\", expected \"b\""},
		{f, 'M', "wrong number of fields in header line: got 3, expected 4", "wrong number of fields in header line: got 1, expected 2"},
	} {
		if got := c.f.unfilled(c.kind, c.in); got != c.want {
			t.Errorf("%q became %q", c.in, got)
		}
	}
}

// A frame of many rows is given in pieces, and takes no memory for each row.
func TestFillTakesNoMemory(t *testing.T) {
	data := bytes.Repeat([]byte("1\tsome text\n"), 20000)
	f := filling(parser.CopyForm{}, false, -1)
	out := make([]byte, 0, 4*fillPiece)
	feed := func() {
		for at := 0; at < len(data); {
			var n int
			out, n = f.feed(out[:0], data[at:])
			if at += n; len(out) > 3*fillPiece {
				t.Fatalf("%d bytes at once", len(out))
			}
		}
	}
	if n := testing.AllocsPerRun(10, feed); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFill(b *testing.B) {
	row := []byte("1\tsome text of a hundred bytes or so, as rows have it, with nothing special in it at all\t2026\n")
	data := bytes.Repeat(row, 60000/len(row))
	var out []byte
	for _, c := range []struct {
		name string
		form parser.CopyForm
	}{{"text", parser.CopyForm{}}, {"CSV", parser.CopyForm{CSV: true}}} {
		b.Run(c.name, func(b *testing.B) {
			f := filling(c.form, false, -1)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				for at := 0; at < len(data); {
					var n int
					out, n = f.feed(out[:0], data[at:])
					at += n
				}
			}
		})
	}
}
