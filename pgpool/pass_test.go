package pgpool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgpool-go/tools/testcluster"
)

// With one server a client whose password nobody has stored here proves itself to that
// server; with two it cannot be let in.
func TestPassThrough(t *testing.T) {
	ca := newAuthority(t)
	c := tlsCluster(t, ca)
	c.MustExec(0, "set password_encryption = md5; create role hashed login password 'secret'")
	hba := filepath.Join(c.Nodes[0].DataDir, "pg_hba.conf")
	text, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hba, append([]byte("host all hashed 127.0.0.1/32 md5\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	c.MustExec(0, "select pg_reload_conf()")
	ca.issue("pool", "localhost")
	f := serve(t, c, append(backends(c, 1), "ssl = on", "backend_sslmode = disable",
		"ssl_cert = '"+ca.file("pool.crt")+"'", "ssl_key = '"+ca.file("pool.key")+"'")...)
	sql := "select current_user"
	try := func(want, user, password string, options ...string) {
		t.Helper()
		got := f.psql(fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=%s password=%s %s", f.Port, user, password, strings.Join(options, " ")), sql)
		if fails := strings.HasPrefix(got, "error: "); fails == (want == user) || !strings.Contains(got, want) {
			t.Errorf("%s with %q %q: got %q, want %q", user, password, options, got, want)
		}
	}
	for _, tls := range []string{"sslmode=disable", "sslmode=require"} {
		for range 2 { // the second time not by what the first has left behind
			try("plainly", "plainly", "secret", tls)
			try("hashed", "hashed", "secret", tls)
			try(`password authentication failed for user "plainly"`, "plainly", "wrong", tls)
			try(`password authentication failed for user "hashed"`, "hashed", "wrong", tls)
		}
	}
	if idle := f.Server.Idle(); len(idle) != 0 {
		t.Errorf("connections that clients have logged in to themselves are kept for others: %v", idle)
	}
	// Names are looked up, cursors and transactions work as in any session.
	sql = "begin; create temp table t as select 42 as n; declare c cursor for select n from t; fetch c; commit; select nextval('pg_temp.s') from (select 1) x where false"
	try("does not exist", "plainly", "secret", "sslmode=disable")

	sql = "select current_user"
	f.reload("backend_sslmode = require")
	try("secured", "secured", "secret", "sslmode=disable")
	try("hashed", "hashed", "secret", "sslmode=require")
	try("cannot be passed on from one channel to another", "secured", "secret", "sslmode=require")
	try("secured", "secured", "secret", "sslmode=require channel_binding=disable")

	if err := os.WriteFile(filepath.Join(f.Dir, "pool_hba.conf"), []byte("host all all all trust\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.reload("enable_pool_hba = on")
	try("hashed", "hashed", "secret", "sslmode=disable")
	try("password authentication failed", "hashed", "wrong", "sslmode=disable")
	if log := f.Log.String(); strings.Contains(log, "panic") || strings.Contains(log, "look up") {
		t.Error("a session panicked, or complains")
	}

	two := testcluster.New(t, testcluster.Options{Standbys: 1, HBA: []string{"host all eve 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"}})
	two.MustExec(0, "create role eve login password 'secret'")
	f = serve(t, two, backends(two, 1, 1)...)
	try("failed to authenticate with backend using SCRAM", "eve", "secret", "sslmode=disable")
}
