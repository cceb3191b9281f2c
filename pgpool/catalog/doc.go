// Package catalog answers one question: what do the servers know of these names?
// May the function write, is the relation of the system catalog, unlogged, a
// view over something that is?
//
// What has been learned is kept per database and shared by all sessions; what a
// verdict needs is remembered with the verdict itself, so that Lookup of a
// statement already known is a pointer check. Only Resolve asks a server, through
// an Asker that its caller chooses (relcache_query_target), with names bound as
// parameters, never pasted into SQL. It decides nothing: its answer is
// route.Facts. To teach it a new fact, add a field there, a column to the
// questions in ask.go and its use in facts.go.
package catalog
