package main

import (
	"fmt"
	"strings"
)

// option is one that a tool understands.
type option struct {
	long  string
	short byte // 0: none
	value bool
	// longOnly has the short form refused where the long one is accepted: the pcp
	// tools share one table of long options, each with its own short ones.
	longOnly bool
}

// refusal is why a command line was not accepted, in the words for stderr.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// words is how a kind of tool puts its complaints.
type words struct {
	unknownShort func(c byte) string
	unknownLong  func(name string) string
	needsShort   func(c byte) string
	needsLong    func(name string) string
}

// gnuWords are the C library's.
var gnuWords = words{
	unknownShort: func(c byte) string { return fmt.Sprintf("invalid option -- '%c'", c) },
	unknownLong:  func(name string) string { return fmt.Sprintf("unrecognized option '--%s'", name) },
	needsShort:   func(c byte) string { return fmt.Sprintf("option requires an argument -- '%c'", c) },
	needsLong:    func(name string) string { return fmt.Sprintf("option '--%s' requires an argument", name) },
}

// pgpoolWords are those of the original's server program, which brings a
// getopt_long of its own.
var pgpoolWords = words{
	unknownShort: func(c byte) string { return fmt.Sprintf("illegal option -- %c", c) },
	unknownLong:  func(name string) string { return "illegal option -- " + name },
	needsShort:   func(c byte) string { return fmt.Sprintf("option requires an argument -- %c", c) },
	needsLong:    func(name string) string { return "option requires an argument -- " + name },
}

// normalise reads a command line the way getopt_long does: clusters of short
// options, values joined or apart, long names cut short, options after
// operands. It returns the options as --name or --name=value in their order,
// then "--" and the operands, which urfave/cli understands too.
//
// Each option is shown to seen as it comes, so that what is wrong is reported
// in the order it was written; seen may be nil.
func normalise(tool string, options []option, w words, args []string, seen func(o option, value string) error) ([]string, error) {
	var out, operands []string
	refuse := func(text string) ([]string, error) { return nil, &refusal{tool + ": " + text} }
	take := func(o option, value string) error {
		if o.value {
			out = append(out, "--"+o.long+"="+value)
		} else {
			out = append(out, "--"+o.long)
		}
		if seen == nil {
			return nil
		}
		return seen(o, value)
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			operands = append(operands, args...)
			args = nil
		case strings.HasPrefix(arg, "--"):
			name, value, joined := strings.Cut(arg[2:], "=")
			found := matching(options, name)
			switch {
			case len(found) == 0:
				return refuse(w.unknownLong(name))
			case len(found) > 1:
				text := fmt.Sprintf("option '%s' is ambiguous; possibilities:", arg)
				for _, o := range found {
					text += " '--" + o.long + "'"
				}
				return refuse(text)
			}
			o := found[0]
			switch {
			case joined && !o.value:
				return refuse(fmt.Sprintf("option '--%s' doesn't allow an argument", o.long))
			case !joined && o.value && len(args) == 0:
				return refuse(w.needsLong(o.long))
			case !joined && o.value:
				value, args = args[0], args[1:]
			}
			if err := take(o, value); err != nil {
				return nil, err
			}
		case len(arg) > 1 && arg[0] == '-':
			for rest := arg[1:]; rest != ""; {
				c := rest[0]
				rest = rest[1:]
				o, ok := short(options, c)
				if !ok {
					return refuse(w.unknownShort(c))
				}
				value := ""
				switch {
				case !o.value:
				case rest != "":
					value, rest = rest, ""
				case len(args) == 0:
					return refuse(w.needsShort(c))
				default:
					value, args = args[0], args[1:]
				}
				if err := take(o, value); err != nil {
					return nil, err
				}
			}
		default:
			operands = append(operands, arg)
		}
	}
	return append(append(out, "--"), operands...), nil
}

// matching returns the option of that name, or all that begin with it.
func matching(options []option, name string) []option {
	var found []option
	for _, o := range options {
		if o.long == name {
			return []option{o}
		}
		if strings.HasPrefix(o.long, name) {
			found = append(found, o)
		}
	}
	return found
}

func short(options []option, c byte) (option, bool) {
	for _, o := range options {
		if o.short == c && !o.longOnly {
			return o, true
		}
	}
	return option{}, false
}
