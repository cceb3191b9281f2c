package conf

import (
	"slices"
	"strconv"
	"time"
)

// Context says when a setting can change.
type Context int

// Contexts.
const (
	AtStart   Context = iota // at start only
	AtReload                 // at start and reload
	InSession                // also with PGPOOL SET
)

// Family says whether a setting's name carries a number, and of what.
type Family int

// Families.
const (
	Single       Family = iota
	PerBackend          // backend_port0
	PerWatchdog         // wd_port0
	PerHeartbeat        // heartbeat_port0
	Override            // plain name for every node, health_check_period0 for one
)

// size is how many numbers a family has.
func (f Family) size() int {
	switch f {
	case PerBackend, Override:
		return MaxBackends
	case PerWatchdog:
		return MaxWatchdogs
	case PerHeartbeat:
		return MaxHeartbeats
	}
	return 0
}

// plain is the index of a setting without a number.
const plain = -1

// Setting is one entry of the table: all that is known about a parameter.
type Setting struct {
	Name        string
	Group       string
	Family      Family
	Context     Context
	Type        string   // bool, integer, time, size, number, string, list, enum
	Default     string   // as written in a file, without quotes
	Example     string   // for the sample file, where the default is not a value one would write
	Unit        string   // base unit: ms, s, min, B, kB
	Min, Max    string   // limits of numbers in base units
	Values      []string // of an enum, and of a bool
	Separator   string   // between the items of a list
	Description string
	Secret      bool // never shown
	Ours        bool // pgpool-II has no such setting

	cell func(c *Config, index int) cell
}

// Show is the value as PGPOOL SHOW prints it, secrets masked. The index is ignored
// for single settings; -1 is an override's plain value.
func (s *Setting) Show(c *Config, index int) string {
	if s.Secret {
		return "*****"
	}
	return s.shown(c, index, cell.show)
}

// Status is the value as SHOW POOL_STATUS prints it, secrets masked.
func (s *Setting) Status(c *Config, index int) string {
	if s.Secret && s.Name != "pool_passwd" { // a file name; the original shows it here
		return "*****"
	}
	return s.shown(c, index, cell.raw)
}

// shown gives lists as they were written, everything else in one of a cell's forms.
func (s *Setting) shown(c *Config, index int, form func(cell) string) string {
	v := s.cell(c, index)
	if _, ok := v.(listCell); !ok {
		return form(v)
	}
	if src, ok := c.sources[s.title(index)]; ok {
		return src.Value
	}
	return s.Default
}

// title is the setting's name with its number, as a file or a message has it.
func (s *Setting) title(index int) string {
	if s.Family == Single || index == plain {
		return s.Name
	}
	return s.Name + strconv.Itoa(index)
}

// numbered reports whether the setting exists only with a number.
func (s *Setting) numbered() bool { return s.Family != Single && s.Family != Override }

// secret hides the value in everything that is shown.
func (s Setting) secret() Setting { s.Secret = true; return s }

// ours marks a setting that pgpool-II does not have.
func (s Setting) ours() Setting { s.Ours = true; return s }

// like gives the value the sample file shows.
func (s Setting) like(example string) Setting { s.Example = example; return s }

// The constructors below are the vocabulary of the table. Their arguments are
// name, group, family, context, default, what the kind needs, where the value lives, description.

func boolean(name, group string, f Family, ctx Context, def string, p func(*Config, int) *bool, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "bool", Default: def, Description: desc,
		Values: []string{"on", "off"},
		cell:   func(c *Config, i int) cell { return boolCell{place[bool]{p(c, i)}} }}
}

func integer(name, group string, f Family, ctx Context, def string, low, high int, p func(*Config, int) *int, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "integer", Default: def, Description: desc,
		Min: strconv.Itoa(low), Max: strconv.Itoa(high),
		cell: func(c *Config, i int) cell { return intCell{place[int]{p(c, i)}, low, high, false} }}
}

// fileMode is an integer shown in octal.
func fileMode(name, group string, f Family, ctx Context, def string, p func(*Config, int) *int, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "integer", Default: def, Description: desc,
		Min: "0000", Max: "0777",
		cell: func(c *Config, i int) cell { return intCell{place[int]{p(c, i)}, 0, 0o777, true} }}
}

