package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzStartup opens first packets: what is accepted says the same when it is written
// again, and what is not says why.
func FuzzStartup(f *testing.F) {
	seed := func(code uint32, rest string) { f.Add(append(binary.BigEndian.AppendUint32(nil, code), rest...)) }
	seed(3<<16, "user\x00a\x00database\x00b\x00\x00")
	seed(3<<16|2, "user\x00a\x00options\x00-c x=y\x00_pq_.z\x001\x00\x00")
	seed(3<<16, "\x00")
	seed(3<<16, "user\x00\x00\x00")
	seed(2<<16, "")
	seed(sslCode, "")
	seed(gssCode, "")
	seed(cancelCode, "\x00\x00\x00\x01abcd")
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) < 4 {
			return // Hello does not pass these on
		}
		h, err := parseHello(body)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok || h != (Hello{}) {
				t.Fatalf("%T %v, %v", err, err, h)
			}
			return
		}
		again := binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(body))
		switch {
		case h.Cancel != nil:
			again = append(binary.BigEndian.AppendUint32(again, h.Cancel.PID), h.Cancel.Secret...)
		case h.Startup != nil:
			for _, p := range h.Startup.Params {
				if p.Name == "" {
					t.Fatal("a setting without a name")
				}
				again = append(append(append(append(again, p.Name...), 0), p.Value...), 0)
			}
			again = append(again, 0)
		case !h.SSL && !h.GSS || h.SSL && h.GSS:
			t.Fatalf("%+v is nothing", h)
		}
		if !bytes.Equal(again, body) {
			t.Fatalf("%q was read as %q", body, again)
		}
	})
}

// FuzzCancel opens cancel requests: keys of 4 to 256 bytes are read, all others refused.
func FuzzCancel(f *testing.F) {
	f.Add(uint32(1), []byte("abcd"))
	f.Add(uint32(1<<31), []byte{0, 0, 0, 0})
	f.Add(uint32(7), bytes.Repeat([]byte("x"), 32))
	f.Add(uint32(7), bytes.Repeat([]byte("x"), 257))
	f.Add(uint32(0), []byte("abc"))
	f.Fuzz(func(t *testing.T, pid uint32, secret []byte) {
		body := binary.BigEndian.AppendUint32(nil, cancelCode)
		h, err := parseHello(append(binary.BigEndian.AppendUint32(body, pid), secret...))
		if fits := len(secret) >= 4 && len(secret) <= 256; fits != (err == nil) {
			t.Fatalf("%d bytes: %v", len(secret), err)
		}
		if err == nil && (h.Cancel == nil || h.Cancel.PID != pid || h.Cancel.Secret != string(secret) || h.Startup != nil) {
			t.Fatalf("%+v", h)
		}
	})
}
