package wire

import (
	"bytes"
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Message is anything pgproto3 can encode, of either side.
type Message interface {
	Encode(dst []byte) ([]byte, error)
}

// Send composes messages; Flush sends them.
func (c *Conn) Send(msgs ...Message) error {
	for _, m := range msgs {
		if len(c.out) >= maxUnsent {
			if err := c.Flush(); err != nil {
				return err
			}
		}
		if c.out == nil {
			c.out = smallPool.Get().(*[smallBuffer]byte)[:0]
		}
		out, err := m.Encode(c.out)
		if err != nil {
			return err
		}
		c.out = out
	}
	return nil
}

// AppendFrame adds the header of a frame whose body of size bytes is to follow.
func AppendFrame(dst []byte, typ byte, size int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, typ), uint32(size+4))
}

// SendRaw composes one frame from its letter and body.
func (c *Conn) SendRaw(typ byte, body []byte) error {
	if len(c.out)+headerLen > maxUnsent {
		if err := c.Flush(); err != nil {
			return err
		}
	}
	if c.out == nil {
		c.out = smallPool.Get().(*[smallBuffer]byte)[:0]
	}
	c.out = AppendFrame(c.out, typ, len(body))
	_, err := c.Write(body)
	return err
}

// Error is what a client reads: one sentence, its SQLSTATE, and perhaps the way
// out.
type Error struct {
	Severity string // ERROR or FATAL; after FATAL the connection ends
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
}

func (e *Error) Error() string {
	if e.Detail != "" {
		return e.Message + ": " + e.Detail
	}
	return e.Message
}

// Response is e as the protocol sends it.
func (e *Error) Response() *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity: e.Severity, SeverityUnlocalized: e.Severity, Code: e.Code,
		Message: e.Message, Detail: e.Detail, Hint: e.Hint,
	}
}

// Fatal is an Error that ends the connection.
func Fatal(code, message string) *Error {
	return &Error{Severity: "FATAL", Code: code, Message: message}
}

// ParseError opens the body of an ErrorResponse or NoticeResponse.
func ParseError(body []byte) *Error {
	e := &Error{}
	for len(body) > 1 {
		field := body[0]
		text, rest, ok := CString(body[1:])
		if !ok {
			break
		}
		switch field {
		case 'S':
			if e.Severity == "" {
				e.Severity = string(text)
			}
		case 'V':
			e.Severity = string(text) // never translated, unlike S
		case 'C':
			e.Code = string(text)
		case 'M':
			e.Message = string(text)
		case 'D':
			e.Detail = string(text)
		case 'H':
			e.Hint = string(text)
		}
		body = rest
	}
	return e
}

// CString cuts a zero-terminated string off b.
func CString(b []byte) (text, rest []byte, ok bool) {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i], b[i+1:], true
	}
	return nil, b, false
}
