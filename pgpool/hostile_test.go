package pgpool_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

var fuzzFor = flag.Duration("mutate", 2*time.Second, "how long mutated input is tried")

// witness is a session that must not be disturbed by what others do.
type witness struct {
	r *raw
	t testing.TB
	n int
}

func (f *front) witness() *witness { return &witness{r: f.raw("application_name", "witness"), t: f.t} }

func (w *witness) look() {
	w.t.Helper()
	w.n++
	w.r.expect(w.t, fmt.Sprintf("T D(%d) C(SELECT 1) Z(I)", w.n), q(fmt.Sprintf("select %d", w.n)))
}

// packet is a startup packet: a length, a code and the rest.
func packet(code uint32, rest string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
	return string(binary.BigEndian.AppendUint32(b, code)) + rest
}

// message is a message with a length that fits.
func message(typ byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))) + body
}

// sized is the head of a message that claims a length.
func sized(typ byte, length uint32) string {
	return string(binary.BigEndian.AppendUint32([]byte{typ}, length))
}

// rest reads what is sent until the other side closes, in words.
func (r *raw) rest() string {
	var words []string
	for {
		msg, err := r.next()
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || isReset(err) {
			return strings.Join(append(words, "."), " ")
		}
		if err != nil {
			return strings.Join(append(words, err.Error()), " ")
		}
		words = append(words, word(msg))
	}
}

func isReset(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "connection reset") || strings.Contains(err.Error(), "broken pipe"))
}

const (
	ssl = 80877103
	gss = 80877104
	v3  = 3 << 16
)

// What may come instead of a startup packet. A full stop is the end of the
// connection.
func TestHostileStartup(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{HBA: []string{
		"host all carol 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust",
	}})
	c.MustExec(0, "create role carol login password 'secret'")
	f := serve(t, c, append(backends(c, 1), "allow_clear_text_frontend_auth = on")...)
	w := f.witness()
	user := "user\x00postgres\x00database\x00postgres\x00"
	for _, tc := range []struct{ name, in, want string }{
		{"nothing", "", "."},
		{"length 0", "\x00\x00\x00\x00", "E(08P01) ."},
		{"length 7", "\x00\x00\x00\x07\x00\x00\x00", "E(08P01) ."},
		{"negative length", "\xff\xff\xff\xff\x00\x03\x00\x00", "E(08P01) ."},
		{"length 10001", "\x00\x00\x27\x11\x00\x03\x00\x00", "E(08P01) ."},
		{"half", packet(v3, user+"\x00")[:20], "."},
		{"HTTP", "GET / HTTP/1.1\r\nHost: db\r\n\r\n", "E(08P01) ."},
		{"TLS without asking", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "E(08P01) ."},
		{"protocol 2", packet(2<<16, user+"\x00"), "E(0A000) ."},
		{"protocol 4", packet(4<<16, user+"\x00"), "E(0A000) ."},
		{"protocol 1234.1", packet(1234<<16|1, user+"\x00"), "E(0A000) ."},
		{"no end", packet(v3, "user\x00postgres\x00"), "E(08P01) ."},
		{"name without value", packet(v3, "user\x00postgres\x00database\x00"), "E(08P01) ."},
		{"more behind the end", packet(v3, user+"\x00xyz"), "E(08P01) ."},
		{"no user", packet(v3, "database\x00postgres\x00\x00"), "E(28000) ."},
		{"unknown user", packet(v3, "user\x00nobody\x00database\x00postgres\x00\x00"), "E(28000) ."},
		{"unknown database", packet(v3, "user\x00postgres\x00database\x00nowhere\x00\x00"), "E(3D000) ."},
		{"unknown setting", packet(v3, user+"no_such_setting\x001\x00\x00"), "E(42704) ."},
		{"bad setting", packet(v3, user+"work_mem\x00banana\x00\x00"), "E(22023) ."},
		{"bad options", packet(v3, user+"options\x00-c\x00\x00"), "E(42601) ."},
		{"bad UTF-8", packet(v3, "user\x00\xff\xfe\x00database\x00\xc3(\x00\x00"), "E(28000) ."},
		{"cancel of nobody", packet(80877102, "\x00\x00\x00\x01abcd"), "."},
		{"cancel too short", packet(80877102, "abc"), "E(08P01) ."},
		{"SSL with a tail", packet(ssl, "x"), "E(08P01) ."},
		{"a message instead", message('Q', "select 1\x00"), "E(08P01) ."},
		{"password instead of startup", message('p', "secret\x00"), "E(08P01) ."},
		{"password that was not asked for", packet(v3, user+"\x00") + message('p', "secret\x00"), "E(08P01) ."},
		{"query instead of a password", packet(v3, "user\x00carol\x00database\x00postgres\x00\x00") + message('Q', "select 1\x00"), "E(08P01) ."},
		{"wrong password", packet(v3, "user\x00carol\x00database\x00postgres\x00\x00") + message('p', "wrong\x00"), "E(28P01) ."},
		{"password of 2 GB", packet(v3, "user\x00carol\x00database\x00postgres\x00\x00") + sized('p', 1<<31-1), "E(08P01) ."},
		{"password of length 3", packet(v3, "user\x00carol\x00database\x00postgres\x00\x00") + sized('p', 3), "E(08P01) ."},
		{"empty password", packet(v3, "user\x00carol\x00database\x00postgres\x00\x00") + message('p', "\x00"), "E(28P01) ."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := f.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.SetDeadline(time.Now().Add(patience))
			r.Write([]byte(tc.in))
			r.Conn.(*net.TCPConn).CloseWrite()
			got := r.rest()
			// What comes of a login that succeeds, or is asked for a password, is
			// not what is looked at here.
			if i := strings.Index(got, "E("); i > 0 {
				got = got[i:]
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			w.look()
		})
	}
	f.checkLeaks2(t, 1)
}

