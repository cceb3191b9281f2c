package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Many clients come and go; each is a coroutine that echoes, blocks for a
// moment, and waits. None sees another's bytes, and Close ends the accepting.
func TestListenerAndCoroutines(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, loops := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d loops", network, loops), func(t *testing.T) {
				e, err := NewEngine(loops)
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				addr := "127.0.0.1:0"
				if network == "unix" {
					addr = filepath.Join(t.TempDir(), "s")
				}
				nl, err := net.Listen(network, addr)
				if err != nil {
					t.Fatal(err)
				}
				ln, err := e.Listen(nl)
				if err != nil {
					t.Fatal(err)
				}
				var served sync.WaitGroup
				ended := make(chan error, 1)
				e.Go(func(task *Task) {
					for {
						c, err := ln.Accept(task)
						if err != nil {
							ended <- err
							return
						}
						served.Add(1)
						e.Go(func(task *Task) {
							defer served.Done()
							defer c.Close()
							c.Attach(task)
							for c.Fill() == nil {
								task.Block(func() { time.Sleep(time.Millisecond) })
								c.Write(c.Bytes())
								c.Skip(c.Buffered())
								if c.Flush() != nil {
									return
								}
								c.Release()
							}
						})
					}
				})
				var clients sync.WaitGroup
				for i := range 50 {
					clients.Go(func() {
						for range 3 {
							nc, err := net.Dial(network, ln.Addr().String())
							if err != nil {
								t.Error(err)
								return
							}
							want := fmt.Sprintf("client %d", i)
							got := make([]byte, len(want))
							for range 5 {
								io.WriteString(nc, want)
								if _, err := io.ReadFull(nc, got); err != nil || string(got) != want {
									t.Errorf("got %q, %v; want %q", got, err, want)
								}
							}
							nc.Close()
						}
					})
				}
				clients.Wait()
				served.Wait()
				ln.Close()
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("accepting ended with %v", err)
				}
				if nc, err := net.Dial(network, ln.Addr().String()); err == nil {
					nc.Close()
					t.Error("still listening after Close")
				}
			})
		}
	}
}

// A task that always finds something to read lets others have their turn.
func TestBusyTaskLeavesRoom(t *testing.T) {
	e := engine(t)
	busy, feed := pair(t, e)
	quiet, peer := pair(t, e)
	stop := make(chan struct{})
	var feeding sync.WaitGroup
	feeding.Go(func() {
		b := make([]byte, 1<<20)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := feed.Write(b); err != nil {
					return
				}
			}
		}
	})
	var tasks sync.WaitGroup
	tasks.Add(2)
	e.Go(func(task *Task) {
		defer tasks.Done()
		busy.Attach(task)
		for busy.Fill() == nil {
			busy.Skip(busy.Buffered())
		}
	})
	e.Go(func(task *Task) {
		defer tasks.Done()
		quiet.Attach(task)
		for quiet.Fill() == nil {
			quiet.Write(quiet.Bytes())
			quiet.Skip(quiet.Buffered())
			quiet.Flush()
		}
	})
	b := make([]byte, 4)
	for range 100 {
		peer.Write([]byte("ping"))
		peer.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(peer, b); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	feed.Close()
	peer.Close()
	feeding.Wait()
	tasks.Wait()
}
