package pgpool_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/conf"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/pam"
	"pgpool-go/tools/golden"
	"pgpool-go/tools/testcluster"
)

var askOriginal = flag.Bool("original", false, "record the original's answers in testdata/auth/logins.table, too (with -update)")

// The parties of a login: each rule of pool_hba.conf is met from an address of its own,
// and what a server asks for, and what is known of the password, stands in the role's
// name.
var (
	loginRules = []string{"off", "trust", "reject", "md5", "scram-sha-256", "password", "cert", "pam", "ldap"}
	loginAsks  = []string{"trust", "md5", "scram", "password", "md5scram", "reject"}
	loginForms = []string{"none", "plain", "text", "md5", "aes", "query"}
)

const (
	rightPassword = "the-right-one"
	loginHeader   = `# Who gets in: logins against real servers, by TestLogins. Of each line
#
#   rule      the method of pool_hba.conf; off: enable_pool_hba is off
#   entry     of the user in pool_passwd: none, plain, TEXT, md5, AES; or query: none, and auth_query tells the verifier
#   password  the client's, or with cert its certificate (it knows the password in any case)
#   by        c: the client comes by TLS, s: the servers are spoken to by TLS; 1 or 3 servers
#
# then for each method of the servers (md5scram: md5 of a role with a SCRAM verifier): in, or the
# SQLSTATE of the refusal; ours, and behind the bar those of pgpool-II 4.3.5, which has no
# setting for the servers' TLS alone and no auth_query (-), and where it answers what is no
# message of the protocol (?).
#
`
)

// loginCase is a row's key; by is "cs3" and the like.
type loginCase struct{ rule, form, password, by string }

func (k loginCase) clientTLS() bool { return k.by[0] == 'c' }

// tells is false of cases that would tell nothing new: nothing changes a rule that
// refuses all.
func (k loginCase) tells() bool {
	return k.rule != "reject" || k.form == "text" && k.password == "right"
}

// loginTable has the cells of each row.
type loginTable map[loginCase][]string

// TestLogins lets everybody try to log in, and compares who gets in with the table in
// testdata.
func TestLogins(t *testing.T) {
	ca := newAuthority(t)
	c := testcluster.New(t, testcluster.Options{Standbys: 2, HBA: loginHBA()})
	serversWithTLS(t, c, ca)
	var sql strings.Builder
	for _, ask := range loginAsks {
		fmt.Fprintf(&sql, "set password_encryption = '%s';\n", map[bool]string{true: "md5", false: "scram-sha-256"}[ask == "md5"])
		for _, form := range loginForms {
			fmt.Fprintf(&sql, "create role %s_%s login password '%s';\n", ask, form, rightPassword)
			ca.issue(ask+"_"+form, ask+"_"+form)
		}
	}
	c.MustExec(0, sql.String())
	c.Must(c.WaitCatchup())
	ca.issue("pool", "localhost")
	w := &loginWorld{t: t, c: c, ca: ca, certs: map[string]tls.Certificate{}}
	for _, ask := range loginAsks {
		for _, form := range loginForms {
			pair, err := tls.LoadX509KeyPair(ca.file(ask+"_"+form+".crt"), ca.file(ask+"_"+form+".key"))
			if err != nil {
				t.Fatal(err)
			}
			w.certs[ask+"_"+form] = pair
		}
	}
	w.write()

	ours := loginTable{}
	for _, by := range []struct{ nodes, tls string }{{"1", "-"}, {"1", "s"}, {"3", "-"}, {"3", "s"}} {
		t.Run(by.tls+by.nodes, func(t *testing.T) { // and pgpool ends with its connections, there are not enough for four
			lines := append(w.lines(by.nodes == "3"), "ssl = on", "backend_sslmode = "+map[string]string{"-": "disable", "s": "require"}[by.tls])
			query := []string{"auth_query = 'select rolname, rolpassword from pg_authid where rolname = $1 and $1 like $q$%query$q$'", "auth_user = postgres", "auth_database = postgres"}
			f := serve(t, c, lines...)
			f.Must(copyFile(filepath.Join(w.dir, "pool_hba.conf"), filepath.Join(f.Dir, "pool_hba.conf")))
			for _, hba := range []string{"off", "on"} {
				f.reload("enable_pool_hba = "+hba, "auth_query = ''")
				w.run(f.Port, ours, hba, loginForms[:5], "-"+by.tls+by.nodes, "c"+by.tls+by.nodes)
				f.reload(query...)
				w.run(f.Port, ours, hba, loginForms[5:], "-"+by.tls+by.nodes, "c"+by.tls+by.nodes)
			}
			if strings.Contains(f.Log.String(), rightPassword) {
				t.Error("a password is in the log")
			}
		})
	}

	path := filepath.Join(golden.Testdata(t), "auth", "logins.table")
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	want := string(text)
	theirs := theirAnswers(want)
	if *askOriginal {
		theirs = w.original()
	}
	got := loginHeader + ours.text(theirs)
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !pam.Available {
		want = withoutPAM(want)
	}
	if got != want {
		t.Errorf("%s (- written there, + seen)\n%s", path, golden.Diff(want, got))
	}
}

