// Package pgpool puts the rooms together: listeners, reload and shutdown, and
// the introductions between rooms that do not know each other.
//
// It decides nothing about a statement, a node or a client. A Server is made by
// New from the files, serves from Start on, and is over when Wait returns.
package pgpool
