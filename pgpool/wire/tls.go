package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// sealed is the lower layer of a Conn that speaks TLS: crypto/tls above, the
// Conn's own socket below. Nothing in it blocks a thread. To read, tls is told
// "again later" when the socket is empty, which it takes for a temporary error
// and goes on from when asked again; only during the handshake, which it cannot
// take up again, does the task wait beneath it. What it wants to send is kept
// here, and goes to the socket as plain bytes do.
type sealed struct {
	c   *Conn
	tls *tls.Conn

	early   []byte // arrived before the handshake began
	shaking bool   // reads may wait
	dry     bool   // the last read took all there was

	out     []byte // encrypted and not sent
	spare   []byte // an empty buffer for the next out
	pushing bool   // somebody is sending what was out
	broken  bool   // a record was sent in part and never will be whole
}

// maxOwnWords bounds what TLS itself may have to say (alerts, changes of keys) to
// a peer that does not read.
const maxOwnWords = 64 << 10

// errAgain is what tls reads from an empty socket.
var errAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "nothing to read yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// ServeTLS has the peer, which has asked for it, shake hands as a TLS client.
// Bytes that have arrived already are the beginning of its handshake, so the
// caller has made sure that they may be. It waits like a read.
func (c *Conn) ServeTLS(cfg *tls.Config) error {
	return c.shakeHands(func(nc net.Conn) *tls.Conn { return tls.Server(nc, cfg) })
}

// DialTLS is the same in the role of the TLS client.
func (c *Conn) DialTLS(cfg *tls.Config) error {
	return c.shakeHands(func(nc net.Conn) *tls.Conn { return tls.Client(nc, cfg) })
}

func (c *Conn) shakeHands(role func(net.Conn) *tls.Conn) error {
	if c.sealed != nil {
		return errors.New("wire: TLS within TLS")
	}
	if err := c.Flush(); err != nil {
		return err
	}
	s := &sealed{c: c, early: append([]byte(nil), c.Bytes()...), shaking: true}
	c.Skip(c.Buffered())
	s.tls = role(socket{s})
	err := s.tls.Handshake()
	if err == nil {
		err = s.flush()
	} else {
		s.flushNow() // the alert that says why
	}
	s.shaking = false
	if err != nil {
		return c.dress(&HandshakeError{err})
	}
	c.sealed = s
	c.state.Or(readable) // tls may have read on
	return nil
}

// HandshakeError is a TLS handshake that came to nothing.
type HandshakeError struct{ Err error }

func (e *HandshakeError) Error() string { return fmt.Sprintf("TLS handshake: %v", e.Err) }
func (e *HandshakeError) Unwrap() error { return e.Err }

// TLS describes the TLS session; false, there is none.
func (c *Conn) TLS() (tls.ConnectionState, bool) {
	if c.sealed == nil {
		return tls.ConnectionState{}, false
	}
	return c.sealed.tls.ConnectionState(), true
}

// read decrypts what has arrived into the buffer, until that is full or nothing
// is left, so that the readable flag tells the truth about what lies in tls, too.
func (s *sealed) read() (bool, error) {
	c := s.c
	from := c.w
	s.dry = false // the flag may have been raised by news as well as by us
	for c.w < len(c.in) {
		n, err := s.tls.Read(c.in[c.w:])
		c.w += n
		if err == nil {
			continue
		}
		if errors.Is(err, errAgain) {
			break
		}
		c.state.Or(readable) // tls will say it again
		if errors.Is(err, io.EOF) {
			c.state.Or(hungUp)
		}
		if c.w > from {
			break
		}
		return false, c.dress(err)
	}
	if c.w == len(c.in) {
		c.state.Or(readable)
	}
	if len(s.out) > 0 && !s.pushing {
		s.flushNow()
	}
	if len(s.out) > maxOwnWords {
		return false, c.dress(errors.New("peer makes TLS speak and does not listen"))
	}
	return c.w > from, nil
}

// write encrypts p and sends it, waiting as needed.
func (s *sealed) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), largeBuffer)
		if _, err := s.tls.Write(p[:n]); err != nil {
			return s.c.dress(err)
		}
		p = p[n:]
		if err := s.flush(); err != nil {
			return err
		}
	}
	return nil
}

// flush sends what is out and waits until the kernel has taken it. While it
// waits, reading may add to it.
func (s *sealed) flush() error {
	for len(s.out) > 0 {
		batch := s.out
		s.out, s.spare = s.spare[:0], nil
		s.pushing = true
		err := s.c.push(batch)
		s.pushing = false
		if cap(batch) <= 2*largeBuffer {
			s.spare = batch[:0]
		}
		if err != nil {
			s.broken = true
			return err
		}
	}
	return nil
}

// flushNow sends what the kernel takes and keeps the rest, whose order must not
// be disturbed.
func (s *sealed) flushNow() {
	n, _ := s.c.trySend(s.out) // an error is met again by whoever writes or reads next
	s.out = append(s.out[:0], s.out[n:]...)
}

// sendNow encrypts p and sends what the kernel takes of it: the connection is of
// no use afterwards but to be closed.
func (s *sealed) sendNow(p []byte) {
	if s.pushing || s.broken || len(p) == 0 {
		return
	}
	s.tls.Write(p)
	s.flushNow()
}

// bye tells the peer that nothing more will come.
func (s *sealed) bye() {
	if s.pushing || s.broken {
		return
	}
	s.tls.CloseWrite()
	s.flushNow()
}

// release gives back what an idle connection need not hold.
func (s *sealed) release() {
	s.spare = nil
	if len(s.out) == 0 {
		s.out = nil
	}
}

// socket is what tls sees of a Conn.
type socket struct{ s *sealed }

func (k socket) Read(p []byte) (int, error) {
	s, c := k.s, k.s.c
	if len(s.early) > 0 {
		n := copy(p, s.early)
		if s.early = s.early[n:]; len(s.early) == 0 {
			s.early = nil
		}
		return n, nil
	}
	if s.shaking {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	for {
		state := c.state.Load()
		if s.dry && state&(readable|hungUp) == 0 {
			if !s.shaking {
				return 0, errAgain
			}
			if err := c.wait(); err != nil {
				return 0, err
			}
		}
		c.state.And(^uint32(readable)) // before the read, lest news that arrive during it be lost
		n, errno := rawRead(c.fd, p)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			s.dry = true
			if c.state.Load()&hungUp != 0 || !s.shaking {
				return 0, errAgain
			}
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			s.dry = n < len(p)
			return n, nil
		}
	}
}

// Write keeps what tls wants to send: see flush.
func (k socket) Write(p []byte) (int, error) {
	k.s.out = append(k.s.out, p...)
	return len(p), nil
}

// Close is for the Conn to do.
func (k socket) Close() error                     { return nil }
func (k socket) LocalAddr() net.Addr              { return k.s.c.local }
func (k socket) RemoteAddr() net.Addr             { return k.s.c.remote }
func (k socket) SetDeadline(time.Time) error      { return nil } // tasks have limits of their own
func (k socket) SetReadDeadline(time.Time) error  { return nil }
func (k socket) SetWriteDeadline(time.Time) error { return nil }
