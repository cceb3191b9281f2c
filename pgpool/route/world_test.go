package route

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/cluster"
)

// The world of the tests: the schema of testdata/routing/schema.sql as facts,
// and PostgreSQL's own functions as far as the cases use them.

var volatileNames = names(`
	clock_timestamp random setseed nextval setval currval lastval pg_sleep timeofday gen_random_uuid
	pg_advisory_lock pg_advisory_unlock pg_try_advisory_lock_shared pg_advisory_xact_lock pg_advisory_unlock_all pg_try_advisory_lock
	lo_create lo_creat lo_from_bytea lo_get lo_put lo_unlink lo_import lo_export loread lowrite lo_open
	pg_notify set_config pg_stat_reset pg_cancel_backend pg_terminate_backend pg_reload_conf pg_export_snapshot pg_switch_wal
	pg_current_wal_lsn pg_is_in_recovery pg_relation_size pg_stat_file pg_ls_dir pg_read_file pg_logical_slot_get_changes
	pg_wal_replay_pause pg_wal_replay_resume pg_stat_clear_snapshot query_to_xml pg_logical_emit_message pg_create_physical_replication_slot
	f_vol f_writes f_over set_thing f_vol2 f_srf opwrite f_imm`)

// f_imm is volatile in app only.
var stableIn = map[parser.Name]bool{{Schema: "public", Name: "f_imm"}: true}

var unloggedNames = names("ut ut2 ut9 v_unl")

var viewBase = map[string]string{"v1": "t1", "v_unl": "ut", "mv1": ""}

func names(list string) map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(list) {
		m[n] = true
	}
	return m
}

// factsOf gives the facts that catalog would find.
func factsOf(v *parser.Verdict) *Facts {
	f := &Facts{}
	for _, n := range v.Functions {
		if f.Volatile.Name == "" && (volatileNames[n.Name] && !stableIn[n] || OnPrimaryOnly(n)) {
			f.Volatile = n
		}
	}
	for _, n := range v.Operators {
		if n == (parser.Name{Schema: "app", Name: "<!>"}) {
			f.Volatile = n
		}
	}
	for _, n := range v.Relations {
		switch {
		case n.Schema == "pg_catalog" || n.Schema == "" && strings.HasPrefix(n.Name, "pg_"):
			f.Catalog = n
		case unloggedNames[n.Name]:
			f.Unlogged = n
		case n.Name == "v_vol":
			f.Volatile = n
		}
		if b := viewBase[n.Name]; b != "" {
			f.Base = append(f.Base, parser.Name{Name: b})
		}
	}
	return f
}

var parse = sync.OnceValue(func() *parser.Parser { return parser.New(parser.Options{}) })

// rulesFor reads overrides as pgpool.conf has them.
func rulesFor(t testing.TB, overrides map[string]string) (*Rules, *conf.Config) {
	t.Helper()
	var b strings.Builder
	b.WriteString("backend_hostname0 = 'a'\nbackend_port0 = 5432\nbackend_hostname1 = 'b'\nbackend_port1 = 5432\nbackend_hostname2 = 'c'\nbackend_port2 = 5432\n")
	settings := map[string]string{"backend_weight0": "0", "backend_weight1": "1", "backend_weight2": "1", "statement_level_load_balance": "on"}
	for k, v := range overrides {
		settings[k] = v
	}
	for k, v := range settings {
		b.WriteString(k + " = '" + strings.ReplaceAll(v, "'", "''") + "'\n")
	}
	file := filepath.Join(t.TempDir(), "pgpool.conf")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := conf.Load(conf.Paths{Conf: file})
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	return NewRules(c), c
}

// snapshotFor is a healthy primary with two standbys, weighted as configured.
func snapshotFor(c *conf.Config) *cluster.Snapshot {
	s := &cluster.Snapshot{Epoch: 1, Mode: c.BackendClusteringMode}
	for i, b := range c.Backends {
		n := cluster.Node{ID: i, Host: b.Hostname, Weight: b.Weight, Status: cluster.Up, Role: cluster.Standby, ReplicationState: "streaming"}
		if i == 0 {
			n.Role, n.ReplicationState = cluster.Primary, ""
		}
		s.Nodes = append(s.Nodes, n)
	}
	return s
}
