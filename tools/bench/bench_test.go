package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	r, err := parsePgbench(pgbenchOutput)
	if err != nil || r.tps != 24024.123456 || r.transactions != 48066 {
		t.Errorf("got %+v %v", r, err)
	}
	for name, out := range map[string]string{
		"failed transactions": strings.Replace(pgbenchOutput, "failed transactions: 0", "failed transactions: 3", 1),
		"nothing done":        strings.Replace(pgbenchOutput, "processed: 48066", "processed: 0", 1),
		"something else":      "pgbench: error\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parsePgbench(out); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestLatencies(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"log.17":   "0 199 2241 0 1175850568 995598 1020\n0 200 1000 0 1175850568 998079 1010\n",
		"log.17.1": "1 1 500 0 1175850569 608 3011\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	took, err := readLatencies(dir)
	if err != nil || !slices.Equal(took, []float64{0.5, 1, 2.241}) {
		t.Fatalf("got %v, %v", took, err)
	}
	if p := []float64{percentile(took, 0), percentile(took, 50), percentile(took, 99.9), percentile(took, 100)}; !slices.Equal(p, []float64{0.5, 1, 2.241, 2.241}) {
		t.Errorf("percentiles %v", p)
	}
	if _, err := readLatencies(t.TempDir()); err == nil {
		t.Error("no error without a log")
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat("17 (a (b) c) S 5 1 1 0 -1 4194560 1 2 3 4 100 20 3 7 20 0 1 0 99")
	if err != nil || p != (process{17, 5, 130}) {
		t.Errorf("got %+v %v", p, err)
	}
	if _, err := parseStat("17 (x) S 5"); err == nil {
		t.Error("no error for a short line")
	}
}

func TestParsePSS(t *testing.T) {
	kb, err := parsePSS("7f00-7fff ---p 00000000 00:00 0 [rollup]\nRss:    904 kB\nPss:    226 kB\nPss_Anon: 1 kB\n")
	if err != nil || kb != 226 {
		t.Errorf("got %d, %v", kb, err)
	}
	if _, err := parsePSS("Rss: 1 kB\n"); err == nil {
		t.Error("no error without the line")
	}
}

func TestParseInstructions(t *testing.T) {
	n, err := parseInstructions("\n123456,,instructions:u,1000,100.00,,\n")
	if err != nil || n != 123456 {
		t.Errorf("got %v, %v", n, err)
	}
	for _, out := range []string{"<not supported>,,instructions,0,100.00,,\n", "", "perf: no such thing\n"} {
		if _, err := parseInstructions(out); err == nil {
			t.Errorf("no error for %q", out)
		}
	}
}

// CPU time that a child used and took with it to its end must not be lost.
func TestCPUTimeCountsChildrenThatHaveEnded(t *testing.T) {
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
	proxy := &target{cmd: cmd}
	got, err := proxy.cpuTime()
	if err != nil || got == 0 {
		t.Errorf("got %d, %v", got, err)
	}
	if pss, err := proxy.memory(); err != nil || pss < 64<<10 || pss > 64<<20 {
		t.Errorf("a shell takes %d bytes, %v", pss, err)
	}
	stdin.Close()
	cmd.Wait()
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if got > used+40*time.Millisecond || got < used-40*time.Millisecond {
		t.Errorf("counted %v, used %v", got, used)
	}
	if _, err := proxy.cpuTime(); err == nil {
		t.Error("no error for a process that has ended")
	}
}

func TestTable(t *testing.T) {
	targets := []*target{{name: "direct", peer: "pgbouncer"}, {name: "pgbouncer", peer: "pgbouncer"}, {name: "original", peer: "pgbouncer"}, {name: "pgpool-go-tx", peer: "pgbouncer-tx"}}
	simple := work{name: "simple", label: "SELECT", form: throughput, targets: sessions}
	idle := work{name: "idle", label: "sitting", form: memory, targets: pooled}
	r := results{
		{simple.id(), "direct"}:     {{300, unknown, unknown}, {100, unknown, unknown}, {200, unknown, unknown}},
		{simple.id(), "pgbouncer"}:  {{100, 10, unknown}, {50, 30, unknown}},
		{idle.id(), "pgpool-go-tx"}: {{12.34, 1}},
	}
	want := `
| work | through | tps | of direct | of PgBouncer | CPU µs/tx | of PgBouncer |
|---|---|---:|---:|---:|---:|---:|
| SELECT | direct | 200 | 1.00 | 2.67 |  |  |
|  | pgbouncer | 75 | 0.38 | 1.00 | 20.0 | 1.00 |
|  | original | failed |  |  | failed |  |

| memory | through | MiB | KiB per client | of PgBouncer |
|---|---|---:|---:|---:|
| sitting | pgpool-go-tx | 12.3 | 1.00 |  |
`
	if got := tables([]work{idle, simple}, targets, r); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestRefusesUnknownNames(t *testing.T) {
	for _, o := range []options{{works: []string{"nothing"}}, {works: []string{"simple"}, targets: []string{"odyssey"}}} {
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
		rounds: 1, seconds: 1, clients: []int{2}, many: []int{30}, idle: 20, megabytes: 1, rate: 100, threads: 1, scale: 1,
		targets: []string{"direct", "pgbouncer", "original", "pgpool-go", "pgbouncer-tx", "pgbouncer-tls", "pgbouncer-scram"},
		works:   []string{"prepared", "tls-connect", "scram-connect", "many", "latency", "idle", "select", "copy-in"},
		pgpool:  t.TempDir() + "/none", original: "/usr/sbin/pgpool", pgbouncer: "/usr/sbin/pgbouncer",
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
	// prepared 3, tls-connect, scram-connect, many; latency 2 x 3; idle; two streams of 4
	if rows := strings.Count(out.String(), "\n| ") - 4; rows != 3+3+6+1+8 {
		t.Errorf("%d rows:\n%s", rows, out.String())
	}
}
