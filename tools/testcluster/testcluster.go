// Package testcluster makes real PostgreSQL clusters on demand: a primary and
// its streaming standbys, for tests, for the demo and the benchmark, and for
// pgpool_setup.
//
// It answers where PostgreSQL's programs are, starts, stops, kills, pauses,
// promotes and rewinds servers, and says what they logged. Started by root it
// runs them as an unprivileged user. Nothing it started outlives the process,
// however that ends (see reaper.go), unless Options.Dir asks for it. It knows
// nothing of pgpool. A new way to treat a server is a method of Node (node.go),
// a new way to join servers belongs to replicate.go, a new default to conf.go.
package testcluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Superuser is the one role that every cluster has; it may always log in over
// the Unix socket without a password.
const Superuser = "postgres"

// Options say how a cluster should look. The zero value is a lone primary of
// the newest PostgreSQL found, with trust authentication.
type Options struct {
	Standbys int      // streaming standbys beside the primary
	BinDir   string   // PostgreSQL's programs; empty: see BinDir
	Password string   // the superuser's password; empty: none
	HBA      []string // pg_hba.conf lines after those for our own use; nil: trust on loopback and socket

	Conf map[string]string // settings of every node, over the defaults of conf.go

	// LogStatements lets Statements tell what a node was asked to run. It
	// needs PostgreSQL 15 or later.
	LogStatements bool

	// OwnIdentity runs initdb for this cluster alone. Otherwise clusters are
	// copies of one template and share its system identifier.
	OwnIdentity bool

	// Apart makes the standbys servers that know nothing of each other nor of the
	// first: what is done on one is not done on the others.
	Apart bool

	// Dir is where the cluster is made instead of a temporary folder. Its
	// files then stay, and its servers run on when the process ends; Close
	// still stops them.
	Dir string

	Ports []int // a port per node instead of free ones picked at run time
}

// Cluster is a primary, Nodes[0] at first, and its standbys.
type Cluster struct {
	Nodes []*Node
	Dir   string // folder of the nodes' data, logs and Unix sockets

	opts Options
	bin  string
	tb   TB        // nil outside of tests
	made condition // in which New gives it to a test
}

// TB is what a cluster needs of a testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Skip(args ...any)
}

// New gives a test a running cluster of its own until it ends. That is one that
// an earlier test has left behind, if there is one with the same options (see
// spare.go), so ask for few kinds. It skips the test under -short and fails it
// where PostgreSQL is missing.
func New(tb TB, o Options) *Cluster {
	tb.Helper()
	if f := flag.Lookup("test.short"); f != nil && f.Value.String() == "true" {
		tb.Skip("needs real PostgreSQL servers: skipped by -short")
	}
	c := takeSpare(o)
	if c == nil {
		var err error
		if c, err = Start(context.Background(), o); err != nil {
			tb.Fatalf("%v", err)
		}
		c.made = c.condition()
	}
	c.tb = tb
	tb.Cleanup(func() {
		if tb.Failed() {
			for _, n := range c.Nodes {
				tb.Logf("last words of %s:\n%s", n.Name, tail(n.Log(), 15))
			}
		}
		if err := c.giveBack(); err != nil {
			tb.Logf("%v", err)
		}
	})
	return c
}

// Start makes a running cluster whose standbys stream. The caller closes it.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	bin, err := BinDir(o.BinDir)
	if err != nil {
		return nil, err
	}
	if len(o.Ports) > 0 && len(o.Ports) != o.Standbys+1 {
		return nil, fmt.Errorf("testcluster: %d ports given for %d nodes", len(o.Ports), o.Standbys+1)
	}
	c := &Cluster{opts: o, bin: bin}
	if c.Dir, err = clusterDir(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	for id := range o.Standbys + 1 {
		name := "node" + strconv.Itoa(id)
		n := &Node{ID: id, Name: name, Host: "127.0.0.1", DataDir: filepath.Join(c.Dir, name), SocketDir: c.Dir, cluster: c}
		if len(o.Ports) > 0 {
			n.Port = o.Ports[id]
		}
		c.Nodes = append(c.Nodes, n)
	}
	if err := c.fill(ctx); err != nil {
		return nil, err
	}
	primary, standbys := c.Nodes[0], c.Nodes[1:]
	if o.Apart {
		standbys = nil
		if err := each(c.Nodes[1:], func(n *Node) error { return n.firstStart(ctx) }); err != nil {
			return nil, err
		}
	}
	if err := primary.firstStart(ctx); err != nil {
		return nil, err
	}
	var first strings.Builder
	for _, n := range standbys {
		fmt.Fprintf(&first, "select pg_create_physical_replication_slot(%s, true) \\g /dev/null\n", quote(n.Name))
	}
	if o.Password != "" {
		fmt.Fprintf(&first, "set synchronous_commit = local; alter role "+Superuser+" password %s;\n", quote(o.Password))
	}
	if first.Len() == 0 {
		return c, nil
	}
	lsn, err := primary.Exec(first.String() + "select pg_current_wal_flush_lsn()")
	if err != nil {
		return nil, err
	}
	err = each(standbys, func(n *Node) error {
		if err := n.writeStandby(primary); err != nil {
			return err
		}
		return n.firstStart(ctx)
	})
	if err != nil {
		return nil, err
	}
	if err := c.waitReplay(primary, lsn); err != nil {
		return nil, err
	}
	return c, nil
}

