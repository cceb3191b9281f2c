package wire

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// loop waits on one epoll instance and runs the tasks whose sockets have news,
// one after the other, each until it waits again. Nothing is handed to another
// thread on the way: that costs more than the frames themselves.
type loop struct {
	engine *Engine
	index  int  // among the engine's
	naps   bool // see wait
	epfd   int
	wakefd int          // eventfd that ends the wait from outside
	now    atomic.Int64 // coarse clock, see Task.Now

	ready    []*Task  // to be run in this turn,
	at       int      // of which these have been
	requests []*Task  // of ready, while it is sorted
	later    []*Task  // have had their share of this turn
	outbox   []*Conn  // have something posted, see Conn.Post
	buffers  [][]byte // small and empty
	idle     []*coroutine
	alarms   []*alarm // called off, see Task.Limit
	away     int      // tasks in Block

	mu       sync.Mutex
	injected []*Task // woken by other goroutines
	poked    bool

	closed atomic.Bool
	done   chan struct{}
}

func newLoop(e *Engine, naps bool) (*loop, error) {
	epfd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wakefd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		syscall.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", errno)
	}
	l := &loop{engine: e, naps: naps, epfd: epfd, wakefd: int(wakefd), done: make(chan struct{})}
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(l.wakefd)}
	if err := syscall.EpollCtl(epfd, syscall.EPOLL_CTL_ADD, l.wakefd, &ev); err != nil {
		syscall.Close(epfd)
		syscall.Close(l.wakefd)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	l.now.Store(time.Now().UnixNano())
	return l, nil
}

func (l *loop) close() {
	if l.closed.Swap(true) {
		return
	}
	l.poke()
	<-l.done
	syscall.Close(l.epfd)
	syscall.Close(l.wakefd)
}

func (l *loop) poke() {
	one := [8]byte{1}
	syscall.Write(l.wakefd, one[:]) // a full counter means that a wake-up is due already
}

// inject has t run in the next turn. Safe for all goroutines.
func (l *loop) inject(t *Task) {
	l.mu.Lock()
	l.injected = append(l.injected, t)
	poke := !l.poked
	l.poked = true
	l.mu.Unlock()
	if poke {
		l.poke()
	}
}

func (l *loop) run() {
	defer close(l.done)
	var events [256]syscall.EpollEvent
	for {
		n, errno := l.wait(events[:])
		if l.closed.Load() {
			for _, co := range l.idle {
				co.stop()
			}
			return
		}
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			panic("epoll_wait: " + errno.Error()) // only a bug in this file can cause it
		}
		l.now.Store(time.Now().UnixNano())
		l.ready, l.later = append(l.ready, l.later...), l.later[:0]
		for from := 0; from == 0 || from < n; from += volley {
			for i := from; i < min(from+volley, n); i++ {
				l.deliver(&events[i])
			}
			l.sort()
			for l.at = 0; l.at < len(l.ready); { // which grows when one of them begins another, see Task.Go
				l.take().resume()
			}
			l.ready = l.ready[:0]
			l.sendPosted()
		}
	}
}

// volley is how many sockets are dealt with together: first all that has arrived
// is read, then the tasks run, then what they have posted is sent. Each of these
// three finds its code and data in the processor's caches from the second socket
// on, which for so little work on each is most of the cost; and whom a send wakes
// cannot take the processor away amid the work of others. More at once would save
// little and let the first wait.
const volley = 16

// sort has the tasks that await an answer run first, then those that await a request.
// What a request takes is more code than the processor's first cache holds, so that
// they had better not alternate.
func (l *loop) sort() {
	answers := l.ready[:0]
	for _, t := range l.ready {
		if t.until == Answer {
			answers = append(answers, t)
		} else {
			l.requests = append(l.requests, t)
		}
	}
	copy(l.ready[len(answers):], l.requests)
	clear(l.requests)
	l.requests = l.requests[:0]
}

// take removes the next task that is ready.
func (l *loop) take() *Task {
	t := l.ready[l.at]
	l.ready[l.at] = nil
	l.at++
	t.queued.Store(false)
	return t
}

// queue has what c has posted sent at the end of the volley.
func (l *loop) queue(c *Conn) {
	if !c.queued {
		c.queued = true
		l.outbox = append(l.outbox, c)
	}
}

