package pgpool

// ineffective maps settings to the reason why they do nothing. Start-up warns of
// those that a file sets to other than their default. Delete a line with the
// change that makes it wrong.
var ineffective = reasons(map[string][]string{
	"Go's TLS has no Diffie-Hellman groups other than the elliptic ones": {
		"ssl_dh_params_file",
	},
	"Go's TLS chooses among the ciphers both sides have, by what is safest and what the processors do best": {
		"ssl_prefer_server_ciphers",
	},
	"on which tables cached results depend is known in memory, or by memcached": {
		"memqcache_oiddir",
	},
	"an external source of delays is not built yet: servers are asked by SQL": {
		"replication_delay_source_cmd", "replication_delay_source_timeout",
	},
	"messages of servers are not logged yet": {
		"log_backend_messages",
	},
	"clients are sessions of one process: there are no children to be managed": {
		"serialize_accept", "process_management_mode", "process_management_strategy", "min_spare_children", "max_spare_children",
	},
	"what the catalog knows is shared by all sessions of the process in any case": {
		"enable_shared_relcache",
	},
	"the map of written tables makes room for itself": {
		"track_table_mutation_table_buckets",
	},
})

func reasons(by map[string][]string) map[string]string {
	out := make(map[string]string)
	for why, names := range by {
		for _, name := range names {
			out[name] = why
		}
	}
	return out
}
