package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"pgpool-go/pcp"
)

const (
	defaultPcpPort = 9898
	// pcpSocketDir is compiled into the original's tools, also where the server's
	// own default is another.
	pcpSocketDir = "/tmp"
	lastNodeID   = 128
)

// pcpOptions is one table for all pcp tools: each takes the long form of every
// option, even where it has no meaning for it, and its own few short ones.
// The order is that in which ambiguous names are listed.
var pcpOptions = []option{
	{long: "help", short: '?'},
	{long: "version", short: 'V'},
	{long: "debug", short: 'd'},
	{long: "host", short: 'h', value: true},
	{long: "port", short: 'p', value: true},
	{long: "process-id", short: 'P', value: true},
	{long: "username", short: 'U', value: true},
	{long: "no-password", short: 'w'},
	{long: "password", short: 'W'},
	{long: "mode", short: 'm', value: true},
	{long: "scope", short: 's', value: true},
	{long: "gracefully", short: 'g'},
	{long: "switchover", short: 's'},
	{long: "verbose", short: 'v'},
	{long: "all", short: 'a'},
	{long: "node-id", short: 'n', value: true},
	{long: "watchdog-id", short: 'n', value: true},
}

// pcpTool is what tells one pcp tool from the others.
type pcpTool struct {
	name   string
	short  string // letters beyond those of every tool
	about  string
	usage  string // behind "[OPTION...] "
	id     idKind
	must   bool // the id may not be left out
	json   bool // it is a listing
	ask    func(t *pcpCall) error
	traced byte // the letter the original's trace shows instead of the real one
}

// idKind is what a tool's operand is.
type idKind int

const (
	noID idKind = iota
	nodeID
	processID
	watchdogID
)

// pcpCall is one use of a pcp tool.
type pcpCall struct {
	*call
	pcpTool
	client *pcp.Client
	id     int // pcp.All, or 0 for processes, if none was given
}

func (t *pcpCall) node() int { return max(t.id, 0) }

func (t *pcpCall) scope() pcp.Scope {
	if s := t.string("scope"); s != "" {
		return pcp.Scope(s[0])
	}
	return pcp.Local
}

func (t *pcpCall) mode() pcp.StopMode {
	if m := t.string("mode"); m != "" {
		return pcp.StopMode(m[0])
	}
	return pcp.Smart
}

// succeeded is the whole output of a command that returns nothing.
func (t *pcpCall) succeeded(err error) error {
	if err == nil {
		fmt.Fprintf(t.out, "%s -- Command Successful\n", t.pcpTool.name)
	}
	return err
}

