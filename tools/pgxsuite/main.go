// Command pgxsuite runs the test suite of the Go driver pgx, as it lies in the
// module cache, directly against a primary and then through pgpool-go in front
// of that primary and two standbys, and compares: whatever passes directly has to
// pass through us.
//
// The few tests that cannot are in explained (explained.go), each with its
// reason. The suite's TLS and OAuth tests need servers of another kind and skip
// themselves.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"pgpool-go/tools/testcluster"
)

const module = "github.com/jackc/pgx/v5"

func main() {
	program := flag.String("pgpool", "bin/pgpool", "the pgpool program")
	pkgs := flag.String("packages", "./...", "the packages of pgx to test")
	only := flag.String("run", "", "only the tests that match, as in go test -run")
	mode := flag.String("pool-mode", "session", "pgpool's pool_mode: session or transaction")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *program, *mode, *pkgs, *only)
	stop()
	if err = errors.Join(err, testcluster.CleanUp()); err != nil {
		fmt.Fprintln(os.Stderr, "pgxsuite:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, program, mode, pkgs, only string) (err error) {
	suite, err := copySuite(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(suite)
	c, err := makeCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	pool, err := startPgpool(ctx, program, mode, c)
	if err != nil {
		return err
	}
	defer pool.stop()

	test := func(what string, port int, socket, pkgs, only string) (results, error) {
		if err := freshDatabase(c, suite); err != nil {
			return nil, err
		}
		r, err := goTest(ctx, suite, port, socket, pkgs, only)
		if err == nil {
			fmt.Printf("%-8s %s\n", what, r)
		}
		return r, err
	}
	primary := c.Nodes[0]
	direct, err := test("direct", primary.Port, primary.SocketDir, pkgs, only)
	if err != nil {
		return err
	}
	through, err := test("through", pool.port, c.Dir, pkgs, only)
	if err != nil {
		return err
	}
	var bad []string
	for _, name := range direct.passed() {
		if through[name].outcome == "pass" || name.test == "" {
			continue
		}
		why, ok := explained[name.top()]
		if !ok && mode == "transaction" {
			why, ok = explainedInTurns[name.top()]
		}
		if ok {
			fmt.Printf("explained: %s: %s\n", name, why)
			continue
		}
		// The suite measures time here and there: what fails because the machine
		// was busy passes alone.
		again, err := test("again", pool.port, c.Dir, "./"+name.pkg, "^"+name.top().test+"$")
		if err != nil {
			return err
		}
		fmt.Printf("%s %s through pgpool, repeated alone: %s\n%s", name, or(through[name].outcome, "not run"), or(again[name].outcome, "not run"), through[name].output)
		if again[name].outcome != "pass" {
			bad = append(bad, name.String())
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%d tests pass directly and not through pgpool: %s; its log ends:\n%s", len(bad), strings.Join(bad, ", "), pool.lastWords())
	}
	fmt.Println("every test that passes directly passes through pgpool, but for those explained")
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// copySuite copies pgx out of the module cache, where nothing can be written.
func copySuite(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("where pgx is: %w", err)
	}
	dir, err := os.MkdirTemp("", "pgxsuite-")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(dir, os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	return dir, nil
}

// makeCluster makes servers as the suite expects them. A commit waits for the
// standbys to have applied it: the suite reads what it has just written.
func makeCluster(ctx context.Context) (*testcluster.Cluster, error) {
	c, err := testcluster.Start(ctx, testcluster.Options{Standbys: 2, HBA: []string{
		"local all all trust",
		"host all pgx_md5 127.0.0.1/32 md5",
		"host all pgx_scram 127.0.0.1/32 scram-sha-256",
		"host all pgx_pw 127.0.0.1/32 password",
		"host all postgres 127.0.0.1/32 trust",
	}})
	if err != nil {
		return nil, err
	}
	_, err = c.Nodes[0].Exec("alter system set synchronous_standby_names = 'ANY 2 (*)'; alter system set synchronous_commit = remote_apply")
	if err == nil {
		err = c.Nodes[0].Reload()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// freshDatabase makes the suite's database and roles anew, by the suite's own script.
func freshDatabase(c *testcluster.Cluster, suite string) error {
	setup, err := os.ReadFile(filepath.Join(suite, "testsetup", "postgresql_setup.sql"))
	if err != nil {
		return err
	}
	_, err = c.Nodes[0].Exec(`
drop database if exists pgx_test with (force);
select format('drop role %I', rolname) from pg_roles where oid >= 16384 and rolname <> 'replicator' \gexec
create database pgx_test;
`)
	if err != nil {
		return err
	}
	_, err = c.Nodes[0].ExecIn("pgx_test", string(setup))
	return err
}

// name is a test: its package below the module, and its name with those of subtests.
type name struct{ pkg, test string }

func (n name) String() string { return strings.TrimPrefix(n.pkg+"."+n.test, ".") }

// top is the test that a subtest belongs to.
func (n name) top() name {
	n.test, _, _ = strings.Cut(n.test, "/")
	return n
}

type result struct{ outcome, output string }

type results map[name]result

// passed are the tests that passed, subtests included, in order.
func (r results) passed() []name {
	var names []name
	for n, x := range r {
		if x.outcome == "pass" {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b name) int { return strings.Compare(a.String(), b.String()) })
	return names
}

func (r results) String() string {
	count := make(map[string]int)
	for n, x := range r {
		if n.test != "" {
			count[x.outcome]++
		}
	}
	return fmt.Sprintf("%d passed, %d failed, %d skipped", count["pass"], count["fail"], count["skip"])
}

// goTest runs the suite against one port.
func goTest(ctx context.Context, suite string, port int, socket, pkgs, only string) (results, error) {
	tcp := func(user string) string {
		return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=secret dbname=pgx_test", port, user)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=15m", "-run="+only, pkgs)
	cmd.Dir = suite
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PG") }),
		"PGX_TEST_DATABASE="+tcp("pgx_md5"), "PGX_TEST_TCP_CONN_STRING="+tcp("pgx_md5"), "PGX_TEST_MD5_PASSWORD_CONN_STRING="+tcp("pgx_md5"),
		"PGX_TEST_PLAIN_PASSWORD_CONN_STRING="+tcp("pgx_pw"),
		"PGX_TEST_SCRAM_PASSWORD_CONN_STRING="+tcp("pgx_scram")+" channel_binding=disable",
		fmt.Sprintf("PGX_TEST_UNIX_SOCKET_CONN_STRING=host=%s port=%d user=postgres dbname=pgx_test", socket, port))
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r, readErr := readResults(out)
	err = cmd.Wait() // tests that fail are no error here
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		err = nil
	}
	if err = errors.Join(ctx.Err(), readErr, err); err != nil || len(r) == 0 {
		return nil, fmt.Errorf("go test: %w\n%s", err, words.String())
	}
	return r, nil
}

// random is what the names of some subtests have of temporary folders.
var random = regexp.MustCompile(`\d{6,}`)

func readResults(out io.Reader) (results, error) {
	r := make(results)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return nil, err
		}
		var e struct{ Action, Package, Test, Output string }
		if json.Unmarshal(line, &e) != nil || !strings.HasPrefix(e.Package, module) {
			continue // of the build
		}
		n := name{strings.TrimPrefix(strings.TrimPrefix(e.Package, module), "/"), random.ReplaceAllString(e.Test, "#")}
		x := r[n]
		switch e.Action {
		case "output":
			x.output += e.Output
		case "pass", "fail", "skip":
			x.outcome = e.Action
		}
		r[n] = x
	}
}
