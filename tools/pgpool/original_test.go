package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgpool-go/pcp"
	"pgpool-go/tools/testcluster"
)

// originalServer is Debian's pgpool 4.3.5 in front of a cluster, or ours with
// the same configuration.
type originalServer struct {
	t       *testing.T
	command func(args ...string) (*exec.Cmd, error)
	dir     string
	cluster *testcluster.Cluster
	port    int
	pcpPort int
	cmd     *exec.Cmd
	log     bytes.Buffer
}

// startOriginal starts it; lines are settings beyond the usual.
func startOriginal(t *testing.T, c *testcluster.Cluster, lines ...string) *originalServer {
	t.Helper()
	file := original(t, "pgpool") // found before the user changes
	return startServer(t, c, c.Dir, func(args ...string) (*exec.Cmd, error) {
		return testcluster.Command(context.Background(), file, args...)
	}, lines...)
}

// startOurs starts this program as pgpool.
func startOurs(t *testing.T, c *testcluster.Cluster, lines ...string) *originalServer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgpool-") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return startServer(t, c, dir, func(args ...string) (*exec.Cmd, error) {
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), asTool+"=pgpool", "GORACE=atexit_sleep_ms=0", "TZ=UTC")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd, nil
	}, lines...)
}

func startServer(t *testing.T, c *testcluster.Cluster, dir string, command func(args ...string) (*exec.Cmd, error), lines ...string) *originalServer {
	t.Helper()
	s := &originalServer{t: t, command: command, dir: dir, cluster: c}
	for _, port := range []*int{&s.port, &s.pcpPort} {
		var err error
		if *port, err = testcluster.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	conf := fmt.Sprintf(`backend_clustering_mode = 'streaming_replication'
listen_addresses = '127.0.0.1'
port = %d
pcp_listen_addresses = '127.0.0.1'
pcp_port = %d
socket_dir = '%[3]s'
pcp_socket_dir = '%[3]s'
logdir = '%[3]s'
pid_file_name = '%[3]s/pgpool.pid'
pool_passwd = ''
num_init_children = 3
max_pool = 2
child_life_time = 0
sr_check_period = 1
sr_check_user = 'postgres'
sr_check_database = 'postgres'
health_check_period = 1000
health_check_user = 'postgres'
recovery_user = 'postgres'
recovery_1st_stage_command = ''
failover_command = ''
`, s.port, s.pcpPort, dir)
	for i, n := range c.Nodes {
		conf += fmt.Sprintf("backend_hostname%[1]d = '%[2]s'\nbackend_port%[1]d = %[3]d\nbackend_weight%[1]d = %[4]d\nbackend_application_name%[1]d = '%[5]s'\n",
			i, n.Host, n.Port, 2*i+1, n.Name)
	}
	conf += strings.Join(lines, "\n") + "\n"
	for name, text := range map[string]string{
		"pgpool.conf":   conf,
		"pcp.conf":      "# comment\n\npcpadm:" + pcp.HashPassword("secret") + "\n",
		"pool_hba.conf": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(s.stop)
	s.start()
	return s
}

// start starts the server and waits until it answers.
func (s *originalServer) start() {
	s.t.Helper()
	cmd, err := s.command("-n", "-D", "-f", filepath.Join(s.dir, "pgpool.conf"), "-F", filepath.Join(s.dir, "pcp.conf"), "-a", filepath.Join(s.dir, "pool_hba.conf"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stderr = &s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = cmd
	s.await("an answer", func(nodes []pcp.Node) bool {
		return len(nodes) == len(s.cluster.Nodes) && nodes[0].Role == pcp.Primary && nodes[0].PgRole == "primary"
	})
}

// stop ends the server, if it has not ended, and waits for it.
func (s *originalServer) stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGQUIT)
	s.ended()
	if s.t.Failed() {
		words := s.log.String()
		s.t.Logf("last words of the original:\n%s", words[max(0, len(words)-3000):])
	}
}

// ended waits for the server's end, by force if it takes too long.
func (s *originalServer) ended() {
	group := -s.cmd.Process.Pid
	timer := time.AfterFunc(20*time.Second, func() { syscall.Kill(group, syscall.SIGKILL) })
	s.cmd.Wait()
	timer.Stop()
	s.cmd = nil
}

// nodes asks with the client of this house.
func (s *originalServer) nodes() ([]pcp.Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := pcp.Dial(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(s.pcpPort))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if err := c.Login("pcpadm", "secret"); err != nil {
		return nil, err
	}
	return c.Nodes(pcp.All)
}

// await asks for the nodes until they are as wanted.
func (s *originalServer) await(what string, ok func([]pcp.Node) bool) {
	s.t.Helper()
	var nodes []pcp.Node
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if nodes, err = s.nodes(); err == nil && ok(nodes) {
			return
		}
	}
	s.t.Fatalf("no %s: %+v, %v\n%s", what, nodes, err, s.log.String())
}

func status(node int, want pcp.NodeStatus) func([]pcp.Node) bool {
	return func(nodes []pcp.Node) bool { return nodes[node].Status == want }
}

// pcpPlace is where pcp tools run: with a password file.
func pcpPlace(t testing.TB, line string) place {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "pcppass")
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return place{dir: dir, env: []string{"PCPPASSFILE=" + file}}
}

