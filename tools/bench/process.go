package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the kernel's unit of CPU time towards user space, whatever it uses
// itself.
const tick = 10 * time.Millisecond

// cpuTime is that, user and system, of the target's process and all below it,
// with that of children that have ended and been waited for.
func (t *target) cpuTime() (time.Duration, error) {
	if t.cmd == nil {
		return 0, nil
	}
	list, err := tree(t.cmd.Process.Pid)
	var ticks int64
	for _, p := range list {
		ticks += p.ticks
	}
	return time.Duration(ticks) * tick, err
}

// memory is what the target's processes have in memory that is theirs, each page
// that several share divided among them (PSS): bytes.
func (t *target) memory() (int64, error) {
	list, err := tree(t.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, p := range list {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
		if err != nil {
			return 0, err
		}
		kb, err := parsePSS(string(text))
		if err != nil {
			return 0, err
		}
		sum += kb << 10
	}
	return sum, nil
}

func parsePSS(rollup string) (kb int64, err error) {
	for line := range strings.Lines(rollup) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "Pss:" {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, errors.New("smaps_rollup has no line Pss")
}

// process is one of a tree, and the CPU time it has used.
type process struct {
	pid, parent int
	ticks       int64
}

// tree is a process and all below it.
func tree(root int) ([]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	procs := make(map[int]process)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		p, err := parseStat(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		procs[p.pid] = p
	}
	if _, ok := procs[root]; !ok {
		return nil, fmt.Errorf("process %d has ended", root)
	}
	var list []process
	for _, p := range procs {
		for up := p.pid; up > 0; up = procs[up].parent {
			if up == root {
				list = append(list, p)
				break
			}
		}
	}
	return list, nil
}

// parseStat reads a /proc/PID/stat line, whose second field, the name, may hold
// blanks and parentheses.
func parseStat(line string) (p process, err error) {
	number, _, _ := strings.Cut(line, " ")
	if p.pid, err = strconv.Atoi(number); err != nil {
		return p, err
	}
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 15 {
		return p, errors.New("too few fields")
	}
	if p.parent, err = strconv.Atoi(fields[1]); err != nil {
		return p, err
	}
	for _, field := range fields[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return p, err
		}
		p.ticks += n
	}
	return p, nil
}

// countsInstructions tells whether perf is there and the processor's counters are,
// which in a virtual machine they often are not.
func (b *bench) countsInstructions(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-e", "instructions", "--", "true").CombinedOutput()
	if err != nil {
		return false
	}
	_, err = parseInstructions(string(out))
	return err == nil
}

// count begins to count the instructions of the target's processes; counted ends
// that, and must be called. It is unknown where they cannot be counted.
func (b *bench) count(ctx context.Context, t *target) (counted func() float64, err error) {
	if !b.perf || t.cmd == nil {
		return func() float64 { return unknown }, nil
	}
	list, err := tree(t.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	var pids []string
	for _, p := range list {
		pids = append(pids, strconv.Itoa(p.pid))
	}
	slices.Sort(pids)
	cmd := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-e", "instructions", "-p", strings.Join(pids, ","))
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() float64 {
		cmd.Process.Signal(syscall.SIGINT)
		cmd.Wait() // ends with the signal's status
		n, err := parseInstructions(out.String())
		if err != nil {
			return unknown
		}
		return n
	}, nil
}

// parseInstructions reads perf stat -x,: a line that begins with the number and
// names the event in its third field.
func parseInstructions(out string) (float64, error) {
	for line := range strings.Lines(out) {
		if fields := strings.Split(line, ","); len(fields) > 2 && strings.HasPrefix(fields[2], "instructions") {
			return strconv.ParseFloat(fields[0], 64) // or <not supported>
		}
	}
	return 0, errors.New("perf stat has counted nothing")
}
