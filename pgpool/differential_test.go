package pgpool_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

var (
	dialogues = flag.Int("dialogues", 150, "random conversations that TestRandomDialogues compares")
	seed      = flag.Uint64("seed", 1, "of the first of them; 0: a new one each time")
)

// TestRandomDialogues says the same to a server and to pgpool in front of it and
// its standbys: random sequences of messages, sensible and not. What comes back
// has to be the same, message by message. A difference tells its seed.
func TestRandomDialogues(t *testing.T) {
	compareDialogues(t, prompt(t, "num_init_children = 4"), func() {})
}

// The same through server connections that the conversations have in turns: what
// one leaves behind would be a difference in the next. Others are on the way
// meanwhile, who leave settings and statements of the same names everywhere.
func TestRandomDialoguesInTurns(t *testing.T) {
	f := prompt(t, "num_init_children = 8", "pool_mode = transaction", "pool_size = 2")
	compareDialogues(t, f, func() { disturb(t, f, "through") })
}

// disturb has clients do, until the test is over, what must not show in others'
// sessions; and what they have set must be theirs whenever they look.
func disturb(t *testing.T, f *front, database string) {
	t.Helper()
	over, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	t.Cleanup(func() { stop(); clients.Wait() })
	for i := range 3 {
		own := fmt.Sprintf("%dMB", 11+i)
		clients.Go(func() {
			for over.Err() == nil {
				if err := disturbOnce(over, f, database, own); err != nil && over.Err() == nil {
					t.Errorf("a client with work_mem = %s: %v", own, err)
					return
				}
			}
		})
	}
}

func disturbOnce(ctx context.Context, f *front, database, own string) error {
	c, err := pgconn.Connect(ctx, f.URL(testcluster.Superuser, database, "application_name", own))
	if err != nil {
		return err
	}
	defer c.Close(context.Background())
	for range 20 {
		for _, step := range []struct{ sql, want string }{
			{"set work_mem = '" + own + "'", ""}, {"set search_path = pg_catalog, nosuch", ""}, {"set role pg_monitor", ""},
			{"show work_mem", own}, {"prepare a as select '" + own + "'", ""}, {"show application_name", own}, {"execute a", own},
			{"select current_user", "pg_monitor"}, {"reset role", ""}, {"begin", ""}, {"set local work_mem = '1MB'", ""}, {"savepoint x", ""}, {"commit", ""},
			{"deallocate a", ""}, {"show work_mem", own},
			{"set search_path = public", ""}, {"create temp table tt (a text)", ""}, {"insert into tt values ('" + own + "')", ""},
			{"select a from tt", own}, {"drop table tt", ""},
		} {
			results, err := c.Exec(ctx, step.sql).ReadAll()
			if err != nil {
				return fmt.Errorf("%s: %w", step.sql, err)
			}
			if rows := results[0].Rows; step.want != "" && (len(rows) != 1 || string(rows[0][0]) != step.want) {
				return fmt.Errorf("%s: %q, want %s", step.sql, rows, step.want)
			}
		}
		if _, err := c.Prepare(ctx, "b", "select current_setting('work_mem'), '"+own+"'", nil); err != nil {
			return err
		}
		for range 2 {
			r := c.ExecPrepared(ctx, "b", nil, nil, nil).Read()
			if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != own || string(r.Rows[0][1]) != own {
				return fmt.Errorf("statement b: %q %v, want %s", r.Rows, r.Err, own)
			}
		}
		if err := c.Deallocate(ctx, "b"); err != nil {
			return err
		}
		time.Sleep(time.Millisecond) // the conversations compared want their turn
	}
	return nil
}