func withoutPAM(table string) string {
	return strings.Join(slices.DeleteFunc(strings.SplitAfter(table, "\n"), func(l string) bool { return strings.HasPrefix(l, "pam ") }), "")
}

func loginHBA() (lines []string) {
	methods := map[string]string{"scram": "scram-sha-256", "md5scram": "md5"}
	for _, ask := range loginAsks {
		method := ask
		if m := methods[ask]; m != "" {
			method = m
		}
		var roles []string
		for _, form := range loginForms {
			roles = append(roles, ask+"_"+form)
		}
		lines = append(lines, "host all "+strings.Join(roles, ",")+" 127.0.0.1/32 "+method)
	}
	return append(lines, "host all all 127.0.0.1/32 trust")
}

// serversWithTLS gives every node a certificate.
func serversWithTLS(t testing.TB, c *testcluster.Cluster, ca *authority) {
	t.Helper()
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
		for _, n := range c.Nodes {
			c.MustExec(n.ID, fmt.Sprintf("alter system set %s = '%s'", setting, path))
		}
	}
	for _, n := range c.Nodes {
		c.MustExec(n.ID, "alter system set ssl = on")
		c.MustExec(n.ID, "select pg_reload_conf()")
	}
	for _, n := range c.Nodes {
		eventually(t, "the server has TLS", func() bool { return c.MustExec(n.ID, "show ssl") == "on" })
	}
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o600)
}

// loginWorld is what all logins have in common.
type loginWorld struct {
	t     *testing.T
	c     *testcluster.Cluster
	ca    *authority
	certs map[string]tls.Certificate
	dir   string // of files that both pgpools read
}

// pamService is a name that no machine has.
const pamService = "pgpool-go-logins"

func (w *loginWorld) rules() []string {
	return slices.DeleteFunc(slices.Clone(loginRules), func(r string) bool { return r == "pam" && !pam.Available })
}

// from is the address that leads to a rule.
func from(rule string) net.IP { return net.IPv4(127, 0, 0, byte(10+slices.Index(loginRules, rule))) }

// write makes pool_hba.conf, pool_passwd, the key to it, and who else judges passwords.
func (w *loginWorld) write() {
	w.t.Helper()
	w.dir = w.c.Dir
	put := func(name, text string, mode os.FileMode) string {
		path, err := w.c.WriteFile(name, text, mode)
		if err != nil {
			w.t.Fatal(err)
		}
		return path
	}
	const key = "a key"
	w.t.Setenv("PGPOOLKEYFILE", put("poolkey", key+"\n", 0o600))
	var passwd strings.Builder
	for _, ask := range loginAsks {
		for form, entry := range map[string]string{
			"plain": rightPassword, "text": "TEXT" + rightPassword, "aes": "AES" + conf.Encrypt([]byte(key), rightPassword),
			"md5": auth.StoredMD5(rightPassword, ask+"_md5"),
		} {
			fmt.Fprintf(&passwd, "%s_%s:%s\n", ask, form, entry)
		}
	}
	put("pool_passwd", passwd.String(), 0o600)

	dir := filepath.Join(w.c.Dir, "judge")
	w.c.Must(os.Mkdir(dir, 0o755))
	script := filepath.Join(dir, "script")
	w.c.Must(os.WriteFile(script, []byte("#!/bin/sh\n[ \"$(tr -d '\\000')\" = "+rightPassword+" ]\n"), 0o755))
	service := "auth required pam_exec.so expose_authtok quiet " + script + "\naccount required pam_permit.so\n"
	w.c.Must(os.WriteFile(filepath.Join(dir, pamService), []byte(service), 0o644))
	was := pam.Dir
	w.t.Cleanup(func() { pam.Dir = was })
	pam.Dir = dir
	if *askOriginal { // which finds it nowhere else
		path := filepath.Join("/etc/pam.d", pamService)
		w.t.Cleanup(func() { os.Remove(path) })
		w.c.Must(os.WriteFile(path, []byte(service), 0o644))
	}
	hba := "host all postgres 127.0.0.1/32 trust\n"
	for _, rule := range w.rules()[1:] {
		options := map[string]string{"pam": "pamservice=" + pamService,
			"ldap": fmt.Sprintf(`ldapserver=127.0.0.1 ldapport=%d ldapprefix="cn=" ldapsuffix=",dc=x"`, directoryThatKnows(w.t, rightPassword))}[rule]
		hba += fmt.Sprintf("host all all %s/32 %s %s\n", from(rule), rule, options)
	}
	put("pool_hba.conf", hba, 0o644)
	for _, name := range []string{"pool.crt", "pool.key", "ca.crt"} {
		text, err := os.ReadFile(w.ca.file(name))
		w.c.Must(err)
		put(name, string(text), 0o600)
	}
}

