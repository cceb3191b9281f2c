package pgpool_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
	"pgpool-go/tools/testcluster"
)

// TestGuide starts the deployment guide's configuration of four nodes, with
// nothing replaced but hosts, ports and the folder of its socket, and holds it to
// what the guide's text says of routing and of logins.
func TestGuide(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 3, HBA: []string{"host all all 127.0.0.1/32 scram-sha-256"}})
	c.MustExec(0, `
create role repmgr login superuser password 'repmgrpass';
create role app_readwrite login password 'appreadwritepass';
create role app_readonly login password 'appreadonlypass';
create role stranger login password 'strangerpass';
create table test (id serial primary key, data text);
insert into test (data) select 'row ' || i from generate_series(1, 20) i;
grant all on test, test_id_seq to app_readwrite;
grant select on test to app_readonly;
`)
	c.Must(c.WaitCatchup())
	f := startGuide(t, c)
	login := func(user, password string) (*pgx.Conn, error) {
		u, err := url.Parse(f.URL(user, "postgres"))
		c.Must(err)
		u.User = url.UserPassword(user, password)
		conn, err := pgx.Connect(t.Context(), u.String())
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) })
		}
		return conn, err
	}
	rw, err := login("app_readwrite", "appreadwritepass")
	if err != nil {
		t.Fatal(err)
	}
	where := func(q interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}, sql string, args ...any) int {
		t.Helper()
		var port string
		if err := q.QueryRow(t.Context(), sql, args...).Scan(&port); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return f.node(port)
	}
	const here = "inet_server_port()::text"

	t.Run("reads 1:1:1 over the standbys", func(t *testing.T) {
		var count [4]int
		const reads = 300
		for i := range reads {
			switch i % 3 {
			case 0:
				count[where(rw, "select "+here+" from test where id = $1", i%20+1)]++
			case 1:
				count[where(rw, "select "+here+" from test where id = $1", pgx.QueryExecModeSimpleProtocol, i%20+1)]++
			case 2:
				count[where(rw, "select "+here+" from test where id = $1", pgx.QueryExecModeExec, i%20+1)]++
			}
		}
		if count[0] != 0 {
			t.Errorf("the primary, whose weight is 0, got %d reads", count[0])
		}
		for _, n := range count[1:] {
			if n < reads/3-50 { // six times the standard deviation
				t.Errorf("reads per node: %v", count)
			}
		}
	})
	t.Run("writes and locks on the primary", func(t *testing.T) {
		for _, sql := range []string{
			"insert into test (data) values ('x') returning " + here,
			"update test set data = 'y' where id = 1 returning " + here,
			"delete from test where id = 20 returning " + here,
			"select " + here + " from test where id = 2 for update",
			"select " + here + " from test where id = 2 for share",
			"with w as (insert into test (data) values ('z') returning 1) select " + here + " from w",
			"select nextval('test_id_seq')::text, " + here,
		} {
			for range 3 {
				rows, err := rw.Query(t.Context(), sql)
				if err != nil {
					t.Fatal(err)
				}
				for rows.Next() {
					values, err := rows.Values()
					if port := fmt.Sprint(values[len(values)-1]); err != nil || f.node(port) != 0 {
						t.Errorf("%s: node %d, %v", sql, f.node(port), err)
					}
				}
				if err := rows.Err(); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
		}
	})
	t.Run("transactions with a write on the primary", func(t *testing.T) {
		tx, err := rw.Begin(t.Context())
		c.Must(err)
		defer tx.Rollback(context.Background())
		if n := where(tx, "select "+here+" from test limit 1"); n == 0 {
			t.Error("a read before the write: the primary")
		}
		if n := where(tx, "insert into test (data) values ($1) returning "+here, "tx"); n != 0 {
			t.Errorf("the write: node %d", n)
		}
		for range 5 {
			if n := where(tx, "select "+here+" from test where data = 'tx' limit 1"); n != 0 {
				t.Errorf("a read after the write: node %d", n)
			}
		}
		c.Must(tx.Commit(t.Context()))
		if n := where(rw, "select "+here); n == 0 {
			t.Error("a read after the transaction: the primary")
		}
	})
	t.Run("temporary tables", func(t *testing.T) {
		if _, err := rw.Exec(t.Context(), "create temp table mine as select 1 as i"); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if n := where(rw, "select "+here+" from mine"); n != 0 {
				t.Errorf("node %d", n)
			}
		}
	})
	t.Run("roles", func(t *testing.T) {
		ro, err := login("app_readonly", "appreadonlypass")
		if err != nil {
			t.Fatal(err)
		}
		if n := where(ro, "select "+here+" from test limit 1"); n == 0 {
			t.Error("a read: the primary")
		}
		if _, err := ro.Exec(t.Context(), "insert into test (data) values ('no')"); sqlstate(err) != "42501" {
			t.Errorf("a write without the right to: %v", err)
		}
	})
	t.Run("logins", func(t *testing.T) {
		if _, err := login("app_readwrite", "wrong"); sqlstate(err) != "28P01" {
			t.Errorf("a wrong password: %v", err)
		}
		if _, err := login("nobody", "x"); sqlstate(err) != "28P01" {
			t.Errorf("an unknown user: %v", err)
		}
		// Not in pool_passwd, but allow_clear_text_frontend_auth is on.
		if _, err := login("stranger", "strangerpass"); err != nil {
			t.Errorf("a user without an entry in pool_passwd: %v", err)
		}
	})
	if strings.Contains(f.Log.String(), "ERROR: ") || strings.Contains(f.Log.String(), "PANIC: ") {
		t.Errorf("log:\n%s", f.Log)
	}
}

// startGuide is a pgpool of the guide's files in front of c.
func startGuide(t *testing.T, c *testcluster.Cluster) *front {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("..", "testdata", "conf", name))
		c.Must(err)
		return string(text)
	}
	dir, err := os.MkdirTemp("", "pgpool-")
	c.Must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := freePort(t)
	var places []string
	for i, n := range c.Nodes {
		places = append(places,
			fmt.Sprintf("hostname%d = 'pg-%d'", i, i+1), fmt.Sprintf("hostname%d = '%s'", i, n.Host),
			fmt.Sprintf("backend_port%d = 5432", i), fmt.Sprintf("backend_port%d = %d", i, n.Port))
	}
	places = append(places, "addresses = '*'", "addresses = '127.0.0.1'", "\nport = 5432", fmt.Sprintf("\nport = %d", port),
		"pcp_port = 9898", fmt.Sprintf("pcp_port = %d", freePort(t)), "wd_port = 9000", fmt.Sprintf("wd_port = %d", freePort(t)),
		"wd_hostname = 'pgpool-1'", "wd_hostname = '127.0.0.1'", "/var/run/pgpool", dir)
	path := filepath.Join(dir, "pgpool.conf")
	text := strings.NewReplacer(places...).Replace(read("guide.pgpool.conf"))
	c.Must(os.WriteFile(path, []byte(text+"work_dir = '"+dir+"'\n"), 0o600))
	c.Must(os.WriteFile(filepath.Join(dir, "pool_passwd"), []byte(read("guide.pool_passwd")), 0o600))
	c.Must(os.WriteFile(filepath.Join(dir, "pcp.conf"), []byte(read("guide.pcp.conf")), 0o600))
	f := &front{Cluster: c, Port: port, Dir: dir, Socket: dir, Log: &record{}, t: t}
	f.Server, err = pgpool.New(pgpool.Options{Paths: conf.Paths{Conf: path}, DiscardStatus: true, Stderr: f.Log})
	c.Must(err)
	c.Must(f.run())
	return f
}
