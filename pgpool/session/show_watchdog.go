package session

// watchdogColumns are one row for each pgpool of the group; from leader on they say
// what the one asked knows of all. Times are milliseconds.
var watchdogColumns = []string{
	"node_id", "node_name", "hostname", "pgpool_port", "wd_port", "status", "membership", "priority", "last_contact",
	"leader", "term", "lease_left", "quorum", "last_election",
}

func (s *Session) showWatchdog() [][]string {
	if s.Watchdog == nil {
		return nil
	}
	return s.Watchdog()
}
