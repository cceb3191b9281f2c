package conf

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// original reads what the original, 4.3.5, printed for original.pgpool.conf.
func original(t *testing.T, name string) (items []string, values map[string]string) {
	t.Helper()
	src, err := os.ReadFile("../testdata/conf/" + name)
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSpace(string(src)), "\n") {
		item, value, _ := strings.Cut(line, "|")
		items = append(items, item)
		values[item] = value
	}
	return items, values
}

// differences maps what we print otherwise than 4.3.5, and why.
var differences = map[string]string{
	"wd_authkey":                   "masked",
	"wd_lifecheck_user":            "default changed after 4.3",
	"sr_check_user":                "default changed after 4.3",
	"health_check_user":            "default changed after 4.3",
	"health_check_user0":           "default changed after 4.3",
	"health_check_user2":           "default changed after 4.3",
	"failover_on_backend_shutdown": "default changed after 4.3",
	"socket_dir":                   "now unix_socket_directories",
	"logdir":                       "now work_dir",
	"delegate_IP":                  "now delegate_ip",
}

func TestShowAllAsTheOriginal(t *testing.T) {
	c, _, err := Load(Paths{Conf: "../testdata/conf/original.pgpool.conf"})
	if err != nil {
		t.Fatal(err)
	}
	_, rows, err := c.ShowRows("ALL")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range rows {
		got[r[0]] = r[1]
	}
	items, values := original(t, "original.show")
	for _, item := range items {
		if v, ok := got[item]; differences[item] == "" && (!ok || v != values[item]) {
			t.Errorf("%s is %q, the original prints %q", item, v, values[item])
		}
	}
	// The groups come first, in the original's order.
	for i, item := range items[:43] {
		if rows[i][0] != item {
			t.Errorf("row %d is %s, want %s", i, rows[i][0], item)
		}
	}
	if !slices.IsSortedFunc(rows[43:], func(a, b []string) int { return len(b[0]) - len(a[0]) }) {
		t.Error("the rest does not go from long names to short ones")
	}
}

func TestStatusAsTheOriginal(t *testing.T) {
	c, _, err := Load(Paths{Conf: "../testdata/conf/original.pgpool.conf"})
	if err != nil {
		t.Fatal(err)
	}
	since := time.Date(2026, 11, 22, 2, 6, 25, 0, time.UTC)
	rows := c.StatusRows(StatusExtra{
		BackendStatus: func(int) string { return "up" },
		StandbyDelay:  func(int) string { return "0" },
		CacheStart:    since,
		CacheHits:     3,
	})
	got := map[string]string{}
	var order []string
	for _, r := range rows {
		got[r.Item] = r.Value
		order = append(order, r.Item)
		if r.Description == "" || len(r.Description) > 79 {
			t.Errorf("%s: description %q", r.Item, r.Description)
		}
	}
	items, values := original(t, "original.status")
	values["backend_clustering_mode"] = "4"                         // raw since slony is gone
	values["primary_routing_query_pattern_list"] = `a\;b;c\'d;\\.e` // as written; 4.3.5 drops the backslash before the quote
	values["memqcache_cache_hits"] = "3"
	renamed := map[string]string{"socket_dir": "unix_socket_directories", "logdir": "work_dir", "delegate_IP": "delegate_ip"}
	last := -1
	for _, item := range items {
		if differences[item] != "" && renamed[item] == "" {
			continue
		}
		name := item
		if n, ok := renamed[item]; ok {
			name = n
		}
		if v, ok := got[name]; !ok || v != values[item] {
			t.Errorf("%s is %q, the original prints %q", name, v, values[item])
		}
		at := slices.Index(order, name)
		if at < last && name != "num_init_children" && name != "listen_backlog_multiplier" { // these moved later
			t.Errorf("%s comes too early", name)
		}
		last = at
	}
	if got["memqcache_stats_start_time"] != "Sun Nov 22 02:06:25 2026\n" {
		t.Errorf("start time is %q", got["memqcache_stats_start_time"])
	}
	if want := 157 + 8 + 6; len(rows) != want { // as in the newest version with one backend, one more backend, a watchdog node and a heartbeat
		t.Errorf("%d rows, want %d", len(rows), want)
	}
}

