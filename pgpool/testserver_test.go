package pgpool_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
	"pgpool-go/tools/testcluster"
)

// patience is for what other processes do; a test that needs it all has failed.
const patience = 30 * time.Second

// front is a pgpool in this process in front of a real cluster.
type front struct {
	*testcluster.Cluster
	Server *pgpool.Server
	Port   int
	Pcp    int    // the administrative port; accounts are those of pcp.conf in Dir
	Dir    string // of its files; its Unix socket is in Socket
	Socket string
	Log    *record

	mode string // forced upon it by TestModes; empty: what the test says
	t    testing.TB
}

// Clusters: each test asks testcluster.New for one and has it for itself, but
// starts it only if no earlier test has left one with the same Options as it
// found it. So ask for what others ask for (2 standbys as usual does, or none),
// leave tables and roles lying about, and stop or configure servers only where
// the test is about that: a start costs a second, a cluster taken over a tenth.

// usual is a cluster with two standbys that share the reads statement by
// statement, and pgpool with the given lines of pgpool.conf besides.
func usual(t testing.TB, lines ...string) *front {
	t.Helper()
	c := servers(t, testcluster.Options{Standbys: 2})
	return serve(t, c, append(backends(c, 0, 1, 1), lines...)...)
}

// backends are the lines that name a cluster's nodes, with their weights.
func backends(c *testcluster.Cluster, weights ...int) []string {
	lines := []string{"backend_clustering_mode = 'streaming_replication'", "load_balance_mode = on", "statement_level_load_balance = on"}
	for i, n := range c.Nodes {
		lines = append(lines,
			fmt.Sprintf("backend_hostname%d = '%s'", i, n.Host),
			fmt.Sprintf("backend_port%d = %d", i, n.Port),
			fmt.Sprintf("backend_weight%d = %d", i, weights[i]),
			fmt.Sprintf("backend_data_directory%d = '%s'", i, n.DataDir),
			fmt.Sprintf("backend_application_name%d = '%s'", i, n.Name))
	}
	return append(lines,
		"sr_check_period = 1", "sr_check_user = 'postgres'", "sr_check_database = 'postgres'",
		"health_check_period = 1", "health_check_user = 'postgres'", "health_check_database = 'postgres'")
}

// serve starts pgpool with a configuration of these lines, the last of a name
// counting. Ports and folders are its own. It ends with the test.
func serve(t testing.TB, c *testcluster.Cluster, lines ...string) *front {
	t.Helper()
	for try := 1; ; try++ {
		f, err := start(t, c, lines)
		if err == nil {
			return f
		}
		if !strings.Contains(err.Error(), "address already in use") || try == 5 {
			t.Fatalf("pgpool did not start: %v", err)
		}
	}
}

