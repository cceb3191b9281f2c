package main

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const pgbenchOutput = `pgbench (15.18)
transaction type: <builtin: select only>
scaling factor: 10
query mode: simple
number of clients: 16
number of threads: 2
maximum number of tries: 1
duration: 2 s
number of transactions actually processed: 48066
number of failed transactions: 0 (0.000%)
latency average = 0.665 ms
initial connection time = 24.011 ms
tps = 24024.123456 (without initial connection time)
`

func TestParsePgbench(t *testing.T) {
	tps, done, err := parsePgbench(pgbenchOutput)
	if err != nil || tps != 24024.123456 || done != 48066 {
		t.Errorf("got %v %v %v", tps, done, err)
	}
	for name, out := range map[string]string{
		"failed transactions": strings.Replace(pgbenchOutput, "failed transactions: 0", "failed transactions: 3", 1),
		"nothing done":        strings.Replace(pgbenchOutput, "processed: 48066", "processed: 0", 1),
		"something else":      "pgbench: error\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := parsePgbench(out); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	parent, ticks, err := parseStat("17 (a (b) c) S 5 1 1 0 -1 4194560 1 2 3 4 100 20 3 7 20 0 1 0 99")
	if err != nil || parent != 5 || ticks != 130 {
		t.Errorf("got %d %d %v", parent, ticks, err)
	}
	if _, _, err := parseStat("17 (x) S 5"); err == nil {
		t.Error("no error for a short line")
	}
}

// CPU time that a child used and took with it to its end must not be lost.
func TestTreeTicksCountsChildrenThatHaveEnded(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done); echo done; read -r _")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	ticks, err := treeTicks(cmd.Process.Pid)
	if err != nil || ticks == 0 {
		t.Errorf("got %d, %v", ticks, err)
	}
	stdin.Close()
	cmd.Wait()
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if got := time.Duration(ticks) * 10 * time.Millisecond; got > used+40*time.Millisecond || got < used-40*time.Millisecond {
		t.Errorf("counted %v, used %v", got, used)
	}
	if _, err := treeTicks(cmd.Process.Pid); err == nil {
		t.Error("no error for a process that has ended")
	}
}

func TestTable(t *testing.T) {
	proxied := &exec.Cmd{}
	targets := []*target{{name: "direct"}, {name: "pgbouncer", cmd: proxied}, {name: "original", cmd: proxied}}
	r := results{
		{"simple", "direct"}:    {{300, 0}, {100, 0}, {200, 0}},
		{"simple", "pgbouncer"}: {{100, 10}, {50, 30}},
	}
	want := `| work | through | tps | of direct | of PgBouncer | CPU µs/tx |
|---|---|---:|---:|---:|---:|
| SELECT by key, simple protocol | direct | 200 | 1.00 | 2.67 |  |
|  | pgbouncer | 75 | 0.38 | 1.00 | 20.0 |
|  | original | failed | | | |
`
	if got := table(modes[:1], targets, r); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestRefusesUnknownNames(t *testing.T) {
	for _, o := range []options{{modes: []string{"nothing"}}, {modes: []string{"simple"}, targets: []string{"odyssey"}}} {
		if err := run(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "only") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestShortRun(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real PostgreSQL servers: skipped by -short")
	}
	var out, progress strings.Builder
	err := run(t.Context(), options{
		rounds: 1, seconds: 1, clients: 2, threads: 1, scale: 1,
		targets: []string{"direct", "pgbouncer", "original", "original-lb", "pgpool-go"}, modes: []string{"prepared", "connect"},
		pgpool: t.TempDir() + "/none", original: "/usr/sbin/pgpool", pgbouncer: "/usr/sbin/pgbouncer",
	}, &out, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	if strings.Contains(progress.String(), "!!! round") || strings.Contains(out.String(), "failed") {
		t.Errorf("a run failed\n%s", progress.String())
	}
	if !strings.Contains(progress.String(), "PGPOOL-GO IS LEFT OUT") {
		t.Errorf("nothing loud in\n%s", progress.String())
	}
	if rows := strings.Count(out.String(), "\n| "); rows != 1+2*4 {
		t.Errorf("%d rows:\n%s", rows, out.String())
	}
}
