package conf

import (
	"os"
	"strings"
	"testing"
)

func TestReload(t *testing.T) {
	p := write(t, `
port = 9990
max_pool = 7
client_idle_limit = 50
backend_hostname0 = 'a'
backend_port0 = 5432
backend_weight0 = 1
backend_flag0 = 'ALWAYS_PRIMARY'
backend_port1 = 5433
health_check_period1 = 3
log_connections = on
wrong_name = 1
socket_dir = '/x'
`)
	first, notices, err := Load(p)
	if err != nil || len(notices) != 3 { // empty host, unknown, renamed
		t.Fatalf("%v\n%s", err, texts(notices))
	}
	rewrite := func(conf string) {
		t.Helper()
		if err := os.WriteFile(p.Conf, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(`
port = 9991
client_idle_limit = 60
backend_hostname0 = 'b'
backend_port0 = 6000
backend_weight0 = 9
backend_weight0 = 2.5
backend_data_directory0 = '/d'
backend_flag0 = 'DISALLOW_TO_FAILOVER'
backend_port1 = 5433
backend_hostname3 = 'd'
backend_port3 = 5435
health_check_period = 1min
sr_check_period = banana
recovery_1st_stage_command = 'x'
wrong_name = 1
socket_dir = '/x'
`)
	c, notices, err := first.Reload()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`WARNING:  parameter "port" cannot be changed without restarting the server; The old value stays in use. (file`,
		`WARNING:  backend node 0 is in use, parameter "backend_hostname0" cannot be changed`,
		`WARNING:  backend node 0 is in use, parameter "backend_port0" cannot be changed`,
		`LOG:  initializing pool configuration: backend weight for backend:0 changed from 1.000000 to 2.500000; This change will be effective from next client session`,
		`WARNING:  ALWAYS_PRIMARY of backend node 0 cannot be removed without restarting the server`,
		`WARNING:  invalid value for parameter "sr_check_period": "banana"`,
		`WARNING:  invalid configuration, recovery_1st_stage_command`,
		`WARNING:  invalid configuration, recovery_1st_stage_command`,
	}
	if len(notices) != len(want) {
		t.Errorf("%d notices:\n%s", len(notices), texts(notices))
	}
	for i := range min(len(want), len(notices)) {
		if !strings.Contains(notices[i].String(), want[i]) {
			t.Errorf("notice %d is %q, want %q", i, notices[i], want[i])
		}
	}
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	check("port", c.Port, 9990)
	check("removed max_pool", c.MaxPool, 7)
	check("removed log_connections", c.LogConnections, true)
	check("client_idle_limit", c.ClientIdleLimit.Seconds(), 60.0)
	check("backend 0", c.Backends[0], Backend{Hostname: "a", Port: 5432, Weight: 2.5, DataDirectory: "/d", Flag: DisallowToFailover | AlwaysPrimary})
	check("backend 3", c.Backends[3], Backend{Hostname: "d", Port: 5435})
	check("health check of 0", c.HealthCheck(0).Period.Seconds(), 60.0)
	check("health check of 1", c.HealthCheck(1).Period.Seconds(), 3.0)
	check("old backends", len(first.Backends), 2)
	check("old weight", first.Backends[0].Weight, 1.0)
	check("old health check", first.HealthCheck(0).Period.Seconds(), 0.0)

	session, err := c.With("client_idle_limit", "70")
	if err != nil {
		t.Fatal(err)
	}
	check("in the session", session.ClientIdleLimit.Seconds(), 70.0)
	check("outside", c.ClientIdleLimit.Seconds(), 60.0)
	reset, err := session.WithDefault("client_idle_limit", nil)
	if err != nil {
		t.Fatal(err)
	}
	check("reset goes back to the start", reset.ClientIdleLimit.Seconds(), 50.0)
	check("reset to a base", session.WithDefaults(c).ClientIdleLimit.Seconds(), 60.0)

	_, notices, err = c.Reload()
	if err != nil || strings.Contains(texts(notices), `"port"`) {
		t.Errorf("told twice: %v\n%s", err, texts(notices))
	}
	rewrite("port = 'x\n")
	if same, _, err := c.Reload(); err == nil || same != nil || !strings.Contains(err.Error(), "unterminated") {
		t.Errorf("broken file: %v, %v", same, err)
	}
	os.Remove(p.Conf)
	if _, _, err := c.Reload(); err == nil {
		t.Error("a missing file was reloaded")
	}
}

func TestSessionErrors(t *testing.T) {
	c := Default()
	for _, tt := range []struct{ name, value, want string }{
		{"nosuch", "1", `unrecognized configuration parameter "nosuch"`},
		{"port", "1", `invalid Context, value for parameter "port" cannot be changed`},
		{"backend_weight0", "1", `invalid Context, value for parameter "backend_weight0" cannot be changed`},
		{"log_connections", "on", `invalid Context, value for parameter "log_connections" cannot be changed`},
		{"client_idle_limit", "-5", `-5 is outside the valid range for parameter "client_idle_limit" (0 .. 2147483647)`},
		{"log_statement", "banana", `invalid value for parameter "log_statement": "banana"`},
		{"log_min_messages", "foo", "Available values: debug5"},
	} {
		if _, err := c.With(tt.name, tt.value); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("SET %s: %v", tt.name, err)
		}
	}
	if _, err := c.WithDefault("port", nil); err == nil {
		t.Error("port was reset")
	}
	want := "allow_sql_comments check_unlogged_table client_idle_limit client_idle_limit_in_recovery client_min_messages log_backend_messages " +
		"log_client_messages log_error_verbosity log_min_messages log_per_node_statement log_statement notice_per_node_statement"
	if got := strings.Join(SessionSettings(), " "); got != want {
		t.Errorf("session settings: %s", got)
	}
}

func TestIneffective(t *testing.T) {
	c, _ := load(t, "memqcache_method = shmem\nssl_dh_params_file = 'x'\nbackend_application_name1 = 'a' backend_application_name2 = 'b'")
	names := map[string]string{"memqcache_method": "not yet", "ssl_dh_params_file": "Go's TLS has no such groups", "backend_application_name": "no", "port": "no"}
	notices := c.Ineffective(names)
	if len(notices) != 2 || notices[0].Text != `parameter "backend_application_name1" has no effect` || notices[1].Line != 2 ||
		!strings.HasPrefix(notices[1].Detail, "Go's TLS has no such groups (file ") {
		t.Errorf("notices:\n%s", texts(notices))
	}
}
