// Package conf answers one question: what did the operator write?
//
// It reads pgpool.conf and the files around it (pool_hba.conf, pool_passwd,
// pcp.conf, pgpool_node_id, .pgpoolkey, .pcppass) into immutable values, and says what is
// wrong with them, where, and what would be right. It never acts on what it
// read: it opens no socket to a backend, starts nothing and logs nothing; what
// the operator should hear is returned as Notices.
//
// Everything known about a parameter is one entry of the table (table*.go):
// its name, type, unit, default, limits, reload context and description.
// Parsing, PGPOOL SHOW, SHOW POOL_STATUS, reload, PGPOOL SET and the sample
// file all derive from it. A new parameter is one more entry and one more
// field of Config; a renamed or removed one is an entry in legacy.go.
package conf
