package pgpool_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// largeLimit is what may be held while a large result passes, besides what is held
// anyway: a few buffers.
const largeLimit = 8 << 20

// What is large passes in constant memory: many rows, one row, and data towards a
// server. A client that does not read stops its own server, and nobody else.
func TestLargeResults(t *testing.T) {
	f := usual(t)
	f.MustExec(0, "create table sink (line text)")
	r := f.raw()
	r.SetDeadline(time.Now().Add(10 * patience))
	constant := func(what string, do func()) {
		t.Helper()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		// All that was ever allocated meanwhile, so that nothing depends on when the
		// collector ran. The rest of the process goes on, too.
		limit := int64(largeLimit)
		if replicates(f.mode) { // what the other nodes are yet to be sent is kept, up to 8 MB of it in memory, in a buffer that has grown to that
			limit *= 6
		}
		if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > limit {
			t.Errorf("%s: %d bytes were allocated", what, grown)
		}
	}
	query := func(sql string) []byte { return messages(t, &pgproto3.Query{String: sql}) }
	constant("many rows", func() {
		if n := exchange(t, r.Conn, query("select repeat('x', 1000) from generate_series(1, 100000)")); n < 100_000_000 {
			t.Errorf("%d bytes", n)
		}
	})
	constant("one row", func() {
		if n := exchange(t, r.Conn, query("select repeat('x', 300000000)")); n < 300_000_000 {
			t.Errorf("%d bytes", n)
		}
	})
	constant("COPY TO", func() {
		if n := exchange(t, r.Conn, query("copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout")); n < 100_000_000 {
			t.Errorf("%d bytes", n)
		}
	})
	data := messages(t, &pgproto3.CopyData{Data: bytes.Repeat([]byte(strings.Repeat("x", 999)+"\n"), 1000)})
	constant("COPY FROM", func() {
		if _, err := r.Write(query("copy sink from stdin where false")); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if _, err := r.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		exchange(t, r.Conn, messages(t, &pgproto3.CopyDone{}))
	})
	constant("a client that does not read", func() {
		if _, err := r.Write(query("select repeat('x', 1000) from generate_series(1, 100000) /* unread */")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the server waits for its client", func() bool {
			return f.MustExec(0, "select count(*) from pg_stat_activity where query like '%/* unread */' and wait_event = 'ClientWrite'") == "1" ||
				f.MustExec(1, "select count(*) from pg_stat_activity where query like '%/* unread */' and wait_event = 'ClientWrite'") == "1" ||
				f.MustExec(2, "select count(*) from pg_stat_activity where query like '%/* unread */' and wait_event = 'ClientWrite'") == "1"
		})
		f.plain().must("select 1")
		if n := exchange(t, r.Conn, nil); n < 100_000_000 {
			t.Errorf("%d bytes", n)
		}
	})
}
