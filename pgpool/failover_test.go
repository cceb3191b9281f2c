package pgpool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgpool-go/pgpool/cluster"
	"pgpool-go/tools/testcluster"
)

// placeholders are all that a command may contain.
const placeholders = "d=%d h=%h p=%p D=%D m=%m H=%H M=%M P=%P r=%r R=%R N=%N S=%S %%"

// failoverScript is an operator's script: it notes its arguments, and does what its first
// argument says: failover promotes the new main node if the primary has failed.
func (f *front) failoverScript() (path, notes string) {
	f.t.Helper()
	psql, err := f.Program("psql")
	if err != nil {
		f.t.Fatal(err)
	}
	notes = filepath.Join(f.Dir, "notes")
	text := `#!/bin/sh
echo "$@" >> ` + notes + `
echo "hello from $1"
for a in "$@"; do case $a in d=*) d=${a#d=};; P=*) P=${a#P=};; r=*) r=${a#r=};; esac; done
if [ "$1" = failover ] && [ "$d" = "$P" ] && [ -n "$r" ]; then
	` + psql + ` -X -h 127.0.0.1 -p $r -U postgres -d postgres -Atc 'select pg_promote()'
fi
`
	path = filepath.Join(f.Dir, "script.sh")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		f.t.Fatal(err)
	}
	return path, notes
}

// noted waits until the script has been run with n lines in all, and returns the
// last ones with ports and folders in words, as an original in the same place gave
// them to the same script.
func (f *front) noted(path string, n, last int) []string {
	f.t.Helper()
	var lines []string
	eventually(f.t, fmt.Sprintf("%d commands", n), func() bool {
		text, _ := os.ReadFile(path)
		lines = strings.Split(strings.TrimSpace(string(text)), "\n")
		return len(lines) >= n && string(text) != ""
	})
	if len(lines) != n {
		f.t.Errorf("%d commands were run, want %d:\n%s", len(lines), n, strings.Join(lines, "\n"))
	}
	var words []string
	for _, node := range f.Nodes {
		words = append(words, node.DataDir, fmt.Sprintf("n%d", node.ID), strconv.Itoa(node.Port), fmt.Sprintf("port%d", node.ID))
	}
	text := strings.NewReplacer(words...).Replace(strings.Join(lines[max(0, len(lines)-last):], "\n"))
	return strings.Split(text, "\n")
}

// load are clients that write and clients that read, each on one connection for
// as long as it lasts.
type load struct {
	f       *front
	stop    context.CancelFunc
	clients sync.WaitGroup

	mu     sync.Mutex
	acked  []string // values whose INSERT was confirmed
	errs   []string // of writers
	reads  atomic.Int64
	failed []string     // reads that failed
	last   atomic.Int64 // when the last write was confirmed
	gap    atomic.Int64 // the longest time between two confirmations
}

func (f *front) load(writers, readers int) *load {
	ctx, stop := context.WithCancel(f.t.Context())
	l := &load{f: f, stop: stop}
	l.last.Store(time.Now().UnixNano())
	for i := range writers {
		l.clients.Go(func() { l.write(ctx, i) })
	}
	for range readers {
		l.clients.Go(func() { l.read(ctx) })
	}
	return l
}

