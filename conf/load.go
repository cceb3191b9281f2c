package conf

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// loader reads one pgpool.conf, with what it includes, into a Config.
type loader struct {
	c        *Config
	set      map[string]bool   // names set in this reading, as in Config.sources
	legacy   map[string]oldSet // old parameters that settleLegacy maps together
	notices  []Notice
	problems []*Error // values that cannot be right, in file order
	repeated []Notice // settings that a later line sets again
}

// Load reads pgpool.conf. The error, an *Error, is the first of what cannot be
// right; further ones are among the notices. A missing file is no error: it
// means defaults, and a warning, as in the original.
func Load(p Paths) (*Config, []Notice, error) {
	l, err := begin(p)
	if err != nil {
		return nil, nil, err
	}
	if bad := l.readAll(); bad != nil {
		return nil, l.notices, bad
	}
	if len(l.problems) > 0 {
		for _, p := range l.problems[1:] {
			l.notices = append(l.notices, p.notice(LevelError))
		}
		return nil, l.notices, l.problems[0]
	}
	return l.c, l.notices, nil
}

// Examine reads pgpool.conf to the end whatever is wrong with it: all that
// Load would refuse is among the notices, and so are settings that are written
// twice. The Config, nil only where the file cannot be read as one, has the
// defaults in place of bad values and is to be looked at, not to be used.
func Examine(p Paths) (*Config, []Notice, error) {
	l, err := begin(p)
	if err != nil {
		return nil, nil, err
	}
	if bad := l.readAll(); bad != nil {
		return nil, append(l.notices, bad.notice(LevelError)), nil
	}
	all := append(l.notices, l.repeated...)
	for _, p := range l.problems {
		all = append(all, p.notice(LevelError))
	}
	return l.c, all, nil
}

// begin makes the loader of a first reading.
func begin(p Paths) (*loader, error) {
	startDir, err := os.Getwd()
	paths, pathErr := p.resolve()
	if err = cmp.Or(err, pathErr); err != nil {
		return nil, &Error{Text: "could not determine the working directory", Detail: err.Error(), Err: err}
	}
	c := Default()
	c.Paths, c.startDir = paths, startDir
	c.sources, c.told = map[string]Source{}, map[string]bool{}
	return newLoader(c), nil
}

// readAll reads and applies the file; the error is one that nothing can be read past.
func (l *loader) readAll() *Error {
	all, bad := l.read(l.c.Paths.Conf, 0)
	switch {
	case bad != nil && errors.Is(bad.Err, fs.ErrNotExist) && bad.File == l.c.Paths.Conf && bad.Line == 0:
		warn := bad.notice(LevelWarning)
		warn.Detail = "using default configuration parameter values"
		l.notices = append(l.notices, warn)
	case bad != nil:
		return bad
	}
	l.apply(all)
	l.finish()
	l.problems = append(l.problems, l.c.crossCheck()...)
	return nil
}

func newLoader(c *Config) *loader {
	return &loader{c: c, set: map[string]bool{}, legacy: map[string]oldSet{}}
}

const maxInclude = 10

// read returns the assignments of a file in order, those of included files in the place of the include.
func (l *loader) read(file string, depth int) ([]assignment, *Error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, &Error{File: file, Text: fmt.Sprintf("could not open configuration file: %q", file), Detail: reason(err), Err: err}
	}
	own, bad := statements(file, string(src))
	if bad != nil {
		return nil, bad
	}
	var all []assignment
	for _, a := range own {
		if a.name != "include" {
			all = append(all, a)
			continue
		}
		included := a.value
		if !filepath.IsAbs(included) {
			included = filepath.Join(filepath.Dir(file), included)
		}
		if depth == maxInclude {
			return nil, (&Error{Text: fmt.Sprintf("could not open configuration file %q: maximum nesting depth exceeded", included)}).in(a)
		}
		inner, bad := l.read(included, depth+1)
		if bad != nil {
			if bad.File == included && bad.Line == 0 {
				bad = bad.in(a)
			}
			return nil, bad
		}
		all = append(all, inner...)
	}
	return all, nil
}

// reason is what an operating system error says without the file's name.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// in says where a value was set; the place is part of the detail, so that it
// reaches the log whatever prints the error.
func (e *Error) in(a assignment) *Error {
	e.Setting, e.File, e.Line = a.name, a.file, a.line
	e.Detail = located(e.Detail, a)
	return e
}

func located(detail string, a assignment) string {
	where := fmt.Sprintf("file %q, line %d", a.file, a.line)
	if detail == "" {
		return where
	}
	return detail + " (" + where + ")"
}

// warn tells the operator once per parameter and process.
func (l *loader) warn(kind NoticeKind, about string, a assignment, text, detail, hint string) {
	if l.c.told[about] {
		return
	}
	l.c.told[about] = true
	l.notices = append(l.notices, Notice{Level: LevelWarning, Kind: kind, Setting: a.name,
		File: a.file, Line: a.line, Text: text, Detail: located(detail, a), Hint: hint})
}

func (l *loader) fail(a assignment, e *Error) { l.problems = append(l.problems, e.in(a)) }

// apply gives effect to the assignments, later ones over earlier ones.
func (l *loader) apply(all []assignment) {
	for _, a := range all {
		if s, index, ok := l.resolve(&a); ok {
			l.put(s, index, a)
		}
	}
	l.settleLegacy()
	l.fillHosts()
}

