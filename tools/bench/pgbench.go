package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgpool-go/tools/testcluster"
)

// saturate has so many clients ask as fast as they can.
func (b *bench) saturate(ctx context.Context, t *target, clients int, args ...string) (sample, error) {
	counted, err := b.count(ctx, t)
	if err != nil {
		return nil, err
	}
	done, cpu, err := b.pgbenchRun(ctx, t, clients, args...)
	instructions := counted()
	if err != nil {
		return nil, err
	}
	return sample{done.tps, cpu, instructions / float64(done.transactions)}, nil
}

// atRate has clients ask at half the rate that PgBouncer can do, the same for all,
// and looks at how long each answer took, its wait for a late client included.
func (b *bench) atRate(ctx context.Context, t *target, clients int, args ...string) (sample, error) {
	rate, err := b.halfRate(ctx, t, clients, args...)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.cluster.Dir, "log")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil { // pgbench runs as another user
		return nil, err
	}
	done, cpu, err := b.pgbenchRun(ctx, t, clients, append([]string{"--rate", strconv.Itoa(rate), "--log", "--log-prefix", filepath.Join(dir, "log")}, args...)...)
	if err != nil {
		return nil, err
	}
	took, err := readLatencies(dir)
	if err != nil {
		return nil, err
	}
	return sample{done.tps, percentile(took, 50), percentile(took, 99), percentile(took, 99.9), cpu}, nil
}

// halfRate is the rate of the latency works: as asked, or found out once.
func (b *bench) halfRate(ctx context.Context, t *target, clients int, args ...string) (int, error) {
	if b.rate > 0 {
		return b.rate, nil
	}
	if b.half == 0 {
		if b.yardstick != nil {
			t = b.yardstick
		}
		done, _, err := b.pgbenchRun(ctx, t, clients, args...)
		if err != nil {
			return 0, fmt.Errorf("to find a rate: %w", err)
		}
		b.half = int(done.tps / 2)
	}
	return b.half, nil
}

// readLatencies reads pgbench's logs of transactions: milliseconds, in order.
func readLatencies(dir string) ([]float64, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, err
	}
	var took []float64
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line) // client, transaction, microseconds, script, seconds, microseconds, lag
			if len(fields) < 6 {
				return nil, fmt.Errorf("pgbench's log has the line %q", line)
			}
			us, err := strconv.ParseFloat(fields[2], 64)
			if err != nil {
				return nil, fmt.Errorf("pgbench's log: %w", err)
			}
			took = append(took, us/1000)
		}
	}
	if len(took) == 0 {
		return nil, errors.New("pgbench has logged no transaction")
	}
	slices.Sort(took)
	return took, nil
}

// percentile is the value that p of a hundred do not exceed.
func percentile(sorted []float64, p float64) float64 {
	return sorted[min(int(float64(len(sorted))*p/100), len(sorted)-1)]
}

// report is what pgbench says of a run.
type report struct {
	tps          float64
	transactions int
}

// pgbenchRun runs pgbench once; cpu is the target's microseconds per transaction.
// Any client that was aborted makes it fail: figures of half the work would
// flatter.
func (b *bench) pgbenchRun(ctx context.Context, t *target, clients int, args ...string) (done report, cpu float64, err error) {
	if clients+100 > b.descriptors {
		return done, 0, fmt.Errorf("%w: %d clients need more than the %d descriptors a process may have (ulimit -Hn)", errSkipped, clients, b.descriptors)
	}
	// A proxy that hangs must not hang the table.
	seconds := b.seconds
	if clients >= crowd {
		seconds *= 2
	}
	limit := time.Duration(seconds)*time.Second + patience + time.Duration(clients)*4*time.Millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("pgbench did not come to an end"))
	defer cancel()
	args = append([]string{"-n", "-h", "127.0.0.1", "-p", strconv.Itoa(t.port), "-U", t.user(),
		"-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(b.threads, clients)), "-T", strconv.Itoa(seconds), "-P", "1"}, args...)
	cmd, err := testcluster.Command(ctx, b.pgbench, append(args, database)...)
	if err != nil {
		return done, 0, err
	}
	cmd.Env = append(cmd.Env, t.env...)
	var out bytes.Buffer
	cmd.Stdout = &out
	words, err := cmd.StderrPipe()
	if err != nil {
		return done, 0, err
	}
	from, err := t.cpuTime()
	if err != nil {
		return done, 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return done, 0, err
	}
	// The first line of progress comes a second after all clients have connected.
	// Of a crowd only the time from then on is divided by the transactions from
	// then on.
	var first string
	var skipped float64
	for lines := bufio.NewScanner(words); lines.Scan(); {
		line := lines.Text()
		m := progressLine.FindStringSubmatch(line)
		switch {
		case m == nil && first == "":
			first = line
		case m != nil && skipped == 0 && clients >= crowd:
			seconds, _ := strconv.ParseFloat(m[1], 64)
			tps, _ := strconv.ParseFloat(m[2], 64)
			skipped = seconds * tps
			if from, err = t.cpuTime(); err != nil {
				cancel()
			}
		}
	}
	if werr := cmd.Wait(); werr != nil {
		if ctx.Err() != nil && err == nil {
			werr = context.Cause(ctx)
		}
		return done, 0, fmt.Errorf("%w after %.1f s: %s", werr, time.Since(began).Seconds(), first)
	}
	to, err := t.cpuTime()
	if err != nil {
		return done, 0, err
	}
	if done, err = parsePgbench(out.String()); err != nil {
		return done, 0, err
	}
	if t.cmd == nil {
		return done, unknown, nil
	}
	counted := float64(done.transactions) - skipped
	if counted < 0.2*float64(done.transactions) {
		return done, unknown, nil
	}
	return done, float64((to - from).Microseconds()) / counted, nil
}

// crowd is a number of clients whose connecting would blur what a transaction
// costs.
const crowd = 500

var (
	progressLine = regexp.MustCompile(`^progress: ([0-9.]+) s, ([0-9.]+) tps`)
	tpsLine      = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	doneLine     = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failedLine   = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
)

func parsePgbench(out string) (r report, err error) {
	t, d := tpsLine.FindStringSubmatch(out), doneLine.FindStringSubmatch(out)
	if t == nil || d == nil {
		return r, fmt.Errorf("pgbench said something else: %s", strings.Join(strings.Fields(out), " "))
	}
	if f := failedLine.FindStringSubmatch(out); f != nil && f[1] != "0" {
		return r, fmt.Errorf("%s transactions failed", f[1])
	}
	if r.tps, err = strconv.ParseFloat(t[1], 64); err != nil {
		return r, fmt.Errorf("pgbench's tps: %w", err)
	}
	if r.transactions, err = strconv.Atoi(d[1]); err != nil {
		return r, fmt.Errorf("pgbench's number of transactions: %w", err)
	}
	if r.transactions == 0 {
		return r, errors.New("not one transaction was processed")
	}
	return r, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
