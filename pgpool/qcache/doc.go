// Package qcache answers one question: have we answered this before, and is the
// answer still true?
//
// It keeps replies as bytes and understands nothing of them. What a reply depends
// on are Marks: one for each table, one for each database's schema, one for
// everything. A mark has an epoch, which a write moves on when its transaction
// ends; a reply is true as long as all its marks have the epochs they had before
// the server was asked. So nobody has to find the replies that a write makes
// wrong, and one that was under way while somebody wrote is wrong from the start.
// From the moment a commit leaves for the server until its outcome is known, its
// marks are in doubt, and nothing that depends on them is given out.
//
// Replies are in our own memory (local.go) or in a memcached (memcached.go), which
// several pgpools may share: then the epochs are there, too.
//
// It never asks a server, parses SQL or decides what may be kept: that is for
// session, with what catalog knows. A new place to keep replies is a new store.
package qcache
