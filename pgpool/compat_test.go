package pgpool_test

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgpool-go/tools/testcluster"
)

// TestOtherServers asks servers of other major versions for what differs between
// them: logins, the protocol, roles. Everything else is tested with Debian's own.
func TestOtherServers(t *testing.T) {
	for _, major := range []int{17, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			if testing.Short() {
				t.Skip("needs real PostgreSQL servers: skipped by -short")
			}
			bin, err := testcluster.NpmPostgres(major)
			if err != nil {
				t.Fatal(err)
			}
			c := servers(t, testcluster.Options{Standbys: 2, BinDir: bin,
				HBA: []string{"host all postgres 127.0.0.1/32 trust", "host all all 127.0.0.1/32 scram-sha-256"}})
			f := serve(t, c, append(backends(c, 0, 1, 1), "allow_clear_text_frontend_auth = on")...)
			f.MustExec(0, "create role app login password 'secret'; create table t as select 1 as i; grant all on t to app")
			c.Must(c.WaitCatchup())
			testOtherServer(t, f, strconv.Itoa(major))
		})
	}
}

func testOtherServer(t *testing.T, f *front, major string) {
	login := func(password string, options ...string) (*pgx.Conn, error) {
		u, err := url.Parse(f.URL("app", "postgres", options...))
		f.Must(err)
		u.User = url.UserPassword("app", password)
		c, err := pgx.Connect(t.Context(), u.String())
		if err == nil {
			t.Cleanup(func() { c.Close(context.Background()) })
		}
		return c, err
	}
	if _, err := login("wrong"); sqlstate(err) != "28P01" {
		t.Errorf("a wrong password: %v", err)
	}
	for _, options := range [][]string{{}, {"max_protocol_version", "latest"}} { // newer protocols are talked down to 3.0
		c, err := login("secret", options...)
		if err != nil {
			t.Fatalf("options %v: %v", options, err)
		}
		if v := c.PgConn().ParameterStatus("server_version"); !strings.HasPrefix(v, major+".") {
			t.Errorf("server_version %q", v)
		}
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
			count := make(map[int]int)
			for i := range 20 {
				var port string
				var back int
				if err := c.QueryRow(t.Context(), "select inet_server_port()::text, $1::int from t", mode, i).Scan(&port, &back); err != nil || back != i {
					t.Fatalf("%v: %d, %v", mode, back, err)
				}
				count[f.node(port)]++
			}
			if (count[0] != 0) == f.spreads() {
				t.Errorf("%v: reads per node: %v", mode, count)
			}
			var port string
			if err := c.QueryRow(t.Context(), "insert into t values ($1) returning inet_server_port()::text", mode, 2).Scan(&port); err != nil || f.node(port) != 0 {
				t.Errorf("%v: a write: node %d, %v", mode, f.node(port), err)
			}
		}
		if _, err := c.Exec(t.Context(), "set search_path = pg_catalog, public; set work_mem = '5MB'"); err != nil {
			t.Fatal(err)
		}
		var path, mem string
		if err := c.QueryRow(t.Context(), "select current_setting('search_path'), current_setting('work_mem')").Scan(&path, &mem); err != nil || path != "pg_catalog, public" || mem != "5MB" {
			t.Errorf("settings where it reads: %q, %q, %v", path, mem, err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		if _, err := c.Exec(ctx, "select pg_sleep(60)"); err == nil || time.Since(began) > patience/2 {
			t.Errorf("pg_sleep was cancelled after %v: %v", time.Since(began), err)
		}
		stop()
		eventually(t, "pg_sleep has ended", func() bool {
			return f.MustExec(0, "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()") == "0"
		})
	}

	// The roles change hands.
	f.Must(f.Nodes[0].Stop(testcluster.Immediate))
	if !replicates(f.mode) {
		f.Must(f.Nodes[1].Promote())
	}
	eventually(t, "writes go to the new primary", func() bool {
		c, err := login("secret")
		if err != nil {
			return false
		}
		defer c.Close(context.Background())
		var port string
		err = c.QueryRow(t.Context(), "insert into t values (3) returning inet_server_port()::text").Scan(&port)
		return err == nil && f.node(port) == 1
	})
}
