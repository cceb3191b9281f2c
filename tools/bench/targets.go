package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgpool-go/tools/testcluster"
)

const patience = 30 * time.Second

// kinds are the things to be measured, in the order of the table.
var kinds = []struct {
	name  string
	start func(b *bench, ctx context.Context, t *target) error
}{
	{"direct", (*bench).startDirect},
	{"pgbouncer", (*bench).startPgbouncer},
	{"original", func(b *bench, ctx context.Context, t *target) error { return b.startPgpool(ctx, t, b.original, false) }},
	{"original-lb", func(b *bench, ctx context.Context, t *target) error { return b.startPgpool(ctx, t, b.original, true) }},
	{"pgpool-go", func(b *bench, ctx context.Context, t *target) error { return b.startPgpool(ctx, t, b.pgpool, false) }},
	{"pgpool-go-lb", func(b *bench, ctx context.Context, t *target) error { return b.startPgpool(ctx, t, b.pgpool, true) }},
}

// errNotBuilt is a program of ours that is not there yet.
var errNotBuilt = errors.New("not built")

func targetNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

func checkTargets(names []string) error {
	for _, name := range names {
		if !slices.Contains(targetNames(), name) {
			return fmt.Errorf("no target %q, only %s", name, strings.Join(targetNames(), " "))
		}
	}
	return nil
}

// target is a port that answers as PostgreSQL does.
type target struct {
	name   string
	port   int
	cmd    *exec.Cmd // nil: no proxy
	exited chan struct{}
	log    string
}

// start starts the chosen targets. Those of ours are left out, loudly, if the
// program has not been built; others that are missing end the run.
func (b *bench) start(ctx context.Context, progress io.Writer) ([]*target, error) {
	var started []*target
	for _, kind := range kinds {
		if !slices.Contains(b.targets, kind.name) {
			continue
		}
		t := &target{name: kind.name, log: filepath.Join(b.cluster.Dir, kind.name+".log")}
		err := kind.start(b, ctx, t)
		if errors.Is(err, errNotBuilt) {
			fmt.Fprintf(progress, "\n!!! %s IS LEFT OUT: there is no %s (make build)\n\n", strings.ToUpper(kind.name), b.pgpool)
			continue
		}
		started = append(started, t) // also what failed may run and must be stopped
		if err != nil {
			return started, fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	return started, nil
}

// startDirect has nothing to start: the port is the primary's own.
func (b *bench) startDirect(_ context.Context, t *target) error {
	t.port = b.cluster.Nodes[0].Port
	return nil
}

func (b *bench) startPgbouncer(ctx context.Context, t *target) error {
	if !found(b.pgbouncer) {
		return fmt.Errorf("%s is missing; install Debian's package pgbouncer (make testdeps)", b.pgbouncer)
	}
	n := b.cluster.Nodes[0]
	users, err := b.cluster.WriteFile("pgbouncer.users", fmt.Sprintf("%q \"\"\n", testcluster.Superuser), 0o644)
	if err != nil {
		return err
	}
	return b.launch(ctx, t, true, b.pgbouncer, func(port int) ([]string, error) {
		ini, err := b.cluster.WriteFile("pgbouncer.ini", fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = session
max_client_conn = %d
default_pool_size = %d
log_connections = 0
log_disconnections = 0
`, n.Host, n.Port, port, users, 10*b.clients+100, b.clients+8), 0o644)
		return []string{ini}, err
	})
}

// startPgpool starts the original or ours with the same configuration.
func (b *bench) startPgpool(ctx context.Context, t *target, program string, balance bool) error {
	if !found(program) {
		if program == b.pgpool {
			return errNotBuilt
		}
		return fmt.Errorf("%s is missing; install Debian's package pgpool2 (make testdeps)", program)
	}
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.cluster.Dir, t.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return b.launch(ctx, t, false, program, func(port int) ([]string, error) {
		pcpPort, err := testcluster.FreePort()
		if err != nil {
			return nil, err
		}
		conf, err := b.cluster.WriteFile(filepath.Join(t.name, "pgpool.conf"), b.pgpoolConf(dir, port, pcpPort, balance), 0o644)
		return []string{"-n", "-f", conf}, err
	})
}

func (b *bench) pgpoolConf(dir string, port, pcpPort int, balance bool) string {
	var text strings.Builder
	fmt.Fprintf(&text, `backend_clustering_mode = 'streaming_replication'
listen_addresses = 'localhost'
port = %d
unix_socket_directories = '%[3]s'
socket_dir = '%[3]s'
pcp_listen_addresses = 'localhost'
pcp_port = %[2]d
pcp_socket_dir = '%[3]s'
wd_ipc_socket_dir = '%[3]s'
pid_file_name = 'pgpool.pid'
logdir = '%[3]s'
num_init_children = %[4]d
max_pool = 1
child_life_time = 0
sr_check_user = '%[5]s'
sr_check_database = 'postgres'
load_balance_mode = %[6]t
statement_level_load_balance = off
`, port, pcpPort, dir, b.clients+8, testcluster.Superuser, balance)
	for i, n := range b.cluster.Nodes {
		fmt.Fprintf(&text, "backend_hostname%d = '%s'\nbackend_port%[1]d = %[3]d\nbackend_weight%[1]d = 1\n", i, n.Host, n.Port)
	}
	return text.String()
}

// launch starts a proxy on a free port and waits until a query comes through.
// Unprivileged is for programs that refuse to run as root.
func (b *bench) launch(ctx context.Context, t *target, unprivileged bool, program string, args func(port int) ([]string, error)) error {
	port, err := testcluster.FreePort()
	if err != nil {
		return err
	}
	words, err := args(port)
	if err != nil {
		return err
	}
	cmd, err := testcluster.Command(context.WithoutCancel(ctx), program, words...)
	if err != nil {
		return err
	}
	if !unprivileged {
		cmd.SysProcAttr.Credential = nil // our own program may lie where only we can reach it
	}
	log, err := os.Create(t.log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	t.cmd, t.port, t.exited = cmd, port, make(chan struct{})
	go func() {
		defer close(t.exited)
		cmd.Wait() // how it ended is in ProcessState
	}()
	return b.ready(ctx, t)
}

// ready waits until pgbench's tables can be read through the target.
func (b *bench) ready(ctx context.Context, t *target) error {
	psql, err := b.cluster.Program("psql")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	var words []byte
	for {
		cmd, err := testcluster.Command(ctx, psql, "-XAtqw", "-h", "127.0.0.1", "-p", strconv.Itoa(t.port), "-U", testcluster.Superuser,
			"-c", "select count(*) from pgbench_branches", database)
		if err != nil {
			return err
		}
		if words, err = cmd.CombinedOutput(); err == nil {
			return nil
		}
		select {
		case <-retry.C:
		case <-t.exited:
			return fmt.Errorf("ended by itself (%s)\n%s", t.cmd.ProcessState, t.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%w: %s\n%s", context.Cause(ctx), words, t.lastWords())
		}
	}
}

func (t *target) lastWords() string {
	text, err := os.ReadFile(t.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

func (t *target) stop() {
	if t.cmd == nil {
		return
	}
	t.cmd.Process.Signal(syscall.SIGINT) // an error means that it has ended
	select {
	case <-t.exited:
	case <-time.After(patience / 3):
		t.cmd.Process.Kill() // its children, if any, are testcluster's to sweep up
		<-t.exited
	}
}
