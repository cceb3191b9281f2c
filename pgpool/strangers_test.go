package pgpool_test

import (
	"flag"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

var silent = flag.Int("silent", 200, "how many connections say nothing")

// Connections that say nothing, or that begin and go no further, do not keep
// others out; and the secrets of cancel keys are long where the client knows that.
func TestStrangers(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{HBA: []string{
		"host all slow 127.0.0.1/32 password", "host all all 127.0.0.1/32 trust",
	}})
	c.MustExec(0, "create role slow login password 'secret'")
	f := serve(t, c, append(backends(c, 1), "num_init_children = 4", "listen_backlog_multiplier = 250")...)

	t.Run("silence", func(t *testing.T) {
		before := heap()
		var held []net.Conn
		defer func() {
			for _, nc := range held {
				nc.Close()
			}
		}()
		for i := range *silent {
			r, err := f.dial()
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			held = append(held, r)
			if _, err := r.Write([]byte{0}); err != nil { // the first byte of a length
				t.Fatal(err)
			}
		}
		for i, nc := range held { // some say a byte now and then
			if i%2 == 0 {
				nc.Write([]byte{0}) // those that had to make room for others cannot
			}
		}
		began := time.Now()
		f.raw().expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
		t.Logf("%d silent connections; a login takes %v; %d bytes of heap each, %d goroutines", *silent, time.Since(began).Round(time.Millisecond),
			(int64(heap())-int64(before))/int64(*silent), runtime.NumGoroutine())
	})

	t.Run("slots held without proof", func(t *testing.T) {
		for range 4 {
			r, err := f.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.send(&pgproto3.StartupMessage{ProtocolVersion: v3, Parameters: map[string]string{"user": "slow", "database": "postgres"}})
			if msg, err := r.next(); err != nil {
				t.Fatal(err)
			} else if _, ok := msg.(*pgproto3.AuthenticationCleartextPassword); !ok {
				t.Fatalf("got %T", msg)
			}
		}
		f.raw().expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
	})

	t.Run("long cancel keys", func(t *testing.T) {
		r, err := f.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.Write([]byte(packet(3<<16|2, "user\x00postgres\x00database\x00postgres\x00\x00")))
		for r.secret == nil {
			msg, err := r.fe.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := msg.(type) {
			case *pgproto3.BackendKeyData:
				r.pid, r.secret = m.ProcessID, append([]byte(nil), m.SecretKey...)
			case *pgproto3.NegotiateProtocolVersion, *pgproto3.ErrorResponse:
				t.Fatalf("got %+v", m)
			}
		}
		if len(r.secret) != 32 {
			t.Errorf("the secret has %d bytes", len(r.secret))
		}
		if _, err := r.answers(); err != nil {
			t.Fatal(err)
		}
		r.send(q("select pg_sleep(60)"))
		eventually(t, "the statement runs", func() bool {
			return c.MustExec(0, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "1"
		})
		if err := r.cancel(); err != nil {
			t.Fatal(err)
		}
		if got, err := r.answers(); got != "T E(57014) Z(I)" && got != "E(57014) Z(I)" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}
