package pgpool

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/monitor"
	"pgpool-go/pgpool/wire"
)

const (
	// askWithin is how long a check waits for one server, and clockSlack how far
	// its clock may be from ours.
	askWithin  = 10 * time.Second
	clockSlack = time.Second
	// slotSlack is how much WAL may wait for a standby that is away before it is worth a word.
	slotSlack = 1 << 30
	oldestPG  = 120000
)

// serverAnswer is what one server told of itself.
type serverAnswer struct {
	standby        bool
	systemID       string
	maxConnections int
	reserved       int // of them, for superusers and the like
	streams        bool
	slot           bool
	keepsWal       bool
}

// liveCheck asks the servers of a configuration.
type liveCheck struct {
	*checker
	server  *Server // knows how to log in; it serves nobody
	answers map[int]*serverAnswer
}

func (k *checker) servers(ctx context.Context) error {
	s := &Server{journal: eventlog.New(io.Discard)}
	s.log = s.journal.Logger()
	engine, err := wire.NewEngine(1)
	if err != nil {
		return err
	}
	defer engine.Close()
	s.engine = engine
	s.config.Store(s.current(k.Config))
	l := &liveCheck{k, s, map[int]*serverAnswer{}}
	for i, b := range k.Backends {
		if b.Used() {
			l.node(ctx, i)
		}
	}
	if k.BackendClusteringMode.HasPrimary() {
		l.roles()
		l.replication(ctx)
	}
	l.recovery(ctx)
	return nil
}

// says is a finding about one node.
func (l *liveCheck) says(level string, node int, setting, text, detail, mend string) {
	l.about(Finding{Level: level, Kind: "server", Setting: setting, Node: &node, Text: fmt.Sprintf("node %d: %s", node, text), Detail: detail, Mend: mend})
}

// login is one of the roles that pgpool logs in as.
type login struct{ purpose, user, password, database string }

// logins are those that a node's server must let in.
func (l *liveCheck) logins(node int) []login {
	h := l.HealthCheck(node)
	or := func(database string) string {
		if database == "" {
			return "postgres"
		}
		return database
	}
	var all []login
	if l.BackendClusteringMode == conf.StreamingReplication && l.SrCheckUser != "" {
		all = append(all, login{"sr_check", l.SrCheckUser, l.SrCheckPassword, or(l.SrCheckDatabase)})
	}
	if h.User != "" {
		all = append(all, login{"health_check", h.User, h.Password, or(h.Database)})
	}
	return all
}

func (l *liveCheck) connect(ctx context.Context, node int, as login) (monitor.Conn, error) {
	b := l.Backends[node]
	return l.server.connect(ctx, cluster.Node{ID: node, Host: b.Hostname, Port: b.Port}, as.user, as.password, as.database)
}

// node tries every login; the first that is let in asks the questions.
func (l *liveCheck) node(ctx context.Context, node int) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	b := l.Backends[node]
	where := fmt.Sprintf("backend_hostname%d", node)
	all := l.logins(node)
	if len(all) == 0 {
		l.says(FoundWarning, node, "sr_check_user", "cannot be asked anything", "Neither sr_check_user nor health_check_user is set.", "Set sr_check_user to a member of pg_monitor.")
		return
	}
	for _, as := range all {
		conn, err := l.connect(ctx, node, as)
		switch {
		case err == nil:
		case sqlState(err) == "":
			l.says(FoundError, node, where, fmt.Sprintf("no answer from %s port %d", b.Hostname, b.Port), err.Error(),
				"Check host name, port, the server's listen_addresses and firewalls; and whether the server runs.")
			return
		default:
			l.says(FoundError, node, as.purpose+"_user", fmt.Sprintf("%s_user %q is not let in to database %q", as.purpose, as.user, as.database), err.Error(),
				fmt.Sprintf("Check %[1]s_password, %[1]s_database, pool_passwd, and the server's pg_hba.conf.", as.purpose))
			continue
		}
		if l.answers[node] == nil {
			l.ask(ctx, node, as, conn)
		}
		conn.Close()
	}
}

func sqlState(err error) string {
	for err != nil {
		if s, ok := err.(interface{ SQLState() string }); ok {
			return s.SQLState()
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return ""
		}
		err = u.Unwrap()
	}
	return ""
}

const askServer = `SELECT pg_is_in_recovery(), current_setting('server_version_num'), current_setting('max_connections'),
	current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true), '0')::int,
	coalesce(nullif(current_setting('wal_keep_size', true), '0'), nullif(current_setting('wal_keep_segments', true), '0'), ''),
	extract(epoch FROM clock_timestamp()),
	(SELECT rolsuper OR pg_has_role(oid, 'pg_monitor', 'USAGE') FROM pg_roles WHERE rolname = current_user)`

