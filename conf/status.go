package conf

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// StatusExtra is what SHOW POOL_STATUS prints that no file says.
type StatusExtra struct {
	BackendStatus func(node int) string // up, down, waiting, ...
	StandbyDelay  func(node int) string
	CacheStart    time.Time // since when the query cache counts
	CacheMisses   uint64
	CacheHits     uint64
}

// The items of SHOW POOL_STATUS, in the original's order. A name with a * is
// printed for each used number; what is in brackets is no parameter.
var statusItems = strings.Fields(`
	backend_clustering_mode listen_addresses port unix_socket_directories unix_socket_group unix_socket_permissions
	pcp_listen_addresses pcp_port pcp_socket_dir enable_pool_hba pool_passwd authentication_timeout
	allow_clear_text_frontend_auth ssl ssl_key ssl_cert ssl_ca_cert ssl_ca_cert_dir ssl_crl_file ssl_ciphers
	ssl_prefer_server_ciphers ssl_ecdh_curve ssl_dh_params_file ssl_passphrase_command
	listen_backlog_multiplier serialize_accept reserved_connections max_pool process_management_mode
	process_management_strategy num_init_children min_spare_children max_spare_children
	child_life_time child_max_connections connection_life_time client_idle_limit
	log_destination log_line_prefix log_error_verbosity client_min_messages log_min_messages log_connections
	log_disconnections log_pcp_processes log_hostname log_statement log_per_node_statement notice_per_node_statement
	log_client_messages log_backend_messages log_standby_delay syslog_facility syslog_ident pid_file_name work_dir
	connection_cache reset_query_list replicate_select insert_lock lobj_lock_table replication_stop_on_mismatch
	failover_if_affected_tuples_mismatch load_balance_mode ignore_leading_white_space read_only_function_list
	write_function_list primary_routing_query_pattern_list disable_load_balance_on_write
	dml_adaptive_object_relationship_list statement_level_load_balance sr_check_period sr_check_user
	sr_check_database delay_threshold delay_threshold_by_time prefer_lower_delay_standby follow_primary_command
	user_redirect_preference_list database_redirect_preference_list app_name_redirect_preference_list
	allow_sql_comments health_check_period health_check_timeout health_check_user health_check_database
	health_check_max_retries health_check_retry_delay connect_timeout failover_command failback_command
	failover_on_backend_error failover_on_backend_shutdown detach_false_primary auto_failback auto_failback_interval
	recovery_user recovery_database recovery_1st_stage_command recovery_2nd_stage_command recovery_timeout
	search_primary_node_timeout client_idle_limit_in_recovery relcache_expire relcache_size check_temp_table
	check_unlogged_table enable_shared_relcache relcache_query_target use_watchdog wd_ipc_socket_dir
	wd_lifecheck_method clear_memqcache_on_escalation wd_escalation_command wd_de_escalation_command
	trusted_servers trusted_server_command delegate_ip wd_priority wd_interval ping_path if_cmd_path if_up_cmd
	if_down_cmd arping_path arping_cmd wd_heartbeat_keepalive wd_heartbeat_deadtime wd_life_point
	wd_lifecheck_query wd_lifecheck_dbname wd_lifecheck_user
	[watchdog] hostname* pgpool_port* wd_port* [heartbeat] heartbeat_hostname* heartbeat_device* heartbeat_port*
	wd_monitoring_interfaces_list memory_cache_enabled memqcache_method memqcache_memcached_host
	memqcache_memcached_port memqcache_total_size memqcache_max_num_cache memqcache_expire
	memqcache_auto_cache_invalidation memqcache_maxcache memqcache_cache_block_size memqcache_oiddir
	[memqcache_stats_start_time] [memqcache_no_cache_hits] [memqcache_cache_hits]
	cache_safe_memqcache_table_list cache_unsafe_memqcache_table_list`)

// StatusRows answers SHOW POOL_STATUS.
func (c *Config) StatusRows(extra StatusExtra) []Row {
	var rows []Row
	add := func(item, value, description string) {
		rows = append(rows, Row{cut(item, 63), cut(value, 511), cut(description, 79)})
	}
	setting := func(s *Setting, index int) {
		item := s.title(index)
		if item == "memqcache_oiddir" {
			item = "memqcache_cache_oiddir" // so misspelt in the original
		}
		add(item, s.Status(c, index), s.Description)
	}
	var group []string // names of a family, printed number by number
	flush := func() {
		if len(group) > 0 {
			for _, i := range c.slots(byName[group[0]].Family) {
				for _, name := range group {
					setting(byName[name], i)
				}
			}
		}
		group = nil
	}
	for _, item := range statusItems {
		if name, ok := strings.CutSuffix(item, "*"); ok {
			group = append(group, name)
			continue
		}
		flush()
		switch item {
		case "[watchdog]", "[heartbeat]":
		case "[memqcache_stats_start_time]":
			add("memqcache_stats_start_time", extra.CacheStart.Format(time.ANSIC)+"\n", "Start time of query cache stats") // the newline is the original's
		case "[memqcache_no_cache_hits]":
			add("memqcache_no_cache_hits", strconv.FormatUint(extra.CacheMisses, 10), "Number of SELECTs not hitting query cache")
		case "[memqcache_cache_hits]":
			add("memqcache_cache_hits", strconv.FormatUint(extra.CacheHits, 10), "Number of SELECTs hitting query cache")
		default:
			setting(byName[item], plain)
		}
	}
	total := 0.0
	for _, b := range c.Backends {
		total += b.Weight
	}
	for _, i := range c.slots(PerBackend) {
		b := c.Backends[i]
		share := 0.0
		if total > 0 {
			share = b.Weight / total
		}
		describe := func(name string) string { return byName[name].Description }
		n := strconv.Itoa(i)
		add("backend_hostname"+n, b.Hostname, describe("backend_hostname"))
		add("backend_port"+n, strconv.Itoa(b.Port), describe("backend_port"))
		add("backend_weight"+n, fmt.Sprintf("%f", share), describe("backend_weight"))
		add("backend_data_directory"+n, b.DataDirectory, describe("backend_data_directory"))
		add("backend_status"+n, extra.BackendStatus(i), "status of backend #"+n)
		add("standby_delay"+n, extra.StandbyDelay(i), "standby delay of backend #"+n)
		add("backend_flag"+n, b.Flag.String(), describe("backend_flag"))
		add("backend_application_name"+n, b.ApplicationName, describe("backend_application_name"))
	}
	return rows
}

// cut shortens to n bytes, as the original's fixed fields do.
func cut(s string, n int) string { return s[:min(len(s), n)] }
