package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pair is a loopback socket: one end adopted, the other a plain net.Conn.
func pair(t testing.TB, e *Engine) (*Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Adopt(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer
}

func engine(t testing.TB) *Engine {
	t.Helper()
	e, err := NewEngine(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func frame(typ byte, body []byte) []byte {
	b := []byte{typ, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)+4))
	return append(b, body...)
}

func TestFrameArrivesInPieces(t *testing.T) {
	e := engine(t)
	c, peer := pair(t, e)
	c.Attach(e.NewTask())
	body := bytes.Repeat([]byte("x"), 100_000)
	go func() {
		for _, b := range [][]byte{{'Q'}, frame('Q', body)[1:3], frame('Q', body)[3:], frame('X', nil)} {
			peer.Write(b)
		}
	}()
	typ, got, err := c.Next(MaxFrame)
	if err != nil || typ != 'Q' || !bytes.Equal(got, body) {
		t.Fatalf("got %c, %d bytes, %v", typ, len(got), err)
	}
	if typ, got, err := c.Next(MaxFrame); err != nil || typ != 'X' || len(got) != 0 {
		t.Fatalf("got %c, %d bytes, %v", typ, len(got), err)
	}
	peer.Close()
	if err := c.Fill(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v at the end of the stream", err)
	}
}

func TestImpossibleLength(t *testing.T) {
	e := engine(t)
	c, peer := pair(t, e)
	c.Attach(e.NewTask())
	peer.Write([]byte{'D', 0, 0, 0, 3})
	var bad *FrameError
	if _, _, err := c.Next(MaxFrame); !errors.As(err, &bad) || bad.Length != 3 {
		t.Fatalf("got %v", err)
	}
}

// A row far larger than any buffer passes through, and the frames around it
// keep their places.
func TestForwardRunLargeRows(t *testing.T) {
	e := engine(t)
	src, feed := pair(t, e)
	dst, sink := pair(t, e)
	task := e.NewTask()
	src.Attach(task)
	dst.Attach(task)
	var want []byte
	for i := range 50 {
		want = append(want, frame('D', bytes.Repeat([]byte{byte(i)}, i*i*700))...)
	}
	go func() { feed.Write(want); feed.Write(frame('Z', []byte{'I'})) }()
	got := make(chan []byte)
	go func() {
		b := make([]byte, len(want))
		io.ReadFull(sink, b)
		got <- b
	}()
	var pass [256]bool
	pass['D'] = true
	rows := 0
	for {
		if src.Owed() > 0 {
			if err := src.ForwardOwed(dst); err != nil {
				t.Fatal(err)
			}
		}
		n, err := src.ForwardRun(dst, &pass)
		if err != nil {
			t.Fatal(err)
		}
		rows += n
		if typ, _, ok, _ := src.Peek(); ok && src.Owed() == 0 && typ == 'Z' {
			break
		}
		if err := src.Fill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := dst.Flush(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, want) || rows != 50 {
		t.Fatalf("%d rows, bytes equal: %v", rows, bytes.Equal(b, want))
	}
}

func TestInterruptEndsWaits(t *testing.T) {
	e := engine(t)
	c, peer := pair(t, e)
	task := e.NewTask()
	c.Attach(task)
	stop := errors.New("stop")
	time.AfterFunc(10*time.Millisecond, func() { task.Interrupt(stop) })
	if err := c.Fill(); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	if err := c.Fill(); !errors.Is(err, stop) {
		t.Fatalf("the second wait: %v", err)
	}
	task.Forgive()
	peer.Write(frame('S', nil))
	if err := c.Fill(); err != nil {
		t.Fatalf("the wait after forgiveness: %v", err)
	}
}

func TestLimitIsCalledOff(t *testing.T) {
	e := engine(t)
	c, peer := pair(t, e)
	task := e.NewTask()
	c.Attach(task)
	late := errors.New("late")
	stop := task.Limit(time.Millisecond, late)
	if err := c.Fill(); !errors.Is(err, late) {
		t.Fatalf("got %v", err)
	}
	stop()
	peer.Write(frame('S', nil))
	if err := c.Fill(); err != nil {
		t.Fatalf("the wait after the limit: %v", err)
	}
}

// Both peers write more than the sockets hold and read only afterwards.
func TestReliefBreaksTheTie(t *testing.T) {
	e := engine(t)
	c, peer := pair(t, e)
	c.Attach(e.NewTask())
	const size = 8 << 20
	done := make(chan error, 1)
	go func() {
		_, err := peer.Write(make([]byte, size))
		if err == nil {
			_, err = io.CopyN(io.Discard, peer, size)
		}
		done <- err
	}()
	read := 0
	c.Relieve(func() error {
		_, err := c.TryFill()
		read += c.Buffered()
		c.Skip(c.Buffered())
		return err
	})
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	c.Relieve(nil)
	for read < size {
		if err := c.Fill(); err != nil {
			t.Fatal(err)
		}
		read += c.Buffered()
		c.Skip(c.Buffered())
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestHello(t *testing.T) {
	startup := func(version uint32, body string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+8))
		b = binary.BigEndian.AppendUint32(b, version)
		return append(b, body...)
	}
	for _, tc := range []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"startup", startup(3<<16, "user\x00alice\x00\x00"), true},
		{"newer minor", startup(3<<16|2, "user\x00alice\x00_pq_.x\x00y\x00\x00"), true},
		{"ssl", startup(sslCode, ""), true},
		{"cancel", startup(cancelCode, "\x00\x00\x00\x01abcd"), true},
		{"protocol 2", startup(2<<16, "x"), false},
		{"no terminator", startup(3<<16, "user\x00alice"), false},
		{"no value", startup(3<<16, "user\x00"), false},
		{"after terminator", startup(3<<16, "user\x00a\x00\x00x"), false},
		{"length 7", []byte{0, 0, 0, 7, 0, 0, 0}, false},
		{"http", []byte("GET / HTTP/1.0\r\n\r\n"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := engine(t)
			c, peer := pair(t, e)
			c.Attach(e.NewTask())
			peer.Write(tc.in)
			h, err := c.Hello()
			var word *Error
			if tc.ok != (err == nil) || (err != nil && !errors.As(err, &word)) {
				t.Fatalf("got %+v, %v", h, err)
			}
		})
	}
}

// A burst is a peek, a forward and a flush: it must not allocate.
func BenchmarkForward(b *testing.B) {
	e := engine(b)
	src, feed := pair(b, e)
	dst, sink := pair(b, e)
	task := e.NewTask()
	src.Attach(task)
	dst.Attach(task)
	burst := append(frame('T', make([]byte, 33)), frame('D', make([]byte, 14))...)
	burst = append(append(burst, frame('C', make([]byte, 9))...), frame('Z', []byte{'I'})...)
	var pass [256]bool
	for i := range pass {
		pass[i] = true
	}
	buf := make([]byte, len(burst))
	b.ReportAllocs()
	for b.Loop() {
		feed.Write(burst)
		if err := src.Fill(); err != nil {
			b.Fatal(err)
		}
		if _, err := src.ForwardRun(dst, &pass); err != nil {
			b.Fatal(err)
		}
		if err := dst.Flush(); err != nil {
			b.Fatal(err)
		}
		io.ReadFull(sink, buf)
	}
}
