package conf

import (
	"fmt"
	"slices"
)

// With returns a configuration with one session-level setting changed, as
// PGPOOL SET does. The receiver stays as it is.
func (c *Config) With(name, value string) (*Config, error) {
	s, err := sessionSetting(name)
	if err != nil {
		return nil, err
	}
	n := c.forSession()
	if bad := s.cell(n, plain).parse(name, value); bad != nil {
		return nil, bad
	}
	return n, nil
}

// WithDefault returns a configuration with one session-level setting as base
// has it; base nil means as at server start, which is what PGPOOL RESET goes back to.
func (c *Config) WithDefault(name string, base *Config) (*Config, error) {
	s, err := sessionSetting(name)
	if err != nil {
		return nil, err
	}
	if base == nil {
		base = c.Start()
	}
	n := c.forSession()
	s.cell(n, plain).put(s.cell(base, plain).get())
	return n, nil
}

// WithDefaults is WithDefault for every session-level setting.
func (c *Config) WithDefaults(base *Config) *Config {
	if base == nil {
		base = c.Start()
	}
	n := c.forSession()
	for i := range table {
		if s := &table[i]; s.Context == InSession {
			s.cell(n, plain).put(s.cell(base, plain).get())
		}
	}
	return n
}

// SessionSettings lists the parameters PGPOOL SET may change, sorted.
func SessionSettings() []string {
	var names []string
	for _, s := range table {
		if s.Context == InSession {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// forSession copies what session-level settings live in; the numbered ones are shared.
func (c *Config) forSession() *Config {
	n := *c
	n.start = c.Start()
	return &n
}

func sessionSetting(name string) (*Setting, error) {
	s := showSetting(name)
	if s == nil {
		if s, _ = family(name); s == nil {
			return nil, &Error{Text: fmt.Sprintf("unrecognized configuration parameter %q", name)}
		}
	}
	if s.Context != InSession {
		return nil, &Error{Text: fmt.Sprintf("invalid Context, value for parameter %q cannot be changed", name)}
	}
	return s, nil
}
