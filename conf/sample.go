package conf

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const sampleHead = `# pgpool.conf: the settings of pgpool-go
#
# Lines are "name = value"; a value with characters other than letters, digits
# and _ - . : / stands between single quotes. # begins a comment. Where a name is set
# twice, the last line counts. "include = 'file'" reads another file in its place.
# Times take the units us ms s min h d, sizes B kB MB GB TB.
#
# Every parameter is below with its default. After a change, "pgpool reload" makes it
# effective; parameters marked "restart" need one.
`

// sampleGroups are the headings of the sample, in order, for the table's groups.
var sampleGroups = []struct{ group, title string }{
	{"mode", "Clustering mode"},
	{"connection", "Connections from clients and administrators"},
	{"backend", "Backends: the PostgreSQL servers, numbered from 0"},
	{"auth", "Authentication"},
	{"ssl", "TLS"},
	{"pool", "Pools"},
	{"process-mgmt", "Process management"},
	{"logging", "Logs"},
	{"file", "Files"},
	{"pooling", "Pooled server connections"},
	{"replication-mode", "Native replication"},
	{"load-balance", "Load balancing"},
	{"table-mutation", "Recently written tables (disable_load_balance_on_write = dml_adaptive_global)"},
	{"streaming-check", "Streaming replication delay"},
	{"health-check", "Health checks"},
	{"failover", "Failover and failback"},
	{"recovery", "Online recovery"},
	{"relcache", "Catalog cache"},
	{"query-cache", "Query cache"},
	{"watchdog", "Watchdog: several pgpools, numbered from 0; each has its number in a file pgpool_node_id beside this one"},
	{"watchdog-vip", "Watchdog: virtual IP"},
	{"watchdog-escalation", "Watchdog: becoming the leader"},
	{"watchdog-quorum", "Watchdog: quorum and consensus"},
	{"watchdog-lifecheck", "Watchdog: life check"},
}

// Sample writes a pgpool.conf with every parameter, commented out, at its default.
func Sample(w io.Writer) error {
	b := bufio.NewWriter(w)
	b.WriteString(sampleHead)
	for _, g := range sampleGroups {
		fmt.Fprintf(b, "\n#%s\n# %s\n#%s\n", strings.Repeat("-", 78), g.title, strings.Repeat("-", 78))
		for i := range table {
			if table[i].Group == g.group {
				table[i].sample(b)
			}
		}
	}
	return b.Flush()
}

func (s *Setting) sample(w io.Writer) {
	name := s.Name
	if s.numbered() {
		name = s.title(0)
	}
	facts := s.facts()
	fmt.Fprintf(w, "\n# %s\n", s.Description)
	if facts != "" {
		fmt.Fprintf(w, "# (%s)\n", facts)
	}
	fmt.Fprintf(w, "#%s = %s\n", name, s.sampleValue())
}

// facts says on one line what a value may be and when it counts.
func (s *Setting) facts() string {
	var facts []string
	switch s.Type {
	case "enum", "flags":
		facts = append(facts, strings.Join(s.Values, ", "))
	case "integer", "number", "time", "size":
		limits := s.Min + " to " + s.Max
		if n, err := strconv.ParseInt(s.Max, 10, 64); err == nil && n >= maxInt {
			limits = "at least " + s.Min
		}
		if s.Unit != "" {
			limits += " " + s.Unit
		}
		facts = append(facts, limits)
	case "list":
		facts = append(facts, "list separated by "+s.Separator)
		if s.Values != nil {
			facts = append(facts, strings.Join(s.Values, ", "))
		}
	}
	switch s.Family {
	case PerBackend, PerWatchdog, PerHeartbeat:
		facts = append(facts, fmt.Sprintf("one per node, 0 to %d", s.Family.size()-1))
	case Override:
		facts = append(facts, fmt.Sprintf("with a node's number, as in %s, for that node only", s.title(0)))
	}
	switch s.Context {
	case AtStart:
		facts = append(facts, "restart")
	case InSession:
		facts = append(facts, "also with PGPOOL SET")
	}
	return strings.Join(facts, "; ")
}

// sampleValue is the default, or an example, quoted where that is the custom and in a handy unit.
func (s *Setting) sampleValue() string {
	value := cmp.Or(s.Example, s.Default)
	switch s.Type {
	case "string", "list", "flags":
		return "'" + value + "'"
	case "time", "size":
		switch v := s.cell(Default(), plain).(type) {
		case durationCell:
			return v.unit.show(v.count())
		case sizeCell:
			return v.show()
		}
	}
	return value
}