// args are those of a command line, with where to find the server.
func (s *originalServer) args(line string) (tool string, args []string) {
	words := strings.Fields(line)
	return words[0], append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(s.pcpPort), "-U", "pcpadm", "-w"}, words[1:]...)
}

// TestAgainstOriginalServer runs Debian's tools and ours against Debian's server
// and wants the same output and exit code.
func TestAgainstOriginalServer(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	s := startOriginal(t, c)
	p := pcpPlace(t, "*:*:pcpadm:secret")

	t.Run("questions", func(t *testing.T) {
		for _, line := range []string{
			"pcp_node_count", "pcp_node_count -v", "pcp_node_count -d", "pcp_node_count x",
			"pcp_node_info", "pcp_node_info -a", "pcp_node_info -v", "pcp_node_info -d", "pcp_node_info -n 0", "pcp_node_info 1", "pcp_node_info -v 1",
			"pcp_node_info 7", "pcp_node_info -n 128", "pcp_node_info -n abc", "pcp_node_info -d 9",
			"pcp_proc_count", "pcp_proc_count -v", "pcp_proc_count -d",
			"pcp_proc_info", "pcp_proc_info -a", "pcp_proc_info -a -v", "pcp_proc_info -d", "pcp_proc_info -P 1", "pcp_proc_info 999999", "pcp_proc_info -v",
			"pcp_pool_status", "pcp_pool_status -v", "pcp_pool_status -d",
			"pcp_health_check_stats 0", "pcp_health_check_stats -v 1", "pcp_health_check_stats -d 1", "pcp_health_check_stats 2", "pcp_health_check_stats -n 9",
			"pcp_watchdog_info", "pcp_watchdog_info -v", "pcp_watchdog_info -n 0", "pcp_watchdog_info -d",
			"pcp_attach_node 1", "pcp_attach_node -d 1", "pcp_attach_node -n 128", "pcp_attach_node 128 -d",
			"pcp_detach_node 7", "pcp_detach_node -n 128", "pcp_detach_node -g 7", "pcp_detach_node -d 7",
			"pcp_promote_node 0", "pcp_promote_node 7", "pcp_promote_node -d 0", "pcp_promote_node -s 0", "pcp_promote_node -g -s 0",
			"pcp_recovery_node 0", "pcp_recovery_node 1", "pcp_recovery_node 7", "pcp_recovery_node -d 1",
			"pcp_reload_config", "pcp_reload_config -s cluster", "pcp_reload_config -d --scope=l",
		} {
			t.Run(line, func(t *testing.T) {
				tool, args := s.args(line)
				// What may tick between two questions is asked for again.
				got, want := p.ours(t, tool, args...), p.theirs(t, tool, args...)
				for range 3 {
					if got == want {
						return
					}
					got, want = p.ours(t, tool, args...), p.theirs(t, tool, args...)
				}
				same(t, got, want)
			})
		}
	})

	t.Run("login", func(t *testing.T) {
		port := strconv.Itoa(s.pcpPort)
		tcp, socket := "-h 127.0.0.1 -p "+port, "-h "+c.Dir+" -p "+port
		for _, l := range []struct{ pass, args string }{
			{"*:*:*:secret", tcp + " -U pcpadm -w"},
			{"*:*:*:wrong", tcp + " -U pcpadm -w"},
			{"*:*:*:wrong", tcp + " -U pcpadm -w -d"},
			{"*:*:*:secret", tcp + " -U nosuch -w"},
			{"*:*:*:secret", tcp + " -w"}, // as the operating system's user
			{"", tcp + " -U pcpadm -w"},
			{"*:*:*:secret", tcp + " -U pcpadm"}, // asked for, and nothing typed
			{"*:*:*:secret", socket + " -U pcpadm -w"},
			{"localhost:*:*:secret", socket + " -U pcpadm -w"},
			{c.Dir + ":*:*:secret", socket + " -U pcpadm -w"},
			{"localhost:*:*:secret", tcp + " -U pcpadm -w"},
			{"127.0.0.1:" + port + ":pcpadm:secret", tcp + " -U pcpadm -w"},
			{"127.0.0.1:1:pcpadm:wrong\n127.0.0.1:*:pcpadm:secret", tcp + " -U pcpadm -w"},
			{"*:*:*:wrong\n*:*:*:secret", tcp + " -U pcpadm -w"},
			{`127.0.0.1:*:pc\padm:sec\ret:junk`, tcp + " -U pcpadm -w"},
		} {
			t.Run(l.pass+" "+l.args, func(t *testing.T) {
				p := pcpPlace(t, l.pass)
				args := strings.Fields(l.args)
				same(t, p.ours(t, "pcp_node_count", args...), p.theirs(t, "pcp_node_count", args...))
			})
		}
		t.Run("typed", func(t *testing.T) {
			p := pcpPlace(t, "")
			p.stdin = "secret\n"
			args := strings.Fields(tcp + " -U pcpadm")
			same(t, p.ours(t, "pcp_node_count", args...), p.theirs(t, "pcp_node_count", args...))
		})
		t.Run("file others may read", func(t *testing.T) {
			p := pcpPlace(t, "*:*:*:secret")
			if err := os.Chmod(filepath.Join(p.dir, "pcppass"), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{strings.Fields(tcp + " -U pcpadm -w"), strings.Fields(tcp + " -U pcpadm -w -d")} {
				same(t, p.ours(t, "pcp_node_count", args...), p.theirs(t, "pcp_node_count", args...))
			}
		})
	})

	t.Run("stop", func(t *testing.T) {
		for _, line := range []string{"pcp_stop_pgpool", "pcp_stop_pgpool -m fast", "pcp_stop_pgpool -d -m i -s cluster"} {
			t.Run(line, func(t *testing.T) {
				tool, args := s.args(line)
				want := p.theirs(t, tool, args...)
				s.ended()
				s.start()
				got := p.ours(t, tool, args...)
				s.ended()
				same(t, got, want)
				same(t, p.ours(t, tool, args...), p.theirs(t, tool, args...)) // nobody there
				s.start()
			})
		}
	})
}

// TestChangesOfOriginal: commands that change something, each given to a fresh
// server by Debian's tool and then by ours.
func TestChangesOfOriginal(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	p := pcpPlace(t, "*:*:pcpadm:secret")
	down, waiting := status(1, pcp.Down), status(1, pcp.Waiting)
	promoted := func(nodes []pcp.Node) bool { return nodes[1].Role == pcp.Primary }
	for _, change := range []struct {
		name     string
		detached bool // node 1 is down to begin with
		lines    string
		wait     func([]pcp.Node) bool
	}{
		{"detach", false, "pcp_detach_node 1", down},
		{"detach gracefully", false, "pcp_detach_node -d -g -n 1", down},
		{"attach", true, "pcp_attach_node -n 1", waiting},
		{"refused while down", true, "pcp_detach_node 1,pcp_node_info,pcp_promote_node -s 1,pcp_recovery_node 1,pcp_recovery_node -d 1", down},
		{"promote", false, "pcp_promote_node 1", promoted},
		{"promote gracefully", false, "pcp_promote_node -g -n 1 -d", promoted},
	} {
		t.Run(change.name, func(t *testing.T) {
			var both [2][]said
			for i, run := range []func(testing.TB, string, ...string) said{p.theirs, p.ours} {
				s := startOriginal(t, c)
				if change.detached {
					tool, args := s.args("pcp_detach_node 1")
					p.theirs(t, tool, args...)
					s.await("detached node", down)
				}
				for line := range strings.SplitSeq(change.lines, ",") {
					tool, args := s.args(line)
					both[i] = append(both[i], run(t, tool, args...))
				}
				s.await("change", change.wait)
				s.stop()
			}
			for i := range both[0] {
				same(t, timeless(both[1][i]), timeless(both[0][i]))
			}
		})
	}
}

var clockTime = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}`)

// timeless blots out times.
func timeless(s said) said {
	s.stdout = clockTime.ReplaceAllString(s.stdout, "TIME")
	return s
}
