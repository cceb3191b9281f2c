package conf

import (
	"fmt"
	"regexp"
	"strings"
)

// PoolMode says for how long a client has a server connection.
type PoolMode int

// Modes of pool_mode.
const (
	PoolSession     PoolMode = iota // until it leaves
	PoolTransaction                 // for a transaction
)

var poolModes = words[PoolMode]{
	{name: "session", value: PoolSession},
	{name: "transaction", value: PoolTransaction},
}

// PoolModeRule gives the clients of some users or databases a mode.
type PoolModeRule struct {
	Name *regexp.Regexp
	Mode PoolMode
}

// PoolModeList is pool_mode_user or pool_mode_database: the first rule that fits
// counts.
type PoolModeList struct {
	Text  string // as written
	Rules []PoolModeRule
}

func (l PoolModeList) find(name string) (PoolMode, bool) {
	for _, r := range l.Rules {
		if r.Name.MatchString(name) {
			return r.Mode, true
		}
	}
	return 0, false
}

// PoolModeOf is the mode for a client: what is said of its user, else of its
// database, else pool_mode.
func (c *Config) PoolModeOf(user, database string) PoolMode {
	if m, ok := c.PoolModeUser.find(user); ok {
		return m
	}
	if m, ok := c.PoolModeDatabase.find(database); ok {
		return m
	}
	return c.PoolMode
}

// TransactionMode tells whether any client has servers for a transaction only.
func (c *Config) TransactionMode() bool {
	if c.PoolMode == PoolTransaction {
		return true
	}
	for _, l := range []PoolModeList{c.PoolModeUser, c.PoolModeDatabase} {
		for _, r := range l.Rules {
			if r.Mode == PoolTransaction {
				return true
			}
		}
	}
	return false
}

const poolModeHint = "Rules are regex:session or regex:transaction, separated by commas."

type poolModeCell struct{ place[PoolModeList] }

func (c poolModeCell) parse(name, value string) *Error {
	l := PoolModeList{Text: value}
	for _, item := range splitList(value, ',') {
		colon := strings.LastIndexByte(item, ':')
		if colon < 0 {
			return badKey(name, fmt.Sprintf("no mode: %q", item), poolModeHint)
		}
		mode, ok := poolModes.lookup(strings.TrimSpace(item[colon+1:]))
		if !ok {
			return badKey(name, fmt.Sprintf("no mode of this name: %q", item[colon+1:]), poolModeHint)
		}
		re, err := Pattern(strings.TrimSpace(item[:colon]))
		if err != nil {
			return badKey(name, err.Error(), poolModeHint)
		}
		l.Rules = append(l.Rules, PoolModeRule{re, mode})
	}
	*c.p = l
	return nil
}

func (c poolModeCell) show() string { return c.p.Text }
func (c poolModeCell) raw() string  { return orNull(c.p.Text) }

func poolModeList(name, group string, f Family, ctx Context, def string, p func(*Config, int) *PoolModeList, desc string) Setting {
	return Setting{Name: name, Group: group, Family: f, Context: ctx, Type: "list", Default: def, Description: desc,
		Separator: ",",
		cell:      func(c *Config, i int) cell { return poolModeCell{place[PoolModeList]{p(c, i)}} }}
}
