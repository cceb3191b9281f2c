package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Advice says which settings contradict each other and which may be regretted:
// files that the server starts with, and that somebody who reads them with care
// would not leave so. Errors are what cannot have been meant.
func (c *Config) Advice() []Notice {
	a := &advisor{Config: c}
	a.nodes()
	a.doors()
	a.access()
	a.balance()
	a.staleness()
	a.failover()
	a.commands()
	a.recovery()
	a.watchdog()
	a.log()
	return a.notices
}

// advisor collects what there is to say about a configuration.
type advisor struct {
	*Config
	notices []Notice
}

func (a *advisor) say(level LogLevel, kind NoticeKind, setting, text, detail, mend string) {
	n := Notice{Level: level, Kind: kind, Setting: setting, File: a.Paths.Conf, Text: text, Detail: detail, Hint: mend}
	if src, ok := a.Source(setting); ok {
		n.File, n.Line = src.File, src.Line
	}
	a.notices = append(a.notices, n)
}

func (a *advisor) wrong(setting, text, detail, mend string) {
	a.say(LevelError, KindContradictory, setting, text, detail, mend)
}

func (a *advisor) contradicts(setting, text, detail, mend string) {
	a.say(LevelWarning, KindContradictory, setting, text, detail, mend)
}

func (a *advisor) endangers(setting, text, detail, mend string) {
	a.say(LevelWarning, KindDangerous, setting, text, detail, mend)
}

// useless is for settings that have no effect because of another one.
func (a *advisor) useless(setting, because, mend string) {
	if a.Explicit(setting) {
		a.say(LevelWarning, KindContradictory, setting, setting+" has no effect", because, mend)
	}
}

func (a *advisor) nodes() {
	seen := map[string]int{}
	used, always := 0, -1
	for i, b := range a.Backends {
		if !b.Used() {
			continue
		}
		used++
		name := fmt.Sprintf("backend_port%d", i)
		where := fmt.Sprintf("%s:%d", b.Hostname, b.Port)
		if other, twice := seen[where]; twice {
			a.wrong(name, fmt.Sprintf("nodes %d and %d are the same server", other, i), where,
				"Give each server one number: what is done to one of the two would be done to the other.")
		}
		seen[where] = i
		if b.Port == a.Port && (b.Hostname == "localhost" || b.Hostname == "127.0.0.1") && len(a.ListenAddresses) > 0 {
			a.wrong(name, fmt.Sprintf("node %d is pgpool itself", i), fmt.Sprintf("port %d of this host is the one pgpool listens on", b.Port),
				"Give pgpool and the server different ports.")
		}
		if b.Flag&AlwaysPrimary == 0 {
			continue
		}
		if always >= 0 {
			a.wrong(fmt.Sprintf("backend_flag%d", i), fmt.Sprintf("nodes %d and %d are both ALWAYS_PRIMARY", always, i), "Writes go to one node only.",
				"Leave the flag with one node.")
		}
		always = i
	}
	if used == 0 {
		a.wrong("backend_port0", "no node is configured", "No client can be served.", "Set backend_hostname0 and backend_port0.")
	}
	if always >= 0 && a.FailoverCommand != "" {
		a.contradicts(fmt.Sprintf("backend_flag%d", always), fmt.Sprintf("node %d is ALWAYS_PRIMARY and failover_command is set", always),
			"A standby that the command promotes would not be taken for the primary.", "Remove the flag, or the command where another program sees to failovers.")
	}
}

// doors: what is listened on.
func (a *advisor) doors() {
	if a.Port == a.PcpPort && (sharesAddress(a.ListenAddresses, a.PcpListenAddresses) || sharesAddress(a.UnixSocketDirectories, a.PcpSocketDir)) {
		a.wrong("pcp_port", "port and pcp_port are the same", fmt.Sprintf("both are %d", a.Port), "Give them different numbers, usually 9999 and 9898.")
	}
	wd := a.WdListenPort
	if wd == 0 && a.NodeID >= 0 && a.NodeID < len(a.Watchdogs) {
		wd = a.Watchdogs[a.NodeID].WdPort
	}
	if a.UseWatchdog && (wd == a.Port || wd == a.PcpPort) {
		a.wrong("wd_port", "the watchdog's port is taken", fmt.Sprintf("port %d is also that of clients or of PCP", wd), "Give each its own, usually 9000 to the watchdog.")
	}
	if len(a.ListenAddresses) == 0 && len(a.UnixSocketDirectories) == 0 {
		a.wrong("listen_addresses", "clients cannot connect", "Neither listen_addresses nor unix_socket_directories names a place to listen.", "Set one of them.")
	}
	if slices.ContainsFunc(a.PcpListenAddresses, public) {
		a.endangers("pcp_listen_addresses", "the administrative port is open to other hosts",
			"It is not encrypted, and whoever knows a password of pcp.conf can stop pgpool and detach nodes.", "Use 'localhost', or keep others out by a firewall.")
	}
}