func start(t testing.TB, c *testcluster.Cluster, lines []string) (*front, error) {
	t.Helper()
	if *mode != "" {
		lines = append(slices.Clone(lines), "backend_clustering_mode = '"+*mode+"'")
	}
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "pgpool-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // for clients of another user
		t.Fatal(err)
	}
	port, pcpPort := freePort(t), freePort(t)
	own := []string{
		"listen_addresses = '127.0.0.1'", fmt.Sprintf("port = %d", port), "unix_socket_directories = '" + dir + "'",
		"pcp_listen_addresses = '127.0.0.1'", fmt.Sprintf("pcp_port = %d", pcpPort), "pcp_socket_dir = '" + dir + "'",
		"wd_ipc_socket_dir = '" + dir + "'", "work_dir = '" + dir + "'",
		"pid_file_name = '" + filepath.Join(dir, "pgpool.pid") + "'",
		"log_line_prefix = '%m: %a pid %p: '",
	}
	for i, l := range lines {
		if id, ok := strings.CutPrefix(l, "pgpool_node_id = "); ok { // stands in a file of its own
			lines = slices.Delete(slices.Clone(lines), i, i+1)
			if err := os.WriteFile(filepath.Join(dir, "pgpool_node_id"), []byte(id+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	text := strings.Join(append(own, lines...), "\n") + "\n"
	path := filepath.Join(dir, "pgpool.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &front{Cluster: c, Port: port, Pcp: pcpPort, Dir: dir, Socket: dir, Log: &record{}, mode: *mode, t: t}
	f.Server, err = pgpool.New(pgpool.Options{Paths: conf.Paths{Conf: path, Hba: filepath.Join(dir, "pool_hba.conf"), Pcp: filepath.Join(dir, "pcp.conf")}, DiscardStatus: true, Assertions: true, Stderr: f.Log})
	if err != nil {
		return nil, err
	}
	if err := f.run(); err != nil {
		return nil, err
	}
	return f, nil
}

// run starts the server, and ends it with the test.
func (f *front) run() error {
	f.t.Helper()
	ctx, stop := context.WithTimeout(f.t.Context(), patience)
	defer stop()
	if err := f.Server.Start(ctx); err != nil {
		return err
	}
	f.t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		agreed := f.agreed()
		if err := f.Server.Shutdown(ctx, pgpool.Fast); err != nil {
			f.t.Errorf("shutdown: %v", err)
		}
		if strings.Contains(f.Log.String(), "assertion failed") {
			f.t.Error("an assertion has failed, see the log")
		}
		f.agree(agreed)
		if f.t.Failed() {
			f.t.Logf("last words of pgpool:\n%s", f.Log.tail(40))
		}
	})
	return nil
}

func freePort(t testing.TB) int {
	t.Helper()
	port, err := testcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// reload adds lines to the configuration file, where the last of a name counts,
// and has pgpool read it again.
func (f *front) reload(lines ...string) {
	f.t.Helper()
	path := filepath.Join(f.Dir, "pgpool.conf")
	text, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, strings.Join(lines, "\n")+"\n"...), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := f.Server.Reload(); err != nil {
		f.t.Fatal(err)
	}
}

// URL is where a driver connects to pgpool; options are pairs of the query part.
func (f *front) URL(user, database string, options ...string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(f.Port)), Path: "/" + database}
	q := url.Values{"sslmode": {"disable"}}
	for i := 0; i+1 < len(options); i += 2 {
		q.Set(options[i], options[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // pgx takes a plus for a plus
	return u.String()
}

// connect is a client of pgpool, in the database postgres as superuser.
func (f *front) connect(options ...string) *pgx.Conn {
	f.t.Helper()
	c, err := pgx.Connect(f.t.Context(), f.URL(testcluster.Superuser, "postgres", options...))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// plain is a client that speaks only the simple protocol.
func (f *front) plain(options ...string) *plain {
	f.t.Helper()
	return &plain{f.connect(options...).PgConn(), f.t}
}

type plain struct {
	*pgconn.PgConn
	t testing.TB
}

// run sends a Query message and returns the rows of all its statements: columns
// parted by '|', NULL as '\N', one row a line.
func (p *plain) run(sql string) (string, error) {
	var out []string
	results, err := p.Exec(p.t.Context(), sql).ReadAll()
	for _, r := range results {
		for _, row := range r.Rows {
			out = append(out, line(row))
		}
	}
	return strings.Join(out, "\n"), err
}

// must is run for statements that succeed.
func (p *plain) must(sql string) string {
	p.t.Helper()
	out, err := p.run(sql)
	if err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func line(row [][]byte) string {
	fields := make([]string, len(row))
	for i, v := range row {
		if fields[i] = string(v); v == nil {
			fields[i] = `\N`
		}
	}
	return strings.Join(fields, "|")
}

// program runs one of PostgreSQL's client programs against pgpool to its end. It
// connects by the environment, so args need not say where.
func (f *front) program(stdin, name string, args ...string) (stdout, stderr string, err error) {
	f.t.Helper()
	path, err := f.Program(name)
	if err != nil {
		f.t.Fatal(err)
	}
	cmd, err := testcluster.Command(f.t.Context(), path, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, f.env()...)
	var out, words bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &words
	err = cmd.Run()
	return out.String(), words.String(), err
}

// mustProgram is program for what shall end well and have nothing to complain of.
func (f *front) mustProgram(stdin, name string, args ...string) string {
	f.t.Helper()
	out, words, err := f.program(stdin, name, args...)
	if err != nil || strings.Contains(words, "error:") {
		f.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, words, out)
	}
	return out
}

// env points libpq at pgpool.
func (f *front) env() []string {
	return []string{"PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", f.Port), "PGUSER=" + testcluster.Superuser,
		"PGDATABASE=postgres", "PGSSLMODE=disable", "PGAPPNAME=" + f.t.Name()}
}

// node tells which node listens on a port, as inet_server_port() gives it.
func (f *front) node(port string) int {
	f.t.Helper()
	for _, n := range f.Nodes {
		if strconv.Itoa(n.Port) == port {
			return n.ID
		}
	}
	f.t.Fatalf("port %q is no node's", port)
	return -1
}

// eventually waits until done, for what others do and tell nobody.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// record keeps a log. Safe for all goroutines.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// forget begins anew.
func (r *record) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Reset()
}

func (r *record) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(r.String()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
