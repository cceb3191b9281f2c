package session

import (
	"fmt"
	"log/slog"

	"pgpool-go/pgpool/certs"
	"pgpool-go/pgpool/wire"
)

// hello reads first packets until one begins a session.
func (s *Session) hello() (*wire.Startup, error) {
	for range 3 { // TLS, GSS, and then it must be a startup packet
		h, err := s.client.Hello()
		if err != nil {
			return nil, err
		}
		switch {
		case h.Direct:
			err = s.directTLS()
		case h.SSL:
			err = s.askedTLS()
		case h.GSS:
			err = s.sayByte('N')
		case h.Cancel != nil:
			s.log = s.log.With(slog.String("app", "child"))
			s.message("Cancel", fmt.Sprintf("process id: %d", h.Cancel.PID))
			s.task.Block(func() { s.cancel(*h.Cancel) })
			return nil, errGoodbye
		default:
			return h.Startup, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, wire.Fatal("08P01", "expected a startup packet")
}

// sayByte answers a wish for encryption.
func (s *Session) sayByte(b byte) error {
	if _, err := s.client.Write([]byte{b}); err != nil {
		return err
	}
	return s.client.Flush()
}

// hasTLS tells whether this client can have it: over a Unix socket nobody listens
// in.
func (s *Session) hasTLS() bool { return s.cfg.ClientTLS != nil && s.port != "" }

// askedTLS answers a client that has asked for TLS in the clear.
func (s *Session) askedTLS() error {
	switch {
	case s.tls:
		return wire.Fatal("08P01", "TLS was asked for within TLS")
	case !s.hasTLS():
		return s.sayByte('N')
	case s.client.Buffered() > 0:
		// Somebody may have put these bytes in front of what the client will send
		// encrypted; they must not be taken for its own.
		return &wire.Error{Severity: "FATAL", Code: "08P01", Message: "received unencrypted data after SSL request",
			Detail: "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack."}
	}
	if err := s.sayByte('S'); err != nil {
		return err
	}
	return s.shakeHands()
}

// directTLS meets a client that begins TLS at once. It must say in the handshake
// that it wants to speak PostgreSQL's protocol, so that no other can be smuggled in.
func (s *Session) directTLS() error {
	if !s.hasTLS() {
		return wire.Fatal("08P01", "invalid length of startup packet") // what it looks like without TLS
	}
	if err := s.shakeHands(); err != nil {
		return err
	}
	if state, _ := s.client.TLS(); state.NegotiatedProtocol != certs.Protocol {
		return wire.Fatal("08P01", "received direct SSL connection request without ALPN protocol negotiation extension")
	}
	return nil
}

func (s *Session) shakeHands() error {
	cfg := s.cfg.ClientTLS
	if err := s.client.ServeTLS(cfg); err != nil {
		return err
	}
	state, _ := s.client.TLS()
	s.tls = true
	s.binding = certs.EndPoint(cfg.Certificates[0].Leaf)
	if len(state.PeerCertificates) > 0 {
		s.certName = state.PeerCertificates[0].Subject.CommonName
	}
	return nil
}

// ChannelBinding implements auth.Frontend.
func (s *Session) ChannelBinding() []byte { return s.binding }
