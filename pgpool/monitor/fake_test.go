package monitor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
)

// sent is an error as a server sends it.
type sent string

func (s sent) Error() string    { return "server says " + string(s) }
func (s sent) SQLState() string { return string(s) }

// server is what a fake node answers.
type server struct {
	dial   error            // of Connect
	hang   bool             // answers nothing at all
	facts  []string         // the row of asked
	errs   map[string]error // by statement
	sender [][]string
}

// servers is a fake network. Its methods may be called by anyone.
type servers struct {
	mu    sync.Mutex
	nodes []server
	dials []time.Time // of node 0
	asks  int         // "asked" statements that node 0 got
}

func (f *servers) set(id int, s server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[id] = s
}

func (f *servers) get(id int) server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[id]
}

func (f *servers) seen() (dials []time.Time, asks int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dials), f.asks
}

func (f *servers) connect(ctx context.Context, n cluster.Node, user, password, database string) (Conn, error) {
	s := f.get(n.ID)
	if n.ID == 0 {
		f.mu.Lock()
		f.dials = append(f.dials, time.Now())
		f.mu.Unlock()
	}
	if s.hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if s.dial != nil {
		return nil, s.dial
	}
	return &fakeConn{f, n.ID}, nil
}

type fakeConn struct {
	f  *servers
	id int
}

func (c *fakeConn) Close() error { return nil }

func (c *fakeConn) Ask(ctx context.Context, sql string) ([][]string, error) {
	s := c.f.get(c.id)
	if s.hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if s.dial != nil {
		return nil, io.EOF // dead since
	}
	if err := s.errs[sql]; err != nil {
		return nil, err
	}
	switch sql {
	case asked:
		if c.id == 0 {
			c.f.mu.Lock()
			c.f.asks++
			c.f.mu.Unlock()
		}
		return [][]string{s.facts}, nil
	case askedLeast:
		return [][]string{s.facts[:2]}, nil
	case askedSenders:
		return s.sender, nil
	}
	return nil, nil
}

var (
	primaryRow = []string{"f", "150015", "sys", "1", "5000", "", ""}
	standbyRow = []string{"t", "150015", "sys", "1", "4000", "3.5", "user=u application_name=s1"}
	refusedErr = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
)

func settings(t *testing.T, nodes int, lines ...string) *conf.Config {
	t.Helper()
	var b strings.Builder
	for i := range nodes {
		fmt.Fprintf(&b, "backend_hostname%d = '127.0.0.1'\nbackend_port%d = %d\nbackend_weight%d = 1\n", i, i, 5001+i, i)
	}
	b.WriteString("sr_check_user = 'u'\n" + strings.Join(lines, "\n") + "\n")
	path := filepath.Join(t.TempDir(), "pgpool.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := conf.Load(conf.Paths{Conf: path})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// words collects log lines.
type words struct {
	mu  *sync.Mutex
	all *[]string
}

func (w words) Enabled(context.Context, slog.Level) bool { return true }
func (w words) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w words) WithGroup(string) slog.Handler            { return w }
func (w words) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	*w.all = append(*w.all, r.Message)
	return nil
}

func (w words) count(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, line := range *w.all {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// bubble runs a monitor over fake servers on a false clock.
func bubble(t *testing.T, cfg *conf.Config, f *servers, test func(m *Monitor, o *cluster.Owner, log words)) {
	synctest.Test(t, func(t *testing.T) {
		log := words{new(sync.Mutex), new([]string)}
		var m *Monitor
		o := cluster.New(cfg, cluster.Options{Log: slog.New(log), Perform: func(e cluster.Effect) {
			if e, ok := e.(cluster.ProbeNow); ok {
				m.ProbeNow(e.Node)
			}
		}})
		m = New(Options{Cluster: o, Config: func() *conf.Config { return cfg }, Connect: f.connect, Log: slog.New(log)})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { o.Run(ctx) })
		wg.Go(func() { m.Run(ctx) })
		synctest.Wait()
		test(m, o, log)
		cancel()
		wg.Wait()
	})
}

func TestHangingNodeDoesNotDelayTheStart(t *testing.T) {
	f := &servers{nodes: []server{{facts: primaryRow}, {hang: true}}}
	bubble(t, settings(t, 2), f, func(m *Monitor, o *cluster.Owner, log words) {
		if s := o.Now(); s.Primary != -1 {
			t.Errorf("a primary was chosen before all were asked")
		}
		time.Sleep(firstAnswer)
		synctest.Wait()
		if s := o.Now(); s.Primary != 0 || s.Usable(1) || s.Nodes[1].Reason != "no answer yet" {
			t.Errorf("primary %d, node 1 %+v", s.Primary, s.Nodes[1])
		}
		f.set(1, server{facts: standbyRow})
		time.Sleep(patience + 2*firstRetry)
		synctest.Wait()
		if s := o.Now(); !s.Usable(1) {
			t.Errorf("node 1 %+v", s.Nodes[1])
		}
	})
}

func TestPaceOfRetries(t *testing.T) {
	f := &servers{nodes: []server{{dial: refusedErr}, {facts: primaryRow}}}
	bubble(t, settings(t, 2, "sr_check_period = 0"), f, func(m *Monitor, o *cluster.Owner, log words) {
		time.Sleep(time.Minute)
		synctest.Wait()
		dials, _ := f.seen()
		var gaps []time.Duration
		for i := range dials[1:] {
			gaps = append(gaps, dials[i+1].Sub(dials[i]))
		}
		want := []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond,
			1600 * time.Millisecond, 3200 * time.Millisecond, 6400 * time.Millisecond, 10 * time.Second}
		if len(gaps) < len(want) || !slices.Equal(gaps[:len(want)], want) || gaps[len(gaps)-1] != 10*time.Second {
			t.Errorf("gaps %v", gaps)
		}
		if n := log.count("is not used any more"); n != 1 {
			t.Errorf("said %d times", n)
		}
		f.set(0, server{facts: standbyRow})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !o.Now().Usable(0) {
			t.Error("it did not come back")
		}
	})
}

