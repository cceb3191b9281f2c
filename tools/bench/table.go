package main

import (
	"fmt"
	"slices"
	"strings"
)

// table is the Markdown table of medians: a block of rows per mode, in each
// what a target did and how that compares with no proxy and with PgBouncer.
func table(work []mode, targets []*target, r results) string {
	var b strings.Builder
	b.WriteString("| work | through | tps | of direct | of PgBouncer | CPU µs/tx |\n|---|---|---:|---:|---:|---:|\n")
	for _, m := range work {
		direct, bouncer := r.median(m.name, "direct"), r.median(m.name, "pgbouncer")
		for i, t := range targets {
			label := ""
			if i == 0 {
				label = m.meaning
			}
			s := r.median(m.name, t.name)
			if s == nil {
				fmt.Fprintf(&b, "| %s | %s | failed | | | |\n", label, t.name)
				continue
			}
			cpu := ""
			if t.cmd != nil {
				cpu = fmt.Sprintf("%.1f", s.cpu)
			}
			fmt.Fprintf(&b, "| %s | %s | %.0f | %s | %s | %s |\n", label, t.name, s.tps, ratio(s, direct), ratio(s, bouncer), cpu)
		}
	}
	return b.String()
}

func ratio(s, to *sample) string {
	if to == nil || to.tps == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", s.tps/to.tps)
}

// median is that of the throughput and that of the CPU time, nil if no run succeeded.
func (r results) median(mode, target string) *sample {
	runs := r[[2]string{mode, target}]
	if len(runs) == 0 {
		return nil
	}
	var tps, cpu []float64
	for _, s := range runs {
		tps, cpu = append(tps, s.tps), append(cpu, s.cpu)
	}
	return &sample{middle(tps), middle(cpu)}
}

func middle(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
