package conf

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// old is a parameter of an earlier version. It either lives on under another
// name, or has an effect only together with others (see settleLegacy), or has none.
type old struct {
	name     string
	now      string // what to use instead; "" if nothing
	rename   bool   // now is a parameter of the same meaning
	numbered bool
	none     bool // has no effect
}

// oldSet is an old parameter as a file sets it.
type oldSet struct {
	assignment
	index int
}

var legacy = []old{
	{name: "black_function_list", now: "write_function_list", rename: true},
	{name: "white_function_list", now: "read_only_function_list", rename: true},
	{name: "black_query_pattern_list", now: "primary_routing_query_pattern_list", rename: true},
	{name: "black_memqcache_table_list", now: "cache_unsafe_memqcache_table_list", rename: true},
	{name: "white_memqcache_table_list", now: "cache_safe_memqcache_table_list", rename: true},
	{name: "follow_master_command", now: "follow_primary_command", rename: true},
	{name: "socket_dir", now: "unix_socket_directories", rename: true},
	{name: "logdir", now: "work_dir", rename: true},
	{name: "delegate_IP", now: "delegate_ip", rename: true},
	{name: "fail_over_on_backend_error", now: "failover_on_backend_error", rename: true},
	{name: "wd_initial_node_showup_time", now: "wd_no_show_node_removal_timeout", rename: true},
	{name: "ifconfig_path", now: "if_cmd_path", rename: true},
	{name: "enable_query_cache", now: "memory_cache_enabled", rename: true},

	{name: "master_slave_mode", now: "backend_clustering_mode"},
	{name: "master_slave_sub_mode", now: "backend_clustering_mode"},
	{name: "wd_hostname", now: "hostnameN and a pgpool_node_id file"},
	{name: "wd_port", now: "wd_portN and a pgpool_node_id file"},
	{name: "other_pgpool_hostname", now: "hostnameN", numbered: true},
	{name: "other_pgpool_port", now: "pgpool_portN", numbered: true},
	{name: "other_wd_port", now: "wd_portN", numbered: true},
	{name: "wd_heartbeat_port", now: "heartbeat_portN"},
	{name: "heartbeat_destination", now: "heartbeat_hostnameN", numbered: true},
	{name: "heartbeat_destination_port", now: "heartbeat_portN", numbered: true},
	{name: "debug_level", now: "log_min_messages"},
	{name: "print_timestamp", now: "log_line_prefix (%t)"},
	{name: "print_user", now: "log_line_prefix (%u)"},
	{name: "allow_inet_domain_socket", now: "listen_addresses"},
	{name: "backend_socket_dir", now: "backend_hostnameN"},

	{name: "pcp_timeout", none: true},
	{name: "parallel_mode", none: true},
	{name: "pgpool2_hostname", none: true},
	{name: "system_db_hostname", none: true},
	{name: "system_db_port", none: true},
	{name: "system_db_dbname", none: true},
	{name: "system_db_schema", none: true},
	{name: "system_db_user", none: true},
	{name: "system_db_password", none: true},
	{name: "replication_strict", none: true},
	{name: "replication_timeout", none: true},
}

// findLegacy finds an old parameter by the name a file has, with the number.
func findLegacy(name string) (o old, index int, ok bool) {
	for _, o := range legacy {
		digits, found := strings.CutPrefix(name, o.name)
		if !found || o.numbered != (digits != "") {
			continue
		}
		if !o.numbered {
			return o, plain, true
		}
		if n, err := strconv.ParseUint(digits, 10, 7); err == nil && n < MaxWatchdogs-1 {
			return o, int(n), true
		}
	}
	return old{}, 0, false
}

