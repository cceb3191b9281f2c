package pgpool_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"pgpool-go/tools/testcluster"
)

// fuzzed is a pgpool that hears what a fuzzer makes up, and a session of another
// client that must not notice. The client is no superuser: what is made up may be SQL.
func fuzzed(f *testing.F) (try func(t *testing.T, in string)) {
	c := testcluster.New(f, testcluster.Options{Standbys: 1})
	c.MustExec(0, "create role fuzz login; create schema fuzz authorization fuzz; create table fuzz.t (v text); alter table fuzz.t owner to fuzz; alter role fuzz set statement_timeout = '5s'")
	front := serve(f, c, append(backends(c, 0, 1), "num_init_children = 8")...)
	front.Must(front.WaitCatchup())
	tries := 0
	return func(t *testing.T, in string) {
		r, err := front.login("user", "fuzz")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.SetDeadline(time.Now().Add(patience))
		go func() {
			io.WriteString(r, in)
			r.Conn.(*net.TCPConn).CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, r); err != nil && !isReset(err) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		if strings.Contains(front.Log.String(), "panic") {
			t.Fatal("a session panicked")
		}
		if tries++; tries%50 == 0 {
			front.Log.forget()
			w, err := front.login()
			if err != nil {
				t.Fatal(err)
			}
			w.expect(t, "T D(1) C(SELECT 1) Z(I)", q("select 1"))
			w.Close()
		}
	}
}

// FuzzBind sends any Bind, behind a Parse and in front of an Execute, in a pipeline
// whose statement goes to a standby, and in one whose statement does not.
func FuzzBind(f *testing.F) {
	f.Add(true, []byte("\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(true, []byte("p\x00s\x00\x00\x01\x00\x01\x00\x02\x00\x00\x00\x01x\xff\xff\xff\xff\x00\x01\x00\x01"))
	f.Add(false, []byte("\x00s\x00\x00\x00\x00\x02\x00\x00\x00\x01x\x00\x00\x00\x01y\x00\x00"))
	f.Add(false, []byte("\x00\x00\x7f\xff"))
	f.Add(true, []byte("\x00s\x00\x00\x00\x00\x02\xff\xff\xff\x00\x00\x00"))
	f.Add(true, []byte{})
	try := fuzzed(f)
	f.Fuzz(func(t *testing.T, reads bool, body []byte) {
		sql := "insert into fuzz.t values ($1::text || $2::text)"
		if reads {
			sql = "select $1::text, $2::text"
		}
		try(t, message('P', "s\x00"+sql+"\x00\x00\x00")+message('B', string(body))+message('D', "P\x00")+
			message('E', "\x00\x00\x00\x00\x00")+message('S', "")+message('E', "p\x00\x00\x00\x00\x01")+message('S', ""))
	})
}

// FuzzCopy sends anything at all to a server that waits for the data of COPY, begun
// by either protocol, and the end of it.
func FuzzCopy(f *testing.F) {
	f.Add(true, []byte(message('d', "a\nb\n")+message('c', "")))
	f.Add(false, []byte(message('d', "a\n")+message('f', "no\x00")+message('S', "")))
	f.Add(false, []byte(message('H', "")+message('S', "")+message('d', "")+message('c', "")))
	f.Add(true, []byte(message('d', "\\.\n")+message('c', "")+message('Q', "copy fuzz.t to stdout\x00")))
	f.Add(true, []byte(sized('d', 100)+"a"))
	f.Add(true, []byte(message('Q', "select 1\x00")))
	f.Add(false, []byte(sized('d', 2)))
	f.Add(false, []byte(message('X', "")))
	try := fuzzed(f)
	f.Fuzz(func(t *testing.T, simple bool, in []byte) {
		begin := message('P', "\x00copy fuzz.t from stdin\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x00") +
			message('E', "\x00\x00\x00\x00\x00") + message('S', "")
		if simple {
			begin = message('Q', "copy fuzz.t from stdin\x00")
		}
		try(t, begin+string(in)+message('c', "")+message('S', ""))
	})
}
