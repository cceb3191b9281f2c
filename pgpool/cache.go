package pgpool

import (
	"context"
	"slices"
	"strconv"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/qcache"
	"pgpool-go/pgpool/session"
)

// orphanPeriod is how often it is asked what has become of commits that no session
// waits for any more.
const orphanPeriod = time.Second

// minded looks after reloads of servers, and after commits whose outcome their sessions have not lived to see:
// what they have written stays in doubt until the server's process is gone.
func (s *Server) minded(ctx context.Context) {
	loaded := make(map[int]string)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(orphanPeriod):
		}
		s.heedReloads(loaded)
		if list := s.cache.Orphans(); len(list) > 0 {
			s.mind(ctx, list)
		}
	}
}

// heedReloads looks whether a server has read its configuration anew, by somebody
// who has not asked through us. loaded is when they had when it looked before.
func (s *Server) heedReloads(loaded map[int]string) {
	snap := s.owner.Now()
	for i := range snap.Nodes {
		now := snap.Nodes[i].Loaded
		if was := loaded[i]; now != "" && was != "" && now != was {
			s.shared.Reloaded(time.Now())
		}
		if now != "" {
			loaded[i] = now
		}
	}
}

// mind ends the doubts whose process is gone, or is not the primary's any more, and
// gives the others back.
func (s *Server) mind(ctx context.Context, list []qcache.Orphan) {
	alive, known := s.processes(ctx, list)
	for _, o := range list {
		switch {
		case o.Node != s.mainNode(), known && !slices.Contains(alive, o.PID):
			o.End(true)
		default:
			s.cache.Abandon(o.Doubt, o.Node, o.PID)
		}
	}
}

// mainNode is where sessions write.
func (s *Server) mainNode() int {
	snap := s.owner.Now()
	if snap.Primary >= 0 {
		return snap.Primary
	}
	return snap.Main
}

// processes asks the server which of the orphans' processes are still there.
func (s *Server) processes(ctx context.Context, list []qcache.Orphan) (alive []uint32, known bool) {
	node, c := s.mainNode(), s.config.Load()
	if node < 0 {
		return nil, false
	}
	ctx, stop := context.WithTimeout(ctx, patienceWithServers)
	defer stop()
	conn, err := s.login(ctx, s.owner.Now().Nodes[node], c.SrCheckUser, c.SrCheckPassword, c.SrCheckDatabase)
	if err != nil {
		return nil, false
	}
	defer conn.Close()
	for _, o := range list {
		rows, err := conn.Ask(ctx, "SELECT 1 FROM pg_stat_activity WHERE pid = $1::int", strconv.Itoa(int(o.PID)))
		if err != nil {
			return nil, false
		}
		if len(rows) > 0 {
			alive = append(alive, o.PID)
		}
	}
	return alive, true
}

// patienceWithServers bounds one such question.
const patienceWithServers = 10 * time.Second

// escalated forgets what is cached when this pgpool begins to lead: others have
// served clients until now, and we have not seen their writes. A memcached has.
func (s *Server) escalated() {
	if s.config.Load().ClearMemqcacheOnEscalation && !s.cache.Remote() {
		s.cache.Clear()
	}
}

// cacheTables derives the lists of tables that may and may not be cached.
func cacheTables(cur *session.Current, c *conf.Config) {
	cur.CacheSafe, cur.CacheUnsafe = session.NewTables(c.CacheSafeMemqcacheTableList), session.NewTables(c.CacheUnsafeMemqcacheTableList)
}

// relist drops what is cached if those lists have changed, or if writes have not
// been heeded until now.
func (s *Server) relist(old, now *conf.Config) {
	if s.cache == nil {
		return
	}
	if !slices.Equal(old.CacheSafeMemqcacheTableList, now.CacheSafeMemqcacheTableList) ||
		!slices.Equal(old.CacheUnsafeMemqcacheTableList, now.CacheUnsafeMemqcacheTableList) ||
		now.MemqcacheAutoCacheInvalidation && !old.MemqcacheAutoCacheInvalidation {
		s.cache.Clear()
	}
}
