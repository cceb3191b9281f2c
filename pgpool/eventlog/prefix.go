package eventlog

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// prefix is a compiled log_line_prefix.
type prefix []piece

// piece is literal text, or an escape with the width it is padded to
// (negative: blanks behind the value).
type piece struct {
	text  string
	verb  byte
	width int
}

// compile reads a log_line_prefix. Unknown escapes print nothing, with or
// without a width, as in the original.
func compile(format string) prefix {
	var p prefix
	lit := []byte{}
	flush := func() {
		if len(lit) > 0 {
			p = append(p, piece{text: string(lit)})
			lit = lit[:0]
		}
	}
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			lit = append(lit, format[i])
			continue
		}
		i++
		left := i < len(format) && format[i] == '-'
		if left {
			i++
		}
		width := 0
		for i < len(format) && format[i] >= '0' && format[i] <= '9' {
			width = min(width*10+int(format[i]-'0'), 1000)
			i++
		}
		if left {
			width = -width
		}
		if i == len(format) {
			break
		}
		switch c := format[i]; c {
		case '%':
			lit = append(lit, '%')
		case 'a', 'p', 'P', 't', 'm', 'd', 'u', 'l':
			flush()
			p = append(p, piece{verb: c, width: width})
		}
	}
	flush()
	return p
}

// append adds the prefix of one line; it counts the line.
func (p prefix) append(buf []byte, w *who, now time.Time) []byte {
	line := w.lines.Add(1)
	for _, part := range p {
		if part.verb == 0 {
			buf = append(buf, part.text...)
			continue
		}
		start := len(buf)
		switch part.verb {
		case 'a':
			buf = appendWord(buf, w.app)
		case 'p':
			buf = strconv.AppendInt(buf, w.pid, 10)
		case 'P':
			buf = append(buf, w.kind()...)
		case 't':
			buf = now.AppendFormat(buf, time.DateTime)
		case 'm':
			buf = now.AppendFormat(buf, "2006-01-02 15:04:05.000")
		case 'd':
			buf = appendWord(buf, orNone(w.database))
		case 'u':
			buf = appendWord(buf, orNone(w.user))
		case 'l':
			buf = strconv.AppendInt(buf, line, 10)
		}
		buf = pad(buf, start, part.width)
	}
	return buf
}

func orNone(s string) string {
	if s == "" {
		return "[No Connection]"
	}
	return s
}

// pad widens buf[start:] to the given width.
func pad(buf []byte, start, width int) []byte {
	missing := max(width, -width) - utf8.RuneCount(buf[start:])
	if missing <= 0 {
		return buf
	}
	for range missing {
		buf = append(buf, ' ')
	}
	if width > 0 {
		value := buf[start : len(buf)-missing]
		copy(buf[start+missing:], value)
		for i := range missing {
			buf[start+i] = ' '
		}
	}
	return buf
}
