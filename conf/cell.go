package conf

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// cell is the place in a Config where one value of a setting lives, together
// with the way that kind of value is read and shown.
type cell interface {
	parse(name, value string) *Error // value as in the file, quotes removed
	show() string                    // as PGPOOL SHOW prints it
	raw() string                     // as SHOW POOL_STATUS prints it
	get() any
	put(any) // takes what get of a cell of the same setting gave
}

// place[T] is the part of a cell that every kind shares.
type place[T any] struct{ p *T }

func (c place[T]) get() any  { return *c.p }
func (c place[T]) put(v any) { *c.p = v.(T) }

func badValue(name, value, hint string) *Error {
	return &Error{Text: fmt.Sprintf("invalid value for parameter %q: %q", name, value), Hint: hint}
}

func badKey(name, detail, hint string) *Error {
	return &Error{Text: fmt.Sprintf("invalid configuration for key %q", name), Detail: detail, Hint: hint}
}

// boolCell takes any unambiguous prefix of true, false, yes, no, on, off, or 1
// or 0. The original takes everything else for on; we refuse it.
type boolCell struct{ place[bool] }

func (c boolCell) parse(name, value string) *Error {
	on, ok := parseBool(value)
	if !ok {
		return badValue(name, value, "Available values: on, off, true, false, yes, no, 1, 0.")
	}
	*c.p = on
	return nil
}

func parseBool(value string) (on, ok bool) {
	v := strings.ToLower(value)
	is := func(word string, least int) bool { return len(v) >= least && strings.HasPrefix(word, v) }
	switch {
	case is("true", 1), is("yes", 1), v == "on", v == "1":
		return true, true
	case is("false", 1), is("no", 1), is("off", 2), v == "0":
		return false, true
	}
	return false, false
}

func (c boolCell) show() string {
	if *c.p {
		return "on"
	}
	return "off"
}

func (c boolCell) raw() string {
	if *c.p {
		return "1"
	}
	return "0"
}

// intCell is a plain number; mode numbers are shown in octal.
type intCell struct {
	place[int]
	min, max int
	octal    bool
}

func (c intCell) parse(name, value string) *Error {
	low, high := int64(c.min), int64(c.max)
	if c.octal { // checked below, to show the limits in octal
		low, high = 0, maxInt
	}
	n, bad := parseInteger(name, value, unitless, low, high)
	switch {
	case bad != nil:
		return bad
	case n < int64(c.min) || n > int64(c.max):
		return outOfRange(name, fmt.Sprintf("%04o", n), fmt.Sprintf("%04o", c.min), fmt.Sprintf("%04o", c.max))
	}
	*c.p = int(n)
	return nil
}

func outOfRange(name, value, low, high string) *Error {
	return &Error{Text: fmt.Sprintf("%s is outside the valid range for parameter %q (%s .. %s)", value, name, low, high)}
}

func (c intCell) show() string {
	if c.octal {
		return fmt.Sprintf("%04o", *c.p)
	}
	return strconv.Itoa(*c.p)
}

func (c intCell) raw() string { return c.show() }

// durationCell is a time; limits count the setting's base unit.
type durationCell struct {
	place[time.Duration]
	unit     unit
	min, max int64
	plain    bool // shown without a unit
}

func (c durationCell) parse(name, value string) *Error {
	n, bad := parseInteger(name, value, c.unit, c.min, c.max)
	if bad == nil {
		*c.p = time.Duration(n * c.unit.base)
	}
	return bad
}

func (c durationCell) count() int64 { return int64(*c.p) / c.unit.base }
func (c durationCell) raw() string  { return strconv.FormatInt(c.count(), 10) }

func (c durationCell) show() string {
	if c.plain {
		return c.raw()
	}
	return c.unit.show(c.count())
}

// sizeCell is a number of bytes; limits count the setting's base unit.
type sizeCell struct {
	place[int64]
	unit     unit
	min, max int64
}

func (c sizeCell) parse(name, value string) *Error {
	n, bad := parseInteger(name, value, c.unit, c.min, c.max)
	if bad == nil {
		*c.p = n * c.unit.base
	}
	return bad
}

func (c sizeCell) raw() string  { return strconv.FormatInt(*c.p/c.unit.base, 10) }
func (c sizeCell) show() string { return c.unit.show(*c.p / c.unit.base) }

