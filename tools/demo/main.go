// Command demo shows pgpool-go at work: it starts a primary and two streaming
// standbys of real PostgreSQL with pgpool in front, prints a psql line to
// paste, and waits. Ctrl-C stops and removes all of it.
//
// It knows the three and how they are joined; how servers are made is
// testcluster's, what pgpool does with them pgpool's. What the demo should
// show is set in conf below.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgpool-go/tools/testcluster"
)

const (
	usualPort = 9999
	standbys  = 2
	patience  = 30 * time.Second
)

func main() {
	program := flag.String("pgpool", "bin/pgpool", "the pgpool program")
	port := flag.Int("port", 0, "port to listen on (default 9999 if it is free)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, *program, *port, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run shows the demo until ctx ends or pgpool does.
func run(ctx context.Context, program string, port int, out io.Writer) (err error) {
	program, err = filepath.Abs(program)
	if err != nil {
		return err
	}
	if port, err = listenPort(port); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, testcluster.CleanUp()) }()
	fmt.Fprintln(out, "Starting a primary and two streaming standbys ...")
	c, err := testcluster.Start(ctx, testcluster.Options{Standbys: standbys})
	if ctx.Err() != nil {
		return nil // Ctrl-C while it still started is no fault
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	pool, err := startPgpool(c, program, port)
	if err != nil {
		return err
	}
	defer pool.stop()
	psql, err := c.Program("psql")
	if err != nil {
		return err
	}
	if err := pool.ready(ctx, psql); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if _, err := exec.LookPath("psql"); err == nil {
		psql = "psql"
	}
	fmt.Fprintf(out, `
pgpool listens on port %d, in front of a primary (node 0) and two standbys.
Paste this into another terminal:

    %s -h 127.0.0.1 -p %d -U %s postgres

and try there:

    SHOW POOL_NODES;                 -- who is who, and select_cnt: reads per node
    CREATE TABLE t AS SELECT 1 AS i; -- writes go to the primary
    SELECT inet_server_port(), * FROM t \watch 1

The configuration is in %s,
the log in %s.
Ctrl-C stops everything and leaves nothing behind.
`, port, psql, port, testcluster.Superuser, pool.conf, pool.log)
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nStopping ...")
		return nil
	case <-pool.exited:
		return pool.ended()
	}
}

// listenPort takes the usual port where none is asked for and it is free.
func listenPort(asked int) (int, error) {
	port := asked
	if port == 0 {
		port = usualPort
	}
	ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err == nil {
		return port, ln.Close()
	}
	if asked == 0 {
		return testcluster.FreePort()
	}
	return 0, fmt.Errorf("port %d: %w", port, err)
}

// conf is a pgpool.conf as the original reads it: the primary takes the writes,
// the standbys share the reads evenly, statement by statement.
func conf(c *testcluster.Cluster, dir string, port, pcpPort int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `backend_clustering_mode = 'streaming_replication'

listen_addresses = 'localhost'
port = %d
unix_socket_directories = '%[3]s'
pcp_listen_addresses = 'localhost'
pcp_port = %[2]d
pcp_socket_dir = '%[3]s'
wd_ipc_socket_dir = '%[3]s'
pid_file_name = 'pgpool.pid'
work_dir = '%[3]s'

`, port, pcpPort, dir)
	for i, n := range c.Nodes {
		fmt.Fprintf(&b, "backend_hostname%d = '%s'\nbackend_port%[1]d = %[3]d\nbackend_weight%[1]d = %[4]d\n", i, n.Host, n.Port, min(i, 1))
		fmt.Fprintf(&b, "backend_data_directory%d = '%s'\nbackend_application_name%[1]d = '%[3]s'\n", i, n.DataDir, n.Name)
	}
	fmt.Fprintf(&b, `
load_balance_mode = on
statement_level_load_balance = on

sr_check_period = 2
sr_check_user = '%[1]s'
sr_check_database = 'postgres'
health_check_period = 5
health_check_user = '%[1]s'
health_check_database = 'postgres'

log_destination = 'stderr'
log_line_prefix = '%%m: %%a pid %%p: '
log_per_node_statement = on
`, testcluster.Superuser)
	return b.String()
}

// pgpool is the running proxy.
type pgpool struct {
	cmd       *exec.Cmd
	exited    chan struct{}
	port      int
	conf, log string
}

func startPgpool(c *testcluster.Cluster, program string, port int) (*pgpool, error) {
	pcpPort, err := testcluster.FreePort()
	if err != nil {
		return nil, err
	}
	p := &pgpool{exited: make(chan struct{}), port: port, log: filepath.Join(c.Dir, "pgpool.log")}
	if p.conf, err = c.WriteFile("pgpool.conf", conf(c, c.Dir, port, pcpPort), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(program, "-n", "-f", p.conf)
	p.cmd.Dir = c.Dir // where testcluster looks for processes to end, whatever becomes of us
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is for us alone
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start pgpool: %w", err)
	}
	go func() {
		defer close(p.exited)
		p.cmd.Wait() // how it ended is in ProcessState
	}()
	return p, nil
}

// ready waits until a query comes through.
func (p *pgpool) ready(ctx context.Context, psql string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("pgpool did not answer within %v", patience))
	defer cancel()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		ask, err := testcluster.Command(ctx, psql, "-XAtqw", "-h", "127.0.0.1", "-p", strconv.Itoa(p.port), "-U", testcluster.Superuser, "-c", "select 1", "postgres")
		if err != nil {
			return err
		}
		if ask.Run() == nil {
			return nil
		}
		select {
		case <-retry.C:
		case <-p.exited:
			return p.ended()
		case <-ctx.Done():
			return fmt.Errorf("%w; its log ends:\n%s", context.Cause(ctx), p.lastWords())
		}
	}
}

func (p *pgpool) ended() error {
	return fmt.Errorf("pgpool ended by itself (%s); its log ends:\n%s", p.cmd.ProcessState, p.lastWords())
}

func (p *pgpool) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// stop is a fast shutdown, and not a polite one if that takes long.
func (p *pgpool) stop() {
	p.cmd.Process.Signal(syscall.SIGINT) // an error means that it has ended
	select {
	case <-p.exited:
	case <-time.After(patience / 3):
		p.cmd.Process.Kill()
		<-p.exited
	}
}
