package pgpool_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
)

// A rule that cannot be right stops the start, named with its line: the original
// starts and refuses everybody. Files with secrets that others may read are named.
func TestBadRuleStopsStart(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	begin := func() (string, error) {
		log := &record{}
		paths := conf.Paths{Conf: filepath.Join(dir, "pgpool.conf"), Hba: filepath.Join(dir, "pool_hba.conf"),
			Pcp: filepath.Join(dir, "pcp.conf"), Key: filepath.Join(dir, "key")}
		_, err := pgpool.New(pgpool.Options{Paths: paths, Stderr: log})
		return log.String(), err
	}
	write("pgpool.conf", "enable_pool_hba = on\nwork_dir = '"+dir+"'\nbackend_hostname0 = '127.0.0.1'\n", 0o600)
	write("pool_hba.conf", "local all all trust\nhost all all 127.0.0.1/32 ident\n", 0o600)
	write("pool_passwd", "alice:TEXTsecret\nbob\n", 0o644)
	write("key", "phrase\n", 0o640)
	if _, err := begin(); err == nil || !strings.Contains(err.Error(), "line 2") && !strings.Contains(err.Error(), "ident") {
		t.Errorf("started with a bad rule: %v", err)
	}
	write("pool_hba.conf", "local all all trust\n", 0o600)
	log, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"invalid line 2 in pool_passwd", "holds passwords: \"" + filepath.Join(dir, "pool_passwd"), "has group or world access"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "secret\"") || strings.Contains(log, "TEXT") || strings.Contains(log, "phrase") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}
