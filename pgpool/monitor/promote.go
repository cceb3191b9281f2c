package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
)

const (
	// promotionLimit is how long a server may take to become a primary.
	promotionLimit = 60 * time.Second
	// positionLimit is how long the standbys may take to say how far they are. One
	// that does not answer by then is no candidate.
	positionLimit = 5 * time.Second
)

// standing is how far a standby has come.
type standing struct {
	node     int
	timeline uint64
	received uint64 // WAL that is safe on its disk, replayed or not
	conn     Conn
	err      error
}

// askedStanding also counts what was replayed: a standby that was fed from an
// archive has received nothing.
const askedStanding = `SELECT (SELECT timeline_id FROM pg_control_checkpoint()),
	greatest(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0'), pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'))`

// Promote promotes, of the given standbys, the one that has received most, of
// those on the newest timeline: what it has not received is lost. All are asked
// anew, since what is known of them may be a sr_check_period old.
func (m *Monitor) Promote(ctx context.Context, nodes []int) error {
	if len(nodes) == 0 {
		return errors.New("no standby can be promoted")
	}
	found := m.standings(ctx, nodes)
	var why []error
	var best *standing
	for i := range found {
		s := &found[i]
		switch {
		case s.err != nil:
			why = append(why, fmt.Errorf("node %d: %w", s.node, s.err))
			continue
		case best == nil, s.timeline > best.timeline, s.timeline == best.timeline && s.received > best.received:
			best = s
		}
		defer s.conn.Close()
	}
	if best == nil {
		return errors.Join(append([]error{errors.New("no standby could be asked")}, why...)...)
	}
	for _, err := range why {
		m.log.LogAttrs(ctx, eventlog.Warning, "a standby that does not answer cannot be promoted: "+err.Error())
	}
	m.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("promoting node %d by pg_promote()", best.node))
	ctx, stop := context.WithTimeoutCause(ctx, promotionLimit+positionLimit, fmt.Errorf("node %d has not become a primary within %v", best.node, promotionLimit))
	defer stop()
	rows, err := best.conn.Ask(ctx, fmt.Sprintf("SELECT pg_catalog.pg_promote(true, %d)", int(promotionLimit.Seconds())))
	if err != nil {
		return fmt.Errorf("could not promote node %d: %w", best.node, err)
	}
	if len(rows) != 1 || len(rows[0]) != 1 || rows[0][0] != "t" {
		return fmt.Errorf("node %d has not become a primary within %v", best.node, promotionLimit)
	}
	return nil
}

// standings asks all nodes at once.
func (m *Monitor) standings(ctx context.Context, nodes []int) []standing {
	ctx, stop := context.WithTimeout(ctx, positionLimit)
	defer stop()
	found := make(chan standing, len(nodes))
	for _, id := range nodes {
		go func() { found <- m.standing(ctx, id) }()
	}
	var all []standing
	for range nodes {
		all = append(all, <-found)
	}
	slices.SortFunc(all, func(a, b standing) int { return a.node - b.node }) // of equals, the lowest
	return all
}

func (m *Monitor) standing(ctx context.Context, id int) standing {
	s := standing{node: id}
	if s.conn, s.err = m.chief(ctx, id); s.err != nil {
		return s
	}
	rows, err := s.conn.Ask(ctx, askedStanding)
	if err == nil && (len(rows) != 1 || len(rows[0]) != 2) {
		err = errors.New("it does not say how far it is")
	}
	if err != nil {
		s.conn.Close()
		s.err = err
		return s
	}
	s.timeline, _ = strconv.ParseUint(rows[0][0], 10, 32)
	s.received, _ = strconv.ParseUint(rows[0][1], 10, 64)
	return s
}

// chief is a connection that may promote and configure a server: recovery_user's,
// or where there is none sr_check_user's.
func (m *Monitor) chief(ctx context.Context, id int) (Conn, error) {
	c := m.opts.Config()
	n := m.opts.Cluster.Now().Node(id)
	if n == nil || !n.Used() {
		return nil, errors.New("it is not configured")
	}
	user, password, database := c.RecoveryUser, c.RecoveryPassword, c.RecoveryDatabase
	if user == "" {
		user, password, database = c.SrCheckUser, c.SrCheckPassword, c.SrCheckDatabase
	}
	if user == "" {
		return nil, errors.New("recovery_user is not set, nor is sr_check_user")
	}
	return m.opts.Connect(ctx, *n, user, password, orPostgres(database))
}

// repointLimit bounds what Repoint may take.
const repointLimit = 30 * time.Second

// Repoint has a standby stream from another primary: it is told so by ALTER
// SYSTEM, in the words it has had, but for host and port. If it uses a replication
// slot, the primary is given one of that name.
func (m *Monitor) Repoint(ctx context.Context, id, primary int) error {
	ctx, stop := context.WithTimeoutCause(ctx, repointLimit, fmt.Errorf("no answer within %v", repointLimit))
	defer stop()
	to := m.opts.Cluster.Now().Node(primary)
	if to == nil {
		return fmt.Errorf("there is no node %d", primary)
	}
	conn, err := m.chief(ctx, id)
	if err != nil {
		return err
	}
	defer conn.Close()
	rows, err := conn.Ask(ctx, "SELECT current_setting('primary_conninfo'), current_setting('primary_slot_name'), pg_is_in_recovery()")
	if err != nil {
		return err
	}
	if len(rows) != 1 || len(rows[0]) != 3 || rows[0][2] != "t" {
		return errors.New("it is no standby")
	}
	if slot := rows[0][1]; slot != "" {
		if err := m.makeSlot(ctx, primary, slot); err != nil {
			return fmt.Errorf("replication slot %q on node %d: %w", slot, primary, err)
		}
	}
	conninfo := redirect(rows[0][0], to)
	// ALTER SYSTEM takes no parameters.
	if _, err := conn.Ask(ctx, "ALTER SYSTEM SET primary_conninfo TO "+literal(conninfo)); err != nil {
		return err
	}
	if _, err := conn.Ask(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	m.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("node %d was told to follow node %d", id, primary))
	return nil
}

// makeSlot makes a replication slot unless there is one.
func (m *Monitor) makeSlot(ctx context.Context, node int, name string) error {
	conn, err := m.chief(ctx, node)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Ask(ctx, "SELECT pg_create_physical_replication_slot(name) FROM (VALUES ("+literal(name)+
		")) AS v (name) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = name)")
	return err
}

// literal quotes text for a statement that takes no parameters.
func literal(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// redirect is a connection string with another host and port.
func redirect(conninfo string, to *cluster.Node) string {
	var words []string
	eachParam(conninfo, func(key, value string) {
		if key != "host" && key != "hostaddr" && key != "port" {
			words = append(words, key+"="+conninfoQuote(value))
		}
	})
	host := to.Host
	if host == "" {
		host = "localhost"
	}
	return strings.Join(append(words, "host="+conninfoQuote(host), fmt.Sprintf("port=%d", to.Port)), " ")
}

func conninfoQuote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(value) + "'"
}
