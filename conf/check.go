package conf

import "fmt"

// crossCheck finds what is wrong with settings taken together.
func (c *Config) crossCheck() []*Error {
	var problems []*Error
	fail := func(about, text, detail, hint string) {
		e := &Error{Text: text, Detail: detail, Hint: hint}
		if src, ok := c.Source(about); ok {
			e.in(assignment{name: about, file: src.File, line: src.Line})
		}
		problems = append(problems, e)
	}
	if c.Recovery1stStageCommand != "" || c.Recovery2ndStageCommand != "" {
		for i, b := range c.Backends {
			if b.Used() && b.DataDirectory == "" {
				fail(fmt.Sprintf("backend_port%d", i), "invalid configuration, recovery_1st_stage_command and "+
					"recovery_2nd_stage_command requires backend_data_directory to be set",
					"", fmt.Sprintf("Set backend_data_directory%d.", i))
			}
		}
	}
	if c.ReplicationMode && c.FailoverWhenQuorumExists {
		fail("replication_mode", "invalid configuration, failover_when_quorum_exists is not allowed in native replication mode",
			"", "Use backend_clustering_mode instead of replication_mode, or set failover_when_quorum_exists to off.")
	}
	if c.ProcessManagementMode == ProcessDynamic {
		if c.MinSpareChildren >= c.MaxSpareChildren {
			fail("min_spare_children", "invalid configuration, min_spare_children must be less than max_spare_children",
				fmt.Sprintf("min_spare_children is %d, max_spare_children is %d", c.MinSpareChildren, c.MaxSpareChildren), "")
		}
		if c.MaxSpareChildren > c.NumInitChildren {
			fail("max_spare_children", "invalid configuration, max_spare_children must not exceed num_init_children",
				fmt.Sprintf("max_spare_children is %d, num_init_children is %d", c.MaxSpareChildren, c.NumInitChildren), "")
		}
	}
	if c.MemoryCacheEnabled && c.MemqcacheMethod == MemqcacheShmem && c.MemqcacheTotalSize < c.MemqcacheCacheBlockSize {
		fail("memqcache_total_size", "invalid memory cache configuration",
			fmt.Sprintf("memqcache_total_size %d should be greater or equal to memqcache_cache_block_size %d",
				c.MemqcacheTotalSize, c.MemqcacheCacheBlockSize), "")
	}
	if !c.UseWatchdog {
		return problems
	}
	if c.NodeID >= 0 && !c.num.watchdogs[c.NodeID].Used() {
		fail("use_watchdog", fmt.Sprintf("invalid watchdog configuration for pgpool node id %d", c.NodeID),
			fmt.Sprintf("%s says that this is node %d, but wd_port%d is not set", c.NodeIDFile(), c.NodeID, c.NodeID),
			fmt.Sprintf("Set hostname%[1]d, wd_port%[1]d and pgpool_port%[1]d.", c.NodeID))
	}
	switch {
	case c.WdTieBreaker == TieNone:
	case !c.EnableConsensusWithHalfVotes:
		fail("wd_tie_breaker", "invalid watchdog configuration", "wd_tie_breaker is for half of the members, and enable_consensus_with_half_votes is off",
			"Set enable_consensus_with_half_votes = on, or wd_tie_breaker = none.")
	case c.WdTieBreaker == TieTrustedServers && c.TrustedServers == "":
		fail("wd_tie_breaker", "invalid watchdog configuration", "wd_tie_breaker is trusted_servers, which are not set", "Set trusted_servers.")
	case c.WdTieBreaker == TiePrimary && (c.SrCheckUser == "" || c.BackendClusteringMode != StreamingReplication):
		fail("wd_tie_breaker", "invalid watchdog configuration", "wd_tie_breaker = primary takes a lock on the primary, as sr_check_user, with streaming replication",
			"Set sr_check_user, or wd_tie_breaker to something else.")
	}
	for i, h := range c.Heartbeats {
		if h.Used() && h.Hostname == "" {
			fail(fmt.Sprintf("heartbeat_port%d", i), "invalid watchdog configuration",
				fmt.Sprintf("heartbeat_hostname%[1]d is missing while heartbeat_port%[1]d is set", i), "")
		}
	}
	return problems
}
