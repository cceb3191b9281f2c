package pgpool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pcp"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
)

const (
	// startPace is how often a node is asked whether it has been started, and
	// startPatience how long one of these questions may take.
	startPace     = time.Second
	startPatience = 10 * time.Second
	// scriptStarter is the original's fixed name of the script that starts a node.
	scriptStarter = "pgpool_remote_start"
)

// RecoverNode has the primary make a node anew, while clients go on: scripts in
// its data directory copy its data and start the node's server. The functions
// that run them come with the extension pgpool_recovery.
func (a admin) RecoverNode(ctx context.Context, id int) error {
	snap := a.owner.Now()
	switch {
	case snap.Mode != conf.StreamingReplication && !snap.Mode.Replicates():
		return pcp.RecoveryNeedsReplication()
	case id == snap.Primary:
		return pcp.RecoveryOfPrimary()
	case snap.Usable(id):
		return pcp.NodeAlive(id)
	case snap.Primary < 0:
		return errors.New("there is no primary to recover the node from")
	}
	if !a.recovering.CompareAndSwap(false, true) {
		return pcp.RecoveryRunning()
	}
	defer a.recovering.Store(false)
	r := recovery{
		Server: a.Server, conf: a.config.Load().Config, node: snap.Nodes[id], primary: snap.Nodes[snap.Primary],
		log: a.pcpLog(),
	}
	defer r.release()
	if err := r.run(ctx); err != nil {
		return err
	}
	if err := a.attach(ctx, id); err != nil {
		return err
	}
	r.say("recovery done", "")
	return nil
}

// recovery is one of a node from the primary.
type recovery struct {
	*Server
	conf          *conf.Config
	node, primary cluster.Node
	log           *slog.Logger
	held          bool // clients are, see recovery_stage.go
}

func (r *recovery) say(text, detail string) {
	r.log.LogAttrs(context.Background(), eventlog.Log, text, slog.String("detail", detail))
}

func (r *recovery) run(ctx context.Context) error {
	r.say(fmt.Sprintf("starting recovering node %d", r.node.ID), "")
	conn, schema, err := r.functions(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Ask(ctx, "SET statement_timeout TO 0"); err != nil {
		return pcp.NewError("executing recovery, disabling statement_timeout failed", err.Error())
	}
	data := r.conf.Backends[r.node.ID].DataDirectory
	if err := r.stage(ctx, conn, schema, "1st", r.conf.Recovery1stStageCommand); err != nil {
		return err
	}
	if r.conf.BackendClusteringMode.Replicates() {
		if err := r.hold(ctx); err != nil {
			return err
		}
		if err := r.stage(ctx, conn, schema, "2nd", r.conf.Recovery2ndStageCommand); err != nil {
			return err
		}
	}
	if _, err := conn.Ask(ctx, "SELECT "+schema+"."+scriptStarter+"($1, $2)", r.node.Host, data); err != nil {
		return pcp.NewError(fmt.Sprintf("executing remote start failed with error: \"%s\"", said(err)), "")
	}
	return r.await(ctx)
}

// said is what a server said, in libpq's form.
func said(err error) string {
	if refused, ok := errors.AsType[*backend.Refusal](err); ok {
		return "ERROR:  " + refused.Said.Message
	}
	return err.Error()
}

// askFunctions finds the schema of the functions. They are written in C, so a
// superuser has made them: nobody else's functions shall be run as one.
const askFunctions = `SELECT quote_ident(n.nspname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
	WHERE p.proname = 'pgpool_recovery' AND p.pronargs = 7 AND l.lanname = 'c'`

// functions logs in to the primary where the functions are. Up to 4.3 that was
// always template1, so this is looked at where recovery_database has none and is not set.
func (r *recovery) functions(ctx context.Context) (conn backend.Asker, schema string, err error) {
	databases := []string{r.conf.RecoveryDatabase}
	if !r.conf.Explicit("recovery_database") {
		databases = append(databases, "template1")
	}
	for _, database := range databases {
		conn, err := r.login(ctx, r.primary, database)
		if err != nil {
			return conn, "", pcp.NewError("node recovery failed, unable to connect to the primary",
				fmt.Sprintf("hostname:\"%s\" database:\"%s\" user:\"%s\": %v", r.primary.Host, database, r.conf.RecoveryUser, err))
		}
		rows, err := conn.Ask(ctx, askFunctions)
		if err == nil && len(rows) > 0 {
			return conn, rows[0][0], nil
		}
		conn.Close()
		if err != nil {
			return conn, "", err
		}
	}
	if script := r.conf.Recovery1stStageCommand; script != "" {
		r.say("node recovery, 1st stage failed", fmt.Sprintf("the function pgpool_recovery is missing from the databases %q; the extension of that name makes it", databases))
		return conn, "", pcp.RecoveryCommandFailed("1st stage", script)
	}
	return conn, "", pcp.NewError(fmt.Sprintf("executing remote start failed with error: \"ERROR:  function %s(unknown, unknown) does not exist\"", scriptStarter), "")
}

func (r *recovery) login(ctx context.Context, n cluster.Node, database string) (backend.Asker, error) {
	conn, err := r.connect(ctx, n, r.conf.RecoveryUser, r.conf.RecoveryPassword, database)
	if err != nil {
		return backend.Asker{}, err
	}
	return conn.(probe).Asker, nil
}

// await waits until the node lets us in.
func (r *recovery) await(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, max(r.conf.RecoveryTimeout, startPace))
	defer cancel()
	database := r.conf.RecoveryDatabase
	for retry := 0; ; retry++ {
		where := fmt.Sprintf("postmaster on hostname:%s database:%s user:%s", r.node.Host, database, r.conf.RecoveryUser)
		r.say("checking if postmaster is started", fmt.Sprintf("trying to connect to %s (retry %d times)", where, retry))
		once, stop := context.WithTimeout(limited, startPatience)
		conn, err := r.login(once, r.node, database)
		if err == nil && r.conf.BackendClusteringMode.Replicates() {
			err = r.writable(once, conn)
		}
		stop()
		if err == nil {
			conn.Close()
			r.say(fmt.Sprintf("node recovery, node: %d restarted", r.node.ID), "")
			return nil
		}
		r.say("checking if postmaster is started", fmt.Sprintf("failed to connect to %s: %v", where, err))
		select {
		case <-time.After(startPace):
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return pcp.NewError("recovery is checking if postmaster is started", fmt.Sprintf("postmaster on hostname:\"%s\" database:\"%s\" user:\"%s\" failed to start in %d second",
				r.node.Host, database, r.conf.RecoveryUser, int(r.conf.RecoveryTimeout.Seconds())))
		}
	}
}
