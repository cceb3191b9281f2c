package watchdog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// GuardianName is the argument that makes a program run Guard.
const GuardianName = "watchdog-guardian"

// A duty is what a guardian is told, first of all how: Setup.
type duty struct {
	Setup *setup        `json:",omitempty"`
	Lease time.Duration `json:",omitempty"` // the address may stay until then; only ever later
	Will  *will         `json:",omitempty"` // what to do when the process is killed
	Up    uint64        `json:",omitempty"` // serial of an order to bring it up
	Down  uint64        `json:",omitempty"` // serial of an order to take it down
}

// setup is how the address is moved, with everything replaced and prefixed.
type setup struct {
	IP               string
	Up, Down, Arping string
	Moves, Announces bool          // without these commands
	Promise          time.Duration // as in the protocol
	Held             uint64        // serial of an order that another guardian may have carried out
}

// A report is what a guardian says.
type report struct {
	Up, Down uint64 // the order is carried out; down also if it was not kept up
	Why      string // of a down without an order
	Warning  string
}

// guardian holds the address as long as the lease lasts, and no longer.
type guardian struct {
	setup
	out *json.Encoder

	speaking sync.Mutex

	lease  time.Duration
	serial uint64 // of the order it is up by; 0: it is down
	seen   bool   // it was there since
	cancel context.CancelFunc
	raised chan error // bringing it up has ended; nil: it is not being brought up
	will   *will      // nil: there is nobody to tell
}

// Guard is the guardian's whole life: it does what in tells, and reports to out,
// until in ends; then the address is down.
func Guard(in io.Reader, out io.Writer) error {
	duties := make(chan duty)
	go func() {
		defer close(duties)
		for d := json.NewDecoder(bufio.NewReader(in)); ; {
			var next duty
			if d.Decode(&next) != nil {
				return
			}
			duties <- next
		}
	}()
	first, ok := <-duties
	if !ok || first.Setup == nil {
		return errors.New("the guardian was not told what to guard")
	}
	g := &guardian{setup: *first.Setup, out: json.NewEncoder(out), serial: first.Setup.Held}
	switch {
	case g.Held != 0:
		g.lose("its guardian had ended")
	case g.present():
		g.warn(fmt.Errorf("the delegate IP %s was left over, it is taken down", g.IP))
		g.drop()
	}
	timer := time.NewTimer(time.Hour)
	for {
		wait := time.Hour
		if g.serial != 0 {
			wait = g.lease - now()
		}
		timer.Reset(max(wait, 0))
		select {
		case d, ok := <-duties:
			if !ok {
				g.drop()
				g.will.execute()
				return nil
			}
			g.perform(d)
		case err := <-g.raised:
			g.raised = nil
			g.seen = g.present()
			if err != nil {
				g.warn(err)
			}
			g.report(report{Up: g.serial})
			go g.announce()
		case <-timer.C:
			if g.serial != 0 && g.lease <= now() {
				g.lose("the lease is over")
			}
		}
	}
}

// announce tells the neighbours whose address it is now, and again for those that
// missed it.
func (g *guardian) announce() {
	for _, wait := range []time.Duration{time.Second, 4 * time.Second, 0} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := g.tellNeighbours(ctx); err != nil {
			g.warn(err)
		}
		cancel()
		time.Sleep(wait)
		if !isLocal(net.ParseIP(g.IP)) {
			return
		}
	}
}

func (g *guardian) perform(d duty) {
	switch {
	case d.Will != nil:
		g.will = d.Will
	case d.Lease > 0:
		g.lease = max(g.lease, d.Lease)
		g.keep()
	case d.Up > 0 && g.lease <= now():
		g.report(report{Down: d.Up, Why: "the lease was over before the delegate IP was up"})
	case d.Up > 0:
		g.serial = d.Up
		g.raise()
	case d.Down > 0:
		g.lease = 0 // whoever brings it up again has a lease of its own
		g.drop()
		g.report(report{Down: d.Down})
	}
}

// raise begins to bring the address up.
func (g *guardian) raise() {
	ctx, cancel := context.WithCancel(context.Background())
	raised, lease := make(chan error, 1), g.lease
	g.cancel, g.raised, g.seen = cancel, raised, false
	go func() { raised <- g.bringUp(ctx, lease) }()
}

// keep sees to it that the address stays: somebody else may have taken it away.
func (g *guardian) keep() {
	if g.serial == 0 || g.raised != nil || g.lease <= now() {
		return
	}
	switch {
	case g.seen && !g.present():
		g.warn(fmt.Errorf("the delegate IP %s has vanished, it is brought up again", g.IP))
		g.raise()
	case g.Moves && g.seconds(g.lease) > 0:
		if err := raise(net.ParseIP(g.IP), g.seconds(g.lease)); err != nil {
			g.warn(err)
		}
	}
}

// lose drops the address without having been told to.
func (g *guardian) lose(why string) {
	serial := g.serial
	g.drop()
	g.report(report{Down: serial, Why: why})
}

// drop returns when the address is down.
func (g *guardian) drop() {
	if g.raised != nil {
		g.cancel()
		<-g.raised
		g.raised = nil
	}
	if g.serial == 0 && !g.present() {
		return
	}
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := g.takeDown(ctx)
		cancel()
		if !g.present() {
			if err != nil {
				g.warn(err) // but the address is not there
			}
			break
		}
		if err == nil {
			err = errors.New("the command succeeded, and the address is still there")
		}
		if try%50 == 0 {
			g.warn(fmt.Errorf("could not take down the delegate IP %s, trying on: %w", g.IP, err))
		}
		time.Sleep(100 * time.Millisecond)
	}
	g.serial = 0
}

func (g *guardian) present() bool { return isLocal(net.ParseIP(g.IP)) }

func (g *guardian) report(r report) {
	g.speaking.Lock() // announcing goes on beside
	defer g.speaking.Unlock()
	g.out.Encode(r)
}

func (g *guardian) warn(err error) { g.report(report{Warning: err.Error()}) }

// execute runs a command as the original does: words parted by blanks, no shell.
func execute(ctx context.Context, command string) error {
	words := strings.Fields(command)
	if len(words) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// complete makes a command ready to run: the address put in, and a program without
// a path looked for where the operator says.
func complete(command, dir, ip string) string {
	command = strings.ReplaceAll(strings.TrimSpace(command), "$_IP_$", ip)
	if command == "" || strings.HasPrefix(command, "/") || dir == "" {
		return command
	}
	return filepath.Join(dir, command)
}

// RunGuardian is the guardian as a program: it ends with the pipe to the process
// that started it, not by the signals that end that one.
func RunGuardian() int {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGPIPE)
	if err := Guard(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
