// Package session is one client from hello to goodbye.
//
// A Session is one straight-line conversation, in lockstep as PostgreSQL itself
// is: collect a batch from the client, send it to the node that route names,
// relay its replies, settle. Its files follow the conversation:
//
//	shared.go   what all sessions of a process have in common
//	slots.go    the places for clients, and the queue for one
//	admit.go    startup packet, slot, proof of identity, first server
//	session.go  the loop, the idle wait, the one place where a session ends
//	simple.go   a Query and a FunctionCall
//	extended.go Parse, Bind, Describe, Execute, Close, Flush, Sync
//	prepared.go prepared statements, and which servers have them
//	expect.go   which replies are due, and their relay
//	answer.go   the rest while an answer is due
//	copy.go     COPY FROM STDIN, and streams that go both ways
//	half.go     a standby's part in the session's state and transaction blocks
//	choose.go   the node for a statement, and its connection in the session's state
//	settings.go SET and its kin, repeated on each server the session uses
//	share.go    transaction mode: a server connection for each transaction. What travels:
//	            settings (state.go), statements (copies.go, texts.go, mend.go); what cannot,
//	            and how it is found out: audit.go, hidden.go
//	settle.go   what a finished statement has changed
//	cancel.go   cancel requests
//	record.go   what the log is told of a statement
//	show.go     SHOW POOL_xxx and PGPOOL SHOW, SET, RESET; their tables are in
//	            show_nodes.go, show_slots.go and show_routing.go, the extended protocol's
//	            statements and portals of them in show_extended.go
//
// Invariant: at any time at most one server owes the client replies, so what
// comes back has one order and one addressee; standbys may owe answers to errands
// (half.go), which are taken before they are asked anything else. A server connection about whose
// state there is any doubt is tainted and closed; what may have been executed is
// never sent again.
package session
