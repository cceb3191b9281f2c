package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
	"pgpool-go/watchdog"
)

// wdcliTool tells the watchdog of a pgpool on this host what an outside life check
// has found, and lists its nodes.
func wdcliTool() *tool {
	return &tool{
		name: "wd_cli",
		options: []option{
			{long: "info", short: 'i'},
			{long: "inform", short: 'I', value: true},
			{long: "remove", value: true, longOnly: true},
			{long: "all", short: 'a'},
			{long: "node-id", short: 'n', value: true},
			{long: "node-name", short: 'N', value: true},
			{long: "node-host", short: 'H', value: true},
			{long: "node-port", short: 'P', value: true},
			{long: "config-file", short: 'f', value: true},
			{long: "auth-key", short: 'k', value: true},
			{long: "socket-dir", short: 's', value: true},
			{long: "ipc-port", short: 'p', value: true},
			{long: "message", short: 'm', value: true},
			{long: "verbose", short: 'v'},
			{long: "version", short: 'V'},
			{long: "debug", short: 'd'},
			{long: "help", longOnly: true},
		},
		words: gnuWords,
		seen: func(t *call, o option, _ string) error {
			switch o.long {
			case "version":
				t.errorf("wd_cli (pgpool-II) %s", compatible)
				return exit(0)
			case "help":
				wdcliHelp(t.out)
				return exit(0)
			}
			return nil
		},
		refused: func(t *call, err error) int {
			t.errorf("%v\nTry \"wd_cli --help\" for more information.", err)
			return 1
		},
		run: runWdcli,
	}
}

func runWdcli(t *call) int {
	inform := strings.ToUpper(t.string("inform"))
	switch {
	case t.given("info") && t.given("inform"):
		t.errorf("ERROR: Invalid option, 'info' and 'inform' are mutually exclusive options")
		return 1
	case t.given("remove") && (t.given("info") || t.given("inform")):
		t.errorf("ERROR: Invalid option, 'remove' goes with no other operation")
		return 1
	case !t.given("info") && !t.given("inform") && !t.given("remove"):
		t.errorf("ERROR: Missing operation. Try wd_cli --help\" for more information.")
		return 1
	case t.given("inform") && inform != "DEAD" && inform != "ALIVE":
		t.errorf("ERROR: Invalid node status \"%s\", Allowed options are DEAD or ALIVE''", t.string("inform"))
		return 1
	}
	dir, port, authkey := "/tmp", "9898", t.string("auth-key")
	if t.given("config-file") {
		c, _, err := conf.Load(conf.Paths{Conf: t.string("config-file")})
		if err != nil {
			return t.fatal(1, err)
		}
		dir, authkey = c.WdIpcSocketDir, cmp.Or(authkey, c.WdAuthkey)
		if id := c.NodeID; id >= 0 && id < len(c.Watchdogs) && c.Watchdogs[id].Used() {
			port = strconv.Itoa(c.Watchdogs[id].WdPort)
		}
	}
	dir, port = cmp.Or(t.string("socket-dir"), dir), cmp.Or(t.string("ipc-port"), port)
	number, err := strconv.Atoi(port)
	if err != nil {
		t.errorf("ERROR: invalid port number %q", port)
		return 1
	}
	path := watchdog.IPCPath(dir, number)
	if t.given("remove") {
		return t.remove(path, authkey)
	}
	nodes, err := listNodes(path, authkey)
	if err != nil {
		t.errorf("WARNING: %s: %v", path, err)
		t.errorf("ERROR: pid %d: get node list command reply contains no data", os.Getpid())
		return 255
	}
	found := t.matching(nodes)
	if len(found) == 0 {
		t.errorf("ERROR: unable to find the node with the requested criteria\nCriteria:[ID=%s AND Name=%s AND Host=%s AND WDPort=%s]",
			t.criterion("node-id"), t.criterion("node-name"), t.criterion("node-host"), t.criterion("node-port"))
		return 1
	}
	if t.given("info") {
		t.showNodes(nodes, found)
		return 0
	}
	for _, n := range found {
		if err := t.inform(path, authkey, n.ID, inform); err != nil {
			t.errorf("ERROR: node id %d: %v", n.ID, err)
			return 1
		}
	}
	return 0
}

func (t *call) criterion(name string) string { return cmp.Or(t.string(name), "ANY") }

// matching are the nodes that all given criteria are true of.
func (t *call) matching(nodes []watchdog.IPCNode) []watchdog.IPCNode {
	if !t.given("all") && !t.given("node-id") && !t.given("node-name") && !t.given("node-host") && !t.given("node-port") {
		t.errorf("WARNING: Missing node search criteria. applying --all option")
	}
	is := func(option, value string) bool {
		return t.given("all") || !t.given(option) || t.string(option) == value
	}
	var found []watchdog.IPCNode
	for _, n := range nodes {
		if is("node-id", strconv.Itoa(n.ID)) && is("node-name", n.NodeName) && is("node-host", n.HostName) && is("node-port", strconv.Itoa(n.WdPort)) {
			found = append(found, n)
		}
	}
	return found
}

