package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// figure is one of the things a work finds out about a target.
type figure struct {
	name    string
	digits  int  // behind the point
	direct  bool // its relation to no proxy is shown, too,
	bouncer bool // and that to PgBouncer in the same mode
}

// form is a table: works that find out the same.
type form struct {
	title   string
	figures []figure
}

// sample is what one run found out, in the order of the form's figures; unknown
// stands for what could not be.
type sample []float64

var unknown = math.NaN()

// work is something that targets are made to do.
type work struct {
	name    string // as the command line has it
	label   string // as the table has it
	form    *form
	targets []string // that can do it
	once    bool     // further rounds would tell nothing new
	run     func(ctx context.Context, b *bench, t *target) (sample, error)
}

// id tells works apart that bear the same name.
func (w work) id() string { return w.name + ": " + w.label }

// errSkipped is a work that this machine cannot do.
var errSkipped = errors.New("skipped")

// results are the runs by work and target; a run that failed is not among them.
type results map[[2]string][]sample

// measure has the targets do every work in every round. They take turns, so that
// a slow minute of the machine hits all of them, and each round begins with
// another one. For each round they are started anew: where the memory of a proxy
// and of the server processes behind it happens to lie makes it up to a tenth
// faster or slower for as long as they live.
func (b *bench) measure(ctx context.Context, works []work, progress io.Writer) (results, []*target, error) {
	r := make(results)
	var targets []*target
	for round := range b.rounds {
		var err error
		targets, err = b.start(ctx, progress)
		if err == nil {
			err = b.round(ctx, round, targets, works, r, progress)
		}
		stopAll(targets)
		if err != nil {
			return nil, nil, err
		}
	}
	return r, targets, nil
}

// round has each target do every work once.
func (b *bench) round(ctx context.Context, round int, targets []*target, works []work, r results, progress io.Writer) error {
	for _, w := range works {
		if w.once && round > 0 {
			continue
		}
		for i := range targets {
			t := targets[(i+round)%len(targets)]
			if !slices.Contains(w.targets, t.name) {
				continue
			}
			s, err := w.run(ctx, b, t)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil && len(s) != len(w.form.figures) {
				panic("bench: " + w.name + " does not fill its form")
			}
			if err != nil {
				fmt.Fprintf(progress, "!!! round %d  %s  %s: %v\n", round+1, w.id(), t.name, err)
				continue
			}
			fmt.Fprintf(progress, "round %d  %-62s %-16s %s\n", round+1, w.id(), t.name, w.form.line(s))
			key := [2]string{w.id(), t.name}
			r[key] = append(r[key], s)
		}
	}
	return nil
}

// line shows a sample in one line.
func (f *form) line(s sample) string {
	var words []string
	for i, figure := range f.figures {
		if v := figure.text(s[i]); v != "" {
			words = append(words, v+" "+figure.name)
		}
	}
	return strings.Join(words, ", ")
}

// text is a value as a table shows it; nothing, if it is unknown.
func (f figure) text(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'f', f.digits, 64)
}

// median is that of each figure by itself; nil if no run succeeded.
func (r results) median(w work, target string) sample {
	runs := r[[2]string{w.id(), target}]
	if len(runs) == 0 {
		return nil
	}
	m := make(sample, len(w.form.figures))
	for i := range m {
		var known []float64
		for _, s := range runs {
			if !math.IsNaN(s[i]) {
				known = append(known, s[i])
			}
		}
		m[i] = middle(known)
	}
	return m
}

func middle(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return unknown
	}
	slices.Sort(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
