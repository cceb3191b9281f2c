package pgpool_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

var idleClients = flag.Int("idle-clients", 1000, "how many clients TestIdleClients connects")

// idleLimit bounds what a client costs that has run its statements and does
// nothing, its server connection included: bytes of heap and stacks. There is no
// stack, nor any buffer, in so little.
const idleLimit = 10 << 10

// A client that does nothing holds no buffers, and not much else. The clients and
// a server that knows one answer are in a process of their own.
func TestIdleClients(t *testing.T) {
	n := *idleClients
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if room := (int(min(limit.Max, 1<<20)) - 500) / 2; n > room { // each has a connection on either side
		t.Logf("%d clients instead of %d, for want of descriptors", room, n)
		n = room
	}
	if n < 100 {
		t.Skip("a process may not have enough descriptors")
	}
	c := startCrowd(t)
	f := serve(t, nil, "backend_clustering_mode = 'raw'", "backend_hostname0 = '127.0.0.1'", "backend_port0 = "+c.ask("serve"),
		"backend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'", "health_check_period = 0", fmt.Sprintf("num_init_children = %d", n+1))
	port := strconv.Itoa(f.Port)
	c.ask("connect", port, "100") // what the first ones cause, all share
	before := held()
	c.ask("connect", port, strconv.Itoa(n-100))
	each := (held() - before) / int64(n-100)
	t.Logf("%d bytes for each of %d idle clients and its server connection; %d kB in all", each, n, resident(t, "self"))
	if each > idleLimit {
		t.Errorf("an idle client holds %d bytes, more than %d", each, idleLimit)
	}
}

// held is what this process has allocated and still uses, on the heap and as
// stacks: bytes.
func held() int64 {
	var m runtime.MemStats
	for range 4 { // pools are emptied by the second, and each halves stacks that have become too large
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// resident is a process's memory as the kernel sees it: kB.
func resident(t testing.TB, pid string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nVmRSS:")
	var kb int
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	return kb
}

// crowd is a process that plays many clients, and their server.
type crowd struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Scanner
}

const crowdVariable = "PGPOOL_TEST_CROWD"

func startCrowd(t testing.TB) *crowd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrowd$")
	cmd.Env = append(os.Environ(), crowdVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // tells it to end
		cmd.Wait()
	})
	return &crowd{t, in, bufio.NewScanner(out)}
}

// ask has the crowd do something and returns what it says.
func (c *crowd) ask(words ...string) string {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, strings.Join(words, " ")); err != nil {
		c.t.Fatal(err)
	}
	if !c.out.Scan() {
		c.t.Fatalf("the crowd has left: %v", c.out.Err())
	}
	answer, ok := strings.CutPrefix(c.out.Text(), "ok ")
	if !ok {
		c.t.Fatalf("the crowd says %q", c.out.Text())
	}
	return answer
}

// TestCrowd is the crowd's process.
func TestCrowd(t *testing.T) {
	if os.Getenv(crowdVariable) == "" {
		t.Skip("only a part of TestIdleClients")
	}
	var open []net.Conn
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		var said string
		var err error
		switch words[0] {
		case "serve":
			said, err = serveOneAnswer()
		case "connect":
			var some []net.Conn
			some, err = connectMany(words[1], words[2])
			open = append(open, some...)
		}
		if err != nil {
			fmt.Printf("failed: %v\n", err)
		} else {
			fmt.Printf("ok %s\n", said)
		}
	}
	for _, c := range open {
		c.Close()
	}
	os.Exit(0) // what go test would print is for nobody
}

// connectMany opens sessions that have run a statement by each protocol.
func connectMany(port, count string) ([]net.Conn, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return nil, err
	}
	open := make([]net.Conn, n)
	errs := make([]error, n)
	const atOnce = 20
	var all sync.WaitGroup
	for part := range atOnce {
		all.Go(func() {
			for i := part; i < n; i += atOnce {
				open[i], errs[i] = connectOne(port)
			}
		})
	}
	all.Wait()
	return open, errors.Join(errs...)
}

func connectOne(port string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, patience)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(2 * patience))
	fe := pgproto3.NewFrontend(bufio.NewReaderSize(c, 512), c)
	fe.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "u", "database": "d", "application_name": "crowd"}})
	for _, say := range [][]pgproto3.FrontendMessage{{},
		{&pgproto3.Query{String: "select 1"}},
		{&pgproto3.Parse{Query: "select 1"}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{}},
	} {
		for _, m := range say {
			fe.Send(m)
		}
		if err := fe.Flush(); err != nil {
			return c, err
		}
		for ready := false; !ready; {
			m, err := fe.Receive()
			if err != nil {
				return c, err
			}
			if e, ok := m.(*pgproto3.ErrorResponse); ok {
				return c, errors.New(e.Message)
			}
			_, ready = m.(*pgproto3.ReadyForQuery)
		}
	}
	return c, nil
}

// serveOneAnswer listens as a server that lets everybody in and whose every
// statement returns the row 1. It returns its port.
func serveOneAnswer() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answerOne(c)
			}()
		}
	}()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port), nil
}

func answerOne(c net.Conn) error {
	in := bufio.NewReaderSize(c, 512)
	be := pgproto3.NewBackend(in, c)
	if _, err := be.ReceiveStartupMessage(); err != nil {
		return err
	}
	be.Send(&pgproto3.AuthenticationOk{})
	for _, p := range []string{"server_version 15.0", "client_encoding UTF8", "server_encoding UTF8", "DateStyle ISO", "integer_datetimes on",
		"standard_conforming_strings on", "TimeZone UTC", "is_superuser on", "session_authorization u", "IntervalStyle postgres", "application_name crowd"} {
		name, value, _ := strings.Cut(p, " ")
		be.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	be.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: binary.BigEndian.AppendUint32(nil, 1)})
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	columns := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("?column?"), DataTypeOID: 23, DataTypeSize: 4, TypeModifier: -1}}}
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("1")}}
	done := &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}
	be.Send(ready)
	for {
		if err := be.Flush(); err != nil {
			return err
		}
		m, err := be.Receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.Query:
			for _, m := range []pgproto3.BackendMessage{columns, row, done, ready} {
				be.Send(m)
			}
		case *pgproto3.Parse:
			be.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Bind:
			be.Send(&pgproto3.BindComplete{})
		case *pgproto3.Describe:
			if m.ObjectType == 'S' {
				be.Send(&pgproto3.ParameterDescription{})
			}
			be.Send(columns)
		case *pgproto3.Execute:
			be.Send(row)
			be.Send(done)
		case *pgproto3.Close:
			be.Send(&pgproto3.CloseComplete{})
		case *pgproto3.Sync:
			be.Send(ready)
		case *pgproto3.Terminate:
			return nil
		}
	}
}
