package watchdog

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"pgpool-go/watchdog/election"
)

// escalation is what begins and ends with leading: the operator's commands and the
// address. Orders are carried out one after the other; a new one cuts short what
// the one before still does.
type escalation struct {
	w       *Watchdog
	program []string

	mu     sync.Mutex
	tell   *json.Encoder // the guardian's ear; nil: there is no address
	pipe   io.Closer
	serial uint64        // of the last order to bring the address up
	held   bool          // it may be up
	lease  time.Duration // of this node
	will   *will         // that the guardian knows
	down   map[uint64]chan struct{}
	closed bool

	cancel    context.CancelFunc // of the order in hand
	escalated bool               // of the order in hand: the commands have been run
	idle      chan struct{}      // closed when no order is in hand
	guardians sync.WaitGroup
}

func newEscalation(w *Watchdog, program []string) (*escalation, error) {
	e := &escalation{w: w, program: program, cancel: func() {}, idle: make(chan struct{}), down: make(map[uint64]chan struct{})}
	close(e.idle)
	if w.config.Load().DelegateIp == "" {
		return e, nil
	}
	return e, e.hire()
}

func (e *escalation) setup() *setup {
	c := e.w.config.Load()
	moves, announces := movesItself(c)
	return &setup{
		IP: c.DelegateIp, Moves: moves, Announces: announces, Promise: e.w.times.Promise,
		Up: complete(c.IfUpCmd, c.IfCmdPath, c.DelegateIp), Down: complete(c.IfDownCmd, c.IfCmdPath, c.DelegateIp),
		Arping: complete(c.ArpingCmd, c.ArpingPath, c.DelegateIp),
	}
}

// hire starts a guardian. mu is held, or nobody else is there yet.
func (e *escalation) hire() error {
	s := e.setup()
	if e.held {
		s.Held = e.serial
	}
	var out io.Reader
	bury := func() {}
	if len(e.program) == 0 {
		in, pipe, err := os.Pipe()
		if err != nil {
			return err
		}
		reports, end, err := os.Pipe()
		if err != nil {
			return err
		}
		e.guardians.Go(func() {
			Guard(in, end)
			in.Close()
			end.Close()
		})
		e.tell, e.pipe, out = json.NewEncoder(pipe), pipe, reports
		bury = func() { reports.Close() }
	} else {
		cmd := exec.Command(e.program[0], e.program[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals to our group are not for it
		cmd.Stderr = os.Stderr
		pipe, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if out, err = cmd.StdoutPipe(); err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("could not start the guardian of the delegate IP: %w", err)
		}
		bury = func() { cmd.Wait() }
		e.tell, e.pipe = json.NewEncoder(pipe), pipe
	}
	e.guardians.Go(func() { e.listen(json.NewDecoder(out), bury) })
	duties := []duty{{Setup: s}, {Lease: e.lease}}
	if e.will != nil {
		duties = append(duties, duty{Will: e.will})
	}
	for serial := range e.down { // what the one before was told and has not done
		duties = append(duties, duty{Down: serial})
	}
	for _, d := range duties {
		if err := e.tell.Encode(d); err != nil {
			return err
		}
	}
	return nil
}

// listen hears a guardian to its end, and starts another if it should not have
// ended.
func (e *escalation) listen(from *json.Decoder, bury func()) {
	for {
		var r report
		if from.Decode(&r) != nil {
			break
		}
		switch {
		case r.Warning != "":
			e.w.log.Warn("watchdog: " + r.Warning)
		case r.Up > 0:
			e.w.log.Log(context.Background(), levelLog, fmt.Sprintf("successfully acquired the delegate IP:\"%s\"", e.w.config.Load().DelegateIp))
		case r.Down > 0:
			e.isDown(r)
		}
	}
	bury()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	e.w.log.Error("the guardian of the delegate IP has ended, another takes over")
	if err := e.hire(); err != nil {
		e.w.log.Error("watchdog: the delegate IP has no guardian: this node must not lead", "err", err)
	}
}

func (e *escalation) isDown(r report) {
	e.mu.Lock()
	waiting := e.down[r.Down]
	delete(e.down, r.Down)
	held := e.held
	if r.Down >= e.serial {
		e.held = false
	}
	e.mu.Unlock()
	if held {
		e.w.log.Log(context.Background(), levelLog, fmt.Sprintf("successfully released the delegate IP:\"%s\"", e.w.config.Load().DelegateIp), "detail", r.Why)
	}
	if waiting != nil {
		close(waiting)
		return
	}
	e.w.input(election.AddressDown{Serial: r.Down})
}

// extend lets the address stay until then.
func (e *escalation) extend(l election.Lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lease = l.Until
	if e.tell == nil {
		return
	}
	e.tell.Encode(duty{Lease: l.Until}) // a guardian that does not hear it drops the address
	if last := e.w.testament(l.Term); !last.equal(e.will) {
		e.will = last
		e.tell.Encode(duty{Will: last})
	}
}

// order begins to carry out an order of the election.
func (e *escalation) order(a election.Address) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancel()
	ctx, cancel := context.WithCancel(context.Background())
	before, idle := e.idle, make(chan struct{})
	e.cancel, e.idle = cancel, idle
	if a.Up {
		e.serial = a.Serial
	}
	lease := e.lease
	e.w.work.Go(func() {
		defer close(idle)
		<-before
		if a.Up {
			e.up(ctx, a.Serial)
		} else {
			e.lower(ctx, a.Serial, lease)
		}
	})
}

