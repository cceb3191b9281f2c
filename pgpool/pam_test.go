//go:build pam

package pgpool_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgpool-go/pgpool/pam"
	"pgpool-go/tools/testcluster"
)

// Rules with pam, before real modules of this machine: a script of pam_exec knows
// the passwords, what it is told of the client included.
func TestPAMRule(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{HBA: []string{
		"host all eve 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust",
	}})
	c.MustExec(0, "create role eve login password 'secret'")
	c.MustExec(0, "create role mallory login")
	dir := t.TempDir()
	defer func(was string) { pam.Dir = was }(pam.Dir)
	pam.Dir = dir
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := write("script", `#!/bin/sh
case $PAM_TYPE in
auth) [ "$(tr -d '\000')" = secret ] && [ "$PAM_RHOST" = 127.0.0.1 ] && [ "$PAM_SERVICE" != named ] ;;
account) [ "$PAM_USER" != mallory ] ;;
esac
`, 0o755)
	rules := "auth required pam_exec.so expose_authtok quiet " + script + "\naccount required pam_exec.so quiet " + script + "\n"
	write(pam.DefaultService, rules, 0o644)
	write("named", rules, 0o644)
	write("everybody", "auth required pam_permit.so\naccount required pam_permit.so\n", 0o644)
	write("slow", "auth required pam_exec.so "+write("wait", "#!/bin/sh\nuntil [ -e "+dir+"/go ]; do sleep 0.05; done\n", 0o755)+"\naccount required pam_permit.so\n", 0o644)

	f := serve(t, c, backends(c, 1)...)
	rule := func(options, passwd string) {
		t.Helper()
		for name, text := range map[string]string{"pool_hba.conf": "host all postgres all trust\nhost all all 127.0.0.1/32 pam " + options + "\n", "pool_passwd": passwd} {
			if err := os.WriteFile(filepath.Join(f.Dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f.reload("enable_pool_hba = on")
	}
	login := func(user, password string) string {
		conn, err := pgx.Connect(t.Context(), strings.Replace(f.URL(user, "postgres"), user+"@", user+":"+password+"@", 1))
		if err != nil {
			return err.Error()
		}
		conn.Close(t.Context())
		return "in"
	}
	for _, tc := range []struct{ options, passwd, user, password, want string }{
		{"", "", "eve", "secret", "in"},
		{"", "", "eve", "wrong", "failed authentication against PAM (SQLSTATE 28P01)"},
		{"", "", "mallory", "secret", "failed authentication against PAM (SQLSTATE 28P01)"},
		{"pamservice=named", "", "eve", "secret", "failed authentication against PAM (SQLSTATE 28P01)"},
		{"pamservice=nosuch", "", "eve", "secret", "failed authentication against PAM (SQLSTATE 28P01)"},
		{"pamservice=everybody", "", "eve", "wrong", "backend authentication failed (SQLSTATE 28P01)"},
		{"pamservice=everybody", "eve:TEXTsecret\n", "eve", "other", "in"}, // the server is shown what is stored
	} {
		rule(tc.options, tc.passwd)
		if got := login(tc.user, tc.password); !strings.Contains(got, tc.want) {
			t.Errorf("%s with %q, %q, pool_passwd %q: %s, want %s", tc.user, tc.password, tc.options, tc.passwd, got, tc.want)
		}
	}
	for _, words := range []string{"pam_authenticate failed: ", "pam_acct_mgmt failed: "} {
		if !strings.Contains(f.Log.String(), words) {
			t.Errorf("the log does not tell that %s", words)
		}
	}

	// Modules that take their time hold up nobody else.
	rule("pamservice=slow", "eve:TEXTsecret\n")
	slow := make(chan string, 1)
	go func() { slow <- login("eve", "anything") }()
	eventually(t, "a client waits for PAM", func() bool { return len(f.Server.Slots().Sessions()) > 0 })
	f.raw().expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
	select {
	case got := <-slow:
		t.Errorf("PAM is still at work, and the client is told %q", got)
	default:
	}
	write("go", "", 0o644)
	select {
	case got := <-slow:
		if got != "in" {
			t.Error(got)
		}
	case <-time.After(patience):
		t.Error("PAM has ended, and the client is told nothing")
	}
	if strings.Contains(f.Log.String(), "secret") {
		t.Error("a password is in the log")
	}
}
