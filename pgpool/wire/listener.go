package wire

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Listener accepts connections straight into an engine. What is set on its
// socket, such as TCP_NODELAY and keep-alive, every connection inherits, so that
// taking one in costs little more than accept(2).
type Listener struct {
	conn *Conn // the listening socket, as something to wait for
	unix bool
	addr net.Addr

	mu     sync.Mutex
	closed bool
}

// Listen takes a TCP or Unix listener out of the runtime's poller and into this
// engine. ln is closed; a Unix socket's file stays until Close.
func (e *Engine) Listen(ln net.Listener) (*Listener, error) {
	l := &Listener{addr: ln.Addr()}
	if u, ok := ln.(*net.UnixListener); ok {
		l.unix = true
		u.SetUnlinkOnClose(false)
	}
	defer ln.Close()
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no file descriptor", ln)
	}
	fd, err := duplicate(sc)
	if err != nil {
		return nil, err
	}
	if !l.unix {
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
		// A client speaks first: until it does, or for a second or so, the kernel
		// keeps it to itself. That saves a wake-up for each, and whoever only looks
		// whether the port is open costs nothing.
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, 1)
	}
	if l.conn, err = e.own(fd, ln.Addr(), nil); err != nil {
		return nil, err
	}
	l.conn.door = &door{}
	return l, nil
}

// door is a listening socket's state. It is reported for as long as somebody waits
// there (level-triggered), so that accept(2) need not be called once more to learn
// that nobody does, for which the kernel would make a socket in vain. While no one
// accepts, it is not reported at all. Only the loop's thread touches it.
type door struct {
	open bool // a task is in Accept
	shut bool // and it is not reported
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept waits for the next connection. It is for one task. After Close it
// returns net.ErrClosed; any other error may pass, as when descriptors run out.
func (l *Listener) Accept(t *Task) (*Conn, error) {
	l.conn.Attach(t)
	d := l.conn.door
	d.open = true
	defer func() { d.open = false }()
	if d.shut {
		d.shut = false
		if err := t.loop.watch(l.conn, syscall.EPOLL_CTL_MOD); err != nil {
			return nil, err
		}
	}
	for {
		l.mu.Lock()
		closed := l.closed
		l.mu.Unlock()
		if closed {
			l.conn.Close()
			return nil, net.ErrClosed
		}
		if l.conn.state.Load()&readable == 0 {
			if err := t.Wait(l.conn); err != nil {
				return nil, err
			}
			continue
		}
		l.conn.state.And(^uint32(readable)) // who else waits is reported again
		fd, sa, err := syscall.Accept4(l.conn.fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch {
		case err == nil:
			return l.conn.engine.own(fd, l.addr, address(sa))
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ECONNABORTED):
		case errors.Is(err, syscall.EINVAL): // shut down
			l.mu.Lock()
			l.closed = true
			l.mu.Unlock()
		default:
			return nil, err
		}
	}
}

// Close ends listening; the task in Accept closes the socket. Safe for all
// goroutines.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if u, ok := l.addr.(*net.UnixAddr); ok && l.unix {
		syscall.Unlink(u.Name)
	}
	l.conn.Shutdown() // refuses newcomers at once, and wakes Accept
	if t := l.conn.task.Load(); t != nil {
		t.Wake()
		return nil
	}
	return l.conn.Close() // nobody has ever accepted
}

// address is a peer's address; nil for Unix sockets, whose peers have none.
func address(sa syscall.Sockaddr) net.Addr {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return &net.TCPAddr{IP: net.IP(a.Addr[:]), Port: a.Port}
	case *syscall.SockaddrInet6:
		return &net.TCPAddr{IP: net.IP(a.Addr[:]), Port: a.Port}
	}
	return nil
}
