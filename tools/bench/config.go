package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgpool-go/tools/testcluster"
)

// way is how a proxy is configured: the same for all of them, as far as they can.
type way struct {
	original bool // pgpool-II
	balance  bool // reads go to both servers
	pooled   bool // server connections are lent for a transaction
	tls      bool // on both sides
	scram    bool // users prove who they are to the proxy, and it to the server
	cache    bool // results of reads are kept
}

// poolSize is the number of server connections where they are lent for a
// transaction.
const poolSize = 20

// scramUser is the one who must prove who it is.
const scramUser, scramPassword = "prover", "a password"

// environment is what libpq's programs need to know.
func (w way) environment() []string {
	env := []string{"PGSSLMODE=disable"}
	if w.tls {
		env = []string{"PGSSLMODE=require"}
	}
	if w.scram {
		env = append(env, "PGPASSWORD="+scramPassword)
	}
	return env
}

// sessionsAtOnce is how many clients a proxy must be able to serve.
func (b *bench) sessionsAtOnce(w way) int {
	n := b.clients[0]
	if !w.original { // whose processes would have to be as many
		n = slices.Max(b.clients)
	}
	if w.pooled {
		n = max(n, slices.Max(append([]int{b.idle}, b.many...)))
	}
	return n + 8
}

func bouncer(w way) func(b *bench, ctx context.Context, t *target) error {
	return func(b *bench, ctx context.Context, t *target) error {
		t.way, t.env = w, w.environment()
		if !found(b.pgbouncer) {
			return fmt.Errorf("%s is missing; install Debian's package pgbouncer (make testdeps)", b.pgbouncer)
		}
		users, err := b.usersFile(t.name)
		if err != nil {
			return err
		}
		key, cert, err := b.seal(t)
		if err != nil {
			return err
		}
		return b.launch(ctx, t, true, b.pgbouncer, func(port int) ([]string, error) {
			ini, err := b.cluster.WriteFile(t.name+".ini", b.bouncerConf(w, port, users, key, cert), 0o644)
			return []string{ini}, err
		})
	}
}

func (b *bench) bouncerConf(w way, port int, users, key, cert string) string {
	n := b.cluster.Nodes[0]
	pick := func(which bool, yes, no string) string {
		if which {
			return yes
		}
		return no
	}
	size := b.sessionsAtOnce(w)
	if w.pooled {
		size = poolSize
	}
	text := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = %s
auth_file = %s
pool_mode = %s
max_client_conn = %d
default_pool_size = %d
log_connections = 0
log_disconnections = 0
client_tls_sslmode = %s
server_tls_sslmode = %[9]s
`, n.Host, n.Port, port, pick(w.scram, "scram-sha-256", "trust"), users, pick(w.pooled, "transaction", "session"),
		10*b.sessionsAtOnce(w), size, pick(w.tls, "require", "disable"))
	if w.tls {
		text += "client_tls_key_file = " + key + "\nclient_tls_cert_file = " + cert + "\n"
	}
	if w.pooled && bouncerPrepares(b.pgbouncer) {
		text += "max_prepared_statements = 200\n"
	}
	return text
}

var bouncerVersion = regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`)

// bouncerPrepares tells whether this PgBouncer can prepare statements in
// transaction mode.
func bouncerPrepares(program string) bool {
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		return false
	}
	m := bouncerVersion.FindSubmatch(out)
	if m == nil {
		return false
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	return major > 1 || minor >= 21
}

// pgpool starts the original or ours with the same configuration.
func pgpool(w way) func(b *bench, ctx context.Context, t *target) error {
	return func(b *bench, ctx context.Context, t *target) error {
		t.way, t.env = w, w.environment()
		program := b.pgpool
		if w.original {
			program = b.original
		}
		if !found(program) {
			if !w.original {
				return fmt.Errorf("%w: there is no %s (make build)", errLeftOut, program)
			}
			return fmt.Errorf("%s is missing; install Debian's package pgpool2 (make testdeps)", program)
		}
		program, err := filepath.Abs(program)
		if err != nil {
			return err
		}
		dir := filepath.Join(b.cluster.Dir, t.name)
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil { // of the round before
			return err
		}
		key, cert, err := b.seal(t)
		if err != nil {
			return err
		}
		if err := b.proofs(t); err != nil {
			return err
		}
		err = b.launch(ctx, t, false, program, func(port int) ([]string, error) {
			pcpPort, err := testcluster.FreePort()
			if err != nil {
				return nil, err
			}
			conf, err := b.cluster.WriteFile(filepath.Join(t.name, "pgpool.conf"), b.pgpoolConf(w, dir, port, pcpPort, key, cert), 0o644)
			return []string{"-n", "-f", conf}, err
		})
		if err != nil || !w.pooled {
			return err
		}
		// It takes what it does not know for a misspelling and goes on.
		if mode, err := b.psql(ctx, t, "PGPOOL SHOW pool_mode"); err != nil || mode != "transaction" {
			return fmt.Errorf("%w: pool_mode is not %q but %q", errLeftOut, "transaction", mode)
		}
		return nil
	}
}

