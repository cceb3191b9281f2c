package pgpool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgpool-go/conf"
)

// -C removes the maps of a cache in memcached, and nothing else.
func TestClearOidmaps(t *testing.T) {
	dir := t.TempDir()
	put := func(name string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	maps := []string{put("oiddir/5/16384"), put("oiddir/5/16385"), put("oiddir/16390/1259")}
	others := []string{put("oiddir/README"), put("oiddir/16390/notes"), put("oiddir/lost+found/1")}
	file := put("pgpool.conf")
	there := func(paths []string) (n int) {
		for _, path := range paths {
			if _, err := os.Stat(path); err == nil {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct {
		lines string
		clear bool
		left  int
	}{
		{"memory_cache_enabled = on\nmemqcache_method = 'memcached'", false, 3},
		{"memory_cache_enabled = on\nmemqcache_method = 'shmem'", true, 3},
		{"memory_cache_enabled = off\nmemqcache_method = 'memcached'", true, 3},
		{"memory_cache_enabled = on\nmemqcache_method = 'memcached'", true, 0},
	} {
		text := tt.lines + "\nmemqcache_oiddir = '" + dir + "/oiddir'\nbackend_hostname0 = '127.0.0.1'\nwork_dir = '" + dir + "'\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{Paths: conf.Paths{Conf: file}, ClearOidmaps: tt.clear, Stderr: &strings.Builder{}}); err != nil {
			t.Fatal(err)
		}
		if got := there(maps); got != tt.left || there(others) != len(others) {
			t.Errorf("%s, -C %v: %d maps are left, and %d of %d other files", tt.lines, tt.clear, got, there(others), len(others))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "oiddir/5")); err == nil {
		t.Error("an empty folder is left")
	}
}
