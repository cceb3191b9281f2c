package backend

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"

	"pgpool-go/pgpool/certs"
	"pgpool-go/pgpool/wire"
)

// TLS is how a server is asked to speak it.
type TLS struct {
	Config   *tls.Config
	Required bool // a server without it is not spoken to
	Second   bool // only a server that does not let us in without is asked for it
}

// asksTLS is the packet that asks a server whether it has TLS. It answers with one
// byte.
var asksTLS = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 80877103)

var (
	errNoTLS  = errors.New("the server does not support TLS, which backend_sslmode requires")
	errStuffs = errors.New("the server sent bytes in the clear behind its answer to the request for TLS")
)

// config is the TLS configuration for this target; its name is verified where
// that is wanted.
func (t Target) config() *tls.Config {
	cfg := t.TLS.Config.Clone()
	cfg.ServerName = t.Host
	return cfg
}

// wantsTLS tells whether to ask for it: over a Unix socket nobody listens in.
func (t Target) wantsTLS() bool {
	network, _ := t.address()
	return t.TLS != nil && network == "tcp" && (!t.TLS.Second || t.insist)
}

// Insist is the target with TLS from the beginning, if err is that of a server which
// may let us in then and not without.
func (t Target) Insist(err error) (Target, bool) {
	var no *Refusal
	if t.TLS == nil || !t.TLS.Second || t.insist || !errors.As(err, &no) || !strings.HasPrefix(no.Said.Code, "28") {
		return t, false
	}
	t.insist = true
	return t, t.wantsTLS()
}

// secure begins TLS as the target wants.
func (c *Conn) secure() error {
	if !c.target.wantsTLS() {
		return nil
	}
	c.Write(asksTLS)
	if err := c.Flush(); err != nil {
		return err
	}
	if err := c.Need(1); err != nil {
		return err
	}
	switch answer := c.Bytes()[0]; {
	case answer == wire.ErrorResponse:
		_, body, err := c.Next(answerLimit)
		if err != nil {
			return err
		}
		return c.refused(body)
	case c.Buffered() > 1:
		return &Error{c.Node, errStuffs}
	case answer == 'S':
		c.Skip(1)
		return c.DialTLS(c.target.config())
	}
	c.Skip(1)
	if c.target.TLS.Required {
		return &Error{c.Node, errNoTLS}
	}
	return nil
}

// secure does the same for a socket of the runtime's, which may block.
func (t Target) secure(nc net.Conn) (net.Conn, error) {
	if _, err := nc.Write(asksTLS); err != nil {
		return nc, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(nc, answer[:]); err != nil {
		return nc, err
	}
	if answer[0] != 'S' {
		return nc, errNoTLS
	}
	return tls.Client(nc, t.config()), nil
}

// ChannelBinding implements auth.Backend.
func (c *Conn) ChannelBinding() []byte {
	state, ok := c.TLS()
	if !ok || len(state.PeerCertificates) == 0 {
		return nil
	}
	return certs.EndPoint(state.PeerCertificates[0])
}
