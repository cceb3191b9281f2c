package conf

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unit is the base unit of a setting and the suffixes its values may carry.
// base is the weight of the base unit in nanoseconds or bytes.
type unit struct {
	base     int64
	suffixes []suffix // largest first; nil: the setting has no unit
	hint     string
}

type suffix struct {
	name   string
	weight int64
}

const (
	maxInt     = math.MaxInt32
	maxInt64   = math.MaxInt64
	maxSeconds = maxInt64 / int64(time.Second) // what a time.Duration holds
	maxMinutes = maxInt64 / int64(time.Minute)
)

var (
	timeSuffixes = []suffix{
		{"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"min", int64(time.Minute)},
		{"s", int64(time.Second)}, {"ms", int64(time.Millisecond)}, {"us", int64(time.Microsecond)},
	}
	sizeSuffixes = []suffix{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}, {"B", 1}}

	unitless     = unit{base: 1, hint: "This parameter takes a number without a unit."}
	milliseconds = timeUnit(time.Millisecond)
	seconds      = timeUnit(time.Second)
	minutes      = timeUnit(time.Minute)
	octets       = sizeUnit(1)
	kilobytes    = sizeUnit(1 << 10)
)

func timeUnit(base time.Duration) unit {
	return unit{int64(base), timeSuffixes, `Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".`}
}

func sizeUnit(base int64) unit {
	return unit{base, sizeSuffixes, `Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".`}
}

// show writes n base units in the largest unit that divides it exactly.
func (u unit) show(n int64) string {
	if n > 0 {
		for _, s := range u.suffixes {
			if s.weight >= u.base && n%(s.weight/u.base) == 0 {
				return strconv.FormatInt(n/(s.weight/u.base), 10) + s.name
			}
		}
	}
	return strconv.FormatInt(n, 10)
}

// parseInteger reads a number as C's strtol with base 0 does (0x10, 010), or
// with a fraction, brings a unit suffix to base units, and checks the limits.
// Fractions are rounded half to even, first to the next smaller unit.
func parseInteger(name, value string, u unit, low, high int64) (int64, *Error) {
	digits, rest := cutNumber(strings.TrimSpace(value))
	if digits == "" {
		return 0, badValue(name, value, "")
	}
	weight, smaller := u.base, u.below(u.base)
	if s := strings.TrimLeft(rest, " \t"); s != "" {
		i := slices.IndexFunc(u.suffixes, func(x suffix) bool { return x.name == s })
		if i < 0 {
			return 0, badValue(name, value, u.hint)
		}
		weight = u.suffixes[i].weight
		smaller = u.below(weight)
	}
	n, ok, big := convert(digits, weight, smaller, u.base)
	switch {
	case big, high <= maxInt && (n > maxInt || n < -maxInt-1):
		return 0, badValue(name, value, "Value exceeds allowed range.")
	case !ok:
		return 0, badValue(name, value, "")
	case n < low || n > high:
		return 0, outOfRange(name, strconv.FormatInt(n, 10), strconv.FormatInt(low, 10), strconv.FormatInt(high, 10))
	}
	return n, nil
}

// convert gives number*weight/base, exactly where that is possible.
func convert(digits string, weight, smaller, base int64) (n int64, ok, big bool) {
	n, err := strconv.ParseInt(cOctal(digits), 0, 64)
	var f float64
	switch {
	case err == nil && weight%base == 0:
		factor := weight / base
		return n * factor, true, n > maxInt64/factor || n < -maxInt64/factor
	case err == nil:
		f = float64(n)
	case errors.Is(err, strconv.ErrRange):
		return 0, false, true
	case !strings.ContainsAny(digits, ".eE"):
		return 0, false, false // 08
	default:
		if f, err = strconv.ParseFloat(digits, 64); err != nil {
			return 0, false, true
		}
	}
	f = f * float64(weight) / float64(base)
	if smaller > 0 && f != math.Trunc(f) {
		step := float64(smaller) / float64(base)
		f = math.RoundToEven(f/step) * step
	}
	f = math.RoundToEven(f)
	if math.Abs(f) >= maxInt64 {
		return 0, false, true
	}
	return int64(f), true, false
}

// name is the base unit's own suffix.
func (u unit) name() string {
	i := slices.IndexFunc(u.suffixes, func(s suffix) bool { return s.weight == u.base })
	return u.suffixes[i].name
}

// below gives the weight of the next smaller unit, 0 if there is none.
func (u unit) below(weight int64) int64 {
	for _, s := range u.suffixes {
		if s.weight < weight {
			return s.weight
		}
	}
	return 0
}

// cutNumber splits off the longest prefix that C would read as a number.
func cutNumber(s string) (number, rest string) {
	i := 0
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		i++
	}
	run := func(from int, class func(byte) bool) int {
		for from < len(s) && class(s[from]) {
			from++
		}
		return from
	}
	if i+2 < len(s) && s[i] == '0' && (s[i+1] == 'x' || s[i+1] == 'X') && isHex(s[i+2]) {
		end := run(i+2, isHex)
		return s[:end], s[end:]
	}
	end := run(i, isDigit)
	whole := end - i
	fraction := 0
	if end < len(s) && s[end] == '.' {
		after := run(end+1, isDigit)
		fraction = after - end - 1
		if whole+fraction > 0 {
			end = after
		}
	}
	if whole+fraction == 0 {
		return "", s
	}
	if e := end; e < len(s) && (s[e] == 'e' || s[e] == 'E') {
		e++
		if e < len(s) && (s[e] == '+' || s[e] == '-') {
			e++
		}
		if after := run(e, isDigit); after > e {
			end = after
		}
	}
	return s[:end], s[end:]
}

// cOctal turns C's octal 010 into Go's 0o10, so that 08 and 1_0 stay errors.
func cOctal(s string) string {
	sign := ""
	if s[0] == '+' || s[0] == '-' {
		sign, s = s[:1], s[1:]
	}
	if len(s) > 1 && s[0] == '0' && isDigit(s[1]) {
		s = "0o" + s[1:]
	}
	return strings.TrimPrefix(sign, "+") + s
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }
func isHex(b byte) bool   { return isDigit(b) || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F' }
