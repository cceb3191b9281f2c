package conf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// examine reads text as a pgpool.conf.
func examine(t *testing.T, text string) (*Config, []Notice) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pgpool.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, notices, err := Examine(Paths{Conf: file, Key: filepath.Join(filepath.Dir(file), "key")})
	if err != nil {
		t.Fatal(err)
	}
	return c, notices
}

func TestExamine(t *testing.T) {
	c, notices := examine(t, `port = banana
nmu_init_children = 5
black_function_list = 'f'
pcp_timeout = 10
max_pool = 3
max_pool = 4
num_init_children = 0
backend_port0 = 5432
`)
	if c == nil || c.Port != 9999 || c.MaxPool != 4 || len(c.Backends) != 1 {
		t.Errorf("not read to the end: %+v", c)
	}
	for _, want := range []Notice{
		{Level: LevelError, Kind: KindInvalid, Setting: "port", Line: 1},
		{Level: LevelWarning, Kind: KindUnknown, Setting: "nmu_init_children", Line: 2, Hint: `Did you mean "num_init_children"? The setting is ignored.`},
		{Level: LevelWarning, Kind: KindRenamed, Setting: "black_function_list", Line: 3, Hint: "use write_function_list instead"},
		{Level: LevelWarning, Kind: KindRemoved, Setting: "pcp_timeout", Line: 4, Hint: "Remove the line."},
		{Level: LevelInfo, Kind: KindRepeated, Setting: "max_pool", Line: 5, Hint: "Remove one of the lines."},
		{Level: LevelError, Kind: KindInvalid, Setting: "num_init_children", Line: 7},
	} {
		if !slices.ContainsFunc(notices, func(n Notice) bool {
			return n.Level == want.Level && n.Kind == want.Kind && n.Setting == want.Setting && n.Line == want.Line && (want.Hint == "" || n.Hint == want.Hint) &&
				!strings.Contains(n.Reason(), ", line "+string(rune('0'+n.Line))+")")
		}) {
			t.Errorf("%+v is missing in %+v", want, notices)
		}
	}

	c, notices = examine(t, "port = 'unterminated\n")
	if c != nil || len(notices) != 1 || notices[0].Level != LevelError {
		t.Errorf("a file that is none: %v, %+v", c, notices)
	}
}

// TestAdvice: each rule speaks where it should, of the setting that is to be
// changed, and a file without faults hears nothing.
func TestAdvice(t *testing.T) {
	const sound = `backend_hostname0 = 'a'
backend_port0 = 5432
backend_weight0 = 1
backend_weight1 = 1
backend_hostname1 = 'b'
backend_port1 = 5432
backend_clustering_mode = streaming_replication
sr_check_user = 'u'
sr_check_period = 10
delay_threshold_by_time = 10s
health_check_period = 10
health_check_user = 'u'
health_check_max_retries = 3
log_destination = 'syslog'
`
	c, notices := examine(t, sound)
	if advice := c.Advice(); len(notices)+len(advice) > 0 {
		t.Fatalf("of a sound file: %+v %+v", notices, advice)
	}
	for _, tt := range []struct{ lines, setting, text string }{
		{"backend_hostname1 = 'a'", "backend_port1", "nodes 0 and 1 are the same server"},
		{"backend_hostname0 = 'localhost'\nbackend_port0 = 9999", "backend_port0", "node 0 is pgpool itself"},
		{"backend_flag0 = 'ALWAYS_PRIMARY'\nbackend_flag1 = 'ALWAYS_PRIMARY'", "backend_flag1", "nodes 0 and 1 are both ALWAYS_PRIMARY"},
		{"backend_flag0 = 'ALWAYS_PRIMARY'\nfailover_command = 'x %m'", "backend_flag0", "node 0 is ALWAYS_PRIMARY and failover_command is set"},
		{"pcp_port = 9999", "pcp_port", "port and pcp_port are the same"},
		{"listen_addresses = ''\nunix_socket_directories = ''", "listen_addresses", "clients cannot connect"},
		{"pcp_listen_addresses = '*'", "pcp_listen_addresses", "the administrative port is open to other hosts"},
		{"listen_addresses = '*'\nallow_clear_text_frontend_auth = on", "allow_clear_text_frontend_auth", "passwords cross the network in clear text"},
		{"enable_pool_hba = on\npool_passwd = ''", "pool_passwd", "enable_pool_hba is on and there is no pool_passwd"},
		{"sr_check_password = 'AES7oKybeNIY0jebC5DUrqxzA=='", "sr_check_password", "sr_check_password cannot be decrypted"},
		{"health_check_password = 'SCRAM-SHA-256$4096:x'", "health_check_password", "health_check_password is a SCRAM verifier"},
		{"load_balance_mode = off\nprefer_lower_delay_standby = on", "prefer_lower_delay_standby", "prefer_lower_delay_standby has no effect"},
		{"backend_weight0 = 0\nbackend_weight1 = 0", "backend_weight0", "load_balance_mode is on and no node has a weight"},
		{"disable_load_balance_on_write = off", "disable_load_balance_on_write", "a session may not see what it has written"},
		{"check_temp_table = none", "check_temp_table", "temporary tables are not recognised"},
		{"check_unlogged_table = off", "check_unlogged_table", "unlogged tables are not recognised"},
		{"sr_check_period = 0", "sr_check_period", "a delay threshold is set and delays are not measured"},
		{"delay_threshold = 1000", "delay_threshold", "delay_threshold has no effect"},
		{"delay_threshold_by_time = 0", "delay_threshold", "reads may be served by a standby that is far behind"},
		{"health_check_period = 0\nfailover_command = 'x %m'", "failover_command", "failover_command has no effect"},
		{"health_check_max_retries = 0\nfailover_command = 'x %m'", "health_check_max_retries", "one failed health check is a failover"},
		{"health_check_user = ''", "health_check_user", "health_check_period is set without a user to check with"},
		{"failover_command = 'x %m'\nfailover_promote = on", "failover_promote", "failover_promote has no effect"},
		{"failover_command = 'x'", "failover_command", "failover_command is not told which node it is about"},
		{"failover_command = 'x %m %q'", "failover_command", "failover_command has a placeholder that does not exist: %q"},
		{"failover_command = 'x %m %'", "failover_command", "failover_command ends in the middle of a placeholder"},
		{"recovery_1st_stage_command = '/x'\nrecovery_user = 'u'\nbackend_data_directory0 = '/a'\nbackend_data_directory1 = '/b'", "recovery_1st_stage_command", "recovery_1st_stage_command is a path"},
		{"delegate_ip = '192.0.2.1'", "delegate_ip", "delegate_ip has no effect"},
		{"log_destination = 'stderr'", "log_destination", "without -n the log is lost"},
	} {
		c, _ := examine(t, sound+tt.lines+"\n")
		advice := c.Advice()
		i := slices.IndexFunc(advice, func(n Notice) bool { return n.Text == tt.text })
		if i < 0 {
			t.Errorf("%s: %q is missing in %+v", tt.lines, tt.text, advice)
			continue
		}
		n := advice[i]
		if n.Setting != tt.setting || n.Hint == "" || c.Explicit(n.Setting) && n.Line == 0 {
			t.Errorf("%s: %+v", tt.lines, n)
		}
	}
}
