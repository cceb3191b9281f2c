package pcp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are pipes, for tests with a false clock.
type pipes struct {
	calls chan net.Conn
	gone  chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.gone:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.gone:
	default:
		close(p.gone)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.calls <- there
	return here
}

func account(user string) ([]string, error) {
	if user == "admin" {
		return []string{HashPassword("other"), HashPassword("secret")}, nil
	}
	return nil, nil
}

// bubble runs a server and a test of it under a false clock.
func bubble(t *testing.T, admin Admin, opt Options, test func(t *testing.T, p *pipes, end func())) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, p, admin, func() Options { return opt }) }()
		test(t, p, cancel)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func closed(nc net.Conn) bool {
	_, err := nc.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)
}

func TestStrangerIsSentAwayAfterLoginTimeout(t *testing.T) {
	bubble(t, &script{}, Options{Credentials: account}, func(t *testing.T, p *pipes, _ func()) {
		silent, slow := p.dial(), p.dial()
		var sender sync.WaitGroup
		defer sender.Wait()
		sender.Go(func() { // keeps sending, one byte at a time, and never gets there
			for _, err := slow.Write([]byte{'M'}); err == nil; _, err = slow.Write([]byte{0}) {
				time.Sleep(10 * time.Second) // of the false clock
			}
		})
		start := time.Now()
		for _, nc := range []net.Conn{silent, slow} {
			if !closed(nc) {
				t.Error("still open")
			}
		}
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("closed after %v", d)
		}
	})
}

