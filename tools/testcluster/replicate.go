package testcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Primary is the first running node that is not in recovery.
func (c *Cluster) Primary() (*Node, error) {
	for _, n := range c.Nodes {
		if n.Pid() == 0 {
			continue
		}
		if out, err := n.Exec("select pg_is_in_recovery()"); err == nil && out == "f" {
			return n, nil
		}
	}
	return nil, errors.New("testcluster: no primary runs")
}

// WaitCatchup waits until every running standby has replayed what the primary
// has written so far.
func (c *Cluster) WaitCatchup() error {
	primary, err := c.Primary()
	if err != nil {
		return err
	}
	lsn, err := primary.Exec("select pg_current_wal_flush_lsn()")
	if err != nil {
		return err
	}
	return c.waitReplay(primary, lsn)
}

// waitReplay waits until every running node but the primary has replayed so far.
func (c *Cluster) waitReplay(primary *Node, lsn string) error {
	return each(c.Nodes, func(n *Node) error {
		if n == primary || n.Pid() == 0 {
			return nil
		}
		return n.waitReplay(lsn)
	})
}

// waitReplay asks in a loop on the server, which is quicker than many psqls.
// A node that is no standby has nothing to replay. The database is one that
// there is even if the standby is far behind.
func (n *Node) waitReplay(lsn string) error {
	_, err := n.ExecIn("template1", fmt.Sprintf(`do $$ begin
		if not pg_is_in_recovery() then return; end if;
		for i in 1 .. %d loop
			if pg_last_wal_replay_lsn() >= %s and exists (select from pg_stat_wal_receiver where status = 'streaming') then return; end if;
			perform pg_sleep(0.005);
		end loop;
		raise exception 'replayed %% instead of %%', pg_last_wal_replay_lsn(), %[2]s;
	end $$`, patience.Milliseconds()/5, quote(lsn)))
	return err
}

// Promote makes a standby a primary and returns when it takes writes.
func (n *Node) Promote() error {
	ctl, err := n.cluster.Program("pg_ctl")
	if err != nil {
		return err
	}
	_, err = run(context.Background(), "", ctl, "promote", "-w", "-t", strconv.Itoa(int(patience.Seconds())), "-D", n.DataDir)
	return err
}

// Follow makes the node, running or not, a running standby of primary. Its
// data must not have diverged; if it has, Rewind is what is needed.
func (n *Node) Follow(primary *Node) error {
	if err := n.Stop(Fast); err != nil {
		return err
	}
	if err := primary.makeSlot(n.Name); err != nil {
		return err
	}
	if err := n.writeConf(); err != nil { // pg_rewind or a script may have brought the primary's
		return err
	}
	if err := n.writeStandby(primary); err != nil {
		return err
	}
	return n.Start()
}

// Rewind takes back with pg_rewind what the node has and primary does not, and
// makes it a running standby of primary.
func (n *Node) Rewind(primary *Node) error {
	rewind, err := n.cluster.Program("pg_rewind")
	if err != nil {
		return err
	}
	if err := n.Stop(Fast); err != nil {
		return err
	}
	if _, err := primary.Exec("checkpoint"); err != nil { // so that its control file tells the new timeline
		return err
	}
	source := fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", primary.SocketDir, primary.Port, Superuser)
	if _, err := run(context.Background(), "", rewind, "--no-sync", "-D", n.DataDir, "--source-server", source); err != nil {
		return err
	}
	return n.Follow(primary)
}

// Rebuild throws the node's data away and makes it a running standby of
// primary with a new base backup.
func (n *Node) Rebuild(primary *Node) error {
	if err := n.Stop(Immediate); err != nil {
		return err
	}
	n.forgetSharedMemory()
	if err := os.RemoveAll(n.DataDir); err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	return n.makeStandby(context.Background(), primary)
}

// makeStandby fills an empty node from primary and starts it.
func (n *Node) makeStandby(ctx context.Context, primary *Node) error {
	if err := primary.makeSlot(n.Name); err != nil {
		return err
	}
	if err := n.baseBackup(ctx, primary); err != nil {
		return err
	}
	if err := n.writeStandby(primary); err != nil {
		return err
	}
	return n.firstStart(ctx)
}

// baseBackup copies primary's data folder while it runs. A pg_basebackup of an
// older version does not serve newer servers, so where BinDir has none, the
// copy is made between the two calls of the backup functions.
func (n *Node) baseBackup(ctx context.Context, primary *Node) error {
	if program := filepath.Join(n.cluster.bin, "pg_basebackup"); executable(program) {
		_, err := run(ctx, "", program, "-D", n.DataDir, "-c", "fast", "-X", "stream", "--no-sync", "-S", n.Name,
			"-d", n.conninfo(primary))
		return err
	}
	label := n.DataDir + ".label"
	if err := writeOwned(label, "", 0o600); err != nil {
		return err
	}
	defer os.Remove(label)
	_, err := primary.Exec(fmt.Sprintf(`select current_setting('server_version_num')::int >= 150000 as renamed \gset
\if :renamed
	select pg_backup_start('testcluster', true) \g /dev/null
\else
	select pg_start_backup('testcluster', true, false) \g /dev/null
\endif
\! cp -a '%s' '%s'
\if :renamed
	select labelfile from pg_backup_stop(false) \g '%s'
\else
	select labelfile from pg_stop_backup(false) \g '%[3]s'
\endif
`, primary.DataDir, n.DataDir, label))
	if err != nil {
		return err
	}
	for _, name := range []string{"postmaster.pid", "postmaster.opts"} {
		if err := os.Remove(filepath.Join(n.DataDir, name)); err != nil {
			return fmt.Errorf("testcluster: %w", err)
		}
	}
	// Slots belong to the server they were made on.
	slots, err := filepath.Glob(filepath.Join(n.DataDir, "pg_replslot", "*"))
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	for _, slot := range slots {
		if err := os.RemoveAll(slot); err != nil {
			return fmt.Errorf("testcluster: %w", err)
		}
	}
	if err := os.Rename(label, filepath.Join(n.DataDir, "backup_label")); err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	return nil
}

// makeSlot makes a physical replication slot if it is not there yet.
func (n *Node) makeSlot(name string) error {
	_, err := n.Exec("select pg_create_physical_replication_slot(" + quote(name) + ", true) where not exists (select from pg_replication_slots where slot_name = " + quote(name) + ")")
	return err
}
