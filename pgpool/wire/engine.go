package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Engine waits for sockets on behalf of tasks. Its loops each own an epoll
// instance and a share of the tasks; one loop serves a small machine best, since
// a second one on the same cores only adds wake-ups. The methods are safe for all
// goroutines.
type Engine struct {
	loops []*loop
	next  atomic.Uint32 // round robin

	conns [chunks]atomic.Pointer[[chunkSize]atomic.Pointer[Conn]] // by file descriptor
	mu    sync.Mutex                                              // guards the making of chunks
	gen   atomic.Uint32
}

const (
	chunkSize = 1024
	chunks    = 1024
)

// NewEngine starts an engine of so many loops, at least one. Close ends it.
func NewEngine(loops int) (*Engine, error) {
	e := &Engine{}
	loops = max(loops, 1)
	for range loops {
		l, err := newLoop(e, mayNap(loops))
		if err != nil {
			e.Close()
			return nil, err
		}
		l.index = len(e.loops)
		e.loops = append(e.loops, l)
		go l.run()
	}
	return e, nil
}

// mayNap tells whether so many loops may wait without giving their processors
// back: one must be left for what else there is to do, and the runtime must be
// able to wake them by its signals.
func mayNap(loops int) bool {
	return loops < runtime.GOMAXPROCS(0) && !strings.Contains(os.Getenv("GODEBUG"), "asyncpreemptoff=1")
}

// Close ends the loops. Tasks that still wait never go on: end the sessions
// first.
func (e *Engine) Close() {
	for _, l := range e.loops {
		l.close()
	}
}

// pick shares tasks out.
func (e *Engine) pick() *loop { return e.loops[int(e.next.Add(1))%len(e.loops)] }

// Now is the time of a loop's last turn: exact to the length of a burst while
// there is traffic. Cheap enough for every statement.
func (t *Task) Now() time.Time { return time.Unix(0, t.loop.now.Load()) }

func (e *Engine) lookup(fd int) *Conn {
	if fd < 0 || fd >= chunks*chunkSize {
		return nil
	}
	chunk := e.conns[fd/chunkSize].Load()
	if chunk == nil {
		return nil
	}
	return chunk[fd%chunkSize].Load()
}

func (e *Engine) slot(fd int) (*atomic.Pointer[Conn], error) {
	if fd < 0 || fd >= chunks*chunkSize {
		return nil, syscall.EMFILE
	}
	p := &e.conns[fd/chunkSize]
	if p.Load() == nil {
		e.mu.Lock()
		if p.Load() == nil {
			p.Store(new([chunkSize]atomic.Pointer[Conn]))
		}
		e.mu.Unlock()
	}
	return &p.Load()[fd%chunkSize], nil
}

// Adopt takes a connected TCP or Unix socket out of the runtime's poller and
// into this engine's, where Attach gives it a loop. nc is closed in any case and
// must not be used again.
func (e *Engine) Adopt(nc net.Conn) (*Conn, error) {
	defer nc.Close()
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no file descriptor", nc)
	}
	fd, err := duplicate(sc)
	if err != nil {
		return nil, err
	}
	return e.own(fd, nc.LocalAddr(), nc.RemoteAddr()) // options such as TCP_NODELAY belong to the socket, so they stay
}

// duplicate gives the socket a second descriptor, which the runtime does not
// know of.
func duplicate(sc syscall.Conn) (int, error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	ctlErr := raw.Control(func(old uintptr) {
		r, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
		if errno != 0 {
			err = errno
			return
		}
		fd = int(r)
	})
	return fd, errors.Join(ctlErr, err)
}

// own makes a Conn of a socket that does not block. On an error fd is closed.
func (e *Engine) own(fd int, local, remote net.Addr) (*Conn, error) {
	slot, err := e.slot(fd)
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	c := &Conn{engine: e, fd: fd, gen: e.gen.Add(1), local: local, remote: remote}
	c.state.Store(readable) // bytes may come before a loop is told
	slot.Store(c)
	return c, nil
}
