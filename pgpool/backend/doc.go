// Package backend lends logged-in server connections, and keeps the pools of
// them.
//
// A Conn is one server session: dialled, logged in, with what is known of its
// state. A Pool keeps the idle ones by everything that makes two of them
// different; a Share has those that sessions use in turns, a transaction at a time,
// in no more than a given number. Only a connection that is proven clean goes back into a pool: idle,
// nothing unread, its reset statements answered without an error. Errors of the
// socket are an *Error that names the node; what the server itself says is a
// *Refusal.
//
// What a session does with a connection is not known here. A new way to log in
// belongs to auth; what makes connections different, to Key.
package backend