// directoryThatKnows is an LDAP server on a port of its own that lets in whoever knows
// the word.
func directoryThatKnows(t testing.TB, word string) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(patience))
				b := make([]byte, 512)
				n, _ := nc.Read(b)
				if n < 5 {
					return
				}
				code := byte(49) // invalid credentials
				if strings.Contains(string(b[:n]), word) {
					code = 0
				}
				nc.Write([]byte{0x30, 12, 2, 1, b[4], 0x61, 7, 10, 1, code, 4, 0, 4, 0})
				nc.Read(b) // until it has been read
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// lines are those of pgpool.conf that both read.
func (w *loginWorld) lines(three bool) []string {
	lines := backends(w.c, 0, 1, 1)
	if !three {
		lines = slices.DeleteFunc(backends(w.c, 1, 1, 1), func(l string) bool {
			name, _, _ := strings.Cut(l, " ")
			return strings.HasPrefix(name, "backend_") && strings.ContainsAny(name, "12")
		})
	}
	return append(lines, "pool_passwd = '"+filepath.Join(w.dir, "pool_passwd")+"'", "ssl_cert = '"+filepath.Join(w.dir, "pool.crt")+"'",
		"ssl_key = '"+filepath.Join(w.dir, "pool.key")+"'", "ssl_ca_cert = '"+filepath.Join(w.dir, "ca.crt")+"'")
}

// run has all log in that a pgpool with pool_hba on or off may be asked, some at once.
func (w *loginWorld) run(port int, table loginTable, hba string, forms []string, bys ...string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	work := make(chan loginCase)
	for range 4 {
		all.Go(func() {
			for k := range work {
				cells := make([]string, len(loginAsks))
				for i, ask := range loginAsks {
					cells[i] = w.login(port, k, ask+"_"+k.form)
				}
				mu.Lock()
				table[k] = cells
				mu.Unlock()
			}
		})
	}
	for _, rule := range w.rules() {
		if (rule == "off") != (hba == "off") {
			continue
		}
		for _, form := range forms {
			for _, password := range []string{"right", "wrong"} {
				for _, by := range bys {
					if k := (loginCase{rule, form, password, by}); k.tells() {
						work <- k
					}
				}
			}
		}
	}
	close(work)
	all.Wait()
}

// login tells how one login ends, a read on whatever server it goes to included.
func (w *loginWorld) login(port int, k loginCase, user string) string {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable", port, user))
	if err != nil {
		return err.Error()
	}
	cfg.Password = rightPassword
	if k.password == "wrong" && k.rule != "cert" {
		cfg.Password = "another"
	}
	if k.clientTLS() {
		cfg.TLSConfig = &tls.Config{InsecureSkipVerify: true}
		if k.rule == "cert" {
			whose := user
			if k.password == "wrong" {
				whose = "trust_none"
				if user == whose {
					whose = "md5_none"
				}
			}
			cfg.TLSConfig.Certificates = []tls.Certificate{w.certs[whose]}
		}
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from(k.rule)}}
	if k.rule == "off" {
		dialer.LocalAddr = nil
	}
	cfg.DialFunc = dialer.DialContext
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	ctx, stop := context.WithTimeout(w.t.Context(), patience)
	defer stop()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err == nil {
		var who string
		err = conn.QueryRow(ctx, "select current_user").Scan(&who)
		conn.Close(ctx)
		if err == nil && who != user {
			return "as " + who
		}
	}
	var no *pgconn.PgError
	switch {
	case err == nil:
		return "in"
	case errors.As(err, &no) && no.Code != "":
		return no.Code
	case ctx.Err() != nil:
		return "never"
	}
	return "?"
}

