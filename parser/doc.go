// Package parser answers one question: what is this statement?
//
// Classify turns SQL text into a Verdict: facts read off the text, cached,
// immutable, the same for every session. It knows PostgreSQL 16's grammar (by
// pg_query_go, which no other room imports) and pgpool's own commands.
//
// It holds no policy (that is route), asks no server (that is catalog), never
// fails and never panics: text it cannot read is Unknown, which route treats as
// a write. To teach it a new statement, add a case to statement.go and a line
// to testdata/classify.
package parser