// proofs writes the files that tell pgpool who must prove what.
func (b *bench) proofs(t *target) error {
	if !t.scram {
		return nil
	}
	// A verifier would do to let clients in, but not to log in to servers.
	if _, err := b.cluster.WriteFile(filepath.Join(t.name, "pool_passwd"), scramUser+":TEXT"+scramPassword+"\n", 0o600); err != nil {
		return err
	}
	_, err := b.cluster.WriteFile(filepath.Join(t.name, "pool_hba.conf"), "host all all 127.0.0.1/32 scram-sha-256\n", 0o644)
	return err
}

// usersFile tells PgBouncer who there is. A verifier that is the server's, too, is
// what costs it least.
func (b *bench) usersFile(name string) (string, error) {
	secret, err := b.cluster.Nodes[0].Exec("select rolpassword from pg_authid where rolname = '" + scramUser + "'")
	if err != nil {
		return "", err
	}
	return b.cluster.WriteFile(name+".users", fmt.Sprintf("%q %q\n%q \"\"\n", scramUser, secret, testcluster.Superuser), 0o644)
}

func (b *bench) pgpoolConf(w way, dir string, port, pcpPort int, key, cert string) string {
	var text strings.Builder
	fmt.Fprintf(&text, `backend_clustering_mode = 'streaming_replication'
listen_addresses = 'localhost'
port = %d
unix_socket_directories = '%[3]s'
socket_dir = '%[3]s'
pcp_listen_addresses = 'localhost'
pcp_port = %[2]d
pcp_socket_dir = '%[3]s'
wd_ipc_socket_dir = '%[3]s'
pid_file_name = 'pgpool.pid'
logdir = '%[3]s'
num_init_children = %[4]d
max_pool = 1
child_life_time = 0
sr_check_user = '%[5]s'
sr_check_database = 'postgres'
load_balance_mode = %[6]t
statement_level_load_balance = off
`, port, pcpPort, dir, b.sessionsAtOnce(w), testcluster.Superuser, w.balance)
	if w.pooled {
		fmt.Fprintf(&text, "pool_mode = transaction\npool_size = %d\n", poolSize)
	}
	if w.cache {
		fmt.Fprintf(&text, "memory_cache_enabled = on\nmemqcache_oiddir = '%s'\n", dir)
	}
	if w.tls {
		fmt.Fprintf(&text, "ssl = on\nssl_key = '%s'\nssl_cert = '%s'\nbackend_sslmode = require\n", key, cert)
	}
	if w.scram {
		fmt.Fprintf(&text, "enable_pool_hba = on\npool_passwd = 'pool_passwd'\n")
	}
	for i, n := range b.cluster.Nodes {
		fmt.Fprintf(&text, "backend_hostname%d = '%s'\nbackend_port%[1]d = %[3]d\nbackend_weight%[1]d = 1\n", i, n.Host, n.Port)
	}
	return text.String()
}

// seal gives the first target that wants TLS, and all the servers, a key and a
// certificate that nobody verifies.
func (b *bench) seal(t *target) (key, cert string, err error) {
	if !t.tls {
		return "", "", nil
	}
	if b.key != "" {
		return b.key, b.cert, nil
	}
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		return "", "", err
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, about, about, pair.Public(), pair)
	if err != nil {
		return "", "", err
	}
	if b.key, err = b.cluster.WriteFile("tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o600); err != nil {
		return "", "", err
	}
	if b.cert, err = b.cluster.WriteFile("tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})), 0o644); err != nil {
		return "", "", err
	}
	for _, n := range b.cluster.Nodes {
		for _, sql := range []string{
			"alter system set ssl_key_file = '" + b.key + "'", "alter system set ssl_cert_file = '" + b.cert + "'",
			"alter system set ssl = on", "select pg_reload_conf()",
		} {
			if _, err := n.Exec(sql); err != nil {
				return "", "", err
			}
		}
	}
	return b.key, b.cert, nil
}
