package pgpool_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/pgpool/wire"
)

// holder stands between pgpool and a server. What the server says to a connection
// that has been sent the marker is held back until it is let go, in one piece.
type holder struct {
	addr   string
	marker []byte

	mu   sync.Mutex
	held bytes.Buffer
	to   net.Conn // of the connection that was marked
	done bool
}

func newHolder(t testing.TB, server, marker string) *holder {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	h := &holder{addr: ln.Addr().String(), marker: []byte(marker)}
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				near.Close()
				continue
			}
			go h.carry(far, near, func(b []byte) bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				if h.to == nil && bytes.Contains(b, h.marker) {
					h.to = near
				}
				return false
			})
			go h.carry(near, far, func(b []byte) bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				if h.to != near || h.done {
					return false
				}
				h.held.Write(b)
				return true
			})
		}
	}()
	return h
}

// carry passes on what keep does not take.
func (h *holder) carry(to, from net.Conn, keep func([]byte) bool) {
	defer to.Close()
	var b [64 << 10]byte
	for {
		n, err := from.Read(b[:])
		if n > 0 && !keep(b[:n]) {
			to.Write(b[:n])
		}
		if err != nil {
			return
		}
	}
}

func (h *holder) has(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return bytes.Contains(h.held.Bytes(), []byte(what))
}

func (h *holder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = true
	h.to.Write(h.held.Bytes())
}

// through has pgpool reach node 0 by way of a holder.
func through(t testing.TB, c *front, marker string, lines ...string) (*front, *holder) {
	h := newHolder(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Nodes[0].Port)), marker)
	_, port, _ := net.SplitHostPort(h.addr)
	return serve(t, c.Cluster, append(append(backends(c.Cluster, 1), "backend_hostname0 = '127.0.0.1'", "backend_port0 = "+port), lines...)...), h
}

// A session that rests hears what there is to be heard.
func TestRestingSessions(t *testing.T) {
	f := lone(t, "num_init_children = 8")

	t.Run("a notification in one piece with an answer", func(t *testing.T) {
		f, h := through(t, f, "hold me")
		r := f.raw()
		r.must(t, "listen news")
		if err := r.send(q("select 'hold me'")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the server has answered", func() bool { return h.has("SELECT 1\x00Z\x00\x00\x00\x05I") })
		f.MustExec(0, "notify news, 'here'")
		eventually(t, "the server has told the news", func() bool { return h.has("news\x00here") })
		h.release()
		if got, err := r.answers(); err != nil || got != "T D(hold me) C(SELECT 1) Z(I)" {
			t.Fatalf("%q, %v", got, err)
		}
		r.SetDeadline(time.Now().Add(patience))
		msg, err := r.next()
		if n, ok := msg.(*pgproto3.NotificationResponse); !ok || n.Payload != "here" {
			t.Errorf("the notification was slept over: %v, %v", msg, err)
		}
	})

	t.Run("a reload", func(t *testing.T) {
		r := f.raw()
		r.must(t, "select 1")
		f.reload("client_idle_limit = 1")
		defer f.reload("client_idle_limit = 0")
		r.SetDeadline(time.Now().Add(patience))
		if got := r.rest(); got != "E(57P05) ." {
			t.Errorf("with client_idle_limit = 1 an idle session hears %q", got)
		}
	})
}

// A session that is ended while a statement of our own is under way leaves its
// server connection to nobody: the answer would be taken for the next client's.
func TestTurnsEndedMidway(t *testing.T) {
	f := turns(t)
	f.MustExec(0, "create table t as select 1 as i")
	a, b := f.raw(), f.plain()
	a.must(t, "prepare p as select i from t")
	b.must("select 1") // has the connection's names closed
	locker, err := pgconn.Connect(t.Context(), f.Nodes[0].URL())
	if err != nil {
		t.Fatal(err)
	}
	defer locker.Close(context.Background())
	lock := func(sql string) {
		if _, err := locker.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	lock("begin; lock table t in access exclusive mode")
	if err := a.send(q("execute p")); err != nil { // which is to be prepared first, and that waits
		t.Fatal(err)
	}
	eventually(t, "the statement waits", func() bool {
		return f.MustExec(0, "select count(*) from pg_stat_activity where query like 'prepare p%' and wait_event_type = 'Lock'") == "1"
	})
	for _, s := range f.Server.Slots().Sessions() {
		if _, idle := s.IdleSince(); !idle {
			s.Interrupt(&wire.Error{Severity: "FATAL", Code: "57P05", Message: "enough"})
		}
	}
	if got := a.rest(); !strings.HasPrefix(got, "E(57P05)") {
		t.Errorf("the client was told %q", got)
	}
	answered := make(chan string)
	go func() {
		var got []string
		for i := range 3 {
			v, err := b.run(fmt.Sprintf("select 'mine %d'", i))
			got = append(got, fmt.Sprint(v, " ", err))
		}
		answered <- strings.Join(got, ", ")
	}()
	select {
	case got := <-answered: // over another connection
		answered = nil
		if got != "mine 0 <nil>, mine 1 <nil>, mine 2 <nil>" {
			t.Errorf("the next client was answered %q", got)
		}
	case <-time.After(patience / 3):
		t.Error("the next client has the connection on which the statement still waits")
	}
	lock("commit")
	if answered != nil {
		t.Logf("and then it was answered %q", <-answered)
	}
}
