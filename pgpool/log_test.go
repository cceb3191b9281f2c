package pgpool_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// logged runs do and returns what the log has gained, with the numbers that
// differ from run to run masked.
func (f *front) logged(do func()) string {
	before := len(f.Log.String())
	do()
	text := f.Log.String()[before:]
	for _, m := range []struct{ pattern, by string }{
		{`backend pid: \d+`, "backend pid: N"}, {`port=\d+`, "port=N"}, {`session time: [\d:.]+`, "session time: T"},
	} {
		text = regexp.MustCompile(m.pattern).ReplaceAllString(text, m.by)
	}
	return text
}

// pairOfNodes is a primary that only writes and a standby that reads, so that
// each line has one place to be.
func pairOfNodes(t *testing.T, lines ...string) *front {
	t.Helper()
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	return serve(t, c, append(append(backends(c, 0, 1), "sr_check_period = 0", "health_check_period = 0", "log_line_prefix = '%a: '"), lines...)...)
}

// What is written for each message is the original's, line by line.
func TestLogLines(t *testing.T) {
	f := pairOfNodes(t, "log_statement = on", "log_per_node_statement = on", "log_client_messages = on",
		"log_connections = on", "log_disconnections = on", "statement_level_load_balance = off")
	var c *plain
	check := func(name, want string, do func()) {
		t.Helper()
		if got := f.logged(do); got != strings.TrimPrefix(want, "\n") {
			t.Errorf("%s:\n%s\nwant:%s", name, got, want)
		}
	}
	check("connect", `
child: LOG:  new connection received
child: DETAIL:  connecting host=127.0.0.1 port=N
`, func() { c = f.plain("application_name", "probe") })

	query := func(sql string) func() { return func() { c.run(sql) } }
	check("read", `
probe: LOG:  Query message from frontend.
probe: DETAIL:  query: "select 1"
probe: LOG:  statement: select 1
probe: LOG:  DB node id: 1 backend pid: N statement: select 1
`, query("select 1"))
	check("several lines and statements", `
probe: LOG:  Query message from frontend.
probe: DETAIL:  query: "select 1;
	select 2"
probe: LOG:  statement: select 1;
	select 2
probe: LOG:  DB node id: 0 backend pid: N statement: select 1;
	select 2
`, query("select 1;\nselect 2"))
	check("write", `
probe: LOG:  Query message from frontend.
probe: DETAIL:  query: "create temp table t(a text)"
probe: LOG:  statement: create temp table t(a text)
probe: LOG:  DB node id: 0 backend pid: N statement: create temp table t(a text)
`, query("create temp table t(a text)"))
	check("empty", `
probe: LOG:  Query message from frontend.
probe: DETAIL:  query: ""
probe: LOG:  statement: 
probe: LOG:  DB node id: 0 backend pid: N statement: 
`, query(""))
	check("error", `
probe: LOG:  Query message from frontend.
probe: DETAIL:  query: "select 1/0"
probe: LOG:  statement: select 1/0
probe: LOG:  DB node id: 1 backend pid: N statement: select 1/0
probe: LOG:  pool_send_and_wait: Error or notice message from backend: : DB node id: 1 backend pid: N statement: "select 1/0" message: "division by zero"
`, query("select 1/0"))
	check("pool command", `
probe: LOG:  Query message from frontend.
probe: DETAIL:  query: "show pool_version"
probe: LOG:  statement: show pool_version
`, query("show pool_version"))
	check("copy", `
probe: LOG:  Query message from frontend.
probe: DETAIL:  query: "copy t from stdin"
probe: LOG:  statement: copy t from stdin
probe: LOG:  DB node id: 0 backend pid: N statement: copy t from stdin
probe: LOG:  CopyData message from frontend.
probe: DETAIL:  count: 1
probe: LOG:  CopyDone message from frontend.
`, func() {
		if _, err := c.CopyFrom(t.Context(), strings.NewReader("a\nb\n"), "copy t from stdin"); err != nil {
			t.Error(err)
		}
	})
	check("unnamed statement", `
probe: LOG:  Parse message from frontend.
probe: DETAIL:  statement: "", query: "select 3"
probe: LOG:  DB node id: 1 backend pid: N statement: Parse: select 3
probe: LOG:  Bind message from frontend.
probe: DETAIL:  portal: "", statement: ""
probe: LOG:  DB node id: 1 backend pid: N statement: Bind: select 3
probe: LOG:  Describe message from frontend.
probe: DETAIL:  portal: ""
probe: LOG:  DB node id: 1 backend pid: N statement: D message
probe: LOG:  Execute message from frontend.
probe: DETAIL:  portal: ""
probe: LOG:  statement: select 3
probe: LOG:  DB node id: 1 backend pid: N statement: Execute: select 3
probe: LOG:  Sync message from frontend.
`, func() { c.ExecParams(t.Context(), "select 3", nil, nil, nil, nil).Close() })
	check("named statement", `
probe: LOG:  Parse message from frontend.
probe: DETAIL:  statement: "s1", query: "insert into t values ('x')"
probe: LOG:  DB node id: 0 backend pid: N statement: Parse: insert into t values ('x')
probe: LOG:  Describe message from frontend.
probe: DETAIL:  statement: "s1"
probe: LOG:  DB node id: 0 backend pid: N statement: D message
probe: LOG:  Sync message from frontend.
`, func() { c.Prepare(t.Context(), "s1", "insert into t values ('x')", nil) })
	check("closed", `
probe: LOG:  Close message from frontend.
probe: DETAIL:  statement: "s1"
probe: LOG:  DB node id: 0 backend pid: N statement: C message
probe: LOG:  Sync message from frontend.
`, func() { c.Deallocate(t.Context(), "s1") })
	check("extended error", `
probe: LOG:  Parse message from frontend.
probe: DETAIL:  statement: "", query: "select 1/0"
probe: LOG:  DB node id: 1 backend pid: N statement: Parse: select 1/0
probe: LOG:  Bind message from frontend.
probe: DETAIL:  portal: "", statement: ""
probe: LOG:  DB node id: 1 backend pid: N statement: Bind: select 1/0
probe: LOG:  Describe message from frontend.
probe: DETAIL:  portal: ""
probe: LOG:  DB node id: 1 backend pid: N statement: D message
probe: LOG:  Execute message from frontend.
probe: DETAIL:  portal: ""
probe: LOG:  statement: select 1/0
probe: LOG:  DB node id: 1 backend pid: N statement: Execute: select 1/0
probe: LOG:  Sync message from frontend.
probe: LOG:  Error message from backend: DB node id: 1 message: "division by zero"
`, func() { c.ExecParams(t.Context(), "select 1/0", nil, nil, nil, nil).Close() })
	check("transaction", `
probe: LOG:  Query message from frontend.
probe: DETAIL:  query: "begin"
probe: LOG:  statement: begin
probe: LOG:  DB node id: 0 backend pid: N statement: begin
`, query("begin"))
	c.run("insert into t values ('y')")
	check("terminate", `
probe: LOG:  Terminate message from frontend.
probe: LOG:  statement: ABORT
probe: LOG:  statement: DISCARD ALL
probe: LOG:  DB node id: 0 backend pid: N statement: ABORT
probe: LOG:  DB node id: 0 backend pid: N statement: DISCARD ALL
probe: LOG:  DB node id: 1 backend pid: N statement: DISCARD ALL
probe: LOG:  frontend disconnection: session time: T user=postgres database=postgres host=127.0.0.1 port=N
`, func() {
		before := strings.Count(f.Log.String(), "frontend disconnection")
		c.Close(context.Background())
		eventually(t, "the session's end", func() bool { return strings.Count(f.Log.String(), "frontend disconnection") > before })
	})
}

