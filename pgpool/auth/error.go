package auth

import "pgpool-go/pgpool/wire"

// Error is a login that was refused, in the words the client is to read. The
// words of Message and Detail are the original's where it has words that help.
type Error struct {
	Severity string
	SQLState string
	Message  string
	Detail   string
	Hint     string
	cause    error
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Message
	}
	return e.Message + ": " + e.Detail
}

// As lets a reader who asks for what to send to the client find it here, and not
// the server's words further down.
func (e *Error) As(target any) bool {
	out, ok := target.(**wire.Error)
	if ok {
		*out = &wire.Error{Severity: e.Severity, Code: e.SQLState, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
	}
	return ok
}

// Unwrap gives the server's own error, where a server refused.
func (e *Error) Unwrap() error { return e.cause }

const (
	stateWrongPassword = "28P01" // the proof is wrong
	stateNotAuthorized = "28000" // the proof could not be asked for, or not be given to the server
	stateProtocol      = "08P01" // a party did not speak the protocol
	stateUnsupported   = "0A000" // the server wants what pgpool cannot do
)

func fatal(state, message, detail string) *Error {
	return &Error{Severity: "FATAL", SQLState: state, Message: message, Detail: detail}
}

func (e *Error) hint(text string) *Error {
	e.Hint = text
	return e
}

func (e *Error) because(err error) *Error {
	e.cause = err
	return e
}
