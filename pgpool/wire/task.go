package wire

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Task is one conversation: straight-line code that reads and writes a set of
// Conns and waits for them. Only Interrupt and Wake may be called from elsewhere.
//
// A task made by Engine.Go is a coroutine of its loop: it runs on the loop's
// thread until it waits, so it must not block by other means (use Block), nor
// hold a lock while it waits. When it may have to wait for long and has nothing on
// its stack that it needs, it rests (see Rest). One made by NewTask is the caller's goroutine.
type Task struct {
	loop   *loop
	cause  atomic.Pointer[error] // of an interrupt
	limit  atomic.Pointer[error] // of a limit that has passed
	queued atomic.Bool           // due to run

	// Of a coroutine:
	body    func(*Task)
	co      *coroutine // while it is under way
	turns   int        // reads since it went on
	resting bool       // body is to be run again
	until   Awaited
	over    bool

	token chan struct{} // of a goroutine: one token when something may have happened
}

// maxTurns is how many reads a coroutine may make before others have a turn.
const maxTurns = 64

// Go runs f as a task of its own.
func (e *Engine) Go(f func(*Task)) {
	t := &Task{loop: e.pick(), body: f}
	t.Wake()
}

// Go is Engine.Go for a coroutine. Where the new task falls to its own loop, it
// runs within the same turn and nobody need be woken.
func (t *Task) Go(f func(*Task)) {
	l := t.loop.engine.pick()
	if l != t.loop || t.co == nil {
		(&Task{loop: l, body: f}).Wake()
		return
	}
	n := &Task{loop: l, body: f}
	n.queued.Store(true)
	l.ready = append(l.ready, n)
}

// coroutine carries one task after the other: its stack has grown to what a
// conversation needs, which a new one would have to do again.
type coroutine struct {
	next  func() (struct{}, bool) // goes on
	stop  func()
	yield func(struct{}) bool // gives the loop its thread back
	task  *Task
}

// maxIdle bounds the coroutines kept for tasks to come, and for those that rest.
const maxIdle = 512

