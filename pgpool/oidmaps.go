package pgpool

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"pgpool-go/conf"
	"pgpool-go/pgpool/eventlog"
)

// oidmap is the name of a database's folder, or of a table's file in it, in
// memqcache_oiddir. Nothing else there is ours to remove.
var oidmap = regexp.MustCompile(`^[0-9]+$`)

// clearOidmaps removes what says which cached results depend on which tables
// (pgpool -C). Without a cache that outlives us, in memcached, there is nothing of
// the kind to be cleared.
func (s *Server) clearOidmaps(c *conf.Config) {
	if !c.MemoryCacheEnabled || c.MemqcacheMethod != conf.MemqcacheMemcached || c.MemqcacheOiddir == "" {
		return
	}
	databases, err := os.ReadDir(c.MemqcacheOiddir)
	gone := 0
	for _, d := range databases {
		if !d.IsDir() || !oidmap.MatchString(d.Name()) {
			continue
		}
		dir := filepath.Join(c.MemqcacheOiddir, d.Name())
		tables, bad := os.ReadDir(dir)
		for _, t := range tables {
			if oidmap.MatchString(t.Name()) {
				if e := os.Remove(filepath.Join(dir, t.Name())); e != nil {
					bad = e
				} else {
					gone++
				}
			}
		}
		os.Remove(dir) // if nothing else is in it
		if bad != nil {
			err = bad
		}
	}
	if err != nil && !os.IsNotExist(err) {
		s.log.LogAttrs(context.Background(), eventlog.Warning, fmt.Sprintf("could not clear the OID maps in %s", c.MemqcacheOiddir), slog.Any("err", err))
	}
	s.log.LogAttrs(context.Background(), eventlog.Log, fmt.Sprintf("%d OID maps in %s were removed", gone, c.MemqcacheOiddir))
}
