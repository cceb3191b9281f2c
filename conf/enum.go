package conf

import "strings"

// word is one value of an enum. The hidden ones are accepted and never offered.
type word[T ~int] struct {
	name   string
	value  T
	hidden bool
}

// words is an enum's vocabulary, in the order the original lists it.
type words[T ~int] []word[T]

func (ws words[T]) lookup(name string) (T, bool) {
	for _, w := range ws {
		if strings.EqualFold(w.name, name) {
			return w.value, true
		}
	}
	return 0, false
}

// name gives the first word for a value: debug for debug2, as in the original.
func (ws words[T]) name(v T) string {
	for _, w := range ws {
		if w.value == v {
			return w.name
		}
	}
	return ""
}

func (ws words[T]) offered() []string {
	var names []string
	for _, w := range ws {
		if !w.hidden {
			names = append(names, w.name)
		}
	}
	return names
}

var (
	clusteringModes = words[ClusteringMode]{
		{name: "streaming_replication", value: StreamingReplication},
		{name: "native_replication", value: NativeReplication},
		{name: "logical_replication", value: LogicalReplication},
		{name: "slony", value: Slony},
		{name: "raw", value: Raw},
		{name: "snapshot_isolation", value: SnapshotIsolation},
	}
	sslModes = words[SslMode]{
		{name: "auto", value: SslAuto},
		{name: "disable", value: SslDisable},
		{name: "allow", value: SslAllow},
		{name: "prefer", value: SslPrefer},
		{name: "require", value: SslRequire},
		{name: "verify-ca", value: SslVerifyCA},
		{name: "verify-full", value: SslVerifyFull},
	}
	levels = words[LogLevel]{
		{name: "debug", value: LevelDebug2, hidden: true},
		{name: "debug5", value: LevelDebug5},
		{name: "debug4", value: LevelDebug4},
		{name: "debug3", value: LevelDebug3},
		{name: "debug2", value: LevelDebug2},
		{name: "debug1", value: LevelDebug1},
		{name: "info", value: LevelInfo},
		{name: "notice", value: LevelNotice},
		{name: "warning", value: LevelWarning},
		{name: "error", value: LevelError},
		{name: "log", value: LevelLog},
		{name: "fatal", value: LevelFatal},
		{name: "panic", value: LevelPanic},
	}
	dlbowWords = words[DisableLoadBalanceOnWrite]{
		{name: "off", value: DlbowOff},
		{name: "transaction", value: DlbowTransaction},
		{name: "trans_transaction", value: DlbowTransTransaction},
		{name: "always", value: DlbowAlways},
		{name: "dml_adaptive", value: DlbowDmlAdaptive},
		{name: "dml_adaptive_global", value: DlbowDmlAdaptiveGlobal},
	}
	processModes = words[ProcessManagementMode]{
		{name: "static", value: ProcessStatic},
		{name: "dynamic", value: ProcessDynamic},
	}
	processStrategies = words[ProcessManagementStrategy]{
		{name: "aggressive", value: StrategyAggressive},
		{name: "gentle", value: StrategyGentle},
		{name: "lazy", value: StrategyLazy},
	}
	pcpLayouts = words[PcpLayout]{
		{name: "4.3", value: PcpLayout43},
		{name: "4.8", value: PcpLayout48},
	}
	backendMessages = words[LogBackendMessages]{
		{name: "none", value: BackendMessagesNone},
		{name: "terse", value: BackendMessagesTerse},
		{name: "verbose", value: BackendMessagesVerbose},
	}
	standbyDelays = words[LogStandbyDelay]{
		{name: "always", value: StandbyDelayAlways},
		{name: "if_over_threshold", value: StandbyDelayIfOverThreshold},
		{name: "none", value: StandbyDelayNone},
	}
	facilities = words[SyslogFacility]{
		{name: "LOCAL0", value: 0}, {name: "LOCAL1", value: 1}, {name: "LOCAL2", value: 2}, {name: "LOCAL3", value: 3},
		{name: "LOCAL4", value: 4}, {name: "LOCAL5", value: 5}, {name: "LOCAL6", value: 6}, {name: "LOCAL7", value: 7},
	}
	verbosities = words[LogErrorVerbosity]{
		{name: "terse", value: VerbosityTerse},
		{name: "default", value: VerbosityDefault},
		{name: "verbose", value: VerbosityVerbose},
	}
	tieBreakers = words[TieBreaker]{
		{name: "none", value: TieNone},
		{name: "trusted_servers", value: TieTrustedServers},
		{name: "primary", value: TiePrimary},
	}
	lifecheckMethods = words[LifecheckMethod]{
		{name: "query", value: LifecheckQuery},
		{name: "heartbeat", value: LifecheckHeartbeat},
		{name: "external", value: LifecheckExternal},
	}
	tempTables = words[CheckTempTable]{
		{name: "catalog", value: TempCatalog},
		{name: "trace", value: TempTrace},
		{name: "none", value: TempNone},
		{name: "on", value: TempOn},
		{name: "off", value: TempOff},
	}
	relcacheTargets = words[RelcacheQueryTarget]{
		{name: "primary", value: RelcachePrimary},
		{name: "load_balance_node", value: RelcacheLoadBalanceNode},
	}
	memqcacheMethods = words[MemqcacheMethod]{
		{name: "shmem", value: MemqcacheShmem},
		{name: "memcached", value: MemqcacheMemcached},
	}
)

// String is the upper-case word a log line carries.
func (l LogLevel) String() string {
	if l == LevelDebug2 {
		return "DEBUG2"
	}
	return strings.ToUpper(levels.name(l))
}

func (m ClusteringMode) String() string            { return clusteringModes.name(m) }
func (d DisableLoadBalanceOnWrite) String() string { return dlbowWords.name(d) }
func (m ProcessManagementMode) String() string     { return processModes.name(m) }
func (s ProcessManagementStrategy) String() string { return processStrategies.name(s) }
func (l PcpLayout) String() string                 { return pcpLayouts.name(l) }
func (m LogBackendMessages) String() string        { return backendMessages.name(m) }
func (d LogStandbyDelay) String() string           { return standbyDelays.name(d) }
func (f SyslogFacility) String() string            { return facilities.name(f) }
func (v LogErrorVerbosity) String() string         { return verbosities.name(v) }
func (t TieBreaker) String() string                { return tieBreakers.name(t) }
func (m LifecheckMethod) String() string           { return lifecheckMethods.name(m) }
func (t CheckTempTable) String() string            { return tempTables.name(t) }
func (t RelcacheQueryTarget) String() string       { return relcacheTargets.name(t) }
func (m MemqcacheMethod) String() string           { return memqcacheMethods.name(m) }