// ask puts the questions to one server.
func (l *liveCheck) ask(ctx context.Context, node int, as login, conn monitor.Conn) {
	before := time.Now()
	rows, err := conn.Ask(ctx, askServer)
	took := time.Since(before)
	if err != nil || len(rows) != 1 {
		l.says(FoundError, node, as.purpose+"_user", "does not answer a question", fmt.Sprint(err), "")
		return
	}
	row := rows[0]
	a := &serverAnswer{standby: row[0] == "t", keepsWal: row[4] != ""}
	l.answers[node] = a
	version, _ := strconv.Atoi(row[1])
	a.maxConnections, _ = strconv.Atoi(row[2])
	a.reserved, _ = strconv.Atoi(row[3])
	if version < oldestPG {
		l.says(FoundWarning, node, "", fmt.Sprintf("is of version %s", row[1]), "Servers before PostgreSQL 12 are not tested with.", "Upgrade it.")
	}
	if seconds, err := strconv.ParseFloat(row[5], 64); err == nil {
		whole, part := math.Modf(seconds)
		off := time.Unix(int64(whole), int64(part*1e9)).Sub(before.Add(took / 2)).Round(time.Millisecond)
		if off.Abs() > clockSlack+took {
			l.says(FoundWarning, node, "", fmt.Sprintf("its clock is %v off ours", off), "Times in logs do not fit, and delays by time are wrong.", "Have both keep time by NTP.")
		}
	}
	if row[6] != "t" {
		l.says(FoundWarning, node, as.purpose+"_user", fmt.Sprintf("%s_user %q may not see how replication goes", as.purpose, as.user),
			"Replication state and delays stay unknown.", fmt.Sprintf("GRANT pg_monitor TO %s;", as.user))
	}
	if rows, err := conn.Ask(ctx, "SELECT system_identifier FROM pg_control_system()"); err == nil && len(rows) == 1 {
		a.systemID = rows[0][0]
	}
	if rows, err := conn.Ask(ctx, "SELECT status, coalesce(slot_name, '') FROM pg_stat_wal_receiver"); err == nil && len(rows) == 1 {
		a.streams, a.slot = rows[0][0] == "streaming", rows[0][1] != ""
	}
	l.room(node, a)
}

// room compares what the pools may open with what the server lets in.
func (l *liveCheck) room(node int, a *serverAnswer) {
	const own = 2 // of the delay and the health checks
	lets := a.maxConnections - a.reserved
	sessions, pools := l.NumInitChildren+own, l.NumInitChildren*l.MaxPool+own
	mend := fmt.Sprintf("Raise max_connections there to %d, or lower num_init_children or max_pool.", pools+a.reserved)
	detail := fmt.Sprintf("max_connections is %d, %d of them reserved; num_init_children is %d, max_pool %d.", a.maxConnections, a.reserved, l.NumInitChildren, l.MaxPool)
	switch {
	case sessions > lets:
		l.says(FoundError, node, "num_init_children", fmt.Sprintf("%d sessions may want a connection each, %d are let in", l.NumInitChildren, lets), detail, mend)
	case pools > lets:
		l.says(FoundWarning, node, "max_pool", fmt.Sprintf("the pools may open %d connections, %d are let in", pools, lets), detail, mend)
	}
}

// roles: one primary, and all of one family.
func (l *liveCheck) roles() {
	primaries, ids := l.primaries(), map[string]int{}
	switch {
	case len(l.answers) == 0:
		return
	case len(primaries) == 0 && len(l.answers) == l.used():
		l.about(Finding{Level: FoundError, Kind: "server", Text: "there is no primary", Detail: "Every server says that it is a standby: nothing can be written.", Mend: "Promote one of them: pg_ctl promote."})
	case len(primaries) > 1 && l.BackendClusteringMode == conf.StreamingReplication:
		l.says(FoundError, primaries[1], "", fmt.Sprintf("is a primary, and so is node %d", primaries[0]), "What is written to one is not on the other.",
			"Find out which has the data to keep, and make the other its standby: pcp_recovery_node.")
	}
	if l.BackendClusteringMode != conf.StreamingReplication {
		return
	}
	for node := range l.Backends {
		a := l.answers[node]
		if a == nil {
			continue
		}
		if l.Backends[node].Flag&conf.AlwaysPrimary != 0 && a.standby {
			l.says(FoundError, node, fmt.Sprintf("backend_flag%d", node), "is ALWAYS_PRIMARY and a standby", "Writes would fail.", "Remove the flag, or give it to the primary.")
		}
		if a.systemID == "" {
			continue
		}
		for other, first := range ids {
			if other != a.systemID {
				l.says(FoundError, node, fmt.Sprintf("backend_port%d", node), fmt.Sprintf("is not of the same cluster as node %d", first),
					"Their system identifiers differ: the data of one never came from the other.", "Name the right servers, or make the standby anew from the primary.")
			}
		}
		if len(ids) == 0 {
			ids[a.systemID] = node
		}
	}
}

func (l *liveCheck) used() int {
	n := 0
	for _, b := range l.Backends {
		if b.Used() {
			n++
		}
	}
	return n
}

