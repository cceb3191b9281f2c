package pgpool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
	"pgpool-go/tools/testcluster"
)

// check asks for the findings about a configuration of these lines.
func check(t *testing.T, c *testcluster.Cluster, live bool, lines ...string) []pgpool.Finding {
	t.Helper()
	dir := t.TempDir()
	own := []string{"listen_addresses = '127.0.0.1'", "unix_socket_directories = '" + dir + "'", "pcp_socket_dir = '" + dir + "'",
		"work_dir = '" + dir + "'", "pid_file_name = 'pgpool.pid'", "log_destination = 'syslog'", "num_init_children = 10", "max_pool = 2",
		"delay_threshold = 1000000", "health_check_timeout = 5"}
	for name, text := range map[string]string{"pgpool.conf": strings.Join(append(own, lines...), "\n") + "\n", "pcp.conf": "", "pool_passwd": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := pgpool.Check(t.Context(), conf.Paths{Conf: filepath.Join(dir, "pgpool.conf"), Pcp: filepath.Join(dir, "pcp.conf"),
		Hba: filepath.Join(dir, "pool_hba.conf"), Key: filepath.Join(dir, "key")}, live)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestCheck: the servers are asked, and what is wrong with each is found.
func TestCheck(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1, Conf: map[string]string{"wal_keep_size": "64MB"}})
	sound := backends(c, 1, 1)
	if found := check(t, c, true, sound...); len(found) > 0 {
		t.Errorf("of a sound cluster: %+v", found)
	}
	c.MustExec(0, "create role nobody login")
	c.MustExec(0, "select pg_create_physical_replication_slot('lost', true)")
	c.Must(c.WaitCatchup())
	other := testcluster.New(t, testcluster.Options{OwnIdentity: true})
	for _, tt := range []struct {
		lines, level, setting, text string
		node                        int
	}{
		{"", "info", "", `nobody reads the replication slot "lost"`, 0},
		{"sr_check_user = 'nobody'", "warning", "sr_check_user", `sr_check_user "nobody" may not see how replication goes`, 1},
		{"sr_check_user = 'nosuch'", "error", "sr_check_user", `sr_check_user "nosuch" is not let in to database "postgres"`, 0},
		{"health_check_database = 'nosuch'", "error", "health_check_user", `health_check_user "postgres" is not let in to database "nosuch"`, 1},
		{"num_init_children = 5000", "error", "num_init_children", "5000 sessions may want a connection each, ", 0},
		{"max_pool = 5000", "warning", "max_pool", "the pools may open 50002 connections, ", 1},
		{"backend_application_name1 = 'other'", "warning", "backend_application_name1", `no standby is called "other" on the primary`, 1},
		{"backend_flag1 = 'ALWAYS_PRIMARY'", "error", "backend_flag1", "is ALWAYS_PRIMARY and a standby", 1},
		{fmt.Sprintf("backend_port1 = %d", freePort(t)), "error", "backend_hostname1", "no answer from ", 1},
		{fmt.Sprintf("backend_port1 = %d", other.Nodes[0].Port), "error", "", "is a primary, and so is node 0", 1},
		{fmt.Sprintf("backend_port1 = %d", other.Nodes[0].Port), "error", "backend_port1", "is not of the same cluster as node 0", 1},
		{"recovery_1st_stage_command = 'nosuch.sh'\nrecovery_user = 'postgres'\nrecovery_database = 'postgres'", "error", "recovery_database",
			`the functions of online recovery are missing from database "postgres"`, 0},
		{"recovery_1st_stage_command = 'nosuch.sh'\nrecovery_user = 'postgres'", "error", "recovery_1st_stage_command", "nosuch.sh is missing from its data directory", 0},
		{"recovery_1st_stage_command = 'nosuch.sh'\nrecovery_user = 'nobody'", "error", "recovery_user", `recovery_user "nobody" is no superuser`, 0},
	} {
		found := check(t, c, true, append(slices.Clone(sound), tt.lines)...)
		want := fmt.Sprintf("node %d: %s", tt.node, tt.text)
		i := slices.IndexFunc(found, func(f pgpool.Finding) bool { return strings.HasPrefix(f.Text, want) })
		if i < 0 {
			t.Errorf("%s: %q is missing in %+v", tt.lines, want, found)
			continue
		}
		if f := found[i]; f.Level != tt.level || f.Setting != tt.setting || f.Node == nil || *f.Node != tt.node || f.Mend == "" || tt.setting != "" && f.Line == 0 {
			t.Errorf("%s: %+v", tt.lines, f)
		}
	}
}

// TestCheckFiles: what the configuration names on this host.
func TestCheckFiles(t *testing.T) {
	script := filepath.Join(t.TempDir(), "failover.sh")
	if err := os.WriteFile(script, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "pool_passwd")
	if err := os.WriteFile(open, []byte("no colon\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	found := check(t, nil, true, "failover_command = '"+script+" %m'", "follow_primary_command = '/nosuch/follow.sh %d'", "work_dir = '/nosuch'",
		"pool_passwd = '"+open+"'", "enable_pool_hba = on", "backend_clustering_mode = 'slony'", "nosuch = 1")
	for _, want := range []string{"failover_command cannot be run", "follow_primary_command cannot be run", "work_dir: stat /nosuch: no such file or directory",
		"others may read or change a file that holds passwords", `invalid line 1 in pool_passwd file "` + open + `"`, "no node is configured", `unrecognized configuration parameter "nosuch"`} {
		if !slices.ContainsFunc(found, func(f pgpool.Finding) bool { return f.Text == want }) {
			t.Errorf("%q is missing in %+v", want, found)
		}
	}
	if !slices.ContainsFunc(found, func(f pgpool.Finding) bool {
		return f.Setting == "enable_pool_hba" || strings.HasSuffix(f.File, "pool_hba.conf")
	}) {
		t.Errorf("nothing of pool_hba.conf: %+v", found)
	}
}
