package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

var errEmptyPidFile = errors.New("pid file is empty")

// readPid reads a pid file: a decimal number, then anything. A text that is no
// number gives an error too.
func readPid(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if len(text) == 0 {
		return 0, errEmptyPidFile
	}
	pid := atoi(string(text))
	if pid <= 0 { // 0 and below would address whole process groups
		return 0, fmt.Errorf("no pid in %q", file)
	}
	return pid, nil
}

// writePid claims the pid file for this process: the pid and a NUL, readable by
// its owner alone, as the original writes it.
func writePid(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("could not open pid file as %s. reason: %s", file, reason(err))
	}
	_, err = fmt.Fprintf(f, "%d\x00", os.Getpid())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("could not write pid file as %s. reason: %s", file, reason(err))
	}
	return nil
}

// removePid removes the pid file if it is still this process's.
func removePid(file string) {
	if pid, err := readPid(file); err == nil && pid == os.Getpid() {
		os.Remove(file)
	}
}

// running reports whether there is such a process. One that has ended and only
// waits for its parent to notice has.
func running(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	// The name in parentheses may contain anything, so look behind the last one.
	rest := stat[strings.LastIndexByte(string(stat), ')')+1:]
	return !strings.HasPrefix(string(rest), " Z") && !strings.HasPrefix(string(rest), " X")
}

// setProcessName makes ps and killall know this process as pgpool, whatever the
// file is called.
func setProcessName() {
	if exe, err := os.Executable(); err == nil && filepath.Base(exe) != "pgpool" {
		os.WriteFile("/proc/self/comm", []byte("pgpool"), 0) // where it cannot be, it is not needed
	}
}
