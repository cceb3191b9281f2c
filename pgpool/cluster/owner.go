package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/conf"
)

// Options is what an Owner needs from those who use it.
type Options struct {
	Log *slog.Logger

	// Perform does the effects that are for others: ProbeNow and DrainPool.
	// It is called by Run and must not block; nil does nothing.
	Perform func(Effect)

	// StatusFile is the path of pgpool_status; empty: none is kept.
	// DiscardStatus removes it at start (pgpool -D).
	StatusFile    string
	DiscardStatus bool

	// Assert has every step held to what Reduce promises (pgpool -x). A broken
	// promise is logged as an error, and nothing else comes of it.
	Assert bool
}

// Owner owns the snapshot: its Run is the only place where it changes.
type Owner struct {
	opts Options
	now  atomic.Pointer[published]

	mu    sync.Mutex
	queue []entry
	wake  chan struct{}

	config *conf.Config // of Run

	counters AllCounters
	health   [conf.MaxBackends]atomic.Pointer[Health]

	written []string      // what the status file says; of the writer
	unsaved chan struct{} // WriteStatus for the writer
}

// published is a snapshot with the channel that is closed when the next one
// takes its place.
type published struct {
	Snapshot
	over chan struct{}
}

// entry is a submitted event, and who waits for it.
type entry struct {
	event Event
	done  chan struct{}
}

// New returns an owner whose snapshot has the configured nodes, less those
// that the status file has down. Nothing changes before Run.
func New(c *conf.Config, opts Options) *Owner {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	o := &Owner{
		opts:    opts,
		config:  c,
		wake:    make(chan struct{}, 1),
		unsaved: make(chan struct{}, 1),
	}
	first := First(o.rules())
	o.now.Store(&published{Snapshot: first, over: make(chan struct{})})
	o.readStatus()
	return o
}

// readStatus takes over pgpool_status, or discards it.
func (o *Owner) readStatus() {
	path := o.opts.StatusFile
	if path == "" {
		return
	}
	if o.opts.DiscardStatus {
		if err := removeStatusFile(path); err != nil {
			o.report(Report{slog.LevelWarn, fmt.Sprintf("could not discard backend status file %s", path), err.Error()})
			return
		}
		o.report(Report{levelLog, fmt.Sprintf("Backend status file %s discarded", path), ""})
		return
	}
	words, err := readStatusFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		o.report(Report{levelLog, fmt.Sprintf("Backend status file %s does not exist", path), ""})
	case err != nil:
		o.report(Report{slog.LevelWarn, fmt.Sprintf("could not read backend status file %s", path), err.Error()})
	default:
		o.apply(StatusRead{Words: words})
	}
}

// Now is the present snapshot. It is never changed; keep it as long as one
// decision lasts.
func (o *Owner) Now() *Snapshot { return &o.now.Load().Snapshot }

// Watch is the present snapshot and a channel that is closed when another
// takes its place.
func (o *Owner) Watch() (*Snapshot, <-chan struct{}) {
	p := o.now.Load()
	return &p.Snapshot, p.over
}

// Wait returns the first snapshot, present or future, for which want is true.
func (o *Owner) Wait(ctx context.Context, want func(*Snapshot) bool) (*Snapshot, error) {
	for {
		s, over := o.Watch()
		if want(s) {
			return s, nil
		}
		select {
		case <-over:
		case <-ctx.Done():
			return s, context.Cause(ctx)
		}
	}
}

// Submit tells that something happened. It never blocks and may be called by
// anyone; after Run has ended it is of no effect.
func (o *Owner) Submit(ev Event) { o.submit(entry{event: ev}) }

// Do submits an event and returns the snapshot that knows of it.
func (o *Owner) Do(ctx context.Context, ev Event) (*Snapshot, error) {
	done := make(chan struct{})
	o.submit(entry{ev, done})
	select {
	case <-done:
		return o.Now(), nil
	case <-ctx.Done():
		return o.Now(), context.Cause(ctx)
	}
}

func (o *Owner) submit(e entry) {
	o.mu.Lock()
	o.queue = append(o.queue, e)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run applies events in the order they were submitted, until ctx ends.
func (o *Owner) Run(ctx context.Context) error {
	var writer sync.WaitGroup
	stop := make(chan struct{})
	if o.opts.StatusFile != "" {
		writer.Go(func() { o.writeStatus(stop) })
		o.save()
	}
	defer writer.Wait()
	defer close(stop)
	for {
		select {
		case <-o.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		o.mu.Lock()
		batch := o.queue
		o.queue = nil
		o.mu.Unlock()
		for _, e := range batch {
			o.apply(e.event)
			if e.done != nil {
				close(e.done)
			}
		}
	}
}

func (o *Owner) rules() Rules { return Rules{Config: o.config, Now: time.Now()} }

// apply reduces one event, publishes, then has the effects done.
func (o *Owner) apply(ev Event) {
	if change, ok := ev.(ConfigChanged); ok {
		o.config = change.Config
	}
	old := o.now.Load()
	next, effects := Reduce(old.Snapshot, ev, o.rules())
	if o.opts.Assert {
		if bad := broken(&old.Snapshot, &next, ev, effects, o.config); bad != "" {
			o.report(Report{slog.LevelError, "assertion failed: " + bad, fmt.Sprintf("event %T %+v, epoch %d", ev, ev, next.Epoch)})
		}
	}
	if next.Epoch != old.Epoch {
		o.now.Store(&published{Snapshot: next, over: make(chan struct{})})
		close(old.over)
	}
	for _, e := range effects {
		switch e := e.(type) {
		case Report:
			o.report(e)
		case WriteStatus:
			o.save()
		default:
			if o.opts.Perform != nil {
				o.opts.Perform(e)
			}
		}
	}
}

func (o *Owner) report(r Report) {
	var attrs []slog.Attr
	if r.Detail != "" {
		attrs = append(attrs, slog.String("detail", r.Detail))
	}
	o.opts.Log.LogAttrs(context.Background(), r.Level, r.Text, attrs...)
}

func (o *Owner) save() {
	select {
	case o.unsaved <- struct{}{}:
	default:
	}
}

// writeStatus keeps the status file up to date; a slow disk delays nobody.
func (o *Owner) writeStatus(stop <-chan struct{}) {
	for {
		select {
		case <-o.unsaved:
			o.writeNow()
		case <-stop:
			select {
			case <-o.unsaved:
				o.writeNow()
			default:
			}
			return
		}
	}
}

func (o *Owner) writeNow() {
	words := statusWords(o.Now())
	if slices.Equal(words, o.written) {
		return
	}
	if !slices.Contains(words, "up") { // a restart must find somebody to serve
		o.report(Report{slog.LevelWarn, "All the DB nodes are in down status and skip writing status file.", ""})
		return
	}
	if err := writeStatusFile(o.opts.StatusFile, words); err != nil {
		o.report(Report{slog.LevelWarn, "could not write backend status file " + o.opts.StatusFile, err.Error()})
		return
	}
	o.written = words
}

// Counters are the statement counters of a node for whoever runs in a lane, of which
// there may be any number.
func (o *Owner) Counters(node, lane int) *Counters { return &o.counters[lane%lanes][node] }

// Figures are what has been counted of a node in all.
func (o *Owner) Figures(node int) Figures { return o.counters.sum(node) }

// Health is the record of a node's health checks.
func (o *Owner) Health(node int) Health {
	if h := o.health[node].Load(); h != nil {
		return *h
	}
	return Health{}
}

// SetHealth replaces the record of a node's health checks.
func (o *Owner) SetHealth(node int, h Health) { o.health[node].Store(&h) }
