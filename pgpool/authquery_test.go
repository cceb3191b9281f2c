package pgpool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/tools/testcluster"
)

// Without a stored password: the proxy knows what the server knows, and that is
// enough to let a client in and to log in for it everywhere.
func TestAuthQuery(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1, HBA: []string{
		"host all asker,postgres 127.0.0.1/32 trust", "host all all 127.0.0.1/32 scram-sha-256",
	}})
	c.MustExec(0, `create role asker login; create role dave login password 'old'; create role nopass login;
		set password_encryption = md5; create role hashed login password 'old'; reset password_encryption;
		create schema secret;
		create function secret.stored(who text) returns table (name name, passwd text) language sql security definer
			set search_path = pg_catalog as 'select rolname, rolpassword from pg_authid where rolname = who and rolcanlogin';
		revoke all on function secret.stored(text) from public;
		grant usage on schema secret to asker; grant execute on function secret.stored(text) to asker`)
	f := serve(t, c, append(backends(c, 0, 1), "auth_query = 'select name, passwd from secret.stored($1)'", "auth_user = asker")...)
	try := func(user, password string) (*pgx.Conn, error) {
		return pgx.Connect(t.Context(), strings.Replace(f.URL(user, "postgres"), user+"@", user+":"+password+"@", 1))
	}
	state := func(err error) string {
		var e *pgconn.PgError
		switch {
		case err == nil:
			return "in"
		case errors.As(err, &e):
			return e.Code
		}
		return err.Error()
	}
	check := func(want, user, password string) {
		t.Helper()
		conn, err := try(user, password)
		if err == nil {
			conn.Close(context.Background())
		}
		if got := state(err); got != want {
			t.Errorf("%s with %q: %s, want %s (%v)", user, password, got, want, err)
		}
	}
	check("in", "dave", "old")
	check("28P01", "dave", "wrong")
	check("28P01", "nobody", "old")
	check("28P01", "nopass", "old")
	check("28P01", "dave'; drop role dave; --", "old")
	check("28000", "hashed", "old") // the server would ask for md5 of it, but its pg_hba.conf wants SCRAM

	conn, err := try("dave", "old")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	eventually(t, "a read, by the client's own key, on the standby", func() bool {
		var port string
		err := conn.QueryRow(t.Context(), "select inet_server_port()::text").Scan(&port)
		return err == nil && f.node(port) == 1
	})

	// Rotated under load: the new password works at once, the old one never again.
	var current atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	var logins atomic.Int64
	c.MustExec(0, "alter role dave password 'p0'")
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				before := current.Load()
				conn, err := try("dave", fmt.Sprintf("p%d", before))
				if err == nil {
					conn.Close(context.Background())
					logins.Add(1)
				} else if current.Load() == before && before >= 0 {
					t.Errorf("password %d is the one that counts, and is refused: %v", before, err)
				}
			}
		})
	}
	for i := range 10 {
		from := logins.Load()
		eventually(t, "clients log in", func() bool { return logins.Load() > from+4 })
		current.Store(-1) // nobody knows while it changes
		c.MustExec(0, fmt.Sprintf("alter role dave password 'p%d'", i+1))
		current.Store(int64(i + 1))
		check("28P01", "dave", fmt.Sprintf("p%d", i))
	}
	close(stop)
	load.Wait()
	t.Logf("%d logins", logins.Load())
	check("in", "dave", "p10")
	f.reload("auth_query = 'select no_such_column'")
	check("57P03", "dave", "p10")
}
