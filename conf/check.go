package conf

import "fmt"

// crossCheck finds what is wrong with settings taken together.
func (c *Config) crossCheck() []*Error {
	var problems []*Error
	fail := func(about, text, hint string) {
		e := &Error{Text: text, Hint: hint}
		if src, ok := c.Source(about); ok {
			e.in(assignment{file: src.File, line: src.Line})
		}
		problems = append(problems, e)
	}
	if c.Recovery1stStageCommand != "" || c.Recovery2ndStageCommand != "" {
		for i, b := range c.Backends {
			if b.Used() && b.DataDirectory == "" {
				fail(fmt.Sprintf("backend_port%d", i),
					"invalid configuration, recovery_1st_stage_command and recovery_2nd_stage_command requires backend_data_directory to be set",
					fmt.Sprintf("Set backend_data_directory%d.", i))
				break
			}
		}
	}
	if c.ReplicationMode && c.FailoverWhenQuorumExists {
		fail("replication_mode", "invalid configuration, failover_when_quorum_exists is not allowed in native replication mode",
			"Use backend_clustering_mode instead of replication_mode, or set failover_when_quorum_exists to off.")
	}
	if c.ProcessManagementMode == ProcessDynamic {
		if c.MinSpareChildren >= c.MaxSpareChildren {
			fail("min_spare_children", fmt.Sprintf("invalid configuration, min_spare_children:%d must be less than max_spare_children:%d",
				c.MinSpareChildren, c.MaxSpareChildren), "")
		}
		if c.MaxSpareChildren > c.NumInitChildren {
			fail("max_spare_children", fmt.Sprintf("invalid configuration, max_spare_children:%d can't be greater than num_init_children:%d",
				c.MaxSpareChildren, c.NumInitChildren), "")
		}
	}
	if c.UseWatchdog {
		problems = append(problems, c.checkWatchdog()...)
	}
	return problems
}

func (c *Config) checkWatchdog() []*Error {
	var problems []*Error
	if c.NodeID >= 0 && (c.NodeID >= len(c.Watchdogs) || !c.Watchdogs[c.NodeID].Used()) {
		problems = append(problems, &Error{
			Text:   fmt.Sprintf("invalid watchdog configuration for pgpool node id %d", c.NodeID),
			Detail: fmt.Sprintf("%s says that this is node %d, but wd_port%d is not set", c.NodeIDFile(), c.NodeID, c.NodeID),
			Hint:   fmt.Sprintf("Set hostname%[1]d, wd_port%[1]d and pgpool_port%[1]d.", c.NodeID)})
	}
	for i, h := range c.Heartbeats {
		if h.Used() && h.Hostname == "" {
			e := &Error{Text: fmt.Sprintf("invalid watchdog configuration, heartbeat_hostname%[1]d is missing while heartbeat_port%[1]d is set", i)}
			if src, ok := c.Source(fmt.Sprintf("heartbeat_port%d", i)); ok {
				e.in(assignment{file: src.File, line: src.Line})
			}
			problems = append(problems, e)
		}
	}
	return problems
}
