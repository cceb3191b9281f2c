package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// Conn is one socket with its buffers. Only the task it is attached to may read
// and write it; Shutdown and HungUp are safe for all goroutines.
type Conn struct {
	// What every frame touches comes first, in two cache lines.
	loop  *loop
	task  atomic.Pointer[Task]
	fd    int
	gen   uint32 // tells this Conn's events from those of an earlier user of fd
	state atomic.Uint32

	in    []byte // in[r:w] has arrived and is not consumed; nil while idle
	r, w  int
	owed  int           // bytes of a frame under way that Forward has yet to pass on
	inErr syscall.Errno // what the loop has met when it has read ahead
	eager bool          // its task, a coroutine of the loop, waits for it to be read: the loop may do that

	out     []byte  // composed and not sent
	posted  int     // of these, bytes that the loop is to send
	queued  bool    // is in the loop's outbox
	watched bool    // write readiness is reported
	sent    uint64  // bytes in all
	sealed  *sealed // between the buffers and the socket; nil without TLS
	door    *door   // of a listening socket
	relief  func() error
	outErr  error // of a send by the loop
	tap     *Tap

	engine *Engine
	mark   func(error) error // dresses errors in the side they belong to
	local  net.Addr
	remote net.Addr

	closeMu sync.Mutex // orders Close and Shutdown: a closed fd may belong to another
	closed  bool
}

const (
	readable = 1 << iota // a read may yield something: bytes, the end or an error
	writable             // a write that would have blocked may go on
	hungUp               // the peer has sent all it ever will
	arrived              // the loop has read something since the last TryFill
)

const (
	smallBuffer = 16 << 10
	largeBuffer = 64 << 10
	largestLeap = 1 << 20  // room made at once for a frame of which little has arrived
	maxUnsent   = 16 << 10 // composed bytes beyond which Write does not wait for Flush
	copyLimit   = 4 << 10  // smaller pieces are copied behind what is composed, larger sent from where they lie
)

