package session

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"pgpool-go/parser"
)

// A filler puts values into the data of a COPY FROM STDIN, as a parser.Filling says:
// in front of every row, and where a row asks for a column's default. It is given the
// data in pieces, cut wherever the client has cut them, and keeps only what it
// must see more of. It finds the ends of rows as the server does; data that the server
// refuses it may fill as it likes.
type filler struct {
	form     parser.CopyForm
	supplies []*supply
	front    []*supply
	marks    map[int]*supply // by the place of the client's column
	dots     bool            // a line of \. ends the data
	wide     *wide           // nil: no character has a byte of ASCII in it but ASCII itself

	over bool   // the rest is not touched
	hold []byte // taken and not given yet

	// Text and CSV.
	end     byte // of rows: \n, also after \r, or \r; 0, not known before the first has ended
	cr      bool // the first row has ended with \r, and perhaps a \n is to come
	start   bool // a row is to begin
	header  int  // so many rows are not filled
	escaped bool // text: after a backslash. CSV: after an escape in quotes
	quoted  bool
	skip    int  // bytes of a character yet to come
	second  bool // the next of them may tell of two more
	field   int
	mark    *supply // of the field that so far is the beginning of form.Default
	matched int     // how much of it

	// Binary.
	stage int
	left  int64 // bytes to pass until the next stage
	cells int   // of the row yet to come

	foreign bool       // the data is in another encoding than what servers say
	out     []byte     // what is sent
	noise   [4096]byte // random bytes
	used    int        // of them
}

// fillPiece is about how much is given at a time.
const fillPiece = 64 << 10

// Stages of binary data: what comes next.
const (
	binHead = iota
	binCount
	binSize
)

// A supply has the values of a column.
type supply struct {
	parser.Filled
	binary bool
	fixed  []byte   // as it is put in, if there is but one value
	queue  [][]byte // the same of values asked for
}

func newFiller(f *parser.Filling) *filler {
	p := &filler{form: f.Form, start: true, header: f.Form.Header, dots: true, marks: make(map[int]*supply)}
	for _, c := range f.Columns {
		o := &supply{Filled: c, binary: f.Form.Binary}
		if p.supplies = append(p.supplies, o); c.At < 0 {
			p.front = append(p.front, o)
		} else {
			p.marks[c.At] = o
		}
	}
	return p
}

// lacks tells that values must be asked for before more data can be taken.
func (f *filler) lacks() bool {
	return slices.ContainsFunc(f.supplies, func(o *supply) bool { return o.asked() && len(o.queue) == 0 })
}

// asked tells that values are asked for again and again.
func (o *supply) asked() bool { return o.Every && !o.Known }

// feed takes data and appends what is to be sent instead. It takes less than all, n
// bytes, if that becomes much or if it lacks values.
func (f *filler) feed(dst, src []byte) (_ []byte, n int) {
	src = src[:min(len(src), fillPiece)]
	for n < len(src) {
		if f.over {
			return append(dst, src[n:]...), len(src)
		}
		took := 0
		if f.form.Binary {
			if f.stage == binCount && (len(dst) > fillPiece || f.lacks()) {
				return dst, n
			}
			dst, took = f.cell(dst, src[n:])
		} else {
			if f.start && (len(dst) > fillPiece || f.lacks()) {
				return dst, n
			}
			dst, took = f.row(dst, src[n:])
		}
		n += took
	}
	return dst, n
}

// finish appends what has been held back, when there is no more data.
func (f *filler) finish(dst []byte) []byte {
	switch {
	case f.over, f.form.Binary && f.stage != binCount: // hold is a copy
	case f.form.Binary:
		dst = append(dst, f.hold...)
	case len(f.hold) == 2 && !f.form.CSV:
		dst = append(dst, f.hold...) // \. of which only half has come
	case len(f.hold) > 0:
		dst = f.begin(dst)
	}
	return f.unmark(dst)
}

// row takes data of a row, or what may be in front of it.
func (f *filler) row(dst, src []byte) (_ []byte, n int) {
	if f.start {
		c := src[0]
		if f.cr {
			f.cr = false
			if f.end = '\r'; c == '\n' {
				f.end = '\n'
				return append(dst, c), 1
			}
		}
		switch {
		case !f.dots:
		case len(f.hold) == 0 && c == '\\', len(f.hold) == 1 && c == '.':
			f.hold = append(f.hold, c)
			return dst, 1
		case len(f.hold) == 2 && (c == '\n' || c == '\r'):
			f.over = true
			dst = append(dst, f.hold...)
			f.hold = f.hold[:0]
			return dst, 0
		}
		dst = f.begin(dst)
	}
	return f.line(dst, src)
}

