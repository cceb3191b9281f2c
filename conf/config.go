package conf

import (
	"slices"
	"strconv"
	"time"
)

// Config is what pgpool.conf says. It is immutable: Load, Reload and With give new ones.
//
// There is one field per parameter, named as the parameter is. Times are
// time.Durations, sizes are bytes. What is numbered is in slices: a node's id
// is its place in Backends.
type Config struct {
	// Clustering mode.
	BackendClusteringMode ClusteringMode

	// Connections.
	ListenAddresses         []string
	Port                    int
	UnixSocketDirectories   []string
	UnixSocketGroup         string
	UnixSocketPermissions   int
	PcpListenAddresses      []string
	PcpPort                 int
	PcpSocketDir            []string
	PcpLayout               PcpLayout
	ListenBacklogMultiplier int
	SerializeAccept         bool

	// Authentication.
	EnablePoolHba              bool
	PoolPasswd                 string
	AuthenticationTimeout      time.Duration
	AllowClearTextFrontendAuth bool
	AuthQuery                  string
	AuthUser                   string
	AuthDatabase               string

	// TLS.
	Ssl                    bool
	SslKey                 string
	SslCert                string
	SslCaCert              string
	SslCaCertDir           string
	SslCrlFile             string
	SslCiphers             string
	SslPreferServerCiphers bool
	SslEcdhCurve           string
	SslDhParamsFile        string
	SslPassphraseCommand   string
	BackendSslmode         SslMode

	// Pools.
	NumInitChildren     int
	ReservedConnections int
	MaxPool             int
	ChildLifeTime       time.Duration
	ChildMaxConnections int
	ConnectionLifeTime  time.Duration
	ClientIdleLimit     time.Duration

	// Pools of transaction mode.
	PoolMode              PoolMode
	PoolModeUser          PoolModeList
	PoolModeDatabase      PoolModeList
	PoolSize              int
	MinPoolSize           int
	ReservePoolSize       int
	ReservePoolTimeout    time.Duration
	PoolWaitTimeout       time.Duration
	PoolWaitNotice        time.Duration
	MaxPreparedStatements int

	// Process management.
	ProcessManagementMode     ProcessManagementMode
	ProcessManagementStrategy ProcessManagementStrategy
	MinSpareChildren          int
	MaxSpareChildren          int

	// Logs.
	LogDestination         []string
	LogLinePrefix          string
	LogConnections         bool
	LogDisconnections      bool
	LogPcpProcesses        bool
	LogHostname            bool
	LogStatement           bool
	LogPerNodeStatement    bool
	NoticePerNodeStatement bool
	LogClientMessages      bool
	LogBackendMessages     LogBackendMessages
	LogStandbyDelay        LogStandbyDelay
	SyslogFacility         SyslogFacility
	SyslogIdent            string
	LogErrorVerbosity      LogErrorVerbosity
	ClientMinMessages      LogLevel
	LogMinMessages         LogLevel
	LoggingCollector       bool
	LogDirectory           string
	LogFilename            string
	LogFileMode            int
	LogTruncateOnRotation  bool
	LogRotationAge         time.Duration
	LogRotationSize        int64

	// Files.
	PidFileName string
	WorkDir     string

	// Pooled connections.
	ConnectionCache bool
	ResetQueryList  []string

	// Native replication.
	ReplicationMode                  bool
	ReplicateSelect                  bool
	InsertLock                       bool
	LobjLockTable                    string
	ReplicationStopOnMismatch        bool
	FailoverIfAffectedTuplesMismatch bool

	// Load balancing.
	LoadBalanceMode                   bool
	IgnoreLeadingWhiteSpace           bool
	ReadOnlyFunctionList              []string
	WriteFunctionList                 []string
	PrimaryRoutingQueryPatternList    []string
	UserRedirectPreferenceList        RedirectList
	DatabaseRedirectPreferenceList    RedirectList
	AppNameRedirectPreferenceList     RedirectList
	AllowSqlComments                  bool
	DisableLoadBalanceOnWrite         DisableLoadBalanceOnWrite
	DmlAdaptiveObjectRelationshipList RelationList
	StatementLevelLoadBalance         bool
	MultiStatementLoadBalance         bool // not in the original
	ExplainLoadBalance                bool // not in the original

	// Recently written tables.
	TrackTableMutationTtlFactor         float64
	TrackTableMutationMaxStaleness      time.Duration
	TrackTableMutationColdStartDuration time.Duration
	TrackTableMutationTableBuckets      int
	TrackTableMutationTableSize         int

	// Replication delay.
	SrCheckPeriod                 time.Duration
	SrCheckUser                   string
	SrCheckPassword               string
	SrCheckDatabase               string
	DelayThreshold                int64
	DelayThresholdByTime          time.Duration
	PreferLowerDelayStandby       bool
	ReplicationDelaySourceCmd     string
	ReplicationDelaySourceTimeout int

	// Health checks; the plain values, see HealthCheck.
	HealthCheckPeriod     time.Duration
	HealthCheckTimeout    time.Duration
	HealthCheckUser       string
	HealthCheckPassword   string
	HealthCheckDatabase   string
	HealthCheckMaxRetries int
	HealthCheckRetryDelay time.Duration
	ConnectTimeout        time.Duration
	HealthCheckTest       bool

	// Failover.
	FailoverCommand             string
	FailbackCommand             string
	FailoverOnBackendError      bool
	FailoverOnBackendShutdown   bool
	DetachFalsePrimary          bool
	SearchPrimaryNodeTimeout    time.Duration
	FollowPrimaryCommand        string
	AutoFailback                bool
	AutoFailbackInterval        time.Duration
	FailoverPromote             bool
	FailoverHoldTimeout         time.Duration
	FailoverCommandTimeout      time.Duration
	FollowPrimaryCommandTimeout time.Duration

	// Online recovery.
	RecoveryUser              string
	RecoveryPassword          string
	RecoveryDatabase          string
	Recovery1stStageCommand   string
	Recovery2ndStageCommand   string
	RecoveryTimeout           time.Duration
	ClientIdleLimitInRecovery time.Duration

	// Watchdog.
	UseWatchdog          bool
	WdListenAddress      string
	WdListenPort         int
	WdPriority           int
	WdAuthkey            string
	WdIpcSocketDir       string
	TrustedServers       string
	TrustedServerCommand string

	// Virtual IP.
	DelegateIp string
	IfCmdPath  string
	IfUpCmd    string
	IfDownCmd  string
	ArpingPath string
	ArpingCmd  string
	PingPath   string

	// Escalation.
	ClearMemqcacheOnEscalation bool
	WdEscalationCommand        string
	WdDeEscalationCommand      string

	// Quorum.
	FailoverWhenQuorumExists              bool
	FailoverRequireConsensus              bool
	AllowMultipleFailoverRequestsFromNode bool
	EnableConsensusWithHalfVotes          bool
	WdRemoveShutdownNodes                 bool
	WdLostNodeRemovalTimeout              time.Duration
	WdNoShowNodeRemovalTimeout            time.Duration

	// Life check.
	WdLifecheckMethod          LifecheckMethod
	WdMonitoringInterfacesList []string
	WdInterval                 time.Duration
	WdHeartbeatListenAddresses string
	WdHeartbeatListenPort      int
	WdHeartbeatKeepalive       time.Duration
	WdHeartbeatDeadtime        time.Duration
	WdTieBreaker               TieBreaker    // ours
	WdLeaderLease              time.Duration // ours; 0: derived from the heartbeats
	WdLifePoint                int
	WdLifecheckQuery           string
	WdLifecheckDbname          string
	WdLifecheckUser            string
	WdLifecheckPassword        string

	// Catalog cache.
	RelcacheExpire       time.Duration
	RelcacheSize         int
	CheckTempTable       CheckTempTable
	CheckUnloggedTable   bool
	EnableSharedRelcache bool
	RelcacheQueryTarget  RelcacheQueryTarget

	// Query cache.
	MemoryCacheEnabled             bool
	MemqcacheMethod                MemqcacheMethod
	MemqcacheMemcachedHost         string
	MemqcacheMemcachedPort         int
	MemqcacheTotalSize             int64
	MemqcacheMaxNumCache           int
	MemqcacheExpire                time.Duration
	MemqcacheAutoCacheInvalidation bool
	MemqcacheMaxcache              int64
	MemqcacheCacheBlockSize        int64
	MemqcacheOiddir                string
	CacheSafeMemqcacheTableList    []string
	CacheUnsafeMemqcacheTableList  []string

	// Numbered parameters, by node id. Slots that no port was given to are not Used.
	Backends   []Backend
	Watchdogs  []WatchdogNode
	Heartbeats []Heartbeat

	// NodeID is what pgpool_node_id says, -1 without a watchdog.
	NodeID int

	// Paths are the files this was read from, absolute.
	Paths Paths

	startDir string // the working directory at start
	num      *numbered
	sources  map[string]Source // by name as written in the table, with its number
	told     map[string]bool   // parameters the operator was warned about already
	start    *Config           // as at server start; nil: this is it
}

