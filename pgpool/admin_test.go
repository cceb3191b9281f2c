package pgpool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgpool-go/pcp"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/testcluster"
)

// tools are the programs that speak to the administrative port: those of Debian's
// pgpool2 4.3.5, and ours.
type tools struct {
	*front
	dirs map[string]string // by whose they are
}

// output is what a program printed, and how it ended.
type output struct {
	stdout, stderr string
	exit           int
}

// pcpTools finds the original's tools and opens an account for them.
func (f *front) pcpTools() *tools {
	f.t.Helper()
	path, err := exec.LookPath("pcp_node_count")
	if err != nil {
		path = "/usr/sbin/pcp_node_count" // not in everybody's PATH
	}
	if _, err := os.Stat(path); err != nil {
		f.t.Fatalf("Debian's package pgpool2 is not installed: %v", err)
	}
	f.account("admin", "secret")
	return &tools{f, map[string]string{"original": filepath.Dir(path)}}
}

// build makes our own program and gives it the names of the original's tools.
func (p *tools) build() {
	p.t.Helper()
	dir := p.t.TempDir()
	program := filepath.Join(dir, "pgpool")
	if out, err := exec.CommandContext(p.t.Context(), "go", "build", "-o", program, "pgpool-go/tools/pgpool").CombinedOutput(); err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
	names, err := filepath.Glob(filepath.Join(p.dirs["original"], "pcp_*"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range names {
		if err := os.Symlink(program, filepath.Join(dir, filepath.Base(name))); err != nil {
			p.t.Fatal(err)
		}
	}
	p.dirs["ours"] = dir
}

// account is the only one of pcp.conf from now on.
func (f *front) account(user, password string) {
	f.t.Helper()
	line := user + ":" + pcp.HashPassword(password) + "\n"
	if err := os.WriteFile(filepath.Join(f.Dir, "pcp.conf"), []byte(line), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// as runs one tool as a user; command is its name without pcp_, and arguments.
func (p *tools) as(whose, user, password, command string) output {
	p.t.Helper()
	return p.at(whose, "127.0.0.1", user, password, command)
}

func (p *tools) at(whose, host, user, password, command string) output {
	p.t.Helper()
	pass := filepath.Join(p.Dir, "pcppass-"+whose)
	if err := os.WriteFile(pass, []byte("*:*:*:"+password+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	args := strings.Fields(command)
	cmd := exec.CommandContext(ctx, filepath.Join(p.dirs[whose], "pcp_"+args[0]),
		append([]string{"-w", "-h", host, "-p", strconv.Itoa(p.Pcp), "-U", user}, args[1:]...)...)
	cmd.Env = []string{"PCPPASSFILE=" + pass, "LC_ALL=C"}
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	var s output
	err := cmd.Run()
	if bad, ok := errors.AsType[*exec.ExitError](err); ok {
		err, s.exit = nil, bad.ExitCode()
	}
	if err != nil {
		p.t.Fatalf("%s: %v", command, err)
	}
	s.stdout, s.stderr = out.String(), words.String()
	return s
}

// run runs one of the original's tools, which shall end with exit code 0.
func (p *tools) run(command string) output {
	p.t.Helper()
	s := p.as("original", "admin", "secret", command)
	if s.exit != 0 {
		p.t.Fatalf("%s: exit %d\n%s%s", command, s.exit, s.stdout, s.stderr)
	}
	return s
}

// done runs a tool whose command shall be obeyed.
func (p *tools) done(command string) {
	p.t.Helper()
	name, _, _ := strings.Cut(command, " ")
	if s := p.run(command); s.stdout != "pcp_"+name+" -- Command Successful\n" || s.stderr != "" {
		p.t.Fatalf("%s: %s%s", command, s.stdout, s.stderr)
	}
}

// client is logged in at the administrative port.
func (f *front) client() *pcp.Client {
	f.t.Helper()
	c, err := pcp.Dial(f.t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.Pcp)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if err := c.Login("admin", "secret"); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// healthy waits until all nodes are up and all standbys are seen to stream.
func (f *front) healthy() {
	f.t.Helper()
	c := f.plain()
	c.must("select 1") // a node is up once a client has been served
	defer c.Close(f.t.Context())
	eventually(f.t, "all nodes up and streaming", func() bool {
		s := f.Server.Snapshot()
		return s.Primary == 0 && !slices.ContainsFunc(s.Nodes, func(n cluster.Node) bool {
			return n.Status != cluster.Up || n.PgStatus != "up" || n.ID != s.Primary && n.ReplicationState != "streaming"
		})
	})
}

// reads counts where so many reads of a client are run.
func (f *front) reads(c *plain, times int) map[int]int {
	f.t.Helper()
	count := make(map[int]int)
	for range times {
		count[f.node(c.must("select inet_server_port()"))]++
	}
	return count
}

const stamp = `\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`

// TestPcpListings puts the same questions with the original's tools and with
// ours: both must print the same, and what is the case.
func TestPcpListings(t *testing.T) {
	f := usual(t, "num_init_children = 4", "max_pool = 2", "backend_flag2 = 'DISALLOW_TO_FAILOVER'")
	f.healthy()
	p := f.pcpTools()
	p.build()
	c := f.plain()
	c.must("select 1")
	row := func(node int, weight, role, state string) string {
		return fmt.Sprintf(`127\.0\.0\.1 %d 2 %s up up %[3]s %[3]s \d+ %s %s`+"\n", f.Nodes[node].Port, weight, role, state, stamp)
	}
	for _, q := range []struct {
		command        string
		stdout, stderr string // what is to be matched whole
	}{
		{"node_count", "3\n", ""},
		{"node_count -v", "Node Count\n____________\n 3\n", ""},
		{"node_info", row(0, `0\.000000`, "primary", "none none") + row(1, `0\.500000`, "standby", "streaming async") + row(2, `0\.500000`, "standby", "streaming async"), ""},
		{"node_info 1", row(1, `0\.500000`, "standby", "streaming async"), ""},
		{"node_info -n 0", row(0, `0\.000000`, "primary", "none none"), ""},
		{"node_info -v 2", `Hostname               : 127\.0\.0\.1\nPort                   : \d+\nStatus                 : 2\n` +
			`Weight                 : 0\.500000\nStatus Name            : up\nBackend Status Name    : up\nRole                   : standby\n` +
			`Backend Role           : standby\nReplication Delay      : \d+\nReplication State      : streaming\n` +
			`Replication Sync State : async\nLast Status Change     : ` + stamp + `\n\n`, ""},
		{"node_info 3", "", "ERROR:  informing node info failed\nDETAIL:  invalid node ID : 3\n\n"},
		{"health_check_stats 1", fmt.Sprintf(`1 127\.0\.0\.1 %d up standby %s \d+ \d+ 0 0 0 0\.000000 0 \d+ \d+ \d+\.\d{6} %[2]s %[2]s  \n`, f.Nodes[1].Port, stamp), ""},
		{"health_check_stats 3", "", "ERROR:  informing health check stats info failed\nDETAIL:  stats data for node ID 3 does not exist\n\n"},
		{"health_check_stats 9", "", "ERROR:  informing health check stats info failed\nDETAIL:  invalid node ID 9\n\n"},
		{"proc_count", "1 2 3 4 \n", ""},
		{"proc_info 99", "", "ERROR:  informing process info failed\nDETAIL:  invalid process ID : 99\n\n"},
		{"pool_status", `(name : \S+\nvalue: .*\n\n?desc : .*\n\n){150,}`, ""},
		{"watchdog_info", "", "ERROR:  PCP: informing watchdog info failed\nDETAIL:  watchdog is not enabled\n\n"},
		{"attach_node 7", "pcp_attach_node -- Command Successful\n", ""},
		{"attach_node 1", "pcp_attach_node -- Command Successful\n", ""},
		{"detach_node 7", "", `ERROR:  invalid degenerate backend request, node id : 7 status: \[0\] is not valid for failover\n\n`},
		{"detach_node 2", "", `ERROR:  degenerate backend request for node_id: 2 from pid \[\d+\] is canceled because failover is disallowed on the node\n\n`},
		{"promote_node 0", "", "FATAL:  invalid promote request\nDETAIL:  specified node is already primary node, can't promote node id 0\n\n"},
		{"promote_node 7", "", "ERROR:  could not process promote request\nDETAIL:  node id 7 is not valid\n\n"},
		{"promote_node -s 1", "", "ERROR:  could not process promote request\nDETAIL:  neither failover_command nor failover_promote is set: nobody would promote it, nothing has been changed\n\n"},
		{"recovery_node 7", "", "ERROR:  process recovery request failed\nDETAIL:  node id 7 is not valid\n\n"},
		{"recovery_node 0", "", `ERROR:  process recovery request failed\nDETAIL:  primary server cannot be recovered by online recovery\.\n\n`},
		{"recovery_node 1", "", "ERROR:  node recovery failed, node id: 1 is alive\n\n"},
		{"reload_config", "pcp_reload_config -- Command Successful\n", ""},
		{"reload_config -s cluster", "pcp_reload_config -- Command Successful\n", ""},
	} {
		t.Run(q.command, func(t *testing.T) {
			for _, whose := range []string{"original", "ours"} {
				s := p.as(whose, "admin", "secret", q.command)
				if s.exit != 0 || !regexp.MustCompile("^"+q.stdout+"$").MatchString(s.stdout) || !regexp.MustCompile("^"+q.stderr+"$").MatchString(s.stderr) {
					t.Errorf("%s: exit %d\n%s%swant\n%s%s", whose, s.exit, s.stdout, s.stderr, q.stdout, q.stderr)
				}
			}
		})
	}
	for _, command := range []string{"pool_status -v", "proc_info", "proc_info -a", "proc_info -v -a", "proc_info 1", "proc_count -v", "node_info -a", "health_check_stats -v 0"} {
		t.Run(command+" alike", func(t *testing.T) {
			eventually(t, "both print the same", func() bool { // times and counts go on between the two
				theirs, ours := p.as("original", "admin", "secret", command), p.as("ours", "admin", "secret", command)
				return theirs == ours && theirs.stdout != "" && theirs.stderr == "" && theirs.exit == 0
			})
		})
	}
	t.Run("who is not let in", func(t *testing.T) {
		for _, who := range [][2]string{{"admin", "wrong"}, {"nobody", "secret"}} {
			for _, whose := range []string{"original", "ours"} {
				want := output{"", fmt.Sprintf("FATAL:  authentication failed for user \"%s\"\nDETAIL:  username and/or password does not match\n\n", who[0]), 1}
				if s := p.as(whose, who[0], who[1], "node_count"); s != want {
					t.Errorf("%s: %+v", whose, s)
				}
			}
		}
	})
	t.Run("over the socket", func(t *testing.T) {
		if s := p.at("original", f.Dir, "admin", "secret", "node_count"); s.stdout != "3\n" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("processes are what is open", func(t *testing.T) {
		rows, err := f.client().Processes(0)
		if err != nil {
			t.Fatal(err)
		}
		open := make(map[int]pcp.Process)
		for _, r := range rows {
			if r.Connected {
				open[r.BackendPID] = r
			}
		}
		if want := 4 * 2 * 3; len(rows) < want {
			t.Errorf("%d rows, want %d and more", len(rows), want)
		}
		main, err := strconv.Atoi(c.must("/*NO LOAD BALANCE*/ select pg_backend_pid()"))
		if err != nil {
			t.Fatal(err)
		}
		r, ok := open[main]
		if !ok || r.Database != "postgres" || r.User != testcluster.Superuser || r.BackendID != 0 || r.Status != "Idle" || r.Major != 3 || r.PID < 1 || r.PID > 4 {
			t.Errorf("the client's server process %d is shown as %+v (%v)", main, r, ok)
		}
	})
	t.Run("settings are alive", func(t *testing.T) {
		value := func(name string) string {
			rows, err := f.client().Settings()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				if r.Name == name {
					return r.Value
				}
			}
			t.Fatalf("%s is not listed", name)
			return ""
		}
		if got := value("backend_status1"); got != "up" {
			t.Errorf("backend_status1 is %q", got)
		}
		path := filepath.Join(f.Dir, "pgpool.conf")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write := func(more string) {
			if err := os.WriteFile(path, append(slices.Clone(text), more...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("client_idle_limit = 77\n")
		p.done("reload_config")
		if got := value("client_idle_limit"); got != "77" {
			t.Errorf("client_idle_limit is %q", got)
		}
		write("client_idle_limit = '1\n")
		if s := p.run("reload_config"); !strings.HasPrefix(s.stderr, "ERROR:  PCP: error while processing reload config request\nDETAIL:") {
			t.Errorf("reload of a broken file: %+v", s)
		}
		if got := value("client_idle_limit"); got != "77" {
			t.Errorf("client_idle_limit is %q after a reload that failed", got)
		}
		write("")
		p.done("reload_config")
	})
	t.Run("newer tools get what they expect", func(t *testing.T) {
		fields := func() (node, process int) {
			t.Helper()
			nodes, err := f.client().Nodes(1)
			if err != nil || len(nodes) != 1 || nodes[0].ReplicationState != "streaming" {
				t.Fatalf("%+v, %v", nodes, err)
			}
			rows, err := f.client().Processes(1)
			if err != nil || len(rows) == 0 {
				t.Fatal(rows, err)
			}
			return nodes[0].Fields, rows[0].Fields
		}
		if node, process := fields(); node != 12 || process != 17 {
			t.Errorf("%d and %d fields by default", node, process)
		}
		f.reload("pcp_layout = '4.8'")
		if node, process := fields(); node != 13 || process != 21 {
			t.Errorf("%d and %d fields for 4.8", node, process)
		}
		f.reload("pcp_layout = '4.3'")
	})
	t.Run("what only newer tools ask", func(t *testing.T) {
		for _, q := range []struct {
			ask             func(*pcp.Client) error
			message, detail string
		}{
			{func(c *pcp.Client) error { return c.RotateLog(pcp.Local) }, "process log rotation request failed", "logging_collector is disabled"},
			{(*pcp.Client).InvalidateQueryCache, "query cache is not enabled", ""},
		} {
			bad, ok := errors.AsType[*pcp.Error](q.ask(f.client()))
			if !ok || bad.Message != q.message || bad.Detail != q.detail {
				t.Errorf("%v, want %s: %s", bad, q.message, q.detail)
			}
		}
	})
	t.Run("accounts are read at each login", func(t *testing.T) {
		f.account("other", "new")
		if s := p.as("original", "other", "new", "node_count"); s.stdout != "3\n" {
			t.Errorf("%+v", s)
		}
		if s := p.as("original", "admin", "secret", "node_count"); s.exit != 1 {
			t.Errorf("%+v", s)
		}
		if err := os.Remove(filepath.Join(f.Dir, "pcp.conf")); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("FATAL:  failed to authenticate PCP user\nDETAIL:  could not open %s/pcp.conf. reason: No such file or directory\n\n", f.Dir)
		if s := p.as("original", "other", "new", "node_count"); s.stderr != want || s.exit != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestPcpDetachNode: a node that is detached is not used, and is used again when
// it has been attached.
func TestPcpDetachNode(t *testing.T) {
	f := usual(t, "num_init_children = 8", "recovery_timeout = 1")
	f.healthy()
	p := f.pcpTools()
	c := f.plain("application_name", "reader")
	if count := f.reads(c, 60); count[1] == 0 || count[2] == 0 {
		t.Fatalf("reads per node: %v", count)
	}
	state := func(node int) string {
		return strings.Fields(p.run("node_info " + strconv.Itoa(node)).stdout)[4]
	}

	t.Run("reads stop and resume", func(t *testing.T) {
		p.done("detach_node 1")
		if count := f.reads(c, 60); count[1] != 0 || count[2] == 0 {
			t.Errorf("reads per node: %v", count)
		}
		if idle := f.Server.Idle(); slices.ContainsFunc(idle, func(i backend.Idle) bool { return i.Node == 1 }) {
			t.Errorf("idle connections are left: %+v", idle)
		}
		eventually(t, "no connection of pgpool's clients is left", func() bool {
			return f.MustExec(1, "select count(*) from pg_stat_activity where application_name = 'reader'") == "0"
		})
		if got := state(1); got != "down" {
			t.Errorf("node 1 is %s", got)
		}
		if s := p.run("detach_node 1"); s.stderr != "ERROR:  invalid degenerate backend request, node id : 1 status: [3] is not valid for failover\n\n" {
			t.Errorf("%+v", s)
		}
		if s := p.run("promote_node 1"); s.stderr != "ERROR:  could not process promote request\nDETAIL:  node id 1 is down\n\n" {
			t.Errorf("%+v", s)
		}
		p.done("attach_node 1")
		if count := f.reads(c, 60); count[1] == 0 || count[2] == 0 {
			t.Errorf("reads per node: %v", count)
		}
		if got := state(1); got == "down" {
			t.Errorf("node 1 is %s", got)
		}
	})

	t.Run("a server that is down", func(t *testing.T) {
		f.Must(f.Nodes[1].Stop(testcluster.Fast))
		eventually(t, "node 1 down", func() bool { return state(1) == "down" })
		p.done("detach_node 1") // and stays out when it answers again
		f.Must(f.Nodes[1].Start())
		eventually(t, "node 1 answers", func() bool { return f.Server.Snapshot().Nodes[1].Reach == cluster.Reachable })
		if got := state(1); got != "down" {
			t.Errorf("node 1 is %s", got)
		}
		p.done("attach_node 1")
		if count := f.reads(c, 60); count[1] == 0 {
			t.Errorf("reads per node: %v", count)
		}
	})

	t.Run("gracefully", func(t *testing.T) {
		const refused = "ERROR:  could not process detach request\nDETAIL:  clients are still connected after recovery_timeout (1 seconds), nothing has been changed\n\n"
		if s := p.run("detach_node -g 1"); s.stderr != refused {
			t.Errorf("%+v", s)
		}
		if got := state(1); got == "down" {
			t.Error("node 1 is down although a client has stayed")
		}
		f.reload("recovery_timeout = 20")
		detached := make(chan error, 1)
		admin := f.client()
		go func() { detached <- admin.DetachNode(1, true) }()
		eventually(t, "the command is under way", f.Server.Held)
		used := make(chan bool, 1) // the node, by a client that came meanwhile
		go func() {
			late, err := pgx.Connect(t.Context(), f.URL(testcluster.Superuser, "postgres"))
			if err != nil {
				t.Error(err)
			} else {
				late.Close(t.Context())
			}
			used <- f.Server.Snapshot().Usable(1)
		}()
		if count := f.reads(c, 30); count[1] == 0 {
			t.Errorf("the node was detached before the client has left: %v", count)
		}
		c.Close(t.Context())
		if err := <-detached; err != nil {
			t.Error(err)
		}
		if <-used {
			t.Error("a new client was let in before the node was detached")
		}
		if count := f.reads(f.plain(), 30); count[1] != 0 {
			t.Errorf("reads per node: %v", count)
		}
	})
}

// TestPcpPromoteNode: without switchover pgpool's own view changes; once the
// server has been promoted it takes the writes.
func TestPcpPromoteNode(t *testing.T) {
	f := usual(t)
	f.healthy()
	p := f.pcpTools()
	p.done("promote_node 1")
	if s := f.Server.Snapshot(); s.Usable(0) || s.Primary == 0 {
		t.Errorf("primary %d, node 0 %v", s.Primary, s.Nodes[0].Status)
	}
	f.Must(f.Nodes[1].Promote())
	eventually(t, "node 1 is the primary", func() bool { return f.Server.Snapshot().Primary == 1 })
	if c := f.plain(); f.node(c.must("create table t (i int); select inet_server_port()")) != 1 {
		t.Error("written elsewhere")
	}
}

// TestPcpStop: the reply comes first, then the end, and nothing is left of the port.
func TestPcpStop(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{})
	begin := func(t *testing.T) (*tools, *plain, <-chan struct{}) {
		f := serve(t, c, backends(c, 1)...)
		client := f.plain()
		client.must("select 1")
		over := make(chan struct{})
		go func() { f.Server.Wait(); close(over) }()
		return f.pcpTools(), client, over
	}
	ended := func(t *testing.T, p *tools, over <-chan struct{}) {
		t.Helper()
		select {
		case <-over:
		case <-time.After(patience):
			t.Fatal("the server goes on")
		}
		if s := p.as("original", "admin", "secret", "node_count"); s.exit != 1 ||
			s.stderr != "ERROR: connection to host \"127.0.0.1\" failed with error \"Connection refused\"\n" {
			t.Errorf("the port is open: %+v", s)
		}
		if left, _ := filepath.Glob(filepath.Join(p.Dir, ".s.PGSQL.*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	t.Run("smart", func(t *testing.T) {
		p, client, over := begin(t)
		p.done("stop_pgpool")
		client.must("select 1")
		if s := p.run("node_count"); s.stdout != "1\n" {
			t.Errorf("the port is closed before the end: %+v", s)
		}
		client.Close(t.Context())
		ended(t, p, over)
	})
	for _, command := range []string{"stop_pgpool -m fast", "stop_pgpool -m immediate", "stop_pgpool -s cluster -m fast"} {
		t.Run(command, func(t *testing.T) {
			p, client, over := begin(t)
			p.done(command)
			ended(t, p, over)
			if _, err := client.run("select 1"); err == nil {
				t.Error("a client is still served")
			}
		})
	}
}

// TestPcpLog: the log tells what an operator has asked for, and with
// log_pcp_processes who came and went.
func TestPcpLog(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{})
	f := serve(t, c, append(backends(c, 1), "log_pcp_processes = on")...)
	p := f.pcpTools()
	p.done("attach_node 0")
	p.run("promote_node 0")
	p.run("node_info 5")
	p.as("original", "admin", "wrong", "node_count")
	for _, line := range []string{
		`pcp_child pid \d+: LOG:  new PCP connection from 127\.0\.0\.1:\d+\n`,
		`pcp_child pid \d+: LOG:  received failback request for node_id: 0 from pid \[\d+\]\n`,
		`pcp_child pid \d+: LOG:  PCP connection from 127\.0\.0\.1:\d+ ended\n.*DETAIL:  user "admin", 1 commands\n`,
		`LOG:  pcp_promote_node: promote option: n\n`,
		`LOG:  received promote backend request for node_id: 0 from pid \[\d+\]\n`,
		`ERROR:  informing node info failed\n.*DETAIL:  invalid node ID : 5\n`,
		`ERROR:  authentication failed for user "admin"\n.*DETAIL:  username and/or password does not match\n`,
	} {
		eventually(t, line, func() bool { return regexp.MustCompile(line).MatchString(f.Log.String()) })
	}
}
