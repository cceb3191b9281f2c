package conf

import (
	"os"
	"path/filepath"
)

// Paths names the files of a server, as given by -f, -a, -F and -k. Those of
// Conf, Hba and Pcp that are empty are in the directory etcDir finds; an empty Key is in
// PGPOOLKEYFILE, else ~/.pgpoolkey.
type Paths struct{ Conf, Hba, Pcp, Key string }

// resolve makes the paths absolute and fills in the empty ones.
func (p Paths) resolve() (Paths, error) {
	dir := etcDir(etcDirs())
	if p.Key == "" {
		p.Key = os.Getenv("PGPOOLKEYFILE")
	}
	if home, err := os.UserHomeDir(); p.Key == "" && err == nil {
		p.Key = filepath.Join(home, ".pgpoolkey")
	}
	for _, f := range []struct {
		path     *string
		fallback string
	}{
		{&p.Conf, filepath.Join(dir, "pgpool.conf")},
		{&p.Hba, filepath.Join(dir, "pool_hba.conf")},
		{&p.Pcp, filepath.Join(dir, "pcp.conf")},
		{&p.Key, ""},
	} {
		if *f.path == "" {
			*f.path = f.fallback
			continue
		}
		abs, err := filepath.Abs(*f.path)
		if err != nil {
			return p, err
		}
		*f.path = abs
	}
	return p, nil
}

const debianEtc = "/etc/pgpool2"

// etcDirs lists where configuration files may be: beside the executable's bin
// directory, where Debian has them, and where "make install" puts them by default.
func etcDirs() []string {
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if target, err := filepath.EvalSymlinks(exe); err == nil {
			exe = target
		}
		dirs = append(dirs, filepath.Join(filepath.Dir(exe), "..", "etc"))
	}
	return append(dirs, debianEtc, "/usr/local/etc")
}

// etcDir is the first directory with a pgpool.conf, so that the files of one
// server are never mixed with another's; Debian's if there is none.
func etcDir(dirs []string) string {
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "pgpool.conf")); err == nil {
			return dir
		}
	}
	return debianEtc
}

// Beside makes a path absolute as pool_passwd, the pid file and the TLS files
// are: relative to the directory of pgpool.conf. An empty one stays empty.
func (c *Config) Beside(name string) string {
	if name == "" {
		return ""
	}
	return absolute(filepath.Dir(c.Paths.Conf), name)
}

func absolute(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// PoolPasswdFile is where pool_passwd is, or "" when it is disabled.
func (c *Config) PoolPasswdFile() string { return c.Beside(c.PoolPasswd) }

// PidFile is where the server's process id is written.
func (c *Config) PidFile() string { return c.Beside(c.PidFileName) }

// NodeIDFile is where this pgpool's number in the watchdog cluster is read from.
func (c *Config) NodeIDFile() string { return c.Beside("pgpool_node_id") }

// InWorkDir makes a path in work_dir, which itself may be relative to where the server was started.
func (c *Config) InWorkDir(name string) string {
	return absolute(c.startDir, filepath.Join(c.WorkDir, name))
}

// StatusFile is where the state of the nodes survives a restart.
func (c *Config) StatusFile() string { return c.InWorkDir("pgpool_status") }