// begin begins a row, of which what was held back is part.
func (f *filler) begin(dst []byte) []byte {
	f.start, f.field, f.mark = false, 0, nil
	if f.header == 0 {
		for _, o := range f.front {
			dst = append(f.value(dst, o), f.form.Delimiter)
		}
		f.mark, f.matched = f.marks[0], 0
	} else if f.form.Match {
		for _, o := range f.front {
			dst, _ = f.render(dst, []byte(o.Name))
			dst = append(dst, f.form.Delimiter)
		}
	}
	held := f.hold
	dst, _ = f.line(dst, held)
	f.hold = held[:0]
	return dst
}

// line takes the data of a row up to its end.
func (f *filler) line(dst, src []byte) (_ []byte, n int) {
	if f.header == 0 && len(f.marks) > 0 {
		return f.fields(dst, src)
	}
	for n < len(src) {
		i := f.candidate(src[n:])
		if i < 0 {
			f.pass(src[n:])
			return append(dst, src...), len(src)
		}
		f.pass(src[n : n+i])
		n += i + 1
		free := f.free()
		if f.step(src[n-1]); free {
			f.ended(src[n-1])
			break
		}
	}
	return append(dst, src[:n]...), n
}

// fields is line for data in which default values may be asked for.
func (f *filler) fields(dst, src []byte) (_ []byte, n int) {
	for i, c := range src {
		free := f.free()
		stop, delimiter := free && (c == '\n' || c == '\r'), free && c == f.form.Delimiter
		if f.mark != nil {
			if !stop && !delimiter && f.matched < len(f.form.Default) && c == f.form.Default[f.matched] {
				f.matched++
				f.step(c)
				continue
			}
			if !stop && !delimiter {
				dst = append(dst, f.form.Default[:f.matched]...)
				f.mark = nil
			}
			dst = f.unmark(dst)
		}
		f.step(c)
		dst = append(dst, c)
		if delimiter {
			f.field++
			f.mark, f.matched = f.marks[f.field], 0
		}
		if stop && (f.end == 0 || c == f.end) {
			f.ended(c)
			return dst, i + 1
		}
	}
	return dst, len(src)
}

// unmark ends a field: it is a value, or what it looked like.
func (f *filler) unmark(dst []byte) []byte {
	if f.mark != nil {
		if f.matched == len(f.form.Default) {
			dst = f.value(dst, f.mark)
		} else {
			dst = append(dst, f.form.Default[:f.matched]...)
		}
		f.mark = nil
	}
	return dst
}

// ended ends a row.
func (f *filler) ended(c byte) {
	f.start = true
	f.header = max(0, f.header-1)
	if f.end == 0 {
		if f.cr = c == '\r'; !f.cr {
			f.end = '\n'
		}
	}
}

// candidate finds the next byte that may end the row.
func (f *filler) candidate(b []byte) int {
	if f.end != 0 {
		return bytes.IndexByte(b, f.end)
	}
	i := bytes.IndexByte(b, '\n')
	if i >= 0 {
		b = b[:i]
	}
	if k := bytes.IndexByte(b, '\r'); k >= 0 {
		return k
	}
	return i
}

// free tells that the next byte stands for itself, so that it may end a field or row.
func (f *filler) free() bool { return f.skip == 0 && !f.quoted && (f.form.CSV || !f.escaped) }

// pass is step for many bytes.
func (f *filler) pass(b []byte) {
	switch {
	case len(b) == 0:
	case f.wide != nil:
		for _, c := range b {
			f.step(c)
		}
	case !f.form.CSV: // an odd number of backslashes at the end escapes what follows
		rest := len(b)
		for rest > 0 && b[rest-1] == '\\' {
			rest--
		}
		f.escaped = (f.escaped && rest == 0) != ((len(b)-rest)%2 == 1)
	case f.form.Escape == f.form.Quote:
		f.quoted = f.quoted != (bytes.Count(b, []byte{f.form.Quote})%2 == 1)
	case !f.quoted && bytes.IndexByte(b, f.form.Quote) < 0:
	default:
		for _, c := range b {
			f.step(c)
		}
	}
}