func TestLogFunctionCall(t *testing.T) {
	f := pairOfNodes(t, "log_client_messages = on")
	h, err := f.plain("application_name", "").Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Conn.Close()
	got := f.logged(func() {
		h.Frontend.Send(&pgproto3.FunctionCall{Function: 89}) // version()
		if err := h.Frontend.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := h.Frontend.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if _, done := m.(*pgproto3.ReadyForQuery); done {
				return
			}
		}
	})
	if want := "[unknown]: LOG:  FunctionCall message from frontend.\n[unknown]: DETAIL:  oid: \"89\"\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// PGPOOL SET switches the log of one session.
func TestLogOfOneSession(t *testing.T) {
	f := pairOfNodes(t)
	a, b := f.plain("application_name", "a"), f.plain("application_name", "b")
	a.must("pgpool set log_statement = on")
	got := f.logged(func() {
		b.must("select 1")
		a.must("select 2")
		a.must("pgpool reset log_statement")
		a.must("select 3")
	})
	if want := "a: LOG:  statement: select 2\na: LOG:  statement: pgpool reset log_statement\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	a.must("pgpool set log_min_messages = debug1")
	got = f.logged(func() { a.must("select 4") })
	if want := "a: DEBUG:  selecting load balance node\na: DETAIL:  selected backend id is 1\n"; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNoticePerNodeStatement(t *testing.T) {
	f := pairOfNodes(t)
	var notices []string
	config, err := pgconn.ParseConfig(f.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Severity+" "+n.Message) }
	c, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for _, sql := range []string{"pgpool set notice_per_node_statement = on", "select 1", "create temp table t()",
		"pgpool set client_min_messages = warning", "select 2"} {
		if _, err := c.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"NOTICE DB node id: 1 statement: select 1", "NOTICE DB node id: 0 statement: create temp table t()"}
	if !slices.Equal(notices, want) {
		t.Errorf("notices %q, want %q", notices, want)
	}
}