// checkLeaks2 waits until only so many sessions are left.
func (f *front) checkLeaks2(t *testing.T, left int) {
	t.Helper()
	eventually(t, "all others have left", func() bool { return len(f.Server.Slots().Sessions()) == left })
}

// TLS and GSS are refused as often as they may be asked for, and no more.
func TestEncryptionRequests(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{})
	f := serve(t, c, backends(c, 1)...)
	r, err := f.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Write([]byte(packet(ssl, "")))
	b := make([]byte, 1)
	if _, err := io.ReadFull(r, b); err != nil || b[0] != 'N' {
		t.Fatalf("got %q, %v", b, err)
	}
	r.Write([]byte(packet(gss, "")))
	if _, err := io.ReadFull(r, b); err != nil || b[0] != 'N' {
		t.Fatalf("got %q, %v", b, err)
	}
	if err := r.startup(map[string]string{"user": "postgres", "database": "postgres"}); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))

	flood, err := f.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	flood.Write([]byte(strings.Repeat(packet(ssl, ""), 1000)))
	got, _ := io.ReadAll(flood)
	if len(bytes.Trim(got[:min(len(got), 3)], "N")) > 0 || len(got) > 300 {
		t.Errorf("got %q", got)
	}
}

// A newer minor version, and options nobody knows, are negotiated down as a
// server does.
func TestNegotiation(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{})
	f := serve(t, c, backends(c, 1)...)
	hello := packet(3<<16|99, "user\x00postgres\x00database\x00postgres\x00_pq_.future\x00on\x00\x00")
	first := func(addr string) string {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.Write([]byte(hello))
		b := make([]byte, 5)
		if _, err := io.ReadFull(nc, b); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, binary.BigEndian.Uint32(b[1:])-4)
		if _, err := io.ReadFull(nc, body); err != nil {
			t.Fatal(err)
		}
		return string(b) + string(body)
	}
	ours := first(fmt.Sprintf("127.0.0.1:%d", f.Port))
	theirs := first(fmt.Sprintf("127.0.0.1:%d", c.Nodes[0].Port))
	theirs = theirs[:5] + "\x00\x03\x00\x02" + theirs[9:] // version 15 of it speaks 3.0, we speak 3.2
	if ours != theirs {
		t.Errorf("got %q, PostgreSQL says %q", ours, theirs)
	}
}