func sharesAddress(a, b []string) bool {
	for _, x := range a {
		if x == "*" && len(b) > 0 || slices.Contains(b, x) || slices.Contains(b, "*") {
			return true
		}
	}
	return false
}

// public reports whether other hosts may reach an address to listen on.
func public(address string) bool {
	if address == "localhost" {
		return false
	}
	ip, err := netip.ParseAddr(address)
	return err != nil || !ip.IsLoopback()
}

func (a *advisor) access() {
	open := slices.ContainsFunc(a.ListenAddresses, public)
	if a.AllowClearTextFrontendAuth && open && !a.Ssl {
		a.endangers("allow_clear_text_frontend_auth", "passwords cross the network in clear text", "Clients on other hosts are asked for their passwords, without TLS.",
			"Put the passwords into pool_passwd and set it to off, or set ssl.")
	}
	if a.EnablePoolHba && a.PoolPasswd == "" {
		a.contradicts("pool_passwd", "enable_pool_hba is on and there is no pool_passwd", "Rules with md5 or scram-sha-256 cannot let anybody in.", "Set pool_passwd.")
	}
	if a.UnixSocketPermissions&0o002 != 0 && a.UnixSocketGroup != "" {
		a.contradicts("unix_socket_group", "unix_socket_group has no effect", "unix_socket_permissions lets everybody in.", "Set unix_socket_permissions = 0770.")
	}
	for _, p := range []struct{ setting, value, user string }{
		{"health_check_password", a.HealthCheckPassword, a.HealthCheckUser}, {"sr_check_password", a.SrCheckPassword, a.SrCheckUser},
		{"recovery_password", a.RecoveryPassword, a.RecoveryUser}, {"wd_lifecheck_password", a.WdLifecheckPassword, a.WdLifecheckUser},
	} {
		switch kind := ParseSecret(p.value, a.PassKey()).Kind; {
		case p.value != "" && p.user == "" && a.Explicit(p.setting):
			a.useless(p.setting, fmt.Sprintf("%s is empty.", strings.TrimSuffix(p.setting, "password")+"user"), "Set the user, or remove the password.")
		case kind == Undecryptable:
			a.wrong(p.setting, p.setting+" cannot be decrypted", fmt.Sprintf("Either the key in %q is missing or wrong, or the text is damaged.", a.Paths.Key),
				"Write it anew with pg_enc, and start pgpool with -k or PGPOOLKEYFILE.")
		case kind == Scram:
			a.wrong(p.setting, p.setting+" is a SCRAM verifier", "One can check a password against it but not log in with it.", "Use the password, plain or encrypted with pg_enc.")
		}
	}
}

