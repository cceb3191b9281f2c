package tools

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pgpool-go/tools/testcluster"
)

// The sample scripts, with nothing changed but the place of PostgreSQL's
// programs and an ssh that stays on this machine.
func TestSampleScripts(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	bin, err := testcluster.BinDir("")
	c.Must(err)
	c.MustExec(0, "create role repl login replication; create table t (i int)")
	c.Must(c.WaitCatchup())
	c.Must(os.Mkdir(filepath.Join(c.Dir, "bin"), 0o755))
	fake := func(name, text string) {
		t.Helper()
		_, err := c.WriteFile("bin/"+name, "#!/bin/bash\n"+text, 0o755)
		c.Must(err)
	}
	fake("ssh", "while [[ $1 == -* ]]; do [ \"$1\" != -o ] || shift; shift; done\n[ \"$1\" = postgres@127.0.0.1 ] || exit 255\nshift\nexec bash -c \"$*\"\n")
	fake("pcp_attach_node", "echo attached \"${@: -1}\"\n")
	run := func(script string, args ...any) string {
		t.Helper()
		text, err := os.ReadFile("../share/scripts/" + script + ".sample")
		c.Must(err)
		path, err := c.WriteFile("bin/"+script, strings.ReplaceAll(string(text), "/usr/lib/postgresql/15/bin", bin), 0o755)
		c.Must(err)
		words := make([]string, len(args))
		for i, a := range args {
			switch a := a.(type) {
			case int:
				words[i] = strconv.Itoa(a)
			case string:
				words[i] = a
			}
		}
		cmd, err := testcluster.Command(t.Context(), path, words...)
		c.Must(err)
		cmd.Env = append(cmd.Env, "PATH="+filepath.Join(c.Dir, "bin")+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	n := c.Nodes

	c.Must(n[2].Stop(testcluster.Fast))
	run("failover.sh", 2, n[2].Host, n[2].Port, n[2].DataDir, 0, n[0].Host, 0, 0, n[0].Port, n[0].DataDir, n[0].Host, n[0].Port)
	if got := c.MustExec(0, "select string_agg(slot_name, ',') from pg_replication_slots"); got != "node1" {
		t.Errorf("slots after a standby failed: %s", got)
	}
	c.Must(n[2].Follow(n[0]))

	c.Must(n[0].Kill())
	run("failover.sh", 0, n[0].Host, n[0].Port, n[0].DataDir, 1, n[1].Host, 0, 0, n[1].Port, n[1].DataDir, n[0].Host, n[0].Port)
	if primary, err := c.Primary(); err != nil || primary != n[1] {
		t.Fatalf("primary is %v, %v", primary, err)
	}
	follow := func(node int) string {
		t.Helper()
		return run("follow_primary.sh", node, n[node].Host, n[node].Port, n[node].DataDir, 1, n[1].Host, 0, 0, n[1].Port, n[1].DataDir)
	}
	if out := follow(2); !strings.Contains(out, "attached 2") {
		t.Errorf("not attached:\n%s", out)
	}
	if out := follow(0); !strings.Contains(out, "is left alone") {
		t.Errorf("a node that is down:\n%s", out)
	}
	c.MustExec(1, "insert into t values (1)")
	c.Must(c.WaitCatchup())
	if got := c.MustExec(2, "select i from t"); got != "1" {
		t.Errorf("the standby has %q", got)
	}

	run("recovery_1st_stage", n[1].DataDir, n[0].Host, n[0].DataDir, n[1].Port, 0, n[0].Port, n[1].Host)
	run("pgpool_remote_start", n[0].Host, n[0].DataDir)
	c.Must(c.WaitCatchup())
	if got := c.MustExec(0, "select i from t"); got != "1" {
		t.Errorf("the recovered node has %q", got)
	}
}
