package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// setupMode is what differs between the clustering modes.
type setupMode struct {
	Mode   string // backend_clustering_mode
	Title  string
	Roles  [2]string // of the first node and of the others, as SHOW POOL_NODES has them
	Backup string    // the template of recovery_1st_stage_command
}

var setupModes = map[string]setupMode{
	"s": {"streaming_replication", "streaming replication", [2]string{"primary", "standby"}, "basebackup.sh"},
	"r": {"native_replication", "native replication", [2]string{"main", "replica"}, "copy.sh"},
	"i": {"snapshot_isolation", "snapshot isolation", [2]string{"main", "replica"}, "copy.sh"},
	"l": {"logical_replication", "logical replication", [2]string{"main", "replica"}, "copy.sh"},
	"n": {"raw", "raw", [2]string{"main", "replica"}, "copy.sh"},
}

// Streams tells whether the servers replicate by streaming WAL.
func (m setupMode) Streams() bool { return m.Mode == "streaming_replication" }

// Logical tells whether they replicate the tables of the database test.
func (m setupMode) Logical() bool { return m.Mode == "logical_replication" }

// Raw tells that they have nothing to do with each other.
func (m setupMode) Raw() bool { return m.Mode == "raw" }

// Replicates tells whether pgpool itself writes to all of them.
func (m setupMode) Replicates() bool {
	return m.Mode == "native_replication" || m.Mode == "snapshot_isolation"
}

// Isolated tells whether it gives them one snapshot.
func (m setupMode) Isolated() bool { return m.Mode == "snapshot_isolation" }

// independent makes of the first server copies that are servers of their own.
func (s *setup) independent() error {
	first := s.Nodes[0]
	if s.Replicates() {
		if err := s.write("data0/pgpool_recovery_pitr", "pgpool_recovery_pitr", 0o755); err != nil {
			return err
		}
	}
	for _, n := range s.Nodes[1:] {
		s.say("creating database cluster %s...", n.Data)
		if err := s.run(s.pg("pg_basebackup"), "-h", "127.0.0.1", "-p", strconv.Itoa(first.Port), "-U", s.User, "-D", n.Data, "-X", "stream", "-c", "fast"); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.Data, "node.conf"), fmt.Appendf(nil, "port = %d\n", n.Port), 0o600); err != nil {
			return err
		}
		if !s.Logical() {
			continue
		}
		if err := s.run(filepath.Join(first.Data, "pgpool_remote_start"), "127.0.0.1", n.Data); err != nil {
			return err
		}
		if n.ID == 1 {
			if err := s.sql(first.Port, "test", "CREATE PUBLICATION pgpool_setup FOR ALL TABLES"); err != nil {
				return err
			}
		}
		err := s.sql(n.Port, "test", fmt.Sprintf("CREATE SUBSCRIPTION node%d CONNECTION 'host=127.0.0.1 port=%d user=%s dbname=test' PUBLICATION pgpool_setup",
			n.ID, first.Port, s.User))
		if err != nil {
			return err
		}
	}
	return nil
}
