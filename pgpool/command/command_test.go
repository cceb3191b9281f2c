package command

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// run runs a line and returns what was logged.
func run(t *testing.T, ctx context.Context, line string, limit time.Duration) (string, error) {
	t.Helper()
	var out output
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key != slog.MessageKey {
			return slog.Attr{}
		}
		return a
	}}))
	err := Run(ctx, log, line, limit)
	return out.String(), err
}

// output may be written to after a command has ended, by what it left running.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func TestOutputIsLoggedByLine(t *testing.T) {
	got, err := run(t, t.Context(), "echo one; echo two >&2; echo; printf three", 0)
	if err != nil || got != "msg=one\nmsg=two\nmsg=three\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTheShellReadsTheLine(t *testing.T) {
	got, err := run(t, t.Context(), `x='a b'; for i in 1 2; do echo "$x" $i; done | tail -1`, 0)
	if err != nil || got != "msg=\"a b 2\"\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFailureIsTold(t *testing.T) {
	if _, err := run(t, t.Context(), "exit 7", 0); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("got %v", err)
	}
	if _, err := run(t, t.Context(), "/no/such/program", 0); err == nil || !strings.Contains(err.Error(), "127") {
		t.Errorf("got %v", err)
	}
}

// Whatever a command has started ends with it when its time is up.
func TestTimeLimit(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	since := time.Now()
	_, err := run(t, t.Context(), "(sleep 100; touch "+mark+") & sleep 100", 100*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "it was ended after 100ms") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(since); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("its child has gone on")
	}
}

func TestACommandThatDoesNotListen(t *testing.T) {
	if _, err := run(t, t.Context(), "trap '' TERM; while :; do sleep 1; done", 100*time.Millisecond); err == nil {
		t.Error("it ended well")
	}
}

func TestTheEndOfTheServerEndsIt(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	gone := errors.New("shutting down")
	time.AfterFunc(50*time.Millisecond, func() { end(gone) })
	if _, err := run(t, ctx, "sleep 100", 0); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

// A process in the background that keeps the output open delays nobody.
func TestBackgroundProcess(t *testing.T) {
	since := time.Now()
	got, err := run(t, t.Context(), "sleep 15 & echo done", 0)
	if err != nil || got != "msg=done\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if took := time.Since(since); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}
