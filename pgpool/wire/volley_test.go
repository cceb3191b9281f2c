package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// echo sends back what arrives, and rests in between. It ends with what it was told.
func echo(e *Engine, c *Conn) <-chan error {
	ended := make(chan error, 1)
	attached := false
	e.Go(func(task *Task) {
		if !attached {
			attached = true
			c.Attach(task)
		}
		c.Await(false)
		for {
			if got, err := c.TryFill(); err != nil {
				ended <- err
				return
			} else if !got && c.Buffered() == 0 {
				if err := c.Post(); err != nil {
					ended <- err
					return
				}
				c.Release()
				if news, _ := task.Look(c); !news {
					c.Await(true)
					task.Rest(Request)
					return
				}
			}
			if _, err := c.Write(c.Bytes()); err != nil {
				ended <- err
				return
			}
			c.Skip(c.Buffered())
		}
	})
	return ended
}

// Of many sockets that are dealt with together each gets its own bytes, in order.
func TestVolleysKeepStreamsApart(t *testing.T) {
	e := engine(t)
	var all sync.WaitGroup
	for i := range 3 * volley {
		c, peer := pair(t, e)
		ended := echo(e, c)
		all.Go(func() {
			for n := range 300 {
				want := fmt.Appendf(nil, "%d says %d %s", i, n, bytes.Repeat([]byte{byte(i)}, n*7%5000))
				if _, err := peer.Write(want); err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, len(want))
				if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d: message %d: %v, got %.40q, want %.40q", i, n, err, got, want)
					return
				}
			}
			peer.Close()
			if err := <-ended; !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// What is posted to somebody who does not read waits, in order, and in no more room
// than a buffer's; others are served meanwhile.
func TestPostedToWhoDoesNotRead(t *testing.T) {
	e := engine(t)
	c, peer := pair(t, e)
	ended := echo(e, c)
	const piece, pieces = 12 << 10, 2000
	message := func(n int) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8)}, piece/2) }
	go func() {
		for n := range pieces {
			if _, err := peer.Write(message(n)); err != nil {
				return // and the reader below will say so
			}
		}
	}()
	other, talker := pair(t, e)
	echo(e, other)
	got := make([]byte, piece)
	for n := range 200 {
		talker.Write(message(n))
		if _, err := io.ReadFull(talker, got); err != nil || !bytes.Equal(got, message(n)) {
			t.Fatal("another socket was not served: ", err)
		}
	}
	for n := range pieces {
		if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, message(n)) {
			t.Fatalf("piece %d: %v", n, err)
		}
	}
	peer.Close()
	if err := <-ended; !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// A peer that has gone shows at the next wait, whether the loop or the task meets it.
func TestPostedToWhoHasGone(t *testing.T) {
	e := engine(t)
	for range 50 {
		c, peer := pair(t, e)
		ended := echo(e, c)
		peer.Write([]byte("hello"))
		peer.(*net.TCPConn).SetLinger(0) // its end is a reset
		peer.Close()
		if err := <-ended; err == nil {
			t.Error("no error")
		}
	}
}