// numbered has room for every number a parameter may carry, so that its table
// entries can point into it. Configs that differ in session settings share one.
type numbered struct {
	backends   [MaxBackends]Backend
	watchdogs  [MaxWatchdogs]WatchdogNode
	heartbeats [MaxHeartbeats]Heartbeat
	health     [MaxBackends]HealthCheck
}

// Source is where a setting was set.
type Source struct {
	File  string
	Line  int
	Value string // as written, without quotes
}

// Default returns the configuration of an empty file.
func Default() *Config {
	c := &Config{num: new(numbered), NodeID: -1}
	for i := range table {
		s := &table[i]
		for _, index := range s.indexes() {
			s.reset(c, index)
		}
	}
	c.seal()
	return c
}

// indexes lists every number a setting may carry, plain included where it may go without.
func (s *Setting) indexes() []int {
	var all []int
	if !s.numbered() {
		all = append(all, plain)
	}
	for i := range s.Family.size() {
		all = append(all, i)
	}
	return all
}

// reset gives a setting its default. A zero port means "no such node" and is
// not a value one could write, so numbers start out as zero without parsing.
func (s *Setting) reset(c *Config, index int) {
	if s.Default == "0" {
		return
	}
	if s.Type == "list" && s.Default == "" {
		return
	}
	if bad := s.cell(c, index).parse(s.Name, s.Default); bad != nil {
		panic("conf: default of " + s.Name + ": " + bad.Error()) // the table's own test finds this first
	}
}