// floatCell is a number with a fraction.
type floatCell struct {
	place[float64]
	min, max float64
	whole    bool // shown without its fraction, as PGPOOL SHOW does with backend_weight
}

func (c floatCell) parse(name, value string) *Error {
	f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	switch {
	case err != nil:
		return badValue(name, value, "A number such as 1 or 0.5 is expected.")
	case !(f >= c.min && f <= c.max): // also true for NaN
		return outOfRange(name, fmt.Sprintf("%f", f), fmt.Sprintf("%f", c.min), fmt.Sprintf("%f", c.max))
	}
	*c.p = f
	return nil
}

func (c floatCell) show() string {
	if c.whole {
		return strconv.FormatInt(int64(*c.p), 10)
	}
	return fmt.Sprintf("%g", *c.p)
}

func (c floatCell) raw() string { return fmt.Sprintf("%f", *c.p) }

// textCell takes anything.
type textCell struct{ place[string] }

func (c textCell) parse(_, value string) *Error { *c.p = value; return nil }
func (c textCell) show() string                 { return *c.p }
func (c textCell) raw() string                  { return *c.p }

// listCell is items between separators; check, if any, judges each item.
type listCell struct {
	place[[]string]
	sep   byte
	check func(name, item string) *Error
}

func (c listCell) parse(name, value string) *Error {
	items := splitList(value, c.sep)
	if c.check != nil {
		for _, item := range items {
			if bad := c.check(name, item); bad != nil {
				return bad
			}
		}
	}
	*c.p = items
	return nil
}

// splitList cuts at separators that no backslash protects, and trims; empty items are dropped.
func splitList(value string, sep byte) []string {
	var items []string
	var item strings.Builder
	flush := func() {
		if s := strings.TrimSpace(item.String()); s != "" {
			items = append(items, s)
		}
		item.Reset()
	}
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == sep:
			flush()
			continue
		case value[i] == '\\' && i+1 < len(value):
			i++
			if value[i] != sep && value[i] != '\'' { // only these two are unprotected; the rest is the pattern's own
				item.WriteByte('\\')
			}
		}
		item.WriteByte(value[i])
	}
	flush()
	return items
}

func (c listCell) show() string {
	items := make([]string, len(*c.p))
	for i, item := range *c.p {
		items[i] = strings.ReplaceAll(item, string(c.sep), `\`+string(c.sep))
	}
	return strings.Join(items, string(c.sep))
}

func (c listCell) raw() string { return c.show() }

// wordCell is one word of a vocabulary.
type wordCell[T ~int] struct {
	place[T]
	words words[T]
	named bool // SHOW POOL_STATUS prints the word, not its number
}

func (c wordCell[T]) parse(name, value string) *Error {
	v, ok := c.words.lookup(value)
	if !ok {
		return badValue(name, value, "Available values: "+strings.Join(c.words.offered(), ", ")+".")
	}
	*c.p = v
	return nil
}

func (c wordCell[T]) show() string { return c.words.name(*c.p) }

func (c wordCell[T]) raw() string {
	if c.named {
		return c.show()
	}
	return strconv.Itoa(int(*c.p))
}

// flagCell is backend_flagN.
type flagCell struct{ place[BackendFlag] }

func (c flagCell) parse(name, value string) *Error {
	var f BackendFlag
	var allow, disallow bool
	for word := range strings.SplitSeq(value, "|") {
		switch strings.TrimSpace(word) {
		case "ALLOW_TO_FAILOVER":
			allow = true
		case "DISALLOW_TO_FAILOVER":
			disallow = true
			f |= DisallowToFailover
		case "ALWAYS_PRIMARY":
			f |= AlwaysPrimary
		default:
			return badKey(name, "unknown backend flag:"+word,
				"Available values: ALLOW_TO_FAILOVER, DISALLOW_TO_FAILOVER, ALWAYS_PRIMARY, joined by |.")
		}
	}
	if allow && disallow {
		return badKey(name, "cannot set ALLOW_TO_FAILOVER and DISALLOW_TO_FAILOVER at the same time", "")
	}
	*c.p = f
	return nil
}

func (c flagCell) show() string { return c.p.String() }
func (c flagCell) raw() string  { return c.p.String() }
