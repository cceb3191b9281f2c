package eventlog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pgpool-go/conf"
)

// writes records each write on its own, to see that a report is one.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(b))
	return len(b), nil
}

func (w *writes) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.all, "\x00")
	w.all = nil
	return s
}

func config(change func(*conf.Config)) *conf.Config {
	c := &conf.Config{
		LogDestination:    []string{"stderr"},
		LogLinePrefix:     "%a: ",
		LogMinMessages:    conf.LevelWarning,
		LogErrorVerbosity: conf.VerbosityDefault,
		SyslogIdent:       "pgpool",
	}
	if change != nil {
		change(c)
	}
	return c
}

func configured(t *testing.T, change func(*conf.Config)) (*Journal, *writes) {
	t.Helper()
	w := new(writes)
	l := New(w)
	if err := l.Configure(config(change)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, w
}

var ctx = context.Background()

func TestLevelsRankAsInTheServerLog(t *testing.T) {
	all := []slog.Level{Debug5, Debug4, Debug3, Debug2, Debug1, Info, Notice, Warning, Error, Log, Fatal, Panic}
	first := map[conf.LogLevel]slog.Level{
		conf.LevelDebug5: Debug5, conf.LevelDebug4: Debug4, conf.LevelDebug3: Debug3, conf.LevelDebug2: Debug2,
		conf.LevelDebug1: Debug1, conf.LevelInfo: Info, conf.LevelNotice: Notice, conf.LevelWarning: Warning,
		conf.LevelError: Error, conf.LevelLog: Log, conf.LevelFatal: Fatal, conf.LevelPanic: Panic,
	}
	for minimum, from := range first {
		l, _ := configured(t, func(c *conf.Config) { c.LogMinMessages = minimum })
		for i, level := range all {
			if i > 0 && all[i-1] >= level {
				t.Errorf("level %d is not above its predecessor", level)
			}
			if got := l.Logger().Enabled(ctx, level); got != (level >= from) {
				t.Errorf("log_min_messages=%v: %s enabled = %v", minimum, word(level), got)
			}
		}
	}
}

func TestDefaultPrefix(t *testing.T) {
	w := new(writes)
	New(w).Logger().LogAttrs(ctx, Log, "reload config files.")
	line := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}: main pid ` + regexp.QuoteMeta(itoa(os.Getpid())) + `: LOG:  reload config files\.\n$`)
	if got := w.take(); !line.MatchString(got) {
		t.Errorf("got %q", got)
	}
}

func itoa(n int) string { return slog.IntValue(n).String() }

func TestPrefixEscapes(t *testing.T) {
	l, w := configured(t, func(c *conf.Config) {
		c.LogLinePrefix = "%a|%-6p|%6p|%3l|%d|%u|%P|%%|%z|%10:%-8u|"
	})
	s := l.Session(7, nil, nil)
	s.Log(ctx, Log, "one")
	s = s.With("app", "psql", "user", "ann", "db", "shop")
	s.Log(ctx, Log, "two")
	s.With("app", "").Log(ctx, Log, "three")
	l.Logger().Log(ctx, Log, "main")
	want := "child|7     |     7|  1|[No Connection]|[No Connection]|CHILD|%||[No Connection]|LOG:  one\n\x00" +
		"psql|7     |     7|  2|shop|ann|CHILD|%||ann     |LOG:  two\n\x00" +
		"[unknown]|7     |     7|  3|shop|ann|CHILD|%||ann     |LOG:  three\n\x00" +
		"main|" + "PID"
	pid := itoa(os.Getpid())
	rest := pid + strings.Repeat(" ", max(0, 6-len(pid))) + "|" + strings.Repeat(" ", max(0, 6-len(pid))) + pid + "|  1|[No Connection]|[No Connection]|MAIN|%||[No Connection]|LOG:  main\n"
	want = strings.ReplaceAll(want, "PID", rest)
	if got := w.take(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTimeEscapes(t *testing.T) {
	var w who
	l, _ := configured(t, nil)
	w = l.Logger().Handler().(*handler).who
	at := time.Date(2026, 11, 21, 19, 33, 46, 304_900_000, time.Local)
	if got := string(compile("%m|%t|%-21t|%").append(nil, &w, at)); got != "2026-11-21 19:33:46.304|2026-11-21 19:33:46|2026-11-21 19:33:46  |" {
		t.Errorf("got %q", got)
	}
}

func TestReports(t *testing.T) {
	tests := []struct {
		name      string
		verbosity conf.LogErrorVerbosity
		text      string
		attrs     []any
		want      string
	}{
		{"detail is the next line of the same write", conf.VerbosityDefault, "a", []any{"detail", "b"}, "LOG:  a\nDETAIL:  b\n"},
		{"hint", conf.VerbosityDefault, "a", []any{"hint", "c", "detail", "b"}, "LOG:  a\nDETAIL:  b\nHINT:  c\n"},
		{"terse", conf.VerbosityTerse, "a", []any{"detail", "b", "hint", "c"}, "LOG:  a\n"},
		{"an error is the detail", conf.VerbosityDefault, "a", []any{"err", errors.New("no way")}, "LOG:  a\nDETAIL:  no way\n"},
		{"so are other attributes", conf.VerbosityDefault, "a", []any{"n", 1, "s", "two words"}, "LOG:  a\nDETAIL:  n=1 s=\"two words\"\n"},
		{"unless there is a detail", conf.VerbosityDefault, "a", []any{"n", 1, "detail", "b"}, "LOG:  a\nDETAIL:  b\n"},
		{"attached attributes do not show", conf.VerbosityDefault, "a", nil, "LOG:  a\n"},
		{"tabs and line breaks", conf.VerbosityDefault, "select 1,\r\n\t2", nil, "LOG:  select 1,\r\n\t\t2\n"},
		{"a client cannot forge a line", conf.VerbosityDefault, "x\n2026-01-01: main pid 1: LOG:  forged\rLOG:  y\x1b[2Jz\x00", nil,
			"LOG:  x\n\t2026-01-01: main pid 1: LOG:  forged\\x0dLOG:  y\\x1b[2Jz\\x00\n"},
		{"nor in a detail", conf.VerbosityDefault, "x", []any{"detail", "a\nLOG:  b"}, "LOG:  x\nDETAIL:  a\n\tLOG:  b\n"},
		{"other encodings pass", conf.VerbosityDefault, "gr\xfc\xdfe grüße", nil, "LOG:  gr\xfc\xdfe grüße\n"},
		{"groups", conf.VerbosityDefault, "a", []any{slog.Group("g", "x", 1)}, "LOG:  a\nDETAIL:  g.x=1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, w := configured(t, func(c *conf.Config) {
				c.LogLinePrefix = ""
				c.LogErrorVerbosity = tt.verbosity
			})
			l.Logger().With("epoch", 4).Log(ctx, Log, tt.text, tt.attrs...)
			if got := w.take(); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestVerbose(t *testing.T) {
	l, w := configured(t, func(c *conf.Config) {
		c.LogLinePrefix = ""
		c.LogErrorVerbosity = conf.VerbosityVerbose
	})
	l.Logger().With("epoch", 4).Log(ctx, Log, "a", "detail", "b", "node", 1, "err", errors.New("x y"))
	want := regexp.MustCompile(`^LOG:  a\nDETAIL:  b\nCONTEXT:  epoch=4 node=1 err="x y"\nLOCATION:  eventlog_test\.go:\d+\n$`)
	if got := w.take(); !want.MatchString(got) {
		t.Errorf("got %q", got)
	}
}

func TestApplicationNameStaysOneLine(t *testing.T) {
	l, w := configured(t, nil)
	l.Session(1, nil, nil).With("app", "a\nLOG:  b").Log(ctx, Log, "t")
	if got := w.take(); got != "a\\x0aLOG:  b: LOG:  t\n" {
		t.Errorf("got %q", got)
	}
}

func TestSessionSettings(t *testing.T) {
	l, w := configured(t, nil)
	own := config(func(c *conf.Config) {
		c.LogMinMessages = conf.LevelDebug1
		c.LogErrorVerbosity = conf.VerbosityTerse
	})
	s := l.Session(1, nil, func() *conf.Config { return own })
	s.Log(ctx, Debug1, "selecting load balance node", "detail", "selected backend id is 1")
	if got := w.take(); got != "child: DEBUG:  selecting load balance node\n" {
		t.Errorf("got %q", got)
	}
	if l.Logger().Enabled(ctx, Debug1) {
		t.Error("one session's settings reach the others")
	}
}

func TestReloadReachesOldLoggers(t *testing.T) {
	l, w := configured(t, nil)
	log := l.Logger().With("app", "health_check0")
	if err := l.Configure(config(func(c *conf.Config) {
		c.LogMinMessages = conf.LevelInfo
		c.LogLinePrefix = "[%a] "
	})); err != nil {
		t.Fatal(err)
	}
	log.Info("now")
	if got := w.take(); got != "[health_check0] INFO:  now\n" {
		t.Errorf("got %q", got)
	}
}

func TestSecretsStayHidden(t *testing.T) {
	l, w := configured(t, nil)
	l.Logger().Log(ctx, Log, "x", "password", hidden("swordfish"))
	if got := w.take(); strings.Contains(got, "swordfish") {
		t.Errorf("got %q", got)
	}
}

type hidden string

func (hidden) LogValue() slog.Value { return slog.StringValue("*****") }

func TestConcurrentReportsDoNotMix(t *testing.T) {
	l, w := configured(t, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := l.Session(i, nil, nil)
			for range 100 {
				s.Log(ctx, Log, strings.Repeat("x", 100), "detail", "d")
			}
		})
	}
	for range 20 {
		if err := l.Configure(config(nil)); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	want := "child: LOG:  " + strings.Repeat("x", 100) + "\nchild: DETAIL:  d\n"
	if got := w.take(); got != strings.TrimSuffix(strings.Repeat(want+"\x00", 800), "\x00") {
		t.Error("reports are mixed")
	}
}

func TestDisabledLevelAllocatesNothing(t *testing.T) {
	l, _ := configured(t, nil)
	log := l.Session(1, nil, nil)
	attr := slog.String("detail", "d")
	if n := testing.AllocsPerRun(100, func() { log.LogAttrs(ctx, Debug1, "x", attr) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDisabled(b *testing.B) {
	log := New(&bytes.Buffer{}).Session(1, nil, nil)
	for b.Loop() {
		log.LogAttrs(ctx, Debug1, "x")
	}
}

func BenchmarkStatement(b *testing.B) {
	log := New(discard{}).Session(1, nil, nil).With("app", "psql")
	for b.Loop() {
		log.LogAttrs(ctx, Log, "DB node id: 0 backend pid: 1234 statement: select 1")
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