// fillHosts: a port without a host means PostgreSQL's Unix socket.
func (l *loader) fillHosts() {
	for i := range l.c.num.backends {
		b := &l.c.num.backends[i]
		if !b.Used() || b.Hostname != "" {
			continue
		}
		b.Hostname = defaultSocketDir
		if old := l.legacy["backend_socket_dir"]; old.value != "" {
			b.Hostname = old.value
		}
		about := fmt.Sprintf("empty backend_hostname%d", i)
		if !l.c.told[about] {
			l.c.told[about] = true
			l.notices = append(l.notices, Notice{Level: LevelLog, Text: "initializing pool configuration",
				Detail: fmt.Sprintf("%s, use PostgreSQL's default unix socket path (%s)", about, b.Hostname)})
		}
	}
}

// put sets one value; a is where it came from.
func (l *loader) put(s *Setting, index int, a assignment) {
	name := s.title(index)
	if s.Name == "backend_flag" && strings.Contains(a.value, "ALWAYS_MASTER") {
		l.warn(KindRenamed, "ALWAYS_MASTER", a, `backend flag "ALWAYS_MASTER" is now named "ALWAYS_PRIMARY"`, "", `Use "ALWAYS_PRIMARY" instead.`)
		a.value = strings.ReplaceAll(a.value, "ALWAYS_MASTER", "ALWAYS_PRIMARY")
	}
	if bad := s.cell(l.c, index).parse(name, a.value); bad != nil {
		l.fail(a, bad)
		return
	}
	if l.set[name] {
		l.again(name, a)
	}
	l.set[name] = true
	l.c.sources[name] = Source{File: a.file, Line: a.line, Value: a.value}
}

// again notes that a line has been in vain, since a later one sets the same.
func (l *loader) again(name string, a assignment) {
	was := l.place(name)
	if was.value == a.value {
		return
	}
	l.repeated = append(l.repeated, Notice{Level: LevelInfo, Kind: KindRepeated, Setting: name, File: was.file, Line: was.line,
		Text: fmt.Sprintf("%s is set again", name), Detail: located(fmt.Sprintf("The later value counts, of file %q, line %d.", a.file, a.line), was),
		Hint: "Remove one of the lines."})
}

// resolve finds the setting an assignment is about. What it cannot be about is
// told to the operator and passed over; old names may change a's value.
func (l *loader) resolve(a *assignment) (s *Setting, index int, ok bool) {
	if s := byName[a.name]; s != nil && !s.numbered() {
		return s, plain, true
	}
	if old, index, ok := findLegacy(a.name); ok {
		return l.resolveLegacy(old, index, a)
	}
	s, digits := family(a.name)
	if s == nil {
		l.unknown(*a)
		return nil, 0, false
	}
	n, err := strconv.Atoi(digits)
	switch {
	case digits == "":
		l.warn(KindUnknown, a.name, *a, fmt.Sprintf("parameter %q expects the index value", a.name), "The setting is ignored.",
			fmt.Sprintf("Numbers go from 0 to %d, as in %q.", s.Family.size()-1, s.title(0)))
	case strings.Trim(digits, "0123456789") != "":
		l.warn(KindUnknown, a.name, *a, fmt.Sprintf("invalid index value for parameter %q ", a.name),
			"index part contains the invalid non digit character; the setting is ignored", "")
	case err != nil || n >= s.Family.size():
		l.warn(KindUnknown, a.name, *a, fmt.Sprintf("%s index outside the valid range for parameter %q (0 .. %d)", digits, a.name, s.Family.size()-1),
			"The setting is ignored.", "")
	default:
		return s, n, true
	}
	return nil, 0, false
}

// family finds the numbered setting whose name is the longest beginning of name.
func family(name string) (s *Setting, rest string) {
	for i := range table {
		t := &table[i]
		if t.Family != Single && strings.HasPrefix(name, t.Name) && (s == nil || len(t.Name) > len(s.Name)) {
			s, rest = t, name[len(t.Name):]
		}
	}
	return s, rest
}

func (l *loader) unknown(a assignment) {
	hint := "The setting is ignored."
	if near := nearest(a.name); near != "" {
		hint = fmt.Sprintf("Did you mean %q? The setting is ignored.", near)
	}
	l.warn(KindUnknown, a.name, a, fmt.Sprintf("unrecognized configuration parameter %q", a.name), "", hint)
}

// finish derives what follows from the assignments as a whole.
func (l *loader) finish() {
	c := l.c
	for i := range table {
		s := &table[i]
		if s.Family != Override {
			continue
		}
		value := s.cell(c, plain).get()
		for n := range s.Family.size() {
			if _, own := c.sources[s.title(n)]; !own {
				s.cell(c, n).put(value)
			}
		}
	}
	c.seal()
	if c.UseWatchdog {
		l.nodeID()
	}
}

// defaultSocketDir is where PostgreSQL's sockets are when nobody says otherwise.
const defaultSocketDir = "/tmp"

// nodeID reads pgpool_node_id. A file with the watchdog's old names knows no
// such file: the node such a file speaks for then has the number 0.
func (l *loader) nodeID() {
	id, err := LoadNodeID(l.c.NodeIDFile())
	switch bad, _ := errors.AsType[*Error](err); {
	case bad == nil:
		l.c.NodeID = id
	case errors.Is(err, fs.ErrNotExist) && l.oldWatchdog():
		l.c.NodeID = 0
		if l.c.told["pgpool_node_id"] {
			return
		}
		l.c.told["pgpool_node_id"] = true
		l.notices = append(l.notices, Notice{Level: LevelWarning, File: bad.File,
			Text:   fmt.Sprintf("pgpool_node_id file %q does not exist", bad.File),
			Detail: "the watchdog is configured with its old parameters; this pgpool takes the node id 0",
			Hint:   "Give every pgpool of the cluster its own pgpool_node_id file."})
	default:
		l.problems = append(l.problems, bad)
	}
}