// withdraw forgets c, which is about to leave the loop.
func (l *loop) withdraw(c *Conn) {
	c.queued = false
	l.outbox = slices.DeleteFunc(l.outbox, func(o *Conn) bool { return o == c })
}

// sendPosted sends what has been posted. What the kernel does not take waits for
// the socket's next event.
func (l *loop) sendPosted() {
	for i, c := range l.outbox {
		l.outbox[i] = nil
		c.queued = false
		if c.posted > 0 {
			c.deliverPosted()
		}
	}
	l.outbox = l.outbox[:0]
}

// wait returns what has happened, at once while tasks are left from the last
// turn. A loop that may nap first waits by a raw call, which keeps its processor:
// to give that back and fetch it again keeps the runtime's monitor awake and costs
// more than a small frame. The monitor's signal ends the nap, with EINTR, when it
// has lasted for some 10 ms, and at once when the collector wants all to stop.
// Then, with nothing to do, the loop blocks as any other goroutine does.
func (l *loop) wait(events []syscall.EpollEvent) (int, syscall.Errno) {
	patience := 0
	if l.naps && len(l.later) == 0 && l.away == 0 { // what blocks may want this very processor
		patience = -1
	}
	n, errno := epollWait(l.epfd, events, patience)
	if n > 0 || len(l.later) > 0 || errno != 0 && errno != syscall.EINTR {
		return max(n, 0), errno
	}
	n, err := syscall.EpollWait(l.epfd, events, -1)
	if err != nil {
		return 0, err.(syscall.Errno)
	}
	return n, 0
}

func (l *loop) deliver(ev *syscall.EpollEvent) {
	if int(ev.Fd) == l.wakefd {
		var sink [8]byte
		syscall.Read(l.wakefd, sink[:])
		l.mu.Lock()
		l.poked = false
		l.ready = append(l.ready, l.injected...)
		clear(l.injected)
		l.injected = l.injected[:0]
		l.mu.Unlock()
		return
	}
	c := l.engine.lookup(int(ev.Fd))
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
	if c.door != nil && !c.door.open {
		l.shut(c)
		return
	}
	c.state.Or(flags)
	t := c.task.Load()
	switch {
	case t == nil:
	case t.of(l):
		if flags&writable != 0 && c.posted > 0 {
			l.queue(c)
		}
		if c.eager && flags&readable != 0 {
			c.readAhead()
		}
		if !t.queued.Swap(true) {
			l.ready = append(l.ready, t)
		}
	default:
		t.Wake()
	}
}

const (
	epollET    = 1 << 31
	readEvents = syscall.EPOLLIN | syscall.EPOLLRDHUP | epollET
)

// watch registers c (EPOLL_CTL_ADD) or changes what is reported of it (_MOD).
// Write readiness is reported from the first write on that would have blocked:
// a socket that never blocks causes no such events.
func (l *loop) watch(c *Conn, op int) error {
	ev := syscall.EpollEvent{Events: readEvents, Fd: int32(c.fd), Pad: int32(c.gen)}
	if c.watched {
		ev.Events |= syscall.EPOLLOUT
	}
	if c.door != nil {
		ev.Events = syscall.EPOLLIN
	}
	if err := syscall.EpollCtl(l.epfd, op, c.fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	c.loop = l
	return nil
}

// shut has a listening socket in which nobody is interested at the moment no
// longer reported.
func (l *loop) shut(c *Conn) {
	c.door.shut = true
	ev := syscall.EpollEvent{Fd: int32(c.fd), Pad: int32(c.gen)}
	syscall.EpollCtl(l.epfd, syscall.EPOLL_CTL_MOD, c.fd, &ev)
}

// move brings c to the loop of the task that is to use it. The kernel reports at
// once what c has in store, so nothing is missed.
func (l *loop) move(c *Conn) error {
	switch c.loop {
	case l:
		return nil
	case nil:
		return l.watch(c, syscall.EPOLL_CTL_ADD)
	}
	if err := syscall.EpollCtl(c.loop.epfd, syscall.EPOLL_CTL_DEL, c.fd, &syscall.EpollEvent{}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return l.watch(c, syscall.EPOLL_CTL_ADD)
}
