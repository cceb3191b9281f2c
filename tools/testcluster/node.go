package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const patience = 60 * time.Second // for a server to start, stop, catch up

// Node is one server of a cluster. Its methods act on whatever postmaster runs
// in its data folder, also one that a script started. They may be called from
// several goroutines, but not two at once that start or stop the same node.
type Node struct {
	ID        int
	Name      string // "node0": its folder, application_name and slot
	Host      string
	Port      int
	DataDir   string
	SocketDir string // where its Unix socket is

	cluster *Cluster
	mu      sync.Mutex
	exited  chan struct{} // closed when the postmaster that we started has been waited for
}

// StopMode is how a server is asked to stop.
type StopMode syscall.Signal

// Smart waits for clients to leave, Fast ends their sessions, Immediate ends
// without a checkpoint, as a crash would.
const (
	Smart     = StopMode(syscall.SIGTERM)
	Fast      = StopMode(syscall.SIGINT)
	Immediate = StopMode(syscall.SIGQUIT)
)

// URL is where a driver connects as superuser over TCP.
func (n *Node) URL() string {
	who := url.User(Superuser)
	if pw := n.cluster.opts.Password; pw != "" {
		who = url.UserPassword(Superuser, pw)
	}
	u := url.URL{Scheme: "postgres", User: who, Host: fmt.Sprintf("%s:%d", n.Host, n.Port), Path: "/postgres", RawQuery: "sslmode=disable"}
	return u.String()
}

// Pid is the running postmaster's process id, 0 if there is none.
func (n *Node) Pid() int {
	pid, err := strconv.Atoi(n.pidFile(0))
	if err != nil || pid <= 0 || !alive(pid) {
		return 0
	}
	// A stale file may name another process by now.
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || !strings.HasPrefix(string(name), "post") {
		return 0
	}
	return pid
}

// pidFile is one line of postmaster.pid, "" if there is none.
func (n *Node) pidFile(line int) string {
	text, err := os.ReadFile(filepath.Join(n.DataDir, "postmaster.pid"))
	if err != nil {
		return ""
	}
	lines := strings.Split(string(text), "\n")
	if line >= len(lines) {
		return ""
	}
	return strings.TrimSpace(lines[line])
}

// Start starts the server and returns when it takes connections.
func (n *Node) Start() error { return n.start(context.Background()) }

// firstStart also picks the port, and picks another when somebody was faster.
func (n *Node) firstStart(ctx context.Context) error {
	if n.Port != 0 {
		return errors.Join(n.writeConf(), n.start(ctx))
	}
	for try := 1; ; try++ {
		port, err := FreePort()
		if err != nil {
			return err
		}
		n.Port = port
		if err := n.writeConf(); err != nil {
			return err
		}
		err = n.start(ctx)
		if !errors.As(err, new(*portTaken)) || try == 10 {
			return err
		}
	}
}

// portTaken is a start that failed because the port was in use.
type portTaken struct{ err error }

func (e *portTaken) Error() string { return e.err.Error() }
func (e *portTaken) Unwrap() error { return e.err }

func (n *Node) start(ctx context.Context) error {
	if n.Pid() != 0 {
		return nil
	}
	log, err := os.OpenFile(n.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	defer log.Close()
	if err := own(n.LogPath()); err != nil {
		return err
	}
	from, err := log.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	cmd, err := Command(context.WithoutCancel(ctx), filepath.Join(n.cluster.bin, "postgres"), "-D", n.DataDir)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("testcluster: start %s: %w", n.Name, err)
	}
	exited := make(chan struct{})
	n.mu.Lock()
	n.exited = exited
	n.mu.Unlock()
	go func() { // ends with the server, at the latest when the reaper comes
		defer close(exited)
		cmd.Wait() // how it ended is in its log
	}()
	err = within(patience, "start of "+n.Name, func() (bool, error) {
		select {
		case <-exited:
			return false, errors.New("testcluster: " + n.Name + " ended while starting")
		case <-ctx.Done():
			return false, context.Cause(ctx)
		default:
		}
		return n.pidFile(0) == strconv.Itoa(cmd.Process.Pid) && n.pidFile(7) == "ready", nil
	})
	if err == nil {
		return nil
	}
	text := n.logFrom(from)
	if n.cluster.opts.LogStatements {
		text += n.readFile(filepath.Join(n.logDir(), logName+".log"))
	}
	err = fmt.Errorf("%w\n%s", err, tail(text, 20))
	if strings.Contains(text, "could not bind") {
		return &portTaken{err}
	}
	return err
}