// resolveLegacy tells the operator about an old name and gives the setting it
// stands for, if it stands for one alone.
func (l *loader) resolveLegacy(o old, index int, a *assignment) (*Setting, int, bool) {
	switch {
	case o.none:
		l.warn(KindRemoved, o.name, *a, fmt.Sprintf("parameter %q was removed", o.name), "The setting has no effect.", "Remove the line.")
		return nil, 0, false
	case o.rename:
		l.warn(KindRenamed, o.name, *a, fmt.Sprintf("%s is changed to %s", o.name, o.now), "", fmt.Sprintf("use %s instead", o.now))
		if o.name == "logdir" && a.value == "" {
			return nil, 0, false // as in the original
		}
		return byName[o.now], plain, true
	}
	l.warn(KindRenamed, o.name, *a, fmt.Sprintf("%s is replaced by %s", o.name, o.now), "", "")
	l.legacy[o.name+numeral(index)] = oldSet{*a, index}
	return nil, 0, false
}

func numeral(index int) string {
	if index == plain {
		return ""
	}
	return strconv.Itoa(index)
}

// settleLegacy gives effect to old parameters whose meaning is spread over
// several new ones. What the file says in new words wins.
func (l *loader) settleLegacy() {
	l.settleMode()
	l.settleLogs()
	if on, a, ok := l.oldBool("allow_inet_domain_socket"); ok {
		addresses := ""
		if on {
			addresses = "*"
		}
		l.fill("listen_addresses", plain, a, addresses)
	}
	if l.oldWatchdog() {
		l.settleWatchdog()
	}
}

// fill sets a parameter that the file does not set in its own name.
func (l *loader) fill(name string, index int, a oldSet, value string) {
	s := byName[name]
	if !l.set[s.title(index)] {
		a.value = value
		l.put(s, index, a.assignment)
	}
}

func (l *loader) oldBool(name string) (on bool, a oldSet, ok bool) {
	if a, ok = l.legacy[name]; !ok {
		return false, a, false
	}
	if on, ok = parseBool(a.value); !ok {
		l.fail(a.assignment, boolCell{place[bool]{&on}}.parse(name, a.value))
	}
	return on, a, ok
}

// settleMode finds backend_clustering_mode in the switches that came before it.
func (l *loader) settleMode() {
	on, a, ok := l.oldBool("master_slave_mode")
	sub, given := l.legacy["master_slave_sub_mode"]
	mode, known := map[string]string{"stream": "streaming_replication", "logical": "logical_replication", "slony": "slony"}[strings.ToLower(sub.value)]
	if given && !known {
		l.fail(sub.assignment, badValue("master_slave_sub_mode", sub.value, "Available values: stream, logical, slony."))
		return
	}
	switch {
	case ok && on:
		l.fill("backend_clustering_mode", plain, a, cmp.Or(mode, "streaming_replication"))
	case l.set["replication_mode"] && l.c.ReplicationMode:
		src := l.c.sources["replication_mode"]
		a := assignment{file: src.File, line: src.Line}
		if !l.set["backend_clustering_mode"] {
			l.warn(KindRenamed, "replication_mode", a, "replication_mode is replaced by backend_clustering_mode",
				"", "use backend_clustering_mode = 'native_replication' instead")
		}
		l.fill("backend_clustering_mode", plain, oldSet{a, plain}, "native_replication")
	case ok:
		l.fill("backend_clustering_mode", plain, a, "raw")
	}
}

// settleLogs maps the logging parameters of versions up to 3.5.
func (l *loader) settleLogs() {
	if a, ok := l.legacy["debug_level"]; ok {
		n, bad := parseInteger("debug_level", a.value, unitless, 0, maxInt)
		switch {
		case bad != nil:
			l.fail(a.assignment, bad)
		case n > 0:
			l.fill("log_min_messages", plain, a, "debug"+strconv.FormatInt(min(n, 5), 10))
		}
	}
	prefix := "%m: %a pid %p: "
	stamped, a1, ok1 := l.oldBool("print_timestamp")
	if ok1 && !stamped {
		prefix = strings.TrimPrefix(prefix, "%m: ")
	}
	named, a2, ok2 := l.oldBool("print_user")
	if ok2 && named {
		prefix += "%u: "
	}
	if ok1 {
		l.fill("log_line_prefix", plain, a1, prefix)
	} else if ok2 {
		l.fill("log_line_prefix", plain, a2, prefix)
	}
}

