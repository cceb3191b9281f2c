package session

import (
	"fmt"
	"strconv"
)

var cacheColumns = []string{
	"num_cache_hits", "num_selects", "cache_hit_ratio", "num_hash_entries", "used_hash_entries",
	"num_cache_entries", "used_cache_entries_size", "free_cache_entries_size", "fragment_cache_entries_size",
}

// showCache is all zero while the query cache is off, as in the original.
func (s *Session) showCache() [][]string {
	c := s.Cache.Stats()
	return [][]string{{
		strconv.FormatUint(c.Hits, 10), strconv.FormatUint(c.Misses, 10), hitRatio(c.Hits, c.Misses),
		strconv.Itoa(c.Slots), strconv.Itoa(c.Used), strconv.Itoa(c.Used),
		strconv.FormatInt(c.Bytes, 10), strconv.FormatInt(c.Free, 10), "0",
	}}
}

// The columns of SHOW POOL_CACHE, per statement. SHOW POOL_CACHE itself has one row,
// which scripts rely on.
var cacheStatementColumns = []string{"num_cache_hits", "num_selects", "cache_hit_ratio", "database", "statement"}

func (s *Session) showCacheStatements() (rows [][]string) {
	for _, c := range s.Cache.Statements() {
		rows = append(rows, []string{
			strconv.FormatUint(c.Hits, 10), strconv.FormatUint(c.Misses, 10), hitRatio(c.Hits, c.Misses), c.Database, c.Statement,
		})
	}
	return rows
}

func hitRatio(hits, misses uint64) string {
	if hits+misses == 0 {
		return "0.00"
	}
	return strconv.FormatFloat(float64(hits)/float64(hits+misses), 'f', 2, 64)
}

// forgetCached drops what is cached for the text of a Query of this session, and
// tells in the original's words whether there was something.
func (s *Session) forgetCached(sql string) string {
	gone := false
	if s.Cache != nil && s.follow() == nil && s.mayCache() && s.addressed() {
		key := append(append(s.caching.key[:0], s.caching.prefix...), keyQuery)
		s.caching.key = append(key, sql...)
		forget := func() { gone = s.Cache.Forget(s.caching.key) }
		if s.Cache.Remote() {
			s.task.Block(forget)
		} else {
			forget()
		}
	}
	if gone {
		return fmt.Sprintf("query cache deleted. query: \"%s\"", sql)
	}
	return fmt.Sprintf("query cache does not exist for query: \"%s\"", sql)
}
