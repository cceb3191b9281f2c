package auth

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"pgpool-go/pgpool/wire"
)

// socket carries the messages over a real connection, for either side.
type socket struct{ net.Conn }

func (s socket) ChannelBinding() []byte { return nil }

func (s socket) send(typ byte, body []byte) error {
	frame := append([]byte{typ}, binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))...)
	_, err := s.Write(append(frame, body...))
	return err
}

func (s socket) receive() (typ byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 || size > 1<<16 {
		return 0, nil, fmt.Errorf("frame of %d bytes", size)
	}
	body = make([]byte, size-4)
	_, err = io.ReadFull(s, body)
	return head[0], body, err
}

func (s socket) SendAuth(body []byte) error     { return s.send('R', body) }
func (s socket) SendPassword(body []byte) error { return s.send('p', body) }

func (s socket) ReceiveAuth() ([]byte, error) {
	switch typ, body, err := s.receive(); {
	case err != nil:
		return nil, err
	case typ == 'R':
		return body, nil
	case typ == 'E':
		return nil, wire.ParseError(body)
	default:
		return nil, fmt.Errorf("message %q", typ)
	}
}

func (s socket) ReceivePassword() ([]byte, error) {
	typ, body, err := s.receive()
	if err == nil && typ != 'p' {
		err = fmt.Errorf("message %q", typ)
	}
	return body, err
}

// dialServer opens a connection to a real server and sends the startup packet.
func dialServer(t testing.TB, host string, port int, user string) socket {
	t.Helper()
	c, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(port)), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	body = append(body, "user\x00"+user+"\x00database\x00postgres\x00\x00"...)
	packet := append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
	if _, err := c.Write(packet); err != nil {
		t.Fatal(err)
	}
	return socket{c}
}

// gate is a server of one plan: it lets in or refuses, answers one query with
// nothing in it, and tells what Challenge returned.
type gate struct {
	port    int
	results chan served
}

func openGate(t testing.TB, user string, plan Plan) *gate {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{port: ln.Addr().(*net.TCPAddr).Port, results: make(chan served, 16)}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			g.results <- letIn(socket{c}, user, plan)
			c.Close()
		}
	}()
	return g
}

func letIn(s socket, user string, plan Plan) served {
	for { // SSL and GSS are declined
		var head [8]byte
		if _, err := io.ReadFull(s, head[:]); err != nil {
			return served{err: err}
		}
		if code := binary.BigEndian.Uint32(head[4:]); code == 80877103 || code == 80877104 {
			s.Write([]byte("N"))
			continue
		}
		rest := make([]byte, binary.BigEndian.Uint32(head[:])-8)
		if _, err := io.ReadFull(s, rest); err != nil {
			return served{err: err}
		}
		break
	}
	c, err := Challenge(s, user, plan)
	if err != nil {
		if e, ok := errors.AsType[*wire.Error](err); ok {
			out, _ := e.Response().Encode(nil)
			s.Write(out)
		}
		return served{err: err}
	}
	if err := SendOK(s); err != nil {
		return served{err: err}
	}
	s.send('S', []byte("server_version\x0015.0\x00"))
	s.send('S', []byte("client_encoding\x00UTF8\x00"))
	s.send('Z', []byte("I"))
	for {
		typ, _, err := s.receive()
		if err != nil || typ == 'X' {
			return served{cred: c}
		}
		s.send('I', nil)
		s.send('Z', []byte("I"))
	}
}
