package conf

import (
	"os"
	"path/filepath"
)

// Paths names the files of a server, as given by -f, -a, -F and -k. What is
// empty is searched for: Conf, Hba and Pcp beside the executable in
// ../etc, then in /etc/pgpool2, then in /usr/local/etc; Key in
// PGPOOLKEYFILE, then in ~/.pgpoolkey.
type Paths struct{ Conf, Hba, Pcp, Key string }

// resolve makes the paths absolute and fills in the empty ones.
func (p Paths) resolve() (Paths, error) {
	find := func(given, name string) (string, error) {
		if given != "" {
			return filepath.Abs(given)
		}
		return search(etcDirs(), name), nil
	}
	var err error
	if p.Conf, err = find(p.Conf, "pgpool.conf"); err != nil {
		return p, err
	}
	if p.Hba, err = find(p.Hba, "pool_hba.conf"); err != nil {
		return p, err
	}
	if p.Pcp, err = find(p.Pcp, "pcp.conf"); err != nil {
		return p, err
	}
	if p.Key == "" {
		p.Key = os.Getenv("PGPOOLKEYFILE")
	}
	if p.Key != "" {
		p.Key, err = filepath.Abs(p.Key)
	} else if home, homeErr := os.UserHomeDir(); homeErr == nil {
		p.Key = filepath.Join(home, ".pgpoolkey")
	}
	return p, err
}

// etcDirs lists where configuration files are looked for, first choice first.
func etcDirs() []string {
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dirs = append(dirs, filepath.Join(filepath.Dir(exe), "..", "etc"))
	}
	return append(dirs, "/etc/pgpool2", "/usr/local/etc")
}

// search returns the first file that exists, or where it would be by Debian's rule.
func search(dirs []string, name string) string {
	for _, dir := range dirs {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return filepath.Join("/etc/pgpool2", name)
}

// Beside makes a path absolute as pgpool_passwd, the pid file and the TLS files
// are: relative to the directory of pgpool.conf. An empty one stays empty.
func (c *Config) Beside(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(c.Paths.Conf), name)
}

// PoolPasswdFile is where pool_passwd is, or "" when it is disabled.
func (c *Config) PoolPasswdFile() string { return c.Beside(c.PoolPasswd) }

// PidFile is where the server's process id is written.
func (c *Config) PidFile() string { return c.Beside(c.PidFileName) }

// NodeIDFile is where this pgpool's number in the watchdog cluster is read from.
func (c *Config) NodeIDFile() string { return c.Beside("pgpool_node_id") }

// StatusFile is where the state of the nodes survives a restart; a relative
// work_dir is relative to where the server was started.
func (c *Config) StatusFile() string { return filepath.Join(c.WorkDir, "pgpool_status") }