// clone copies a configuration so that every setting of it can be changed.
func (c *Config) clone() *Config {
	n := *c
	num := *c.num
	n.num = &num
	n.start = c.Start()
	return &n
}

// seal derives what follows from the numbered parameters.
func (c *Config) seal() {
	c.Backends = upToLast(c.num.backends[:], Backend.Used)
	c.Watchdogs = upToLast(c.num.watchdogs[:], WatchdogNode.Used)
	c.Heartbeats = upToLast(c.num.heartbeats[:], Heartbeat.Used)
}

func upToLast[T any](all []T, used func(T) bool) []T {
	n := len(all)
	for n > 0 && !used(all[n-1]) {
		n--
	}
	return slices.Clip(all[:n])
}

// Start returns the configuration as at server start, which PGPOOL RESET goes back to.
func (c *Config) Start() *Config {
	if c.start == nil {
		return c
	}
	return c.start
}

// HealthCheck gives the health-check settings of a node, its own or the plain ones.
func (c *Config) HealthCheck(node int) HealthCheck {
	if node < 0 || node >= MaxBackends {
		return HealthCheck{Period: c.HealthCheckPeriod, Timeout: c.HealthCheckTimeout, User: c.HealthCheckUser,
			Password: c.HealthCheckPassword, Database: c.HealthCheckDatabase, MaxRetries: c.HealthCheckMaxRetries,
			RetryDelay: c.HealthCheckRetryDelay, ConnectTimeout: c.ConnectTimeout}
	}
	return c.num.health[node]
}

// Explicit reports whether a file sets the parameter; a numbered one counts under
// its full name (backend_port0) and, if any of its numbers is set, without the number.
func (c *Config) Explicit(name string) bool {
	_, ok := c.Source(name)
	return ok
}

// Source says where a parameter was set; without a number, where its lowest number was.
func (c *Config) Source(name string) (Source, bool) {
	if src, ok := c.sources[name]; ok {
		return src, true
	}
	if s := byName[name]; s != nil {
		for i := range s.Family.size() {
			if src, ok := c.sources[s.Name+strconv.Itoa(i)]; ok {
				return src, true
			}
		}
	}
	return Source{}, false
}
