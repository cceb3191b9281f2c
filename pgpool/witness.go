package pgpool

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"pgpool-go/pgpool/backend"
)

// A witness is a session on the primary that holds an advisory lock for this pgpool:
// wd_tie_breaker = primary. The server ends the session, and with it the lock, when
// it is not asked for a while (from PostgreSQL 14 on; an older one when it notices
// that the connection is broken).
type witness struct {
	node  int
	asker backend.Asker
}

// Witness implements watchdog.Host. It and Dismiss are called by one goroutine.
func (m member) Witness(ctx context.Context, lock int64, keep time.Duration) (fresh bool, err error) {
	snap := m.owner.Now()
	if w := m.witness; w != nil && (w.node != snap.Primary || w.renew(ctx) != nil) {
		m.Dismiss()
	}
	if m.witness != nil {
		return false, nil
	}
	n := snap.Node(snap.Primary)
	if n == nil || snap.Assumed {
		return false, errors.New("it is the primary, and none is known")
	}
	c := m.config.Load()
	asker, err := m.login(ctx, *n, c.SrCheckUser, c.SrCheckPassword, c.SrCheckDatabase)
	if err != nil {
		return false, err
	}
	w := &witness{node: n.ID, asker: asker}
	if err := w.begin(ctx, lock, keep); err != nil {
		asker.Close()
		return false, err
	}
	m.witness = w
	return true, nil
}

func (w *witness) begin(ctx context.Context, lock int64, keep time.Duration) error {
	ms := strconv.FormatInt(keep.Milliseconds(), 10)
	if _, err := w.asker.Ask(ctx, "SELECT set_config(name, $1, false) FROM pg_settings WHERE name = 'idle_session_timeout'", ms); err != nil {
		return err
	}
	rows, err := w.asker.Ask(ctx, "SELECT pg_try_advisory_lock($1::bigint)", strconv.FormatInt(lock, 10))
	if err != nil {
		return err
	}
	if len(rows) != 1 || rows[0][0] != "t" {
		return fmt.Errorf("the primary, node %d, stands by another", w.node)
	}
	return w.renew(ctx)
}

func (w *witness) renew(ctx context.Context) error {
	rows, err := w.asker.Ask(ctx, "SELECT pg_is_in_recovery()")
	if err == nil && (len(rows) != 1 || rows[0][0] != "f") {
		err = fmt.Errorf("node %d is no primary", w.node)
	}
	return err
}

// Dismiss implements watchdog.Host.
func (m member) Dismiss() {
	if m.witness != nil {
		m.witness.asker.Close()
		m.witness = nil
	}
}
