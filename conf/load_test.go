package conf

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write puts a pgpool.conf, and other files by name, into a directory of its own.
func write(t *testing.T, conf string, others ...string) Paths {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(others); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, others[i]), []byte(others[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := Paths{Conf: filepath.Join(dir, "pgpool.conf")}
	if err := os.WriteFile(p.Conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t *testing.T, conf string, others ...string) (*Config, []Notice) {
	t.Helper()
	c, notices, err := Load(write(t, conf, others...))
	if err != nil {
		t.Fatalf("%v\nin %s", err, conf)
	}
	return c, notices
}

// texts joins what notices say, one per line.
func texts(notices []Notice) string {
	var b strings.Builder
	for _, n := range notices {
		b.WriteString(n.String() + "\n")
	}
	return b.String()
}

func TestUsersFilesLoad(t *testing.T) {
	loadFile := func(t *testing.T, name string, warnings ...string) *Config {
		c, notices, err := Load(Paths{Conf: "../testdata/conf/" + name + ".pgpool.conf"})
		if err != nil {
			t.Fatal(err)
		}
		if len(notices) != len(warnings) {
			t.Errorf("%d notices, want %d:\n%s", len(notices), len(warnings), texts(notices))
		}
		for i, w := range warnings {
			if i < len(notices) && !strings.Contains(notices[i].String(), w) {
				t.Errorf("notice %d is %q, want %q", i, notices[i], w)
			}
		}
		return c
	}
	t.Run("debian", func(t *testing.T) {
		c := loadFile(t, "debian")
		if c.BackendClusteringMode != StreamingReplication || len(c.Backends) != 0 {
			t.Errorf("mode %v, backends %v", c.BackendClusteringMode, c.Backends)
		}
	})
	t.Run("guide", func(t *testing.T) {
		c := loadFile(t, "guide", "socket_dir is changed to unix_socket_directories", "wd_hostname is replaced by hostnameN",
			"wd_port is replaced by wd_portN", "does not exist; the watchdog is configured with its old parameters")
		weights := []float64{}
		for _, b := range c.Backends {
			weights = append(weights, b.Weight)
		}
		if !slices.Equal(weights, []float64{0, 1, 1, 1}) {
			t.Errorf("weights are %v", weights)
		}
		if c.Backends[3] != (Backend{Hostname: "pg-4", Port: 5432, Weight: 1, DataDirectory: "/var/lib/postgresql/data"}) {
			t.Errorf("backend 3 is %+v", c.Backends[3])
		}
		if !c.UseWatchdog || c.NodeID != 0 || c.Watchdogs[0] != (WatchdogNode{"pgpool-1", 9000, 5432}) {
			t.Errorf("watchdog node %d of %+v", c.NodeID, c.Watchdogs)
		}
		if h := c.HealthCheck(2); h.Period != 10*time.Second || h.User != "repmgr" || h.MaxRetries != 3 {
			t.Errorf("health check of node 2 is %+v", h)
		}
		if _, notices, err := c.Reload(); err != nil || len(notices) != 0 {
			t.Errorf("reload: %v\n%s", err, texts(notices))
		}
		if !slices.Equal(c.UnixSocketDirectories, []string{"/var/run/pgpool"}) {
			t.Errorf("sockets in %q", c.UnixSocketDirectories)
		}
	})
	t.Run("tutorial", func(t *testing.T) {
		c := loadFile(t, "tutorial", "socket_dir is changed to unix_socket_directories", "white_function_list is changed to read_only_function_list",
			"black_function_list is changed to write_function_list", "black_query_pattern_list is changed to primary_routing_query_pattern_list",
			"master_slave_mode is replaced by backend_clustering_mode", "master_slave_sub_mode is replaced by backend_clustering_mode")
		if c.BackendClusteringMode != StreamingReplication {
			t.Errorf("mode is %v", c.BackendClusteringMode)
		}
		if !slices.Equal(c.WriteFunctionList, []string{"currval", "lastval", "nextval", "setval"}) {
			t.Errorf("write_function_list is %q", c.WriteFunctionList)
		}
	})
}

// TestBadValues: what cannot be right stops the start, with place, value and what is allowed.
func TestBadValues(t *testing.T) {
	for _, tt := range []struct{ line, text, more string }{
		{"ssl = banana", `invalid value for parameter "ssl": "banana"`, "Available values: on, off"},
		{"ssl = ''", `invalid value for parameter "ssl": ""`, "on, off"},
		{"ssl = o", `invalid value for parameter "ssl": "o"`, "on, off"},
		{"ssl = 2", `invalid value for parameter "ssl": "2"`, "on, off"},
		{"port = 70000", `70000 is outside the valid range for parameter "port" (1024 .. 65535)`, ""},
		{"backend_port0 = 80", `80 is outside the valid range for parameter "backend_port0" (1024 .. 65535)`, ""},
		{"backend_port0 = 99999999999", `invalid value for parameter "backend_port0": "99999999999"`, "Value exceeds allowed range."},
		{"backend_weight0 = -1", `-1.000000 is outside the valid range for parameter "backend_weight0" (0.000000 .. 100000000.000000)`, ""},
		{"backend_weight0 = heavy", `invalid value for parameter "backend_weight0": "heavy"`, "number"},
		{"backend_weight0 = nan", `NaN is outside`, ""},
		{"child_life_time = 5parsec", `invalid value for parameter "child_life_time": "5parsec"`, "Valid units for this parameter are"},
		{"memqcache_maxcache = '1 PB'", `invalid value for parameter "memqcache_maxcache": "1 PB"`, "Valid units"},
		{"backend_clustering_mode = x", `invalid value for parameter "backend_clustering_mode": "x"`,
			"Available values: streaming_replication, native_replication, logical_replication, slony, raw, snapshot_isolation."},
		{"log_min_messages = loud", `invalid value for parameter "log_min_messages": "loud"`,
			"Available values: debug5, debug4, debug3, debug2, debug1, info, notice, warning, error, log, fatal, panic."},
		{"backend_flag0 = FOO", `invalid configuration for key "backend_flag0"`, "unknown backend flag:FOO"},
		{"backend_flag0 = 'ALLOW_TO_FAILOVER|DISALLOW_TO_FAILOVER'", `invalid configuration for key "backend_flag0"`,
			"cannot set ALLOW_TO_FAILOVER and DISALLOW_TO_FAILOVER at the same time"},
		{"log_destination = foo", `invalid configuration for "log_destination"`, "unknown destination :foo"},
		{"log_destination = ''", `invalid value "" for log_destination`, "stderr, syslog"},
		{"read_only_function_list = 'a,('", `unable to add regex pattern for "read_only_function_list", invalid pattern: "("`, "missing closing"},
		{"database_redirect_preference_list = 'a:b'", `invalid configuration for key "database_redirect_preference_list"`, `wrong redirect db node spec: "b"`},
		{"database_redirect_preference_list = 'a:200'", `invalid configuration for key "database_redirect_preference_list"`, `wrong redirect db node spec: "200"`},
		{"database_redirect_preference_list = '(:1'", `invalid configuration for key "database_redirect_preference_list"`, `wrong redirect dbname regular expression: "("`},
		{"app_name_redirect_preference_list = 'a:1(2)'", `invalid configuration for key "app_name_redirect_preference_list"`, `wrong redirect app weight`},
		{"dml_adaptive_object_relationship_list = 'a'", `invalid configuration for key "dml_adaptive_object_relationship_list"`, "object:dependent"},
		{"unix_socket_permissions = 01000", `is outside the valid range for parameter "unix_socket_permissions" (0000 .. 0777)`, ""},
		{"wd_listen_port = 0", `0 is outside the valid range for parameter "wd_listen_port" (1024 .. 65535)`, ""},
		{"black_function_list = '('", `unable to add regex pattern for "write_function_list"`, ""},
		{"master_slave_mode = maybe", `invalid value for parameter "master_slave_mode": "maybe"`, "on, off"},
		{"master_slave_sub_mode = 'x'", `invalid value for parameter "master_slave_sub_mode": "x"`, "stream, logical, slony"},
		{"debug_level = much", `invalid value for parameter "debug_level": "much"`, ""},

		{"recovery_1st_stage_command = 'x' backend_port0 = 5432", "invalid configuration, recovery_1st_stage_command and recovery_2nd_stage_command requires backend_data_directory to be set", "backend_data_directory0"},
		{"replication_mode = on", "invalid configuration, failover_when_quorum_exists is not allowed in native replication mode", ""},
		{"process_management_mode = dynamic min_spare_children = 10", "min_spare_children must be less", "max_spare_children is 10"},
		{"process_management_mode = dynamic num_init_children = 9", "max_spare_children must not exceed num_init_children", "num_init_children is 9"},
		{"use_watchdog = on", "Pgpool node id file", "pgpool_node_id file is required"},
		{"memory_cache_enabled = on memqcache_total_size = 1kB", "invalid memory cache configuration", "1024 should be greater"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			p := write(t, "\n\n"+tt.line+"\n")
			c, _, err := Load(p)
			bad, ok := errors.AsType[*Error](err)
			if !ok || c != nil {
				t.Fatalf("loaded, error %v", err)
			}
			if !strings.Contains(bad.Text, tt.text) || !strings.Contains(bad.Error(), tt.more) {
				t.Errorf("got %q, want %q and %q", bad.Error(), tt.text, tt.more)
			}
			if bad.File != p.Conf && !strings.Contains(tt.line, "use_watchdog") && bad.Line != 0 {
				t.Errorf("file is %q", bad.File)
			}
			if bad.Line != 3 && bad.Line != 0 {
				t.Errorf("line is %d", bad.Line)
			}
			if bad.Line == 3 && !strings.Contains(bad.Detail, `pgpool.conf", line 3`) {
				t.Errorf("the detail %q does not say where", bad.Detail)
			}
		})
	}
}

func TestEveryBadValueIsTold(t *testing.T) {
	_, notices, err := Load(write(t, "ssl = x\nport = 1\nmax_pool = y\n"))
	if err == nil || !strings.Contains(err.Error(), `"ssl"`) {
		t.Fatalf("error is %v", err)
	}
	if s := texts(notices); !strings.Contains(s, "1 is outside") || !strings.Contains(s, `"max_pool": "y"`) {
		t.Errorf("notices:\n%s", s)
	}
}

func TestGoodValues(t *testing.T) {
	c, notices := load(t, `
ssl = TRU
enable_pool_hba = 1
log_connections = Of
backend_port03 = 5433
backend_hostname3 = 'b'
backend_weight3=0.5
backend_flag3 = 'DISALLOW_TO_FAILOVER|ALWAYS_PRIMARY'
backend_hostname1 = 'never used'
backend_port0 = 5432
max_pool = 1
max_pool = 2.5
health_check_period1 = 7
health_check_period = 1min
connect_timeout = 5s
connect_timeout2 = 100
client_idle_limit_in_recovery = -1
log_file_mode = 0640
work_dir = standby/log
listen_addresses = 'a, b ,,c'
primary_routing_query_pattern_list = 'select a\;b;x{1,2}'
read_only_function_list = 'a.*,b'
user_redirect_preference_list = 'joe:primary,ann.*:2(0.25), x|y:standby'
dml_adaptive_object_relationship_list = 't1:t2, f():v'
log_destination = 'stderr, syslog'
backend_clustering_mode = SLONY
`)
	if n := len(notices); n != 1 || notices[0].Level != LevelLog || !strings.Contains(notices[0].Detail, "empty backend_hostname0, use PostgreSQL's default unix socket path (/tmp)") {
		t.Errorf("notices: %s", texts(notices))
	}
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	check("ssl", c.Ssl, true)
	check("enable_pool_hba", c.EnablePoolHba, true)
	check("log_connections", c.LogConnections, false)
	check("backends", len(c.Backends), 4)
	check("backend 0", c.Backends[0], Backend{Hostname: "/tmp", Port: 5432})
	check("backend 1 used", c.Backends[1].Used(), false)
	check("backend 3", c.Backends[3], Backend{Hostname: "b", Port: 5433, Weight: .5, Flag: DisallowToFailover | AlwaysPrimary})
	check("max_pool", c.MaxPool, 2)
	check("period of 0", c.HealthCheck(0).Period, time.Minute)
	check("period of 1", c.HealthCheck(1).Period, 7*time.Second)
	check("connect_timeout of 1", c.HealthCheck(1).ConnectTimeout, 5*time.Second)
	check("connect_timeout of 2", c.HealthCheck(2).ConnectTimeout, 100*time.Millisecond)
	check("plain health check", c.HealthCheck(-1).Period, time.Minute)
	check("idle in recovery", c.ClientIdleLimitInRecovery, -time.Second)
	check("log_file_mode", c.LogFileMode, 0o640)
	check("work_dir", c.WorkDir, "standby/log")
	check("listen_addresses", strings.Join(c.ListenAddresses, "|"), "a|b|c")
	check("patterns", strings.Join(c.PrimaryRoutingQueryPatternList, "|"), "select a;b|x{1,2}")
	check("destinations", strings.Join(c.LogDestination, "|"), "stderr|syslog")
	check("mode", c.BackendClusteringMode, Slony)
	check("explicit", c.Explicit("ssl"), true)
	check("explicit with number", c.Explicit("backend_port3"), true)
	check("explicit for any number", c.Explicit("backend_port"), true)
	check("not explicit", c.Explicit("backend_port2"), false)
	check("not explicit", c.Explicit("port"), false)
	src, _ := c.Source("max_pool")
	check("source", src.Line, 12)
	joe, ok := c.UserRedirectPreferenceList.Find("JOE")
	check("redirect of joe", ok && joe.Target == ToPrimary && joe.Weight == 1, true)
	ann, ok := c.UserRedirectPreferenceList.Find("anna")
	check("redirect of anna", ok && ann.Target == ToNode && ann.Node == 2 && ann.Weight == .25, true)
	_, ok = c.UserRedirectPreferenceList.Find("bob")
	check("redirect of bob", ok, false)
	check("relations", c.DmlAdaptiveObjectRelationshipList.Pairs[1], Relation{Object: "f", Function: true, Dependent: "v"})
}

func TestUnknownNames(t *testing.T) {
	for _, tt := range []struct{ line, text, hint string }{
		{"nosuch = 1", `unrecognized configuration parameter "nosuch"`, "The setting is ignored."},
		{"max_pol = 1", `unrecognized configuration parameter "max_pol"`, `Did you mean "max_pool"?`},
		{"MAX_POOL = 1", `unrecognized configuration parameter "MAX_POOL"`, `Did you mean "max_pool"?`},
		{"backend_hostnam3 = x", `unrecognized configuration parameter "backend_hostnam3"`, `Did you mean "backend_hostname3"?`},
		{"helth_check_period = 1", `unrecognized`, `Did you mean "health_check_period"?`},
		{"num_init_childern = 1", `unrecognized`, `Did you mean "num_init_children"?`},
		{"include_dir = 'x'", `unrecognized configuration parameter "include_dir"`, ""},
		{"backend_hostname = x", `parameter "backend_hostname" expects the index value`, ""},
		{"backend_hostnamex = x", `invalid index value for parameter "backend_hostnamex" `, ""},
		{"backend_hostname128 = x", `128 index outside the valid range for parameter "backend_hostname128" (0 .. 127)`, ""},
		{"heartbeat_port99999999999999999999 = 1", `index outside the valid range for parameter`, ""},
		{"parallel_mode = on", `parameter "parallel_mode" was removed`, "Remove the line."},
		{"wd_port_x = 1", `invalid index value for parameter "wd_port_x"`, ""},
	} {
		t.Run(tt.line, func(t *testing.T) {
			_, notices := load(t, "\n"+tt.line+"\n"+tt.line+"\n")
			if len(notices) != 1 {
				t.Fatalf("notices:\n%s", texts(notices))
			}
			n := notices[0]
			if n.Level != LevelWarning || n.Line != 2 || !strings.Contains(n.Detail, `pgpool.conf", line 2`) ||
				!strings.Contains(n.Text, tt.text) || !strings.Contains(n.Hint, tt.hint) {
				t.Errorf("got %+v", n)
			}
		})
	}
}

func TestInclude(t *testing.T) {
	c, _ := load(t, "max_pool = 1\ninclude = 'sub.conf'\nport = 5000\n", "sub.conf", "max_pool = 2 port = 4000 include sub2.conf", "sub2.conf", "num_init_children = 3")
	if c.MaxPool != 2 || c.Port != 5000 || c.NumInitChildren != 3 {
		t.Errorf("max_pool %d, port %d, num_init_children %d", c.MaxPool, c.Port, c.NumInitChildren)
	}
	src, _ := c.Source("num_init_children")
	if filepath.Base(src.File) != "sub2.conf" {
		t.Errorf("source is %+v", src)
	}
	for _, tt := range []struct{ name, conf, other, want string }{
		{"missing", "\ninclude 'nosuch'", "", "could not open configuration file"},
		{"itself", "\ninclude = 'pgpool.conf'", "", "maximum nesting depth exceeded"},
		{"bad inside", "\ninclude = 'x.conf'", "a-b = 1", "syntax error in configuration file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Load(write(t, tt.conf, "x.conf", tt.other))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	c, notices, err := Load(Paths{Conf: filepath.Join(t.TempDir(), "none")})
	if err != nil || c.Port != 9999 || len(notices) != 1 {
		t.Fatalf("%v, %v", err, notices)
	}
	n := notices[0]
	if n.Level != LevelWarning || !strings.HasPrefix(n.Text, "could not open configuration file: ") || n.Detail != "using default configuration parameter values" {
		t.Errorf("notice is %+v", n)
	}
	if _, _, err := Load(Paths{Conf: t.TempDir()}); err == nil {
		t.Error("a directory was loaded")
	}
}

func TestNodeID(t *testing.T) {
	for _, tt := range []struct {
		content, err string
		want         int
	}{
		{"0\n", "", 0}, {"127", "", 127}, {" 3 \nx", "", 3},
		{"", "pgpool_node_id file is empty", 0}, {"\n1", "file is empty", 0}, {"a", "pgpool_node_id is not a numeric value", 0},
		{"-1", "not a numeric value", 0}, {"128", `Invalid pgpool node id "128", must be between 0 and 127`, 0}, {"99999999999999999999", "Invalid pgpool node id", 0},
	} {
		file := filepath.Join(t.TempDir(), "pgpool_node_id")
		os.WriteFile(file, []byte(tt.content), 0o600)
		id, err := LoadNodeID(file)
		if id != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %d, %v", tt.content, id, err)
		}
	}
	c, _ := load(t, "use_watchdog = on hostname1 = 'a' wd_port1 = 9000 pgpool_port1 = 9999", "pgpool_node_id", "1")
	if c.NodeID != 1 || len(c.Watchdogs) != 2 {
		t.Errorf("node %d of %d", c.NodeID, len(c.Watchdogs))
	}
	if _, _, err := Load(write(t, "use_watchdog = on wd_port0 = 9000", "pgpool_node_id", "1")); err == nil || !strings.Contains(err.Error(), "wd_port1 is not set") {
		t.Errorf("error is %v", err)
	}
	if _, _, err := Load(write(t, "use_watchdog = on wd_port0 = 9000 heartbeat_port1 = 9694", "pgpool_node_id", "0")); err == nil || !strings.Contains(err.Error(), "heartbeat_hostname1 is missing") {
		t.Errorf("error is %v", err)
	}
}
