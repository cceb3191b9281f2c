package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The codes that may stand where a startup packet has its protocol version.
const (
	cancelCode = 80877102
	sslCode    = 80877103
	gssCode    = 80877104
)

// MaxStartup is the largest first packet a client may send, as in PostgreSQL.
const MaxStartup = 10000

// helloBuffer holds most startup packets.
const helloBuffer = 512

// Hello is the first packet of a connection. Exactly one of its kinds is set.
type Hello struct {
	SSL, GSS bool
	Direct   bool // a TLS handshake without having asked; it stays in the buffer
	Cancel   *CancelKey
	Startup  *Startup
}

// tlsHandshake is the first byte of a TLS connection. No startup packet is so long
// that it could begin with it.
const tlsHandshake = 0x16

// CancelKey names a session to be cancelled.
type CancelKey struct {
	PID    uint32
	Secret string // bytes; 4 of them in protocol 3.0
}

// Param is one setting of a startup packet, in the order sent.
type Param struct{ Name, Value string }

// Startup is a client's wish to begin a session.
type Startup struct {
	Minor  int // of protocol 3
	Params []Param
}

// Lookup returns the last value given for name.
func (s *Startup) Lookup(name string) (string, bool) {
	for i := len(s.Params) - 1; i >= 0; i-- {
		if s.Params[i].Name == name {
			return s.Params[i].Value, true
		}
	}
	return "", false
}

// Hello waits for a connection's first packet. Anything that is not one is an
// *Error to be sent to whoever it is.
func (c *Conn) Hello() (Hello, error) {
	if c.in == nil { // a stranger, who may never say more than this
		c.in, c.r, c.w = helloPool.Get().(*[helloBuffer]byte)[:], 0, 0
	}
	if err := c.Need(1); err != nil {
		return Hello{}, err
	}
	if c.Bytes()[0] == tlsHandshake && c.sealed == nil {
		return Hello{Direct: true}, nil
	}
	if err := c.Need(4); err != nil {
		return Hello{}, err
	}
	size := binary.BigEndian.Uint32(c.Bytes())
	if size < 8 || size > MaxStartup {
		return Hello{}, Fatal("08P01", "invalid length of startup packet")
	}
	if err := c.Need(int(size)); err != nil {
		return Hello{}, err
	}
	defer func() {
		if c.Skip(int(size)); c.r == c.w {
			c.Release()
		}
	}()
	return parseHello(c.Bytes()[4:size])
}

// parseHello reads a first packet without its length: a code and what belongs to it.
// Nothing of body is kept.
func parseHello(body []byte) (Hello, error) {
	code := binary.BigEndian.Uint32(body)
	body = body[4:]
	switch code {
	case sslCode, gssCode:
		if len(body) != 0 {
			return Hello{}, Fatal("08P01", "invalid length of startup packet")
		}
		return Hello{SSL: code == sslCode, GSS: code == gssCode}, nil
	case cancelCode:
		if len(body) < 8 || len(body) > 4+256 {
			return Hello{}, Fatal("08P01", "invalid length of query cancel packet")
		}
		return Hello{Cancel: &CancelKey{PID: binary.BigEndian.Uint32(body), Secret: string(body[4:])}}, nil
	}
	if major := code >> 16; major != 3 {
		return Hello{}, Fatal("0A000", fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", major, code&0xffff))
	}
	params, ok := startupParams(string(body)) // one copy, of which all are parts
	if !ok {
		return Hello{}, Fatal("08P01", "invalid startup packet layout: expected terminator as last byte")
	}
	return Hello{Startup: &Startup{Minor: int(code & 0xffff), Params: params}}, nil
}

// startupParams reads pairs of zero-terminated strings up to an empty name, which
// must be the last.
func startupParams(body string) ([]Param, bool) {
	params := make([]Param, 0, strings.Count(body, "\x00")/2)
	for {
		name, rest, ok := strings.Cut(body, "\x00")
		if !ok {
			return nil, false
		}
		if name == "" {
			return params, rest == ""
		}
		value, rest, ok := strings.Cut(rest, "\x00")
		if !ok {
			return nil, false
		}
		params = append(params, Param{Name: name, Value: value})
		body = rest
	}
}
