package pgpool_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// shows are pgpool's commands with a table for an answer, and their columns.
var shows = map[string]string{
	"show pool_nodes": "node_id hostname port status pg_status lb_weight role pg_role select_cnt load_balance_node " +
		"replication_delay replication_state replication_sync_state last_status_change",
	"SHOW POOL_PROCESSES": "pool_pid start_time client_connection_count database username backend_connection_time pool_counter status",
	"show pool_pools": "pool_pid start_time client_connection_count pool_id backend_id database username backend_connection_time " +
		"client_connection_time client_disconnection_time client_idle_duration majorversion minorversion pool_counter " +
		"pool_backendpid pool_connected status load_balance_node client_host client_port statement",
	"show pool_version": "pool_version",
	"show pool_status":  "item value description",
	"show pool_cache": "num_cache_hits num_selects cache_hit_ratio num_hash_entries used_hash_entries num_cache_entries " +
		"used_cache_entries_size free_cache_entries_size fragment_cache_entries_size",
	"show pool_health_check_stats": "node_id hostname port status role last_status_change total_count success_count fail_count " +
		"skip_count retry_count average_retry_count max_retry_count max_duration min_duration average_duration " +
		"last_health_check last_successful_health_check last_skip_health_check last_failed_health_check",
	"show pool_backend_stats": "node_id hostname port status role select_cnt insert_cnt update_cnt delete_cnt ddl_cnt other_cnt " +
		"panic_cnt fatal_cnt error_cnt",
	"pgpool show all":              "item value description",
	"pgpool show health_check":     "item value description",
	"pgpool show backend":          "item value description",
	"pgpool show backend_port":     "item value description",
	"pgpool show backend_port1":    "backend_port1",
	`pgpool show "max_pool"`:       "max_pool",
	"pgpool show log_min_messages": "log_min_messages",
}

// one returns the only result of a Query message.
func (p *plain) one(sql string) *pgconn.Result {
	p.t.Helper()
	results, err := p.Exec(p.t.Context(), sql).ReadAll()
	if err != nil || len(results) != 1 {
		p.t.Fatalf("%s: %d results, %v", sql, len(results), err)
	}
	return results[0]
}