func (t *call) showNodes(all, found []watchdog.IPCNode) {
	fmt.Fprintf(t.out, "Total Watchdog nodes configured for lifecheck:    %d\n", len(all))
	if t.given("verbose") {
		fmt.Fprintln(t.out, "*****************")
	}
	for _, n := range found {
		if !t.given("verbose") {
			fmt.Fprintf(t.out, "%d %d \"%s\"\"%s\"\"%s\" %d %d\n", n.ID, n.Membership, n.StateName, n.NodeName, n.HostName, n.WdPort, n.PgpoolPort)
			continue
		}
		fmt.Fprintf(t.out, "Node ID:           %d\nNode Status code:  %d\nNode Status:       %s\nNode Name:         %s\n"+
			"Node Host:         %s\nNode WD Port:      %d\nNode Pgpool Port:  %d\n\n",
			n.ID, n.State, n.StateName, n.NodeName, n.HostName, n.WdPort, n.PgpoolPort)
	}
}

func (t *call) inform(path, authkey string, id int, state string) error {
	message := t.string("message")
	t.errorf("INFO: informing the node status change to watchdog\nINFO: node id :%d status = \"NODE %s\" message:\"%s\"", id, state, message)
	number := 2
	if state == "DEAD" {
		number = 1
	}
	body, err := json.Marshal(watchdog.IPCStatus{NodeID: id, NodeStatus: number, Message: message, IPCAuthKey: authkey})
	if err != nil {
		return err
	}
	if _, err := askIPC(path, watchdog.IPCStatusChange, body); err != nil {
		return err
	}
	t.errorf("INFO: informed watchdog about node id %d is %s", id, strings.ToLower(state))
	return nil
}

// remove has the group go on without nodes that are off.
func (t *call) remove(path, authkey string) int {
	r := watchdog.IPCRemoval{IPCAuthKey: authkey}
	for id := range strings.SplitSeq(t.string("remove"), ",") {
		n, err := strconv.Atoi(strings.TrimSpace(id))
		if err != nil || n < 0 {
			t.errorf("ERROR: invalid node id %q", id)
			return 1
		}
		r.NodeIDs = append(r.NodeIDs, n)
	}
	body, err := json.Marshal(r)
	if err == nil {
		_, err = askIPC(path, watchdog.IPCRemove, body)
	}
	if err != nil {
		t.errorf("ERROR: %v", err)
		return 1
	}
	t.errorf("INFO: the watchdog goes on without node id %s", t.string("remove"))
	return 0
}

func listNodes(path, authkey string) ([]watchdog.IPCNode, error) {
	question, err := json.Marshal(watchdog.IPCList{NodeID: -1, IPCAuthKey: authkey})
	if err != nil {
		return nil, err
	}
	reply, err := askIPC(path, watchdog.IPCNodeList, question)
	if err != nil {
		return nil, err
	}
	var list watchdog.IPCList
	err = json.Unmarshal([]byte(strings.TrimRight(string(reply), "\x00")), &list)
	return list.Nodes, err
}

// askIPC puts one question to the watchdog behind a socket.
func askIPC(path string, letter byte, body []byte) ([]byte, error) {
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if err := watchdog.WriteIPC(c, letter, body); err != nil {
		return nil, err
	}
	kind, reply, err := watchdog.ReadIPC(bufio.NewReader(c))
	switch {
	case err != nil:
		return nil, err
	case kind != watchdog.IPCOk && len(reply) > 0:
		return nil, errors.New(string(reply))
	case kind != watchdog.IPCOk:
		return nil, errors.New("the watchdog has refused; is the key right?")
	}
	return reply, nil
}

func wdcliHelp(w io.Writer) {
	fmt.Fprintf(w, `wd_cli - Command line interface for the watchdog of pgpool-go %s
Usage:
wd_cli [ operation] [ options] [node search criteria]

 Operations:
  -i, --info                 get information about nodes
  -I, --inform=NEW-STATE     tell the watchdog that a node is DEAD or ALIVE
      --remove=ID,ID,...     go on without these nodes, which are off, in a group that has lost its quorum for good;
                             if one of them is not off, there may be two leaders

 Node search:
  -a, --all                  all nodes
  -n, --node-id=ID           by node id
  -N, --node-name=NAME       by node name
  -H, --node-host=HOST       by host
  -P, --node-port=PORT       by watchdog port

 Options:
  -f, --config-file=FILE     pgpool.conf, which says where the socket is
  -k, --auth-key=KEY         wd_authkey
  -s, --socket-dir=DIR       directory of the socket
  -p, --ipc-port=PORT        number of the socket, which is wd_port
  -m, --message=TEXT         goes to pgpool's log
  -v, --verbose              more
  -V, --version              version
      --help                 this text
`, pgpool.Version)
}
