package testcluster

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestReplication(t *testing.T) {
	begin := time.Now()
	c := New(t, Options{Standbys: 2})
	t.Logf("primary and two standbys up in %v", time.Since(begin).Round(time.Millisecond))

	c.MustExec(0, "create table t (i int); insert into t select generate_series(1, 1000)")
	c.Must(c.WaitCatchup())
	for id := range 3 {
		if got := c.MustExec(id, "select count(*), pg_is_in_recovery() from t"); got != "1000|"+map[bool]string{true: "f", false: "t"}[id == 0] {
			t.Errorf("node %d answers %q", id, got)
		}
	}
	if got := c.MustExec(0, "select application_name, state from pg_stat_replication order by 1"); got != "node1|streaming\nnode2|streaming" {
		t.Errorf("pg_stat_replication: %q", got)
	}
	if got := c.MustExec(0, "select slot_name, active from pg_replication_slots order by 1"); got != "node1|t\nnode2|t" {
		t.Errorf("slots: %q", got)
	}
	if p, err := c.Primary(); err != nil || p != c.Nodes[0] {
		t.Errorf("primary is %v, %v", p, err)
	}
	if _, err := c.Nodes[1].Exec("insert into t values (1)"); err == nil || !strings.Contains(err.Error(), "read-only transaction") {
		t.Errorf("a write on a standby: %v", err)
	}
	if os.Geteuid() == 0 {
		if out, err := exec.Command("stat", "-c", "%u", "/proc/"+strconv.Itoa(c.Nodes[0].Pid())).Output(); err != nil || strings.TrimSpace(string(out)) == "0" {
			t.Errorf("server runs as user %s, %v", out, err)
		}
	}
}

func TestFailover(t *testing.T) {
	c := New(t, Options{Standbys: 2})
	old, next, other := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	c.MustExec(0, "create table t (i int)")
	c.Must(c.WaitCatchup())

	pids := append(Descendants(old.Pid()), old.Pid())
	c.Must(old.Kill())
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d survived Kill", pid)
		}
	}
	if old.Pid() != 0 {
		t.Error("a killed server has a pid")
	}
	c.Must(next.Promote())
	if p, err := c.Primary(); err != nil || p != next {
		t.Fatalf("primary is %v, %v", p, err)
	}
	c.Must(other.Follow(next))
	c.MustExec(1, "insert into t values (1)")

	c.Must(old.Start()) // the old primary writes what the new one never sees
	c.MustExec(0, "insert into t values (2), (3)")
	c.Must(old.Rewind(next))
	c.Must(c.WaitCatchup())
	for id := range 3 {
		if got := c.MustExec(id, "select * from t"); got != "1" {
			t.Errorf("node %d has %q", id, got)
		}
	}

	c.Must(other.Rebuild(next))
	c.Must(c.WaitCatchup())
	if got := c.MustExec(1, "select count(*) from pg_stat_replication where state = 'streaming'"); got != "2" {
		t.Errorf("%s standbys stream", got)
	}
}

