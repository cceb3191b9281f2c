package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgpool-go/tools/testcluster"
)

// site is a configuration of a server whose only node is down, and where to
// find it.
type site struct {
	place
	port int
	args []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{place: place{dir: t.TempDir()}}
	var ports [3]int
	for i := range ports {
		var err error
		if ports[i], err = testcluster.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	s.port = ports[0]
	text := fmt.Sprintf(`listen_addresses = '127.0.0.1'
port = %d
pcp_listen_addresses = '127.0.0.1'
pcp_port = %d
unix_socket_directories = '%[3]s'
pcp_socket_dir = '%[3]s'
work_dir = '%[3]s'
pid_file_name = 'pgpool.pid'
pool_passwd = ''
num_init_children = 4
backend_hostname0 = '127.0.0.1'
backend_port0 = %[4]d
`, ports[0], ports[1], s.dir, ports[2])
	for name, text := range map[string]string{"pgpool.conf": text, "pcp.conf": "", "pool_hba.conf": ""} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.args = []string{"-f", "pgpool.conf", "-F", "pcp.conf", "-a", "pool_hba.conf"}
	return s
}

func (s *site) pgpool(t *testing.T, args ...string) said {
	t.Helper()
	return s.ours(t, "pgpool", append(append([]string{}, s.args...), args...)...)
}

func (s *site) pidFile() string { return filepath.Join(s.dir, "pgpool.pid") }

// pid is what the pid file holds, 0 if there is none. A server that is still
// there when the test ends is killed.
func (s *site) pid(t *testing.T) int {
	t.Helper()
	pid, err := readPid(s.pidFile())
	if err != nil {
		return 0
	}
	t.Cleanup(func() {
		if running(pid) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return pid
}

func (s *site) answers() bool {
	nc, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(s.port), time.Second)
	if err != nil {
		return false
	}
	nc.Close()
	return true
}

func TestDaemon(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	s := newSite(t)
	if got := s.pgpool(t); got.exit != 0 { // returns although the daemon lives: nothing of ours is kept open
		t.Fatalf("start: %+v", got)
	}
	pid := s.pid(t)
	text, _ := os.ReadFile(s.pidFile())
	info, err := os.Stat(s.pidFile())
	if err != nil || string(text) != strconv.Itoa(pid)+"\x00" || info.Mode().Perm() != 0o600 {
		t.Fatalf("pid file: %q, %v, %v", text, info, err)
	}
	if !s.answers() {
		t.Error("does not serve when the starter has ended")
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if fields := strings.Fields(string(stat)); fields[1] != "(pgpool)" || fields[5] != strconv.Itoa(pid) {
		t.Errorf("name and session: %s", stat)
	}
	for fd := range 3 {
		if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); to != os.DevNull {
			t.Errorf("descriptor %d is %s", fd, to)
		}
	}

	for _, n := range []string{"-d", "-n"} {
		got := s.pgpool(t, n)
		same(t, got, said{stderr: fmt.Sprintf("ERROR: pid file found. is another pgpool(%d) is running?\n", pid), exit: 1})
	}
	same(t, s.pgpool(t, "reload"), said{})
	if !s.answers() {
		t.Error("gone after reload")
	}

	got := s.pgpool(t, "-mf", "stop")
	if got.exit != 0 || got.stdout != "" || !strings.Contains(got.stderr, fmt.Sprintf("LOG:  stop request sent to pgpool (pid: %d). waiting for termination...\n.", pid)) || !strings.HasSuffix(got.stderr, ".done.\n") {
		t.Errorf("stop: %+v", got)
	}
	if running(pid) || s.pid(t) != 0 || s.answers() {
		t.Error("still there after stop")
	}
}

func TestPidFile(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	s := newSite(t)
	check := func(what string, got said, exit int, words ...string) {
		t.Helper()
		if got.exit != exit || got.stdout != "" {
			t.Errorf("%s: %+v", what, got)
		}
		for _, w := range words {
			if !strings.Contains(got.stderr, w) {
				t.Errorf("%s: %q is missing in %q", what, w, got.stderr)
			}
		}
	}
	check("stop without file", s.pgpool(t, "stop"), 3, "FATAL:  could not read pid file\n")
	check("reload without file", s.pgpool(t, "reload"), 1, "FATAL:  could not read pid file\n")
	write := func(text string) {
		if err := os.WriteFile(s.pidFile(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	check("stop, empty file", s.pgpool(t, "stop"), 3, "FATAL:  EOF detected while reading pid file \""+s.pidFile()+"\"\n", "DETAIL:  Success\n")
	check("reload, empty file", s.pgpool(t, "reload"), 3, "FATAL:  EOF detected while reading pid file")
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dead := gone.Process.Pid
	write(strconv.Itoa(dead) + "\x00")
	check("stop, stale pid", s.pgpool(t, "stop"), 3, fmt.Sprintf("FATAL:  could not stop process with pid: %d\n", dead), "DETAIL:  No such process\n")
	check("reload, stale pid", s.pgpool(t, "reload"), 1, fmt.Sprintf("FATAL:  could not reload configuration file pid: %d\n", dead), "DETAIL:  No such process\n")
	for _, bad := range []string{"-1", "0", "junk"} {
		write(bad)
		check("stop, "+bad, s.pgpool(t, "stop"), 3, "FATAL:  could not read pid file\n")
	}
	write(strconv.Itoa(dead) + "\x00")
	check("start, stale pid", s.pgpool(t), 0, "NOTICE: pid file found but it seems bogus. Trying to start pgpool anyway...\n")
	s.pid(t)
	check("stop", s.pgpool(t, "-m", "immediate", "stop"), 0, ".done.\n")
}

func TestStartThatFails(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	s := newSite(t)
	ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, args := range [][]string{nil, {"-n"}} {
		got := s.pgpool(t, args...)
		if got.exit != 3 || !strings.Contains(got.stderr, "FATAL:  ") || !strings.Contains(got.stderr, "address already in use") {
			t.Errorf("%q: %+v", args, got)
		}
		if s.pid(t) != 0 {
			t.Error("pid file is left")
		}
	}

	conf := filepath.Join(s.dir, "pgpool.conf")
	if err := os.WriteFile(conf, []byte("port = banana\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"-n"}, {"stop"}, {"reload"}} {
		got := s.pgpool(t, args...)
		if got.exit != 3 || !strings.Contains(got.stderr, "FATAL:  ") || !strings.Contains(got.stderr, "banana") {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

// foreground starts a server with -n and waits until systemd would know it as ready.
func (s *site) foreground(t *testing.T) (cmd *exec.Cmd, said func() string) {
	t.Helper()
	socket := filepath.Join(s.dir, "notify")
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self, append(append([]string{}, s.args...), "-n")...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), asTool+"=pgpool", "GORACE=atexit_sleep_ms=0", "NOTIFY_SOCKET="+socket)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	said = func() string {
		b := make([]byte, 1000)
		nc.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := nc.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got, want := said(), fmt.Sprintf("READY=1\nMAINPID=%d", cmd.Process.Pid); got != want {
		t.Fatalf("systemd is told %q, want %q", got, want)
	}
	return cmd, said
}

// waitFor waits for the end of a server, by force if it takes too long.
func waitFor(cmd *exec.Cmd) error {
	defer time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() }).Stop()
	return cmd.Wait()
}

func TestSignals(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			s := newSite(t)
			cmd, said := s.foreground(t)
			if pid := s.pid(t); pid != cmd.Process.Pid || !s.answers() {
				t.Errorf("pid %d, want %d", pid, cmd.Process.Pid)
			}
			for _, harmless := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGPIPE} {
				cmd.Process.Signal(harmless)
			}
			cmd.Process.Signal(syscall.SIGHUP)
			if got := said(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
				t.Errorf("systemd is told %q", got)
			}
			if got := said(); !strings.HasPrefix(got, "READY=1\n") {
				t.Errorf("systemd is told %q", got)
			}
			cmd.Process.Signal(sig)
			if got := said(); got != "STOPPING=1" {
				t.Errorf("systemd is told %q", got)
			}
			if err := waitFor(cmd); err != nil {
				t.Error(err)
			}
			if s.pid(t) != 0 || s.answers() {
				t.Error("still there")
			}
		})
	}
}

// TestPatience: a smart shutdown waits for a client; a fast one after it does not.
func TestPatience(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	s := newSite(t)
	cmd, said := s.foreground(t)
	nc, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}) // asks for TLS, and is answered: it is being served
	if _, err := nc.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if got := said(); got != "STOPPING=1" {
		t.Errorf("systemd is told %q", got)
	}
	ended := make(chan error, 1)
	go func() { ended <- waitFor(cmd) }()
	select {
	case err := <-ended:
		t.Fatalf("did not wait for the client: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	cmd.Process.Signal(syscall.SIGINT)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