func (a *advisor) balance() {
	if !a.LoadBalanceMode {
		for _, setting := range []string{"statement_level_load_balance", "multi_statement_load_balance", "explain_load_balance",
			"prefer_lower_delay_standby", "disable_load_balance_on_write",
			"database_redirect_preference_list", "app_name_redirect_preference_list", "user_redirect_preference_list"} {
			a.useless(setting, "load_balance_mode is off.", "Set load_balance_mode = on, or remove the line.")
		}
		return
	}
	total, used := 0.0, 0
	for _, b := range a.Backends {
		if b.Used() {
			total += b.Weight
			used++
		}
	}
	if used > 0 && total == 0 {
		a.contradicts("backend_weight0", "load_balance_mode is on and no node has a weight", "There is no node to send reads to but the primary.", "Set a backend_weightN, or load_balance_mode = off.")
	}
	if a.DisableLoadBalanceOnWrite == DlbowOff {
		a.endangers("disable_load_balance_on_write", "a session may not see what it has written", "Reads go to standbys even right after a write in the same transaction.",
			"Use 'transaction', the default.")
	}
	if a.DisableLoadBalanceOnWrite != DlbowDmlAdaptive {
		a.useless("dml_adaptive_object_relationship_list", "disable_load_balance_on_write is not 'dml_adaptive'.", "Set that, or remove the line.")
	}
	if a.CheckTempTable == TempNone || a.CheckTempTable == TempOff {
		a.endangers("check_temp_table", "temporary tables are not recognised", "A read of one that is sent to a standby fails.", "Use 'catalog', the default, unless no application has temporary tables.")
	}
	if !a.CheckUnloggedTable {
		a.endangers("check_unlogged_table", "unlogged tables are not recognised", "A read of one that is sent to a standby fails.", "Use on, the default, unless there are none.")
	}
	if len(a.ReadOnlyFunctionList) > 0 && len(a.WriteFunctionList) > 0 {
		a.contradicts("write_function_list", "read_only_function_list and write_function_list are both set", "What is not in the former counts as writing already.", "Keep one of the lists.")
	}
}

// staleness: how far a standby may be behind.
func (a *advisor) staleness() {
	if a.BackendClusteringMode != StreamingReplication {
		return
	}
	limited := a.DelayThreshold > 0 || a.DelayThresholdByTime > 0
	if limited && a.SrCheckPeriod == 0 {
		a.contradicts("sr_check_period", "a delay threshold is set and delays are not measured", "sr_check_period is 0.", "Set sr_check_period = 10, or less.")
	}
	if a.DelayThreshold > 0 && a.DelayThresholdByTime > 0 {
		a.useless("delay_threshold", "delay_threshold_by_time is set and comes before it.", "Remove one of the two.")
	}
	if a.PreferLowerDelayStandby && !limited {
		a.useless("prefer_lower_delay_standby", "There is no delay threshold beyond which another standby would be chosen.", "Set delay_threshold or delay_threshold_by_time.")
	}
	if a.LoadBalanceMode && !limited && len(a.Backends) > 1 {
		a.say(LevelInfo, KindDangerous, "delay_threshold", "reads may be served by a standby that is far behind", "There is no delay threshold.",
			"Set delay_threshold_by_time, for instance 10s, unless applications do not mind.")
	}
	if a.MemoryCacheEnabled && !a.MemqcacheAutoCacheInvalidation && a.MemqcacheExpire == 0 {
		a.endangers("memqcache_auto_cache_invalidation", "results stay in the query cache forever", "It is off and memqcache_expire is 0.", "Set one of the two.")
	}
}

func (a *advisor) failover() {
	checked := a.HealthCheckPeriod > 0
	for i := range a.Backends {
		checked = checked || a.HealthCheck(i).Period > 0
	}
	if !checked {
		for _, setting := range []string{"failover_command", "auto_failback", "health_check_max_retries"} {
			a.useless(setting, "health_check_period is 0: nobody looks whether nodes are well.", "Set health_check_period = 10, for instance.")
		}
	}
	if checked && a.FailoverCommand != "" && a.HealthCheckMaxRetries == 0 {
		a.endangers("health_check_max_retries", "one failed health check is a failover", "health_check_max_retries is 0.", "Set 3 or more, with a health_check_retry_delay of some seconds.")
	}
	if checked && a.HealthCheckUser == "" {
		a.contradicts("health_check_user", "health_check_period is set without a user to check with", "health_check_user is empty.", "Create a role for it and set health_check_user.")
	}
	if a.HealthCheckTimeout == 0 && checked {
		a.endangers("health_check_timeout", "a server that hangs is waited for without end", "health_check_timeout is 0.", "Set it to some seconds.")
	}
	if a.FailoverPromote && a.FailoverCommand != "" {
		a.useless("failover_promote", "failover_command is set: it is what promotes.", "Remove one of the two.")
	}
	if a.FollowPrimaryCommand != "" && a.FailoverCommand == "" && !a.FailoverPromote {
		a.say(LevelInfo, KindContradictory, "follow_primary_command", "follow_primary_command is set without a failover_command",
			"pgpool promotes no standby: the command runs only after pcp_promote_node or a promotion by somebody else.", "Set failover_command if pgpool shall promote.")
	}
}

const placeholders = "dhpDmHMPrRNS%"