func TestWithoutPrimaryNobodyIsAskedSlowly(t *testing.T) {
	f := &servers{nodes: []server{{dial: refusedErr}, {facts: standbyRow}}}
	bubble(t, settings(t, 2, "sr_check_period = 0"), f, func(m *Monitor, o *cluster.Owner, log words) {
		time.Sleep(time.Minute)
		f.set(1, server{facts: []string{"f", "150015", "sys", "2", "5000", "", ""}})
		time.Sleep(searchPeriod + breath)
		synctest.Wait()
		if s := o.Now(); s.Primary != 1 {
			t.Error("the promotion was not seen within a second")
		}
		dials, _ := f.seen()
		if last := dials[len(dials)-1].Sub(dials[len(dials)-2]); last != urgentRetry {
			t.Errorf("the dead one is asked every %v", last)
		}
	})
}

func TestPeriods(t *testing.T) {
	f := &servers{nodes: []server{{facts: primaryRow}}}
	bubble(t, settings(t, 1, "sr_check_period = 5"), f, func(m *Monitor, o *cluster.Owner, log words) {
		time.Sleep(time.Minute + time.Millisecond)
		synctest.Wait()
		if dials, asks := f.seen(); len(dials) != 1 || asks != 13 {
			t.Errorf("%d dials, %d questions", len(dials), asks)
		}
	})
	f = &servers{nodes: []server{{facts: primaryRow}}}
	bubble(t, settings(t, 1, "sr_check_period = 0"), f, func(m *Monitor, o *cluster.Owner, log words) {
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, asks := f.seen(); asks != 1 {
			t.Errorf("%d questions with sr_check_period = 0", asks)
		}
	})
}

