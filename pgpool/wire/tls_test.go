package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsPair is pair with TLS on it, c being the server.
func tlsPair(t testing.TB, e *Engine, max uint16) (*Conn, *tls.Conn) {
	t.Helper()
	c, nc := pair(t, e)
	c.Attach(e.NewTask())
	peer := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MaxVersion: max})
	done := make(chan error, 1)
	go func() { done <- peer.Handshake() }()
	if err := c.ServeTLS(&tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c, peer
}

// Frames pass as without TLS, and when all has been read nothing seems to be left:
// a pool would not take the connection back.
func TestTLSFrames(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			c, peer := tlsPair(t, engine(t), version)
			for _, size := range []int{0, 1, 1000, 16383, 16384, 100_000, 3 << 20} {
				body := bytes.Repeat([]byte{byte(size)}, size)
				burst := append(frame('Q', body), frame('S', nil)...)
				go peer.Write(burst)
				typ, got, err := c.Next(MaxFrame)
				if err != nil || typ != 'Q' || !bytes.Equal(got, body) {
					t.Fatalf("size %d: got %c, %d bytes, %v", size, typ, len(got), err)
				}
				if typ, _, err = c.Next(MaxFrame); err != nil || typ != 'S' {
					t.Fatalf("size %d: got %c, %v", size, typ, err)
				}
				if c.TryFill(); c.Stirred() {
					t.Errorf("size %d: stirred although all has been read", size)
				}
				echo := make(chan []byte)
				go func() {
					b := make([]byte, len(burst))
					io.ReadFull(peer, b)
					echo <- b
				}()
				c.SendRaw('Q', body)
				c.SendRaw('S', nil)
				if err := c.Flush(); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(<-echo, burst) {
					t.Errorf("size %d: the peer got something else", size)
				}
			}
			peer.CloseWrite()
			if err := c.Fill(); !errors.Is(err, io.EOF) || !c.HungUp() {
				t.Errorf("after the peer's close_notify: %v", err)
			}
			c.SendRaw('X', nil)
			c.SendNow()
			c.Close()
			if b, err := io.ReadAll(peer); err != nil || string(b) != "X\x00\x00\x00\x04" {
				t.Errorf("the peer's end: %q, %v", b, err)
			}
		})
	}
}

// What came before the handshake belongs to it, and a handshake of nonsense is
// answered by an alert.
func TestTLSHandshakeBytes(t *testing.T) {
	e := engine(t)
	c, nc := pair(t, e)
	c.Attach(e.NewTask())
	peer := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
	go func() {
		peer.Handshake()
		peer.Write(frame('S', nil))
	}()
	if h, err := c.Hello(); err != nil || !h.Direct {
		t.Fatalf("got %+v, %v", h, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"postgresql"}}
	if err := c.ServeTLS(cfg); err != nil {
		t.Fatal(err)
	}
	if state, ok := c.TLS(); !ok || state.NegotiatedProtocol != "postgresql" {
		t.Errorf("negotiated %q", state.NegotiatedProtocol)
	}
	if typ, _, err := c.Next(MaxFrame); err != nil || typ != 'S' {
		t.Fatalf("got %c, %v", typ, err)
	}

	c, nc = pair(t, e)
	c.Attach(e.NewTask())
	go nc.Write([]byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"))
	var bad *HandshakeError
	if err := c.ServeTLS(cfg); !errors.As(err, &bad) {
		t.Errorf("got %v", err)
	}
	alert := make([]byte, 1)
	if _, err := io.ReadFull(nc, alert); err != nil || alert[0] != 0x15 {
		t.Errorf("got %x, %v", alert, err)
	}
}

// A handshake that goes no further holds no thread, and ends with its limit.
func TestTLSHandshakeLimit(t *testing.T) {
	e := engine(t)
	c, _ := pair(t, e)
	task := e.NewTask()
	c.Attach(task)
	tooSlow := errors.New("too slow")
	stop := task.Limit(time.Millisecond, tooSlow)
	defer stop()
	if err := c.ServeTLS(&tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}); !errors.Is(err, tooSlow) {
		t.Errorf("got %v", err)
	}
}

// A peer that does not read makes a write wait, and reading goes on meanwhile.
func TestTLSWriteBlocks(t *testing.T) {
	c, peer := tlsPair(t, engine(t), 0)
	big := make([]byte, 8<<20)
	heard := 0
	c.Relieve(func() error {
		_, err := c.TryFill()
		if heard += c.Buffered(); heard > 0 {
			c.Skip(c.Buffered())
		}
		return err
	})
	got := make(chan int64)
	go func() {
		for range 10 {
			peer.Write(make([]byte, 1000))
		}
		n, _ := io.Copy(io.Discard, io.LimitReader(peer, int64(len(big))))
		got <- n
	}()
	if _, err := c.Write(big); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != int64(len(big)) {
		t.Errorf("%d bytes arrived", n)
	}
}

var _ net.Conn = socket{}
