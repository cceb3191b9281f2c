package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// tables are the medians in Markdown: a table per form, in it a block of rows per
// work, in that what each target did and how it compares with no proxy and with
// PgBouncer.
func tables(works []work, targets []*target, r results) string {
	var b strings.Builder
	for _, f := range forms {
		block := slices.DeleteFunc(slices.Clone(works), func(w work) bool { return w.form != f })
		b.WriteString(table(f, block, targets, r))
	}
	return b.String()
}

// table is that of one form; empty if nobody did any of the works. A figure that
// nobody knows gets no column.
func table(f *form, works []work, targets []*target, r results) string {
	var rows strings.Builder
	shown := f.known(works, targets, r)
	for _, w := range works {
		label := w.label
		for _, t := range targets {
			if !slices.Contains(w.targets, t.name) {
				continue
			}
			fmt.Fprintf(&rows, "| %s | %s |", label, t.name)
			label = ""
			s := r.median(w, t.name)
			direct, bouncer := r.median(w, "direct"), r.median(w, t.peer)
			for i, figure := range f.figures {
				if !shown[i] {
					continue
				}
				if s == nil {
					rows.WriteString(" failed |")
				} else {
					fmt.Fprintf(&rows, " %s |", figure.text(s[i]))
				}
				if figure.direct {
					fmt.Fprintf(&rows, " %s |", ratio(s, direct, i))
				}
				if figure.bouncer {
					fmt.Fprintf(&rows, " %s |", ratio(s, bouncer, i))
				}
			}
			rows.WriteByte('\n')
		}
	}
	if rows.Len() == 0 {
		return ""
	}
	head, line := "| "+f.title+" | through |", "|---|---|"
	for i, figure := range f.figures {
		if !shown[i] {
			continue
		}
		head, line = head+" "+figure.name+" |", line+"---:|"
		if figure.direct {
			head, line = head+" of direct |", line+"---:|"
		}
		if figure.bouncer {
			head, line = head+" of PgBouncer |", line+"---:|"
		}
	}
	return "\n" + head + "\n" + line + "\n" + rows.String()
}

// known tells which figures anybody knows.
func (f *form) known(works []work, targets []*target, r results) []bool {
	known := make([]bool, len(f.figures))
	for _, w := range works {
		for _, t := range targets {
			for i, v := range r.median(w, t.name) {
				known[i] = known[i] || !math.IsNaN(v)
			}
		}
	}
	known[0] = true // there must be one to say "failed" in
	return known
}

// ratio is that of the i-th figure; empty where there is nothing to compare with.
func ratio(s, to sample, i int) string {
	if s == nil || to == nil || math.IsNaN(s[i]) || math.IsNaN(to[i]) || to[i] == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", s[i]/to[i])
}
