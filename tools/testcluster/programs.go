package testcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// BinDir finds PostgreSQL's server programs: in explicit if that is given,
// else where pg_config says, else the newest of Debian's folders, else where
// postgres stands on the PATH.
func BinDir(explicit string) (string, error) {
	if explicit != "" {
		if !hasServer(explicit) {
			return "", fmt.Errorf("testcluster: no PostgreSQL server programs (initdb, postgres) in %s", explicit)
		}
		return explicit, nil
	}
	var dirs []string
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	debian, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", fmt.Errorf("testcluster: %w", err)
	}
	version := func(dir string) float64 {
		v, err := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
		if err != nil {
			return 0
		}
		return v
	}
	sort.Slice(debian, func(i, j int) bool { return version(debian[i]) > version(debian[j]) })
	dirs = append(dirs, debian...)
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, dir := range dirs {
		if hasServer(dir) {
			return dir, nil
		}
	}
	return "", errors.New("testcluster: PostgreSQL is missing: no server programs (initdb, postgres) where pg_config says, " +
		"in /usr/lib/postgresql/*/bin or on the PATH; install Debian's package postgresql (make testdeps)")
}

func hasServer(dir string) bool {
	return executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres"))
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Program finds one of PostgreSQL's programs beside the server's; client
// programs that are not there come from the default installation, which serves
// for them in the npm packages, that have none.
func (c *Cluster) Program(name string) (string, error) {
	if path := filepath.Join(c.bin, name); executable(path) {
		return path, nil
	}
	if dir, err := BinDir(""); err == nil && executable(filepath.Join(dir, name)) {
		return filepath.Join(dir, name), nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("testcluster: %s is missing: neither in %s nor on the PATH", name, c.bin)
}

// owner is the user that servers run as: nil is the user we are.
var owner = sync.OnceValues(func() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("testcluster: uid of %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("testcluster: gid of %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("testcluster: PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
})

// Command prepares a program that runs as the servers do: as their user, in
// the temporary folder (so that the reaper finds it), without the settings of
// the environment that libpq would listen to.
func Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	base, err := baseDir()
	if err != nil {
		return nil, err
	}
	who, err := owner()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = base
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setsid: true}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "HOME=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+base, "LC_ALL=C", "TZ=UTC", "PGCONNECT_TIMEOUT=10")
	return cmd, nil
}

// run runs a program to its end and returns what it printed.
func run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd, err := Command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	var out, words bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &words
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("testcluster: %s: %w: %s", filepath.Base(name), err, strings.TrimSpace(words.String()+out.String()))
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

// own gives a file or folder to the user that servers run as.
func own(path string) error {
	who, err := owner()
	if err != nil || who == nil {
		return err
	}
	if err := os.Chown(path, int(who.Uid), int(who.Gid)); err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	return nil
}

func writeOwned(path, text string, mode os.FileMode) error {
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil { // the file may be an old one, and umask may have had its say
		return fmt.Errorf("testcluster: %w", err)
	}
	return own(path)
}

// reachable reports whether the servers' user can get to what lies in dir.
func reachable(dir string) bool {
	who, err := owner()
	if err != nil {
		return false
	}
	if who == nil {
		return true
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || info.Mode()&0o001 == 0 && (st.Uid != who.Uid || info.Mode()&0o100 == 0) {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
