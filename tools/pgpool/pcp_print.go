package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"pgpool-go/pcp"
)

// field is a value under its title in -v, or one of several in a line without.
type field struct{ title, value string }

// record prints one row of a listing: a line, or with -v a block of titles.
func (t *pcpCall) record(fields []field) {
	if !t.given("verbose") {
		values := make([]string, len(fields))
		for i, f := range fields {
			values[i] = f.value
		}
		fmt.Fprintln(t.out, strings.Join(values, " "))
		return
	}
	block(t.out, " : ", fields)
	fmt.Fprintln(t.out)
}

// block aligns the values behind the longest title.
func block(w io.Writer, colon string, fields []field) {
	width := 0
	for _, f := range fields {
		width = max(width, len(f.title))
	}
	for _, f := range fields {
		fmt.Fprintf(w, "%-*s%s%s\n", width, f.title, colon, f.value)
	}
}

// asJSON prints v for --json and reports whether it did.
func (t *pcpCall) asJSON(v any) bool {
	if !t.given("json") {
		return false
	}
	enc := json.NewEncoder(t.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil { // no value here can fail, only the output
		t.errorf("ERROR: %v", err)
	}
	return true
}

func printNodeCount(t *pcpCall) error {
	n, err := t.client.NodeCount()
	switch {
	case err != nil:
		return err
	case t.asJSON(map[string]int{"node_count": n}):
	case t.given("verbose"):
		fmt.Fprintf(t.out, "Node Count\n____________\n %d\n", n)
	default:
		fmt.Fprintln(t.out, n)
	}
	return nil
}

// jsonNode is a node as --json shows it.
type jsonNode struct {
	ID                   int     `json:"id"`
	Host                 string  `json:"hostname"`
	Port                 int     `json:"port"`
	Status               string  `json:"status"`
	StatusNumber         int     `json:"status_number"`
	PgStatus             string  `json:"pg_status"`
	Weight               float64 `json:"weight"`
	Role                 string  `json:"role"`
	PgRole               string  `json:"pg_role"`
	Delay                float64 `json:"replication_delay"`
	DelayUnit            string  `json:"replication_delay_unit"`
	ReplicationState     string  `json:"replication_state"`
	ReplicationSyncState string  `json:"replication_sync_state"`
	Changed              string  `json:"last_status_change"`
}

func printNodes(t *pcpCall) error {
	nodes, err := t.client.Nodes(t.id)
	if err != nil {
		return err
	}
	if len(nodes) == 0 && !t.given("json") {
		return t.succeeded(nil)
	}
	listed := []jsonNode{}
	for _, n := range nodes {
		if n.Host == "" && !t.given("all") {
			continue
		}
		delay, unit := float64(n.Delay), "bytes"
		if n.DelayByTime {
			delay, unit = delay/1e6, "seconds"
		}
		listed = append(listed, jsonNode{
			n.ID, n.Host, n.Port, n.Status.Name(n.Quarantined), int(n.Status), n.PgStatus, n.Weight,
			n.Role.String(), n.PgRole, delay, unit, n.ReplicationState, n.ReplicationSyncState,
			pcp.WallTime(n.Changed.Local()),
		})
	}
	if t.asJSON(listed) {
		return nil
	}
	for _, n := range listed {
		t.record([]field{
			{"Hostname", n.Host},
			{"Port", strconv.Itoa(n.Port)},
			{"Status", strconv.Itoa(n.StatusNumber)},
			{"Weight", fmt.Sprintf("%f", n.Weight)},
			{"Status Name", n.Status},
			{"Backend Status Name", n.PgStatus},
			{"Role", n.Role},
			{"Backend Role", n.PgRole},
			{"Replication Delay", n.delay(t.given("verbose"))},
			{"Replication State", orNone(n.ReplicationState)},
			{"Replication Sync State", orNone(n.ReplicationSyncState)},
			{"Last Status Change", n.Changed},
		})
	}
	if len(listed) == 0 {
		fmt.Fprint(t.out, "No node information available\n\n")
	}
	return nil
}

// delay is in bytes, or in seconds from servers that measure it so.
func (n jsonNode) delay(verbose bool) string {
	if n.DelayUnit == "bytes" {
		return fmt.Sprintf("%.0f", n.Delay)
	}
	text := fmt.Sprintf("%.6f", n.Delay)
	switch {
	case !verbose:
	case n.Delay >= 2:
		text += " seconds"
	default:
		text += " second"
	}
	return text
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// jsonHealth is a node's statistics as --json shows them.
type jsonHealth struct {
	NodeID          int     `json:"node_id"`
	Host            string  `json:"hostname"`
	Port            int     `json:"port"`
	Status          string  `json:"status"`
	Role            string  `json:"role"`
	LastChange      string  `json:"last_status_change"`
	Total           int64   `json:"total_count"`
	Success         int64   `json:"success_count"`
	Fail            int64   `json:"fail_count"`
	Skip            int64   `json:"skip_count"`
	Retry           int64   `json:"retry_count"`
	AverageRetry    float64 `json:"average_retry_count"`
	MaxRetry        int64   `json:"max_retry_count"`
	MaxDuration     int64   `json:"max_duration_ms"`
	MinDuration     int64   `json:"min_duration_ms"`
	AverageDuration float64 `json:"average_duration_ms"`
	LastCheck       string  `json:"last_health_check"`
	LastSuccess     string  `json:"last_successful_health_check"`
	LastSkip        string  `json:"last_skip_health_check"`
	LastFail        string  `json:"last_failed_health_check"`
}

func printHealthStats(t *pcpCall) error {
	h, err := t.client.HealthStats(t.node())
	if err != nil || t.asJSON(jsonHealth(h)) {
		return err
	}
	count := func(n int64) string { return strconv.FormatInt(n, 10) }
	t.record([]field{
		{"Node Id", strconv.Itoa(h.NodeID)},
		{"Host Name", h.Host},
		{"Port", strconv.Itoa(h.Port)},
		{"Status", h.Status},
		{"Role", h.Role},
		{"Last Status Change", h.LastChange},
		{"Total Count", count(h.Total)},
		{"Success Count", count(h.Success)},
		{"Fail Count", count(h.Fail)},
		{"Skip Count", count(h.Skip)},
		{"Retry Count", count(h.Retry)},
		{"Average Retry Count", fmt.Sprintf("%f", h.AverageRetry)},
		{"Max Retry Count", count(h.MaxRetry)},
		{"Max Health Check Duration", count(h.MaxDuration)},
		{"Minimum Health Check Duration", count(h.MinDuration)},
		{"Average Health Check Duration", fmt.Sprintf("%f", h.AverageDuration)},
		{"Last Health Check", h.LastCheck},
		{"Last Successful Health Check", h.LastSuccess},
		{"Last Skip Health Check", h.LastSkip},
		{"Last Failed Health Check", h.LastFail},
	})
	return nil
}

func printProcessIDs(t *pcpCall) error {
	pids, err := t.client.ProcessIDs()
	if err != nil {
		return err
	}
	if pids == nil {
		pids = []int{}
	}
	switch {
	case t.asJSON(map[string][]int{"process_ids": pids}):
	case len(pids) == 0:
		return t.succeeded(nil)
	case t.given("verbose"):
		fmt.Fprint(t.out, "No \t | \t PID\n_____________________\n")
		for i, pid := range pids {
			fmt.Fprintf(t.out, "%d \t | \t %d\n", i, pid)
		}
		fmt.Fprintf(t.out, "\nTotal Processes:%d\n", len(pids))
	default:
		for _, pid := range pids {
			fmt.Fprintf(t.out, "%d ", pid)
		}
		fmt.Fprintln(t.out)
	}
	return nil
}

// jsonProcess is a pooled connection as --json shows it; what the server's
// version does not tell is left out.
type jsonProcess struct {
	PID                int     `json:"pid"`
	Start              string  `json:"start_time"`
	ClientConnections  int64   `json:"client_connection_count"`
	PoolID             int     `json:"pool_id"`
	BackendID          int     `json:"backend_id"`
	Database           string  `json:"database"`
	User               string  `json:"username"`
	BackendConnected   string  `json:"backend_connection_time"`
	ClientConnected    string  `json:"client_connection_time"`
	ClientDisconnected string  `json:"client_disconnection_time"`
	Idle               string  `json:"client_idle_duration"`
	Major              int     `json:"major"`
	Minor              int     `json:"minor"`
	PoolCounter        int64   `json:"pool_counter"`
	BackendPID         int     `json:"backend_pid"`
	Connected          bool    `json:"connected"`
	Status             string  `json:"status"`
	LoadBalanceNode    *bool   `json:"load_balance_node,omitempty"`
	ClientHost         *string `json:"client_host,omitempty"`
	ClientPort         *string `json:"client_port,omitempty"`
	Statement          *string `json:"statement,omitempty"`
}

func printProcesses(t *pcpCall) error {
	rows, err := t.client.Processes(max(t.id, 0))
	if err != nil {
		return err
	}
	if len(rows) == 0 && !t.given("json") {
		return t.succeeded(nil)
	}
	listed := []jsonProcess{}
	for _, p := range rows {
		if p.Database == "" && !t.given("all") {
			continue
		}
		j := jsonProcess{
			p.PID, p.Start, p.ClientConnections, p.PoolID, p.BackendID, p.Database, p.User, p.BackendConnected,
			p.ClientConnected, p.ClientDisconnected, p.Idle, p.Major, p.Minor, p.PoolCounter, p.BackendPID,
			p.Connected, p.Status, nil, nil, nil, nil,
		}
		if p.Fields >= 18 {
			j.LoadBalanceNode = &p.LoadBalanceNode
		}
		if p.Fields >= 21 {
			j.ClientHost, j.ClientPort, j.Statement = &p.ClientHost, &p.ClientPort, &p.Statement
		}
		listed = append(listed, j)
	}
	if t.asJSON(listed) {
		return nil
	}
	for _, p := range listed {
		fields := []field{
			{"Database", p.Database},
			{"Username", p.User},
			{"Start time", p.Start},
			{"Client connection count", strconv.FormatInt(p.ClientConnections, 10)},
			{"Major", strconv.Itoa(p.Major)},
			{"Minor", strconv.Itoa(p.Minor)},
			{"Backend connection time", p.BackendConnected},
			{"Client connection time", p.ClientConnected},
			{"Client idle duration", p.Idle},
			{"Client disconnection time", p.ClientDisconnected},
			{"Pool Counter", strconv.FormatInt(p.PoolCounter, 10)},
			{"Backend PID", strconv.Itoa(p.BackendPID)},
			{"Connected", zeroOne(p.Connected)},
			{"PID", strconv.Itoa(p.PID)},
			{"Backend ID", strconv.Itoa(p.BackendID)},
			{"Status", p.Status},
		}
		if p.LoadBalanceNode != nil {
			fields = append(fields, field{"Load balance node", zeroOne(*p.LoadBalanceNode)})
		}
		if p.Statement != nil {
			fields = append(fields, field{"client_host", *p.ClientHost}, field{"client_port", *p.ClientPort}, field{"statement", *p.Statement})
		}
		t.record(fields)
	}
	if len(listed) == 0 {
		fmt.Fprint(t.out, "No process information available\n\n")
	}
	return nil
}

func zeroOne(v bool) string {
	if v {
		return "1"
	}
	return "0"
}

// jsonSetting is a setting as --json shows it.
type jsonSetting struct {
	Name        string `json:"name"`
	Value       string `json:"value"`
	Description string `json:"description"`
}

func printSettings(t *pcpCall) error {
	settings, err := t.client.Settings()
	if err != nil {
		return err
	}
	listed := []jsonSetting{}
	for _, s := range settings {
		listed = append(listed, jsonSetting(s))
	}
	if t.asJSON(listed) {
		return nil
	}
	if len(listed) == 0 {
		return t.succeeded(nil)
	}
	for i, s := range listed {
		if t.given("verbose") {
			fmt.Fprintf(t.out, "Name [%3d]:\t%s\nValue:      \t%s\nDescription:\t%s\n\n", i, s.Name, s.Value, s.Description)
		} else {
			fmt.Fprintf(t.out, "name : %s\nvalue: %s\ndesc : %s\n\n", s.Name, s.Value, s.Description)
		}
	}
	return nil
}

// jsonWatchdog is a watchdog cluster as --json shows it.
type jsonWatchdog struct {
	TotalNodes        int                `json:"total_nodes"`
	RemoteNodes       int                `json:"remote_nodes"`
	MemberRemoteNodes int                `json:"member_remote_nodes"`
	AliveRemoteNodes  int                `json:"alive_remote_nodes"`
	NodesForQuorum    int                `json:"nodes_required_for_quorum"`
	Quorum            string             `json:"quorum_state"`
	Escalated         bool               `json:"local_node_escalation"`
	LeaderName        string             `json:"leader_node_name"`
	LeaderHost        string             `json:"leader_host_name"`
	Nodes             []jsonWatchdogNode `json:"nodes"`
}

type jsonWatchdogNode struct {
	ID               int    `json:"id"`
	State            int    `json:"status_number"`
	Membership       int    `json:"membership_number"`
	MembershipString string `json:"membership_status"`
	Name             string `json:"node_name"`
	Host             string `json:"hostname"`
	StateName        string `json:"status"`
	DelegateIP       string `json:"delegate_ip"`
	WdPort           int    `json:"watchdog_port"`
	PgpoolPort       int    `json:"pgpool_port"`
	Priority         int    `json:"node_priority"`
	Lifecheck        *bool  `json:"lifecheck_started,omitempty"`
}

func printWatchdog(t *pcpCall) error {
	w, err := t.client.Watchdog(t.id)
	if err != nil {
		return err
	}
	j := jsonWatchdog{
		TotalNodes: w.RemoteNodes + 1, RemoteNodes: w.RemoteNodes, MemberRemoteNodes: w.MemberRemoteNodes,
		AliveRemoteNodes: w.AliveNodes, NodesForQuorum: w.NodesForQuorum, Quorum: quorumName(w.Quorum),
		Escalated: w.Escalated != 0, LeaderName: w.LeaderName, LeaderHost: w.LeaderHost,
		Nodes: []jsonWatchdogNode{},
	}
	for _, n := range w.Nodes {
		j.Nodes = append(j.Nodes, jsonWatchdogNode{
			n.ID, n.State, n.Membership, n.MembershipString, n.Name, n.Host, n.StateName, n.DelegateIP,
			n.WdPort, n.PgpoolPort, n.Priority, (*bool)(n.LifecheckStarted),
		})
	}
	switch {
	case t.asJSON(j):
	case t.given("verbose"):
		printWatchdogBlocks(t.out, j)
	default:
		fmt.Fprintf(t.out, "%d %d %s %s %s\n\n", j.TotalNodes, j.MemberRemoteNodes+1, yesNo(j.Escalated), j.LeaderName, j.LeaderHost)
		for _, n := range j.Nodes {
			fmt.Fprintf(t.out, "%s %s %d %d %d %s %d %s", n.Name, n.Host, n.PgpoolPort, n.WdPort, n.State, n.StateName, n.Membership, n.MembershipString)
			if n.Lifecheck != nil {
				fmt.Fprintf(t.out, " %s", yesNo(*n.Lifecheck))
			}
			fmt.Fprintln(t.out)
		}
	}
	return nil
}

func printWatchdogBlocks(out io.Writer, j jsonWatchdog) {
	fmt.Fprintln(out, "Watchdog Cluster Information ")
	block(out, ": ", []field{
		{"Total Nodes", strconv.Itoa(j.TotalNodes)},
		{"Remote Nodes", strconv.Itoa(j.RemoteNodes)},
		{"Member Remote Nodes", strconv.Itoa(j.MemberRemoteNodes)},
		{"Alive Remote Nodes", strconv.Itoa(j.AliveRemoteNodes)},
		{"Nodes required for quorum", strconv.Itoa(j.NodesForQuorum)},
		{"Quorum state", j.Quorum},
		{"Local node escalation", yesNo(j.Escalated)},
		{"Leader Node Name", j.LeaderName},
		{"Leader Host Name", j.LeaderHost},
	})
	fmt.Fprint(out, "\nWatchdog Node Information \n")
	for _, n := range j.Nodes {
		fields := []field{
			{"Node Name", n.Name},
			{"Host Name", n.Host},
			{"Delegate IP", n.DelegateIP},
			{"Pgpool port", strconv.Itoa(n.PgpoolPort)},
			{"Watchdog port", strconv.Itoa(n.WdPort)},
			{"Node priority", strconv.Itoa(n.Priority)},
			{"Status", strconv.Itoa(n.State)},
			{"Status Name", n.StateName},
			{"Membership Status", n.MembershipString},
		}
		if n.Lifecheck != nil {
			fields = append(fields, field{"Lifecheck Started", yesNo(*n.Lifecheck)})
		}
		block(out, " : ", fields)
		fmt.Fprintln(out)
	}
}

func quorumName(n int) string {
	switch n {
	case 1:
		return "QUORUM EXIST"
	case 0:
		return "QUORUM IS ON THE EDGE"
	case -1:
		return "QUORUM ABSENT"
	case -2:
		return "NO LEADER NODE"
	}
	return "UNKNOWN"
}

func yesNo(v bool) string {
	if v {
		return "YES"
	}
	return "NO"
}
