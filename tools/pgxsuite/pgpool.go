package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pgpool-go/tools/testcluster"
)

const patience = 30 * time.Second

// proxy is the running pgpool.
type proxy struct {
	cmd    *exec.Cmd
	exited chan struct{}
	port   int
	log    string
}

// startPgpool starts the proxy as an operator would who balances statement by
// statement over the standbys.
func startPgpool(ctx context.Context, program, mode string, c *testcluster.Cluster) (*proxy, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	p := &proxy{exited: make(chan struct{}), log: filepath.Join(c.Dir, "pgpool.log")}
	if p.port, err = testcluster.FreePort(); err != nil {
		return nil, err
	}
	pcpPort, err := testcluster.FreePort()
	if err != nil {
		return nil, err
	}
	if _, err := c.WriteFile("pool_passwd", "pgx_md5:secret\npgx_scram:secret\npgx_pw:secret\n", 0o600); err != nil {
		return nil, err
	}
	path, err := c.WriteFile("pgpool.conf", conf(c, mode, p.port, pcpPort), 0o600)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(program, "-n", "-D", "-f", path)
	p.cmd.Dir = c.Dir // where testcluster looks for processes to end, whatever becomes of us
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start pgpool: %w", err)
	}
	go func() {
		defer close(p.exited)
		p.cmd.Wait() // how it ended is in its log
	}()
	if err := p.ready(ctx, c); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func conf(c *testcluster.Cluster, mode string, port, pcpPort int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `backend_clustering_mode = 'streaming_replication'
listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = '%[3]s'
pcp_listen_addresses = '127.0.0.1'
pcp_port = %[2]d
pcp_socket_dir = '%[3]s'
wd_ipc_socket_dir = '%[3]s'
pid_file_name = '%[3]s/pgpool.pid'
work_dir = '%[3]s'
num_init_children = 200
max_pool = 1
pool_mode = %[4]s
pool_size = 8
load_balance_mode = on
statement_level_load_balance = on
sr_check_period = 1
sr_check_user = 'postgres'
sr_check_database = 'postgres'
`, port, pcpPort, c.Dir, mode)
	for i, n := range c.Nodes {
		fmt.Fprintf(&b, "backend_hostname%d = '%s'\nbackend_port%[1]d = %[3]d\nbackend_weight%[1]d = %[4]d\n", i, n.Host, n.Port, min(i, 1))
	}
	return b.String()
}

// ready waits until a query comes through.
func (p *proxy) ready(ctx context.Context, c *testcluster.Cluster) error {
	psql, err := c.Program("psql")
	if err != nil {
		return err
	}
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
			return fmt.Errorf("pgpool ended by itself; its log ends:\n%s", p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%w; its log ends:\n%s", context.Cause(ctx), p.lastWords())
		}
	}
}

func (p *proxy) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// stop is a fast shutdown, and not a polite one if that takes long.
func (p *proxy) stop() {
	p.cmd.Process.Signal(os.Interrupt) // an error means that it has ended
	select {
	case <-p.exited:
	case <-time.After(patience / 3):
		p.cmd.Process.Kill()
		<-p.exited
	}
}
