package conf

import (
	"strings"
	"time"
)

// Limits of the numbered parameters.
const (
	MaxBackends   = 128
	MaxWatchdogs  = 128
	MaxHeartbeats = 256
)

// LogLevel is a message severity; its numbers are the ones SHOW POOL_STATUS prints.
type LogLevel int

// Message severities, least severe first.
const (
	LevelDebug5  LogLevel = 10
	LevelDebug4  LogLevel = 11
	LevelDebug3  LogLevel = 12
	LevelDebug2  LogLevel = 13
	LevelDebug1  LogLevel = 14
	LevelLog     LogLevel = 15
	LevelInfo    LogLevel = 17
	LevelNotice  LogLevel = 18
	LevelWarning LogLevel = 19
	LevelError   LogLevel = 20
	LevelFatal   LogLevel = 21
	LevelPanic   LogLevel = 22
)

// SslMode says how much TLS is wanted towards the servers, in libpq's words.
type SslMode int

// Modes of backend_sslmode.
const (
	SslAuto       SslMode = iota // as pgpool-II: disable without ssl, else prefer, and verify if there are CA certificates
	SslDisable                   // never
	SslAllow                     // where the server does not let us in without
	SslPrefer                    // where the server has it
	SslRequire                   // nothing else, with whatever certificate
	SslVerifyCA                  // with a certificate of a CA that is known
	SslVerifyFull                // and made for the server's host name
)

// ClusteringMode says how the backends are kept in step.
type ClusteringMode int

// Clustering modes. Slony exists up to 4.3 only; it keeps a number of its own.
const (
	StreamingReplication ClusteringMode = iota + 1
	NativeReplication
	LogicalReplication
	Raw
	SnapshotIsolation
	Slony
)

// HasPrimary reports whether one node takes the writes and a server decides which.
func (m ClusteringMode) HasPrimary() bool {
	return m == StreamingReplication || m == LogicalReplication || m == Slony
}

// Replicates reports whether pgpool itself sends writes to every node.
func (m ClusteringMode) Replicates() bool { return m == NativeReplication || m == SnapshotIsolation }

// DisableLoadBalanceOnWrite says how long reads stay on the primary after a write.
type DisableLoadBalanceOnWrite int

// Values of disable_load_balance_on_write.
const (
	DlbowOff DisableLoadBalanceOnWrite = iota + 1
	DlbowTransaction
	DlbowTransTransaction
	DlbowAlways
	DlbowDmlAdaptive
	DlbowDmlAdaptiveGlobal
)

// ProcessManagementMode says whether the number of children is fixed.
type ProcessManagementMode int

// Values of process_management_mode.
const (
	ProcessStatic ProcessManagementMode = iota + 1
	ProcessDynamic
)

// ProcessManagementStrategy says how quickly spare children go in dynamic mode.
type ProcessManagementStrategy int

// Values of process_management_strategy.
const (
	StrategyAggressive ProcessManagementStrategy = iota + 1
	StrategyGentle
	StrategyLazy
)

// LogBackendMessages says how much of the servers' protocol messages is logged.
type LogBackendMessages int

// Values of log_backend_messages.
const (
	BackendMessagesNone LogBackendMessages = iota + 1
	BackendMessagesTerse
	BackendMessagesVerbose
)

// LogStandbyDelay says when replication delay is logged.
type LogStandbyDelay int

// Values of log_standby_delay.
const (
	StandbyDelayAlways LogStandbyDelay = iota + 1
	StandbyDelayIfOverThreshold
	StandbyDelayNone
)

// PcpLayout says which fields the listings of the administrative port have.
type PcpLayout int

// Values of pcp_layout: programs up to 4.3 refuse the fields that later ones want.
const (
	PcpLayout43 PcpLayout = iota + 1
	PcpLayout48
)

// SyslogFacility is LOCAL0 to LOCAL7, as 0 to 7.
type SyslogFacility int

// LogErrorVerbosity says how much of a message is logged.
type LogErrorVerbosity int

// Values of log_error_verbosity.
const (
	VerbosityTerse LogErrorVerbosity = iota
	VerbosityDefault
	VerbosityVerbose
)

// TieBreaker says what decides between two halves of the watchdog.
type TieBreaker int

// Values of wd_tie_breaker.
const (
	TieNone TieBreaker = iota + 1
	TieTrustedServers
	TiePrimary
)

// LifecheckMethod says how other pgpools are probed.
type LifecheckMethod int

// Values of wd_lifecheck_method.
const (
	LifecheckQuery LifecheckMethod = iota + 1
	LifecheckHeartbeat
	LifecheckExternal
)

// CheckTempTable says how temporary tables are recognised.
type CheckTempTable int

// Values of check_temp_table; on and off are old spellings, see Catalog.
const (
	TempCatalog CheckTempTable = iota + 1
	TempTrace
	TempNone
	TempOn
	TempOff
)

// Catalog reports whether temporary tables are looked up in the catalog.
func (t CheckTempTable) Catalog() bool { return t == TempCatalog || t == TempOn }

