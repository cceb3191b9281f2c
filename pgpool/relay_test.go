package pgpool_test

import (
	"bufio"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// What a statement costs on its whole way: from a client's socket through the
// session to a real server and back. allocs/op must be 0, however many rows there
// are. The client sends prepared bytes and reads as many as the answer has.
func BenchmarkRelay(b *testing.B) {
	c := testcluster.New(b, testcluster.Options{Standbys: 2})
	c.MustExec(0, "create table accounts as select i as aid, i as abalance from generate_series(1, 1000) i; create table history (aid int)")
	c.Must(c.WaitCatchup())
	const byKey = "SELECT abalance FROM accounts WHERE aid = "
	simple := func(sql string) []byte { return messages(b, &pgproto3.Query{String: sql}) }
	parse := &pgproto3.Parse{Query: byKey + "$1", ParameterOIDs: []uint32{23}}
	bind := &pgproto3.Bind{Parameters: [][]byte{[]byte("17")}}
	portal, execute, sync := &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{}
	named, ofName := *parse, *bind
	named.Name, ofName.PreparedStatement = "p", "p"
	work := []struct {
		name           string
		first, request []byte
	}{
		{"simple", nil, simple(byKey + "17")},
		{"extended", nil, messages(b, parse, bind, portal, execute, sync)},
		{"prepared", messages(b, &named, sync), messages(b, &ofName, portal, execute, sync)},
		{"block", nil, nil},
		{"10000rows", nil, simple("SELECT i FROM generate_series(1, 10000) i")},
		{"1000wide", nil, simple("SELECT repeat('x', 5000) FROM generate_series(1, 1000) i")},
		{"copy", nil, simple("COPY (SELECT i FROM generate_series(1, 10000) i) TO STDOUT")},
		{"write", nil, simple("UPDATE accounts SET abalance = abalance WHERE aid = 17")},
	}
	for _, balance := range []struct {
		name string
		conf []string
	}{
		{"primary", []string{"load_balance_mode = off"}},
		{"session", []string{"statement_level_load_balance = off"}},
		{"statement", nil},
	} {
		b.Run(balance.name, func(b *testing.B) {
			f := serve(b, c, append(append(backends(c, 1, 1, 1), "log_min_messages = warning",
				"health_check_period = 0", "sr_check_period = 3600"), balance.conf...)...)
			for _, w := range work {
				b.Run(w.name, func(b *testing.B) {
					r, err := f.login()
					if err != nil {
						b.Fatal(err)
					}
					defer r.Close()
					r.SetDeadline(time.Now().Add(20 * patience))
					requests := [][]byte{w.request}
					if w.request == nil {
						requests = [][]byte{simple("BEGIN"), simple("UPDATE accounts SET abalance = abalance WHERE aid = 18"), simple(byKey + "17"),
							simple("INSERT INTO history VALUES (17)"), simple("COMMIT")}
					}
					if w.first != nil {
						exchange(b, r.Conn, w.first)
					}
					buf := make([]byte, 64<<10)
					sizes := make([]int, len(requests))
					for range 20 { // every server is spoken to, and knows the statement
						for i, request := range requests {
							sizes[i] = exchange(b, r.Conn, request)
						}
					}
					b.ReportAllocs()
					for b.Loop() {
						for i, request := range requests {
							if _, err := r.Write(request); err != nil {
								b.Fatal(err)
							}
							for left := sizes[i]; left > 0; {
								n, err := r.Read(buf[:min(left, len(buf))])
								if err != nil {
									b.Fatal(err)
								}
								left -= n
							}
						}
					}
				})
			}
		})
	}
}

// messages are the bytes of several.
func messages(t testing.TB, list ...pgproto3.FrontendMessage) (out []byte) {
	t.Helper()
	for _, m := range list {
		var err error
		if out, err = m.Encode(out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// exchange sends a request, reads the answer up to ReadyForQuery, and returns its
// length.
func exchange(t testing.TB, c net.Conn, request []byte) (size int) {
	t.Helper()
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewReaderSize(c, 64<<10); ; {
		head, err := in.Peek(5)
		if err != nil {
			t.Fatal(err)
		}
		typ, n := head[0], int(binary.BigEndian.Uint32(head[1:]))+1
		size += n
		if typ == 'E' {
			body, _ := in.Peek(min(n, in.Buffered()))
			t.Fatalf("the server said %q", body)
		}
		if _, err := in.Discard(n); err != nil {
			t.Fatal(err)
		}
		if typ == 'Z' {
			return size
		}
	}
}
