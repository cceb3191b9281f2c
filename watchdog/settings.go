package watchdog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgpool-go/conf"
)

// Members that are set differently behave differently after a change of leader.
// The leader asks every member that is new to it for its settings, and names each
// difference once in the log. It refuses nobody for that.

// compared are the settings that should be the same on all members.
var compared = []string{
	"backend_clustering_mode", "num_init_children", "max_pool", "listen_backlog_multiplier", "reserved_connections",
	"child_life_time", "connection_life_time", "child_max_connections", "client_idle_limit", "client_idle_limit_in_recovery",
	"health_check_timeout", "health_check_period", "health_check_max_retries", "health_check_retry_delay",
	"recovery_timeout", "search_primary_node_timeout", "enable_pool_hba", "load_balance_mode", "connection_cache",
	"replication_stop_on_mismatch", "allow_clear_text_frontend_auth", "failover_if_affected_tuples_mismatch",
	"failover_on_backend_error", "failover_on_backend_shutdown", "failover_promote", "replicate_select", "insert_lock",
	"memory_cache_enabled", "clear_memqcache_on_escalation", "delegate_ip",
	"failover_when_quorum_exists", "failover_require_consensus", "allow_multiple_failover_requests_from_node",
	"enable_consensus_with_half_votes", "wd_lifecheck_method", "wd_interval", "wd_heartbeat_keepalive", "wd_heartbeat_deadtime", "wd_leader_lease",
	"wd_remove_shutdown_nodes", "wd_lost_node_removal_timeout", "wd_no_show_node_removal_timeout",
	"backend_hostname", "backend_port",
}

// settings are what a member is set to: by name, with the number where there is one.
type settings struct {
	From   int
	Values map[string]string // nil: it is asked for them
}

func settingsOf(c *conf.Config) map[string]string {
	all := make(map[string]string)
	for _, s := range conf.Table() {
		if !slices.Contains(compared, s.Name) {
			continue
		}
		if s.Family != conf.PerBackend {
			all[s.Name] = s.Show(c, -1)
		}
		for i, b := range c.Backends {
			name := fmt.Sprint(s.Name, i)
			_, own := c.Source(name) // health_check_period0
			if b.Used() && (s.Family == conf.PerBackend || s.Family == conf.Override && own) {
				all[name] = s.Show(c, i)
			}
		}
	}
	return all
}

// inspect asks, as long as this node leads, the members whose settings are not
// known yet.
func (w *Watchdog) inspect() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.stopping:
			return
		}
		if s := w.state.Load(); s == nil || !s.View(now()).Decisive {
			w.inspected.Clear() // who leads next has the whole group before it
			continue
		}
		for _, n := range w.others() {
			if a := n.about.Load(); a != nil {
				if known, ok := w.inspected.Load(n.id); !ok || known != a.Started {
					w.send(n, letter{Settings: &settings{From: w.self.id}}, true)
				}
			}
		}
	}
}

// heardSettings answers who asks, or compares what was answered.
func (w *Watchdog) heardSettings(s settings) {
	n := w.nodes[s.From]
	if n == nil || n == w.self {
		return
	}
	own := settingsOf(w.config.Load())
	if s.Values == nil {
		w.send(n, letter{Settings: &settings{From: w.self.id, Values: own}}, true)
		return
	}
	a := n.about.Load()
	if a == nil {
		return
	}
	if known, ok := w.inspected.Swap(n.id, a.Started); ok && known == a.Started {
		return
	}
	names := maps.Clone(own)
	maps.Copy(names, s.Values)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		mine, set := own[name]
		theirs, there := s.Values[name]
		switch {
		case mine == theirs && set == there:
		case !there:
			w.log.Warn(fmt.Sprintf("configuration of watchdog node \"%s\" differs: %s is not set there, here it is \"%s\"", n.name(), name, mine))
		case !set:
			w.log.Warn(fmt.Sprintf("configuration of watchdog node \"%s\" differs: %s is \"%s\" there, here it is not set", n.name(), name, theirs))
		default:
			w.log.Warn(fmt.Sprintf("configuration of watchdog node \"%s\" differs: %s is \"%s\" there, here it is \"%s\"", n.name(), name, theirs, mine))
		}
	}
	w.log.Log(context.Background(), levelLog, fmt.Sprintf("the settings of watchdog node \"%s\" have been compared", n.name()))
}
