package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheck: findings as compilers print them or as JSON, and an exit code.
func TestCheck(t *testing.T) {
	p := place{dir: t.TempDir()}
	write := func(lines ...string) {
		t.Helper()
		for name, text := range map[string]string{"p.conf": strings.Join(lines, "\n") + "\n", "pcp.conf": ""} {
			if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	sound := []string{"backend_port0 = 5432", "backend_hostname0 = 'a'", "backend_weight0 = 1", "log_destination = 'syslog'"}
	args := []string{"check", "-f", "p.conf", "-F", "pcp.conf"}

	write(sound...)
	same(t, p.ours(t, "pgpool", args...), said{stdout: "0 errors, 0 warnings\n"})

	write(append(sound, "nmu_init_children = 3", "port = banana")...)
	got := p.ours(t, "pgpool", args...)
	got.stdout = strings.ReplaceAll(got.stdout, p.dir+"/", "")
	same(t, got, said{exit: 1, stdout: `p.conf:5: warning: unrecognized configuration parameter "nmu_init_children"
    mend: Did you mean "num_init_children"? The setting is ignored.
p.conf:6: error: invalid value for parameter "port": "banana"
1 error, 1 warning
`})

	got = p.ours(t, "pgpool", append(args, "--json")...)
	var report struct {
		Errors, Warnings int
		Findings         []map[string]any
	}
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || got.exit != 1 || got.stderr != "" {
		t.Fatalf("%v: %+v", err, got)
	}
	if f := report.Findings; report.Errors != 1 || report.Warnings != 1 || len(f) != 2 || f[0]["kind"] != "unknown" || f[0]["line"] != 5.0 || f[1]["setting"] != "port" {
		t.Errorf("%+v", report)
	}

	write("port = 'unterminated")
	if got := p.ours(t, "pgpool", args...); got.exit != 1 || !strings.Contains(got.stdout, "p.conf:1: error: ") {
		t.Errorf("%+v", got)
	}
	if got := p.ours(t, "pgpool", "--live", "-n"); got.exit != exitUsage {
		t.Errorf("--live without check: %+v", got)
	}
}