// Trace reports whether temporary tables are followed by their CREATE and DROP.
func (t CheckTempTable) Trace() bool { return t == TempTrace }

// RelcacheQueryTarget says which node answers catalog look-ups.
type RelcacheQueryTarget int

// Values of relcache_query_target.
const (
	RelcachePrimary RelcacheQueryTarget = iota + 1
	RelcacheLoadBalanceNode
)

// MemqcacheMethod says where query results are kept.
type MemqcacheMethod int

// Values of memqcache_method.
const (
	MemqcacheShmem MemqcacheMethod = iota + 1
	MemqcacheMemcached
)

// BackendFlag is the set of flags in backend_flagN.
type BackendFlag uint8

// Backend flags; a node without DisallowToFailover may be failed over.
const (
	DisallowToFailover BackendFlag = 1 << iota
	AlwaysPrimary
)

// String writes the flags as backend_flagN takes them.
func (f BackendFlag) String() string {
	s := "ALLOW_TO_FAILOVER"
	if f&DisallowToFailover != 0 {
		s = "DISALLOW_TO_FAILOVER"
	}
	if f&AlwaysPrimary != 0 {
		s += "|ALWAYS_PRIMARY"
	}
	return s
}

// Backend is one server as configured; its node id is its place in Config.Backends.
type Backend struct {
	Hostname        string // host name, address, or a directory starting with / for a Unix socket
	Port            int    // 0: the slot is not used
	Weight          float64
	DataDirectory   string
	ApplicationName string
	Flag            BackendFlag
}

// Used reports whether the slot names a server; slots between used ones may be free.
func (b Backend) Used() bool { return b.Port != 0 }

// HealthCheck is how one node's health is checked.
type HealthCheck struct {
	Period         time.Duration // 0: not checked
	Timeout        time.Duration // 0: none
	User           string
	Password       string // as written: see ParseSecret; empty: look in pool_passwd
	Database       string // empty: postgres, then template1
	MaxRetries     int
	RetryDelay     time.Duration
	ConnectTimeout time.Duration // 0: none; for every dial to the node, not only health checks
}

// WatchdogNode is one pgpool of the watchdog cluster; its id is its place in Config.Watchdogs.
type WatchdogNode struct {
	Hostname   string
	WdPort     int // 0: the slot is not used
	PgpoolPort int
}

// Used reports whether the slot names a watchdog node.
func (w WatchdogNode) Used() bool { return w.WdPort != 0 }

// Heartbeat is where the heartbeats of watchdog node N go; several hosts or devices are joined by ";".
type Heartbeat struct {
	Hostname string
	Port     int // 0: the slot is not used
	Device   string
}

// Used reports whether the slot names a heartbeat destination.
func (h Heartbeat) Used() bool { return h.Port != 0 }

// NoticeKind says what a notice or an error is about.
type NoticeKind string

// Kinds of notices about pgpool.conf; others have none.
const (
	KindUnknown       NoticeKind = "unknown"       // no such parameter
	KindRenamed       NoticeKind = "renamed"       // takes effect under another name
	KindRemoved       NoticeKind = "removed"       // was a parameter once
	KindInvalid       NoticeKind = "invalid"       // a value that cannot be right
	KindRepeated      NoticeKind = "repeated"      // a later line wins
	KindIneffective   NoticeKind = "ineffective"   // changes nothing
	KindContradictory NoticeKind = "contradictory" // cannot be meant so, together with another setting
	KindDangerous     NoticeKind = "dangerous"     // works, and may be regretted
)

// Notice is something the operator should hear; it stops nothing. Detail also says where.
type Notice struct {
	Level   LogLevel
	Kind    NoticeKind
	Setting string // as the file has it; empty if it is about none
	File    string
	Line    int
	Text    string
	Detail  string
	Hint    string
}

// Reason is the detail without the place that ends it.
func (n Notice) Reason() string {
	at := located("", assignment{file: n.File, line: n.Line})
	if n.Detail == at {
		return ""
	}
	return strings.TrimSuffix(n.Detail, " ("+at+")")
}

// String is the notice on one line, for a terminal.
func (n Notice) String() string {
	return n.Level.String() + ":  " + sentence(n.Text, n.Detail, n.Hint)
}

// Error is why a file cannot be used. Text, Detail and Hint are the three
// parts of a message as the original writes them; Detail also says where.
type Error struct {
	Setting string // the parameter it is about, if it is about one
	File    string
	Line    int // 0: the file as a whole
	Text    string
	Detail  string
	Hint    string
	Err     error // the cause, where there is one
}

// Error is the whole message on one line.
func (e *Error) Error() string { return sentence(e.Text, e.Detail, e.Hint) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) notice(level LogLevel) Notice {
	return Notice{Level: level, Kind: KindInvalid, Setting: e.Setting, File: e.File, Line: e.Line, Text: e.Text, Detail: e.Detail, Hint: e.Hint}
}

func sentence(text, detail, hint string) string {
	for _, more := range []string{detail, hint} {
		if more != "" {
			text += "; " + more
		}
	}
	return text
}
