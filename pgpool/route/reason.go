package route

// Reason is why a statement goes where it goes. The code (String) is stable: it
// appears in the log, in SHOW POOL_ROUTING and in EXPLAIN ROUTING.
type Reason uint8

// Reasons. The order is that of SHOW POOL_ROUTING.
const (
	ReasonNone Reason = iota

	// Answered by pgpool, or nowhere to go.
	ReasonPool
	ReasonCache
	ReasonNoNode
	ReasonNoPrimary
	ReasonSnapshotLost

	// Reads that may leave the primary.
	ReasonRead
	ReasonReadTransaction
	ReasonReadPrepared
	ReasonEmpty
	ReasonLowerDelay
	ReasonTargetStandby
	ReasonPrepared
	ReasonProcess
	ReasonPortal

	// By class: the primary.
	ReasonWrite
	ReasonWritingWith
	ReasonLocks
	ReasonUnknown
	ReasonMulti
	ReasonExplain
	ReasonSession
	ReasonTransaction
	ReasonCursor
	ReasonNotify
	ReasonPrepare
	ReasonOpaque
	ReasonReplication
	ReasonExtendedPool

	// By names.
	ReasonFunction
	ReasonCatalog
	ReasonTemporary
	ReasonUnlogged
	ReasonPattern
	ReasonUnresolved

	// By state.
	ReasonFailed
	ReasonWrote
	ReasonWroteBefore
	ReasonWroteEver
	ReasonWroteTable
	ReasonRecentTable
	ReasonColdStart
	ReasonSerializable
	ReasonSnapshot
	ReasonSettings
	ReasonBegunInMulti

	// By wish and configuration.
	ReasonComment
	ReasonSpace
	ReasonTargetPrimary
	ReasonNoBalancing

	// By the draw.
	ReasonPrimaryDrawn
	ReasonPreference
	ReasonLag
	ReasonNoStandby

	lastReason
)

var reasons = [lastReason]struct{ code, text string }{
	ReasonNone:            {"none", "not decided"},
	ReasonPool:            {"pool_command", "answered by pgpool"},
	ReasonCache:           {"query_cache", "answered from the query cache"},
	ReasonNoNode:          {"no_node", "no node can be used"},
	ReasonNoPrimary:       {"no_primary", "there is no primary"},
	ReasonSnapshotLost:    {"snapshot_lost", "the node with the transaction's snapshot is gone"},
	ReasonRead:            {"read", "only reads"},
	ReasonReadTransaction: {"read_transaction", "only reads; the transaction has its node for reads"},
	ReasonReadPrepared:    {"read_prepared", "only reads; it, or its pipeline, is on this node already"},
	ReasonEmpty:           {"empty", "empty statement"},
	ReasonLowerDelay:      {"lower_delay", "the node drawn lags; this standby lags least"},
	ReasonTargetStandby:   {"target_standby", "pgpool.target asks for a standby"},
	ReasonPrepared:        {"prepared", "follows its PREPARE"},
	ReasonProcess:         {"process", "names a server process of this node"},
	ReasonPortal:          {"portal", "names a portal of this node"},
	ReasonWrite:           {"write", "writes"},
	ReasonWritingWith:     {"writing_with", "WITH contains a writing statement"},
	ReasonLocks:           {"locks", "locks rows or tables"},
	ReasonUnknown:         {"unknown", "cannot be read, so it may write"},
	ReasonMulti:           {"multi", "more than one statement"},
	ReasonExplain:         {"explain", "EXPLAIN"},
	ReasonSession:         {"session", "changes the session"},
	ReasonTransaction:     {"transaction", "transaction control"},
	ReasonCursor:          {"cursor", "cursors live on the primary"},
	ReasonNotify:          {"notify", "notifications live on the primary"},
	ReasonPrepare:         {"prepare", "statements prepared by SQL live on the primary"},
	ReasonOpaque:          {"opaque", "may do anything"},
	ReasonReplication:     {"replication", "replication command"},
	ReasonExtendedPool:    {"pool_command_extended", "pgpool's commands are known in the simple protocol only"},
	ReasonFunction:        {"function", "calls a function that may write"},
	ReasonCatalog:         {"catalog", "reads a system catalog"},
	ReasonTemporary:       {"temporary", "uses a temporary table"},
	ReasonUnlogged:        {"unlogged", "uses an unlogged table"},
	ReasonPattern:         {"pattern", "matches primary_routing_query_pattern_list"},
	ReasonUnresolved:      {"unresolved", "its names have not been looked up"},
	ReasonFailed:          {"failed", "the transaction has failed"},
	ReasonWrote:           {"wrote", "the transaction has written"},
	ReasonWroteBefore:     {"wrote_before", "an earlier transaction of the session has written"},
	ReasonWroteEver:       {"wrote_ever", "the session has written"},
	ReasonWroteTable:      {"wrote_table", "the transaction has written this table"},
	ReasonRecentTable:     {"recent_table", "the table has been written a moment ago"},
	ReasonColdStart:       {"cold_start", "pgpool does not yet know which tables have been written"},
	ReasonSerializable:    {"serializable", "the transaction is SERIALIZABLE"},
	ReasonSnapshot:        {"snapshot", "the transaction has its snapshot on the primary"},
	ReasonSettings:        {"settings", "the session has settings that cannot be repeated elsewhere"},
	ReasonBegunInMulti:    {"begun_in_multi", "the transaction was begun in a multi-statement string"},
	ReasonComment:         {"comment", "a comment stands in front and allow_sql_comments is off"},
	ReasonSpace:           {"space", "white space stands in front and ignore_leading_white_space is off"},
	ReasonTargetPrimary:   {"target_primary", "pgpool.target asks for the primary"},
	ReasonNoBalancing:     {"no_balancing", "load_balance_mode is off"},
	ReasonPrimaryDrawn:    {"primary_drawn", "the primary's turn by weight"},
	ReasonPreference:      {"preference", "a redirect preference list names the node"},
	ReasonLag:             {"lag", "the standby lags too far behind"},
	ReasonNoStandby:       {"no_standby", "no standby can be read, or none has weight"},
}

// String is the code of the reason.
func (r Reason) String() string { return reasons[r].code }

// Text is the reason as a phrase.
func (r Reason) Text() string { return reasons[r].text }

// Reasons lists all reasons, for counters.
func Reasons() []Reason {
	list := make([]Reason, 0, lastReason)
	for r := ReasonNone + 1; r < lastReason; r++ {
		list = append(list, r)
	}
	return list
}

// Number of reasons, for arrays of counters indexed by Reason.
const NumReasons = int(lastReason)