func TestShowRows(t *testing.T) {
	c, _ := load(t, "backend_hostname0 = 'h' backend_port0 = 5432 backend_weight0 = 2.5 backend_port2 = 5433 backend_hostname2 = 'h' "+
		"health_check_period2 = 5min recovery_password = 'secret' health_check_password1 = 'secret' wd_authkey = 'secret' log_min_messages = debug2")
	for _, tt := range []struct{ name, want string }{
		{"port", "port: 9999"},
		{"child_life_time", "child_life_time: 5min"},
		{"logdir", "logdir: /tmp"},
		{"delegate_ip", "delegate_ip: "},
		{"fail_over_on_backend_error", "fail_over_on_backend_error: on"},
		{"backend_hostname0", "backend_hostname0: h"},
		{"backend_weight0", "backend_weight0: 2"},
		{"backend_port1", "backend_port1: 0"},
		{"backend_weight", "item value description: backend_weight0=2 backend_weight2=0"},
		{"health_check_period", "item value description: health_check_period=0 health_check_period0=0 health_check_period2=300"},
		{"health_check_period2", "health_check_period2: 300"},
		{"health_check_password1", "health_check_password1: *****"},
		{"recovery_password", "recovery_password: *****"},
		{"pool_passwd", "pool_passwd: *****"},
		{"wd_authkey", "wd_authkey: *****"},
		{"log_min_messages", "log_min_messages: debug"},
		{"log_file_mode", "log_file_mode: 384"},
		{"unix_socket_permissions", "unix_socket_permissions: 0777"},
		{"track_table_mutation_ttl_factor", "track_table_mutation_ttl_factor: 5"},
		{"watchdog", "item value description:"},
		{"other_pgpool", "item value description:"},
		{"nosuch", `: error config variable "nosuch" not found`},
		{"PORT", `: error config variable "PORT" not found`},
		{"backend_hostname200", `backend_hostname200: error invalid index 200 for configuration parameter "backend_hostname"; allowed index is between 0 and 127`},
		{"backend_hostnamex", `: error invalid index value for parameter "backend_hostnamex" ; index part contains the invalid non digit character`},
	} {
		cols, rows, err := c.ShowRows(tt.name)
		got := strings.Join(cols, " ") + ":"
		for _, r := range rows {
			got += " " + strings.Join(r[:min(2, len(r))], "=")
		}
		if err != nil {
			got += " error " + err.Error()
		}
		if got != tt.want {
			t.Errorf("SHOW %s\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
	if all := fmt.Sprint(c.ShowRows("all")); strings.Contains(all, "secret") {
		t.Error("a secret is shown")
	}
	if all := fmt.Sprint(c.StatusRows(StatusExtra{BackendStatus: func(int) string { return "" }, StandbyDelay: func(int) string { return "" }})); strings.Contains(all, "secret") {
		t.Error("a secret is shown in SHOW POOL_STATUS")
	}
}

func TestSample(t *testing.T) {
	var b strings.Builder
	if err := Sample(&b); err != nil {
		t.Fatal(err)
	}
	sample := b.String()
	if c, notices := load(t, sample); len(notices) != 0 || c.Explicit("port") {
		t.Errorf("notices:\n%s", texts(notices))
	}
	var on strings.Builder
	for line := range strings.SplitSeq(sample, "\n") {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") && strings.Contains(line, " = ") {
			line = line[1:]
		}
		on.WriteString(line + "\n")
	}
	c, notices := load(t, on.String())
	if len(notices) != 0 {
		t.Errorf("notices:\n%s", texts(notices))
	}
	none := Default()
	for _, s := range Table() {
		if !c.Explicit(s.Name) {
			t.Errorf("%s is not in the sample", s.Name)
		}
		if s.Family == Single && s.Example == "" && s.cell(c, plain).raw() != s.cell(none, plain).raw() {
			t.Errorf("%s is %s in the sample, its default is %s", s.Name, s.cell(c, plain).raw(), s.cell(none, plain).raw())
		}
	}
}
