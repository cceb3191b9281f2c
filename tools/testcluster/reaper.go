package testcluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// The reaper is a shell that waits for this process to be gone, however it
// ends (return, panic, Ctrl-C, kill -9): its standard input is a pipe whose
// other end only we hold. Then it kills whatever runs in the temporary folder
// (every PostgreSQL process has its data folder as working directory) and
// removes the folder and the shared memory segments noted there.
const reaperScript = `
while read -r _; do :; done
dir=$1
case $dir in */pgtc-?*) ;; *) exit 1 ;; esac
segments=
for f in "$dir"/*/node*/postmaster.pid; do
	[ -f "$f" ] && segments="$segments $(sed -n '7s/^ *[0-9]* *//p' "$f")"
done
found=y
while [ -n "$found" ]; do
	found=
	for p in /proc/[0-9]*; do
		case $(readlink "$p/cwd" 2>/dev/null) in
		"$dir" | "$dir"/* | "$dir (deleted)") kill -9 "${p#/proc/}" 2>/dev/null && found=y ;;
		esac
	done
done
for id in $segments; do ipcrm -m "$id" 2>/dev/null; done
rm -rf "$dir"
`

var base struct {
	sync.Mutex
	dir      string
	clusters int
	reaper   *exec.Cmd
	pipe     io.Closer // closing it lets the reaper begin
}

// baseDir is the process's own temporary folder, made with its reaper when
// first asked for. It is short, because a Unix socket's path has at most 107
// bytes, and open to the servers' user.
func baseDir() (string, error) {
	base.Lock()
	defer base.Unlock()
	return baseDirLocked()
}

func baseDirLocked() (string, error) {
	if base.dir != "" {
		return base.dir, nil
	}
	parent := os.TempDir()
	if len(parent) > 50 || !reachable(parent) {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "pgtc-")
	if err != nil {
		return "", fmt.Errorf("testcluster: %w", err)
	}
	pipe, err := startReaper(dir)
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	base.dir, base.pipe = dir, pipe
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("testcluster: %w", err)
	}
	return dir, own(dir)
}

// startReaper is called with base locked.
func startReaper(dir string) (io.Closer, error) {
	cmd := exec.Command("/bin/sh", "-c", `eval "$script"`, "testcluster-reaper", dir) // short in ps
	cmd.Env = append(os.Environ(), "script="+reaperScript)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of reach of a terminal's Ctrl-C
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("testcluster: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("testcluster: reaper: %w", err)
	}
	base.reaper = cmd
	return pipe, nil
}

// CleanUp does now what otherwise happens when the process has ended: kills
// every server that has no Options.Dir and removes all temporary files. A
// program with a farewell to say calls it last.
func CleanUp() error {
	templates.Lock()
	defer templates.Unlock()
	base.Lock()
	defer base.Unlock()
	if base.dir == "" {
		return nil
	}
	err := errors.Join(base.pipe.Close(), base.reaper.Wait())
	base.dir, base.pipe, base.reaper = "", nil, nil
	templates.byBin = nil
	if err != nil {
		return fmt.Errorf("testcluster: reaper: %w", err)
	}
	return nil
}

// clusterDir makes a new cluster's folder, or takes the one given, which must
// be free of clusters.
func clusterDir(given string) (string, error) {
	dir := given
	if dir == "" {
		base.Lock()
		defer base.Unlock()
		parent, err := baseDirLocked()
		if err != nil {
			return "", err
		}
		base.clusters++
		dir = filepath.Join(parent, fmt.Sprintf("c%d", base.clusters))
	} else {
		var err error
		if dir, err = filepath.Abs(dir); err != nil {
			return "", fmt.Errorf("testcluster: %w", err)
		}
		if old, err := filepath.Glob(filepath.Join(dir, "node*")); err != nil || len(old) > 0 {
			return "", fmt.Errorf("testcluster: %s already holds %s", dir, strings.Join(old, ", "))
		}
		if len(dir) > 90 {
			return "", fmt.Errorf("testcluster: %s is too long for a folder of Unix sockets", dir)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("testcluster: %w", err)
	}
	if !reachable(dir) {
		return "", fmt.Errorf("testcluster: %s is out of reach for the user that servers run as", dir)
	}
	return dir, own(dir)
}
