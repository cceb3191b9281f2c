package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pgpool-go/tools/testcluster"
)

// sample is one pgbench run.
type sample struct {
	tps float64
	cpu float64 // the proxy's microseconds per transaction; 0 without a proxy
}

// results are the runs by mode and target; a run that failed is not among them.
type results map[[2]string][]sample

// measure runs every mode on every target in every round. The targets take
// turns, so that a slow minute of the machine hits all of them, and each round
// begins with another one.
func (b *bench) measure(ctx context.Context, targets []*target, work []mode, progress io.Writer) (results, error) {
	r := make(results)
	for round := range b.rounds {
		for _, m := range work {
			for i := range targets {
				t := targets[(i+round)%len(targets)]
				s, err := b.pgbenchRun(ctx, t, m)
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				if err != nil {
					fmt.Fprintf(progress, "!!! round %d %s %s: %v\n", round+1, m.name, t.name, err)
					continue
				}
				fmt.Fprintf(progress, "round %d  %-9s %-13s %9.0f tps %7.1f µs\n", round+1, m.name, t.name, s.tps, s.cpu)
				r[[2]string{m.name, t.name}] = append(r[[2]string{m.name, t.name}], s)
			}
		}
	}
	return r, nil
}

// pgbenchRun runs pgbench once. Any client that was aborted makes it fail:
// figures of half the work would flatter.
func (b *bench) pgbenchRun(ctx context.Context, t *target, m mode) (sample, error) {
	// A proxy that hangs must not hang the table.
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(b.seconds)*time.Second+patience, errors.New("pgbench did not come to an end"))
	defer cancel()
	args := append([]string{"-n", "-h", "127.0.0.1", "-p", strconv.Itoa(t.port), "-U", testcluster.Superuser,
		"-c", strconv.Itoa(b.clients), "-j", strconv.Itoa(b.threads), "-T", strconv.Itoa(b.seconds)}, m.args...)
	cmd, err := testcluster.Command(ctx, b.pgbench, append(args, database)...)
	if err != nil {
		return sample{}, err
	}
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	before, err := t.cpuTicks()
	if err != nil {
		return sample{}, err
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return sample{}, fmt.Errorf("%w: %s", err, firstLine(words.String()))
	}
	after, err := t.cpuTicks()
	if err != nil {
		return sample{}, err
	}
	tps, done, err := parsePgbench(out.String())
	if err != nil {
		return sample{}, err
	}
	const tick = 10_000 // microseconds: the kernel tells user space 100 per second, whatever it uses itself
	return sample{tps: tps, cpu: float64(after-before) * tick / float64(done)}, nil
}

var (
	tpsLine    = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	doneLine   = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failedLine = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
)

// parsePgbench reads transactions per second and their number.
func parsePgbench(out string) (tps float64, done int, err error) {
	t, d := tpsLine.FindStringSubmatch(out), doneLine.FindStringSubmatch(out)
	if t == nil || d == nil {
		return 0, 0, fmt.Errorf("pgbench said something else: %s", firstLine(out))
	}
	if f := failedLine.FindStringSubmatch(out); f != nil && f[1] != "0" {
		return 0, 0, fmt.Errorf("%s transactions failed", f[1])
	}
	if tps, err = strconv.ParseFloat(t[1], 64); err != nil {
		return 0, 0, fmt.Errorf("pgbench's tps: %w", err)
	}
	if done, err = strconv.Atoi(d[1]); err != nil {
		return 0, 0, fmt.Errorf("pgbench's number of transactions: %w", err)
	}
	if done == 0 {
		return 0, 0, errors.New("not one transaction was processed")
	}
	return tps, done, nil
}

// cpuTicks is the CPU time, user and system, of the target's process and all
// below it, with that of children that have ended and been waited for.
func (t *target) cpuTicks() (int64, error) {
	if t.cmd == nil {
		return 0, nil
	}
	return treeTicks(t.cmd.Process.Pid)
}

func treeTicks(root int) (int64, error) {
	type proc struct {
		parent int
		ticks  int64
	}
	procs := make(map[int]proc)
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return 0, err
		}
		parent, ticks, err := parseStat(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		procs[pid] = proc{parent, ticks}
	}
	if _, ok := procs[root]; !ok {
		return 0, fmt.Errorf("process %d has ended", root)
	}
	var sum int64
	for pid, p := range procs {
		for up := pid; up > 0; up = procs[up].parent {
			if up == root {
				sum += p.ticks
				break
			}
		}
	}
	return sum, nil
}

// parseStat reads parent and CPU time of a /proc/PID/stat line, whose second
// field, the name, may hold blanks and parentheses.
func parseStat(line string) (parent int, ticks int64, err error) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, errors.New("too few fields")
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	for _, field := range fields[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	return parent, ticks, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
