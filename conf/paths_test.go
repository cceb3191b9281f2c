package conf

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", "/home/x")
	t.Setenv("PGPOOLKEYFILE", "")
	check := func(p, want Paths) {
		t.Helper()
		got, err := p.resolve()
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	etc := etcDir(etcDirs())
	check(Paths{}, Paths{etc + "/pgpool.conf", etc + "/pool_hba.conf", etc + "/pcp.conf", "/home/x/.pgpoolkey"})
	check(Paths{"a/b", "/c", "d", "k"}, Paths{dir + "/a/b", "/c", dir + "/d", dir + "/k"})
	t.Setenv("PGPOOLKEYFILE", "envkey")
	check(Paths{Conf: "/x", Hba: "/x", Pcp: "/x"}, Paths{"/x", "/x", "/x", dir + "/envkey"})
	check(Paths{"/x", "/x", "/x", "flag"}, Paths{"/x", "/x", "/x", dir + "/flag"})

	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	os.Mkdir(one, 0o700)
	os.Mkdir(two, 0o700)
	if got := etcDir([]string{one, two}); got != debianEtc {
		t.Errorf("with no file anywhere: %s", got)
	}
	os.WriteFile(filepath.Join(one, "pcp.conf"), nil, 0o600)
	os.WriteFile(filepath.Join(two, "pgpool.conf"), nil, 0o600)
	if got := etcDir([]string{one, two}); got != two {
		t.Errorf("with a pgpool.conf in the second: %s", got)
	}
}

func TestFilesBeside(t *testing.T) {
	c, _ := load(t, "pid_file_name = 'run/p.pid' ssl_key = 'k.pem' work_dir = '/w'")
	relative, _ := load(t, "work_dir = standby/log")
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(c.Paths.Conf)
	for got, want := range map[string]string{
		c.PidFile():             dir + "/run/p.pid",
		c.PoolPasswdFile():      dir + "/pool_passwd",
		c.NodeIDFile():          dir + "/pgpool_node_id",
		c.Beside(c.SslKey):      dir + "/k.pem",
		c.Beside("/abs"):        "/abs",
		c.Beside(""):            "",
		c.StatusFile():          "/w/pgpool_status",
		relative.StatusFile():   cwd + "/standby/log/pgpool_status",
		relative.InWorkDir("x"): cwd + "/standby/log/x",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if c, _ := load(t, "pool_passwd = ''"); c.PoolPasswdFile() != "" {
		t.Errorf("disabled pool_passwd is %s", c.PoolPasswdFile())
	}
}