func (l *loop) coroutine() *coroutine {
	if n := len(l.idle); n > 0 {
		co := l.idle[n-1]
		l.idle = l.idle[:n-1]
		return co
	}
	co := &coroutine{}
	co.next, co.stop = iter.Pull(func(yield func(struct{}) bool) {
		co.yield = yield
		for {
			t := co.task
			t.body(t)
			t.over, t.resting = !t.resting, false
			t.co, co.task = nil, nil
			if next := l.fresh(); next != nil { // its stack is warm, and there is nothing to switch to and back
				next.begin(co)
				continue
			}
			if len(l.idle) >= maxIdle {
				return
			}
			l.idle = append(l.idle, co)
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return co
}

// NewTask makes the calling goroutine a task. Conn.Attach gives it connections.
func (e *Engine) NewTask() *Task {
	return &Task{loop: e.pick(), token: make(chan struct{}, 1)}
}

// resume lets t go on until it waits. Only its loop calls it.
func (t *Task) resume() {
	if t.over {
		return // a late wake-up
	}
	if t.co == nil {
		t.begin(t.loop.coroutine())
	}
	t.turns = 0
	t.co.next()
}

// begin gives t a stack.
func (t *Task) begin(co *coroutine) { t.co, co.task, t.turns = co, t, 0 }

// fresh takes the next task that is ready if it has no stack of its own.
func (l *loop) fresh() *Task {
	if l.at == len(l.ready) || l.ready[l.at].co != nil || l.ready[l.at].over {
		return nil
	}
	return l.take()
}

// Next sets what a coroutine runs after a rest.
func (t *Task) Next(f func(*Task)) { t.body = f }

// of tells whether t is a coroutine of l, so that what belongs to l is at hand.
func (t *Task) of(l *loop) bool { return t != nil && t.loop == l && t.body != nil }

// Lane is the number of the task's loop: what tasks of different lanes do may be done
// at the same time.
func (t *Task) Lane() int { return t.loop.index }

// MayRest tells whether the task can rest at all.
func (t *Task) MayRest() bool { return t.co != nil }

// Awaited is what a task that rests goes on with.
type Awaited bool

const (
	Answer  Awaited = false // of a server
	Request Awaited = true  // of a client
)

// Rest says that what the coroutine runs is about to return, but not for good: at
// the next wake-up what Next has set is run. Meanwhile the task has no stack, so
// that many can wait for long. Look first, lest news that have come be slept over.
// Tasks that await the same are run one after the other, see loop.sort.
func (t *Task) Rest(until Awaited) { t.resting, t.until = true, until }

// park waits until the task is woken.
func (t *Task) park() {
	if t.co != nil {
		t.co.yield(struct{}{})
		return
	}
	<-t.token
}

// breathe lets others run if the task has been busy for long.
func (t *Task) breathe() {
	if t.turns++; t.turns < maxTurns || t.co == nil {
		return
	}
	if !t.queued.Swap(true) {
		t.loop.later = append(t.loop.later, t)
	}
	t.park()
}

// Wake makes the task look at what it waits for. Safe for all goroutines.
func (t *Task) Wake() {
	if t.body != nil {
		if !t.queued.Swap(true) {
			t.loop.inject(t)
		}
		return
	}
	select {
	case t.token <- struct{}{}:
	default:
	}
}

// WakeBy is Wake by another task, which is running. One of the same loop goes on
// within the turn, and nobody need be woken.
func (t *Task) WakeBy(by *Task) {
	if l := t.loop; !t.of(l) || !by.of(l) {
		t.Wake()
	} else if !t.queued.Swap(true) {
		l.ready = append(l.ready, t)
	}
}

// Block runs f, which may block, without holding up other tasks. A panic of f is one
// of the task.
func (t *Task) Block(f func()) {
	if t.co == nil {
		f()
		return
	}
	var done atomic.Bool
	var failed error
	t.loop.away++
	defer func() { t.loop.away-- }()
	go func() {
		defer func() {
			if p := recover(); p != nil { // which would end the process here
				failed = fmt.Errorf("%v\n%s", p, debug.Stack())
			}
			done.Store(true)
			t.Wake()
		}()
		f()
	}()
	for !done.Load() {
		t.park()
	}
	if failed != nil {
		panic(failed)
	}
}

// Interrupt makes the task's present wait, and all that follow, return cause,
// until it is forgiven: whoever makes do without what it waited for has not
// swallowed it. The first of several causes wins. Safe for all goroutines.
func (t *Task) Interrupt(cause error) {
	t.cause.CompareAndSwap(nil, &cause)
	t.Wake()
}

// Forgive drops an interrupt that has been answered. For the task itself.
func (t *Task) Forgive() { t.cause.Store(nil) }

// Limit makes the task's waits return cause after d; without d, never. stop, to
// be called once and by the task, calls that off: when it has returned, cause
// will not come any more, even if its time was up. An interrupt goes before it.
func (t *Task) Limit(d time.Duration, cause error) (stop func()) {
	if d <= 0 {
		return func() {}
	}
	if t.co == nil {
		return newAlarm(t).set(d, cause)
	}
	l := t.loop
	if n := len(l.alarms); n > 0 {
		a := l.alarms[n-1]
		l.alarms = l.alarms[:n-1]
		a.task = t
		return a.set(d, cause)
	}
	return newAlarm(t).set(d, cause)
}

// Until is Limit for the end of a context, whose cause it takes.
func (t *Task) Until(ctx context.Context) (stop func()) {
	a := &alarm{task: t}
	cancel := context.AfterFunc(ctx, func() {
		a.mu.Lock()
		a.cause = context.Cause(ctx)
		a.mu.Unlock()
		a.ring()
	})
	return func() {
		cancel()
		a.off()
	}
}

// alarm sets a task's limit once, unless it has been called off before. A loop
// keeps those that were called off in time, for the next limit of one of its tasks.
type alarm struct {
	task *Task

	timer *time.Timer // of Limit
	stop  func()      // is calledOff, made once

	mu    sync.Mutex
	cause error
	rung  bool
	dead  bool
}

func newAlarm(t *Task) *alarm {
	a := &alarm{task: t}
	a.stop = a.calledOff
	return a
}

// set starts the timer and returns what calls it off.
func (a *alarm) set(d time.Duration, cause error) (stop func()) {
	a.cause = cause
	if a.timer == nil {
		a.timer = time.AfterFunc(d, a.ring)
	} else {
		a.timer.Reset(d)
	}
	return a.stop
}

// calledOff ends a limit. Only if its timer had not begun to ring is nobody else
// left who knows the alarm.
func (a *alarm) calledOff() {
	inTime := a.timer.Stop()
	if t := a.task; inTime && t.co != nil && len(t.loop.alarms) < maxIdle {
		a.task, a.cause = nil, nil
		t.loop.alarms = append(t.loop.alarms, a)
		return
	}
	a.off()
}

func (a *alarm) ring() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead || !a.task.limit.CompareAndSwap(nil, &a.cause) {
		return
	}
	a.rung = true
	a.task.Wake()
}

func (a *alarm) off() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dead = true
	if a.rung {
		a.task.limit.CompareAndSwap(&a.cause, nil)
	}
}

func (t *Task) interrupted() error {
	if p := t.cause.Load(); p != nil {
		return *p
	}
	if p := t.limit.Load(); p != nil {
		return *p
	}
	return nil
}

// Wait returns when one of conns has something to read (or its peer has gone),
// or with the cause of an interrupt. Nil conns are passed over.
func (t *Task) Wait(conns ...*Conn) error {
	for {
		if news, err := t.Look(conns...); news || err != nil {
			return err
		}
		t.park()
	}
}

// Look reports whether Wait would return, and what.
func (t *Task) Look(conns ...*Conn) (news bool, err error) {
	if err := t.interrupted(); err != nil {
		return false, err
	}
	for _, c := range conns {
		if c != nil && c.state.Load()&(readable|arrived) != 0 {
			return true, nil
		}
	}
	return false, nil
}

// WaitFor waits until cond holds. It looks after each Wake and each event of
// the task's connections.
func (t *Task) WaitFor(cond func() bool) error {
	for {
		if err := t.interrupted(); err != nil {
			return err
		}
		if cond() {
			return nil
		}
		t.park()
	}
}

// waitWritable returns when c takes bytes again. also, if not nil, ends the wait
// when it becomes readable, which is reported as true.
func (t *Task) waitWritable(c, also *Conn) (bool, error) {
	for {
		if err := t.interrupted(); err != nil {
			return false, err
		}
		if c.state.Load()&writable != 0 {
			return false, nil
		}
		if also != nil && also.state.Load()&(readable|arrived) != 0 {
			return true, nil
		}
		t.park()
	}
}