// commands look for what a command cannot do without, and for placeholders that do not exist.
func (a *advisor) commands() {
	for _, cmd := range []struct{ setting, text, needs string }{
		{"failover_command", a.FailoverCommand, "mH"}, {"failback_command", a.FailbackCommand, ""}, {"follow_primary_command", a.FollowPrimaryCommand, "dh"},
	} {
		if cmd.text == "" || cmd.setting == "follow_primary_command" && cmd.text == "auto" { // auto is no command
			continue
		}
		any := cmd.needs == ""
		for i := 0; i < len(cmd.text); i++ {
			if cmd.text[i] != '%' {
				continue
			}
			i++
			switch {
			case i == len(cmd.text):
				a.contradicts(cmd.setting, cmd.setting+" ends in the middle of a placeholder", "A lone % stands at its end.", "Write %% for a percent sign.")
			case !strings.ContainsRune(placeholders, rune(cmd.text[i])):
				a.contradicts(cmd.setting, fmt.Sprintf("%s has a placeholder that does not exist: %%%c", cmd.setting, cmd.text[i]), "", "The placeholders are %d %h %p %D %m %H %M %P %r %R %N %S; %% is a percent sign.")
			case strings.ContainsRune(cmd.needs, rune(cmd.text[i])):
				any = true
			}
		}
		if !any {
			a.contradicts(cmd.setting, cmd.setting+" is not told which node it is about", fmt.Sprintf("It has none of the placeholders %%%c and %%%c.", cmd.needs[0], cmd.needs[1]),
				"Pass them on, as the scripts in share/scripts expect.")
		}
	}
}

func (a *advisor) recovery() {
	command := a.Recovery1stStageCommand
	if command == "" {
		return
	}
	if a.RecoveryUser == "" {
		a.contradicts("recovery_user", "recovery_1st_stage_command is set without a user", "recovery_user is empty.", "Set recovery_user to a superuser.")
	}
	if strings.Contains(command, "/") {
		a.contradicts("recovery_1st_stage_command", "recovery_1st_stage_command is a path", "The script is looked for in the primary's data directory, by its name alone.", "Put it there, and give its name only.")
	}
}

func (a *advisor) watchdog() {
	if !a.UseWatchdog {
		for _, setting := range []string{"delegate_ip", "wd_escalation_command", "wd_de_escalation_command", "trusted_servers"} {
			a.useless(setting, "use_watchdog is off.", "Set use_watchdog = on, or remove the line.")
		}
		return
	}
	members := 0
	for _, w := range a.Watchdogs {
		if w.Used() {
			members++
		}
	}
	switch {
	case members == 1:
		a.contradicts("use_watchdog", "the watchdog has one member", "Nobody can take its place.", "Name the other pgpools, too: hostnameN, wd_portN, pgpool_portN.")
	case members%2 == 0 && !a.EnableConsensusWithHalfVotes:
		a.say(LevelInfo, KindDangerous, "use_watchdog", fmt.Sprintf("the watchdog has an even number of members (%d)", members),
			"When half of them are lost there is no quorum: no failover, and no virtual address.", "Add a member.")
	case members%2 == 0 && a.WdTieBreaker == TieNone:
		a.endangers("enable_consensus_with_half_votes", "half of the members may decide", "When the network parts them in two halves, both may fail over.",
			"Add a member and set it to off, or set wd_tie_breaker.")
	}
	if !a.FailoverWhenQuorumExists {
		a.endangers("failover_when_quorum_exists", "a member that is cut off may fail over", "Two primaries can be the result.", "Set it to on.")
	}
	if !a.FailoverRequireConsensus {
		a.endangers("failover_require_consensus", "one member that does not reach a server fails it over for all", "", "Set it to on.")
	}
	if a.WdAuthkey == "" {
		a.endangers("wd_authkey", "anybody can speak as a member of the watchdog", "wd_authkey is empty.", "Set the same long random text on all members.")
	}
}

func (a *advisor) log() {
	if !a.LoggingCollector && !slices.Contains(a.LogDestination, "syslog") {
		a.say(LevelInfo, KindDangerous, "log_destination", "without -n the log is lost", "The log goes to stderr, which a daemon does not have.",
			"Start pgpool with -n, as the service does, or set logging_collector or log_destination = 'syslog'.")
	}
}