func (e *escalation) up(ctx context.Context, serial uint64) {
	c := e.w.config.Load()
	e.w.log.Log(ctx, levelLog, "I am the cluster leader node. Starting escalation process")
	e.w.log.Log(ctx, levelLog, "watchdog: escalation started")
	e.escalated = true
	e.command(ctx, "wd_escalation_command", c.WdEscalationCommand)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tell == nil || ctx.Err() != nil {
		return
	}
	e.held = true
	e.tell.Encode(duty{Up: serial})
}

// lower ends it: the operator's command first, as in the original, but only as
// long as the lease covers the address; then the address goes, whatever the
// command does.
func (e *escalation) lower(ctx context.Context, serial uint64, lease time.Duration) {
	commands := make(chan struct{})
	go func() {
		defer close(commands)
		if e.escalated {
			e.escalated = false
			e.w.log.Log(ctx, levelLog, "watchdog: de-escalation started")
			e.command(context.Background(), "wd_de_escalation_command", e.w.config.Load().WdDeEscalationCommand)
		}
	}()
	select {
	case <-commands:
	case <-time.After(max(lease-now()-e.w.times.Removal, 0)):
	}
	e.mu.Lock()
	gone := make(chan struct{})
	if e.tell == nil {
		close(gone)
	} else {
		e.down[serial] = gone
		e.tell.Encode(duty{Down: serial})
	}
	e.mu.Unlock()
	select {
	case <-gone:
		e.w.input(election.AddressDown{Serial: serial})
	case <-e.w.stopping:
	}
	<-commands // the next order finds everything over
}

// commandLimit is how long the operator's commands may take.
const commandLimit = time.Minute

// command runs one of the operator's commands by the shell; its failure changes
// nothing.
func (e *escalation) command(ctx context.Context, name, text string) {
	if text == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond
	if out, err := cmd.CombinedOutput(); err != nil {
		e.w.log.Warn(fmt.Sprintf("watchdog: %s failed", name), "detail", strings.TrimSpace(string(out)), "err", err)
		return
	}
	e.w.log.Log(ctx, levelLog, fmt.Sprintf("watchdog: %s succeeded", name))
}

// close takes the address down and ends the guardian.
func (e *escalation) close() {
	e.mu.Lock()
	e.closed = true
	if e.pipe != nil {
		e.tell.Encode(duty{Will: &will{}}) // a clean stop has said itself what there is to say
		e.pipe.Close()
	}
	e.mu.Unlock()
	e.guardians.Wait()
}
