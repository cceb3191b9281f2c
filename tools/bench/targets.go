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
	"sync"
	"syscall"
	"time"

	"pgpool-go/tools/testcluster"
)

const patience = 30 * time.Second

// kinds are the things to be measured, in the order of the table: peer is the
// PgBouncer that does the same.
var kinds = []struct {
	name, peer string
	start      func(b *bench, ctx context.Context, t *target) error
}{
	{"direct", "pgbouncer", (*bench).startDirect},
	{"pgbouncer", "pgbouncer", bouncer(way{})},
	{"original", "pgbouncer", pgpool(way{original: true})},
	{"original-lb", "pgbouncer", pgpool(way{original: true, balance: true})},
	{"pgpool-go", "pgbouncer", pgpool(way{})},
	{"pgpool-go-lb", "pgbouncer", pgpool(way{balance: true})},
	{"original-cache", "pgbouncer", pgpool(way{original: true, cache: true})},
	{"pgpool-go-cache", "pgbouncer", pgpool(way{cache: true})},
	{"pgbouncer-tx", "pgbouncer-tx", bouncer(way{pooled: true})},
	{"pgpool-go-tx", "pgbouncer-tx", pgpool(way{pooled: true})},
	{"pgbouncer-tls", "pgbouncer-tls", bouncer(way{tls: true})},
	{"pgpool-go-tls", "pgbouncer-tls", pgpool(way{tls: true})},
	{"pgbouncer-scram", "pgbouncer-scram", bouncer(way{scram: true})},
	{"pgpool-go-scram", "pgbouncer-scram", pgpool(way{scram: true})},
}

// errLeftOut is a target that cannot be had yet.
var errLeftOut = errors.New("left out")

func targetNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// target is a port that answers as PostgreSQL does.
type target struct {
	name, peer string
	way
	port   int
	env    []string  // of libpq's programs that use it
	cmd    *exec.Cmd // nil: no proxy
	exited chan struct{}
	log    string
}

// user is who logs in.
func (t *target) user() string {
	if t.scram {
		return scramUser
	}
	return testcluster.Superuser
}

// start starts the chosen targets. Those of ours are left out, loudly, if the
// program has not been built or cannot do it; others that are missing end the run.
func (b *bench) start(ctx context.Context, progress io.Writer) ([]*target, error) {
	var started []*target
	for _, kind := range kinds {
		if !slices.Contains(b.targets, kind.name) || !b.wanted(kind.name) {
			continue
		}
		t := &target{name: kind.name, peer: kind.peer, log: filepath.Join(b.cluster.Dir, kind.name+".log")}
		err := kind.start(b, ctx, t)
		if errors.Is(err, errLeftOut) {
			fmt.Fprintf(progress, "\n!!! %s IS %s\n\n", strings.ToUpper(kind.name), strings.Replace(err.Error(), "left out", "LEFT OUT", 1))
			t.stop()
			continue
		}
		started = append(started, t) // also what failed may run and must be stopped
		if err != nil {
			return started, fmt.Errorf("%s: %w", kind.name, err)
		}
		if kind.name == "pgbouncer" {
			b.yardstick = t
		}
	}
	return started, nil
}

// wanted tells whether any of the chosen works is for the target.
func (b *bench) wanted(name string) bool {
	return slices.ContainsFunc(b.works(), func(w work) bool { return slices.Contains(w.targets, name) })
}

// startDirect has nothing to start: the port is the primary's own.
func (b *bench) startDirect(_ context.Context, t *target) error {
	t.port, t.env = b.cluster.Nodes[0].Port, []string{"PGSSLMODE=disable"}
	return nil
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
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		words, err := b.psql(ctx, t, "select count(*) from pgbench_branches")
		if err == nil {
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

// psql runs a statement through a target and returns what it printed.
func (b *bench) psql(ctx context.Context, t *target, sql string) (string, error) {
	psql, err := b.cluster.Program("psql")
	if err != nil {
		return "", err
	}
	cmd, err := testcluster.Command(ctx, psql, "-XAtqw", "-h", "127.0.0.1", "-p", strconv.Itoa(t.port), "-U", t.user(), "-c", sql, database)
	if err != nil {
		return "", err
	}
	cmd.Env = append(cmd.Env, t.env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (t *target) lastWords() string {
	text, err := os.ReadFile(t.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// stop ends the target's process, and waits for that.
func (t *target) stop() {
	if t.cmd == nil || t.cmd.Process == nil {
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

func stopAll(targets []*target) {
	var all sync.WaitGroup
	for _, t := range targets {
		all.Go(t.stop)
	}
	all.Wait()
}
