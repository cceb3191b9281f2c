package eventlog

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgpool-go/conf"
)

func listenSyslog(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	old := syslogPath
	syslogPath = filepath.Join(dir, "log")
	t.Cleanup(func() { syslogPath = old })
	return listenAgain(t)
}

func listenAgain(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: syslogPath, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// received reads one message and takes the time off.
func received(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	pri, rest, _ := strings.Cut(string(b[:n]), ">")
	return pri + ">" + strings.Replace(rest[len(time.Stamp)+1:], itoa(os.Getpid()), "PID", 1)
}

func TestSyslog(t *testing.T) {
	daemon := listenSyslog(t)
	l, w := configured(t, func(c *conf.Config) {
		c.LogDestination = []string{"syslog"}
		c.SyslogFacility = 3
		c.SyslogIdent = "pool"
	})
	l.Logger().Log(ctx, Log, "a\nb", "detail", "c")
	l.Logger().Log(ctx, Warning, strings.Repeat("x", 880)+" "+strings.Repeat("y", 100))
	for _, want := range []string{
		"<158>pool[PID]: [1-1] main: LOG:  a",
		"<158>pool[PID]: [1-2] \tb",
		"<158>pool[PID]: [1-3] main: DETAIL:  c",
		"<157>pool[PID]: [2-1] main: WARNING:  " + strings.Repeat("x", 880),
		"<157>pool[PID]: [2-2]  " + strings.Repeat("y", 100),
	} {
		if got := received(t, daemon); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	if got := w.take(); got != "" {
		t.Errorf("stderr got %q", got)
	}
}

func TestSyslogPieces(t *testing.T) {
	var got []string
	for piece, rest := nextPiece([]byte(strings.Repeat("ä", 1000) + "\n\nend\n")); piece != nil; piece, rest = nextPiece(rest) {
		got = append(got, string(piece))
	}
	want := []string{strings.Repeat("ä", 450), strings.Repeat("ä", 450), strings.Repeat("ä", 100), "end"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestSyslogDaemonRestarts(t *testing.T) {
	daemon := listenSyslog(t)
	l, _ := configured(t, func(c *conf.Config) { c.LogDestination = []string{"syslog"} })
	l.Logger().Log(ctx, Log, "one")
	received(t, daemon)
	daemon.Close()
	os.Remove(syslogPath)
	l.Logger().Log(ctx, Log, "lost")
	daemon = listenAgain(t)
	l.Logger().Log(ctx, Log, "three")
	if got := received(t, daemon); !strings.HasSuffix(got, "[3-1] main: LOG:  three") {
		t.Errorf("got %q", got)
	}
}

func TestBothDestinations(t *testing.T) {
	daemon := listenSyslog(t)
	l, w := configured(t, func(c *conf.Config) { c.LogDestination = []string{"stderr", "syslog"} })
	l.Logger().Log(ctx, Error, "x")
	if got := received(t, daemon); got != "<132>pgpool[PID]: [1-1] main: ERROR:  x" {
		t.Errorf("syslog got %q", got)
	}
	if got := w.take(); got != "main: ERROR:  x\n" {
		t.Errorf("stderr got %q", got)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCollectorWritesFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	change := func(c *conf.Config) {
		c.LoggingCollector = true
		c.LogDirectory = dir
		c.LogFilename = "one.log"
		c.LogFileMode = 0o640
	}
	l, w := configured(t, change)
	log := l.Logger()
	log.Log(ctx, Log, "a")
	if got := read(t, filepath.Join(dir, "one.log")); got != "main: LOG:  a\n" {
		t.Errorf("file has %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "one.log"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// logrotate moved the file away and asks for a new one
	if err := os.Rename(filepath.Join(dir, "one.log"), filepath.Join(dir, "one.log.1")); err != nil {
		t.Fatal(err)
	}
	if err := l.Rotate(); err != nil {
		t.Fatal(err)
	}
	log.Log(ctx, Log, "b")
	if got := read(t, filepath.Join(dir, "one.log")); got != "main: LOG:  b\n" {
		t.Errorf("file has %q", got)
	}
	// a reload with another name changes files, one that fails keeps stderr
	if err := l.Configure(config(func(c *conf.Config) { change(c); c.LogFilename = "two.log" })); err != nil {
		t.Fatal(err)
	}
	log.Log(ctx, Log, "c")
	if got := read(t, filepath.Join(dir, "two.log")); got != "main: LOG:  c\n" {
		t.Errorf("file has %q", got)
	}
	if got := w.take(); got != "" {
		t.Errorf("stderr got %q", got)
	}
}

func TestCollectorThatCannotWrite(t *testing.T) {
	w := new(writes)
	l := New(w)
	err := l.Configure(config(func(c *conf.Config) {
		c.LoggingCollector = true
		c.LogDirectory = "/dev/null/logs"
		c.LogFilename = "x"
	}))
	if err == nil {
		t.Fatal("no error")
	}
	l.Logger().Log(ctx, Log, "still here")
	if got := w.take(); got != "main: LOG:  still here\n" {
		t.Errorf("stderr got %q", got)
	}
}

func TestCollectorRotation(t *testing.T) {
	dir := t.TempDir()
	at := func(clock string) time.Time {
		when, err := time.ParseInLocation(time.DateTime, "2026-11-21 "+clock, time.Local)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	var c collector
	if err := os.WriteFile(filepath.Join(dir, "11.log"), []byte("yesterday\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "10.log"), []byte("earlier\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.configure(files{directory: dir, name: "%H.log", mode: 0o600, truncate: true, age: time.Hour, size: 1 << 20}, at("10:20:00")); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	put := func(clock, text string) {
		t.Helper()
		if err := c.write([]byte(text), at(clock)); err != nil {
			t.Fatal(err)
		}
	}
	put("10:59:59", "a\n")
	put("11:00:00", "b\n")
	put("11:30:00", "c\n")
	put("13:45:00", "d\n")
	for name, want := range map[string]string{"10.log": "earlier\na\n", "11.log": "b\nc\n", "13.log": "d\n"} {
		if got := read(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}

	if err := c.configure(files{directory: dir, name: "%M%S.log", mode: 0o600, size: 4}, at("14:00:01")); err != nil {
		t.Fatal(err)
	}
	put("14:00:01", "1234\n")
	put("14:00:02", "5\n")
	if got := read(t, filepath.Join(dir, "0001.log")); got != "1234\n" {
		t.Errorf("first file has %q", got)
	}
	if got := read(t, filepath.Join(dir, "0002.log")); got != "5\n" {
		t.Errorf("second file has %q", got)
	}
}

func TestStrftime(t *testing.T) {
	when := time.Date(2026, 1, 4, 15, 4, 5, 0, time.UTC) // a Sunday
	got := strftime("pgpool-%Y-%m-%d_%H%M%S.log|%y|%j|%a %A|%b %B|%e|%p %I|%u %w|%U %W %V|%s|%F %T|%%|%q|%", when)
	want := "pgpool-2026-01-04_150405.log|26|004|Sun Sunday|Jan January| 4|PM 03|7 0|01 00 01|1767539045|2026-01-04 15:04:05|%|%q|%"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