func compareDialogues(t *testing.T, f *front, begin func()) {
	reset := make(map[string]func()) // a database's tables
	for _, db := range []string{"direct", "through"} {
		f.MustExec(0, "create database "+db)
		var writable []*pgconn.PgConn
		for _, n := range f.Nodes {
			if n.ID > 0 && !replicates(f.mode) {
				break
			}
			c, err := pgconn.Connect(t.Context(), strings.Replace(n.URL(), "/postgres?", "/"+db+"?", 1))
			f.Must(err)
			defer c.Close(context.Background())
			writable = append(writable, c)
		}
		run := func(sql string) {
			for _, c := range writable {
				_, err := c.Exec(t.Context(), sql).ReadAll()
				f.Must(err)
			}
		}
		run("create table t (i int primary key, s text); create table d (i int unique deferrable initially deferred)")
		reset[db] = func() { run("truncate t, d; insert into t select i, 'row ' || i from generate_series(1, 5) i") }
	}
	begin()
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	for s := first; s < first+uint64(*dialogues) && !t.Failed(); s++ {
		program := dialogue(rand.New(rand.NewPCG(s, 0)))
		var answers [2]string
		for i, at := range []struct {
			db   string
			port int
		}{{"direct", f.Nodes[0].Port}, {"through", f.Port}} {
			reset[at.db]()
			answers[i] = converse(t, at.port, at.db, program)
		}
		if answers[0] != answers[1] {
			t.Errorf("seed %d: to\n%s\npgpool answers\n%s", s, spell(program), difference(answers[1], answers[0]))
		}
	}
}

// converse says everything at once, with a question at the end that tells where the
// answers end, and returns them one a line.
func converse(t *testing.T, port int, database string, program []pgproto3.FrontendMessage) string {
	t.Helper()
	r := dialPort(t, port)
	defer r.Close()
	if err := r.startup(map[string]string{"user": testcluster.Superuser, "database": database}); err != nil {
		t.Fatal(err)
	}
	for _, m := range program {
		r.fe.Send(m)
	}
	const end = "the end"
	r.fe.Send(&pgproto3.Sync{})
	r.fe.Send(&pgproto3.Query{String: "rollback"})
	r.fe.Send(&pgproto3.Query{String: "select '" + end + "'"})
	if err := r.fe.Flush(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for ended := false; ; {
		msg, err := r.fe.Receive()
		if err != nil {
			return strings.Join(append(lines, err.Error()), "\n")
		}
		if _, reported := msg.(*pgproto3.ParameterStatus); !reported || !replicates(*mode) { // there a pipeline is run in pieces, after each of which servers report
			lines = append(lines, inFull(msg))
		}
		switch m := msg.(type) {
		case *pgproto3.DataRow:
			ended = ended || string(m.Values[0]) == end
		case *pgproto3.ReadyForQuery:
			if ended {
				return strings.Join(lines, "\n")
			}
		}
	}
}

// dialPort opens a socket to a server or to pgpool.
func dialPort(t *testing.T, port int) *raw {
	t.Helper()
	nc, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), patience)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	return &raw{Conn: nc, fe: pgproto3.NewFrontend(nc, nc), params: make(map[string]string)}
}

// inFull is a message with all that a client can see of it, but for numbers of
// objects and processes.
func inFull(msg pgproto3.BackendMessage) string {
	switch m := msg.(type) {
	case *pgproto3.RowDescription:
		text := "T"
		for _, c := range m.Fields {
			text += fmt.Sprintf(" %s:%d:%d:%d:%d:%d", c.Name, c.TableAttributeNumber, c.DataTypeOID, c.DataTypeSize, c.TypeModifier, c.Format)
		}
		return text
	case *pgproto3.ParameterDescription:
		return fmt.Sprint("t", m.ParameterOIDs)
	case *pgproto3.ErrorResponse:
		if replicates(*mode) { // a string of several statements is run in pieces, and some are reworded
			m.Position = 0
		}
		return fmt.Sprint("E ", m.Severity, m.Code, m.Message, m.Detail, m.Hint, m.Position, m.Where)
	case *pgproto3.NoticeResponse:
		return fmt.Sprint("N ", m.Severity, m.Code, m.Message, m.Detail)
	case *pgproto3.ParameterStatus:
		return "S " + m.Name + "=" + m.Value
	}
	return word(msg)
}