// Stop stops the server and returns when it is gone; a stopped server is fine.
func (n *Node) Stop(mode StopMode) error {
	pid := n.Pid()
	if pid == 0 {
		return nil
	}
	if err := signal(pid, syscall.Signal(mode)); err != nil {
		return err
	}
	if err := n.Resume(); err != nil {
		return err
	}
	return n.gone([]int{pid})
}

// Restart is Stop and Start.
func (n *Node) Restart(mode StopMode) error {
	if err := n.Stop(mode); err != nil {
		return err
	}
	return n.Start()
}

// Reload makes the running server read its configuration again.
func (n *Node) Reload() error {
	if pid := n.Pid(); pid != 0 {
		return signal(pid, syscall.SIGHUP)
	}
	return nil
}

// Kill ends the server and all its backends with SIGKILL, as when the machine
// goes away, and returns when they are gone. A later Start recovers from the crash.
func (n *Node) Kill() error {
	pids, err := n.freeze()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := signal(pid, syscall.SIGKILL); err != nil {
			return err
		}
	}
	return n.gone(pids)
}

// Pause stops the server and all its backends with SIGSTOP: they keep their
// sockets, the kernel still accepts connections for them, nobody answers.
func (n *Node) Pause() error {
	_, err := n.freeze()
	return err
}

// Resume lets a paused server run on.
func (n *Node) Resume() error {
	pid := n.Pid()
	if pid == 0 {
		return nil
	}
	for _, pid := range append(Descendants(pid), pid) {
		if err := signal(pid, syscall.SIGCONT); err != nil {
			return err
		}
	}
	return nil
}

// freeze stops the postmaster first, so that no new backend slips through.
func (n *Node) freeze() ([]int, error) {
	pid := n.Pid()
	if pid == 0 {
		return nil, nil
	}
	if err := signal(pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	err := within(patience, "stopping "+n.Name, func() (bool, error) { return stopped(pid) || !alive(pid), nil })
	if err != nil {
		return nil, err
	}
	pids := append([]int{pid}, Descendants(pid)...)
	for _, pid := range pids[1:] {
		if err := signal(pid, syscall.SIGSTOP); err != nil {
			return nil, err
		}
	}
	return pids, nil
}

// gone waits until none of the processes is left, ours waited for.
func (n *Node) gone(pids []int) error {
	err := within(patience, "end of "+n.Name, func() (bool, error) {
		for _, pid := range pids {
			if alive(pid) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	exited := n.exited
	n.mu.Unlock()
	if exited != nil && n.Pid() == 0 {
		<-exited
	}
	return nil
}

// Exec runs SQL as superuser in the database postgres and returns the rows as
// psql prints them unaligned: fields parted by '|', one row a line. Each
// statement is a transaction of its own; the first error ends it.
func (n *Node) Exec(sql string) (string, error) { return n.ExecIn("postgres", sql) }

// ExecIn is Exec in another database.
func (n *Node) ExecIn(database, sql string) (string, error) {
	psql, err := n.cluster.Program("psql")
	if err != nil {
		return "", err
	}
	out, err := run(context.Background(), sql, psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-",
		"-h", n.SocketDir, "-p", strconv.Itoa(n.Port), "-U", Superuser, "-d", database)
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.Name, err)
	}
	return out, nil
}

// forgetSharedMemory removes the System V segment that a killed server left.
func (n *Node) forgetSharedMemory() {
	fields := strings.Fields(n.pidFile(6))
	if len(fields) != 2 || n.Pid() != 0 {
		return
	}
	if id, err := strconv.Atoi(fields[1]); err == nil {
		syscall.Syscall(syscall.SYS_SHMCTL, uintptr(id), 0 /* IPC_RMID */, 0) // gone already is as good
	}
}
