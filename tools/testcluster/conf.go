package testcluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	nodeConf   = "node.conf"  // included by postgresql.conf, so that pg_ctl -D needs nothing more
	replicator = "replicator" // the role that standbys stream as
)

// defaults suit servers that live for seconds: quick to start, replicate and
// stop, and no data worth a disk's time.
func (n *Node) defaults() map[string]string {
	conf := map[string]string{
		"listen_addresses":             n.Host,
		"unix_socket_directories":      n.SocketDir,
		"max_connections":              "300",
		"wal_level":                    "logical",
		"max_wal_senders":              "20",
		"max_replication_slots":        "20",
		"max_prepared_transactions":    "50",
		"wal_log_hints":                "on", // for pg_rewind
		"hot_standby_feedback":         "on",
		"wal_receiver_status_interval": "1s",
		"wal_retrieve_retry_interval":  "100ms",
		"fsync":                        "off",
		"dynamic_shared_memory_type":   "mmap", // stays in the data folder when the server is killed
		"log_line_prefix":              "%m [%p] %q%u@%d/%a ",
		"log_timezone":                 "UTC",
		"timezone":                     "UTC",
	}
	if n.cluster.opts.LogStatements {
		maps.Copy(conf, map[string]string{
			"logging_collector":          "on",
			"log_destination":            "stderr,jsonlog",
			"log_directory":              n.logDir(),
			"log_filename":               logName + ".log",
			"log_file_mode":              "0644",
			"log_rotation_age":           "0",
			"log_rotation_size":          "0",
			"log_statement":              "all",
			"log_replication_commands":   "on",
			"log_min_duration_statement": "-1",
		})
	}
	return conf
}

// writeConf writes what differs from node to node; a copied data folder has
// that of the node it came from.
func (n *Node) writeConf() error {
	conf := n.defaults()
	maps.Copy(conf, n.cluster.opts.Conf)
	conf["port"] = strconv.Itoa(n.Port)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		fmt.Fprintf(&text, "%s = %s\n", name, quote(conf[name]))
	}
	if err := writeOwned(filepath.Join(n.DataDir, nodeConf), text.String(), 0o600); err != nil {
		return err
	}
	return n.writeHBA()
}

// writeHBA lets the superuser in over the socket and the standbys over
// loopback, whatever the test then asks for.
func (n *Node) writeHBA() error {
	lines := []string{
		"local all " + Superuser + " trust",
		"local replication " + Superuser + " trust",
		"host replication " + replicator + " 127.0.0.1/32 trust",
	}
	if n.cluster.opts.HBA == nil {
		lines = append(lines, "local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust")
	}
	lines = append(lines, n.cluster.opts.HBA...)
	return writeOwned(filepath.Join(n.DataDir, "pg_hba.conf"), strings.Join(lines, "\n")+"\n", 0o600)
}

// writeStandby makes the stopped node a standby of primary at its next start.
// What ALTER SYSTEM or a script may have written before is replaced.
func (n *Node) writeStandby(primary *Node) error {
	path := filepath.Join(n.DataDir, "postgresql.auto.conf")
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(old)) {
		if !strings.HasPrefix(line, "primary_") {
			text.WriteString(line)
		}
	}
	fmt.Fprintf(&text, "primary_conninfo = %s\nprimary_slot_name = %s\n", quote(n.conninfo(primary)), quote(n.Name))
	if err := writeOwned(path, text.String(), 0o600); err != nil {
		return err
	}
	return writeOwned(filepath.Join(n.DataDir, "standby.signal"), "", 0o600)
}

// conninfo is how this node streams from primary.
func (n *Node) conninfo(primary *Node) string {
	return fmt.Sprintf("host=%s port=%d user=%s application_name=%s", primary.Host, primary.Port, replicator, n.Name)
}