// The vocabulary. Nothing in it depends on the node or on the time. What
// PostgreSQL refuses behind other statements of a pipeline, as BEGIN with an isolation
// level and DISCARD ALL, is not in it: if a standby has answered those, the primary
// knows nothing of them.
var (
	texts = []string{
		"select 1", "select i, s from t order by i", "select count(*) from t", "select i from generate_series(1, 4) i", "select $1::int + 1", "select $1",
		"insert into t values (9, 'new')", "insert into t values (1, 'again')", "insert into t select i + 100 from t returning i",
		"update t set s = s || '!' where i < 3", "delete from t where i = $1::int", "insert into d values (1)", "insert into d values (1), (1)",
		"begin", "begin read only", "commit", "rollback", "savepoint x", "rollback to x", "release x", "commit and chain",
		"select 1/0", "selec 1", "select * from nosuch", "select i/(i-3) from t order by i", "",
		"set work_mem = '1MB'", "set local work_mem = '2MB'", "reset work_mem", "show work_mem", "select current_setting('work_mem')",
		"set application_name = 'x'", "show application_name", "set search_path = pg_catalog", "reset all", "select set_config('work_mem', '3MB', false)",
		"set role pg_monitor", "reset role", "select current_user",
		"declare c cursor for select i from t order by i", "fetch 2 from c", "move 1 in c", "close c", "fetch 1 from p", "move 1 in q", "close p",
		"prepare a as select 11", "prepare z as select count(*) from t", "execute a", "execute z", "deallocate a", "deallocate z", "deallocate all",
		"select name from pg_prepared_statements order by 1",
		"create temp table tt (i int)", "insert into tt values (1)", "select * from tt", "drop table tt", "select 'tt'::regclass",
		"create table p (i int)", "drop table if exists p", "alter table t add column n int", "alter table t drop column if exists n",
		"select 1 from t where i = 1 for update", "explain (costs off) select 1", "values (1), (2)", "table t",
		"copy t to stdout", "copy (select 1) to stdout", "do 'begin raise notice ''hello''; end'",
		"select pg_notify('c', 'x') is null", "select nextval('nosuch')", "select 'a' || $1 || 'b'",
	}
	several = []string{
		"select 1; select 2", "select 1; select 1/0; select 3", "begin; select 1; commit", "insert into t values (7); select count(*) from t",
		"insert into t values (7); select 1/0", "begin; insert into t values (8)", "commit; select count(*) from t", ";", "set work_mem = '4MB'; show work_mem",
	}
	copies                 = []string{"copy t from stdin", "copy t (i, s) from stdin csv", "copy d from stdin", "copy nosuch from stdin"}
	copied                 = []string{"201\tx\n", "202,x\n", "203", "\n", "204\n"}
	stmtNames, portalNames = []string{"", "", "a", "b"}, []string{"", "", "p", "q"}
)

