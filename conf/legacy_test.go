package conf

import (
	"fmt"
	"strings"
	"testing"
)

func TestOldParameters(t *testing.T) {
	for _, tt := range []struct{ name, conf, setting, want string }{
		{"renamed", "black_query_pattern_list = 'a;b'", "primary_routing_query_pattern_list", "a;b"},
		{"renamed", "white_memqcache_table_list = 'a'", "cache_safe_memqcache_table_list", "a"},
		{"renamed", "black_memqcache_table_list = 'a'", "cache_unsafe_memqcache_table_list", "a"},
		{"renamed", "follow_master_command = 'x'", "follow_primary_command", "x"},
		{"renamed", "socket_dir = '/x'", "unix_socket_directories", "/x"},
		{"renamed", "delegate_IP = '10.0.0.1'", "delegate_ip", "10.0.0.1"},
		{"renamed", "fail_over_on_backend_error = off", "failover_on_backend_error", "off"},
		{"renamed", "ifconfig_path = '/x'", "if_cmd_path", "/x"},
		{"renamed", "enable_query_cache = on", "memory_cache_enabled", "on"},
		{"renamed", "wd_initial_node_showup_time = 9", "wd_no_show_node_removal_timeout", "9s"},
		{"renamed, last wins", "logdir = '/a' work_dir = '/b'", "work_dir", "/b"},
		{"renamed, last wins", "work_dir = '/b' logdir = '/a'", "work_dir", "/a"},
		{"empty logdir", "work_dir = '/b' logdir = ''", "work_dir", "/b"},

		{"mode", "master_slave_mode = on", "backend_clustering_mode", "streaming_replication"},
		{"mode", "master_slave_mode = on master_slave_sub_mode = 'stream'", "backend_clustering_mode", "streaming_replication"},
		{"mode", "master_slave_sub_mode = 'logical' master_slave_mode = on", "backend_clustering_mode", "logical_replication"},
		{"mode", "master_slave_mode = on master_slave_sub_mode = 'slony'", "backend_clustering_mode", "slony"},
		{"mode", "master_slave_mode = off", "backend_clustering_mode", "raw"},
		{"mode", "master_slave_mode = off replication_mode = on failover_when_quorum_exists = off", "backend_clustering_mode", "native_replication"},
		{"mode", "replication_mode = on failover_when_quorum_exists = off", "backend_clustering_mode", "native_replication"},
		{"mode", "replication_mode = off", "backend_clustering_mode", "streaming_replication"},
		{"new wins", "backend_clustering_mode = raw master_slave_mode = on", "backend_clustering_mode", "raw"},

		{"logs", "debug_level = 1", "log_min_messages", "debug1"},
		{"logs", "debug_level = 9", "log_min_messages", "debug5"},
		{"logs", "debug_level = 0", "log_min_messages", "warning"},
		{"logs", "print_timestamp = off", "log_line_prefix", "%a pid %p: "},
		{"logs", "print_user = on", "log_line_prefix", "%m: %a pid %p: %u: "},
		{"new wins", "print_user = on log_line_prefix = 'x'", "log_line_prefix", "x"},
		{"listen", "allow_inet_domain_socket = on", "listen_addresses", "*"},
		{"listen", "allow_inet_domain_socket = off", "listen_addresses", ""},
		{"socket of a backend", "backend_socket_dir = '/s' backend_port0 = 5432", "backend_hostname0", "/s"},
		{"flag", "backend_port0 = 5432 backend_flag0 = 'ALWAYS_MASTER'", "backend_flag0", "ALLOW_TO_FAILOVER|ALWAYS_PRIMARY"},
	} {
		t.Run(tt.name+" "+tt.conf, func(t *testing.T) {
			c, notices := load(t, tt.conf)
			_, rows, err := c.ShowRows(tt.setting)
			if err != nil {
				t.Fatal(err)
			}
			if got := rows[0][len(rows[0])-1]; got != tt.want {
				t.Errorf("%s is %q, want %q", tt.setting, got, tt.want)
			}
			if strings.HasPrefix(tt.name, "renamed") && !strings.Contains(texts(notices), "changed to "+tt.setting) {
				t.Errorf("notices: %s", texts(notices))
			}
		})
	}
}

// TestOldWatchdog: a file of version 4.1, with its own node and the others apart.
func TestOldWatchdog(t *testing.T) {
	const file = `
use_watchdog = on
port = 5555
wd_hostname = 'me'
wd_port = 9001
wd_heartbeat_port = 9700
heartbeat_destination0 = 'two'
heartbeat_destination_port0 = 9701
heartbeat_device0 = 'eth0'
heartbeat_destination1 = 'one'
heartbeat_destination2 = 'two'
heartbeat_device2 = 'eth1'
other_pgpool_hostname0 = 'one'
other_pgpool_port0 = 5001
other_wd_port0 = 9011
other_pgpool_hostname1 = 'two'
other_pgpool_port1 = 5002
other_wd_port1 = 9012
`
	check := func(t *testing.T, c *Config, own int, order string) {
		t.Helper()
		var hosts []string
		for i, w := range c.Watchdogs {
			hosts = append(hosts, fmt.Sprintf("%s:%d:%d:%s:%d:%s", w.Hostname, w.WdPort, w.PgpoolPort,
				c.Heartbeats[i].Hostname, c.Heartbeats[i].Port, c.Heartbeats[i].Device))
		}
		if got := strings.Join(hosts, " "); got != order || c.NodeID != own {
			t.Errorf("node %d\ngot  %s\nwant %s", c.NodeID, got, order)
		}
	}
	const me, one, two = "me:9001:5555:me:9700:", "one:9011:5001:one:9694:", "two:9012:5002:two;two:9701:eth0;eth1"
	c, notices := load(t, file)
	check(t, c, 0, strings.Join([]string{me, one, two}, " "))
	if n := len(notices); n != 9 {
		t.Errorf("%d notices:\n%s", n, texts(notices))
	}
	c, _ = load(t, file, "pgpool_node_id", "1\n")
	check(t, c, 1, strings.Join([]string{one, me, two}, " "))
	c, _ = load(t, file+"hostname1 = 'new' wd_port1 = 9099", "pgpool_node_id", "0")
	if c.Watchdogs[1].Hostname != "new" || c.Watchdogs[1].WdPort != 9099 || c.Watchdogs[1].PgpoolPort != 5001 {
		t.Errorf("what is said in new words does not win: %+v", c.Watchdogs[1])
	}
	next, notices, err := c.Reload()
	if err != nil || len(notices) != 0 || next.Heartbeats[2] != c.Heartbeats[2] {
		t.Errorf("reload: %v, %s", err, texts(notices))
	}
}