func TestProbeNowIsCoalesced(t *testing.T) {
	f := &servers{nodes: []server{{facts: primaryRow}}}
	bubble(t, settings(t, 1, "sr_check_period = 0"), f, func(m *Monitor, o *cluster.Owner, log words) {
		time.Sleep(time.Second)
		begun := time.Now()
		for range 1000 {
			o.Submit(cluster.Suspected{Node: 0, Cause: io.EOF})
		}
		synctest.Wait()
		dials, _ := f.seen()
		if n := len(dials) - 1; n != 1 || !dials[1].Equal(begun) {
			t.Errorf("%d new connections, %v", n, dials)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if dials, _ := f.seen(); len(dials) > 3 {
			t.Errorf("%d connections for a thousand suspicions", len(dials))
		}
		m.ProbeNow(7) // no such node
	})
}

func TestServerThatStopsAnswering(t *testing.T) {
	f := &servers{nodes: []server{{facts: primaryRow}, {facts: standbyRow}}}
	bubble(t, settings(t, 2, "sr_check_period = 5", "connect_timeout = 3000"), f, func(m *Monitor, o *cluster.Owner, log words) {
		f.set(1, server{hang: true})
		time.Sleep(8*time.Second + time.Millisecond)
		synctest.Wait()
		if n := o.Now().Nodes[1]; n.Usable() || n.Reason != "no answer within 3s" {
			t.Errorf("%+v", n)
		}
		if o.Now().Primary != 0 {
			t.Error("the primary suffers")
		}
	})
}

func TestFullServerIsNotDown(t *testing.T) {
	f := &servers{nodes: []server{{facts: primaryRow}, {facts: standbyRow}}}
	bubble(t, settings(t, 2, "sr_check_period = 5"), f, func(m *Monitor, o *cluster.Owner, log words) {
		f.set(0, server{dial: sent("53300")})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := o.Now(); s.Primary != 0 || !s.Usable(0) {
			t.Errorf("primary %d", s.Primary)
		}
		if log.count("does not let") != 0 {
			t.Error("complained of the login")
		}
		f.set(0, server{dial: sent("57P03")})
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if s := o.Now(); s.Primary != -1 || s.Usable(0) {
			t.Errorf("a server that starts up is used")
		}
	})
}

func TestComplainsOnce(t *testing.T) {
	f := &servers{nodes: []server{{dial: sent("28P01")}}}
	bubble(t, settings(t, 1, "sr_check_period = 1"), f, func(m *Monitor, o *cluster.Owner, log words) {
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := log.count(`answers but does not let sr_check_user "u" in`); n != 1 {
			t.Errorf("complained %d times", n)
		}
		f.set(0, server{facts: primaryRow})
		time.Sleep(1500 * time.Millisecond)
		f.set(0, server{dial: sent("28P01")})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := log.count("does not let"); n != 2 {
			t.Errorf("complained %d times after it was mended and broken again", n)
		}
	})
}

func TestHealthChecks(t *testing.T) {
	f := &servers{nodes: []server{{facts: primaryRow}}}
	cfg := settings(t, 1, "sr_check_period = 0", "health_check_period = 10", "health_check_user = 'h'",
		"health_check_max_retries = 2", "health_check_retry_delay = 1", "health_check_timeout = 5")
	bubble(t, cfg, f, func(m *Monitor, o *cluster.Owner, log words) {
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if h := o.Health(0); h.Total != 3 || h.Success != 3 {
			t.Errorf("health %v", h.Columns())
		}
		f.set(0, server{hang: true})
		time.Sleep(10*time.Second + 100*time.Millisecond) // the check at 30 s gives up at 35 s
		synctest.Wait()
		if o.Now().Usable(0) {
			t.Error("clients still go there during the retries")
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if h := o.Health(0); h.Fail != 1 || h.Retry != 2 || h.MaxRetry != 2 || h.MaxDuration != 17*time.Second {
			t.Errorf("health %v", h.Columns())
		}
		if log.count("health check retrying on DB node: 0 (round:1)") != 1 || log.count("health check retrying on DB node: 0 (round:2)") != 1 ||
			log.count("health check failed on node 0 (timeout:1)") != 1 {
			t.Errorf("said %q", *log.all)
		}
		if _, err := o.Do(context.Background(), cluster.Detach{Node: 0, By: "pcp", Reason: "asked for"}); err != nil {
			t.Error(err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if h := o.Health(0); h.Skip == 0 || h.LastSkip.IsZero() {
			t.Errorf("health %v", h.Columns())
		}
	})
}

func TestDelays(t *testing.T) {
	f := &servers{nodes: []server{
		{facts: primaryRow, sender: [][]string{{"s1", "10.0.0.1", "streaming", "sync", "0.5"}}},
		{facts: standbyRow},
	}}
	cfg := settings(t, 2, "sr_check_period = 1", "log_standby_delay = 'always'")
	bubble(t, cfg, f, func(m *Monitor, o *cluster.Owner, log words) {
		synctest.Wait()
		n := o.Now().Nodes[1]
		if n.Lag != 1000 || n.LagTime != 500*time.Millisecond || n.ReplicationState != "streaming" || n.ReplicationSyncState != "sync" {
			t.Errorf("%+v", n)
		}
		if log.count("Replication of node:1 is behind 1000 bytes from the primary server (node:0)") != 1 {
			t.Errorf("said %q", *log.all)
		}
		// the standby replays nothing for a while: our clock knows better
		time.Sleep(5*time.Second + time.Millisecond)
		synctest.Wait()
		if n := o.Now().Nodes[1]; n.LagTime != 5*time.Second {
			t.Errorf("stuck for %v", n.LagTime)
		}
		f.set(1, server{facts: []string{"t", "150015", "sys", "1", "5001", "3.5", ""}})
		time.Sleep(time.Second)
		synctest.Wait()
		if n := o.Now().Nodes[1]; n.Lag != 0 || n.LagTime != 0 || n.ReplicationState != "" {
			t.Errorf("%+v", n)
		}
	})
}

func TestServerWithoutItsStorage(t *testing.T) {
	f := &servers{nodes: []server{{facts: primaryRow, errs: map[string]error{asked: sent("0A000")}}}}
	bubble(t, settings(t, 1), f, func(m *Monitor, o *cluster.Owner, log words) {
		if s := o.Now(); s.Primary != 0 || s.Assumed || s.Nodes[0].Version != 150015 {
			t.Errorf("primary %d, %+v", s.Primary, s.Nodes[0])
		}
	})
}

func TestMatching(t *testing.T) {
	row := func(app, addr, state string) sender {
		return sender{application: app, address: addr, state: state, syncState: "async"}
	}
	rows := []sender{row("s1", "10.0.0.1", "streaming"), row("walreceiver", "10.0.0.2", "catchup"), row("walreceiver", "10.0.0.3", "streaming")}
	tests := []struct {
		name, configured string
		d                detail
		want             string
	}{
		{"by backend_application_name", "s1", detail{application: "walreceiver"}, "streaming"},
		{"which must be right", "s9", detail{application: "s1"}, ""},
		{"by what the standby says", "", detail{application: "s1"}, "streaming"},
		{"and its address where that is not enough", "", detail{application: "walreceiver", addrs: []string{"::1", "10.0.0.2"}}, "catchup"},
		{"by the address alone", "", detail{addrs: []string{"10.0.0.1"}}, "streaming"},
		{"two that differ are none", "", detail{application: "walreceiver"}, ""},
		{"nothing to go by", "", detail{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if s := matching(rows, tt.configured, tt.d); s != nil {
				got = s.state
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	same := []sender{row("w", "127.0.0.1", "streaming"), row("w", "127.0.0.1", "streaming")}
	if s := matching(same, "", detail{application: "w", addrs: []string{"127.0.0.1"}}); s == nil || s.state != "streaming" {
		t.Error("two that agree will do")
	}
}

func TestApplicationName(t *testing.T) {
	for conninfo, want := range map[string]string{
		"": "", "user=u": "", "nonsense": "",
		"user=u application_name=s1 fallback_application_name=walreceiver": "s1",
		"fallback_application_name=walreceiver user=u":                     "walreceiver",
		`password=******** application_name='my \'own\' one' host=h`:       "my 'own' one",
		`application_name=a\ b`:                                            "a b",
		"application_name='open":                                           "open",
	} {
		if got := applicationName(conninfo); got != want {
			t.Errorf("%q: got %q, want %q", conninfo, got, want)
		}
	}
}

func TestUnanswered(t *testing.T) {
	_, dialErr := net.Dial("tcp", "127.0.0.1:1")
	ctx := context.Background()
	for _, err := range []error{sent("57P03"), sent("57P02"), io.EOF, io.ErrUnexpectedEOF, dialErr, refusedErr,
		fmt.Errorf("node 1: %w", syscall.ECONNRESET), os.ErrDeadlineExceeded, context.DeadlineExceeded,
		&net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}} {
		if unanswered(ctx, err) == nil {
			t.Errorf("%v is an answer", err)
		}
	}
	for _, err := range []error{sent("28P01"), sent("28000"), sent("53300"), sent("57P01"), sent("3D000"), sent("42501"), errors.New("no password for SCRAM")} {
		if unanswered(ctx, err) != nil {
			t.Errorf("%v is no answer", err)
		}
	}
	over, cancel := context.WithTimeoutCause(ctx, 0, errors.New("no answer within 1s"))
	defer cancel()
	if got := unanswered(over, io.EOF); got == nil || got.Error() != "no answer within 1s" {
		t.Errorf("got %v", got)
	}
	if got := cause(fmt.Errorf("node 0: %w", refusedErr)); got != "dial: connection refused" {
		t.Errorf("got %q", got)
	}
}

// listen answers every connection with f.
func listen(t *testing.T, f func(net.Conn)) *cluster.Node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer conn.Close(); f(conn) })
		}
	})
	addr := ln.Addr().(*net.TCPAddr)
	return &cluster.Node{Host: "127.0.0.1", Port: addr.Port}
}

func TestPing(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
	request := func(c net.Conn) bool {
		b := make([]byte, 8)
		_, err := io.ReadFull(c, b)
		return err == nil && string(b) == string(sslRequest)
	}
	tests := []struct {
		name   string
		server func(net.Conn)
		ok     bool
	}{
		{"without TLS", func(c net.Conn) {
			if request(c) {
				c.Write([]byte("N"))
			}
		}, true},
		{"with TLS", func(c net.Conn) {
			if request(c) {
				c.Write([]byte("S"))
				tls.Server(c, config).Handshake()
			}
		}, true},
		{"a proxy whose server is gone", func(c net.Conn) { request(c) }, false},
		{"silence", func(c net.Conn) { io.Copy(io.Discard, c) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("no answer"))
			defer cancel()
			if err := ping(ctx, listen(t, tt.server)); (err == nil) != tt.ok {
				t.Errorf("ping: %v", err)
			}
		})
	}
	n := listen(t, func(net.Conn) {})
	n.Port = 1
	if err := ping(t.Context(), n); err == nil {
		t.Error("nobody listens, yet somebody answers")
	}
}

func FuzzConninfo(f *testing.F) {
	f.Add(`a=b application_name='x \' y'`)
	f.Fuzz(func(t *testing.T, s string) { applicationName(s) })
}
