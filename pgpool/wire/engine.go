package wire

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Engine owns the epoll loop. One is enough for a process; its methods are safe
// for all goroutines.
type Engine struct {
	epfd   int
	wakefd int // eventfd that ends the loop's wait from outside

	conns [chunks]atomic.Pointer[[chunkSize]atomic.Pointer[Conn]] // by file descriptor
	mu    sync.Mutex                                              // guards the making of chunks
	gen   atomic.Uint32
	now   atomic.Int64 // coarse clock, see Now

	closed atomic.Bool
	done   chan struct{}
}

const (
	chunkSize = 1024
	chunks    = 1024
)

// NewEngine starts the loop. Close ends it.
func NewEngine() (*Engine, error) {
	epfd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wakefd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		syscall.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", errno)
	}
	e := &Engine{epfd: epfd, wakefd: int(wakefd), done: make(chan struct{})}
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(e.wakefd)}
	if err := syscall.EpollCtl(epfd, syscall.EPOLL_CTL_ADD, e.wakefd, &ev); err != nil {
		syscall.Close(epfd)
		syscall.Close(e.wakefd)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	e.now.Store(time.Now().UnixNano())
	go e.run()
	return e, nil
}

// Close ends the loop. Connections that still exist are not closed and wake no
// more: end the sessions first.
func (e *Engine) Close() {
	if e.closed.Swap(true) {
		return
	}
	e.poke()
	<-e.done
	syscall.Close(e.epfd)
	syscall.Close(e.wakefd)
}

func (e *Engine) poke() {
	one := [8]byte{1}
	syscall.Write(e.wakefd, one[:]) // a full counter means that a wake-up is due already
}

// Now is the time of the loop's last turn: exact to the length of a burst while
// there is traffic, and refreshed by whoever wakes. Cheap enough for every
// statement.
func (e *Engine) Now() time.Time { return time.Unix(0, e.now.Load()) }

const (
	epollET    = 1 << 31
	readEvents = syscall.EPOLLIN | syscall.EPOLLRDHUP | epollET
)

func (e *Engine) run() {
	defer close(e.done)
	var events [256]syscall.EpollEvent
	for spins := 0; ; {
		// First ask without blocking: a raw system call that keeps the
		// processor. Only a loop with nothing to do blocks, and lets the
		// sessions it has just woken run before it does.
		n, errno := epollWait(e.epfd, events[:], 0)
		if n == 0 && errno == 0 {
			if spins == 0 {
				spins++
				runtime.Gosched()
				continue
			}
			var err error
			n, err = syscall.EpollWait(e.epfd, events[:], -1)
			if err != nil {
				errno = err.(syscall.Errno)
			}
		}
		spins = 0
		if errno == syscall.EINTR {
			continue
		}
		if e.closed.Load() {
			return
		}
		if errno != 0 {
			panic("epoll_wait: " + errno.Error()) // only a bug in this file can cause it
		}
		e.now.Store(time.Now().UnixNano())
		for i := range n {
			e.deliver(&events[i])
		}
	}
}

func (e *Engine) deliver(ev *syscall.EpollEvent) {
	if int(ev.Fd) == e.wakefd {
		var sink [8]byte
		syscall.Read(e.wakefd, sink[:])
		return
	}
	c := e.lookup(int(ev.Fd))
	if c == nil || c.gen != uint32(ev.Pad) {
		return // closed, and perhaps its number taken by another, since the kernel queued this
	}
	var flags uint32
	if ev.Events&(syscall.EPOLLIN|syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		flags |= readable
	}
	if ev.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		flags |= hungUp
	}
	if ev.Events&(syscall.EPOLLOUT|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		flags |= writable
	}
	c.state.Or(flags)
	if t := c.task.Load(); t != nil {
		t.wake()
	}
}

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
// into this engine's. nc is closed in any case and must not be used again.
func (e *Engine) Adopt(nc net.Conn) (*Conn, error) {
	defer nc.Close()
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no file descriptor", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
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
	if err := errors.Join(ctlErr, err); err != nil {
		return nil, err
	}
	if tc, ok := nc.(*net.TCPConn); ok {
		tc.SetNoDelay(true) // options belong to the socket, so the duplicate shares them
	}
	c := &Conn{
		engine: e, fd: fd, gen: e.gen.Add(1),
		local: nc.LocalAddr(), remote: nc.RemoteAddr(),
	}
	c.state.Store(readable) // bytes may have come before the loop was told
	slot, err := e.slot(fd)
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	slot.Store(c)
	ev := syscall.EpollEvent{Events: readEvents, Fd: int32(fd), Pad: int32(c.gen)}
	if err := syscall.EpollCtl(e.epfd, syscall.EPOLL_CTL_ADD, fd, &ev); err != nil {
		slot.Store(nil)
		syscall.Close(fd)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return c, nil
}

// watchWrites asks for wake-ups when the socket can take bytes again. It is
// asked once, by the first write that would block: a socket that never blocks
// causes no such events.
func (e *Engine) watchWrites(c *Conn) error {
	ev := syscall.EpollEvent{Events: readEvents | syscall.EPOLLOUT, Fd: int32(c.fd), Pad: int32(c.gen)}
	return syscall.EpollCtl(e.epfd, syscall.EPOLL_CTL_MOD, c.fd, &ev)
}
