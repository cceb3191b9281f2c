package pgpool_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// authority makes certificates for a test.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgpool-ca-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, dir: dir, next: 1}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "CA of a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
	a.write("ca.crt", "CERTIFICATE", a.cert.Raw, 0o644)
	return a
}

func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(a.next), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	a.next++
	issuer, by := a.cert, a.key
	if issuer == nil {
		issuer, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(name, kind string, der []byte, mode os.FileMode) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate and its key, as files name.crt and name.key.
func (a *authority) issue(name, common string) *x509.Certificate {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: common}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", cert.Raw, 0o644)
	a.write(name+".key", "PRIVATE KEY", der, 0o600)
	return cert
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// revoke writes a list with these certificates.
func (a *authority) revoke(name string, certs ...*x509.Certificate) {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(a.next), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name, "X509 CRL", der, 0o644)
}

// tlsCluster is one server that lets users in by TLS as its pg_hba.conf says.
func tlsCluster(t testing.TB, ca *authority) *testcluster.Cluster {
	t.Helper()
	c := testcluster.New(t, testcluster.Options{HBA: []string{
		"hostssl all secured 127.0.0.1/32 scram-sha-256", "hostnossl all secured 127.0.0.1/32 reject",
		"host all plainly 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust",
	}})
	ca.issue("node", "localhost")
	for name, setting := range map[string]string{"node.crt": "ssl_cert_file", "node.key": "ssl_key_file"} {
		text, err := os.ReadFile(ca.file(name))
		if err != nil {
			t.Fatal(err)
		}
		path, err := c.WriteFile(name, string(text), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		c.MustExec(0, fmt.Sprintf("alter system set %s = '%s'", setting, path))
	}
	c.MustExec(0, "alter system set ssl = on")
	c.MustExec(0, "select pg_reload_conf()")
	for _, role := range []string{"secured", "plainly"} {
		c.MustExec(0, "create role "+role+" login password 'secret'")
	}
	eventually(t, "the server has TLS", func() bool { return c.MustExec(0, "show ssl") == "on" })
	return c
}

// psql runs one statement over TLS and returns what it prints, or its complaint.
func (f *front) psql(conninfo, sql string) string {
	f.t.Helper()
	out, words, err := f.program("", "psql", "-XAtq", conninfo, "-c", sql)
	if err != nil {
		return "error: " + strings.TrimSpace(words)
	}
	return strings.TrimSpace(out)
}

// TLS on both sides: who gets in with what, and what the server sees.
func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	c := tlsCluster(t, ca)
	ca.issue("pool", "localhost")
	ca.issue("alice", "Alice") // case makes no difference
	bob := ca.issue("bob", "bob")
	ca.revoke("good.crl")
	ca.revoke("bad.crl", bob)
	c.MustExec(0, "create role alice login; create role bob login; create role carol login")
	stranger := newAuthority(t)
	stranger.issue("alice", "alice")
	for _, name := range []string{"alice.key", "bob.key"} { // psql runs as the servers' user
		for _, a := range []*authority{ca, stranger} {
			if text, err := os.ReadFile(a.file(name)); err == nil {
				path, err := c.WriteFile(fmt.Sprintf("%p-%s", a, name), string(text), 0o600)
				if err != nil {
					t.Fatal(err)
				}
				os.Rename(path, a.file(name))
			}
		}
	}
	f := serve(t, c, append(backends(c, 1), "ssl = on", "ssl_cert = '"+ca.file("pool.crt")+"'", "ssl_key = '"+ca.file("pool.key")+"'",
		"ssl_ca_cert = '"+ca.file("ca.crt")+"'", "ssl_crl_file = '"+ca.file("good.crl")+"'", "backend_sslmode = verify-full")...)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pool_passwd", "secured:TEXTsecret\nplainly:TEXTsecret\n")
	f.reload()
	base := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres ", f.Port)
	root := base + "sslmode=verify-full sslrootcert=" + ca.file("ca.crt") + " "

	t.Run("both sides", func(t *testing.T) {
		got := f.psql(root+"user=secured password=secret channel_binding=require",
			"select ssl, current_user from pg_stat_ssl where pid = pg_backend_pid()")
		if got != "t|secured" {
			t.Errorf("got %q", got)
		}
		if got := f.psql(root+"user=secured password=wrong", "select 1"); !strings.Contains(got, "password") {
			t.Errorf("wrong password: %q", got)
		}
		if got := f.psql(base+"sslmode=disable user=secured password=secret", "select 1"); got != "1" {
			t.Errorf("in the clear to us, by TLS to the server: %q", got)
		}
	})
	t.Run("much", func(t *testing.T) {
		got := f.psql(root+"user=postgres", "select sum(length(x)) from (select repeat('x', 100000) as x from generate_series(1, 100)) s")
		if got != "10000000" {
			t.Errorf("got %q", got)
		}
		conn, err := pgx.Connect(t.Context(), strings.Replace(f.URL("postgres", "postgres"), "sslmode=disable", "sslmode=require", 1))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		big := strings.Repeat("0123456789", 300_000)
		for range 3 {
			var back string
			if err := conn.QueryRow(t.Context(), "select $1::text", big).Scan(&back); err != nil || back != big {
				t.Fatalf("%d bytes came back, %v", len(back), err)
			}
		}
		// A cancel request goes by TLS all the way, too.
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error, 1)
		go func() { _, err := conn.Exec(ctx, "select pg_sleep(60)"); done <- err }()
		eventually(t, "the statement runs", func() bool {
			return c.MustExec(0, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active' and wait_event = 'PgSleep'") == "1"
		})
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), "57014") {
			t.Errorf("cancelled: %v", err)
		}
	})
	t.Run("reuse", func(t *testing.T) { // the pool takes back connections with TLS
		pid := f.psql(root+"user=postgres", "select pg_backend_pid()")
		eventually(t, "a connection is lent again", func() bool {
			next := f.psql(root+"user=postgres", "select pg_backend_pid()")
			same := next == pid
			pid = next
			return same
		})
	})
	t.Run("direct", func(t *testing.T) {
		addr := net.JoinHostPort("127.0.0.1", fmt.Sprint(f.Port))
		nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
		if err != nil {
			t.Fatal(err)
		}
		r := &raw{Conn: nc, fe: pgproto3.NewFrontend(nc, nc), addr: addr, params: map[string]string{}}
		defer r.Close()
		nc.SetDeadline(time.Now().Add(patience))
		if err := r.startup(map[string]string{"user": "postgres", "database": "postgres"}); err != nil {
			t.Fatal(err)
		}
		r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
		nc, err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		if b, _ := io.ReadAll(nc); !strings.Contains(string(b), "without ALPN") {
			t.Errorf("without ALPN: %q", b)
		}
	})
	t.Run("stuffing", func(t *testing.T) {
		r, err := f.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), ssl)
		r.Write(append(b, packet(v3, "user\x00postgres\x00\x00")...))
		if got := r.rest(); got != "E(08P01) ." {
			t.Errorf("got %q", got)
		}
	})

	write("pool_hba.conf", `
hostssl   all alice,bob 127.0.0.1/32 cert
hostssl   all carol     127.0.0.1/32 trust clientcert=verify-ca
hostnossl all postgres  127.0.0.1/32 trust
hostssl   all plainly   127.0.0.1/32 scram-sha-256
`)
	f.reload("enable_pool_hba = on")
	with := func(a *authority, name string) string {
		return "sslcert=" + a.file(name+".crt") + " sslkey=" + a.file(name+".key") + " "
	}
	for _, tc := range []struct{ name, conninfo, want string }{
		{"own certificate", root + with(ca, "alice") + "user=alice", "alice"},
		{"another's certificate", root + with(ca, "bob") + "user=alice", "error: CERT authentication failed"},
		{"no certificate", root + "user=alice", "error: CERT authentication failed"},
		{"certificate of a stranger", root + with(stranger, "alice") + "user=alice", "error: tlsv1 alert unknown ca"},
		{"clientcert", root + with(ca, "bob") + "user=carol", "carol"},
		{"clientcert without one", root + "user=carol", "error: connection requires a valid client certificate"},
		{"hostnossl in the clear", base + "sslmode=disable user=postgres", "postgres"},
		{"hostnossl with TLS", root + "user=postgres", "error: no pool_hba.conf entry"},
		{"hostssl in the clear", base + "sslmode=disable user=plainly password=secret", "error: no pool_hba.conf entry"},
		{"hostssl with SCRAM", root + "user=plainly password=secret channel_binding=require", "plainly"},
	} {
		got := f.psql(tc.conninfo, "select current_user")
		want, fails := strings.CutPrefix(tc.want, "error: ")
		if fails != strings.HasPrefix(got, "error: ") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}

	if !strings.Contains(f.Log.String(), "refused by line 2 of pool_hba.conf") {
		t.Error("the log does not tell which rule refused")
	}

	t.Run("reload", func(t *testing.T) {
		open, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://plainly:secret@127.0.0.1:%d/postgres?sslmode=require", f.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close(context.Background())
		ca.issue("pool", "another name") // same files
		f.reload("ssl_crl_file = '" + ca.file("bad.crl") + "'")
		if got := f.psql(root+with(ca, "bob")+"user=bob", "select 1"); !strings.HasPrefix(got, "error: ") {
			t.Errorf("revoked: %q", got)
		}
		nc, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(f.Port)), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if name := nc.ConnectionState().PeerCertificates[0].Subject.CommonName; name != "another name" {
			t.Errorf("the certificate is that of %q", name)
		}
		if _, err := open.Exec(t.Context(), "select 1"); err != nil {
			t.Errorf("the session from before: %v", err)
		}
		// A key that does not fit is not taken.
		f.reload("ssl_key = '" + ca.file("alice.key") + "'")
		if got := f.psql(root+with(ca, "alice")+"user=alice", "select 1"); got != "1" {
			t.Errorf("after a bad reload: %q", got)
		}
	})
}

