package monitor

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"pgpool-go/pgpool/cluster"
)

// detail is what a probe found out beyond the facts: the material for delays.
type detail struct {
	// Of a standby.
	application string        // under which its WAL receiver logs in, if it tells
	behind      time.Duration // since the last replayed transaction
	addrs       []string

	// Of a primary: who replicates from it.
	senders []sender
}

// sender is a row of pg_stat_replication.
type sender struct {
	application, address string
	state, syncState     string
	replayLag            time.Duration
	timed                bool // replayLag was told
}

// pinned makes names in our statements mean what they mean in pg_catalog,
// whatever the role's settings are.
const pinned = `SET search_path = pg_catalog, pg_temp`

// asked is understood by PostgreSQL 12 and later. The timeline of a primary is
// that of the segment it writes: the control file learns of a promotion only
// at the next checkpoint. That of a standby is what its WAL receiver tells those
// who may know; else the control file has it as of the last restartpoint, or of
// the last flush if that is newer.
const asked = `SELECT pg_is_in_recovery(),
	current_setting('server_version_num'),
	(SELECT system_identifier FROM pg_control_system()),
	CASE WHEN pg_is_in_recovery()
		THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)
			FROM pg_control_checkpoint() c, pg_control_recovery() r))::text
		ELSE ltrim(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), '0') END,
	pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0'),
	extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()),
	(SELECT conninfo FROM pg_stat_wal_receiver),
	pg_conf_load_time()`

// askedLeast is for servers that are PostgreSQL but for their storage.
const askedLeast = `SELECT pg_is_in_recovery(), current_setting('server_version_num')`

const askedSenders = `SELECT application_name, host(client_addr), state, sync_state, extract(epoch FROM replay_lag)
	FROM pg_stat_replication`

// ask puts all questions to a server. An error with a SQLSTATE leaves the
// connection usable, but that is for the caller to know.
func ask(ctx context.Context, conn Conn) (f cluster.Facts, d detail, err error) {
	if _, err := conn.Ask(ctx, pinned); err != nil {
		return f, d, err
	}
	rows, err := conn.Ask(ctx, asked)
	if sqlState(err) != "" { // promoted while we asked, perhaps
		rows, err = conn.Ask(ctx, asked)
	}
	if sqlState(err) != "" {
		rows, err = conn.Ask(ctx, askedLeast)
	}
	if err != nil {
		return f, d, err
	}
	if err := readFacts(rows, &f, &d); err != nil {
		return f, d, err
	}
	if f.Role != cluster.Primary {
		return f, d, nil
	}
	rows, err = conn.Ask(ctx, askedSenders)
	if err != nil && sqlState(err) == "" {
		return f, d, err
	}
	for _, row := range rows {
		if len(row) != 5 {
			return f, d, fmt.Errorf("pg_stat_replication has a row of %d columns", len(row))
		}
		s := sender{application: row[0], address: row[1], state: row[2], syncState: row[3]}
		s.replayLag, s.timed = seconds(row[4])
		d.senders = append(d.senders, s)
	}
	return f, d, nil
}

func readFacts(rows [][]string, f *cluster.Facts, d *detail) error {
	if len(rows) != 1 || len(rows[0]) < 2 {
		return fmt.Errorf("a server told nothing of itself")
	}
	row := rows[0]
	switch row[0] {
	case "t":
		f.Role = cluster.Standby
	case "f":
		f.Role = cluster.Primary
	default:
		return fmt.Errorf("pg_is_in_recovery is %q", row[0])
	}
	f.Version, _ = strconv.Atoi(row[1])
	if len(row) < 7 {
		return nil
	}
	f.SystemID = row[2]
	base := 10
	if f.Role == cluster.Primary {
		base = 16 // as in a segment's name
	}
	timeline, _ := strconv.ParseUint(row[3], base, 32)
	f.Timeline = uint32(timeline)
	f.Position, _ = strconv.ParseUint(row[4], 10, 64)
	d.behind, _ = seconds(row[5])
	d.application = applicationName(row[6])
	if len(row) > 7 {
		f.Loaded = row[7]
	}
	return nil
}

// seconds reads a number of seconds; NULL comes as the empty string.
func seconds(text string) (time.Duration, bool) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, false
	}
	return max(0, time.Duration(n*float64(time.Second))), true
}

// applicationName finds the name in a WAL receiver's connection string.
func applicationName(conninfo string) string {
	name, fallback := "", ""
	eachParam(conninfo, func(key, value string) {
		switch key {
		case "application_name":
			name = value
		case "fallback_application_name":
			fallback = value
		}
	})
	return cmp.Or(name, fallback)
}

// eachParam reads a connection string of keys and values.
func eachParam(conninfo string, f func(key, value string)) {
	for conninfo = strings.TrimLeft(conninfo, " "); conninfo != ""; conninfo = strings.TrimLeft(conninfo, " ") {
		key, rest, ok := strings.Cut(conninfo, "=")
		if !ok {
			return
		}
		var value string
		value, conninfo = conninfoValue(strings.TrimLeft(rest, " "))
		f(strings.TrimRight(key, " "), value)
	}
}

// conninfoValue reads a plain or a quoted value and returns what follows it.
func conninfoValue(s string) (value, rest string) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'', !quoted && c == ' ':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}