func pcpTools() []*tool {
	var all []*tool
	for _, p := range []pcpTool{
		{name: "pcp_attach_node", short: "n", id: nodeID, must: true,
			about: "attach a node from pgpool-II", usage: "[node-id]",
			ask: func(t *pcpCall) error { return t.succeeded(t.client.AttachNode(t.node())) }},
		{name: "pcp_detach_node", short: "ng", id: nodeID, must: true,
			about: "detach a node from pgpool-II", usage: "[node-id]", traced: 'D',
			ask: func(t *pcpCall) error {
				return t.succeeded(t.client.DetachNode(t.node(), t.given("gracefully")))
			}},
		{name: "pcp_health_check_stats", short: "n", id: nodeID, must: true, json: true,
			about: "display a pgpool-II health check stats data", usage: "[node-id]", traced: 'L',
			ask: printHealthStats},
		{name: "pcp_invalidate_query_cache", short: "s",
			about: "invalidate query cache",
			ask:   func(t *pcpCall) error { return t.succeeded(t.client.InvalidateQueryCache()) }},
		{name: "pcp_log_rotate", short: "s",
			about: "rotate the Pgpool-II's log file",
			ask:   func(t *pcpCall) error { return t.succeeded(t.client.RotateLog(t.scope())) }},
		{name: "pcp_node_count", json: true,
			about: "display the total number of nodes under pgpool-II's control",
			ask:   printNodeCount},
		{name: "pcp_node_info", short: "na", id: nodeID, json: true,
			about: "display a pgpool-II node's information",
			ask:   printNodes},
		{name: "pcp_pool_status", json: true,
			about: "display pgpool configuration and status",
			ask:   printSettings},
		{name: "pcp_proc_count", json: true,
			about: "display the list of pgpool-II child process PIDs",
			ask:   printProcessIDs},
		{name: "pcp_proc_info", short: "Pa", id: processID, json: true,
			about: "display a pgpool-II child process' information", usage: "[process-id]",
			ask: printProcesses},
		{name: "pcp_promote_node", short: "ngs", id: nodeID, must: true,
			about: "promote a node as new main from pgpool-II", usage: "[node-id]", traced: 'E',
			ask: func(t *pcpCall) error {
				switchover := t.given("switchover") || t.given("scope")
				return t.succeeded(t.client.PromoteNode(t.node(), t.given("gracefully"), switchover))
			}},
		{name: "pcp_recovery_node", short: "n", id: nodeID, must: true,
			about: "recover a node", usage: "[node-id]", traced: 'D',
			ask: func(t *pcpCall) error { return t.succeeded(t.client.RecoverNode(t.node())) }},
		{name: "pcp_reload_config", short: "s",
			about: "reload a pgpool-II config file",
			ask:   func(t *pcpCall) error { return t.succeeded(t.client.Reload(t.scope())) }},
		{name: "pcp_stop_pgpool", short: "msa",
			about: "terminate pgpool-II", traced: 'T',
			ask: func(t *pcpCall) error { return t.succeeded(t.client.Stop(t.mode(), t.scope())) }},
		{name: "pcp_watchdog_info", short: "n", id: watchdogID, json: true,
			about: "display a pgpool-II watchdog's information", usage: "[watchdog-id]",
			ask: printWatchdog},
	} {
		all = append(all, &tool{
			name:    p.name,
			options: p.options(),
			words:   gnuWords,
			first:   p.first,
			seen:    p.seen,
			refused: p.refused,
			run:     p.run,
		})
	}
	return all
}

// switches reports whether -s of this tool takes no value.
func (p pcpTool) switches() bool { return p.name == "pcp_promote_node" }

func (p pcpTool) options() []option {
	letters := "hpUwWvd" + p.short
	all := slices.Clone(pcpOptions)
	for i, o := range all {
		all[i].longOnly = !strings.ContainsRune(letters, rune(o.short)) ||
			o.short == 's' && o.value == p.switches() ||
			o.long == "watchdog-id"
	}
	if p.json {
		all = append(all, option{long: "json", longOnly: true})
	}
	return all
}

// first: help and version are options only in front of all others.
func (p pcpTool) first(t *call) (code int, done bool) {
	if len(t.args) == 0 {
		return 0, false
	}
	switch t.args[0] {
	case "-?", "--help":
		p.help(t.stderr)
		return 0, true
	case "-V", "--version":
		t.errorf("%s (pgpool-II) %s", p.name, compatible)
		return 0, true
	}
	return 0, false
}

func (p pcpTool) tryHelp(w io.Writer) {
	fmt.Fprintf(w, "Try \"%s --help\" for more information.\n\n", p.name)
}

func (p pcpTool) refused(t *call, err error) int {
	t.errorf("%v", err)
	p.tryHelp(t.stderr)
	return 1
}

// seen checks values as they come. That a bad number ends with exit code 0
// is the original's.
func (p pcpTool) seen(t *call, o option, value string) error {
	none := func() error {
		if !o.value {
			value = "(null)"
		}
		fmt.Fprintf(t.stderr, "Invalid argument \"%s\", Try \"%s --help\" for more information.\n", value, p.name)
		return exit(1)
	}
	switch o.long {
	case "help", "version":
		p.tryHelp(t.stderr)
		return exit(1)
	case "port":
		if n := atoi(value); n <= 1024 || n > 65535 {
			t.errorf("%s: Invalid port number \"%s\", must be between 1024 and 65535", p.name, value)
			return exit(0)
		}
	case "node-id", "watchdog-id":
		return p.checkID(t, atoi(value), value, "a local")
	case "process-id":
		if atoi(value) <= 0 {
			t.errorf("%s: Invalid process-id \"%s\", must be greater than 0", p.name, value)
			return exit(0)
		}
	case "mode":
		if p.name != "pcp_stop_pgpool" {
			return none()
		}
		if !slices.Contains([]string{"s", "smart", "f", "fast", "i", "immediate"}, value) {
			t.errorf("%s: Invalid shutdown mode \"%s\", must be either \"smart\" \"immediate\" or \"fast\" ", p.name, value)
			return exit(1)
		}
	case "scope", "switchover":
		if p.switches() {
			return nil
		}
		if !strings.Contains(p.short, "s") {
			return none()
		}
		if !slices.Contains([]string{"l", "local", "c", "cluster"}, value) {
			if !o.value {
				value = "(null)"
			}
			t.errorf("%s: Invalid command scope \"%s\", must be either \"cluster\" or \"local\" ", p.name, value)
			return exit(1)
		}
	}
	return nil
}

