package pgpool_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgpool-go/pcp"
	"pgpool-go/tools/testcluster"
)

// script puts a program into the primary's data directory, where the functions
// of online recovery run it.
func (f *front) script(name, text string) {
	f.t.Helper()
	path, err := f.WriteFile(name, text, 0o755)
	if err == nil {
		err = os.Rename(path, filepath.Join(f.Nodes[0].DataDir, name))
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// TestPcpRecoveryNode: a standby whose data is ruined is made anew by scripts on
// the primary, with the original's arguments, while clients go on.
func TestPcpRecoveryNode(t *testing.T) {
	f := usual(t, "recovery_user = 'postgres'", "recovery_1st_stage_command = 'rebuild'", "recovery_timeout = 1", "log_min_messages = log")
	f.healthy()
	p := f.pcpTools()
	node, primary := f.Nodes[1], f.Nodes[0]
	program := func(name string) string {
		path, err := f.Program(name)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	fails := func(message, detail string) {
		t.Helper()
		want := "ERROR:  " + message + "\n"
		if detail != "" {
			want += "DETAIL:  " + detail + "\n"
		}
		if s := p.run("recovery_node 1"); s.stdout != "" || s.stderr != want+"\n" {
			t.Errorf("%s%s\nwant %s", s.stdout, s.stderr, want)
		}
	}
	client := f.plain()
	client.must("create table kept (i int); insert into kept values (1)")
	p.done("detach_node 1")
	f.Must(node.Kill())
	if err := os.RemoveAll(filepath.Join(node.DataDir, "base")); err != nil {
		t.Fatal(err)
	}

	t.Run("without the functions", func(t *testing.T) {
		fails(`executing recovery, execution of command failed at "1st stage"`, `command:"rebuild"`)
	})
	if _, err := primary.ExecIn("template1", "create extension pgpool_recovery"); err != nil {
		t.Fatal(err)
	}
	t.Run("without the script", func(t *testing.T) {
		fails(`executing recovery, execution of command failed at "1st stage"`, `command:"rebuild"`)
	})
	f.script("rebuild", "#!/bin/bash\nexit 0\n")
	t.Run("without the script that starts", func(t *testing.T) {
		fails(`executing remote start failed with error: "ERROR:  pgpool_remote_start failed"`, "")
	})
	f.script("pgpool_remote_start", "#!/bin/bash\nexit 0\n")
	t.Run("that does not start", func(t *testing.T) {
		fails("recovery is checking if postmaster is started", `postmaster on hostname:"127.0.0.1" database:"postgres" user:"postgres" failed to start in 1 second`)
	})

	arguments := filepath.Join(primary.DataDir, "arguments")
	f.script("rebuild", fmt.Sprintf(`#!/bin/bash
set -eu
printf '%%s\n' "$@" >'%[1]s.new'
mv '%[1]s.new' '%[1]s'
for ((i = 0; i < 300; i++)); do [ ! -e '%[1]s.go' ] || break; sleep 0.1; done
keep=$(cat "$3/node.conf")
rm -rf "$3"
'%[2]s' -h "$7" -p "$4" -U postgres -D "$3" -X stream -c fast --no-sync
echo "$keep" >"$3/node.conf"
echo "primary_conninfo = 'host=$7 port=$4 user=postgres application_name=node$5'" >>"$3/postgresql.auto.conf"
touch "$3/standby.signal"
`, arguments, program("pg_basebackup")))
	f.script("pgpool_remote_start", fmt.Sprintf("#!/bin/bash\nexec '%s' -D \"$2\" -l \"$2/started.log\" -w start >/dev/null\n", program("pg_ctl")))
	f.reload("recovery_timeout = 30")

	t.Run("to the end", func(t *testing.T) {
		recovered := make(chan error, 1)
		admin := f.client()
		go func() { recovered <- admin.RecoverNode(1) }()
		eventually(t, "the script runs", func() bool { _, err := os.Stat(arguments); return err == nil })
		second, ok := errors.AsType[*pcp.Error](f.client().RecoverNode(1))
		if !ok || second.Message != "process recovery request failed" || second.Detail != "pgpool-II is already processing another recovery request." {
			t.Errorf("a second one meanwhile: %v", second)
		}
		client.must("insert into kept values (2)")
		if err := os.WriteFile(arguments+".go", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := <-recovered; err != nil {
			t.Fatal(err)
		}
	})
	text, err := os.ReadFile(arguments)
	want := fmt.Sprintf("%s\n%s\n%s\n%d\n%d\n%d\n%s\n", primary.DataDir, node.Host, node.DataDir, primary.Port, node.ID, node.Port, primary.Host)
	if err != nil || string(text) != want {
		t.Errorf("arguments %q, want %q (%v)", text, want, err)
	}
	eventually(t, "the node streams and is read", func() bool {
		return strings.Contains(p.run("node_info 1").stdout, " streaming ") && f.reads(client, 30)[1] > 0
	})
	f.Must(f.WaitCatchup())
	if got := f.MustExec(1, "select string_agg(i::text, ',' order by i) from kept"); got != "1,2" {
		t.Errorf("the node holds %q", got)
	}
	for _, line := range []string{`pcp_child pid \d+: LOG:  starting recovering node 1\n`, `DETAIL:  starting recovery command: "SELECT pgpool_recovery\('rebuild', `,
		`LOG:  node recovery, 1st stage is done\n`, `LOG:  node recovery, node: 1 restarted\n`, `LOG:  recovery done\n`} {
		if !regexp.MustCompile(line).MatchString(f.Log.String()) {
			t.Errorf("not logged: %s", line)
		}
	}
	fails("node recovery failed, node id: 1 is alive", "")
	f.Must(node.Stop(testcluster.Fast)) // it is no child of the test's
}