func TestIdleClientIsSentAway(t *testing.T) {
	bubble(t, &script{}, Options{Credentials: account}, func(t *testing.T, p *pipes, _ func()) {
		nc := p.dial()
		if err := NewClient(nc).Login("admin", "secret"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if !closed(nc) {
			t.Error("still open")
		}
		if d := time.Since(start); d != 10*time.Minute {
			t.Errorf("closed after %v", d)
		}
	})
}

// stuck is an Admin that does not come back until its context ends.
type stuck struct{ script }

func (s *stuck) AttachNode(ctx context.Context, _ int) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestCommandHasDeadline(t *testing.T) {
	bubble(t, &stuck{}, Options{Credentials: account}, func(t *testing.T, p *pipes, _ func()) {
		c := NewClient(p.dial())
		if err := c.Login("admin", "secret"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err := c.AttachNode(1)
		if want := "could not process attach request: no result in time"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if d := time.Since(start); d != DefaultDeadline(AttachNode) {
			t.Errorf("answered after %v", d)
		}
		if _, err := c.NodeCount(); err != nil {
			t.Errorf("the next command: %v", err)
		}
	})
}

func TestEndOfServing(t *testing.T) {
	bubble(t, &stuck{}, Options{Credentials: account}, func(t *testing.T, p *pipes, end func()) {
		stranger, idle, busy := p.dial(), p.dial(), NewClient(p.dial())
		if err := errors.Join(NewClient(idle).Login("admin", "secret"), busy.Login("admin", "secret")); err != nil {
			t.Fatal(err)
		}
		answer := make(chan error)
		go func() { answer <- busy.AttachNode(1) }()
		synctest.Wait()
		end()
		if !closed(stranger) || !closed(idle) {
			t.Error("still open")
		}
		if err := <-answer; err == nil || !strings.Contains(err.Error(), "shutting down") {
			t.Errorf("got %v", err)
		}
	})
}

func TestStrangersCannotTakeThePort(t *testing.T) {
	bubble(t, &script{count: 5}, Options{Credentials: account, MaxConnections: 3}, func(t *testing.T, p *pipes, _ func()) {
		var strangers []net.Conn
		for range 3 {
			strangers = append(strangers, p.dial())
			synctest.Wait()
		}
		var known []*Client
		for i := range 3 {
			c := NewClient(p.dial())
			if err := c.Login("admin", "secret"); err != nil {
				t.Fatal(err)
			}
			known = append(known, c)
			if !closed(strangers[i]) {
				t.Errorf("stranger %d keeps its place", i)
			}
		}
		for _, c := range known {
			if n, err := c.NodeCount(); n != 5 || err != nil {
				t.Errorf("got %d, %v", n, err)
			}
		}
		known[0].Close()
		synctest.Wait()
		if err := NewClient(p.dial()).Login("admin", "secret"); err != nil {
			t.Errorf("in a place become free: %v", err)
		}
	})
}

func TestMoreClientsThanPlaces(t *testing.T) {
	addr := serve(t, &script{}, Options{Credentials: account, MaxConnections: 1})
	if err := NewClient(dial(t, addr)).Login("admin", "secret"); err != nil {
		t.Fatal(err)
	}
	err := NewClient(dial(t, addr)).Login("admin", "secret")
	if bad, ok := errors.AsType[*Error](err); !ok || bad.Severity != SeverityFatal {
		t.Errorf("got %v", err)
	}
}

func TestClientThatDoesNotReadIsDropped(t *testing.T) {
	bubble(t, &script{}, Options{Credentials: account}, func(t *testing.T, p *pipes, _ func()) {
		nc := p.dial()
		if err := NewClient(nc).Login("admin", "secret"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		nc.Write(appendMessage(nil, 'L', nil))
		if _, err := nc.Write(appendMessage(nil, 'L', nil)); err == nil || time.Since(start) != writeTimeout {
			t.Errorf("second request: %v after %v", err, time.Since(start))
		}
	})
}

func TestLogin(t *testing.T) {
	unreadable := func(string) ([]string, error) {
		return nil, UnreadableCredentials("/etc/pcp.conf", errors.New("No such file or directory"))
	}
	for _, c := range []struct {
		name, user, password string
		credentials          func(string) ([]string, error)
		want                 string
	}{
		{"first of two entries", "admin", "other", account, ""},
		{"second of two entries", "admin", "secret", account, ""},
		{"neither", "admin", "wrong", account, `authentication failed for user "admin": ` + badLogin},
		{"unknown user", "nobody", "secret", account, `authentication failed for user "nobody": ` + badLogin},
		{"no user", "", "secret", account, `authentication failed for user "": ` + badLogin},
		{"nobody may", "admin", "secret", nil, `authentication failed for user "admin": ` + badLogin},
		{"file unreadable", "admin", "secret", unreadable, "failed to authenticate PCP user: could not open /etc/pcp.conf. reason: No such file or directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc := dial(t, serve(t, &script{}, Options{Credentials: c.credentials}))
			got := ""
			if err := NewClient(nc).Login(c.user, c.password); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestWatchdogNamesArePlain(t *testing.T) {
	w := Watchdog{Nodes: []WatchdogNode{{ID: 3, Name: `<a> & "b"`}}}
	b, err := w.append(nil, LayoutNew)
	if err != nil || !bytes.Contains(b, []byte(`"NodeName":"<a> & \"b\""`)) || !bytes.Contains(b, []byte(`"LifecheckStarted":0`)) {
		t.Errorf("got %s, %v", b, err)
	}
	if n := w.only(4).Nodes; len(n) != 1 || n[0].State != -1 || n[0].Name != notSet {
		t.Errorf("unknown id: %+v", n)
	}
	if w.Nodes[0].ID != 3 {
		t.Error("the Admin's value was changed")
	}
}

func TestTexts(t *testing.T) {
	start := time.Date(2026, 11, 21, 19, 29, 34, 0, time.UTC)
	for _, c := range []struct{ got, want string }{
		{WallTime(time.Time{}), ""},
		{WallTime(start), "2026-11-21 19:29:34"},
		{StartText(start, 266*time.Second), "2026-11-21 19:29:34 (4:26 before process restarting)"},
		{StartText(start, 0), "2026-11-21 19:29:34"},
		{IdleText(7*time.Second, 0), "7"},
		{IdleText(7*time.Second, 65*time.Second), "7 (1:05 before client disconnected)"},
		{Down.Name(true), "quarantine"},
		{Down.Name(false), "down"},
		{NodeStatus(9).Name(false), "unknown"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// FuzzServer: whatever a client sends, before or after logging in, the server
// answers in whole messages and goes on serving others.
func FuzzServer(f *testing.F) {
	for _, r := range loadRecordings(f) {
		var sent []byte
		for _, s := range r.steps {
			if s.client {
				sent = append(sent, s.bytes...)
			}
		}
		f.Add(sent, true)
	}
	f.Add([]byte("M\x00\x00\x00\x04R\x7f\xff\xff\xff"), false)
	f.Fuzz(func(t *testing.T, sent []byte, known bool) {
		here, there := net.Pipe()
		c := &conn{Conn: there, r: bufio.NewReader(there), admin: &script{count: 2}, opt: Options{Credentials: account}.withDefaults()}
		c.log = c.opt.Log
		if known {
			c.user = "admin"
		}
		go func() {
			here.Write(sent)
			here.Close()
		}()
		go io.Copy(io.Discard, here)
		c.serve(context.Background(), &door{})
		there.Close()
	})
}

// FuzzClient: whatever a server answers, each question of a client ends.
func FuzzClient(f *testing.F) {
	for _, r := range loadRecordings(f) {
		var sent []byte
		for _, s := range r.steps {
			if !s.client && s.bytes[0] != 'm' && s.bytes[0] != 'r' {
				sent = append(sent, s.bytes...)
			}
		}
		f.Add(sent)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		for _, ask := range []func(*Client){
			func(c *Client) { c.NodeCount() },
			func(c *Client) { c.Nodes(All) },
			func(c *Client) { c.HealthStats(0) },
			func(c *Client) { c.ProcessIDs() },
			func(c *Client) { c.Processes(0) },
			func(c *Client) { c.Settings() },
			func(c *Client) { c.Watchdog(All) },
			func(c *Client) { c.AttachNode(0) },
		} {
			ask(&Client{conn: deaf{}, r: bufio.NewReader(bytes.NewReader(sent))})
		}
	})
}

// deaf is a connection that takes everything and says nothing.
type deaf struct{ net.Conn }

func (deaf) Write(b []byte) (int, error) { return len(b), nil }
