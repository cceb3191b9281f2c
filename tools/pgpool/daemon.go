package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
)

// detachedBy names, in the environment of the detached half, the descriptor by
// which it tells the half that waits.
const detachedBy = "PGPOOL_GO_DETACHED"

// served is what the detached half sends when it serves.
const served = 'R'

// detach starts this program again, in a session of its own, and waits until it
// serves or has failed: Go cannot fork. Until then the detached half writes to
// our stderr. It returns our exit code.
func detach(t *call) int {
	r, w, err := os.Pipe()
	if err != nil {
		return t.fatal(exitFatal, fmt.Errorf("could not fork a detached process: %w", err))
	}
	cmd := exec.Command(self())
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), detachedBy+"=3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return t.fatal(exitFatal, fmt.Errorf("could not fork a detached process: %w", err))
	}
	w.Close()

	// Being told to end before it serves, we must not leave it behind.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for range interrupts {
			cmd.Process.Signal(syscall.SIGINT)
		}
	}()

	word := make([]byte, 1)
	if n, _ := r.Read(word); n == 1 && word[0] == served {
		return 0
	}
	err = cmd.Wait()
	if bad, ok := errors.AsType[*exec.ExitError](err); ok && bad.ExitCode() > 0 {
		return bad.ExitCode()
	}
	if err == nil { // told to end while starting
		return exitUsage
	}
	return t.fatal(exitFatal, fmt.Errorf("the detached process ended: %w", err))
}

// self is the program's file. Its name becomes the process's name, which a link
// in /proc would spoil; that one still works when the file has been replaced.
func self() string {
	exe, err := os.Executable()
	if err == nil {
		if _, err = os.Stat(exe); err == nil {
			return exe
		}
	}
	return "/proc/self/exe"
}

// waiting is the half that started us, for a detached process.
type waiting struct{ pipe *os.File }

// detached reports whether this process is the detached half.
func detached() (waiting, bool) {
	fd, err := strconv.Atoi(os.Getenv(detachedBy))
	os.Unsetenv(detachedBy)
	if err != nil || fd < 3 {
		return waiting{}, false
	}
	syscall.CloseOnExec(fd)
	return waiting{os.NewFile(uintptr(fd), "starter")}, true
}

// served lets the waiting half end in success and takes leave of its terminal.
func (w waiting) served() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	defer w.pipe.Close()
	_, err = w.pipe.Write([]byte{served})
	return err
}