func TestPause(t *testing.T) {
	c := New(t, Options{})
	n := c.Nodes[0]
	c.Must(n.Pause())
	conn, err := net.Dial("tcp", net.JoinHostPort(n.Host, strconv.Itoa(n.Port)))
	if err != nil {
		t.Fatalf("the kernel must still accept: %v", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(answer); !os.IsTimeout(err) {
		t.Errorf("a paused server answered %q, %v", answer, err)
	}
	c.Must(n.Resume())
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(answer); err != nil || answer[0] != 'N' {
		t.Errorf("after Resume: %q, %v", answer, err)
	}
	c.Must(n.Pause())
	c.Must(n.Stop(Fast)) // also stops a paused server
	c.Must(n.Start())
	c.Must(n.Restart(Immediate))
	c.MustExec(0, "select 1")
	port := n.Port
	c.Must(n.Kill())
	c.Must(n.Start())
	if c.MustExec(0, "show port") != strconv.Itoa(port) {
		t.Error("the port changed")
	}
}

func TestPasswordsAndHBA(t *testing.T) {
	c := New(t, Options{
		Password: "it's secret",
		HBA:      []string{"host all all 127.0.0.1/32 scram-sha-256"},
		Conf:     map[string]string{"work_mem": "7MB"},
		Standbys: 1,
	})
	if got := c.MustExec(1, "show work_mem"); got != "7MB" {
		t.Errorf("work_mem is %s", got)
	}
	psql, err := c.Program("psql")
	c.Must(err)
	login := func(url string) error {
		_, err := run(context.Background(), "", psql, "-XAtqw", "-c", "select 1", url)
		return err
	}
	n := c.Nodes[1]
	if err := login(n.URL()); err != nil {
		t.Errorf("login with the password: %v", err)
	}
	bare := "postgres://postgres@" + net.JoinHostPort(n.Host, strconv.Itoa(n.Port)) + "/postgres"
	if err := login(bare); err == nil {
		t.Error("login without a password")
	}
	c.Must(c.SetHBA("host all all 127.0.0.1/32 trust"))
	if err := login(bare); err != nil {
		t.Errorf("login after SetHBA: %v", err)
	}
}

func TestStatements(t *testing.T) {
	c := New(t, Options{LogStatements: true})
	n := c.Nodes[0]
	mark, err := n.LogMark()
	c.Must(err)
	c.MustExec(0, "select 1;\nselect\n  'two lines';\nprepare p as select 3; execute p;")
	got, err := n.Statements(mark, "psql")
	c.Must(err)
	if want := []string{"select 1;", "select\n  'two lines';", "prepare p as select 3;", "execute p;"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	mark, err = n.LogMark()
	c.Must(err)
	if _, err := n.Exec("select 1/0"); err == nil {
		t.Error("no error from 1/0")
	}
	entries, err := n.Entries(mark)
	c.Must(err)
	if !slices.ContainsFunc(entries, func(e LogEntry) bool { return e.Code == "22012" && e.Statement == "select 1/0" }) {
		t.Errorf("no division by zero in %+v", entries)
	}
	if !strings.Contains(n.Log(), "division by zero") {
		t.Error("no division by zero in the plain log")
	}
}

func TestRan(t *testing.T) {
	for message, want := range map[string]string{
		"statement: select 1":                   "select 1",
		"execute <unnamed>: select $1\nfrom t":  "select $1\nfrom t",
		"execute s1/c1: select 2":               "select 2",
		"execute fetch from s1/c1: select 2":    "select 2",
		"connection received: host=[local]":     "",
		`duration: 0.1 ms  parse s1: select 2`:  "",
		"fastpath function call: \"now\" (OID)": `"now" (OID)`,
	} {
		if got := (LogEntry{Message: message}).Ran(); got != want {
			t.Errorf("%q: %q", message, got)
		}
	}
}

func TestPrimaryMovesToAnotherPortWhenItsOwnIsTaken(t *testing.T) {
	c := New(t, Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	taken, _ := strconv.Atoi(port)
	_, err = Start(context.Background(), Options{Ports: []int{taken}})
	if err == nil || !strings.Contains(err.Error(), "could not bind") {
		t.Errorf("a given port that is taken: %v", err)
	}
	_, err = Start(context.Background(), Options{Standbys: 1, Ports: []int{taken}})
	if err == nil {
		t.Error("one port for two nodes is no error")
	}
	c.MustExec(0, "select 1")
}

func TestDirStays(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real PostgreSQL servers: skipped by -short")
	}
	dir, err := os.MkdirTemp("", "kept-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := Start(context.Background(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(context.Background(), Options{Dir: dir}); err == nil {
		t.Error("a second cluster in the same folder")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node0", "PG_VERSION")); err != nil {
		t.Error(err)
	}
}

func TestBinDirSaysWhatIsMissing(t *testing.T) {
	if _, err := BinDir(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no PostgreSQL server programs") {
		t.Errorf("got %v", err)
	}
}

// The process below is killed with a cluster running; nothing may stay.
func TestNothingOutlivesTheProcess(t *testing.T) {
	if os.Getenv("TESTCLUSTER_VICTIM") != "" {
		c, err := Start(context.Background(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("\nbase " + filepath.Dir(c.Dir) + " " + strconv.Itoa(c.Nodes[0].Pid()) + "\n")
		select {}
	}
	if testing.Short() {
		t.Skip("needs real PostgreSQL servers: skipped by -short")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "TESTCLUSTER_VICTIM=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(text.String(), "\nbase ") || !strings.HasSuffix(text.String(), "\n") {
		k, err := out.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, text.String())
		}
		text.Write(buf[:k])
	}
	_, after, _ := strings.Cut(text.String(), "\nbase ")
	words := strings.Fields(after)
	pid, _ := strconv.Atoi(words[1])
	if !alive(pid) {
		t.Fatalf("no server at %q", text.String())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	err = within(patience, "the reaper", func() (bool, error) {
		_, err := os.Stat(words[0])
		return os.IsNotExist(err) && !alive(pid), nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A cluster serves the next test unless somebody has changed its servers.
func TestClustersArePassedOn(t *testing.T) {
	o := Options{Standbys: 1, Conf: map[string]string{"work_mem": "1234kB"}} // nobody else's
	use := func(what func(t *testing.T, c *Cluster)) (used *Cluster) {
		t.Run("", func(t *testing.T) {
			used = New(t, o)
			what(t, used)
		})
		return used
	}
	first := use(func(t *testing.T, c *Cluster) {
		c.MustExec(0, "create role joe login; create table t as select 1 as i; create database d; alter database d owner to joe; alter role joe set work_mem = '1MB'")
		c.MustExec(0, "select pg_create_logical_replication_slot('s', 'test_decoding'); select 1/nullif(1, 1)")
		c.Must(c.WaitCatchup())
		c.MustExec(1, "select from t")
	})
	empty := func(t *testing.T, c *Cluster) {
		for node := range c.Nodes {
			if out := c.MustExec(node, `select count(*) from pg_database; select relname from pg_class where oid >= 16384;
				select rolname from pg_roles where rolname !~ '^pg_' order by 1; select slot_name from pg_replication_slots where slot_type = 'logical'`); out != "3\npostgres\nreplicator" {
				t.Errorf("node %d has %q", node, out)
			}
			if log := c.Nodes[node].Log(); strings.Contains(log, "ready to accept") {
				t.Errorf("old log on node %d: %s", node, log)
			}
		}
	}
	if use(empty) != first {
		t.Error("a cluster that was left as it was is not passed on")
	}
	o.Standbys = 0
	for what, change := range map[string]func(t *testing.T, c *Cluster){
		"restarted":       func(t *testing.T, c *Cluster) { c.Must(c.Nodes[0].Restart(Fast)) },
		"configured":      func(t *testing.T, c *Cluster) { c.MustExec(0, "alter system set work_mem = '1MB'") },
		"with a password": func(t *testing.T, c *Cluster) { c.MustExec(0, "alter role postgres password 'x'") },
		"with a template": func(t *testing.T, c *Cluster) {
			_, err := c.Nodes[0].ExecIn("template1", "create table t ()")
			c.Must(err)
		},
	} {
		if c := use(change); takeSpare(o) == c {
			t.Errorf("a cluster %s is passed on", what)
		}
	}
	first = use(func(t *testing.T, c *Cluster) { t.Log("nothing") })
	if takeSpare(o) != first {
		t.Error("a lone primary is not passed on")
	}
	first.Must(first.Close())
}
