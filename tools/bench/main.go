// Command bench runs the same pgbench work directly, through PgBouncer, through
// the original pgpool and through pgpool-go, in turns within one run, and
// prints what each cost as a Markdown table.
//
// It owns neither servers nor proxies longer than the run. A new proxy is a
// target (targets.go), a new kind of work a mode (modes, below); how a run is
// timed is measure.go's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"pgpool-go/tools/testcluster"
)

// mode is one kind of pgbench work.
type mode struct {
	name, meaning string
	args          []string
}

var modes = []mode{
	{"simple", "SELECT by key, simple protocol", []string{"-S", "-M", "simple"}},
	{"extended", "SELECT by key, extended protocol", []string{"-S", "-M", "extended"}},
	{"prepared", "SELECT by key, prepared once", []string{"-S", "-M", "prepared"}},
	{"connect", "SELECT by key, a new connection each (-C)", []string{"-S", "-C", "-M", "simple"}},
	{"writes", "UPDATE, SELECT, INSERT in a transaction (-N)", []string{"-N", "-M", "simple"}},
}

// database is one of our own: the original does not cache connections to the
// database postgres.
const database = "bench"

// options are the command line.
type options struct {
	rounds, clients, threads, scale int
	seconds                         int
	targets, modes                  []string
	pgpool, original, pgbouncer     string
}

func main() {
	var o options
	var targetList, modeList string
	flag.IntVar(&o.rounds, "rounds", 3, "how often each target does each work; the median counts")
	flag.IntVar(&o.seconds, "seconds", 5, "length of one run")
	flag.IntVar(&o.clients, "clients", 16, "pgbench clients")
	flag.IntVar(&o.threads, "threads", 2, "pgbench threads")
	flag.IntVar(&o.scale, "scale", 10, "pgbench scale factor")
	flag.StringVar(&targetList, "targets", strings.Join(targetNames(), ","), "what to measure")
	flag.StringVar(&modeList, "modes", strings.Join(modeNames(), ","), "which work to do")
	flag.StringVar(&o.pgpool, "pgpool", "bin/pgpool", "our program")
	flag.StringVar(&o.original, "original", "/usr/sbin/pgpool", "the original's program")
	flag.StringVar(&o.pgbouncer, "pgbouncer", "/usr/sbin/pgbouncer", "PgBouncer's program")
	flag.Parse()
	o.targets, o.modes = strings.Split(targetList, ","), strings.Split(modeList, ",")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func modeNames() []string {
	names := make([]string, len(modes))
	for i, m := range modes {
		names[i] = m.name
	}
	return names
}

// run measures and writes the table to out; progress goes to progress.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	work, err := chosenModes(o.modes)
	if err != nil {
		return err
	}
	if err := checkTargets(o.targets); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, testcluster.CleanUp()) }()
	fmt.Fprintln(progress, "starting a primary and a standby ...")
	c, err := testcluster.Start(ctx, testcluster.Options{Standbys: 1, Conf: map[string]string{
		"max_connections": strconv.Itoa(100 + 8*o.clients),
		"wal_level":       "replica",
		"shared_buffers":  "256MB",
		"max_wal_size":    "8GB",
		"jit":             "off",
		// A checkpoint in one run and not in another would be noise.
		"checkpoint_timeout": "1h",
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	b, err := newBench(c, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "filling it (pgbench -i -s %d) ...\n", o.scale)
	if err := b.fill(ctx); err != nil {
		return err
	}
	targets, err := b.start(ctx, progress)
	defer func() {
		for _, t := range targets {
			t.stop()
		}
	}()
	if err != nil {
		return err
	}
	results, err := b.measure(ctx, targets, work, progress)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %s/%s, %d CPUs; PostgreSQL %s, primary and one standby, scale %d; %d clients, median of %d rounds of %d s.\n\n",
		cpuName(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), b.version, o.scale, o.clients, o.rounds, o.seconds)
	_, err = io.WriteString(out, table(work, targets, results))
	return err
}

func chosenModes(names []string) ([]mode, error) {
	var chosen []mode
	for _, name := range names {
		i := slices.IndexFunc(modes, func(m mode) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no mode %q, only %s", name, strings.Join(modeNames(), " "))
		}
		chosen = append(chosen, modes[i])
	}
	return chosen, nil
}

// bench is what all runs share.
type bench struct {
	options
	cluster *testcluster.Cluster
	pgbench string
	version string
}

func newBench(c *testcluster.Cluster, o options) (*bench, error) {
	pgbench, err := c.Program("pgbench")
	if err != nil {
		return nil, err
	}
	version, err := c.Nodes[0].Exec("show server_version")
	if err != nil {
		return nil, err
	}
	version, _, _ = strings.Cut(version, " ")
	return &bench{options: o, cluster: c, pgbench: pgbench, version: version}, nil
}

// fill makes pgbench's tables and waits for the standby to have them.
func (b *bench) fill(ctx context.Context) error {
	n := b.cluster.Nodes[0]
	if _, err := n.Exec("create database " + database); err != nil {
		return err
	}
	cmd, err := testcluster.Command(ctx, b.pgbench, "-i", "-q", "-s", strconv.Itoa(b.scale), "-h", n.Host, "-p", strconv.Itoa(n.Port), "-U", testcluster.Superuser, database)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	if _, err := n.ExecIn(database, "vacuum analyze; checkpoint"); err != nil {
		return err
	}
	return b.cluster.WaitCatchup()
}

func cpuName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

// found reports whether a program is there to be run.
func found(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}
