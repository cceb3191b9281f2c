package pgpool_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pgpool-go/tools/testcluster"
)

// A rule with ldap: the directory judges the password, and the server is shown the
// same one where the rule says so.
func TestLDAPRule(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{HBA: []string{
		"host all eve 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust",
	}})
	c.MustExec(0, "create role eve login password 'secret'")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // a directory that lets in whoever knows the word
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 512)
			n, _ := nc.Read(b)
			code := byte(49) // invalid credentials
			if strings.Contains(string(b[:n]), "cn=eve,dc=x") && strings.Contains(string(b[:n]), "secret") {
				code = 0
			}
			nc.Write([]byte{0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, code, 4, 0, 4, 0})
			nc.Close()
		}
	}()
	f := serve(t, c, backends(c, 1)...)
	rule := fmt.Sprintf(`host all eve 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport=%d ldapprefix="cn=" ldapsuffix=",dc=x"`, ln.Addr().(*net.TCPAddr).Port)
	login := func(password string) string {
		conn, err := pgx.Connect(t.Context(), strings.Replace(f.URL("eve", "postgres"), "eve@", "eve:"+password+"@", 1))
		if err != nil {
			return err.Error()
		}
		conn.Close(t.Context())
		return "in"
	}
	for _, tc := range []struct{ options, password, want string }{
		{" backend_use_passwd=1", "secret", "in"},
		{" backend_use_passwd=1", "wrong", "client authentication failed (SQLSTATE 28P01)"},
		{"", "secret", "failed to authenticate with backend using SCRAM"}, // and pool_passwd has none
	} {
		if err := os.WriteFile(filepath.Join(f.Dir, "pool_hba.conf"), []byte(rule+tc.options+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.reload("enable_pool_hba = on")
		if got := login(tc.password); !strings.Contains(got, tc.want) {
			t.Errorf("%s with %q: %s", tc.options, tc.password, got)
		}
	}
	ln.Close()
	if got := login("secret"); !strings.Contains(got, "28P01") {
		t.Errorf("without the directory: %s", got)
	}
	if log := f.Log.String(); strings.Contains(log, "secret") || !strings.Contains(log, "LDAP") {
		t.Errorf("the log:\n%s", log)
	}
}
