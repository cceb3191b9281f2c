package testcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tests of one process take over each other's clusters, because a start costs
// more than most tests do: a cluster that a test has left as it found it is
// cleaned and kept for the next test that asks for the same Options. A test has
// a cluster for itself while it runs, may do with it what it likes, and has to
// know nothing of this. Who stops, kills, promotes or reconfigures a server
// leaves it changed, and so does a test that fails: such a cluster is closed.

// spare are the cleaned clusters that no test has now, the oldest first.
var spare struct {
	sync.Mutex
	clusters []*Cluster
}

// maxSpare bounds how many idle clusters there are at once.
const maxSpare = 4

// key is equal for clusters of which one serves as well as the other.
func (o Options) key() string { return fmt.Sprintf("%+v", o) }

// reusable tells whether a cluster like this may serve several tests.
func (o Options) reusable() bool {
	return o.Dir == "" && !o.OwnIdentity && o.Password == "" && len(o.Ports) == 0
}

// takeSpare is a cleaned cluster with these options, nil if there is none.
func takeSpare(o Options) *Cluster {
	spare.Lock()
	defer spare.Unlock()
	i := slices.IndexFunc(spare.clusters, func(c *Cluster) bool { return c.made.key == o.key() })
	if i < 0 {
		return nil
	}
	c := spare.clusters[i]
	spare.clusters = slices.Delete(spare.clusters, i, i+1)
	return c
}

// giveBack keeps a cluster that a test is done with for the next one, or closes it.
func (c *Cluster) giveBack() error {
	if err := c.unfit(); err != nil {
		c.tb.Logf("this cluster is not passed on: %v", err)
		return c.Close()
	}
	spare.Lock()
	spare.clusters = append(spare.clusters, c)
	var old *Cluster
	if len(spare.clusters) > maxSpare {
		old, spare.clusters = spare.clusters[0], spare.clusters[1:]
	}
	spare.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
}

// unfit cleans the cluster, or tells why no other test may have it.
func (c *Cluster) unfit() error {
	switch {
	case c.tb.Failed():
		return errors.New("the test has failed")
	case !c.opts.reusable():
		return errors.New("its options are particular")
	case c.condition() != c.made:
		return errors.New("its servers have been stopped or configured")
	}
	return c.clean()
}

// condition is what a test must leave as it is for others to take the cluster over.
type condition struct {
	key   string // of the options
	nodes string // their processes, and when their configuration was written
}

func (c *Cluster) condition() condition {
	var nodes strings.Builder
	for _, n := range c.Nodes {
		pid := n.Pid()
		fmt.Fprint(&nodes, n.Port, " ", pid, " ", pid != 0 && stopped(pid))
		for _, name := range []string{nodeConf, "postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf", "standby.signal"} {
			when := time.Time{}
			if info, err := os.Stat(filepath.Join(n.DataDir, name)); err == nil {
				when = info.ModTime()
			}
			fmt.Fprint(&nodes, " ", when.UnixNano())
		}
	}
	return condition{c.opts.key(), nodes.String()}
}

// clean makes the servers forget the last test: its sessions, databases, roles
// and slots. It fails where something is left that it knows no remedy for.
func (c *Cluster) clean() error {
	if err := c.cleanServers(); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		for _, log := range []string{n.LogPath(), filepath.Join(n.logDir(), logName+".log"), filepath.Join(n.logDir(), logName+".json")} {
			if err := os.Truncate(log, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// cleanServers cleans each server that takes writes, and waits for the others.
func (c *Cluster) cleanServers() error {
	if c.opts.Apart {
		return each(c.Nodes, func(n *Node) error {
			_, err := n.clean(0)
			return err
		})
	}
	lsn, err := c.Nodes[0].clean(len(c.Nodes) - 1)
	if err != nil {
		return err
	}
	return c.waitReplay(c.Nodes[0], lsn)
}

// clean cleans a server to which as many standbys are to be connected, and tells
// how far it has written.
func (n *Node) clean(standbys int) (lsn string, err error) {
	out, err := n.ExecIn("template1", `
		select pg_terminate_backend(pid, 10000) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() \g /dev/null
		select format('drop database %I with (force);', datname) from pg_database where datname not in ('template0', 'template1') \gexec
		select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_type = 'logical' or slot_name !~ '^node\d+$' \g /dev/null
		select format('drop role %I;', rolname) from pg_roles where rolname not in ('`+Superuser+`', '`+replicator+`') and rolname !~ '^pg_' \gexec
		create database postgres template template0;
		comment on database postgres is 'default administrative connection database';
		select 'a password' from pg_authid where rolpassword is not null
		union all select 'settings' from pg_db_role_setting
		union all select 'a tablespace' from pg_tablespace where spcname !~ '^pg_'
		union all select 'a prepared transaction' from pg_prepared_xacts
		union all select 'a relation' from pg_class where oid >= 16384
		union all select 'a function' from pg_proc where oid >= 16384
		union all select 'a standby' where (select count(*) from pg_stat_replication where state = 'streaming') <> `+fmt.Sprint(standbys)+`;
		select pg_current_wal_flush_lsn();`)
	if err != nil {
		return "", err
	}
	if i := strings.LastIndexByte(out, '\n'); i >= 0 {
		return "", fmt.Errorf("after the test there is still: %s", out[:i])
	}
	return out, nil
}