// table returns the rows of a SHOW as maps by column.
func (p *plain) table(sql string) []map[string]string {
	p.t.Helper()
	r := p.one(sql)
	var rows []map[string]string
	for _, values := range r.Rows {
		row := make(map[string]string)
		for i, f := range r.FieldDescriptions {
			row[f.Name] = string(values[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// refused runs what must fail and returns the server's words.
func (p *plain) refused(sql string) *pgconn.PgError {
	p.t.Helper()
	_, err := p.run(sql)
	var bad *pgconn.PgError
	if !errors.As(err, &bad) {
		p.t.Fatalf("%s: %v", sql, err)
	}
	return bad
}

func TestShow(t *testing.T) {
	f := usual(t, "statement_level_load_balance = off", "num_init_children = 4", "max_pool = 2")
	c := f.plain()
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$`)

	for sql, want := range shows {
		t.Run(sql, func(t *testing.T) {
			r := c.one(sql)
			var names []string
			for i, d := range r.FieldDescriptions {
				names = append(names, d.Name)
				got := pgconn.FieldDescription{Name: d.Name, TableAttributeNumber: uint16(i), DataTypeSize: -1}
				if d != got {
					t.Errorf("column %d is described as %+v, not as the original does", i, d)
				}
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("columns\n%s\nwant\n%s", got, want)
			}
			if want := fmt.Sprintf("SELECT %d", len(r.Rows)); r.CommandTag.String() != want || len(r.Rows) == 0 {
				t.Errorf("tag %q, want %q", r.CommandTag, want)
			}
			for _, row := range r.Rows {
				if slices.ContainsFunc(row, func(v []byte) bool { return v == nil }) {
					t.Errorf("a NULL in %s", line(row))
				}
			}
		})
	}

	t.Run("nodes", func(t *testing.T) {
		eventually(t, "all nodes up", func() bool {
			return !slices.ContainsFunc(c.table("show pool_nodes"), func(n map[string]string) bool {
				return n["status"] != "up" || n["pg_status"] != "up" || n["role"] == "standby" && n["replication_state"] != "streaming"
			})
		})
		readers := 0
		for i, n := range c.table("show pool_nodes") {
			role, weight := "standby", "0.500000"
			if i == 0 {
				role, weight = "primary", "0.000000"
			}
			want := []string{strconv.Itoa(i), "127.0.0.1", strconv.Itoa(f.Nodes[i].Port), weight, role, role}
			got := []string{n["node_id"], n["hostname"], n["port"], n["lb_weight"], n["role"], n["pg_role"]}
			if f.Nodes[i].Host != "127.0.0.1" {
				want[1] = f.Nodes[i].Host
			}
			if !slices.Equal(got, want) || !stamp.MatchString(n["last_status_change"]) {
				t.Errorf("node %d: %v, want %v", i, n, want)
			}
			if n["load_balance_node"] == "true" {
				readers++
				if port := c.must("select inet_server_port()"); port != n["port"] {
					t.Errorf("the load balance node is %s, but %s has read", n["port"], port)
				}
			}
		}
		if readers != 1 {
			t.Errorf("%d load balance nodes", readers)
		}
	})
	t.Run("by psql", func(t *testing.T) {
		if got := f.mustProgram("", "psql", "-XAtc", "show pool_version"); got != "4.3.5 (tamahomeboshi)\n" {
			t.Errorf("version %q", got)
		}
		if got := f.mustProgram("", "psql", "-XAtc", "/* a comment */ Show \"pool_cache\"; select 1"); got != "0|0|0.00|0|0|0|0|0|0\n" {
			t.Errorf("cache %q", got)
		}
	})
	t.Run("status", func(t *testing.T) {
		rows := c.table("show pool_status")
		value := make(map[string]string)
		for _, r := range rows {
			value[r["item"]] = r["value"]
		}
		for item, want := range map[string]string{
			"backend_clustering_mode": "1", "num_init_children": "4", "load_balance_mode": "1", "log_min_messages": "19",
			"backend_weight1": "0.500000", "backend_status0": "up", "standby_delay0": "0", "port": strconv.Itoa(f.Port),
		} {
			if value[item] != want {
				t.Errorf("%s is %q, want %q", item, value[item], want)
			}
		}
		if rows[0]["item"] != "backend_clustering_mode" || rows[len(rows)-1]["item"] != "backend_application_name2" {
			t.Errorf("from %s to %s", rows[0]["item"], rows[len(rows)-1]["item"])
		}
	})
	t.Run("health", func(t *testing.T) {
		eventually(t, "health checks counted", func() bool {
			return !slices.ContainsFunc(c.table("show pool_health_check_stats"), func(n map[string]string) bool {
				return n["success_count"] == "0" || n["total_count"] != n["success_count"] || !stamp.MatchString(n["last_health_check"])
			})
		})
	})
	t.Run("processes", func(t *testing.T) {
		rows := c.table("show pool_processes")
		busy := 0
		for i, r := range rows {
			if r["pool_pid"] != strconv.Itoa(i+1) || !stamp.MatchString(r["start_time"]) {
				t.Errorf("row %d: %v", i, r)
			}
			switch r["status"] {
			case "Execute command":
				busy++
				if r["database"] != "postgres" || r["username"] != "postgres" || !stamp.MatchString(r["backend_connection_time"]) {
					t.Errorf("the session's own row: %v", r)
				}
			case "Wait for connection":
				if r["database"]+r["username"]+r["backend_connection_time"]+r["pool_counter"] != "" {
					t.Errorf("a free slot: %v", r)
				}
			}
		}
		if len(rows) != 4 || busy != 1 {
			t.Errorf("%d rows, %d at work", len(rows), busy)
		}
	})
}

func TestBackendStats(t *testing.T) {
	f := usual(t)
	c := f.plain()
	for _, sql := range []string{
		"create table s(a int)", "insert into s values (1)", "update s set a = 2", "delete from s", "begin", "commit",
	} {
		c.must(sql)
	}
	c.refused("select 1/0")
	c.one("show pool_nodes")
	sum := make(map[string]int)
	for i, n := range c.table("show pool_backend_stats") {
		for _, k := range []string{"select", "insert", "update", "delete", "ddl", "other", "error", "fatal", "panic"} {
			v, err := strconv.Atoi(n[k+"_cnt"])
			if err != nil {
				t.Fatal(err)
			}
			if sum[k] += v; i > 0 && v > 0 && k != "select" && k != "error" {
				t.Errorf("node %d: %s_cnt %d", i, k, v)
			}
		}
	}
	want := map[string]int{"select": 1, "insert": 1, "update": 1, "delete": 1, "ddl": 1, "other": 2, "error": 1, "fatal": 0, "panic": 0}
	if fmt.Sprint(sum) != fmt.Sprint(want) {
		t.Errorf("counted %v, want %v", sum, want)
	}
}

// Reads follow the weights, and each counts once, in whatever protocol it came;
// nothing else counts.
func TestSelectCount(t *testing.T) {
	const reads = 400
	c := testcluster.New(t, testcluster.Options{Standbys: 2})
	f := serve(t, c, backends(c, 0, 1, 3)...)
	conn := f.connect()
	if _, err := conn.Exec(t.Context(), "create table c(a int)"); err != nil {
		t.Fatal(err)
	}
	f.Must(f.WaitCatchup())
	p := f.plain()
	for range reads / 2 {
		var n int
		if err := conn.QueryRow(t.Context(), "select count(*) from c where a = $1", pgx.QueryExecModeExec, 1).Scan(&n); err != nil {
			t.Fatal(err)
		}
		p.must("select count(*) from c")
		p.must("show pool_nodes")
	}
	var count [3]int
	for i, n := range p.table("show pool_nodes") {
		count[i], _ = strconv.Atoi(n["select_cnt"])
	}
	if count[0] != 0 || count[1]+count[2] != reads || count[1] < reads/8 || count[1] > reads/2 {
		t.Errorf("select_cnt %v of %d reads with weights 0:1:3", count, reads)
	}
}

func TestShowTellsTheTransactionState(t *testing.T) {
	f := usual(t)
	c := f.plain()
	state := func(want byte) {
		t.Helper()
		if got := c.TxStatus(); got != want {
			t.Errorf("transaction status %c, want %c", got, want)
		}
	}
	c.must("create table x(a int)")
	c.must("begin")
	c.must("insert into x values (1)")
	c.must("show pool_nodes")
	state('T')
	c.refused("pgpool show nosuch")
	state('T') // as in the original, this is no failure of the transaction's
	c.must("pgpool set client_idle_limit = 77")
	c.refused("select 1/0")
	state('E')
	for _, sql := range []string{"show pool_nodes", "pgpool set client_idle_limit = 78", "pgpool show port"} {
		if bad := c.refused(sql); bad.Code != "25P02" || bad.Detail != "statement: "+sql {
			t.Errorf("%s in a failed transaction: %+v", sql, bad)
		}
		state('E')
	}
	c.must("rollback")
	state('I')
	if got := c.must("pgpool show client_idle_limit"); got != "77s" { // PGPOOL SET is not undone
		t.Errorf("client_idle_limit %s", got)
	}
}

func TestPgpoolSet(t *testing.T) {
	f := usual(t, "client_idle_limit = 5min", "allow_sql_comments = off")
	c, other := f.plain(), f.plain()
	is := func(p *plain, name, want string) {
		t.Helper()
		if got := p.must("pgpool show " + name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	tag := func(sql, want string) {
		t.Helper()
		r := c.one(sql)
		if r.CommandTag.String() != want || len(r.FieldDescriptions) > 0 {
			t.Errorf("%s: %q, want %q", sql, r.CommandTag, want)
		}
	}
	tag("PGPOOL SET client_idle_limit = 90", "SET")
	is(c, "client_idle_limit", "90s")
	is(other, "client_idle_limit", "5min")
	tag("pgpool set client_idle_limit to '2min'", "SET")
	is(c, "client_idle_limit", "2min")
	tag("pgpool set allow_sql_comments = on", "SET")
	tag("pgpool reset client_idle_limit", "SET") // so the original
	is(c, "client_idle_limit", "5min")
	is(c, "allow_sql_comments", "on")
	tag("pgpool set client_idle_limit = 90", "SET")
	tag("pgpool set client_idle_limit = default", "SET")
	is(c, "client_idle_limit", "5min")
	tag("pgpool set client_idle_limit = 80", "SET")

	f.reload("client_idle_limit = 4min")
	is(other, "client_idle_limit", "4min")
	is(c, "client_idle_limit", "80s")
	tag("PGPOOL RESET ALL", "RESET")
	is(c, "allow_sql_comments", "off")
	is(c, "client_idle_limit", "4min")

	for _, bad := range []struct{ sql, message, detail, hint string }{
		{"pgpool set nosuch = 1", `unrecognized configuration parameter "nosuch"`, "", ""},
		{"pgpool reset nosuch", `unrecognized configuration parameter "nosuch"`, "", ""},
		{"pgpool set port = 1", `invalid Context, value for parameter "port" cannot be changed`, "", ""},
		{"pgpool show nosuch", `config variable "nosuch" not found`, "", ""},
		{`pgpool show "PORT"`, `config variable "PORT" not found`, "", ""},
		{"pgpool show backend_hostname200", `invalid index 200 for configuration parameter "backend_hostname"`, "allowed index is between 0 and 127", ""},
		{"pgpool set log_min_messages = loud", `invalid value for parameter "log_min_messages": "loud"`, "",
			"Available values: debug5, debug4, debug3, debug2, debug1, info, notice, warning, error, log, fatal, panic."},
	} {
		word := c.refused(bad.sql)
		if word.Severity != "ERROR" || word.Code != "XX000" || word.Message != bad.message || word.Detail != bad.detail || word.Hint != bad.hint {
			t.Errorf("%s: %+v", bad.sql, word)
		}
	}
	for _, sql := range []string{"pgpool set local client_idle_limit = 1", "pgpool frobnicate"} {
		if word := c.refused(sql); word.Code != "42601" {
			t.Errorf("%s: %+v", sql, word)
		}
	}
	if word := c.refused("show pool_x"); word.Code != "42704" {
		t.Errorf("show pool_x: %+v", word)
	}
}

// A setting of the session counts at once: reads with a comment are spread only
// where comments are allowed.
func TestPgpoolSetCounts(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{Standbys: 1})
	f := serve(t, c, append(backends(c, 0, 1), "allow_sql_comments = off")...)
	p := f.plain()
	for _, step := range []struct {
		set  string
		node int
	}{{"pgpool set allow_sql_comments = on", 1}, {"pgpool reset allow_sql_comments", 0}} {
		p.must(step.set)
		if got := f.node(p.must("/* hello */ select inet_server_port()")); got != step.node {
			t.Errorf("after %s node %d has read", step.set, got)
		}
	}
}

func TestCacheDelete(t *testing.T) {
	f := usual(t)
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
	for _, sql := range []string{"pgpool set cache delete 'select 1;'", "pgpool set client_min_messages = error", "pgpool set cache delete 'select 2'"} {
		r, err := c.Exec(t.Context(), sql).ReadAll()
		if err != nil || r[0].CommandTag.String() != "SET" {
			t.Errorf("%s: %v %v", sql, r, err)
		}
	}
	if want := []string{`NOTICE query cache does not exist for query: "select 1;"`}; !slices.Equal(notices, want) {
		t.Errorf("notices %q, want %q", notices, want)
	}
}

// What pools are listed as holding is what is open, whose it is, and in use or
// not.
func TestPools(t *testing.T) {
	f := usual(t, "num_init_children = 3", "max_pool = 2", "statement_level_load_balance = off", "client_idle_limit = 10min")
	a, b := f.plain(), f.plain("application_name", "b")
	pids := func(p *plain) map[string]string { // by node
		out := map[string]string{"0": strconv.FormatUint(uint64(p.PID()), 10)}
		row := strings.Split(p.must("select inet_server_port(), pg_backend_pid()"), "|")
		out[strconv.Itoa(f.node(row[0]))] = row[1]
		return out
	}
	own := pids(b)
	a.must("select 1")
	rows := a.table("show pool_pools")
	if len(rows) != 3*2*3 {
		t.Fatalf("%d rows", len(rows))
	}
	found := 0
	for _, r := range rows {
		if r["client_port"] == "" || own[r["backend_id"]] != r["pool_backendpid"] {
			continue
		}
		found++
		if r["pool_connected"] != "1" || r["pool_id"] != "0" || r["status"] != "Idle" || r["client_host"] != "127.0.0.1" || r["majorversion"] != "3" ||
			r["pool_counter"] != "1" || !strings.Contains(r["client_idle_duration"], "before client disconnected)") {
			t.Errorf("a connection in use: %v", r)
		}
		if reader := r["load_balance_node"] == "1"; reader != (r["backend_id"] != "0") {
			t.Errorf("load_balance_node of %v", r)
		}
		if r["backend_id"] != "0" && r["statement"] != "select inet_server_port(), pg_backend_pid()" {
			t.Errorf("statement of %v", r)
		}
	}
	if found != 2 {
		t.Errorf("%d connections of the other session, not 2, in %v", found, rows)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other session's connections idle", func() bool {
		idle := 0
		for _, r := range a.table("show pool_pools") {
			if own[r["backend_id"]] == r["pool_backendpid"] && r["pool_connected"] == "0" && r["status"] == "Wait for connection" &&
				r["database"] == "postgres" && r["client_disconnection_time"] != "" {
				idle++
			}
		}
		return idle == 2
	})
}

// Drivers that know only the extended protocol are answered as well.
func TestShowExtended(t *testing.T) {
	f := usual(t)
	c := f.connect()
	ctx := t.Context()

	t.Run("prepared and unprepared", func(t *testing.T) {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
			pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			for range 2 {
				rows, err := c.Query(ctx, "show pool_nodes", mode)
				if err != nil {
					t.Fatal(err)
				}
				nodes, err := pgx.CollectRows(rows, pgx.RowToMap)
				if err != nil || len(nodes) != 3 || nodes[1]["node_id"] != "1" || nodes[1]["role"] != "standby" {
					t.Errorf("%v: %v %v", mode, nodes, err)
				}
			}
		}
	})
	t.Run("binary", func(t *testing.T) {
		r := c.PgConn().ExecParams(ctx, "pgpool show port", nil, nil, nil, []int16{1}).Read()
		if r.Err != nil || string(r.Rows[0][0]) != strconv.Itoa(f.Port) || r.FieldDescriptions[0].Format != 1 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("set", func(t *testing.T) {
		tag, err := c.Exec(ctx, "pgpool set client_idle_limit = 99")
		if err != nil || tag.String() != "SET" {
			t.Errorf("%v %v", tag, err)
		}
		var v string
		if err := c.QueryRow(ctx, "pgpool show client_idle_limit").Scan(&v); err != nil || v != "99s" {
			t.Errorf("%q %v", v, err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		var bad *pgconn.PgError
		if _, err := c.Exec(ctx, "pgpool show nosuch"); !errors.As(err, &bad) || bad.Code != "XX000" {
			t.Errorf("%v", err)
		}
		r := c.PgConn().ExecParams(ctx, "show pool_version", [][]byte{[]byte("1")}, nil, nil, nil).Read()
		if !errors.As(r.Err, &bad) || bad.Code != "08P01" {
			t.Errorf("with a parameter: %v", r.Err)
		}
		tx, err := c.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tx.Exec(ctx, "select 1/0")
		if _, err := tx.Exec(ctx, "show pool_version"); !errors.As(err, &bad) || bad.Code != "25P02" {
			t.Errorf("in a failed transaction: %v", err)
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		var v string
		if err := c.QueryRow(ctx, "show pool_version").Scan(&v); err != nil {
			t.Errorf("after errors: %v", err)
		}
	})
	t.Run("in a pipeline", func(t *testing.T) {
		if _, err := c.Exec(ctx, "create temp table pipe(a text)"); err != nil {
			t.Fatal(err)
		}
		var b pgx.Batch
		var got []string
		note := func(row pgx.Row) error {
			var v string
			err := row.Scan(&v)
			got = append(got, v)
			return err
		}
		b.Queue("select 'a'").QueryRow(note)
		b.Queue("pgpool show port").QueryRow(note)
		b.Queue("insert into pipe values ('b') returning a").QueryRow(note)
		b.Queue("show pool_version").QueryRow(note)
		b.Queue("select 'c'").QueryRow(note)
		if err := c.SendBatch(ctx, &b).Close(); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("a %d b 4.3.5 (tamahomeboshi) c", f.Port); strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", strings.Join(got, " "), want)
		}
	})
}

// Named objects, row limits and the errors of a wrong order, message by message.
func TestShowExtendedMessages(t *testing.T) {
	f := usual(t)
	h, err := f.plain().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Conn.Close()
	send := func(msgs ...pgproto3.FrontendMessage) string {
		t.Helper()
		for _, m := range msgs {
			h.Frontend.Send(m)
		}
		if err := h.Frontend.Flush(); err != nil {
			t.Fatal(err)
		}
		var out []string
		for {
			m, err := h.Frontend.Receive()
			if err != nil {
				t.Fatal(err)
			}
			word := strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3.")
			switch m := m.(type) {
			case *pgproto3.CommandComplete:
				word += " " + string(m.CommandTag)
			case *pgproto3.DataRow:
				word += " " + string(m.Values[0])
			case *pgproto3.ErrorResponse:
				word += " " + m.Code
			case *pgproto3.ReadyForQuery:
				return strings.Join(append(out, string(m.TxStatus)), "\n")
			}
			out = append(out, word)
		}
	}
	sync := &pgproto3.Sync{}
	for _, step := range []struct {
		name string
		msgs []pgproto3.FrontendMessage
		want string
	}{
		{"prepare", []pgproto3.FrontendMessage{&pgproto3.Parse{Name: "s", Query: "show pool_nodes"}, &pgproto3.Describe{ObjectType: 'S', Name: "s"}, sync},
			"ParseComplete\nParameterDescription\nRowDescription\nI"},
		{"again", []pgproto3.FrontendMessage{&pgproto3.Parse{Name: "s", Query: "show pool_nodes"}, sync}, "ErrorResponse 42P05\nI"},
		{"limited", []pgproto3.FrontendMessage{&pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s"}, &pgproto3.Describe{ObjectType: 'P', Name: "p"},
			&pgproto3.Execute{Portal: "p", MaxRows: 2}, &pgproto3.Execute{Portal: "p"}, &pgproto3.Execute{Portal: "p"}, sync},
			"BindComplete\nRowDescription\nDataRow 0\nDataRow 1\nPortalSuspended\nDataRow 2\nCommandComplete SELECT 1\nCommandComplete SELECT 0\nI"},
		{"portal gone with the transaction", []pgproto3.FrontendMessage{&pgproto3.Execute{Portal: "p"}, sync}, "ErrorResponse 34000\nI"},
		{"skipped after an error", []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "pgpool show nosuch"}, &pgproto3.Bind{}, &pgproto3.Execute{},
			&pgproto3.Parse{Query: "select 1"}, &pgproto3.Bind{}, &pgproto3.Execute{}, sync}, "ParseComplete\nBindComplete\nErrorResponse XX000\nI"},
		{"no data", []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "pgpool reset all"}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'},
			&pgproto3.Execute{}, sync}, "ParseComplete\nBindComplete\nNoData\nCommandComplete RESET\nI"},
		{"portal of its own", []pgproto3.FrontendMessage{&pgproto3.Query{String: "begin"}}, "CommandComplete BEGIN\nT"},
		{"bind", []pgproto3.FrontendMessage{&pgproto3.Bind{DestinationPortal: "q", PreparedStatement: "s"}, &pgproto3.Execute{Portal: "q", MaxRows: 1}, sync},
			"BindComplete\nDataRow 0\nPortalSuspended\nT"},
		{"goes on", []pgproto3.FrontendMessage{&pgproto3.Execute{Portal: "q", MaxRows: 1}, &pgproto3.Close{ObjectType: 'P', Name: "q"},
			&pgproto3.Bind{DestinationPortal: "q", PreparedStatement: "s"}, sync}, "DataRow 1\nPortalSuspended\nCloseComplete\nBindComplete\nT"},
		{"name taken", []pgproto3.FrontendMessage{&pgproto3.Bind{DestinationPortal: "q", PreparedStatement: "s"}, sync}, "ErrorResponse 42P03\nE"},
		{"failed", []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "show pool_version"}, sync}, "ErrorResponse 25P02\nE"},
		{"rollback", []pgproto3.FrontendMessage{&pgproto3.Query{String: "rollback"}}, "CommandComplete ROLLBACK\nI"},
		{"closed", []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'S', Name: "s"}, &pgproto3.Parse{Name: "s", Query: "select 7"},
			&pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Execute{}, sync}, "CloseComplete\nParseComplete\nBindComplete\nDataRow 7\nCommandComplete SELECT 1\nI"},
	} {
		if got := send(step.msgs...); got != step.want {
			t.Errorf("%s:\n%s\nwant\n%s", step.name, got, step.want)
		}
	}
}