// What may come after a login, out of place or out of shape. Each case ends with
// a query, which is answered where the session goes on.
func TestHostileMessages(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	f := serve(t, c, backends(c, 0, 1)...)
	c.MustExec(0, "create table kept (v text)")
	f.Must(f.WaitCatchup())
	w := f.witness()
	insert := message('P', "\x00insert into kept values ('never')\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00")
	read := message('P', "\x00select 7\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00")
	bad := message('P', "\x00selec\x00\x00\x00")
	sync := message('S', "")
	query := message('Q', "select 1\x00")
	one := "T D(1) C(SELECT 1) Z(I)"
	long := strings.Repeat("n", 9000)
	for _, tc := range []struct{ name, in, want string }{
		{"unknown letter", message('z', "abc"), "E(08P01) ."},
		{"letter 0", "\x00\x00\x00\x00\x04", "E(08P01) ."},
		{"password after login", message('p', "secret\x00"), "E(08P01) ."},
		{"length 3", sized('Q', 3), "E(08P01) ."},
		{"length 0", sized('P', 0), "E(08P01) ."},
		{"negative length", sized('Q', 1<<31), "E(08P01) ."},
		{"length -1", sized('d', 1<<32-1), "E(08P01) ."},
		{"1 GB", sized('Q', 1<<30), "E(08P01) ."},
		{"a large Sync", sized('S', 1<<20), "E(08P01) ."},
		{"a large Execute", sized('E', 1<<20), "E(08P01) ."},
		{"half a header", "Q\x00\x00", "."},
		{"half a Query", sized('Q', 100) + "select", "."},
		{"half a Bind", sized('B', 100000) + "\x00\x00\x00\x00", "."},
		{"half a CopyData", message('Q', "copy kept from stdin\x00") + sized('d', 100) + "never", "G ."},

		{"CopyData outside of COPY", message('d', "never\n") + message('c', "") + message('f', "no\x00"), one + " ."},
		{"a Query without end", message('Q', "select 2"), "E(08P01) Z(I) " + one + " ."},
		{"a Query with a NUL within", message('Q', "select 2\x00select 3\x00"), "E(08P01) Z(I) " + one + " ."},
		{"an empty Query message", message('Q', ""), "E(08P01) Z(I) " + one + " ."},
		{"a Parse without end", message('P', "abc") + read + sync, "E(08P01) Z(I) " + one + " ."},
		{"a Parse with bad counts", message('P', "\x00select 1\x00\x7f\xff") + read + sync, "E(08P01) Z(I) " + one + " ."},
		{"a Bind without end", message('B', "abc") + read + sync, "E(08P01) Z(I) " + one + " ."},
		{"a Bind with bad counts", message('P', "\x00select 1\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x7f\xff") + sync, "1 E(08P01) Z(I) " + one + " ."},
		{"a Bind of negative sizes", message('P', "\x00select $1::text\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x01\xff\xff\xff\x00\x00\x00") + sync, "1 E(08P01) Z(I) " + one + " ."},
		{"a Describe of nothing", message('D', "X\x00") + read + sync, "E(08P01) Z(I) " + one + " ."},
		{"a Describe without name", message('D', "") + sync, "E(08P01) Z(I) " + one + " ."},
		{"a Close of nothing", message('C', "Y\x00") + read + sync, "E(08P01) Z(I) " + one + " ."},
		{"a short Execute", message('E', "\x00\x00") + read + sync, "E(08P01) Z(I) " + one + " ."},
		{"a Sync with a body", message('S', "abc"), "Z(I) " + one + " ."},
		{"an unknown portal", message('E', "nowhere\x00\x00\x00\x00\x00") + read + sync, "E(34000) Z(I) " + one + " ."},
		{"a refused message behind a write", insert + message('D', "X\x00") + read + sync, "1 2 C(INSERT 0 1) E(08P01) Z(I) " + one + " ."},
		{"the same in a block", message('Q', "begin\x00") + insert + message('D', "X\x00") + read + sync + message('Q', "commit\x00"), "C(BEGIN) Z(T) 1 2 C(INSERT 0 1) E(08P01) Z(E) C(ROLLBACK) Z(I) " + one + " ."},

		{"a Query in a pipeline", read, "1 2 D(7) C(SELECT 1) " + one + " ."},
		{"a Query behind a write in a pipeline", message('Q', "do 'begin end'\x00") + insert + message('Q', "select 1/0 from kept\x00"), "C(DO) Z(I) 1 2 C(INSERT 0 1) E(22012) Z(I) " + one + " ."},
		{"a refused Query behind a write in a pipeline", insert + message('Q', "select 2"), "1 2 C(INSERT 0 1) E(08P01) Z(I) " + one + " ."},
		{"a Query in a failed pipeline", bad + message('Q', "select 2\x00") + sync, "E(42601) Z(I) " + one + " ."},
		{"a FunctionCall in a failed pipeline", bad + message('F', "\x00\x00\x00\x01") + sync, "E(42601) Z(I) " + one + " ."},
		{"a FunctionCall of nonsense", message('F', "\x00\x00"), "E(08P01) Z(I) " + one + " ."},
		{"a FunctionCall of no function", message('F', "\x7f\xff\xff\xff\x00\x00\x00\x00\x00\x00"), "E(42883) Z(I) " + one + " ."},
		{"Terminate in a pipeline", insert + message('X', "") + sync, "."},
		{"Terminate in a failed pipeline", bad + message('H', "") + message('X', ""), "E(42601) ."},
		{"COPY, then a Parse", message('P', "\x00copy kept from stdin\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + read, "1 2 G E(08P01) E(08P01) ."},
		{"COPY behind a read in a pipeline", read + message('P', "\x00copy kept from stdin\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + sync + message('f', "no\x00") + sync, "1 2 D(7) C(SELECT 1) 1 2 G E(57014) Z(I) " + one + " ."},
		{"COPY, then a Query", message('Q', "copy kept from stdin\x00"), "G E(08P01) E(08P01) ."},
		{"COPY, then an unknown letter", message('Q', "copy kept from stdin\x00") + message('z', ""), "G E(08P01) E(08P01) ."},
		{"COPY, then Sync and Flush", message('Q', "copy kept from stdin\x00") + sync + message('H', "") + message('f', "no\x00"), "G E(57014) Z(I) " + one + " ."},
		{"COPY, then Terminate", message('Q', "copy kept from stdin\x00") + message('d', "never\n") + message('X', ""), "G ."},
		{"COPY, then a bad length", message('Q', "copy kept from stdin\x00") + sized('d', 2), "G E(08P01) ."},

		{"bad UTF-8", message('Q', "select '\xff\xfe'\x00"), "E(22021) Z(I) " + one + " ."},
		{"bad UTF-8 in a name", message('P', "\xff\xfe\x00select 1\x00\x00\x00") + sync, "E(22021) Z(I) " + one + " ."},
		{"a long statement name", message('P', long+"\x00select 1\x00\x00\x00") + message('B', "\x00"+long+"\x00\x00\x00\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + message('C', "S"+long+"\x00") + sync, "1 2 D(1) C(SELECT 1) 3 Z(I) " + one + " ."},
		{"a longer one than Describe takes", message('P', long+long+"\x00select 1\x00\x00\x00") + message('D', "S"+long+long+"\x00") + sync, "E(08P01) ."},
		{"many Flushes", strings.Repeat(message('H', ""), 5000), one + " ."},
		{"many Syncs", strings.Repeat(sync, 100), strings.Repeat("Z(I) ", 100) + one + " ."},
		{"deep nesting", message('Q', "select "+strings.Repeat("(", 20000)+"1"+strings.Repeat(")", 20000)+"\x00"), "E(42601) Z(I) " + one + " ."},
		{"EXECUTE that calls itself", message('P', "me\x00execute me\x00\x00\x00") + message('B', "\x00me\x00\x00\x00\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + sync, "1 2 E(54001) Z(I) " + one + " ."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := f.login()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.SetDeadline(time.Now().Add(patience))
			go func() {
				r.Write([]byte(tc.in))
				if !strings.HasPrefix(tc.name, "half") {
					r.Write([]byte(query))
				}
				r.Conn.(*net.TCPConn).CloseWrite()
			}()
			if got := r.rest(); got != tc.want {
				t.Errorf("got  %.2000q\nwant %.2000q", got, tc.want)
			}
			w.look()
		})
	}
	if n := c.MustExec(0, "select count(*) from kept"); n != "0" {
		t.Errorf("%s rows of what was never synced have been kept", n)
	}
	f.checkLeaks2(t, 1)
	w.r.Close()
	f.checkLeaks(t)
}

// Large things pass in little memory, and hold up nobody.
func TestLargeMessages(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	f := serve(t, c, backends(c, 0, 1)...)
	r := f.raw()
	w := f.witness()
	done := make(chan time.Duration)
	stop := make(chan struct{})
	go func() {
		var worst time.Duration
		for {
			select {
			case <-stop:
				done <- worst
				return
			case <-time.After(time.Millisecond): // who asks without a pause takes a whole processor
			}
			since := time.Now()
			w.look()
			worst = max(worst, time.Since(since))
		}
	}()
	const mega = 1 << 20
	length := func(name string, n int, send func() error) {
		t.Helper()
		if err := send(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got string
		for !strings.Contains(got, "Z(") {
			msg, err := r.next()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if row, is := msg.(*pgproto3.DataRow); is && len(row.Values[0]) > 100 {
				got += fmt.Sprintf("D%d ", len(row.Values[0]))
			} else {
				got += word(msg) + " "
			}
		}
		if !strings.Contains(got, fmt.Sprintf("D(%d)", n)) && !strings.Contains(got, fmt.Sprintf("D%d ", n)) {
			t.Fatalf("%s: got %s", name, got)
		}
	}
	before := heap()
	big := strings.Repeat("x", 100*mega)
	length("100 MB of query text", 100*mega, func() error { return r.send(q("select length('" + big + "')")) })
	length("100 MB parameter", 100*mega, func() error {
		return r.send(parse("", "select length($1::text)"), bind("", "", big), execute("", 0), sync_)
	})
	length("100 MB Parse", 100*mega, func() error {
		return r.send(parse("", "select length('"+big+"')"), bind("", ""), execute("", 0), sync_)
	})
	big = ""
	length("200 MB row", 200*mega, func() error { return r.send(q(fmt.Sprintf("select repeat('x', %d)", 200*mega))) })
	r.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
	r.expect(t, "1 2 D(1) C(SELECT 1) Z(I)", parse("", "select 1"), bind("", ""), execute("", 0), sync_)
	close(stop)
	t.Logf("the longest anybody else waited: %v", <-done)
	r.fe = nil // with its buffers
	eventually(t, "the memory is given back", func() bool { return heap() < before+20*mega })
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A client that claims a large message and sends little of it does not make us
// set aside what it claims.
func TestClaimedLengthsCostNothing(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{})
	f := serve(t, c, backends(c, 1)...)
	before := heap()
	var claims []*raw
	for range 20 {
		r := f.raw()
		r.Write([]byte(sized('Q', 1<<30-5)))
		claims = append(claims, r)
	}
	w := f.witness()
	for i := range 30 { // and they go on, little by little
		claims[i%len(claims)].Write([]byte("select 1"))
		w.look()
	}
	if used := heap(); used > before+64<<20 {
		t.Errorf("%d MB in use for 20 claims of 1 GB", (used-before)>>20)
	}
}

// Conversations with some bytes changed, cut or repeated: whatever happens to
// them, others go on, and nothing stays behind.
func TestMutatedInput(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	f := serve(t, c, backends(c, 0, 1)...)
	c.MustExec(0, "create table t (v text)")
	f.Must(f.WaitCatchup())
	w := f.witness()
	var seeds [][]byte
	for _, msgs := range [][]pgproto3.FrontendMessage{
		{q("select 1"), q("begin"), q("select 2"), q("commit")},
		{parse("a", "select $1::text"), describe('S', "a"), bind("p", "a", "x"), execute("p", 1), execute("p", 0), closes('P', "p"), closes('S', "a"), sync_},
		{parse("", "insert into t values ($1)"), bind("", "", "x"), execute("", 0), &pgproto3.Flush{}, parse("", "select v from t"), bind("", ""), execute("", 0), sync_},
		{q("copy t from stdin"), &pgproto3.CopyData{Data: []byte("a\nb\n")}, &pgproto3.CopyDone{}, q("copy t to stdout")},
		{parse("", "copy t from stdin"), bind("", ""), execute("", 0), sync_, &pgproto3.CopyData{Data: []byte("a\n")}, &pgproto3.CopyDone{}, sync_},
		{&pgproto3.FunctionCall{Function: 1598, Arguments: nil}, q("prepare x as select 1"), q("execute x"), q("deallocate x"), q("set work_mem = '1MB'"), q("show work_mem"), q("discard all")},
	} {
		var b []byte
		for _, m := range msgs {
			b, _ = m.Encode(b)
		}
		seeds = append(seeds, b)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	tries := 0
	for end := time.Now().Add(*fuzzFor); time.Now().Before(end); tries++ {
		in := mutate(rnd, seeds)
		r, err := f.login()
		if err != nil {
			t.Fatal(err)
		}
		r.SetDeadline(time.Now().Add(patience))
		go func() {
			r.Write(in)
			r.Conn.(*net.TCPConn).CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, r); err != nil && !isReset(err) {
			t.Fatalf("after %d bytes: %v\ninput %q", n, err, in)
		}
		r.Close()
		if tries%20 == 0 {
			w.look()
		}
		if strings.Contains(f.Log.String(), "panic") {
			t.Fatalf("a session panicked over %q", in)
		}
	}
	t.Logf("%d tries", tries)
	w.r.Close()
	f.checkLeaks(t)
}

func mutate(rnd *rand.Rand, seeds [][]byte) []byte {
	var b []byte
	for range 1 + rnd.IntN(3) {
		b = append(b, seeds[rnd.IntN(len(seeds))]...)
	}
	for range rnd.IntN(6) {
		i := rnd.IntN(len(b))
		switch rnd.IntN(6) {
		case 0:
			b[i] = byte(rnd.Uint32())
		case 1:
			b[i] ^= 1 << rnd.IntN(8)
		case 2:
			b = b[:i+1]
		case 3:
			n := min(rnd.IntN(20), len(b)-i)
			b = append(b[:i:i], b[i+n:]...)
		case 4:
			n := min(rnd.IntN(40), len(b)-i)
			b = append(b[:i:i], append(bytes.Clone(b[i:i+n]), b[i:]...)...)
		case 5:
			b[i] = "QPBDECHSFXdcfpz"[rnd.IntN(15)]
		}
		if len(b) == 0 {
			b = []byte{0}
		}
	}
	return b
}
