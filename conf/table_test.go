package conf

import (
	"encoding/csv"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTable compares the table with the list of every parameter the original knows.
func TestTable(t *testing.T) {
	f, err := os.Open("../testdata/conf/parameters.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	head := lines[0]
	seen := 0
	for _, line := range lines[1:] {
		spec := map[string]string{}
		for i, h := range head {
			spec[h] = line[i]
		}
		name := spec["name"]
		if g := spec["group"]; g == "alias" || g == "removed" {
			checkOld(t, name)
			continue
		}
		seen++
		s := byName[name]
		if s == nil {
			t.Errorf("%s is not in the table", name)
			continue
		}
		context := map[Context]string{AtStart: "startup", AtReload: "reload", InSession: "reload,session"}[s.Context]
		if context != spec["context"] {
			t.Errorf("%s: context %s, want %s", name, context, spec["context"])
		}
		if strings.Trim(s.Default, " ") != strings.Trim(spec["default"], " ") { // log_line_prefix ends in a blank
			t.Errorf("%s: default %q, want %q", name, s.Default, spec["default"])
		}
		if s.Unit != spec["unit"] {
			t.Errorf("%s: unit %q, want %q", name, s.Unit, spec["unit"])
		}
		if spec["min"] != "" && !slices.Contains([]string{"log_rotation_age", "relcache_expire"}, name) { // these end where a time.Duration does
			checkLimit(t, name, "min", s.Min, spec["min"])
			checkLimit(t, name, "max", s.Max, spec["max"])
		}
		if spec["enum_values"] != "" {
			for word := range strings.SplitSeq(strings.Replace(spec["enum_values"], "debug(hidden)|", "", 1), "|") {
				if !slices.Contains(s.Values, word) {
					t.Errorf("%s: value %s is missing", name, word)
				}
			}
		}
		family := map[Family]string{Single: "no", PerBackend: "yes: backend", PerWatchdog: "yes: watchdog", PerHeartbeat: "yes: heartbeat", Override: "override"}[s.Family]
		if !strings.HasPrefix(spec["numbered"], family) {
			t.Errorf("%s: numbered %s, want %s", name, family, spec["numbered"])
		}
	}
	for i := range table {
		if table[i].Ours {
			seen++
		}
	}
	if seen != len(table) {
		t.Errorf("the table has %d entries, the list %d", len(table), seen)
	}
}

func checkLimit(t *testing.T, name, what, got, want string) {
	t.Helper()
	g, bad1 := parseInteger(name, got, unitless, -maxInt, maxInt64)
	w, bad2 := parseInteger(name, want, unitless, -maxInt, maxInt64)
	if name == "client_idle_limit_in_recovery" && what == "min" {
		w = -1
	}
	if bad1 != nil || bad2 != nil || g != w {
		t.Errorf("%s: %s %q, want %q", name, what, got, want)
	}
}

// checkOld: every name of earlier versions is understood or named as removed.
func checkOld(t *testing.T, name string) {
	t.Helper()
	switch name {
	case "wd_port(scalar)":
		name = "wd_port"
	case "other_pgpool", "backend_flag:ALWAYS_MASTER": // a group of PGPOOL SHOW; a flag
		return
	}
	if _, _, ok := findLegacy(name); ok {
		return
	}
	if _, _, ok := findLegacy(name + "0"); !ok {
		t.Errorf("old parameter %s is not known", name)
	}
}

// TestTableEntries: each entry has a field of its own, whose name follows from the parameter's.
func TestTableEntries(t *testing.T) {
	places := map[any]string{}
	c := Default()
	for i := range table {
		s := &table[i]
		for _, index := range s.indexes() {
			at := s.cell(c, index)
			p := reflect.ValueOf(at).Field(0).FieldByName("p")
			key := p.Pointer()
			if other, dup := places[key]; dup {
				t.Errorf("%s and %s share a place", s.title(index), other)
			}
			places[key] = s.title(index)
		}
		if s.Family == Single || s.Family == Override {
			field := reflect.ValueOf(c).Elem().FieldByName(camel(s.Name))
			if !field.IsValid() || field.Addr().Pointer() != reflect.ValueOf(s.cell(c, plain)).Field(0).FieldByName("p").Pointer() {
				t.Errorf("%s does not live in a field %s", s.Name, camel(s.Name))
			}
		}
		if len(s.Description) == 0 || len(s.Description) > 79 {
			t.Errorf("%s: description of %d bytes", s.Name, len(s.Description))
		}
		if s.Type == "time" {
			d := s.cell(c, max(plain, s.indexes()[0])).(durationCell)
			if d.max > int64(1<<63-1)/d.unit.base {
				t.Errorf("%s: its largest value does not fit a time.Duration", s.Name)
			}
		}
	}
}

func camel(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(name, "_") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

func TestDefaults(t *testing.T) {
	c := Default()
	for _, tt := range []struct {
		name      string
		got, want any
	}{
		{"port", c.Port, 9999},
		{"child_life_time", c.ChildLifeTime, 5 * time.Minute},
		{"log_rotation_age", c.LogRotationAge, 24 * time.Hour},
		{"log_rotation_size", c.LogRotationSize, int64(10 << 20)},
		{"log_file_mode", c.LogFileMode, 0o600},
		{"unix_socket_permissions", c.UnixSocketPermissions, 0o777},
		{"memqcache_total_size", c.MemqcacheTotalSize, int64(64 << 20)},
		{"connect_timeout", c.ConnectTimeout, 10 * time.Second},
		{"connect_timeout of a node", c.HealthCheck(5).ConnectTimeout, 10 * time.Second},
		{"log_line_prefix", c.LogLinePrefix, "%m: %a pid %p: "},
		{"backends", len(c.Backends), 0},
		{"track_table_mutation_ttl_factor", c.TrackTableMutationTtlFactor, 5.0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s is %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	if !slices.Equal(c.ResetQueryList, []string{"ABORT", "DISCARD ALL"}) {
		t.Errorf("reset_query_list is %q", c.ResetQueryList)
	}
}
