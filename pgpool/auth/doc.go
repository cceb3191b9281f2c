// Package auth answers two questions: is the client who it says it is, and how
// does pgpool prove to a server that it may speak for that client?
//
// What to ask and what to present is decided by pure functions (Relay, Admit,
// Present); Challenge asks the client as a server would, ReadMethod and Answer
// log in to a server as a client would. The messages travel over Frontend and
// Backend, so no socket is seen here. Secrets live inside Credential, which
// never prints itself.
//
// The room never reads a file, never logs, never sends AuthenticationOk on its
// own account (SendOK is the session's to call, once the servers agree too) and
// never decides which servers are used.
//
// A new way to prove oneself is a Kind with its reader in method.go, a case in
// Answer and Challenge, and a case in decide.go with its rows in
// testdata/auth. Words a client reads are all in words.go.
package auth

// Frontend is the client's side of the conversation.
type Frontend interface {
	// SendAuth sends one authentication request ('R') with this body and
	// flushes it. The body is not kept.
	SendAuth(body []byte) error
	// ReceivePassword returns the body of the next message, which must be a
	// password message ('p'). It is valid until the next call.
	ReceivePassword() ([]byte, error)
	// ChannelBinding is what ties a login to the TLS channel it goes over
	// (tls-server-end-point); nil where there is none.
	ChannelBinding() []byte
}

// Backend is the server's side of the conversation.
type Backend interface {
	// ReceiveAuth returns the body of the next authentication request ('R').
	// It is valid until the next call. An ErrorResponse comes as an error with
	// a *wire.Error in its chain; any other error means that the server could
	// not be heard.
	ReceiveAuth() (body []byte, err error)
	// SendPassword sends one password message ('p') with this body and
	// flushes it. The body is not kept.
	SendPassword(body []byte) error
	// ChannelBinding is as the Frontend's.
	ChannelBinding() []byte
}

// SendOK tells the client that it is let in.
func SendOK(f Frontend) error { return f.SendAuth(request(codeOK, nil)) }
