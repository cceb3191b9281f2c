package pgpool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgpool-go/tools/testcluster"
)

// TestRecoveryHoldsClients: during the second stage what clients want to begin is
// held up, and what they have begun must end: by itself within recovery_timeout, or by
// client_idle_limit_in_recovery, with -1 at once.
func TestRecoveryHoldsClients(t *testing.T) {
	r := replicateOn(t, archiving, 2, "native_replication", "recovery_user = 'postgres'", "recovery_1st_stage_command = 'basebackup'", "recovery_2nd_stage_command = 'second'",
		"recovery_timeout = 1", "log_min_messages = log")
	if _, err := r.nodes[0].ExecIn("template1", "create extension pgpool_recovery"); err != nil {
		t.Fatal(err)
	}
	r.recoveryScripts()
	main, victim := r.nodes[0], r.nodes[1]
	stage := filepath.Join(main.DataDir, "stage")
	path, err := r.WriteFile("second", fmt.Sprintf(`#!/bin/bash
set -eu
echo "$@" >'%[1]s'
for ((i = 0; i < 300; i++)); do [ ! -e '%[1]s.go' ] || break; sleep 0.1; done
rm -f '%[1]s' '%[1]s.go'
exec "$1/lastlog" "$@"
`, stage), 0o755)
	if err == nil {
		err = os.Rename(path, filepath.Join(main.DataDir, "second"))
	}
	if err != nil {
		t.Fatal(err)
	}
	p := r.pcpTools()
	status := func() string { return strings.Fields(p.run("node_info 1").stdout)[4] }
	killed := func() {
		t.Helper()
		r.Must(victim.Kill())
		eventually(t, "the dead node is detached", func() bool { return status() == "down" })
	}
	r.plain().must("create table held (id serial primary key, v text, at timestamptz default now())")

	killed()
	open := r.plain()
	open.must("begin; insert into held(v) values ('open')")
	err = r.client().RecoverNode(1)
	if err == nil || !strings.Contains(err.Error(), "waiting connection closed in the other pgpools timeout") {
		t.Errorf("with a transaction that does not end: %v", err)
	}
	open.must("commit")
	r.plain().must("insert into held(v) values ('after it has failed')")

	for _, limit := range []string{"1", "-1"} {
		if limit == "-1" {
			r.Must(victim.Stop(testcluster.Fast)) // it is no child of the test's
			eventually(t, "the node is detached", func() bool { return status() == "down" })
		}
		r.reload("recovery_timeout = 30", "client_idle_limit_in_recovery = "+limit)
		open, idle := r.plain(), r.plain()
		open.must("begin; insert into held(v) values ('never')")
		idle.must("select 1")
		recovered := make(chan error, 1)
		admin := r.client()
		go func() { recovered <- admin.RecoverNode(1) }()
		eventually(t, "the second stage runs", func() bool { _, err := os.Stat(stage); return err == nil })
		if words, err := os.ReadFile(stage); err != nil || string(words) != fmt.Sprintf("%s %s %s %d %d %d %s\n", main.DataDir, victim.Host, victim.DataDir, main.Port, 1, victim.Port, main.Host) {
			t.Errorf("the second stage is told %q, %v", words, err)
		}
		if _, err := open.run("commit"); err == nil {
			t.Errorf("limit %s: a transaction has lasted", limit)
		}
		if _, err := idle.run("select 2"); err == nil && limit == "-1" {
			t.Error("a client that was doing nothing has been left alone")
		}
		wrote := make(chan error, 2)
		for i := range 2 { // one that was there before, and one that comes now
			c := r.plain()
			go func() {
				_, err := c.run(fmt.Sprintf("insert into held(v) values ('held %d, limit %s')", i, limit))
				wrote <- err
			}()
		}
		select {
		case err := <-wrote:
			t.Errorf("limit %s: a write has not been held: %v", limit, err)
		case <-time.After(time.Second):
		}
		if err := os.WriteFile(stage+".go", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := <-recovered; err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-wrote; err != nil {
				t.Error(err)
			}
		}
		if got := r.all("select v, at from held order by id"); strings.Contains(got, "never") {
			t.Errorf("there is %q", got)
		}
		r.all("select last_value, is_called from held_id_seq")
	}
	r.Must(victim.Stop(testcluster.Fast))
}
