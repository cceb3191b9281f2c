// Command bench runs the same work directly, through PgBouncer, through the
// original pgpool and through pgpool-go, in turns within one run, and prints what
// each cost as Markdown tables.
//
// It owns neither servers nor proxies longer than the run. A new proxy, or one
// otherwise configured, is a kind of target (targets.go, config.go); something new
// to be done is a work (works.go), whose run gives the figures of a form; forms
// and works are values, and measure.go and table.go know nothing of either.
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

// database is one of our own: the original does not cache connections to the
// database postgres.
const database = "bench"

// options are the command line.
type options struct {
	rounds, seconds, threads, scale int
	clients                         []int // of pgbench; the first number does all its works, the others the plain ones
	many                            []int // the same, where there are far more clients than server connections
	idle                            int   // clients that only sit there
	megabytes                       int   // of a large result
	rate                            int   // transactions per second of the latency works; 0: half of what PgBouncer does
	targets, works                  []string
	pgpool, original, pgbouncer     string
}

// quick is the smaller run of -quick.
var quick = options{rounds: 1, seconds: 2, clients: []int{16, 64}, many: []int{1000}, idle: 2000, megabytes: 300}

func main() {
	o := options{rounds: 3, seconds: 3, clients: []int{16, 64}, many: []int{1000, 10000}, idle: 10000, megabytes: 1000}
	for _, arg := range os.Args[1:] { // its values are defaults, which the other flags may change
		if arg == "-quick" || arg == "--quick" {
			o = quick
		}
	}
	flag.Bool("quick", false, "a run of some four minutes: fewer rounds, seconds, clients and bytes")
	flag.IntVar(&o.rounds, "rounds", o.rounds, "how often each target does each work; the median counts")
	flag.IntVar(&o.seconds, "seconds", o.seconds, "length of one pgbench run")
	numbers(&o.clients, "clients", "numbers of pgbench clients; the first does all works, the others the plain ones")
	numbers(&o.many, "many", "numbers of clients over few server connections")
	flag.IntVar(&o.idle, "idle", o.idle, "clients that sit there while the memory is measured")
	flag.IntVar(&o.megabytes, "megabytes", o.megabytes, "size of a large result")
	flag.IntVar(&o.rate, "rate", 0, "transactions per second while latencies are measured; 0: half of what PgBouncer can do")
	flag.IntVar(&o.threads, "threads", 2, "pgbench threads")
	flag.IntVar(&o.scale, "scale", 10, "pgbench scale factor")
	words(&o.targets, "targets", targetNames(), "what to measure")
	words(&o.works, "modes", workNames(), "which work to do")
	flag.StringVar(&o.pgpool, "pgpool", "bin/pgpool", "our program")
	flag.StringVar(&o.original, "original", "/usr/sbin/pgpool", "the original's program")
	flag.StringVar(&o.pgbouncer, "pgbouncer", "/usr/sbin/pgbouncer", "PgBouncer's program")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// words is a flag that lists names; all of them if it is not given.
func words(list *[]string, name string, all []string, usage string) {
	*list = all
	flag.Func(name, usage+", a list with commas (default all: "+strings.Join(all, ",")+")", func(text string) error {
		*list = strings.Split(text, ",")
		return nil
	})
}

// numbers is a flag that lists positive numbers.
func numbers(list *[]int, name, usage string) {
	flag.Func(name, fmt.Sprintf("%s, a list with commas (default %v)", usage, *list), func(text string) error {
		*list = nil
		for word := range strings.SplitSeq(text, ",") {
			n, err := strconv.Atoi(word)
			if err != nil || n <= 0 {
				return fmt.Errorf("%q is no number of clients", word)
			}
			*list = append(*list, n)
		}
		return nil
	})
}

// run measures and writes the tables to out; progress goes to progress.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	if err := checkNames("target", o.targets, targetNames()); err != nil {
		return err
	}
	if err := checkNames("mode", o.works, workNames()); err != nil {
		return err
	}
	descriptors, err := raiseLimit()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, testcluster.CleanUp()) }()
	fmt.Fprintln(progress, "starting a primary and a standby ...")
	c, err := testcluster.Start(ctx, testcluster.Options{Standbys: 1,
		HBA: []string{"host all " + scramUser + " 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust", "local all all trust"},
		Conf: map[string]string{
			"max_connections": strconv.Itoa(500 + 8*slices.Max(o.clients)),
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
	b.descriptors = descriptors
	fmt.Fprintf(progress, "filling it (pgbench -i -s %d) ...\n", o.scale)
	if err := b.fill(ctx); err != nil {
		return err
	}
	if b.perf = b.countsInstructions(ctx); !b.perf {
		fmt.Fprintln(progress, "no instruction counts: perf stat cannot count them here")
	}
	work := b.works()
	results, targets, err := b.measure(ctx, work, progress)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %s/%s, %d CPUs; PostgreSQL %s, primary and one standby, scale %d; median of %d rounds of %d s.\n",
		cpuName(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), b.version, o.scale, o.rounds, o.seconds)
	_, err = io.WriteString(out, tables(work, targets, results))
	return err
}

func checkNames(what string, names, known []string) error {
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("no %s %q, only %s", what, name, strings.Join(known, " "))
		}
	}
	return nil
}

// raiseLimit allows this process and those it starts as many descriptors as may
// be, and tells how many.
func raiseLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("number of descriptors: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("number of descriptors: %w", err)
	}
	return int(min(limit.Max, 1<<30)), nil
}

// bench is what all runs share.
type bench struct {
	options
	cluster     *testcluster.Cluster
	pgbench     string
	version     string
	descriptors int     // that a process may have
	perf        bool    // instructions can be counted
	half        int     // the rate of the latency works, once it is known
	yardstick   *target // PgBouncer, if it is there
	key, cert   string  // of TLS, once somebody has asked for it
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

// fill makes pgbench's tables and what else the works ask for, and waits for the
// standby to have it.
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
	_, err = n.ExecIn(database, fmt.Sprintf(`create table sink (line text);
create role %[1]s login superuser password '%[2]s';
vacuum analyze; checkpoint`, scramUser, scramPassword))
	if err != nil {
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
