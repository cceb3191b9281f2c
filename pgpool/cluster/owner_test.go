package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// start runs an owner until the test ends.
func start(t *testing.T, o *Owner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := o.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

func TestOwnerPublishes(t *testing.T) {
	var mu sync.Mutex
	var done []Effect
	o := New(settings(t, 2), Options{Perform: func(e Effect) {
		mu.Lock()
		defer mu.Unlock()
		done = append(done, e)
	}})
	start(t, o)
	if s := o.Now(); s.Epoch != 1 || s.Primary != -1 || !s.Usable(0) || !s.Usable(1) || s.Usable(2) || s.Probed() {
		t.Fatalf("first snapshot: %s", state(s))
	}
	var waited sync.WaitGroup
	waited.Go(func() {
		s, err := o.Wait(t.Context(), func(s *Snapshot) bool { return s.Primary == 0 })
		if err != nil || s.Primary != 0 {
			t.Errorf("Wait: %v", err)
		}
	})
	o.Submit(Probed{0, Facts{Role: Primary, Timeline: 1}})
	s, err := o.Do(t.Context(), Probed{1, Facts{Role: Standby, Timeline: 1}})
	if err != nil || s.Primary != 0 {
		t.Fatalf("Do: %v, %s", err, state(s))
	}
	waited.Wait()
	if _, err := o.Do(t.Context(), Suspected{1, errors.New("reset")}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(done, []Effect{ProbeNow{1}}) {
		t.Errorf("effects: %v", done)
	}
}

func TestOwnerUnderLoad(t *testing.T) {
	o := New(settings(t, 3), Options{})
	stop := start(t, o)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			last := uint64(0)
			for n := range 200 {
				node := (i + n) % 3
				if n%2 == 0 {
					o.Submit(ProbeFailed{Node: node, Cause: "timeout"})
				} else {
					o.Submit(Probed{node, Facts{Role: Standby}})
				}
				s := o.Now()
				if s.Epoch < last {
					t.Errorf("epoch %d after %d", s.Epoch, last)
				}
				last = s.Epoch
				o.Counters(node, i).Select.Add(1)
			}
			if _, err := o.Do(t.Context(), Suspected{0, nil}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if sum := o.Figures(0).Select + o.Figures(1).Select + o.Figures(2).Select; sum != 800 {
		t.Errorf("counted %d", sum)
	}
	stop()
	o.Submit(Suspected{0, nil}) // of no effect, and blocks nobody
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := o.Do(ctx, Attach{0, "x"}); err == nil {
		t.Error("an event was applied after the end")
	}
	if _, err := o.Wait(ctx, func(*Snapshot) bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
}

// lines collects what an owner logs.
type lines struct {
	slog.Handler
	mu  sync.Mutex
	all []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, r.Message)
	return nil
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

func TestStatusFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pgpool_status")
	cfg := settings(t, 3)
	log := new(lines)
	opts := Options{StatusFile: path, Log: slog.New(log)}
	want := func(content string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil || string(b) != content {
			t.Errorf("status file: %q, %v; want %q", b, err, content)
		}
	}
	said := func(texts ...string) {
		t.Helper()
		if got := log.take(); !slices.Equal(got, texts) {
			t.Errorf("logged %q, want %q", got, texts)
		}
	}

	o := New(cfg, opts)
	said(fmt.Sprintf("Backend status file %s does not exist", path))
	stop := start(t, o)
	if _, err := o.Do(t.Context(), Detach{1, "pcp", "asked for"}); err != nil {
		t.Fatal(err)
	}
	stop()
	want("up\ndown\nup\n")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	said("starting degeneration. shutdown host h(5002)", "failover: set new primary node: -1", "failover: set new main node: 0",
		"failover done. shutdown host h(5002)", "node 1 (h:5002) is not used any more")

	// read again; an unreachable node is not written as down
	o = New(cfg, opts)
	said("reading status file: 1 th backend is set to down status", "node 1 (h:5002) is not used any more")
	if n := o.Now().Nodes[1]; n.Status != Down || !n.Detached || n.By != "pgpool_status" {
		t.Errorf("node 1: %+v", n)
	}
	stop = start(t, o)
	o.Submit(ProbeFailed{Node: 2, Cause: "refused"})
	if _, err := o.Do(t.Context(), Attach{1, "pcp"}); err != nil {
		t.Fatal(err)
	}
	stop()
	want("up\nup\nup\n")

	// written by hand, and all down: not written
	if err := os.WriteFile(path, []byte("UP\r\ndown \ndown"), 0o644); err != nil {
		t.Fatal(err)
	}
	o = New(cfg, opts)
	if s := o.Now(); s.Usable(1) || s.Usable(2) || !s.Usable(0) {
		t.Errorf("read: %s", state(s))
	}
	log.take()
	stop = start(t, o)
	if _, err := o.Do(t.Context(), Detach{0, "pcp", "asked for"}); err != nil {
		t.Fatal(err)
	}
	stop()
	if got := log.take(); !slices.Contains(got, "All the DB nodes are in down status and skip writing status file.") {
		t.Errorf("logged %q", got)
	}

	opts.DiscardStatus = true
	o = New(cfg, opts)
	said(fmt.Sprintf("Backend status file %s discarded", path))
	if s := o.Now(); !s.Usable(1) {
		t.Errorf("discarded: %s", state(s))
	}
}

func TestStatusFileThatCannotBeWritten(t *testing.T) {
	log := new(lines)
	o := New(settings(t, 1), Options{StatusFile: "/dev/null/pgpool_status", Log: slog.New(log)})
	start(t, o)()
	if got := strings.Join(log.take(), "|"); !strings.Contains(got, "could not write backend status file /dev/null/pgpool_status") {
		t.Errorf("logged %q", got)
	}
}

func TestBinaryStatusFile(t *testing.T) {
	narrow := append([]byte{2, 3, 1}, make([]byte, 125)...)
	wide := make([]byte, 512)
	wide[0], wide[4], wide[8] = 2, 3, 1
	for _, b := range [][]byte{narrow, wide} {
		if got := binaryStatus(b); len(got) != 128 || !slices.Equal(got[:4], []string{"up", "down", "up", "unused"}) {
			t.Errorf("got %q", got[:4])
		}
	}
}

func TestShareAndNames(t *testing.T) {
	o := New(settings(t, 3, "backend_weight0 = 0", "backend_weight2 = 2"), Options{})
	s := o.Now()
	if got := fmt.Sprintf("%f %f %f", s.Share(0), s.Share(1), s.Share(2)); got != "0.000000 0.333333 0.666667" {
		t.Errorf("shares %s", got)
	}
	if got := fmt.Sprintf("%f", New(settings(t, 1, "backend_weight0 = 0"), Options{}).Now().Share(0)); got != "NaN" {
		t.Errorf("no weights: %s", got)
	}
	for i, want := range []string{"unused 0", "waiting 1", "up 2", "down 3", "quarantine 3"} {
		if got := fmt.Sprint(Status(i), Status(i).Number()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	n := Node{Host: "/run/pg", Port: 5432}
	if network, address := n.Network(); network != "unix" || address != "/run/pg/.s.PGSQL.5432" {
		t.Errorf("%s %s", network, address)
	}
	n.Host = "::1"
	if network, address := n.Network(); network != "tcp" || address != "[::1]:5432" {
		t.Errorf("%s %s", network, address)
	}
}

func TestHealthRecord(t *testing.T) {
	var h Health
	if got := strings.Join(h.Columns(), "|"); got != "0|0|0|0|0|0.000000|0|0|0|0.000000||||" {
		t.Errorf("nothing yet: %s", got)
	}
	at := func(sec int) time.Time { return time.Date(2026, 11, 22, 1, 51, sec, 0, time.Local) }
	h = h.Checked(true, 0, 10*time.Millisecond, at(1))
	h = h.Checked(false, 2, 2001*time.Millisecond, at(3))
	h = h.Checked(true, 0, 4*time.Millisecond, at(5))
	h = h.Skipped(at(7))
	want := "4|2|1|1|2|0.666667|2|2001|4|671.666667|2026-11-22 01:51:07|2026-11-22 01:51:05|2026-11-22 01:51:07|2026-11-22 01:51:03"
	if got := strings.Join(h.Columns(), "|"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
