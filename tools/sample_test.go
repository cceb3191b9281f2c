package tools

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgpool-go/conf"
	"pgpool-go/tools/golden"
)

const sampleFile = "../share/pgpool.conf.sample"

// examples stand in the sample where a setting's default is that it is not set.
var examples = map[string]string{
	"backend_hostname":         "'localhost'",
	"backend_port":             "5432",
	"backend_weight":           "1",
	"backend_data_directory":   "'/var/lib/postgresql/15/main'",
	"backend_application_name": "'server0'",
	"hostname":                 "'pgpool-1'",
	"pgpool_port":              "9999",
	"wd_port":                  "9000",
	"wd_listen_port":           "9000",
	"heartbeat_hostname":       "'pgpool-1'",
	"heartbeat_port":           "9694",
}

// The sample file says what conf's table says. After a change of the table:
// go test ./tools -run Sample -update
func TestSampleFileIsTheTable(t *testing.T) {
	want := sample()
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(sampleFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(sampleFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the table of settings says; rewrite it with go test ./tools -run Sample -update\n%s",
			sampleFile, golden.Diff(string(got), want))
	}
}

// What stands commented out is the default: taking the marks away must change
// nothing, but for the settings with examples.
func TestSampleFileShowsTheDefaults(t *testing.T) {
	text, err := os.ReadFile(sampleFile)
	if err != nil {
		t.Fatal(err)
	}
	var live []string
	for line := range strings.Lines(string(text)) {
		name, _, set := strings.Cut(strings.TrimPrefix(line, "#"), " = ")
		if _, example := examples[strings.TrimRight(name, "0")]; set && strings.HasPrefix(line, "#") && !strings.Contains(name, " ") && !example {
			live = append(live, line[1:])
		}
	}
	if want := len(conf.Table()) - len(examples); len(live) != want {
		t.Errorf("%d settings are in the sample, %d in the table", len(live), want)
	}
	load := func(text string) *conf.Config {
		t.Helper()
		dir := t.TempDir()
		path := filepath.Join(dir, "pgpool.conf")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, notices, err := conf.Load(conf.Paths{Conf: path})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range notices {
			t.Errorf("%+v", n)
		}
		return c
	}
	set, unset := load(strings.Join(live, "")), load("")
	for _, s := range conf.Table() {
		if s.Family != conf.Single && s.Family != conf.Override {
			continue
		}
		if got, want := s.Show(set, -1), s.Show(unset, -1); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the sample has %q, the default is %q", s.Name, got, want)
		}
	}
}

// sample is the sample file's text.
func sample() string {
	var b strings.Builder
	b.WriteString(`# pgpool.conf: the configuration of pgpool
#
# A line is "name = value". Text goes into single quotes; times may have a unit
# (us, ms, s, min, h, d), sizes too (B, kB, MB, GB, TB). What follows a # is a
# comment. Settings that are commented out show their default.
#
# "restart" means that a change needs a restart, "reload" that pgpool reload or
# SIGHUP is enough, "session" that PGPOOL SET also changes it for one session.
`)
	group := ""
	for _, s := range conf.Table() {
		if s.Group != group {
			group = s.Group
			fmt.Fprintf(&b, "\n#%s\n# %s\n#%[1]s\n", strings.Repeat("-", 78), strings.ToUpper(strings.ReplaceAll(group, "-", " ")))
		}
		name, more := s.Name, ""
		switch s.Family {
		case conf.PerBackend, conf.PerWatchdog, conf.PerHeartbeat:
			name += "0"
		case conf.Override:
			more = fmt.Sprintf("; %s0 for node 0 alone", name)
		}
		fmt.Fprintf(&b, "\n# %s\n# (%s%s%s)\n#%s = %s\n", s.Description, allowed(s), changes(s.Context), more, name, written(s))
	}
	return b.String()
}

// written is a setting's default, or its example, as it stands in a file.
func written(s conf.Setting) string {
	if example, ok := examples[s.Name]; ok {
		return example
	}
	switch s.Type {
	case "bool", "integer", "number":
		return s.Default
	case "time", "size":
		if s.Unit == "B" || s.Default == "0" {
			return s.Default
		}
		return s.Default + s.Unit
	}
	return "'" + s.Default + "'"
}

func allowed(s conf.Setting) string {
	switch {
	case len(s.Values) > 0 && s.Type != "bool":
		return strings.Join(s.Values, ", ") + "; "
	case s.Type == "bool":
		return "on or off; "
	case s.Max != "" && !slices.Contains([]string{"2147483647", "9223372036854775807"}, s.Max):
		return fmt.Sprintf("%s to %s%s; ", s.Min, s.Max, s.Unit)
	case s.Separator == ";":
		return "list with ; between; "
	case s.Separator != "":
		return "list with , between; "
	}
	return ""
}

func changes(c conf.Context) string {
	switch c {
	case conf.AtStart:
		return "restart"
	case conf.AtReload:
		return "reload"
	}
	return "reload or session"
}
