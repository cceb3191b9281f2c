package testcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// stat is a process's state letter and parent; ok is false if there is none.
func stat(pid int) (state byte, parent int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	// pid (name) state parent …, and the name may hold anything
	i := strings.LastIndexByte(string(text), ')')
	if i < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(string(text[i+1:]))
	if len(fields) < 2 || len(fields[0]) != 1 {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0][0], parent, err == nil
}

// alive reports whether a process runs; a zombie, of which only the name is
// left until its parent looks, does not.
func alive(pid int) bool {
	state, _, ok := stat(pid)
	return ok && state != 'Z' && state != 'X'
}

func stopped(pid int) bool {
	state, _, ok := stat(pid)
	return ok && state == 'T'
}

// Descendants are the processes below pid that run.
func Descendants(pid int) []int {
	children := make(map[int][]int)
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		child, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if state, parent, ok := stat(child); ok && state != 'Z' {
			children[parent] = append(children[parent], child)
		}
	}
	var all []int
	for next := children[pid]; len(next) > 0; {
		all = append(all, next[0])
		next = append(next[1:], children[next[0]]...)
	}
	return all
}

// signal sends a signal; a process that has just gone needs none.
func signal(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("testcluster: signal %v to process %d: %w", sig, pid, err)
	}
	return nil
}
