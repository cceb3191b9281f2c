package main

// explained are the tests that pass directly and need not pass through pgpool, and
// why. Each is a consequence of what pgpool is for, not of how it is built.
var explained = map[name]string{
	{"", "TestFatalTxError"}: "the server process on the primary is terminated, and the next statement is a read: " +
		"a standby may have answered it before word of the primary's end is here. The session ends then",
	{"pgconn", "TestConnectProtocolVersion32"}: "it expects the cancel key to be as short as the server's version has it; the key " +
		"is pgpool's own, which speaks protocol 3.2 in front of any server",
	{"pgxpool", "TestConnReleaseClosesConnInTransaction"}: "pgx closes a connection and expects the next one to have another " +
		"backend pid; pgpool resets the server connection and lends it to the next client (connection_cache)",
	{"pgxpool", "TestConnReleaseClosesConnInFailedTransaction"}: "as TestConnReleaseClosesConnInTransaction",
}

// explainedInTurns are further ones with pool_mode = transaction.
var explainedInTurns = map[name]string{
	{"", "TestFatalRxError"}: "it terminates the server process of the pid told at login, and expects its own session to end; " +
		"in this mode that process serves whoever has a transaction at the moment",
	{"", "TestPrepareWithDigestedNameHandlesTimeoutBetweenParseAndDescribe"}: "it pauses between Parse and Describe until statement_timeout " +
		"ends the server's statement; no server is held meanwhile",
	{"pgconn", "TestConnCheckConn"}:               "as TestFatalRxError",
	{"pgconn", "TestConnPing"}:                    "as TestFatalRxError",
	{"pgxpool", "TestPoolAcquireChecksIdleConns"}: "as TestFatalRxError",
	{"stdlib", "TestCheckIdleConn"}:               "as TestFatalRxError",
}
