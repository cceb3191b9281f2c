package session

import (
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// answer is what one of pgpool's own commands gives: rows under columns, or only
// a tag. Both a notice and the columns may come before an error.
type answer struct {
	cols   []string
	rows   [][]string
	tag    string // where there are no columns
	notice string
	err    *wire.Error
	fatal  error // ends the session
}

// table is a SHOW POOL_xxx command. The columns are known without the rows, for
// Describe.
type table struct {
	cols []string
	rows func(*Session) [][]string
}

// tables are the SHOW commands by name. Their columns, formats and widths are
// the original's.
var tables = map[string]table{
	"pool_nodes":              {nodeColumns, (*Session).showNodes},
	"pool_backend_stats":      {backendStatColumns, (*Session).showBackendStats},
	"pool_health_check_stats": {healthColumns, (*Session).showHealth},
	"pool_processes":          {processColumns, (*Session).showProcesses},
	"pool_pools":              {poolColumns, (*Session).showPools},
	"pool_status":             {statusColumns, (*Session).showStatus},
	"pool_version":            {[]string{"pool_version"}, (*Session).showVersion},
	"pool_cache":              {cacheColumns, (*Session).showCache},
	"pool_cache_statements":   {cacheStatementColumns, (*Session).showCacheStatements}, // ours: SHOW POOL_CACHE STATEMENTS
	"pool_routing":            {routingColumns, (*Session).showRouting},                // ours
	"pool_watchdog":           {watchdogColumns, (*Session).showWatchdog},              // ours
	"pool_shares":             {shareColumns, (*Session).showShares},                   // ours
}

// table is a SHOW command as it is under this configuration.
func (s *Session) table(name string) (table, bool) {
	t, ok := tables[name]
	if name == "pool_processes" && s.cfg.TransactionMode() {
		t.cols = append(slices.Clip(t.cols), pinnedColumn)
	}
	return t, ok
}

func (s *Session) showVersion() [][]string { return [][]string{{s.Version}} }

// poolCommand answers one of pgpool's own commands that came as a Query. No
// server hears of it. The original always ends it with "idle"; the client's true
// transaction state is told here, since drivers believe it. As in the original,
// an error of such a command does not fail the transaction.
func (s *Session) poolCommand(v *parser.Verdict, sql []byte) error {
	ready := s.readyForQuery()
	if ready.TxStatus == 'E' {
		return s.client.Send(aborted(sql).Response(), ready)
	}
	s.slot.routes.Note(answered)
	a := s.perform(v.Pool, false)
	if a.fatal != nil {
		return a.fatal
	}
	if err := s.sendNotice(a.notice); err != nil {
		return err
	}
	if a.cols != nil {
		if err := s.client.Send(describeRows(a.cols, 0, nil)); err != nil {
			return err
		}
	}
	if a.err != nil {
		return s.client.Send(a.err.Response(), ready)
	}
	if err := s.sendRows(a.rows); err != nil {
		return err
	}
	return s.client.Send(&pgproto3.CommandComplete{CommandTag: completion(a.cols, len(a.rows), a.tag)}, ready)
}

// completion is the tag of CommandComplete.
func completion(cols []string, rows int, tag string) []byte {
	if cols == nil {
		return []byte(tag)
	}
	return fmt.Appendf(nil, "SELECT %d", rows)
}

// aborted is PostgreSQL's refusal inside a failed transaction, with the detail
// the original adds.
func aborted(sql []byte) *wire.Error {
	return &wire.Error{Severity: "ERROR", Code: "25P02",
		Message: "current transaction is aborted, commands ignored until end of transaction block",
		Detail:  "statement: " + string(sql)}
}

// describeRows describes text columns the way the original does: no table, the
// column's index as attribute number, the given type, the formats of a Bind.
func describeRows(cols []string, oid uint32, formats []int16) *pgproto3.RowDescription {
	d := &pgproto3.RowDescription{Fields: make([]pgproto3.FieldDescription, len(cols))}
	for i, name := range cols {
		d.Fields[i] = pgproto3.FieldDescription{Name: []byte(name), TableAttributeNumber: uint16(i), DataTypeOID: oid, DataTypeSize: -1}
		switch {
		case len(formats) == 1:
			d.Fields[i].Format = formats[0]
		case i < len(formats):
			d.Fields[i].Format = formats[i]
		}
	}
	return d
}

func (s *Session) sendRows(rows [][]string) error {
	var d pgproto3.DataRow
	for _, row := range rows {
		d.Values = d.Values[:0]
		for _, v := range row {
			d.Values = append(d.Values, []byte(v))
		}
		if err := s.client.Send(&d); err != nil {
			return err
		}
	}
	return nil
}

// sendNotice tells the client something, if client_min_messages lets it through.
func (s *Session) sendNotice(text string) error {
	if text == "" || s.cfg.ClientMinMessages > conf.LevelNotice {
		return nil
	}
	return s.client.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000", Message: text})
}

// answered is the decision on a command of pgpool's own.
var answered = route.Decision{Node: route.Self, Reason: route.ReasonPool}

// perform carries a command out. It changes nothing but the session's own
// settings. extended tells by which protocol it came.
func (s *Session) perform(cmd *parser.PoolCommand, extended bool) answer {
	switch cmd.Op {
	case parser.PoolExplain:
		return s.explain(cmd.Value, extended)
	case parser.PoolShow:
		if t, ok := s.table(cmd.Name); ok {
			return answer{cols: t.cols, rows: t.rows(s)}
		}
	case parser.PoolShowSetting:
		return s.showSetting(cmd.Name)
	case parser.PoolShowAll:
		return s.showSetting("all")
	case parser.PoolSet:
		c, err := s.cfg.With(cmd.Name, cmd.Value)
		return s.change(c, "SET", err)
	case parser.PoolSetDefault, parser.PoolReset: // the original answers SET to both
		c, err := s.cfg.WithDefault(cmd.Name, nil)
		return s.change(c, "SET", err)
	case parser.PoolResetAll:
		a := s.change(s.cfg.WithDefaults(nil), "RESET", nil)
		s.marks.ownConfig = false // and a reload may take effect again
		return a
	case parser.PoolCacheDelete:
		return answer{tag: "SET", notice: s.forgetCached(cmd.Value)}
	}
	return answer{err: &wire.Error{Severity: "ERROR", Code: "0A000", Message: "this version of pgpool does not know the command"}}
}

// columns are those a command will answer with, before it is carried out; nil,
// none. Asking for them has no effect.
func (s *Session) columns(cmd *parser.PoolCommand) ([]string, *wire.Error) {
	switch cmd.Op {
	case parser.PoolShow:
		if t, ok := s.table(cmd.Name); ok {
			return t.cols, nil
		}
	case parser.PoolShowSetting, parser.PoolShowAll:
		a := s.perform(cmd, true)
		return a.cols, a.err
	case parser.PoolExplain:
		return explainColumns, nil
	}
	return nil, nil
}

func (s *Session) showSetting(name string) answer {
	cols, rows, err := s.cfg.ShowRows(name)
	return answer{cols: cols, rows: rows, err: complaint(err)}
}

// change takes over a configuration that only this session has.
func (s *Session) change(c *conf.Config, tag string, err error) answer {
	if err != nil {
		return answer{err: complaint(err)}
	}
	own := *s.cfg
	own.Config, own.Rules = c, route.NewRules(c)
	s.adopt(&own)
	s.marks.ownConfig = true
	return answer{tag: tag}
}

// complaint is a configuration error in the words and with the code of the
// original, which has one code for all of them.
func complaint(err error) *wire.Error {
	if err == nil {
		return nil
	}
	word := &wire.Error{Severity: "ERROR", Code: "XX000", Message: err.Error()}
	var bad *conf.Error
	if errors.As(err, &bad) {
		word.Message, word.Detail, word.Hint = bad.Text, bad.Detail, bad.Hint
	}
	return word
}