// checkID looks at a node's or a watchdog member's id.
func (p pcpTool) checkID(t *call, id int, text, local string) error {
	if p.id == watchdogID {
		if id < 0 {
			t.errorf("%s: Invalid watchdog-id \"%s\", must be a positive number or zero for %s watchdog node", p.name, text, local)
			return exit(0)
		}
	} else if id < 0 || id > lastNodeID {
		t.errorf("%s: Invalid node-id \"%s\", must be between 0 and %d", p.name, text, lastNodeID)
		return exit(0)
	}
	return nil
}

// atoi reads a number as C does: what is none is 0.
func atoi(s string) int {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[end] == '-' || s[end] == '+')) {
		end++
	}
	n, _ := strconv.Atoi(s[:end])
	return n
}

func (p pcpTool) run(c *call) int {
	t := &pcpCall{call: c, pcpTool: p, id: pcp.All}
	if code, ok := t.operand(); !ok {
		return code
	}
	name, password := t.credentials()
	host, port := t.string("host"), defaultPcpPort
	if t.given("port") {
		port = atoi(t.string("port"))
	}
	if password == "" {
		password = t.savedPassword(host, port, name)
	}
	client, err := connect(host, port)
	if err != nil {
		t.errorf("%v", err)
		return 1
	}
	defer client.Close()
	t.client = client
	if t.given("debug") {
		client.Trace = t.trace
		client.Notice = func(n *pcp.Error) { fmt.Fprintf(t.out, "BACKEND %s:  %s\n", n.Severity, n.Message) }
	}
	if err := client.Login(name, password); err != nil {
		client.Trace = nil
		t.tell(err)
		return 1
	}
	if err := p.ask(t); err != nil {
		t.tell(err)
	}
	return 0 // whatever became of the command: scripts know to look at stderr
}

// operand finds the id, given by option or as an operand, and complains of
// further operands.
func (t *pcpCall) operand() (code int, ok bool) {
	operands := t.operands()
	option := map[idKind][]string{
		nodeID: {"node-id", "watchdog-id"}, watchdogID: {"node-id", "watchdog-id"}, processID: {"process-id"},
	}[t.pcpTool.id]
	given := false
	for _, o := range option {
		if t.given(o) {
			t.id, given = atoi(t.string(o)), true
		}
	}
	if t.pcpTool.id != noID && !given && len(operands) > 0 {
		t.id, given = atoi(operands[0]), true
		operands = operands[1:]
		if t.pcpTool.id == processID {
			if t.id <= 0 {
				t.errorf("%s: Invalid process-id \"(null)\", must be greater than 0", t.pcpTool.name)
				return 0, false
			}
		} else if code, bad := t.checkID(t.call, t.id, "(null)", "local").(exit); bad {
			return int(code), false
		}
	}
	for _, extra := range operands {
		t.errorf("%s: Warning: extra command-line argument \"%s\" ignored", t.pcpTool.name, extra)
	}
	if t.must && !given {
		t.errorf("%s: missing node-id", t.pcpTool.name)
		t.tryHelp(t.stderr)
		return 1, false
	}
	return 0, true
}

// credentials returns the user and what was typed for a password.
func (t *pcpCall) credentials() (name, password string) {
	name = t.string("username")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	if !t.given("no-password") {
		password = prompt(t.call, "Password: ")
	}
	return name, password
}

