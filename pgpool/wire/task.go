package wire

import (
	"context"
	"sync/atomic"
	"time"
)

// Task is one conversation: the goroutine that reads and writes a set of Conns
// and waits for them. Only Interrupt may be called from elsewhere.
type Task struct {
	token chan struct{} // holds one token when something may have happened
	cause atomic.Pointer[error]
}

// NewTask makes a task without connections; Conn.Attach gives it some.
func (e *Engine) NewTask() *Task {
	return &Task{token: make(chan struct{}, 1)}
}

func (t *Task) wake() {
	select {
	case t.token <- struct{}{}:
	default:
	}
}

// Interrupt makes the task's present wait, or its next one, return cause. The
// first of several causes wins. Safe for all goroutines.
func (t *Task) Interrupt(cause error) {
	t.cause.CompareAndSwap(nil, &cause)
	t.wake()
}

// Interrupted tells the cause of an interrupt that no wait has returned yet,
// and nil if there is none. It does not consume it.
func (t *Task) Interrupted() error {
	if p := t.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// Forgive drops an interrupt that came too late to matter, whatever its cause.
func (t *Task) Forgive() { t.cause.Store(nil) }

// Limit interrupts the task with cause after d; without d, never. stop, to be
// called once and by the task, calls that off: when it has returned, cause will
// not come any more, even if its time was up and no wait has met it.
func (t *Task) Limit(d time.Duration, cause error) (stop func()) {
	if d <= 0 {
		return func() {}
	}
	return t.alarm(func() error { return cause }, func(ring func()) func() bool { return time.AfterFunc(d, ring).Stop })
}

// Until is Limit for the end of a context, whose cause it takes.
func (t *Task) Until(ctx context.Context) (stop func()) {
	return t.alarm(func() error { return context.Cause(ctx) }, func(ring func()) func() bool { return context.AfterFunc(ctx, ring) })
}

func (t *Task) alarm(cause func() error, set func(ring func()) (cancel func() bool)) (stop func()) {
	rung := make(chan struct{})
	var mine *error
	cancel := set(func() {
		defer close(rung)
		err := cause()
		mine = &err
		if t.cause.CompareAndSwap(nil, mine) {
			t.wake()
		}
	})
	return func() {
		if !cancel() { // it rings, or has rung: only when that is over is it known what to take back
			<-rung
			t.cause.CompareAndSwap(mine, nil)
		}
	}
}

// Wait returns when one of conns has something to read (or its peer has gone),
// or with the cause of an interrupt. Nil conns are passed over.
func (t *Task) Wait(conns ...*Conn) error {
	for {
		if p := t.cause.Load(); p != nil {
			t.cause.Store(nil)
			return *p
		}
		for _, c := range conns {
			if c != nil && c.state.Load()&readable != 0 {
				return nil
			}
		}
		<-t.token
	}
}

// waitWritable returns when c takes bytes again. also, if not nil, ends the wait
// when it becomes readable, which is reported as true.
func (t *Task) waitWritable(c, also *Conn) (bool, error) {
	for {
		if p := t.cause.Load(); p != nil {
			t.cause.Store(nil)
			return false, *p
		}
		if c.state.Load()&writable != 0 {
			return false, nil
		}
		if also != nil && also.state.Load()&readable != 0 {
			return true, nil
		}
		<-t.token
	}
}

// Wake makes the task look at what it waits for. Safe for all goroutines.
func (t *Task) Wake() { t.wake() }

// WaitFor waits until cond holds. It looks after each Wake and each event of
// the task's connections.
func (t *Task) WaitFor(cond func() bool) error {
	for {
		if p := t.cause.Load(); p != nil {
			t.cause.Store(nil)
			return *p
		}
		if cond() {
			return nil
		}
		<-t.token
	}
}
