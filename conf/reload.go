package conf

import (
	"fmt"
	"maps"
)

// Reload reads the file again. What cannot change while the server runs keeps
// its value, and what the file no longer sets keeps its value too. A value that
// cannot be right is a warning and changes nothing; a file that cannot be read
// as a whole is the error, and the receiver stays in use.
func (c *Config) Reload() (*Config, []Notice, error) {
	n := c.clone()
	n.sources, n.told = maps.Clone(c.sources), maps.Clone(c.told)
	l := newLoader(n)
	all, bad := l.read(c.Paths.Conf, 0)
	if bad != nil {
		return nil, nil, bad
	}
	l.apply(all)
	l.hold(c)
	l.finish()
	l.problems = append(l.problems, n.crossCheck()...)
	for _, p := range l.problems {
		l.notices = append(l.notices, p.notice(LevelWarning))
	}
	return n, l.notices, nil
}

// hold puts back what a reload may not change, and says so; the original is silent.
func (l *loader) hold(was *Config) {
	for i := range table {
		s := &table[i]
		for _, index := range s.indexes() {
			before, now := s.cell(was, index), s.cell(l.c, index)
			if before.raw() == now.raw() {
				continue
			}
			switch {
			case s.Context == AtStart:
				l.keep(was, s, index, fmt.Sprintf("parameter %q cannot be changed without restarting the server", s.title(index)))
			case (s.Name == "backend_hostname" || s.Name == "backend_port") && was.num.backends[index].Used():
				l.keep(was, s, index, fmt.Sprintf("backend node %d is in use, parameter %q cannot be changed without restarting the server",
					index, s.title(index)))
			case s.Name == "backend_flag":
				l.holdFlag(was, s, index)
			case s.Name == "backend_weight":
				l.notices = append(l.notices, Notice{Level: LevelLog,
					Text: fmt.Sprintf("initializing pool configuration: backend weight for backend:%d changed from %f to %f",
						index, was.num.backends[index].Weight, l.c.num.backends[index].Weight),
					Detail: "This change will be effective from next client session"})
			}
		}
	}
}

func (l *loader) keep(was *Config, s *Setting, index int, text string) {
	name := s.title(index)
	a := l.place(name)
	s.cell(l.c, index).put(s.cell(was, index).get())
	if src, ok := was.sources[name]; ok {
		l.c.sources[name] = src
	} else {
		delete(l.c.sources, name)
	}
	if l.c.told["reload "+name+a.value] { // once for each value the file asks for
		return
	}
	l.c.told["reload "+name+a.value] = true
	l.notices = append(l.notices, Notice{Level: LevelWarning, File: a.file, Line: a.line, Text: text, Detail: located("The old value stays in use.", a)})
}

// holdFlag: ALWAYS_PRIMARY can be given by a reload and not taken back.
func (l *loader) holdFlag(was *Config, s *Setting, index int) {
	now := &l.c.num.backends[index].Flag
	if was.num.backends[index].Used() && was.num.backends[index].Flag&^*now&AlwaysPrimary != 0 {
		*now |= AlwaysPrimary
		a := l.place(s.title(index))
		l.notices = append(l.notices, Notice{Level: LevelWarning, File: a.file, Line: a.line,
			Text:   fmt.Sprintf("ALWAYS_PRIMARY of backend node %d cannot be removed without restarting the server", index),
			Detail: located("", a)})
	}
}

func (l *loader) place(name string) assignment {
	src := l.c.sources[name]
	return assignment{name: name, value: src.Value, file: src.File, line: src.Line}
}

// Ineffective says which of the named parameters a file sets to something other
// than their default although that has no effect; names maps them to the reason.
func (c *Config) Ineffective(names map[string]string) []Notice {
	var notices []Notice
	none := Default()
	for i := range table {
		s := &table[i]
		why, listed := names[s.Name]
		if !listed {
			continue
		}
		for _, index := range s.indexes() {
			src, set := c.sources[s.title(index)]
			if !set || s.cell(c, index).raw() == s.cell(none, index).raw() {
				continue
			}
			notices = append(notices, Notice{Level: LevelWarning, Kind: KindIneffective, Setting: s.title(index), File: src.File, Line: src.Line,
				Text:   fmt.Sprintf("parameter %q has no effect", s.title(index)),
				Detail: located(why, assignment{file: src.File, line: src.Line})})
			break // one notice per parameter
		}
	}
	return notices
}