// step goes over a byte of a row.
func (f *filler) step(c byte) {
	switch {
	case f.skip > 0:
		if f.skip--; f.second && '0' <= c && c <= '9' {
			f.skip += 2
		}
		f.second = false
		return
	case f.form.CSV:
		escape := f.form.Escape != f.form.Quote && c == f.form.Escape
		if escape && f.quoted {
			f.escaped = !f.escaped
		}
		if c == f.form.Quote && !f.escaped {
			f.quoted = !f.quoted
		}
		if !escape {
			f.escaped = false
		}
	default:
		f.escaped = c == '\\' && !f.escaped
	}
	if f.wide != nil && f.wide.lead(c) {
		f.skip, f.second = 1, f.wide.four
	}
}

// cell takes a piece of binary data. What is held back, or has been passed but
// belongs to a number that is not complete, is in hold.
func (f *filler) cell(dst, src []byte) (_ []byte, n int) {
	if f.left > 0 {
		n = int(min(f.left, int64(len(src))))
		f.left -= int64(n)
		return append(dst, src[:n]...), n
	}
	want := [...]int{binHead: 19, binCount: 2, binSize: 4}[f.stage]
	n = min(want-len(f.hold), len(src))
	if f.hold = append(f.hold, src[:n]...); f.stage != binCount {
		dst = append(dst, src[:n]...)
	}
	if len(f.hold) < want {
		return dst, n
	}
	b := f.hold
	f.hold = f.hold[:0]
	switch f.stage {
	case binHead:
		flags, size := binary.BigEndian.Uint32(b[11:]), int32(binary.BigEndian.Uint32(b[15:]))
		if string(b[:11]) != "PGCOPY\n\xff\r\n\x00" || flags>>16 != 0 || size < 0 {
			f.over = true
		}
		f.stage, f.left = binCount, int64(size)
	case binCount:
		count := int(int16(binary.BigEndian.Uint16(b)))
		if count < 0 || count+len(f.front) > math.MaxInt16 { // the end, or nonsense
			f.over = true
			return append(dst, b...), n
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(count+len(f.front)))
		for _, o := range f.front {
			dst = f.value(dst, o)
		}
		f.cells = count
		f.nextCell()
	case binSize:
		size := int32(binary.BigEndian.Uint32(b))
		if size < -1 {
			f.over = true
		}
		f.left = max(0, int64(size))
		f.cells--
		f.nextCell()
	}
	return dst, n
}

func (f *filler) nextCell() {
	if f.stage = binSize; f.cells == 0 {
		f.stage = binCount
	}
}

// value appends a column's next value.
func (f *filler) value(dst []byte, o *supply) []byte {
	switch {
	case !o.Every:
		return append(dst, o.fixed...)
	case o.asked():
		v := o.queue[0]
		o.queue = o.queue[1:]
		return append(dst, v...)
	}
	var room [40]byte
	text := room[:0]
	switch {
	case o.Chance == parser.Random:
		v := math.Nextafter(mathrand.Float64(), 0)
		if f.form.Binary {
			return binary.BigEndian.AppendUint64(append(dst, 0, 0, 0, 8), math.Float64bits(v))
		}
		text = strconv.AppendFloat(text, v, 'g', -1, 64)
	default:
		id := f.newUUID()
		if f.form.Binary && o.Type == "uuid" {
			return append(append(dst, 0, 0, 0, 16), id...)
		}
		text = appendUUID(text, id)
	}
	dst, _ = f.render(dst, text)
	return dst
}

// newUUID is valid until the next.
func (f *filler) newUUID() []byte {
	if f.used %= len(f.noise); f.used == 0 {
		rand.Read(f.noise[:])
	}
	f.used += 16
	return version4(f.noise[f.used-16:][:16])
}

// version4 makes a uuid of random bytes.
func version4(id []byte) []byte {
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

func appendUUID(dst, id []byte) []byte {
	for i, end := range [...]int{4, 6, 8, 10, 16} {
		from := [...]int{0, 4, 6, 8, 10}[i]
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, id[from:end])
	}
	return dst
}

