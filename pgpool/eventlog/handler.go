package eventlog

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/conf"
)

// who is what a line says about its writer. The original has a process per
// writer and counts lines (%l) per process; here each of our writers counts
// its own.
type who struct {
	app, user, database string
	pid                 int64
	session             bool
	lines               *atomic.Int64
}

// kind is the original's process type (%P), where it has one.
func (w *who) kind() string {
	switch {
	case w.session:
		return "CHILD"
	case w.app == "main":
		return "MAIN"
	case w.app == "sr_check_worker":
		return "WORKER"
	case w.app == "pcp_main", w.app == "pcp_child":
		return "PCP CHILD"
	}
	return ""
}

// handler is the slog.Handler. Handlers are immutable; With makes new ones.
type handler struct {
	log     *Journal
	who     who
	config  func() *conf.Config // a session's own settings, or nil
	context []byte              // attributes attached by With, formatted
	group   string              // prefix of further keys
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	if h.config != nil {
		if c := h.config(); c != nil {
			return level >= LevelOf(c.LogMinMessages)
		}
	}
	return level >= h.log.settings.Load().min
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

func (h *handler) Handle(_ context.Context, rec slog.Record) error {
	s := h.log.settings.Load()
	v := s.verbosity
	if h.config != nil {
		if c := h.config(); c != nil {
			v = verbosityOf(c)
		}
	}
	r := report{time: rec.Time, level: rec.Level, text: rec.Message, pc: rec.PC}
	if r.time.IsZero() {
		r.time = time.Now()
	}
	r.time = r.time.In(time.Local)
	w := h.who
	var pairs []byte
	var cause string
	rec.Attrs(func(a slog.Attr) bool {
		a.Value = a.Value.Resolve()
		if h.group == "" {
			switch a.Key {
			case "detail":
				r.detail = a.Value.String()
				return true
			case "hint":
				r.hint = a.Value.String()
				return true
			case "err":
				cause = a.Value.String()
				return true
			}
			if w.take(a) {
				return true
			}
		}
		pairs = appendAttr(pairs, h.group, a)
		return true
	})
	r.context = h.context
	switch {
	case r.detail != "" && cause != "":
		pairs = appendPair(pairs, "err", cause)
	case r.detail == "":
		r.detail = cause
	}
	if r.detail == "" {
		r.detail = string(pairs)
	} else if len(pairs) > 0 {
		r.context = slices.Concat(r.context, []byte(" "), pairs)
	}

	bp := buffers.Get().(*[]byte)
	buf := r.append((*bp)[:0], s, v, &w)
	h.log.write(s, rec.Level, buf, r.time)
	if cap(buf) <= 64<<10 {
		*bp = buf
		buffers.Put(bp)
	}
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.context = slices.Clip(next.context)
	for _, a := range attrs {
		a.Value = a.Value.Resolve()
		if h.group == "" && next.who.take(a) {
			if a.Key == "session" || a.Key == "app" && !next.who.session {
				next.who.lines = new(atomic.Int64)
			}
			continue
		}
		next.context = appendAttr(next.context, h.group, a)
	}
	return &next
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.group += name + "."
	return &next
}

// take reads an attribute that belongs to the prefix.
func (w *who) take(a slog.Attr) bool {
	switch a.Key {
	case "app":
		w.app = appName(a.Value.String())
	case "session":
		switch a.Value.Kind() {
		case slog.KindInt64:
			w.pid = a.Value.Int64()
		case slog.KindUint64:
			w.pid = int64(a.Value.Uint64())
		default:
			n, err := strconv.ParseInt(a.Value.String(), 10, 64)
			if err != nil {
				return false
			}
			w.pid = n
		}
		w.session = true
	case "user":
		w.user = a.Value.String()
	case "db":
		w.database = a.Value.String()
	default:
		return false
	}
	return true
}

func appendAttr(buf []byte, group string, a slog.Attr) []byte {
	if a.Equal(slog.Attr{}) {
		return buf
	}
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, sub := range a.Value.Group() {
			sub.Value = sub.Value.Resolve()
			buf = appendAttr(buf, group, sub)
		}
		return buf
	}
	return appendPair(buf, group+a.Key, a.Value.String())
}
