package pgpool_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pgpool-go/tools/golden"
	"pgpool-go/tools/testcluster"
)

// jdbc is where Debian has the driver.
const jdbc = "/usr/share/java/postgresql.jar"

// Clients of several makers log in by SCRAM over TLS, and are refused with the wrong
// password as by a server.
func TestDrivers(t *testing.T) {
	ca := newAuthority(t)
	c := testcluster.New(t, testcluster.Options{Standbys: 1, HBA: []string{"host all eve 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"}})
	c.MustExec(0, "create role eve login password 'secret'")
	c.Must(c.WaitCatchup())
	ca.issue("pool", "localhost")
	f := serve(t, c, append(backends(c, 0, 1), "ssl = on", "ssl_cert = '"+ca.file("pool.crt")+"'", "ssl_key = '"+ca.file("pool.key")+"'")...)
	for name, text := range map[string]string{"pool_passwd": "eve:TEXTsecret\n", "pool_hba.conf": "hostssl all eve 127.0.0.1/32 scram-sha-256\n"} {
		c.Must(os.WriteFile(filepath.Join(f.Dir, name), []byte(text), 0o600))
	}
	f.reload("enable_pool_hba = on")
	port, root := strconv.Itoa(f.Port), ca.file("ca.crt")
	drivers := filepath.Join(golden.Testdata(t), "drivers")

	program := func(env []string, name string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) == 0 {
			return err.Error()
		}
		return strings.TrimSpace(string(out))
	}
	clients := map[string]func(password string) string{
		"psql": func(password string) string { // Debian's libpq
			return f.psql(fmt.Sprintf("host=127.0.0.1 port=%s user=eve password=%s dbname=postgres sslmode=verify-full sslrootcert=%s channel_binding=require", port, password, root),
				"select current_user || ' ' || 40 + 2")
		},
		"pgx": func(password string) string {
			conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://eve:%s@127.0.0.1:%s/postgres?sslmode=verify-full&sslrootcert=%s", password, port, root))
			if err != nil {
				return err.Error()
			}
			defer conn.Close(t.Context())
			var who string
			var sum int
			if err := conn.QueryRow(t.Context(), "select current_user, $1::int + $2::int", 40, 2).Scan(&who, &sum); err != nil {
				return err.Error()
			}
			return fmt.Sprint(who, " ", sum)
		},
		"node-postgres": func(password string) string {
			modules, err := testcluster.NpmDriver()
			if err != nil {
				return err.Error()
			}
			return program([]string{"NODE_PATH=" + modules}, "node", filepath.Join(drivers, "login.js"), port, "eve", password, root)
		},
	}
	check := func(t *testing.T, right, wrong string) {
		if right != "eve 42" {
			t.Errorf("got %q", right)
		}
		if !strings.Contains(wrong, "28P01") && !strings.Contains(wrong, "password") {
			t.Errorf("with a wrong password: %q", wrong)
		}
	}
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			check(t, client("secret"), client("wrong"))
		})
	}
	t.Run("JDBC", func(t *testing.T) { // one machine of Java for both, which takes longest to start
		if _, err := os.Stat(jdbc); err != nil || !has("javac") {
			t.Skip("needs a JDK and the driver: make drivers installs them")
		}
		got := program(nil, "java", "-XX:TieredStopAtLevel=1", "-cp", jdbc, filepath.Join(drivers, "Login.java"), port, "eve", root, "secret", "wrong")
		right, wrong, _ := strings.Cut(got, "\n")
		check(t, right, wrong)
	})
	t.Run("openssl", func(t *testing.T) { // TLS without asking for it in the clear, as from PostgreSQL 17 on
		got := program(nil, "sh", "-c", `openssl s_client -connect 127.0.0.1:"$0" -alpn postgresql -CAfile "$1" -verify_return_error </dev/null`, port, root)
		for _, want := range []string{"ALPN protocol: postgresql", "Verify return code: 0 (ok)", "TLSv1.3"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
		if got := program(nil, "sh", "-c", `openssl s_client -connect 127.0.0.1:"$0" -alpn http/1.1 </dev/null`, port); strings.Contains(got, "ALPN protocol: http") || !strings.Contains(got, "alert") {
			t.Errorf("another protocol: %s", got)
		}
	})
}

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}