// connect reaches the server; errors are worded as the original does.
func connect(host string, port int) (*pcp.Client, error) {
	if host == "" || host[0] == '/' {
		if host == "" {
			host = pcpSocketDir
		}
		path := fmt.Sprintf("%s/.s.PGSQL.%d", host, port)
		c, err := pcp.Dial(context.Background(), "unix", path)
		if err != nil {
			return nil, fmt.Errorf("ERROR: connection to socket \"%s\" failed with error \"%s\"", path, reason(err))
		}
		return c, nil
	}
	c, err := pcp.Dial(context.Background(), "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if _, unknown := errors.AsType[*net.DNSError](err); unknown {
		return nil, errors.New("ERROR: could not retrieve hostname. gethostbyname failed with error \"Success\"")
	} else if err != nil {
		return nil, fmt.Errorf("ERROR: connection to host \"%s\" failed with error \"%s\"", host, reason(err))
	}
	return c, nil
}

// reason is the C library's word for a failed system call.
func reason(err error) string {
	no, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err.Error()
	}
	text := no.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// tell writes what went wrong after connecting.
func (t *pcpCall) tell(err error) {
	if bad, ok := errors.AsType[*pcp.Error](err); ok {
		t.errorf("%s:  %s", bad.Severity, bad.Message)
		if bad.Detail != "" {
			t.errorf("DETAIL:  %s", bad.Detail)
		}
		t.errorf("")
		return
	}
	if errors.Is(err, pcp.ErrInvalidResponse) {
		t.errorf("%v\n", pcp.ErrInvalidResponse)
		return
	}
	if errors.Is(err, pcp.ErrClosed) {
		err = pcp.ErrClosed
		t.errorf("ERROR: %v.", err)
		return
	}
	t.errorf("ERROR: %v", err)
}

// trace is -d: it shows messages as the original does, wrong letters included.
func (t *pcpCall) trace(sent bool, letter byte, length int) {
	switch {
	case !sent:
		fmt.Fprintf(t.out, "DEBUG: recv: tos=\"%c\", len=%d\n", letter, length)
	case letter == 'X':
		fmt.Fprintf(t.out, "DEBUG: send: tos=\"X\", len=%d\n", length)
	case letter == 'B':
		fmt.Fprintf(t.out, "DEBUG pcp_pool_status: send: tos=\"B\", len=%d\n", length)
	default:
		if t.traced != 0 {
			letter = t.traced
		}
		fmt.Fprintf(t.out, "DEBUG: send: tos=\"%c\", len=%d\n", letter, length)
	}
}

func (p pcpTool) help(w io.Writer) {
	fmt.Fprintf(w, "%s - %s\nUsage:\n%s [OPTION...] %s\nOptions:\n", p.name, p.about, p.name, p.usage)
	io.WriteString(w, `  -U, --username=NAME    username for PCP authentication
  -h, --host=HOSTNAME    pgpool-II host
  -p, --port=PORT        PCP port number
  -w, --no-password      never prompt for password
  -W, --password         force password prompt (should happen automatically)
`)
	for _, c := range p.short {
		switch {
		case c == 'n' && p.id == watchdogID:
			io.WriteString(w, `  -n, --watchdog-id=ID   ID of a other pgpool to get information for
                         ID 0 for the local watchdog
                         If omitted then get information of all watchdog nodes
`)
		case c == 'n':
			io.WriteString(w, "  -n, --node-id=NODEID   ID of a backend node\n")
		case c == 'P':
			io.WriteString(w, "  -P, --process-id=PID   PID of the child process to get information for (optional)\n")
		case c == 'a' && p.id == nodeID:
			io.WriteString(w, "  -a, --all              display all backend nodes information\n")
		case c == 'a' && p.id == processID:
			io.WriteString(w, "  -a, --all              display all child processes and their available connection slots\n")
		case c == 'm':
			io.WriteString(w, "  -m, --mode=MODE        MODE can be \"smart\", \"fast\", or \"immediate\"\n")
		case c == 'g':
			io.WriteString(w, "  -g, --gracefully       promote gracefully (optional)\n")
		case c == 's' && p.switches():
			io.WriteString(w, "  -s, --switchover       switchover primary to specified node (optional)\n")
		case c == 's':
			io.WriteString(w, `  -s, --scope=SCOPE      SCOPE can be "cluster", or "local"
                         cluster scope do operations on all Pgpool-II nodes
                         part of the watchdog cluster
`)
		}
	}
	io.WriteString(w, `  -d, --debug            enable debug message (optional)
  -v, --verbose          output verbose messages
`)
	if p.json {
		io.WriteString(w, "      --json             output as JSON\n")
	}
	io.WriteString(w, "  -?, --help             print this help\n\n")
}
