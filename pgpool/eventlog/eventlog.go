// Package eventlog answers: how does this program write down what happened?
//
// It is a [slog.Handler] with the line format, the levels and the
// destinations of the original, because people's scripts read them: a line
// starts with log_line_prefix, then "LEVEL:  text"; a detail and a hint are
// lines of their own behind it, and one report is one write. What was said by
// a client can never look like a line of ours.
//
// A report's text is written word for word. Of its attributes, "app",
// "session", "user" and "db" feed the prefix (%a, %p, %u, %d); "detail" and
// "hint" become DETAIL and HINT lines; "err" is the detail where none is
// given, and so are the call's other attributes as key=value. Those attached
// with Logger.With show only at log_error_verbosity = verbose, as CONTEXT.
//
// The package decides nothing about what is worth a line, and it never blocks
// on anything but its destination. A new escape of the prefix goes to
// prefix.go, a new line of a report to format.go, a new destination gets a
// file and a case in Journal.write.
package eventlog

import (
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/conf"
)

// Journal is the one log of a server. Its destinations are set by Configure,
// before which it writes warnings and worse to the writer of New.
type Journal struct {
	settings atomic.Pointer[settings]

	mu  sync.Mutex // one report at a time on out
	out io.Writer

	syslog syslogSink
	files  collector
}

// New returns a journal that writes to w (the process's stderr).
func New(w io.Writer) *Journal {
	l := &Journal{out: w}
	l.settings.Store(&settings{
		min:       Warning,
		verbosity: usual,
		prefix:    compile("%m: %a pid %p: "),
		stderr:    true,
	})
	return l
}

// settings is all that a reload may change.
type settings struct {
	min            slog.Level
	verbosity      verbosity
	prefix         prefix
	stderr, syslog bool
	facility       int
	ident          string
	collect        bool
}

type verbosity int8

const (
	terse verbosity = iota
	usual
	verbose
)

// Logger is the log for everything that is no session: the app "main" until
// an attribute "app" says otherwise, with the pid of the process.
func (l *Journal) Logger() *slog.Logger {
	return slog.New(&handler{log: l, who: who{
		app: "main", pid: int64(os.Getpid()), lines: new(atomic.Int64),
	}})
}

// Client is whom a session serves.
type Client struct{ App, User, Database string }

// Session is the log of the client session in a slot, which stands where the
// original has the pid of a child. It speaks for client, or if that is nil for
// one who is not known yet. If config is not nil it returns the
// settings of that session, whose log_min_messages and log_error_verbosity
// then count (PGPOOL SET); it is called by the goroutine that logs.
func (l *Journal) Session(slot int, client *Client, config func() *conf.Config) *slog.Logger {
	h := &struct {
		handler
		lines atomic.Int64
	}{handler: handler{log: l, config: config, who: who{app: "child", pid: int64(slot), session: true}}}
	h.who.lines = &h.lines
	if client != nil {
		h.who.app, h.who.user, h.who.database = appName(client.App), client.User, client.Database
	}
	return slog.New(&h.handler)
}

// appName is how an application is called that has no name.
func appName(name string) string {
	if name == "" {
		return "[unknown]"
	}
	return name
}

// Rotate begins a new file (pcp_log_rotate). Without logging_collector it
// does nothing.
func (l *Journal) Rotate() error {
	if !l.settings.Load().collect {
		return nil
	}
	return l.files.rotate(time.Now(), byRequest)
}

// Close closes what the log opened. Later reports go to the writer of New.
func (l *Journal) Close() error {
	s := *l.settings.Load()
	s.collect, s.syslog, s.stderr = false, false, true
	l.settings.Store(&s)
	l.syslog.close()
	return l.files.close()
}

// write sends one formatted report to its destinations. A destination that
// fails is nobody's fault here and has no better place to be reported than
// the one that is left.
func (l *Journal) write(s *settings, level slog.Level, lines []byte, now time.Time) {
	if s.syslog {
		l.syslog.send(s.facility|severity(level), s.ident, lines, now)
	}
	if !s.stderr {
		return
	}
	if s.collect && l.files.write(lines, now) == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out.Write(lines)
}