// A server whose certificate is not to be believed, or that has no TLS where that is
// required, is not spoken to.
func TestBackendTLS(t *testing.T) {
	ca := newAuthority(t)
	c := tlsCluster(t, ca)
	stranger := newAuthority(t)
	for _, tc := range []struct {
		lines []string
		want  string
	}{
		{[]string{"backend_sslmode = disable"}, "f"},
		{[]string{"backend_sslmode = prefer"}, "t"},
		{[]string{"backend_sslmode = allow"}, "f"},
		{[]string{"backend_sslmode = require"}, "t"},
		{[]string{"ssl = on"}, "t"},
		{[]string{"backend_sslmode = verify-ca", "ssl_ca_cert = '" + stranger.file("ca.crt") + "'"}, "error"},
		{[]string{"ssl = on", "ssl_ca_cert = '" + stranger.file("ca.crt") + "'"}, "error"},
		{[]string{"ssl = on", "ssl_ca_cert = '" + ca.file("ca.crt") + "'"}, "t"},
	} {
		f := serve(t, c, append(backends(c, 1), tc.lines...)...)
		got := f.psql(fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=postgres sslmode=prefer", f.Port), "select ssl from pg_stat_ssl where pid = pg_backend_pid()")
		if !strings.HasPrefix(got, tc.want) {
			t.Errorf("%v: got %q, want %q", tc.lines, got, tc.want)
		}
		if tc.lines[0] == "backend_sslmode = allow" { // and it is asked for where the server has a hostssl line only
			got := f.psql(fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=secured password=secret", f.Port), "select ssl from pg_stat_ssl where pid = pg_backend_pid()")
			if got != "t" {
				t.Errorf("allow, where TLS is required: got %q", got)
			}
		}
	}
}