// dialogue makes up what a client might say.
func dialogue(r *rand.Rand) []pgproto3.FrontendMessage {
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	// A client that means something mostly binds what it has parsed.
	stmt, portal := "", ""
	var program []pgproto3.FrontendMessage
	bound := false // the unnamed portal, since the last Sync or Query
	say := func(msgs ...pgproto3.FrontendMessage) {
		for _, m := range msgs {
			switch m := m.(type) {
			case *pgproto3.Query, *pgproto3.Sync, *pgproto3.FunctionCall:
				bound = false
			case *pgproto3.Bind:
				bound = bound || m.DestinationPortal == ""
			case *pgproto3.Describe:
				if m.ObjectType == 'P' && m.Name == "" && !bound { // what an error leaves of it is no promise
					m.Name = "p"
				}
			case *pgproto3.Execute:
				if m.Portal == "" && !bound { // PostgreSQL 15 may crash: an old portal of BEGIN in a failed block
					m.Portal = "p"
				}
				if m.Portal == "" && replicates(*mode) { // a DO, which may commit, has run outside of a block: its portal is gone
					bound = false
				}
			}
			program = append(program, m)
		}
	}
	args := func() (values [][]byte) {
		for range r.IntN(4) / 2 {
			values = append(values, []byte(strconv.Itoa(r.IntN(5))))
		}
		return values
	}
	for range 3 + r.IntN(25) {
		switch n := r.IntN(27); {
		case n < 5:
			say(&pgproto3.Query{String: pick(texts)})
		case n < 6:
			say(&pgproto3.Query{String: pick(several)})
		case n < 11: // as drivers do
			stmt, portal = "", ""
			say(&pgproto3.Parse{Query: pick(texts)}, &pgproto3.Bind{Parameters: args()}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{})
			if r.IntN(3) > 0 {
				say(&pgproto3.Sync{})
			}
		case n < 14:
			stmt = pick(stmtNames)
			say(&pgproto3.Parse{Name: stmt, Query: pick(texts)})
		case n < 17:
			portal = pick(portalNames)
			if r.IntN(4) == 0 {
				stmt = pick(stmtNames)
			}
			say(&pgproto3.Bind{DestinationPortal: portal, PreparedStatement: stmt, Parameters: args()})
		case n < 18:
			say(&pgproto3.Describe{ObjectType: 'S', Name: pick(stmtNames)})
		case n < 19:
			say(&pgproto3.Describe{ObjectType: 'P', Name: pick(portalNames)})
		case n < 21:
			if r.IntN(4) == 0 {
				portal = pick(portalNames)
			}
			say(&pgproto3.Execute{Portal: portal, MaxRows: uint32(r.IntN(4) / 2)})
		case n < 22:
			if r.IntN(2) == 0 {
				say(&pgproto3.Close{ObjectType: 'S', Name: pick(stmtNames)})
			} else {
				say(&pgproto3.Close{ObjectType: 'P', Name: pick(portalNames)})
			}
		case n < 23:
			say(&pgproto3.Flush{})
		case n < 24:
			say(&pgproto3.Sync{})
		case n < 25:
			say(call(r))
		default:
			// No Sync before the data's end: whether the server has failed by then, and
			// answers it, only the server knows.
			extended := n == 26
			if !extended {
				say(&pgproto3.Query{String: pick(copies)})
			} else if say(&pgproto3.Parse{Query: pick(copies)}, &pgproto3.Bind{}, &pgproto3.Execute{}); r.IntN(2) == 0 {
				say(&pgproto3.Sync{})
			}
			for range r.IntN(4) {
				say(&pgproto3.CopyData{Data: []byte(pick(copied))})
			}
			if r.IntN(3) > 0 {
				say(&pgproto3.CopyDone{})
			} else {
				say(&pgproto3.CopyFail{Message: "no"})
			}
			if extended {
				say(&pgproto3.Sync{})
			}
		}
	}
	return program
}

// call is a FunctionCall of abs, upper or nothing that there is.
func call(r *rand.Rand) *pgproto3.FunctionCall {
	return &pgproto3.FunctionCall{
		Function:         []uint32{1397, 871, 99999}[r.IntN(3)],
		Arguments:        [][][]byte{nil, {[]byte("-5")}, {nil}, {[]byte("x")}}[r.IntN(4)],
		ResultFormatCode: uint16(r.IntN(2)),
	}
}

// spell writes a dialogue down, a message a line.
func spell(program []pgproto3.FrontendMessage) string {
	var b strings.Builder
	for _, m := range program {
		switch m := m.(type) {
		case *pgproto3.Query:
			fmt.Fprintf(&b, "Query %q\n", m.String)
		case *pgproto3.Parse:
			fmt.Fprintf(&b, "Parse %q %q\n", m.Name, m.Query)
		case *pgproto3.Bind:
			fmt.Fprintf(&b, "Bind %q %q %q\n", m.DestinationPortal, m.PreparedStatement, m.Parameters)
		case *pgproto3.Describe:
			fmt.Fprintf(&b, "Describe %c %q\n", m.ObjectType, m.Name)
		case *pgproto3.Execute:
			fmt.Fprintf(&b, "Execute %q %d\n", m.Portal, m.MaxRows)
		case *pgproto3.Close:
			fmt.Fprintf(&b, "Close %c %q\n", m.ObjectType, m.Name)
		case *pgproto3.CopyData:
			fmt.Fprintf(&b, "CopyData %q\n", m.Data)
		case *pgproto3.FunctionCall:
			fmt.Fprintf(&b, "FunctionCall %d %q\n", m.Function, m.Arguments)
		default:
			fmt.Fprintf(&b, "%T\n", m)
		}
	}
	return b.String()
}