func duration(name, group string, f Family, ctx Context, def string, u unit, low, high int64, p func(*Config, int) *time.Duration, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "time", Default: def, Description: desc,
		Unit: u.name(), Min: strconv.FormatInt(low, 10), Max: strconv.FormatInt(high, 10),
		cell: func(c *Config, i int) cell {
			return durationCell{place[time.Duration]{p(c, i)}, u, low, high, f == Override}
		}}
}

func size(name, group string, f Family, ctx Context, def string, u unit, low, high int64, p func(*Config, int) *int64, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "size", Default: def, Description: desc,
		Unit: u.name(), Min: strconv.FormatInt(low, 10), Max: strconv.FormatInt(high, 10),
		cell: func(c *Config, i int) cell { return sizeCell{place[int64]{p(c, i)}, u, low, high} }}
}

func float(name, group string, f Family, ctx Context, def string, low, high float64, p func(*Config, int) *float64, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "number", Default: def, Description: desc,
		Min: strconv.FormatFloat(low, 'f', -1, 64), Max: strconv.FormatFloat(high, 'f', -1, 64),
		cell: func(c *Config, i int) cell { return floatCell{place[float64]{p(c, i)}, low, high, f == PerBackend} }}
}

func text(name, group string, f Family, ctx Context, def string, p func(*Config, int) *string, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "string", Default: def, Description: desc,
		cell: func(c *Config, i int) cell { return textCell{place[string]{p(c, i)}} }}
}

func list(name, group string, f Family, ctx Context, def string, sep byte, p func(*Config, int) *[]string, desc string) Setting {
	return checkedList(name, group, f, ctx, def, sep, nil, p, desc)
}

// patterns is a list of regular expressions; see Pattern.
func patterns(name, group string, f Family, ctx Context, def string, sep byte, p func(*Config, int) *[]string, desc string) Setting {
	return checkedList(name, group, f, ctx, def, sep, checkPattern, p, desc)
}

// destinations is log_destination.
func destinations(name, group string, f Family, ctx Context, def string, p func(*Config, int) *[]string, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "list", Default: def, Description: desc,
		Separator: ",", Values: []string{"stderr", "syslog"},
		cell: func(c *Config, i int) cell { return destinationCell{place[[]string]{p(c, i)}} }}
}

func checkedList(name, group string, f Family, ctx Context, def string, sep byte, check func(name, item string) *Error,
	p func(*Config, int) *[]string, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "list", Default: def, Description: desc,
		Separator: string(sep),
		cell:      func(c *Config, i int) cell { return listCell{place[[]string]{p(c, i)}, sep, check} }}
}

func choice[T ~int](name, group string, f Family, ctx Context, def string, ws words[T], p func(*Config, int) *T, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "enum", Default: def, Description: desc,
		Values: ws.offered(),
		cell:   func(c *Config, i int) cell { return wordCell[T]{place[T]{p(c, i)}, ws, name == "syslog_facility"} }}
}

func backendFlags(name, group string, f Family, ctx Context, def string, p func(*Config, int) *BackendFlag, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "flags", Default: def, Description: desc,
		Separator: "|", Values: []string{"ALLOW_TO_FAILOVER", "DISALLOW_TO_FAILOVER", "ALWAYS_PRIMARY"},
		cell: func(c *Config, i int) cell { return flagCell{place[BackendFlag]{p(c, i)}} }}
}

func redirects(name, group string, f Family, ctx Context, def string, p func(*Config, int) *RedirectList, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "list", Default: def, Description: desc,
		Separator: ",",
		cell:      func(c *Config, i int) cell { return redirectCell{place[RedirectList]{p(c, i)}} }}
}

func relations(name, group string, f Family, ctx Context, def string, p func(*Config, int) *RelationList, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "list", Default: def, Description: desc,
		Separator: ",",
		cell:      func(c *Config, i int) cell { return relationCell{place[RelationList]{p(c, i)}} }}
}

// Table returns every parameter, grouped as the sample file is.
func Table() []Setting { return slices.Clone(table) }

// byName finds a setting by its exact name, without a number.
var byName = func() map[string]*Setting {
	m := make(map[string]*Setting, len(table))
	for i := range table {
		m[table[i].Name] = &table[i]
	}
	return m
}()
