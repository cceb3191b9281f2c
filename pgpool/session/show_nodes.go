package session

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
)

var (
	nodeColumns = []string{
		"node_id", "hostname", "port", "status", "pg_status", "lb_weight", "role", "pg_role", "select_cnt", "load_balance_node",
		"replication_delay", "replication_state", "replication_sync_state", "last_status_change",
	}
	backendStatColumns = []string{
		"node_id", "hostname", "port", "status", "role", "select_cnt", "insert_cnt", "update_cnt", "delete_cnt",
		"ddl_cnt", "other_cnt", "panic_cnt", "fatal_cnt", "error_cnt",
	}
	healthColumns = []string{
		"node_id", "hostname", "port", "status", "role", "last_status_change", "total_count", "success_count", "fail_count",
		"skip_count", "retry_count", "average_retry_count", "max_retry_count", "max_duration", "min_duration", "average_duration",
		"last_health_check", "last_successful_health_check", "last_skip_health_check", "last_failed_health_check",
	}
	statusColumns = []string{"item", "value", "description"}
)

// showNodes has a row for every slot up to the highest configured one, gaps
// included.
func (s *Session) showNodes() [][]string {
	s.arrived(s.Cluster.Now(), s.main) // perhaps a node has begun to answer only now
	snap, reader := s.Cluster.Now(), s.reader()
	var rows [][]string
	for i := range snap.Nodes {
		n := &snap.Nodes[i]
		rows = append(rows, []string{
			strconv.Itoa(i), n.Host, strconv.Itoa(n.Port), n.Status.String(), pgStatus(n), share(snap, i),
			snap.RoleName(i), snap.PgRoleName(i), count(s.Cluster.Figures(i).Select),
			strconv.FormatBool(i == reader), s.delay(snap, i), n.ReplicationState, n.ReplicationSyncState, when(n.Changed),
		})
	}
	return rows
}

func (s *Session) showBackendStats() [][]string {
	snap := s.Cluster.Now()
	var rows [][]string
	for i := range snap.Nodes {
		n, c := &snap.Nodes[i], s.Cluster.Figures(i)
		rows = append(rows, []string{
			strconv.Itoa(i), n.Host, strconv.Itoa(n.Port), n.Status.String(), snap.RoleName(i),
			count(c.Select), count(c.Insert), count(c.Update), count(c.Delete),
			count(c.DDL), count(c.Other), count(c.Panic), count(c.Fatal), count(c.Error),
		})
	}
	return rows
}

func (s *Session) showHealth() [][]string {
	snap := s.Cluster.Now()
	var rows [][]string
	for i := range snap.Nodes {
		n := &snap.Nodes[i]
		row := []string{strconv.Itoa(i), n.Host, strconv.Itoa(n.Port), n.Status.String(), snap.RoleName(i), when(n.Changed)}
		rows = append(rows, append(row, s.Cluster.Health(i).Columns()...))
	}
	return rows
}

// showStatus shows the settings as this session has them.
func (s *Session) showStatus() [][]string {
	snap, cached := s.Cluster.Now(), s.Cache.Stats()
	var rows [][]string
	for _, r := range s.cfg.StatusRows(conf.StatusExtra{
		BackendStatus: func(i int) string {
			if n := snap.Node(i); n != nil {
				return n.Status.String()
			}
			return cluster.Unused.String()
		},
		StandbyDelay: func(i int) string {
			if snap.Node(i) == nil {
				return "0"
			}
			return s.delay(snap, i)
		},
		CacheStart: cached.Since, CacheMisses: cached.Misses, CacheHits: cached.Hits,
	}) {
		rows = append(rows, []string{r.Item, r.Value, r.Description})
	}
	return rows
}

// reader is the node that the session's reads go to, were they free to go
// anywhere now.
func (s *Session) reader() int {
	if s.cfg.Rules.Balance {
		if s.router.ReadNode < 0 {
			s.draw()
		}
		if n := s.router.ReadNode; n >= 0 {
			return n
		}
	}
	return s.main
}

// share is the node's part of all weights. C prints NaN with a sign.
func share(snap *cluster.Snapshot, node int) string {
	w := snap.Share(node)
	if math.IsNaN(w) {
		return "-nan"
	}
	return fmt.Sprintf("%f", w)
}

// delay is how far a standby is behind: in bytes, or in seconds where the limit
// is one of time.
func (s *Session) delay(snap *cluster.Snapshot, node int) string {
	n := &snap.Nodes[node]
	switch {
	case node == snap.Primary:
		return "0"
	case s.cfg.DelayThresholdByTime > 0:
		unit := "second"
		if n.LagTime >= 2*time.Second {
			unit = "seconds"
		}
		return fmt.Sprintf("%.6f %s", n.LagTime.Seconds(), unit)
	}
	return strconv.FormatInt(n.Lag, 10)
}

func pgStatus(n *cluster.Node) string {
	if n.PgStatus == "" {
		return "unknown"
	}
	return n.PgStatus
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

// when is a point in time as the original shows it; empty if there is none.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}
