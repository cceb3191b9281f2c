package pgpool

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"pgpool-go/pcp"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/session"
	"pgpool-go/pgpool/wire"
)

// stage runs the script of one stage of the recovery on the primary, or the main
// node where sessions write to all nodes.
func (r *recovery) stage(ctx context.Context, conn backend.Asker, schema, which, script string) error {
	if r.conf.BackendClusteringMode.Replicates() {
		if _, err := conn.Ask(ctx, "CHECKPOINT"); err != nil {
			return pcp.NewError("executing recovery, CHECKPOINT failed", err.Error())
		}
	}
	if script == "" {
		return nil
	}
	data := r.conf.Backends[r.node.ID].DataDirectory
	r.say("executing recovery", fmt.Sprintf("starting recovery command: \"SELECT pgpool_recovery('%s', '%s', '%s', '%d', %d, '%d', '%s')\"",
		script, r.node.Host, data, r.primary.Port, r.node.ID, r.node.Port, r.primary.Host))
	_, err := conn.Ask(ctx, "SELECT "+schema+".pgpool_recovery($1, $2, $3, $4, $5, $6, $7)",
		script, r.node.Host, data, strconv.Itoa(r.primary.Port), strconv.Itoa(r.node.ID), strconv.Itoa(r.node.Port), r.primary.Host)
	if err != nil {
		r.say("node recovery, "+which+" stage failed", err.Error())
		return pcp.RecoveryCommandFailed(which+" stage", script)
	}
	r.say("node recovery, "+which+" stage is done", "")
	return nil
}

// idlePace is how often clients that hold up a recovery are looked for.
const idlePace = 100 * time.Millisecond

// hold holds up whatever clients want to begin, and waits until they have ended what
// they have begun: nothing is written from then on until release. Those that are
// idle for longer than client_idle_limit_in_recovery are disconnected, with -1 all
// at once.
func (r *recovery) hold(ctx context.Context) error {
	r.say("clients are held until the node is there", "")
	over := r.shared.Quiet.Hold()
	r.held = true
	limited, cancel := context.WithTimeout(ctx, max(r.conf.RecoveryTimeout, startPace))
	defer cancel()
	return quiet(limited, r.shared.Slots.Sessions, over)
}

// quiet waits until over is closed.
func quiet(ctx context.Context, sessions func() []*session.Session, over <-chan struct{}) error {
	tick := time.NewTicker(idlePace)
	defer tick.Stop()
	for {
		for _, client := range sessions() {
			since, idle := client.IdleSince()
			if limit := client.IdleLimitInRecovery(); limit < 0 || limit > 0 && idle && time.Since(since) >= limit {
				client.Interrupt(&wire.Error{Severity: "FATAL", Code: "57P05", Message: "connection terminated due to online recovery"})
			}
		}
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			return pcp.NewError("node recovery failed, waiting connection closed in the other pgpools timeout", "")
		case <-tick.C:
		}
	}
}

// release lets the clients go on.
func (r *recovery) release() {
	if r.held {
		r.held = false
		r.shared.Quiet.Release()
	}
}

// quietly attaches a node where sessions write to all: between transactions, as one
// that has begun without the node must not end with it.
func (a admin) quietly(ctx context.Context, attach func() error) error {
	over := a.shared.Quiet.Hold()
	defer a.shared.Quiet.Release()
	limited, cancel := context.WithTimeout(ctx, max(a.config.Load().RecoveryTimeout, startPace))
	defer cancel()
	select {
	case <-over:
		return attach()
	case <-limited.Done():
		return errors.New("transactions are under way that have begun without the node, and have not ended within recovery_timeout")
	}
}

// writable fails as long as a server that lets us in replays what it was left: it
// would refuse writes, and lack the last ones.
func (r *recovery) writable(ctx context.Context, conn backend.Asker) error {
	rows, err := conn.Ask(ctx, "SELECT pg_catalog.pg_is_in_recovery()")
	if err == nil && rows[0][0] != "f" {
		err = errors.New("it has not yet replayed its log")
	}
	if err != nil {
		conn.Close()
	}
	return err
}
