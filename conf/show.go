package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Row is one line of what PGPOOL SHOW and SHOW POOL_STATUS print.
type Row struct{ Item, Value, Description string }

// showGroups are the names PGPOOL SHOW takes for a whole family, in its order.
var showGroups = []struct {
	name   string
	family Family
}{
	{"backend", PerBackend},
	{"watchdog", PerWatchdog},
	{"heartbeat", PerHeartbeat},
	{"health_check", Override},
}

// ShowRows answers PGPOOL SHOW for a parameter, a numbered parameter, a group or
// ALL; the name comes lower-cased unless it was quoted. With an error about a
// number out of range there are columns all the same, as in the original.
func (c *Config) ShowRows(name string) (cols []string, rows [][]string, err error) {
	if strings.EqualFold(name, "all") {
		return threeColumns(c.showAll())
	}
	for _, g := range showGroups {
		if name == g.name || name == "other_pgpool" && g.family == PerWatchdog { // its name up to 4.2
			return threeColumns(c.showFamily(g.family))
		}
	}
	if s := showSetting(name); s != nil {
		if s.Family == Single {
			return []string{name}, [][]string{{s.Show(c, plain)}}, nil
		}
		return threeColumns(c.showArray(s))
	}
	s, digits := family(name)
	if s == nil {
		return nil, nil, &Error{Text: fmt.Sprintf("config variable %q not found", name)}
	}
	n, err := strconv.Atoi(digits)
	switch {
	case strings.Trim(digits, "0123456789") != "":
		return nil, nil, &Error{Text: fmt.Sprintf("invalid index value for parameter %q ", name),
			Detail: "index part contains the invalid non digit character"}
	case err != nil || n >= s.Family.size():
		return []string{name}, nil, &Error{Text: fmt.Sprintf("invalid index %s for configuration parameter %q", digits, s.Name),
			Detail: fmt.Sprintf("allowed index is between 0 and %d", s.Family.size()-1)}
	}
	return []string{name}, [][]string{{s.Show(c, n)}}, nil
}

// showSetting finds a parameter by its name or by the name it once had.
func showSetting(name string) *Setting {
	if s := byName[name]; s != nil {
		return s
	}
	for _, o := range legacy {
		if o.rename && strings.EqualFold(o.name, name) {
			return byName[o.now]
		}
	}
	return nil
}

func threeColumns(all []Row) (cols []string, rows [][]string, err error) {
	for _, r := range all {
		rows = append(rows, []string{r.Item, r.Value, r.Description})
	}
	return []string{"item", "value", "description"}, rows, nil
}

func (c *Config) row(s *Setting, index int) Row {
	return Row{s.title(index), s.Show(c, index), s.Description}
}

// slots lists the numbers of a family that are in use.
func (c *Config) slots(f Family) []int {
	var all []int
	for i := range f.size() {
		var used bool
		switch f {
		case PerWatchdog:
			used = c.num.watchdogs[i].PgpoolPort != 0
		case PerHeartbeat:
			used = c.num.heartbeats[i].Used()
		default:
			used = c.num.backends[i].Used()
		}
		if used {
			all = append(all, i)
		}
	}
	return all
}

func (c *Config) showArray(s *Setting) []Row {
	var rows []Row
	if !s.numbered() {
		rows = append(rows, c.row(s, plain))
	}
	for _, i := range c.slots(s.Family) {
		rows = append(rows, c.row(s, i))
	}
	return rows
}

func (c *Config) showFamily(f Family) []Row {
	var members []*Setting
	for i := range table {
		if table[i].Family == f {
			members = append(members, &table[i])
		}
	}
	numbers := c.slots(f)
	if f == Override {
		numbers = append([]int{plain}, numbers...)
	}
	var rows []Row
	for _, i := range numbers {
		for _, s := range members {
			rows = append(rows, c.row(s, i))
		}
	}
	return rows
}

// showAll is the groups, then the rest, longest name first: the original's order.
func (c *Config) showAll() []Row {
	var rows, rest []Row
	for _, g := range showGroups {
		rows = append(rows, c.showFamily(g.family)...)
	}
	for i := range table {
		if table[i].Family == Single {
			rest = append(rest, c.row(&table[i], plain))
		}
	}
	slices.SortStableFunc(rest, func(a, b Row) int { return len(b.Item) - len(a.Item) })
	return append(rows, rest...)
}
