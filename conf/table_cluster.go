package conf

import "time"

// tableCluster: replication, load balancing, checks, failover, recovery, catalog and query caches.
var tableCluster = []Setting{
	// replication-mode
	boolean("replication_mode", "replication-mode", Single, AtStart, "off",
		func(c *Config, _ int) *bool { return &c.ReplicationMode },
		"Legacy switch still parsed; clustering mode decides the behaviour."),
	boolean("replicate_select", "replication-mode", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.ReplicateSelect },
		"Send SELECTs to all nodes in native replication."),
	boolean("insert_lock", "replication-mode", Single, AtReload, "on",
		func(c *Config, _ int) *bool { return &c.InsertLock },
		"Lock table on INSERT to keep serial values equal."),
	text("lobj_lock_table", "replication-mode", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.LobjLockTable },
		"Table locked while creating large objects; empty disables rewriting."),
	boolean("replication_stop_on_mismatch", "replication-mode", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.ReplicationStopOnMismatch },
		"Detach minority node when packet kinds differ."),
	boolean("failover_if_affected_tuples_mismatch", "replication-mode", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.FailoverIfAffectedTuplesMismatch },
		"Detach minority node when affected row counts differ."),

	// load-balance
	boolean("load_balance_mode", "load-balance", Single, AtStart, "on",
		func(c *Config, _ int) *bool { return &c.LoadBalanceMode },
		"Spread read-only queries over backends."),
	boolean("ignore_leading_white_space", "load-balance", Single, AtReload, "on",
		func(c *Config, _ int) *bool { return &c.IgnoreLeadingWhiteSpace },
		"Skip leading blanks when classifying a query."),
	patterns("read_only_function_list", "load-balance", Single, AtReload, "", ',',
		func(c *Config, _ int) *[]string { return &c.ReadOnlyFunctionList },
		"Functions treated as read-only; all others then write."),
	patterns("write_function_list", "load-balance", Single, AtReload, "", ',',
		func(c *Config, _ int) *[]string { return &c.WriteFunctionList },
		"Functions treated as writing."),
	patterns("primary_routing_query_pattern_list", "load-balance", Single, AtReload, "", ';',
		func(c *Config, _ int) *[]string { return &c.PrimaryRoutingQueryPatternList },
		"Query regexes always sent to primary."),
	redirects("user_redirect_preference_list", "load-balance", Single, AtReload, "",
		func(c *Config, _ int) *RedirectList { return &c.UserRedirectPreferenceList },
		"Preferred node by user name."),
	redirects("database_redirect_preference_list", "load-balance", Single, AtReload, "",
		func(c *Config, _ int) *RedirectList { return &c.DatabaseRedirectPreferenceList },
		"Preferred node by database name."),
	redirects("app_name_redirect_preference_list", "load-balance", Single, AtReload, "",
		func(c *Config, _ int) *RedirectList { return &c.AppNameRedirectPreferenceList },
		"Preferred node by application name; beats user and database lists."),
	boolean("allow_sql_comments", "load-balance", Single, InSession, "off",
		func(c *Config, _ int) *bool { return &c.AllowSqlComments },
		"Comments no longer block load balancing or caching."),
	choice("disable_load_balance_on_write", "load-balance", Single, AtReload, "transaction", dlbowWords,
		func(c *Config, _ int) *DisableLoadBalanceOnWrite { return &c.DisableLoadBalanceOnWrite },
		"How long reads stick to primary after a write."),
	relations("dml_adaptive_object_relationship_list", "load-balance", Single, AtReload, "",
		func(c *Config, _ int) *RelationList { return &c.DmlAdaptiveObjectRelationshipList },
		"object:dependent pairs for dml_adaptive tracking."),
	boolean("statement_level_load_balance", "load-balance", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.StatementLevelLoadBalance },
		"Pick the read node per statement, not per session."),
	boolean("multi_statement_load_balance", "load-balance", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.MultiStatementLoadBalance },
		"Balance a string of several statements if all of them only read."),
	boolean("explain_load_balance", "load-balance", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.ExplainLoadBalance },
		"Balance EXPLAIN of a query that may be balanced."),

	// table-mutation
	float("track_table_mutation_ttl_factor", "table-mutation", Single, AtReload, "5.0", 1.0, 100.0,
		func(c *Config, _ int) *float64 { return &c.TrackTableMutationTtlFactor },
		"Entry lifetime equals replication delay times this."),
	duration("track_table_mutation_max_staleness", "table-mutation", Single, AtReload, "60000", milliseconds, 0, 3600000,
		func(c *Config, _ int) *time.Duration { return &c.TrackTableMutationMaxStaleness },
		"Longest time a table may stay marked written; 0 unlimited."),
	duration("track_table_mutation_cold_start_duration", "table-mutation", Single, AtReload, "2000", milliseconds, 0, 60000,
		func(c *Config, _ int) *time.Duration { return &c.TrackTableMutationColdStartDuration },
		"After child start, route reads to primary this long."),
	integer("track_table_mutation_table_buckets", "table-mutation", Single, AtStart, "1024", 64, 65536,
		func(c *Config, _ int) *int { return &c.TrackTableMutationTableBuckets },
		"Hash buckets of the shared written-table map."),
	integer("track_table_mutation_table_size", "table-mutation", Single, AtStart, "2048", 128, 131072,
		func(c *Config, _ int) *int { return &c.TrackTableMutationTableSize },
		"Entries in the shared written-table map."),

	// streaming-check
	duration("sr_check_period", "streaming-check", Single, AtReload, "10", seconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.SrCheckPeriod },
		"Interval of replication delay checks; 0 disables."),
	text("sr_check_user", "streaming-check", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.SrCheckUser },
		"User for delay checks."),
	text("sr_check_password", "streaming-check", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.SrCheckPassword },
		"Password for delay checks; empty means look in pool_passwd.").secret(),
	text("sr_check_database", "streaming-check", Single, AtReload, "postgres",
		func(c *Config, _ int) *string { return &c.SrCheckDatabase },
		"Database for delay checks."),
	size("delay_threshold", "streaming-check", Single, AtReload, "0", octets, 0, maxInt64,
		func(c *Config, _ int) *int64 { return &c.DelayThreshold },
		"Bytes of lag above which a standby gets no reads; 0 off."),
	duration("delay_threshold_by_time", "streaming-check", Single, AtReload, "0", milliseconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.DelayThresholdByTime },
		"Time lag above which a standby gets no reads; beats delay_threshold."),
	boolean("prefer_lower_delay_standby", "streaming-check", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.PreferLowerDelayStandby },
		"Lagging load-balance node is replaced by least-lagging standby."),
	text("replication_delay_source_cmd", "streaming-check", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.ReplicationDelaySourceCmd },
		"External command that prints the delays instead of SQL checks."),
	integer("replication_delay_source_timeout", "streaming-check", Single, AtReload, "10", 1, 3600,
		func(c *Config, _ int) *int { return &c.ReplicationDelaySourceTimeout },
		"Timeout in seconds for the external delay command."),

	// health-check
	duration("health_check_period", "health-check", Override, AtReload, "0", seconds, 0, maxInt,
		func(c *Config, i int) *time.Duration {
			if i == plain {
				return &c.HealthCheckPeriod
			}
			return &c.num.health[i].Period
		},
		"Interval between health checks; 0 disables."),
	duration("health_check_timeout", "health-check", Override, AtReload, "20", seconds, 0, maxInt,
		func(c *Config, i int) *time.Duration {
			if i == plain {
				return &c.HealthCheckTimeout
			}
			return &c.num.health[i].Timeout
		},
		"Give up one health check after this; 0 uses TCP timeout."),
	text("health_check_user", "health-check", Override, AtReload, "",
		func(c *Config, i int) *string {
			if i == plain {
				return &c.HealthCheckUser
			}
			return &c.num.health[i].User
		},
		"User for health checks."),
	text("health_check_password", "health-check", Override, AtReload, "",
		func(c *Config, i int) *string {
			if i == plain {
				return &c.HealthCheckPassword
			}
			return &c.num.health[i].Password
		},
		"Password for health checks; empty means look in pool_passwd.").secret(),
	text("health_check_database", "health-check", Override, AtReload, "postgres",
		func(c *Config, i int) *string {
			if i == plain {
				return &c.HealthCheckDatabase
			}
			return &c.num.health[i].Database
		},
		"Database for health checks."),
	integer("health_check_max_retries", "health-check", Override, AtReload, "0", 0, maxInt,
		func(c *Config, i int) *int {
			if i == plain {
				return &c.HealthCheckMaxRetries
			}
			return &c.num.health[i].MaxRetries
		},
		"Retries before a failed check leads to failover."),
	duration("health_check_retry_delay", "health-check", Override, AtReload, "1", seconds, 0, maxInt,
		func(c *Config, i int) *time.Duration {
			if i == plain {
				return &c.HealthCheckRetryDelay
			}
			return &c.num.health[i].RetryDelay
		},
		"Pause between retries."),
	duration("connect_timeout", "health-check", Override, AtReload, "10000", milliseconds, 0, maxInt,
		func(c *Config, i int) *time.Duration {
			if i == plain {
				return &c.ConnectTimeout
			}
			return &c.num.health[i].ConnectTimeout
		},
		"connect() timeout towards backends; 0 waits forever."),
	boolean("health_check_test", "health-check", Single, AtStart, "off",
		func(c *Config, _ int) *bool { return &c.HealthCheckTest },
		"Test hook: read fake node-down state from a file."),

	// failover
	text("failover_command", "failover", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.FailoverCommand },
		"Shell command run when a backend is detached."),
	text("failback_command", "failover", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.FailbackCommand },
		"Shell command run when a backend is attached."),
	boolean("failover_on_backend_error", "failover", Single, AtReload, "on",
		func(c *Config, _ int) *bool { return &c.FailoverOnBackendError },
		"Backend socket read or write error triggers failover."),
	boolean("failover_on_backend_shutdown", "failover", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.FailoverOnBackendShutdown },
		"Admin shutdown error (57P01/57P02) triggers failover."),
	boolean("detach_false_primary", "failover", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.DetachFalsePrimary },
		"Detach extra primaries found in streaming replication."),
	duration("search_primary_node_timeout", "failover", Single, AtReload, "300", seconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.SearchPrimaryNodeTimeout },
		"How long to look for a primary after failover; 0 forever."),
	text("follow_primary_command", "failover", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.FollowPrimaryCommand },
		"Shell command run per other node after primary change; auto does it by SQL."),
	boolean("auto_failback", "failover", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.AutoFailback },
		"Reattach a detached standby that is streaming again."),
	duration("auto_failback_interval", "failover", Single, AtReload, "60", seconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.AutoFailbackInterval },
		"Shortest time between two automatic reattachments."),
	boolean("failover_promote", "failover", Single, AtReload, "off",
		func(c *Config, _ int) *bool { return &c.FailoverPromote },
		"Promote the furthest standby by SQL if there is no failover_command.").ours(),
	duration("failover_hold_timeout", "failover", Single, AtReload, "10", seconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.FailoverHoldTimeout },
		"How long statements wait for a new primary during a failover.").ours(),
	duration("failover_command_timeout", "failover", Single, AtReload, "300", seconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.FailoverCommandTimeout },
		"Longest run of a failover or failback command; 0 unlimited.").ours(),
	duration("follow_primary_command_timeout", "failover", Single, AtReload, "86400", seconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.FollowPrimaryCommandTimeout },
		"Longest run of a follow_primary_command; 0 unlimited.").ours(),

	// recovery
	text("recovery_user", "recovery", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.RecoveryUser },
		"User for online recovery."),
	text("recovery_password", "recovery", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.RecoveryPassword },
		"Password for online recovery; empty means look in pool_passwd.").secret(),
	text("recovery_database", "recovery", Single, AtReload, "postgres",
		func(c *Config, _ int) *string { return &c.RecoveryDatabase },
		"Database used for online recovery."),
	text("recovery_1st_stage_command", "recovery", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.Recovery1stStageCommand },
		"Script in main node data directory for stage one."),
	text("recovery_2nd_stage_command", "recovery", Single, AtReload, "",
		func(c *Config, _ int) *string { return &c.Recovery2ndStageCommand },
		"Script in main node data directory for stage two."),
	duration("recovery_timeout", "recovery", Single, AtReload, "90", seconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.RecoveryTimeout },
		"Longest wait for the recovered node to accept connections."),
	duration("client_idle_limit_in_recovery", "recovery", Single, InSession, "0", seconds, -1, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.ClientIdleLimitInRecovery },
		"Idle limit during stage two; -1 disconnects at once."),

	// relcache
	duration("relcache_expire", "relcache", Single, AtStart, "0", seconds, 0, maxSeconds,
		func(c *Config, _ int) *time.Duration { return &c.RelcacheExpire },
		"Catalogue cache lifetime; 0 keeps entries for the process life."),
	integer("relcache_size", "relcache", Single, AtStart, "256", 0, maxInt,
		func(c *Config, _ int) *int { return &c.RelcacheSize },
		"Entries in the catalogue cache of each child."),
	choice("check_temp_table", "relcache", Single, AtReload, "catalog", tempTables,
		func(c *Config, _ int) *CheckTempTable { return &c.CheckTempTable },
		"How temporary tables are recognised in SELECTs."),
	boolean("check_unlogged_table", "relcache", Single, InSession, "on",
		func(c *Config, _ int) *bool { return &c.CheckUnloggedTable },
		"Recognise unlogged tables in SELECTs."),
	boolean("enable_shared_relcache", "relcache", Single, AtStart, "on",
		func(c *Config, _ int) *bool { return &c.EnableSharedRelcache },
		"Share catalogue lookups through the query cache storage."),
	choice("relcache_query_target", "relcache", Single, AtReload, "primary", relcacheTargets,
		func(c *Config, _ int) *RelcacheQueryTarget { return &c.RelcacheQueryTarget },
		"Node that answers catalogue lookups."),

	// query-cache
	boolean("memory_cache_enabled", "query-cache", Single, AtStart, "off",
		func(c *Config, _ int) *bool { return &c.MemoryCacheEnabled },
		"Enable the in-memory query result cache."),
	choice("memqcache_method", "query-cache", Single, AtStart, "shmem", memqcacheMethods,
		func(c *Config, _ int) *MemqcacheMethod { return &c.MemqcacheMethod },
		"Where results are stored."),
	text("memqcache_memcached_host", "query-cache", Single, AtStart, "localhost",
		func(c *Config, _ int) *string { return &c.MemqcacheMemcachedHost },
		"memcached host."),
	integer("memqcache_memcached_port", "query-cache", Single, AtStart, "11211", 0, maxInt,
		func(c *Config, _ int) *int { return &c.MemqcacheMemcachedPort },
		"memcached port."),
	size("memqcache_total_size", "query-cache", Single, AtStart, "67108864", octets, 0, maxInt64,
		func(c *Config, _ int) *int64 { return &c.MemqcacheTotalSize },
		"Shared memory size for cached results."),
	integer("memqcache_max_num_cache", "query-cache", Single, AtStart, "1000000", 0, maxInt,
		func(c *Config, _ int) *int { return &c.MemqcacheMaxNumCache },
		"Maximum number of cached results in shared memory."),
	duration("memqcache_expire", "query-cache", Single, AtStart, "0", seconds, 0, maxInt,
		func(c *Config, _ int) *time.Duration { return &c.MemqcacheExpire },
		"Lifetime of a cached result; 0 never expires."),
	boolean("memqcache_auto_cache_invalidation", "query-cache", Single, AtReload, "on",
		func(c *Config, _ int) *bool { return &c.MemqcacheAutoCacheInvalidation },
		"Drop results when their tables are written."),
	size("memqcache_maxcache", "query-cache", Single, AtStart, "409600", octets, 0, maxInt,
		func(c *Config, _ int) *int64 { return &c.MemqcacheMaxcache },
		"Largest cacheable result."),
	size("memqcache_cache_block_size", "query-cache", Single, AtStart, "1048576", octets, 512, maxInt,
		func(c *Config, _ int) *int64 { return &c.MemqcacheCacheBlockSize },
		"Block size of the shared memory store."),
	text("memqcache_oiddir", "query-cache", Single, AtStart, "/var/log/pgpool/oiddir",
		func(c *Config, _ int) *string { return &c.MemqcacheOiddir },
		"Directory of table-OID files for invalidation."),
	patterns("cache_safe_memqcache_table_list", "query-cache", Single, AtReload, "", ',',
		func(c *Config, _ int) *[]string { return &c.CacheSafeMemqcacheTableList },
		"Tables cached even when views or unlogged."),
	patterns("cache_unsafe_memqcache_table_list", "query-cache", Single, AtReload, "", ',',
		func(c *Config, _ int) *[]string { return &c.CacheUnsafeMemqcacheTableList },
		"Tables never cached."),
}
