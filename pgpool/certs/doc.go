// Package certs answers two questions of TLS: what do we show, and whom do we
// believe? It turns the ssl settings of pgpool.conf and the files they name into
// configurations of crypto/tls, for clients (Server) and for servers (Backend).
//
// It opens no connection and knows nothing of users: which certificate is good
// for which user is auth's to say. Everything is read when it is asked for and
// not kept, so a reload is another call.
//
// A new TLS setting belongs to server.go or backend.go; another way to protect a
// key's file, to key.go; a name of a cipher, to ciphers.go.
package certs
