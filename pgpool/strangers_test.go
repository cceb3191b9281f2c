package pgpool_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

var (
	silent = flag.Int("silent", 200, "how many connections say nothing")
	drip   = flag.Duration("drip", 0, "for how long as many connections say a byte a minute to a pgpool in a process of its own")
)

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

	t.Run("a byte a minute", func(t *testing.T) {
		if *drip == 0 {
			t.Skip("asked for by -drip 3m")
		}
		f.process("authentication_timeout = 3600").drip(t) // all are there all the time
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

// process is one more pgpool with f's configuration and these lines, in a process of
// its own, whose memory is nobody else's. Its own are the port, folder and pid.
func (f *front) process(lines ...string) *ownProcess {
	f.t.Helper()
	dir := f.t.TempDir()
	program := filepath.Join(dir, "pgpool")
	if out, err := exec.CommandContext(f.t.Context(), "go", "build", "-o", program, "pgpool-go/tools/pgpool").CombinedOutput(); err != nil {
		f.t.Fatalf("%v\n%s", err, out)
	}
	p := &ownProcess{port: freePort(f.t)}
	text, err := os.ReadFile(filepath.Join(f.Dir, "pgpool.conf"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, l := range append(lines, fmt.Sprintf("port = %d", p.port), fmt.Sprintf("pcp_port = %d", freePort(f.t)),
		"work_dir = '"+dir+"'", "logdir = '"+dir+"'", "pid_file_name = '"+filepath.Join(dir, "pgpool.pid")+"'") {
		text = append(text, l+"\n"...)
	}
	path := filepath.Join(dir, "pgpool.conf")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(program, "-n", "-D", "-f", path)
	cmd.Stdout, cmd.Stderr = f.Log, f.Log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	f.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGINT)
		cmd.Wait()
	})
	eventually(f.t, "pgpool's process lets in", func() bool { _, err := p.login(f.t); return err == nil })
	return p
}

type ownProcess struct{ port, pid int }

// login is a client that comes, asks and goes, and how long that takes.
func (p *ownProcess) login(t testing.TB) (time.Duration, error) {
	began := time.Now()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres?sslmode=disable", testcluster.Superuser, p.port))
	if err != nil {
		return 0, err
	}
	_, err = conn.Exec(ctx, "select 1")
	return time.Since(began), errors.Join(err, conn.Close(ctx))
}

// drip has connections say their first message a byte a minute, beside a client
// that works, and logs what that costs.
func (p *ownProcess) drip(t *testing.T) {
	logins := func(while func(i int) bool) string {
		var took []time.Duration
		for i := 0; while(i); i++ {
			d, err := p.login(t)
			if err != nil {
				t.Fatalf("login %d: %v", i, err)
			}
			took = append(took, d.Round(10*time.Microsecond))
		}
		slices.Sort(took)
		n := len(took)
		return fmt.Sprintf("%d logins: median %v, 99%% within %v, longest %v", n, took[n/2], took[n*99/100], took[n-1])
	}
	t.Logf("alone, %s", logins(func(i int) bool { return i < 200 }))
	before := resident(t, strconv.Itoa(p.pid))
	startup := packet(v3, "user\x00"+testcluster.Superuser+"\x00\x00")
	held := make([]net.Conn, *silent)
	for i := range held {
		nc, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", p.port), patience)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer nc.Close()
		held[i] = nc
	}
	said, began := 0, time.Now()
	t.Logf("beside them, %s", logins(func(int) bool {
		for due := int(float64(len(held)) * time.Since(began).Minutes()); said < due; said++ {
			if _, err := held[said%len(held)].Write([]byte{startup[said/len(held)]}); err != nil {
				t.Fatalf("byte %d of connection %d: %v", said/len(held), said%len(held), err)
			}
		}
		time.Sleep(50 * time.Millisecond)
		return time.Since(began) < *drip
	}))
	after := resident(t, strconv.Itoa(p.pid))
	for i, nc := range held {
		nc.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d has an answer or its end: %v", i, err)
		}
	}
	t.Logf("%d connections said %d bytes; pgpool had %d kB, and now has %d kB, %d bytes more for each", len(held), said, before, after, (after-before)<<10/len(held))
}