var (
	helloPool = sync.Pool{New: func() any { return new([helloBuffer]byte) }}
	smallPool = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// small is an empty small buffer.
func (c *Conn) small() []byte {
	if l := c.loop; c.task.Load().of(l) && len(l.buffers) > 0 {
		last := len(l.buffers) - 1
		b := l.buffers[last]
		l.buffers = l.buffers[:last]
		return b
	}
	return smallPool.Get().(*[smallBuffer]byte)[:0]
}

// maxBuffers bounds those that a loop keeps.
const maxBuffers = 64

// giveBack puts a buffer by for the next who needs one; on the loop, whose last one is
// still in the processor's caches.
func (c *Conn) giveBack(b []byte) {
	if l := c.loop; cap(b) == smallBuffer && c.task.Load().of(l) && len(l.buffers) < maxBuffers {
		l.buffers = append(l.buffers, b[:0])
		return
	}
	giveBack(b)
}

func giveBack(b []byte) {
	switch cap(b) {
	case helloBuffer:
		helloPool.Put((*[helloBuffer]byte)(b[:helloBuffer]))
	case smallBuffer:
		smallPool.Put((*[smallBuffer]byte)(b[:smallBuffer]))
	case largeBuffer:
		largePool.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}

// Attach makes t the task that c wakes; nil leaves c unattended, as in a pool.
func (c *Conn) Attach(t *Task) {
	if c.queued && (t == nil || t.loop != c.loop) {
		c.loop.withdraw(c)
		c.deliverPosted()
		c.posted = 0 // what the kernel has not taken goes with the next Flush
	}
	c.task.Store(t)
	if t == nil {
		return
	}
	if err := t.loop.move(c); err != nil {
		c.Shutdown() // unheard of; whoever reads will see the end
		c.state.Or(readable | hungUp)
	}
}

// Task is whom c is attached to.
func (c *Conn) Task() *Task { return c.task.Load() }

// Near tells whether t can use c without its being moved to another loop.
func (c *Conn) Near(t *Task) bool { return c.loop == t.loop }

// Mark sets how errors of this socket are dressed, so that whoever meets one
// later knows the side it came from.
func (c *Conn) Mark(f func(error) error) { c.mark = f }

// LocalAddr and RemoteAddr are the addresses the socket had when it was adopted.
func (c *Conn) LocalAddr() net.Addr  { return c.local }
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Engine is the one that adopted c.
func (c *Conn) Engine() *Engine { return c.engine }

func (c *Conn) dress(err error) error {
	if err == nil || c.mark == nil {
		return err
	}
	return c.mark(err)
}

// Stirred tells whether anything has arrived, the end included, that has not
// been read.
func (c *Conn) Stirred() bool { return c.r < c.w || c.state.Load()&(readable|arrived) != 0 }

// HungUp tells whether the peer has closed its side.
func (c *Conn) HungUp() bool { return c.state.Load()&hungUp != 0 }

// Buffered is the number of bytes that have arrived and are not consumed.
func (c *Conn) Buffered() int { return c.w - c.r }

// Bytes are the buffered bytes; they are valid until the next read.
func (c *Conn) Bytes() []byte { return c.in[c.r:c.w] }

// Skip consumes n buffered bytes.
func (c *Conn) Skip(n int) {
	if n > c.w-c.r {
		panic("wire: skip beyond the buffer")
	}
	c.r += n
}

// Unread puts bytes in front of those that are buffered, as if they had not been
// consumed.
func (c *Conn) Unread(b []byte) {
	if c.in != nil && c.r >= len(b) {
		c.r -= copy(c.in[c.r-len(b):], b)
		return
	}
	whole := make([]byte, max(smallBuffer, len(b)+c.Buffered()))
	have := copy(whole, b)
	have += copy(whole[have:], c.Bytes())
	giveBack(c.in)
	c.in, c.r, c.w = whole, 0, have
}

// Release gives the buffers back if they are empty. Call it before a wait that
// may be long.
func (c *Conn) Release() {
	if c.r == c.w && c.in != nil {
		c.giveBack(c.in)
		c.in, c.r, c.w = nil, 0, 0
	}
	if len(c.out) == 0 && c.out != nil {
		c.giveBack(c.out)
		c.out = nil
	}
	if c.sealed != nil {
		c.sealed.release()
	}
}

// room makes space for at least one more byte, and for want bytes in all from
// the read position on. Space for a large frame is made as it arrives: what a
// peer claims costs nothing.
func (c *Conn) room(want int) {
	want = min(want, largestLeap)
	if c.in == nil {
		if want <= smallBuffer {
			c.in = c.small()[:smallBuffer]
		} else {
			c.in = make([]byte, want)
		}
		c.r, c.w = 0, 0
		return
	}
	if c.r == c.w {
		full := c.w == len(c.in) // the last read took all it could: a large result is passing
		c.r, c.w = 0, 0
		if full && len(c.in) == smallBuffer {
			giveBack(c.in)
			c.in = largePool.Get().(*[largeBuffer]byte)[:]
		}
	}
	if c.w < len(c.in) && len(c.in)-c.r >= want {
		return
	}
	if have := c.w - c.r; want <= len(c.in) && have < len(c.in) {
		copy(c.in, c.in[c.r:c.w])
		c.r, c.w = 0, have
		return
	}
	bigger := make([]byte, max(2*len(c.in), want))
	c.w = copy(bigger, c.in[c.r:c.w])
	c.r = 0
	giveBack(c.in)
	c.in = bigger
}

// TryFill reads what has arrived, once, and never waits. It reports false when
// there is nothing yet, and io.EOF (dressed) when the peer has closed.
func (c *Conn) TryFill() (bool, error) { return c.tryFill(0) }

func (c *Conn) tryFill(want int) (bool, error) {
	state := c.state.Load()
	if state&arrived != 0 {
		c.state.And(^uint32(arrived))
		if t := c.task.Load(); t != nil {
			t.breathe()
		}
		return true, nil
	}
	if state&readable == 0 {
		return false, nil
	}
	if c.inErr != 0 {
		return false, c.dress(c.inErr)
	}
	c.room(want)
	c.state.And(^uint32(readable)) // before the read, lest news that arrive during it be lost
	if c.sealed != nil {
		ok, err := c.sealed.read()
		if t := c.task.Load(); ok && t != nil {
			t.breathe()
		}
		return ok, err
	}
	for {
		n, errno := rawRead(c.fd, c.in[c.w:])
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN && c.outErr != nil:
			c.state.Or(readable)
			return false, c.outErr
		case errno == syscall.EAGAIN:
			return false, nil
		case errno != 0:
			c.state.Or(readable)
			return false, c.dress(errno)
		case n == 0:
			c.state.Or(readable | hungUp)
			return false, c.dress(io.EOF)
		}
		// A full read may have left something; and after a hang-up no further
		// event will come.
		if c.w+n == len(c.in) || c.state.Load()&hungUp != 0 || c.outErr != nil {
			c.state.Or(readable)
		}
		c.w += n
		if t := c.task.Load(); t != nil {
			t.breathe()
		}
		return true, nil
	}
}

// Fill waits until at least one more byte has been buffered.
func (c *Conn) Fill() error { return c.fill(0) }

func (c *Conn) fill(want int) error {
	for {
		if ok, err := c.tryFill(want); ok || err != nil {
			return err
		}
		c.Await(want <= smallBuffer)
		err := c.wait()
		c.Await(false)
		if err != nil {
			return err
		}
	}
}

// Await tells that the task is about to wait for c and will read it next. The loop
// may then read for it: see volley.
func (c *Conn) Await(yes bool) { c.eager = yes && c.sealed == nil }

// Heed takes note that something has arrived, as TryFill would.
func (c *Conn) Heed() {
	if c.state.Load()&arrived != 0 {
		c.state.And(^uint32(arrived))
	}
}

// readAhead reads once on behalf of a task of this loop that is about to do it.
// Whatever is not plain success the task shall see for itself.
func (c *Conn) readAhead() {
	if c.state.Load()&arrived != 0 || c.inErr != 0 {
		return
	}
	c.room(0)
	c.state.And(^uint32(readable)) // before the read, lest news that arrive during it be lost
	n, errno := rawRead(c.fd, c.in[c.w:])
	switch {
	case errno == syscall.EAGAIN && c.outErr == nil:
		return
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		c.state.Or(readable)
		return
	case errno != 0:
		c.inErr = errno
		c.state.Or(readable)
		return
	case n == 0: // which can be read again
		c.state.Or(readable | hungUp)
		return
	}
	if c.w+n == len(c.in) || c.state.Load()&hungUp != 0 || c.outErr != nil { // as in tryFill
		c.state.Or(readable)
	}
	c.w += n
	c.state.Or(arrived)
}

func (c *Conn) wait() error {
	t := c.task.Load()
	if t == nil {
		return errors.New("wire: wait on a connection that belongs to no task")
	}
	return t.Wait(c)
}

// Need waits until n bytes are buffered, however large n is.
func (c *Conn) Need(n int) error {
	for c.w-c.r < n {
		if err := c.fill(n); err != nil {
			if errors.Is(err, io.EOF) && c.w > c.r {
				return c.dress(io.ErrUnexpectedEOF)
			}
			return err
		}
	}
	return nil
}

// Write adds p to what is composed. Large pieces and large backlogs go out at
// once, so it may wait like Flush.
func (c *Conn) Write(p []byte) (int, error) {
	if c.tap != nil {
		c.tap.add(p)
	}
	if len(c.out)+len(p) > maxUnsent {
		if err := c.Flush(); err != nil {
			return 0, err
		}
		if len(p) > copyLimit {
			return len(p), c.send(p)
		}
	}
	if c.out == nil {
		c.out = c.small()
	}
	c.out = append(c.out, p...)
	return len(p), nil
}

// Sent is the number of bytes sent in all.
func (c *Conn) Sent() uint64 { return c.sent }

// Unsent is the number of composed bytes.
func (c *Conn) Unsent() int { return len(c.out) }

// Composed is what is composed and neither sent nor posted; it is valid until the
// next write.
func (c *Conn) Composed() []byte { return c.out[c.posted:] }

// Flush sends what is composed and waits until the kernel has taken all of it.
func (c *Conn) Flush() error {
	if c.outErr != nil {
		return c.outErr
	}
	if len(c.out) == 0 {
		return nil
	}
	c.posted = 0
	err := c.send(c.out)
	c.out = c.out[:0]
	if cap(c.out) > 4*smallBuffer {
		c.out = nil // a large message passed; do not keep its room
	}
	return err
}

// Post has what is composed sent at the end of the loop's turn, together with what
// other tasks have posted, for a task that is about to wait. What comes of it shows
// when c is next read, flushed or posted; more may be composed meanwhile.
func (c *Conn) Post() error {
	if len(c.out) == 0 {
		return c.outErr
	}
	if t := c.task.Load(); t == nil || t.co == nil || t.loop != c.loop || c.sealed != nil || c.relief != nil || c.outErr != nil {
		return c.Flush()
	}
	c.posted = len(c.out)
	c.loop.queue(c)
	return nil
}

// deliverPosted sends what the kernel takes of what is posted. The room of an idle
// connection is given back.
func (c *Conn) deliverPosted() {
	n, err := c.trySend(c.out[:c.posted])
	if err != nil {
		c.outErr, c.posted, c.out = err, 0, c.out[:0]
		c.state.Or(readable) // which is what the task looks at
		if t := c.task.Load(); t != nil {
			t.Wake()
		}
		return
	}
	c.posted -= n
	c.out = c.out[:copy(c.out, c.out[n:])]
	if len(c.out) == 0 && c.in == nil {
		c.giveBack(c.out)
		c.out = nil
	}
}

func (c *Conn) send(p []byte) error {
	if c.sealed != nil {
		return c.sealed.write(p)
	}
	return c.push(p)
}

// push sends bytes as they are to go over the wire.
func (c *Conn) push(p []byte) error {
	for len(p) > 0 {
		n, err := c.trySend(p)
		if err != nil {
			return err
		}
		p = p[n:]
		if len(p) == 0 {
			return nil
		}
		t := c.task.Load()
		if t == nil {
			return errors.New("wire: wait on a connection that belongs to no task")
		}
		if c.relief == nil {
			if _, err := t.waitWritable(c, nil); err != nil {
				return err
			}
			continue
		}
		busy, err := t.waitWritable(c, c)
		if err == nil && busy {
			err = c.relief()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Relieve sets what to do when a write to c would block and c has something to
// read: reading it is what may end the wait. nil restores plain waiting.
func (c *Conn) Relieve(f func() error) { c.relief = f }

// trySend sends what the kernel takes now. After a short count the writable
// flag is down and an event will raise it.
func (c *Conn) trySend(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		c.state.And(^uint32(writable))
		n, errno := rawSend(c.fd, p[sent:])
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			if !c.watched {
				c.watched = true
				if err := c.loop.watch(c, syscall.EPOLL_CTL_MOD); err != nil {
					return sent, c.dress(err)
				}
			}
			return sent, nil
		case errno != 0:
			return sent, c.dress(errno)
		}
		sent += n
		c.sent += uint64(n)
	}
	return sent, nil
}

// Shutdown ends both directions: whoever waits on c sees the end of the stream.
// The descriptor stays open until Close.
func (c *Conn) Shutdown() {
	c.closeMu.Lock()
	defer c.closeMu.Unlock()
	if !c.closed {
		syscall.Shutdown(c.fd, syscall.SHUT_RDWR)
	}
}

// Close closes the socket. What is composed and not flushed is lost.
func (c *Conn) Close() error {
	c.closeMu.Lock()
	defer c.closeMu.Unlock()
	if c.closed {
		return nil
	}
	if c.sealed != nil {
		c.sealed.bye()
	}
	if c.posted > 0 && c.sealed == nil {
		c.trySend(c.out[:c.posted])
	}
	c.closed, c.posted = true, 0
	c.task.Store(nil)
	if slot, err := c.engine.slot(c.fd); err == nil {
		slot.CompareAndSwap(c, nil)
	}
	giveBack(c.in)
	giveBack(c.out)
	c.in, c.out, c.r, c.w = nil, nil, 0, 0
	fd := c.fd
	c.fd = -1 // a late use must fail, not meet whoever has the number next
	return rawClose(fd)
}

// String names the peer, for logs.
func (c *Conn) String() string {
	if c.remote == nil {
		return fmt.Sprintf("fd %d", c.fd)
	}
	return c.remote.String()
}

// SendNow sends what the kernel takes of what is composed, without waiting, and
// drops the rest: for last words to a peer that may not listen.
func (c *Conn) SendNow() {
	if c.sealed != nil {
		c.sealed.sendNow(c.out)
	} else {
		c.trySend(c.out)
	}
	c.out, c.posted = c.out[:0], 0
}

// TryFillTo is TryFill with room for want unconsumed bytes in all, so that a
// large frame is not read in small pieces.
func (c *Conn) TryFillTo(want int) (bool, error) { return c.tryFill(want) }

// FillTo is Fill with room for want unconsumed bytes in all.
func (c *Conn) FillTo(want int) error { return c.fill(want) }
