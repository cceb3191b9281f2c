package pgpool_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"pgpool-go/conf"
	"pgpool-go/pcp"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/session"
	"pgpool-go/tools/testcluster"
)

// What clients call themselves is data wherever it goes: into the questions pgpool asks
// servers of its own accord, into its log, its tables; and what they must prove with is
// nowhere to be read.
func TestHostileNames(t *testing.T) {
	const password = "Tr0ub4dor"
	c := testcluster.New(t, testcluster.Options{Standbys: 1, HBA: []string{
		"host all carol 127.0.0.1/32 scram-sha-256", "host all dora 127.0.0.1/32 password", "host all all 127.0.0.1/32 trust",
	}})
	c.MustExec(0, "create table kept (v text); create schema evil; create function evil.lower(text) returns text language sql as 'select 1/0 || $1';"+
		"create role carol login password '"+password+"'; create role dora login password '"+password+"'")
	c.Must(c.WaitCatchup())
	const phrase = "a phrase of the key"
	key := filepath.Join(t.TempDir(), "key")
	c.Must(os.WriteFile(key, []byte(phrase+"\n"), 0o600))
	t.Setenv("PGPOOLKEYFILE", key)
	f := serve(t, c, append(backends(c, 0, 1), "log_min_messages = debug5", "log_connections = on", "log_line_prefix = '%m: %a %u@%d pid %p: '",
		"log_client_messages = on", "health_check_password = '"+password+"'")...)
	verifier := c.MustExec(0, "select rolpassword from pg_authid where rolname = 'carol'")
	c.Must(os.WriteFile(filepath.Join(f.Dir, "pool_passwd"), []byte("carol:AES"+conf.Encrypt([]byte(phrase), password)+"\ndora:"+auth.StoredMD5(password, "dora")+"\n"), 0o600))
	f.reload()

	t.Run("SQL in startup parameters", func(t *testing.T) {
		evil := []string{`x'; drop table kept; --`, `x\'; drop table kept; --`, `"; drop table kept; --`, `$1; drop table kept`, `%s%n%d`, `'||(select pg_sleep(60))||'`}
		for _, e := range evil {
			for _, pairs := range [][]string{{"application_name", e}, {"user", e}, {"database", e}, {"search_path", e}, {"user", "postgres", "options", "-c search_path=" + strings.ReplaceAll(e, " ", `\ `)}} {
				r, err := f.login(pairs...)
				if err != nil {
					continue // no such user or database, or a bad setting
				}
				if got, err := r.value("select count(*) from public.kept"); err != nil || got != "0" {
					t.Errorf("%q: %q, %v", pairs, got, err)
				}
				r.query("show pool_pools")
				r.Close()
			}
		}
		if got := c.MustExec(0, "select count(*) from kept"); got != "0" {
			t.Errorf("the table has %s rows", got)
		}
		// Whatever search_path a client has, our own questions find what they mean.
		r := f.raw("search_path", "evil, pg_catalog")
		if got, err := r.value("select count(*) from public.kept"); err != nil || got != "0" {
			t.Errorf("with a schema in front: %q, %v", got, err)
		}
		r.Close()
	})

	t.Run("control bytes", func(t *testing.T) {
		for _, e := range []string{"a\nFATAL:  forged", "a\r\n2026-01-01 00:00:00.000: forged pid 1: LOG:  forged", "\x1b[2J\x07\x08forged", "a\tforged\x7f"} {
			for _, name := range []string{"user", "database", "application_name"} {
				if r, err := f.login(name, e); err == nil {
					r.query("select '" + e + "'")
					r.Close()
				}
			}
		}
		for line := range strings.Lines(f.Log.String()) {
			if !logLine.MatchString(line) {
				t.Errorf("a line that pgpool would not write: %q", line)
			}
		}
	})

	// hidden fails if a text has a secret in it.
	hidden := func(t *testing.T, shown string) {
		t.Helper()
		for _, secret := range []string{password, phrase, conf.Encrypt([]byte(phrase), password), auth.StoredMD5(password, "dora")[3:], verifier, strings.Split(verifier, "$")[2]} {
			if i := strings.Index(shown, secret); i >= 0 {
				t.Errorf("a secret is shown: ...%.200q", shown[max(0, i-100):])
			}
		}
	}
	t.Run("secrets", func(t *testing.T) {
		for _, user := range []string{"carol", "dora"} {
			for _, p := range []string{password, "wrong-" + password} {
				got := f.psql(fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=%s password=%s sslmode=disable", f.Port, user, p), "select current_user")
				if (got == user) != (p == password) {
					t.Errorf("%s with %q: %q", user, p, got)
				}
			}
		}
		r := f.raw()
		shown := f.Log.String()
		for _, sql := range []string{"show pool_status", "pgpool show all", "show pool_nodes", "show pool_pools", "show pool_processes", "show pool_health_check_stats", "show pool_backend_stats"} {
			if err := r.send(q(sql)); err != nil {
				t.Fatal(err)
			}
			for {
				msg, err := r.fe.Receive()
				if err != nil {
					t.Fatal(err)
				}
				text := fmt.Sprintf("%+s", msg)
				shown += text
				if word(msg) == "Z(I)" {
					break
				}
			}
		}
		r.Close()
		hidden(t, shown)
	})

	t.Run("secrets and the administrative port", func(t *testing.T) {
		p := f.pcpTools()
		shown := ""
		for _, command := range []string{"pool_status", "node_count", "node_info -v -a", "health_check_stats -v 1", "proc_count -v", "proc_info -v -a", "watchdog_info -v",
			"reload_config", "attach_node 9", "detach_node 9", "promote_node 9", "recovery_node 1"} {
			s := p.as("original", "admin", "secret", command)
			if s.stdout+s.stderr == "" {
				t.Errorf("%s says nothing", command)
			}
			shown += s.stdout + s.stderr
		}
		if !strings.Contains(shown, "health_check_user") {
			t.Error("the settings were not shown")
		}
		account := pcp.HashPassword("secret") // as pcp.conf has it, and that is as good as the word
		for _, known := range []string{"admin", "another"} {
			shown += p.as("original", known, "wrong-"+account, "node_count").stderr
		}
		shown += f.Log.String()
		hidden(t, shown)
		if strings.Contains(shown, account) {
			t.Error("a password of pcp.conf is shown")
		}
	})

	t.Run("secrets and a panic", func(t *testing.T) {
		entry := conf.ParseSecret(password, nil)
		f.Server.Trip(fmt.Sprintf("tripped %v %+v %#v", entry, session.Credential(entry), session.Credential(entry)))
		for _, user := range []string{"carol", "dora"} {
			dsn := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=%s password=%s sslmode=disable", f.Port, user, password)
			before := strings.Count(f.Log.String(), "panic: tripped")
			if got := f.psql(dsn, "show pool_watchdog"); !strings.Contains(got, "internal error of the proxy") || strings.Contains(got, "tripped") {
				t.Errorf("%s is told %q", user, got)
			}
			eventually(t, "the log tells of the panic and where it was", func() bool {
				log := f.Log.String()
				return strings.Count(log, "panic: tripped") > before && strings.Contains(log, "session.go")
			})
			if got := f.psql(dsn, "select current_user"); got != user {
				t.Errorf("the next session of %s: %q", user, got)
			}
		}
		hidden(t, f.Log.String())
	})

	t.Run("cancel requests", func(t *testing.T) {
		first := f.raw()
		stale := *first
		first.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
		first.Close()
		f.checkLeaks2(t, 0)
		next := f.raw()
		next.send(q("select pg_sleep(60)"))
		eventually(t, "the statement runs", func() bool {
			return c.MustExec(0, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "1"
		})
		if next.pid != stale.pid {
			t.Logf("another server connection: %d, before %d", next.pid, stale.pid)
		}
		var all sync.WaitGroup
		for i := range 4 { // a key that was good once, and many that never were
			all.Go(func() {
				for n := range 50 {
					k := stale
					if i > 0 {
						k.pid, k.secret = next.pid, binary.BigEndian.AppendUint32(nil, uint32(i*1000+n))
					}
					if err := k.cancel(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if got := c.MustExec(0, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"); got != "1" {
			t.Error("somebody without the key has cancelled the statement")
		}
		f.raw().expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
		if err := next.cancel(); err != nil {
			t.Fatal(err)
		}
		if got, err := next.answers(); !strings.Contains(got, "E(57014) Z(I)") {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// logLine begins a message, or goes on with one.
var logLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}: [^\n]* pid \d+: |\t)[^\x00-\x08\x0b-\x1f\x7f]*\r?\n$`)