func (l *liveCheck) primaries() []int {
	var all []int
	for node := range l.Backends {
		if a := l.answers[node]; a != nil && !a.standby {
			all = append(all, node)
		}
	}
	return all
}

const (
	askStandbys = "SELECT application_name FROM pg_stat_replication"
	askSlots    = `SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) FROM pg_replication_slots
		WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 1`
)

// replication: who streams from the primary, and what waits for those who do not.
func (l *liveCheck) replication(ctx context.Context) {
	primaries := l.primaries()
	if len(primaries) != 1 || l.BackendClusteringMode != conf.StreamingReplication {
		return
	}
	primary := primaries[0]
	for node := range l.Backends {
		a := l.answers[node]
		if a == nil || !a.standby {
			continue
		}
		if !a.streams {
			l.says(FoundWarning, node, "", "does not stream from the primary", "It falls behind, unless it reads an archive of WAL.",
				"See its log; primary_conninfo, primary_slot_name and the primary's pg_hba.conf.")
		} else if !a.slot && !l.answers[primary].keepsWal {
			l.says(FoundInfo, node, "", "streams without a slot", "When it has been away, the WAL it needs may be gone: wal_keep_size is 0 on the primary.",
				"Give it a replication slot, or set wal_keep_size.")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := l.connect(ctx, primary, l.logins(primary)[0])
	if err != nil {
		return
	}
	defer conn.Close()
	if rows, err := conn.Ask(ctx, askStandbys); err == nil {
		names := map[string]bool{}
		for _, row := range rows {
			names[row[0]] = true
		}
		for node, b := range l.Backends {
			if a := l.answers[node]; a != nil && a.streams && b.ApplicationName != "" && !names[b.ApplicationName] {
				l.says(FoundWarning, node, fmt.Sprintf("backend_application_name%d", node), fmt.Sprintf("no standby is called %q on the primary", b.ApplicationName),
					"Its replication state stays unknown.", "Set application_name in its primary_conninfo, or correct the setting.")
			}
		}
	}
	if rows, err := conn.Ask(ctx, askSlots); err == nil {
		for _, row := range rows {
			held, _ := strconv.ParseFloat(row[1], 64)
			level := FoundInfo
			if held > slotSlack {
				level = FoundWarning
			}
			l.says(level, primary, "", fmt.Sprintf("nobody reads the replication slot %q", row[0]), fmt.Sprintf("It holds back %.0f MB of WAL, and more with each write.", held/(1<<20)),
				fmt.Sprintf("Start its standby, or SELECT pg_drop_replication_slot('%s');", strings.ReplaceAll(row[0], "'", "''")))
		}
	}
}

// recovery: what pcp_recovery_node will need of the primary.
func (l *liveCheck) recovery(ctx context.Context) {
	primaries := l.primaries()
	if l.Recovery1stStageCommand == "" || l.RecoveryUser == "" || len(primaries) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	node := primaries[0]
	as := login{"recovery", l.RecoveryUser, l.RecoveryPassword, l.RecoveryDatabase}
	conn, err := l.connect(ctx, node, as)
	if err != nil {
		l.says(FoundError, node, "recovery_user", fmt.Sprintf("recovery_user %q is not let in to database %q", as.user, as.database), err.Error(),
			"Check recovery_password, recovery_database, and the server's pg_hba.conf.")
		return
	}
	defer conn.Close()
	rows, err := conn.Ask(ctx, `SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
		(SELECT count(DISTINCT proname) FROM pg_proc WHERE proname IN ('pgpool_recovery', 'pgpool_remote_start'))`)
	if err != nil || len(rows) != 1 {
		l.says(FoundError, node, "recovery_user", "does not answer a question", fmt.Sprint(err), "")
		return
	}
	if rows[0][1] != "2" {
		l.says(FoundError, node, "recovery_database", fmt.Sprintf("the functions of online recovery are missing from database %q", as.database), "",
			"Install the package postgresql-NN-pgpool2 there, and run CREATE EXTENSION pgpool_recovery in that database.")
	}
	if rows[0][0] != "t" {
		l.says(FoundError, node, "recovery_user", fmt.Sprintf("recovery_user %q is no superuser", as.user), "The functions of online recovery are for superusers.", "Use a superuser.")
		return
	}
	for _, script := range []string{l.Recovery1stStageCommand, "pgpool_remote_start"} {
		rows, err := conn.Ask(ctx, fmt.Sprintf("SELECT (pg_stat_file(current_setting('data_directory') || '/' || '%s', true)).size IS NOT NULL", strings.ReplaceAll(script, "'", "''")))
		if err == nil && len(rows) == 1 && rows[0][0] != "t" {
			l.says(FoundError, node, "recovery_1st_stage_command", fmt.Sprintf("%s is missing from its data directory", script), "pcp_recovery_node runs it there.",
				"Put it there, executable; share/scripts has one to begin with. Every node needs it that may become the primary.")
		}
	}
}