// text writes the table, rows of the same answers in one line.
func (table loginTable) text(theirs loginTable) string {
	var out strings.Builder
	for _, rule := range loginRules {
		for _, form := range loginForms {
			for _, password := range []string{"right", "wrong"} {
				bys := make(map[string][]string) // answers → how
				for k, ours := range table {
					if k.rule != rule || k.form != form || k.password != password {
						continue
					}
					cells := slices.Clone(ours)
					cells = append(cells, "|")
					for i := range loginAsks {
						cell := "-"
						if row := theirs[k]; row != nil {
							cell = row[i]
						}
						cells = append(cells, cell)
					}
					answers := ""
					for _, cell := range cells {
						answers += fmt.Sprintf(" %-5s", cell)
					}
					bys[answers] = append(bys[answers], k.by)
				}
				var lines []string
				for answers, list := range bys {
					slices.Sort(list)
					lines = append(lines, fmt.Sprintf("%-13s %-5s %-5s %-32s%s", rule, form, password, strings.Join(list, ","), strings.TrimRight(answers, " ")))
				}
				slices.Sort(lines)
				for _, line := range lines {
					fmt.Fprintln(&out, line)
				}
			}
		}
	}
	return fmt.Sprintf("%-13s %-5s %-5s %-32s %s | %s\n", "# rule", "entry", "pass", "by", columns(), columns()) + out.String()
}

func columns() string {
	out := ""
	for _, ask := range loginAsks {
		out += fmt.Sprintf("%-6.5s", ask)
	}
	return strings.TrimSuffix(out, " ")
}

// theirAnswers reads the original's part of a table back.
func theirAnswers(table string) loginTable {
	out := loginTable{}
	for line := range strings.Lines(table) {
		left, right, ok := strings.Cut(line, "|")
		key := strings.Fields(left)
		if !ok || strings.HasPrefix(line, "#") || len(key) < 4 || strings.Fields(right)[0] == "-" {
			continue
		}
		for by := range strings.SplitSeq(key[3], ",") {
			out[loginCase{key[0], key[1], key[2], by}] = strings.Fields(right)
		}
	}
	return out
}

// original asks Debian's pgpool what ours was asked. With ssl it speaks TLS to servers,
// too, so that "cs" and "-s" are one configuration of it, and "--" the other.
func (w *loginWorld) original() loginTable {
	table := loginTable{}
	for _, nodes := range []string{"1", "3"} {
		for _, ssl := range []string{"off", "on"} {
			for _, hba := range []string{"off", "on"} {
				bys := []string{"--" + nodes}
				if ssl == "on" {
					bys = []string{"-s" + nodes, "cs" + nodes}
				}
				port, stop := w.startOriginal(nodes == "3", "ssl = "+ssl, "enable_pool_hba = "+hba)
				w.run(port, table, hba, loginForms[:5], bys...)
				stop()
			}
		}
	}
	return table
}

func (w *loginWorld) startOriginal(three bool, lines ...string) (port int, stop func()) {
	t := w.t
	t.Helper()
	port, pcp := freePort(t), freePort(t)
	text := strings.Join(append(append(w.lines(three), lines...),
		"listen_addresses = '*'", fmt.Sprintf("port = %d", port), "socket_dir = '"+w.dir+"'", "pcp_socket_dir = '"+w.dir+"'", "wd_ipc_socket_dir = '"+w.dir+"'",
		fmt.Sprintf("pcp_port = %d", pcp), "logdir = '"+w.dir+"'", "pid_file_name = '"+filepath.Join(w.dir, "original.pid")+"'",
		"connection_cache = off", "num_init_children = 8", "child_life_time = 0"), "\n") + "\n"
	file, err := w.c.WriteFile("original.conf", text, 0o600)
	w.c.Must(err)
	pcpConf, err := w.c.WriteFile("pcp.conf", "", 0o600)
	w.c.Must(err)
	cmd, err := testcluster.Command(context.Background(), "/usr/sbin/pgpool", "-n", "-D", "-f", file, "-F", pcpConf, "-a", filepath.Join(w.dir, "pool_hba.conf"))
	w.c.Must(err)
	cmd.Env = append(cmd.Env, "PGPOOLKEYFILE="+os.Getenv("PGPOOLKEYFILE"))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	w.c.Must(cmd.Start())
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGINT)
		cmd.Wait()
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port))
		if err == nil {
			conn.Close(t.Context())
			return port, stop
		}
		if time.Now().After(deadline) {
			stop()
			t.Fatalf("the original does not start: %v\n%s", err, log.String())
		}
	}
}