func (l *load) connect(ctx context.Context) *pgx.Conn {
	for ctx.Err() == nil {
		c, err := pgx.Connect(ctx, l.f.URL(testcluster.Superuser, "postgres", "default_query_exec_mode", "simple_protocol"))
		if err == nil {
			return c
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func (l *load) write(ctx context.Context, id int) {
	c := l.connect(ctx)
	for n := 0; ctx.Err() == nil && c != nil; n++ {
		v := fmt.Sprintf("%d-%d", id, n)
		_, err := c.Exec(ctx, "insert into t values ('"+v+"')")
		now := time.Now().UnixNano()
		l.mu.Lock()
		if err == nil {
			l.acked = append(l.acked, v)
			l.gap.Store(max(l.gap.Load(), now-l.last.Swap(now)))
		} else if ctx.Err() == nil {
			l.errs = append(l.errs, err.Error())
		}
		l.mu.Unlock()
		if c.IsClosed() {
			c = l.connect(ctx)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if c != nil {
		c.Close(context.Background())
	}
}

func (l *load) read(ctx context.Context) {
	c := l.connect(ctx)
	if c == nil {
		return
	}
	defer c.Close(context.Background())
	for ctx.Err() == nil {
		var n int
		err := c.QueryRow(ctx, "select count(*) from t").Scan(&n)
		switch {
		case err == nil:
			l.reads.Add(1)
		case ctx.Err() == nil:
			l.mu.Lock()
			l.failed = append(l.failed, err.Error())
			l.mu.Unlock()
			if c.IsClosed() {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// written waits for n more confirmed writes.
func (l *load) written(n int) {
	l.f.t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked)
	}
	from := count()
	eventually(l.f.t, fmt.Sprintf("%d more writes", n), func() bool { return count() >= from+n })
}

// end stops the clients and looks for every confirmed write on a node.
func (l *load) end(node int) {
	t := l.f.t
	t.Helper()
	l.stop()
	l.clients.Wait()
	there := map[string]bool{}
	for _, v := range strings.Split(l.f.MustExec(node, "select v from t"), "\n") {
		there[v] = true
	}
	lost := 0
	for _, v := range l.acked {
		if !there[v] {
			lost++
		}
	}
	t.Logf("%d writes confirmed, %d lost, %d errors of writers %q; %d reads, %d failed; longest time without a write %v",
		len(l.acked), lost, len(l.errs), l.errs, l.reads.Load(), len(l.failed), time.Duration(l.gap.Load()).Round(time.Millisecond))
	if lost > 0 {
		t.Errorf("%d of %d confirmed writes are lost", lost, len(l.acked))
	}
	if len(l.failed) > 0 {
		t.Errorf("%d reads failed: %.2000q", len(l.failed), l.failed)
	}
}

// A standby and then the primary are killed under load. The scripts are run once
// each, with the arguments that the original gave them in the same places.
func TestFailoverByScripts(t *testing.T) {
	f := usual(t, "health_check_max_retries = 1", "health_check_retry_delay = 1", "health_check_timeout = 10", "connect_timeout = 10000", "failover_hold_timeout = 60")
	path, notes := f.failoverScript()
	f.reload("failover_command = '"+path+" failover "+placeholders+"'", "follow_primary_command = '"+path+" follow "+placeholders+"'",
		"failback_command = '"+path+" failback "+placeholders+"'")
	f.pcpTools()
	f.MustExec(0, "create table t (v text)")
	f.Must(f.WaitCatchup())
	idle := f.raw()
	idle.expect(t, "C(SET) Z(I)", q("set soak.x = 'mine'"))
	l := f.load(3, 3)
	l.written(20)

	f.Must(f.Nodes[2].Kill())
	want := "failover d=2 h=127.0.0.1 p=port2 D=n2 m=0 H=127.0.0.1 M=0 P=0 r=port0 R=n0 N=127.0.0.1 S=port0 %"
	if got := f.noted(notes, 1, 1); got[0] != want {
		t.Errorf("got  %s\nwant %s", got[0], want)
	}
	l.written(20)
	f.Must(f.Nodes[2].Start())
	f.settled("node 2 answers", func(s *cluster.Snapshot) bool {
		return s.Nodes[2].Reach == cluster.Reachable && s.Nodes[2].PgRole == cluster.Standby
	})
	if n := f.Server.Snapshot().Nodes[2]; n.Status != cluster.Down {
		t.Errorf("node 2 is %s before anybody has attached it", n.Status)
	}
	if err := f.client().AttachNode(2); err != nil {
		t.Fatal(err)
	}
	want = "failback d=2 h=127.0.0.1 p=port2 D=n2 m=0 H=127.0.0.1 M=0 P=0 r=port0 R=n0 N=127.0.0.1 S=port0 %"
	if got := f.noted(notes, 2, 1); got[0] != want {
		t.Errorf("got  %s\nwant %s", got[0], want)
	}
	f.settled("node 2 is back", usable(2, true))

	f.Must(f.WaitCatchup()) // without a synchronous standby, only what has arrived can be kept
	f.Must(f.Nodes[0].Pause())
	f.Must(f.Nodes[0].Kill())
	newcomer, err := f.login("database", "template1") // to which there is no idle connection
	if err != nil {
		t.Errorf("who logs in while there is no primary: %v", err)
	} else {
		newcomer.Close()
	}
	got := f.noted(notes, 5, 3)
	for i, want := range []string{
		"failover d=0 h=127.0.0.1 p=port0 D=n0 m=1 H=127.0.0.1 M=0 P=0 r=port1 R=n1 N=127.0.0.1 S=port0 %",
		"follow d=0 h=127.0.0.1 p=port0 D=n0 m=1 H=127.0.0.1 M=0 P=0 r=port1 R=n1 N=127.0.0.1 S=port0 %",
		"follow d=2 h=127.0.0.1 p=port2 D=n2 m=1 H=127.0.0.1 M=0 P=0 r=port1 R=n1 N=127.0.0.1 S=port0 %",
	} {
		if got[i] != want {
			t.Errorf("got  %s\nwant %s", got[i], want)
		}
	}
	f.settled("node 1 is primary", func(s *cluster.Snapshot) bool { return s.Primary == 1 && len(s.Followers) == 0 })
	l.written(20)
	if v, err := idle.value("/*NO LOAD BALANCE*/ select current_setting('soak.x') || inet_server_port()"); err != nil || v != fmt.Sprintf("mine%d", f.Nodes[1].Port) {
		t.Errorf("the idle client: %s, %v", v, err)
	}
	for _, line := range []string{"hello from failover", "failover done. shutdown host 127.0.0.1(" + strconv.Itoa(f.Nodes[0].Port) + ")"} {
		if !strings.Contains(f.Log.String(), line) {
			t.Errorf("the log has no %q", line)
		}
	}
	l.end(1)
}

// Without scripts: the primary stands still, the standby that has all confirmed
// writes is promoted, the other one follows it, and statements wait meanwhile.
func TestFailoverBySQL(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 2, Conf: map[string]string{
		"wal_retrieve_retry_interval": "100ms", "synchronous_standby_names": "ANY 1 (*)", "wal_receiver_timeout": "2s"}})
	f := serve(t, c, append(backends(c, 0, 1, 1), "health_check_timeout = 4", "health_check_max_retries = 1", "connect_timeout = 4000",
		"failover_promote = on", "follow_primary_command = 'auto'", "failover_hold_timeout = 90")...)
	f.MustExec(0, "create table t (v text)")
	f.Must(f.WaitCatchup())
	idle := f.raw()
	l := f.load(3, 3)
	l.written(20)
	f.Must(f.Nodes[0].Pause())
	defer f.Nodes[0].Resume()
	f.settled("the primary is given up", func(s *cluster.Snapshot) bool { return s.Primary != 0 })
	idle.expect(t, "C(INSERT 0 1) Z(I)", q("insert into t values ('held')")) // by now or a little later there is a new primary
	s := f.Server.Snapshot()
	next, other := s.Primary, 3-s.Primary
	if next != 1 && next != 2 {
		t.Fatalf("primary %d", next)
	}
	l.written(20) // which need a standby that confirms them
	f.settled("the other standby follows", func(s *cluster.Snapshot) bool {
		return s.Nodes[other].Usable() && s.Nodes[other].ReplicationState == "streaming" && len(s.Jobs)+len(s.Followers) == 0
	})
	f.Must(f.Nodes[0].Resume())
	f.settled("the old primary answers", func(s *cluster.Snapshot) bool { return s.Nodes[0].PgRole == cluster.Primary })
	l.written(5)
	if s := f.Server.Snapshot(); s.Nodes[0].Usable() || s.Primary != next {
		t.Errorf("node 0 is %s, primary %d", s.Nodes[0].Status, s.Primary)
	}
	l.end(next)
}