// render appends a value as the data has it; nil is null. ok is false if such data
// cannot have it.
func (f *filler) render(dst, v []byte) (_ []byte, ok bool) {
	at, null := len(dst), v == nil
	switch {
	case f.form.Binary && null:
		return append(dst, 0xff, 0xff, 0xff, 0xff), true
	case f.form.Binary:
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
		return append(dst, v...), true
	case null:
		return append(dst, f.form.Null...), !(f.form.CSV && f.form.ForceNotNull)
	}
	skip, second := 0, false
	if f.form.CSV {
		dst = append(dst, f.form.Quote)
	}
	for _, c := range v {
		switch {
		case skip > 0:
			if skip--; second && '0' <= c && c <= '9' {
				skip += 2
			}
			second = false
		case f.wide != nil && f.wide.lead(c):
			skip, second = 1, f.wide.four
		case f.form.CSV && (c == f.form.Quote || c == f.form.Escape):
			dst = append(dst, f.form.Escape)
		case f.form.CSV:
		case c == '\n':
			dst, c = append(dst, '\\'), 'n'
		case c == '\r':
			dst, c = append(dst, '\\'), 'r'
		case c == '\\', c == f.form.Delimiter:
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	if f.form.CSV {
		return append(dst, f.form.Quote), !(f.form.ForceNull && string(v) == f.form.Null)
	}
	if !f.taken(dst[at:]) {
		return dst, true
	}
	if len(v) == 0 || v[0] >= 0x80 || v[0] == '\\' || v[0] == '\n' || v[0] == '\r' {
		return dst, false
	}
	rest := slices.Clone(dst[at:])
	rest = bytes.TrimPrefix(rest, []byte{'\\'})[1:]
	dst = append(fmt.Appendf(dst[:at], `\x%02x`, v[0]), rest...)
	return dst, !f.taken(dst[at:])
}

// taken tells that data means something else than a value.
func (f *filler) taken(b []byte) bool {
	return string(b) == f.form.Null || f.form.HasDefault && string(b) == f.form.Default
}

// wide are encodings in which a byte of ASCII may be the second of a character.
type wide struct {
	kana bool // some above ASCII stand alone
	four bool // characters may have four bytes, as the second tells
}

func (w *wide) lead(c byte) bool { return c >= 0x80 && !(w.kana && 0xa1 <= c && c <= 0xdf) }

// encodingName is the name of an encoding without what does not matter in it.
func encodingName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, name)
}

// wideEncoding is nil for encodings that are not.
func wideEncoding(name string) *wide {
	switch encodingName(name) {
	case "sjis", "mskanji", "shiftjis", "win932", "windows932", "shiftjis2004":
		return &wide{kana: true}
	case "big5", "win950", "windows950", "gbk", "win936", "windows936", "uhc", "win949", "windows949", "johab":
		return &wide{}
	case "gb18030":
		return &wide{four: true}
	}
	return nil
}

// unfilled is the text of a message of the server's about the data, without what was
// put in: rows that it shows, and numbers of columns.
func (f *filler) unfilled(kind byte, text string) string {
	n := len(f.front)
	if n == 0 {
		return text
	}
	if kind == 'M' {
		var got, want int
		for _, form := range []string{"row field count is %d, expected %d", "wrong number of fields in header line: got %d, expected %d"} {
			if _, err := fmt.Sscanf(text, form, &got, &want); err == nil {
				if got >= n { // else it was passed on as it was
					got -= n
				}
				return fmt.Sprintf(form, got, want-n)
			}
		}
		const field = "column name mismatch in header line field %d"
		if _, err := fmt.Sscanf(text, field, &got); err == nil {
			_, rest, _ := strings.Cut(text, ":")
			return fmt.Sprintf(field+":%s", got-n, rest)
		}
		return text
	}
	for i := range text {
		if i == 0 || text[i-1] != '"' || f.form.Binary {
			continue
		}
		if end := f.matches(text[i:]); end > 0 {
			return text[:i] + text[i+end:]
		}
	}
	return text
}

// matches is the length of what stands in front of a row, if a text begins with it.
// The server shows the beginning of a long row, and dots.
func (f *filler) matches(text string) int {
	const dots = "..."
	rest := text
	for _, o := range f.front {
		k := 0
		switch {
		case !o.Every:
			for k < len(rest) && k < len(o.fixed) && rest[k] == o.fixed[k] {
				k++
			}
			if k < len(o.fixed) && (k == 0 || !strings.HasPrefix(rest[k:], dots)) {
				return 0
			}
		case f.form.CSV: // always in quotes
			if rest == "" || rest[0] != f.form.Quote {
				return 0
			}
			if k = strings.Index(rest[1:], string([]byte{f.form.Quote, f.form.Delimiter})) + 2; k < 2 {
				k = strings.Index(rest, dots)
			}
		default:
			if k = strings.IndexByte(rest, f.form.Delimiter); k < 0 {
				k = strings.Index(rest, dots)
			}
		}
		if k < 0 {
			return 0
		}
		if rest = rest[k:]; strings.HasPrefix(rest, dots) {
			break
		}
		if rest == "" || rest[0] != f.form.Delimiter {
			return 0
		}
		rest = rest[1:]
	}
	return len(text) - len(rest)
}
