package main

import (
	"context"
	"fmt"
	"slices"
)

// Who can do what. PgBouncer prepares statements in transaction mode from 1.21 on.
var (
	sessions = []string{"direct", "pgbouncer", "original", "original-lb", "pgpool-go", "pgpool-go-lb"}
	pooled   = []string{"pgbouncer-tx", "pgpool-go-tx"}
	light    = []string{"direct", "pgbouncer", "pgpool-go", "pgbouncer-tx", "pgpool-go-tx"} // not a process per client
	sealed   = []string{"pgbouncer-tls", "pgpool-go-tls"}
	caches   = []string{"direct", "pgbouncer", "original-cache", "pgpool-go", "pgpool-go-cache"}
	proven   = []string{"pgbouncer-scram", "pgpool-go-scram"}
)

var (
	throughput = &form{"work", []figure{
		{name: "tps", direct: true, bouncer: true},
		{name: "CPU µs/tx", digits: 1, bouncer: true},
		{name: "instructions/tx", bouncer: true},
	}}
	latency = &form{"at a fixed rate", []figure{
		{name: "tps"},
		{name: "p50 ms", digits: 2},
		{name: "p99 ms", digits: 2, bouncer: true},
		{name: "p99.9 ms", digits: 2},
		{name: "CPU µs/tx", digits: 1, bouncer: true},
	}}
	memory = &form{"memory", []figure{
		{name: "MiB", digits: 1},
		{name: "KiB per client", digits: 2, bouncer: true},
	}}
	bulk = &form{"a large result", []figure{
		{name: "MB/s", direct: true, bouncer: true},
		{name: "CPU s/GB", digits: 3, bouncer: true},
	}}
)

// forms are in the order of the report.
var forms = []*form{throughput, latency, memory, bulk}

// plain is what pgbench does, by the names of the command line.
var plain = []struct {
	name, label string
	targets     []string
	every       bool // number of clients; else the first
	args        []string
}{
	{"simple", "SELECT by key, simple protocol", slices.Concat(sessions, pooled), true, []string{"-S", "-M", "simple"}},
	{"extended", "SELECT by key, extended protocol", slices.Concat(sessions, pooled), true, []string{"-S", "-M", "extended"}},
	{"prepared", "SELECT by key, prepared once", slices.Concat(sessions, pooled), true, []string{"-S", "-M", "prepared"}},
	{"connect", "SELECT by key, a new connection each (-C)", slices.Concat(sessions, pooled), false, []string{"-S", "-C", "-M", "simple"}},
	{"writes", "UPDATE, SELECT, INSERT in a transaction (-N)", slices.Concat(sessions, pooled), false, []string{"-N", "-M", "simple"}},
	{"cached", "SELECT by one of a thousand keys, simple protocol", caches, false, []string{"-S", "-M", "simple", "-D", "scale=0.01"}},
	{"cached-extended", "SELECT by one of a thousand keys, extended protocol", caches, false, []string{"-S", "-M", "extended", "-D", "scale=0.01"}},
	{"cached-prepared", "SELECT by one of a thousand keys, prepared once", caches, false, []string{"-S", "-M", "prepared", "-D", "scale=0.01"}},
	{"tls", "SELECT by key, TLS on both sides", sealed, false, []string{"-S", "-M", "simple"}},
	{"tls-connect", "a new connection each, TLS on both sides", sealed, false, []string{"-S", "-C", "-M", "simple"}},
	{"scram-connect", "a new connection each, SCRAM on both sides", proven, false, []string{"-S", "-C", "-M", "simple"}},
}

func workNames() []string {
	var names []string
	for _, p := range plain {
		names = append(names, p.name)
	}
	return append(names, "many", "latency", "idle", "select", "copy-out", "copy-in")
}

// works are those that have been chosen.
func (b *bench) works() []work {
	all := []work{{ // the first: later on the proxies' memory has been used by others
		name: "idle", label: fmt.Sprintf("%d idle clients that have run a statement", b.idle), form: memory, targets: pooled, once: true,
		run: func(ctx context.Context, b *bench, t *target) (sample, error) { return b.sit(ctx, t, b.idle) },
	}}
	for i, n := range b.clients {
		for _, p := range plain {
			if i > 0 && !p.every {
				continue
			}
			targets := p.targets
			if i > 0 {
				targets = keep(targets, light)
			}
			if p.name == "prepared" && !bouncerPrepares(b.pgbouncer) {
				targets = slices.DeleteFunc(slices.Clone(targets), func(name string) bool { return name == "pgbouncer-tx" })
			}
			all = append(all, work{name: p.name, label: fmt.Sprintf("%s, %d clients", p.label, n), form: throughput, targets: targets,
				run: func(ctx context.Context, b *bench, t *target) (sample, error) {
					return b.saturate(ctx, t, n, p.args...)
				}})
		}
	}
	for _, n := range b.many {
		all = append(all, work{name: "many", label: fmt.Sprintf("SELECT by key, %d clients over %d server connections", n, poolSize), form: throughput, targets: pooled,
			run: func(ctx context.Context, b *bench, t *target) (sample, error) {
				return b.saturate(ctx, t, n, "-S", "-M", "simple")
			}})
	}
	n := b.clients[0]
	all = append(all,
		work{name: "latency", label: fmt.Sprintf("SELECT by key, simple protocol, %d clients", n), form: latency, targets: light,
			run: func(ctx context.Context, b *bench, t *target) (sample, error) {
				return b.atRate(ctx, t, n, "-S", "-M", "simple")
			}},
		work{name: "latency", label: fmt.Sprintf("SELECT by key, extended protocol, %d clients", n), form: latency, targets: light,
			run: func(ctx context.Context, b *bench, t *target) (sample, error) {
				return b.atRate(ctx, t, n, "-S", "-M", "extended")
			}},
		b.stream("select", "SELECT, rows of 1 kB", "select repeat('x', 1000) from generate_series(1, %d)"),
		b.stream("copy-out", "COPY TO STDOUT, rows of 1 kB", "copy (select repeat('x', 1000) from generate_series(1, %d)) to stdout"),
		b.stream("copy-in", "COPY FROM STDIN, 8 kB at a time", "copy sink from stdin where false"),
	)
	return slices.DeleteFunc(all, func(w work) bool { return !slices.Contains(b.options.works, w.name) })
}

// stream is a work that moves much data by one statement; a %d in it is the
// number of kilobytes.
func (b *bench) stream(name, label, sql string) work {
	return work{name: name, label: fmt.Sprintf("%s, %d MB", label, b.megabytes), form: bulk, targets: []string{"direct", "pgbouncer", "original", "pgpool-go", "pgbouncer-tls", "pgpool-go-tls"},
		run: func(ctx context.Context, b *bench, t *target) (sample, error) { return b.move(ctx, t, sql) }}
}

// keep is what is in both lists.
func keep(list, also []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(name string) bool { return !slices.Contains(also, name) })
}