func (l *loader) oldWatchdog() bool {
	for name := range l.legacy {
		if strings.HasPrefix(name, "wd_") || strings.HasPrefix(name, "other_") || strings.HasPrefix(name, "heartbeat_") {
			return true
		}
	}
	return false
}

// settleWatchdog maps the watchdog's names of versions up to 4.1, where a file
// told its own node from the numbered other ones. Which node is the own one
// is in pgpool_node_id; without that file it is node 0.
func (l *loader) settleWatchdog() {
	own, err := LoadNodeID(l.c.NodeIDFile())
	if err != nil {
		own = 0 // nodeID reports a file that is there and wrong
	}
	id := func(other int) int { // the others keep their order around the own node
		if other < own {
			return other
		}
		return other + 1
	}
	byNumber := func(x, y oldSet) int { return cmp.Or(cmp.Compare(x.index, y.index), cmp.Compare(x.name, y.name)) }
	all := slices.SortedFunc(maps.Values(l.legacy), byNumber)
	hosts := map[string]int{} // other pgpools by host, for the heartbeats
	for _, a := range all {
		switch strings.TrimRight(a.name, "0123456789") {
		case "wd_hostname":
			l.fill("hostname", own, a, a.value)
		case "wd_port":
			l.fill("wd_port", own, a, a.value)
		case "other_pgpool_hostname":
			l.fill("hostname", id(a.index), a, a.value)
			hosts[a.value] = id(a.index)
		case "other_pgpool_port":
			l.fill("pgpool_port", id(a.index), a, a.value)
		case "other_wd_port":
			l.fill("wd_port", id(a.index), a, a.value)
		}
	}
	first := all[0]
	l.fill("hostname", own, first, "localhost")
	l.fill("wd_port", own, first, "9000")
	l.fill("pgpool_port", own, first, strconv.Itoa(l.c.Port))
	l.settleHeartbeats(all, own, hosts, id)
}

const defaultHeartbeatPort = "9694"

// settleHeartbeats: an old destination belongs to the pgpool on its host, and the
// device of its number to it; several for one pgpool are joined with ";".
func (l *loader) settleHeartbeats(all []oldSet, own int, hosts map[string]int, id func(int) int) {
	type target struct {
		host, port oldSet
		hosts      []string
		devices    []string
	}
	targets := map[int]*target{}
	for _, a := range all {
		if strings.TrimRight(a.name, "0123456789") != "heartbeat_destination" {
			continue
		}
		node, ok := hosts[a.value]
		if !ok {
			node = id(a.index)
		}
		t := targets[node]
		if t == nil {
			t = &target{host: a, port: a}
			t.port.value = defaultHeartbeatPort
			if port, ok := l.legacy["heartbeat_destination_port"+strconv.Itoa(a.index)]; ok {
				t.port = port
			}
			targets[node] = t
		}
		t.hosts = append(t.hosts, a.value)
		t.devices = append(t.devices, l.c.num.heartbeats[a.index].Device)
	}
	if len(targets) > 0 {
		for i := range l.c.num.heartbeats {
			l.c.num.heartbeats[i].Device = ""
		}
	}
	for node, t := range targets {
		l.fill("heartbeat_hostname", node, t.host, strings.Join(t.hosts, ";"))
		l.fill("heartbeat_port", node, t.port, t.port.value)
		l.c.num.heartbeats[node].Device = strings.Trim(strings.Join(t.devices, ";"), ";")
	}
	a, ok := l.legacy["wd_heartbeat_port"]
	if !ok && len(targets) > 0 {
		a, ok = all[0], true
		a.value = defaultHeartbeatPort
	}
	if ok {
		l.fill("heartbeat_port", own, a, a.value)
		l.fill("heartbeat_hostname", own, a, cmp.Or(l.c.num.watchdogs[own].Hostname, "localhost"))
	}
}