// fill makes the data folders of all nodes, the standbys' as copies of the
// primary's before its first start.
func (c *Cluster) fill(ctx context.Context) error {
	from, to := c.Nodes[0].DataDir, c.Nodes[1:]
	if c.opts.OwnIdentity || c.opts.Dir != "" {
		if err := initdb(ctx, c.bin, from); err != nil {
			return err
		}
	} else {
		var err error
		if from, err = template(ctx, c.bin); err != nil {
			return err
		}
		to = c.Nodes
	}
	return each(to, func(n *Node) error {
		_, err := run(ctx, "", "cp", "-a", from, n.DataDir)
		return err
	})
}

// each does something with several nodes at once.
func each(nodes []*Node, do func(*Node) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Close stops every server at once and removes the cluster's files; those in
// Options.Dir stay.
func (c *Cluster) Close() error {
	err := each(c.Nodes, func(n *Node) error {
		err := n.Stop(Immediate)
		if err != nil {
			err = errors.Join(err, n.Kill())
		}
		n.forgetSharedMemory()
		return err
	})
	if c.opts.Dir == "" {
		err = errors.Join(err, os.RemoveAll(c.Dir))
	}
	return err
}

// Must ends the test if err is not nil, and panics outside of a test.
func (c *Cluster) Must(err error) {
	if err == nil {
		return
	}
	if c.tb == nil {
		panic(err)
	}
	c.tb.Helper()
	c.tb.Fatalf("%v", err)
}

// MustExec is Exec on a node for callers that expect it to succeed.
func (c *Cluster) MustExec(node int, sql string) string {
	if c.tb != nil {
		c.tb.Helper()
	}
	out, err := c.Nodes[node].Exec(sql)
	c.Must(err)
	return out
}

// SetHBA replaces the lines that Options.HBA gave on every node, and makes
// the running ones take them up.
func (c *Cluster) SetHBA(lines ...string) error {
	c.opts.HBA = append([]string{}, lines...)
	for _, n := range c.Nodes {
		if err := n.writeHBA(); err != nil {
			return err
		}
		if err := n.Reload(); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile puts a file into the cluster's folder, owned by the user the
// servers run as, and returns its path.
func (c *Cluster) WriteFile(name, text string, mode os.FileMode) (string, error) {
	path := filepath.Join(c.Dir, name)
	if err := writeOwned(path, text, mode); err != nil {
		return "", err
	}
	return path, nil
}

// The template is made once per process and PostgreSQL version.
var templates struct {
	sync.Mutex
	byBin map[string]string
}

func template(ctx context.Context, bin string) (string, error) {
	templates.Lock()
	defer templates.Unlock()
	if dir, ok := templates.byBin[bin]; ok {
		return dir, nil
	}
	base, err := baseDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "template"+strconv.Itoa(len(templates.byBin)))
	if err := initdb(ctx, bin, dir); err != nil {
		return "", err
	}
	if templates.byBin == nil {
		templates.byBin = make(map[string]string)
	}
	templates.byBin[bin] = dir
	return dir, nil
}

// initdb makes a data folder that reads node.conf and knows the replication role.
func initdb(ctx context.Context, bin, dir string) error {
	_, err := run(ctx, "", filepath.Join(bin, "initdb"), "-D", dir, "-U", Superuser, "-A", "trust",
		"--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions")
	if err != nil {
		return err
	}
	conf, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	_, err = fmt.Fprintf(conf, "\ninclude_if_exists = '%s'\n", nodeConf)
	if err := errors.Join(err, conf.Close()); err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	// A copy does not start as a standby with limits below those noted in it: the
	// lowest ones leave Options.Conf all choice.
	_, err = run(ctx, "create role "+replicator+" login replication\n",
		filepath.Join(bin, "postgres"), "--single", "-F", "-D", dir,
		"-c", "max_connections=4", "-c", "max_wal_senders=0", "-c", "max_worker_processes=0", "-c", "max_locks_per_transaction=10", "postgres")
	return err
}

// within polls until done answers true or fails, for things that other
// processes do and that tell nobody.
func within(limit time.Duration, what string, done func() (bool, error)) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		ok, err := done()
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("testcluster: %s took longer than %v", what, limit)
		}
	}
}

// quote makes an SQL string literal; conf files understand it as well.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
