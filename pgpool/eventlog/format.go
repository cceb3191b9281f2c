package eventlog

import (
	"log/slog"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// report is one call of the log, taken apart.
type report struct {
	time    time.Time
	level   slog.Level
	text    string
	detail  string
	hint    string
	context []byte // key=value pairs that nobody asked for at default verbosity
	pc      uintptr
}

// append writes the lines of the report: each begins with the prefix, and a
// line break inside a text is followed by a tab, so that no text can pass for
// a line of its own.
func (r *report) append(buf []byte, s *settings, v verbosity, w *who) []byte {
	line := func(label, text string) {
		buf = s.prefix.append(buf, w, r.time)
		buf = append(buf, label...)
		buf = append(buf, ":  "...)
		buf = appendText(buf, text)
		buf = append(buf, '\n')
	}
	line(word(r.level), r.text)
	if v > terse {
		if r.detail != "" {
			line("DETAIL", r.detail)
		}
		if r.hint != "" {
			line("HINT", r.hint)
		}
	}
	if v > usual {
		if len(r.context) > 0 {
			line("CONTEXT", string(r.context))
		}
		if r.pc != 0 {
			f, _ := runtime.CallersFrames([]uintptr{r.pc}).Next()
			line("LOCATION", filepath.Base(f.File)+":"+strconv.Itoa(f.Line))
		}
	}
	return buf
}

// appendText adds a text of any origin. Tabs and bytes above ASCII stay as
// they came; a line break gets its tab; other control bytes are spelled out,
// except a carriage return that belongs to a line break.
func appendText(buf []byte, text string) []byte {
	from := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= ' ' && c != 0x7f || c == '\t' {
			continue
		}
		if c == '\r' && (i+1 == len(text) || text[i+1] == '\n') {
			continue
		}
		buf = append(buf, text[from:i]...)
		from = i + 1
		if c == '\n' {
			buf = append(buf, '\n', '\t')
		} else {
			buf = appendHex(buf, c)
		}
	}
	return append(buf, text[from:]...)
}

// appendWord adds a name that must stay on its line.
func appendWord(buf []byte, name string) []byte {
	from := 0
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < ' ' || c == 0x7f {
			buf = append(buf, name[from:i]...)
			buf = appendHex(buf, c)
			from = i + 1
		}
	}
	return append(buf, name[from:]...)
}

func appendHex(buf []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	return append(buf, '\\', 'x', digits[c>>4], digits[c&15])
}

// appendPair adds key=value; a value that is not one plain word is quoted.
func appendPair(buf []byte, key, value string) []byte {
	if len(buf) > 0 {
		buf = append(buf, ' ')
	}
	buf = append(buf, key...)
	buf = append(buf, '=')
	if value == "" || strings.ContainsAny(value, " \t\r\n\"=") {
		return strconv.AppendQuote(buf, value)
	}
	return append(buf, value...)
}
