package pgpool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pcp"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/session"
	"pgpool-go/watchdog"
	"pgpool-go/watchdog/election"
)

// listenPcp opens the administrative port. Nothing is answered before servePcp.
func (s *Server) listenPcp(c *conf.Config) error {
	if c.PcpPort == 0 {
		return nil
	}
	open := func(where string, ln net.Listener, err error) error {
		if err != nil {
			return fmt.Errorf("could not listen for PCP on %s: %w", where, err)
		}
		s.pcp = append(s.pcp, ln)
		return nil
	}
	port := strconv.Itoa(c.PcpPort)
	for _, a := range addresses(c.PcpListenAddresses) {
		ln, err := listenTCP(a, c.PcpPort, 0)
		if err := open(net.JoinHostPort(a, port), ln, err); err != nil {
			return err
		}
	}
	for _, dir := range c.PcpSocketDir {
		path := dir + "/.s.PGSQL." + port
		ln, err := listenUnix(path, 0o777, "")
		if err := open(path, ln, err); err != nil {
			return err
		}
	}
	return nil
}

// servePcp answers on the administrative port until ctx ends.
func (s *Server) servePcp(ctx context.Context) {
	for _, ln := range s.pcp {
		s.work.Go(func() {
			if err := pcp.Serve(ctx, ln, loggedAdmin{admin{s}, s.pcpLog()}, s.pcpOptions); err != nil {
				s.log.LogAttrs(ctx, eventlog.Warning, "the administrative port is closed", slog.Any("err", err))
			}
		})
	}
}

func (s *Server) closePcp() {
	for _, ln := range s.pcp {
		ln.Close()
	}
}

// pcpOptions are those of one connection.
func (s *Server) pcpOptions() pcp.Options {
	layout := pcp.Layout43
	if s.config.Load().PcpLayout == conf.PcpLayout48 {
		layout = pcp.LayoutNew
	}
	return pcp.Options{
		Layout:      layout,
		Credentials: s.pcpCredentials,
		Deadline:    s.pcpDeadline,
		Log:         s.pcpLog(),
		Visits:      s.config.Load().LogPcpProcesses,
	}
}

func (s *Server) pcpLog() *slog.Logger { return s.log.With(slog.String("app", "pcp_child")) }

// pcpCredentials reads pcp.conf at each login, as the original does: a changed
// password counts at once.
func (s *Server) pcpCredentials(user string) ([]string, error) {
	path := s.config.Load().Paths.Pcp
	accounts, err := conf.LoadPcpConf(path)
	if bad, ok := errors.AsType[*fs.PathError](err); ok {
		why := bad.Err.Error()
		return nil, pcp.UnreadableCredentials(path, errors.New(strings.ToUpper(why[:1])+why[1:])) // as C spells it
	}
	if err != nil {
		return nil, err
	}
	hashes := accounts.Hashes(user)
	if len(hashes) == 0 {
		s.tell(accounts.Notices) // perhaps one of these lines was meant for the user
	}
	return hashes, nil
}

// pcpDeadline leaves the commands that wait for clients to go the time for it.
func (s *Server) pcpDeadline(c pcp.Command) time.Duration {
	deadline := pcp.DefaultDeadline(c)
	if c == pcp.DetachNode || c == pcp.PromoteNode {
		deadline = max(deadline, s.config.Load().RecoveryTimeout+time.Minute)
	}
	return deadline
}

// admin is the server as the administrative port sees it.
type admin struct{ *Server }

var _ pcp.Admin = admin{}

func (a admin) NodeCount(context.Context) (int, error) { return len(a.owner.Now().Nodes), nil }

func (a admin) Nodes(_ context.Context, id int) ([]pcp.Node, error) {
	snap := a.owner.Now()
	byTime := a.config.Load().DelayThresholdByTime > 0
	var nodes []pcp.Node
	for i := range snap.Nodes {
		if id == pcp.All || id == i {
			nodes = append(nodes, describe(snap, i, byTime))
		}
	}
	return nodes, nil
}

// describe is a node's row. What it says of the server is what the last probe
// has found, so that no row ever waits for a server that hangs.
func describe(snap *cluster.Snapshot, id int, byTime bool) pcp.Node {
	n := &snap.Nodes[id]
	if !n.Used() {
		return pcp.UnusedNode(id, n.Changed)
	}
	row := pcp.Node{
		ID: id, Host: n.Host, Port: n.Port,
		Status: pcp.NodeStatus(n.Status.Number()), Quarantined: n.Status == cluster.Quarantine, Changed: n.Changed,
		PgStatus: n.PgStatus, PgRole: snap.PgRoleName(id), Role: role(snap, id), Weight: snap.Share(id),
		Delay: n.Lag, DelayByTime: byTime,
		ReplicationState: n.ReplicationState, ReplicationSyncState: n.ReplicationSyncState,
	}
	if byTime {
		row.Delay = n.LagTime.Microseconds()
	}
	return row
}

// role is the part a node plays. Main and replica are the words where servers
// have no roles of their own.
func role(snap *cluster.Snapshot, id int) pcp.Role {
	switch {
	case snap.Mode == conf.StreamingReplication && id == snap.Primary:
		return pcp.Primary
	case snap.Mode == conf.StreamingReplication:
		return pcp.Standby
	case id == snap.Main:
		return pcp.Main
	}
	return pcp.Replica
}

func (a admin) HealthStats(_ context.Context, id int) (pcp.HealthStats, error) {
	snap, h := a.owner.Now(), a.owner.Health(id)
	n := &snap.Nodes[id]
	stats := pcp.HealthStats{
		NodeID: id, Host: n.Host, Port: n.Port, Status: n.Status.String(), Role: role(snap, id).String(), LastChange: pcp.WallTime(n.Changed),
		Total: int64(h.Total), Success: int64(h.Success), Fail: int64(h.Fail), Skip: int64(h.Skip), Retry: int64(h.Retry),
		MaxRetry: int64(h.MaxRetry), MaxDuration: h.MaxDuration.Milliseconds(), MinDuration: h.MinDuration.Milliseconds(),
		LastCheck: pcp.WallTime(h.Last), LastSuccess: pcp.WallTime(h.LastSuccess),
		LastSkip: pcp.WallTime(h.LastSkip), LastFail: pcp.WallTime(h.LastFail),
	}
	if ran := h.Total - h.Skip; ran > 0 {
		stats.AverageRetry = float64(h.Retry) / float64(ran)
		stats.AverageDuration = float64(h.SumDuration.Milliseconds()) / float64(ran)
	}
	return stats, nil
}

// Processes are the places for server connections; a slot's number stands for
// the pid of the child process that the original would have there.
func (a admin) Processes(_ context.Context, pid int) ([]pcp.Process, error) {
	now := time.Now()
	var rows []pcp.Process
	for _, p := range a.shared.Places(len(a.owner.Now().Nodes), a.config.Load().MaxPool) {
		if pid == 0 || pid == p.Slot.ID {
			rows = append(rows, process(&p, now))
		}
	}
	return rows, nil
}

func process(p *session.Place, now time.Time) pcp.Process {
	v := p.Slot
	row := pcp.Process{
		PID: v.ID, Start: pcp.WallTime(v.Started), ClientConnections: int64(v.Clients), PoolID: p.Pool, BackendID: p.Node,
		Database: p.Database, User: p.User, Status: v.Status.String(),
	}
	if p.PID == 0 {
		return row
	}
	row.BackendConnected, row.ClientDisconnected = pcp.WallTime(p.Born), pcp.WallTime(p.Left)
	row.Major, row.PoolCounter, row.BackendPID = 3, int64(p.Uses), int(p.PID)
	if !p.Connected {
		return row
	}
	row.Connected = true
	row.PoolCounter++
	row.ClientConnected, row.ClientDisconnected, row.Idle = pcp.WallTime(v.Since), pcp.WallTime(v.LastLeft), v.IdleText(now)
	row.LoadBalanceNode = p.Node == v.Reader
	row.ClientHost, row.ClientPort, row.Statement = v.Host, v.Port, p.Statement
	return row
}

func (a admin) ProcessIDs(context.Context) ([]int, error) {
	ids := make([]int, a.shared.Slots.Limit())
	for i := range ids {
		ids[i] = i + 1
	}
	return ids, nil
}

func (a admin) Settings(context.Context) ([]pcp.Setting, error) {
	snap, c, cached := a.owner.Now(), a.config.Load(), a.cache.Stats()
	var rows []pcp.Setting
	for _, r := range c.StatusRows(conf.StatusExtra{
		BackendStatus: func(i int) string {
			if n := snap.Node(i); n != nil {
				return n.Status.String()
			}
			return cluster.Unused.String()
		},
		StandbyDelay: func(i int) string {
			n := snap.Node(i)
			switch {
			case n == nil:
				return "0"
			case c.DelayThresholdByTime > 0 && i != snap.Primary:
				return strconv.FormatFloat(n.LagTime.Seconds(), 'f', 6, 64)
			}
			return strconv.FormatInt(n.Lag, 10)
		},
		CacheStart: cached.Since, CacheMisses: cached.Misses, CacheHits: cached.Hits,
	}) {
		rows = append(rows, pcp.Setting{Name: r.Item, Value: r.Value, Description: r.Description})
	}
	return rows, nil
}

func (a admin) Watchdog(context.Context) (pcp.Watchdog, error) {
	if w := a.group.Load(); w != nil {
		return describeGroup(w.Status()), nil
	}
	return pcp.Watchdog{}, pcp.WatchdogDisabled()
}

// AttachNode succeeds also for a slot that is not configured, as in the
// original, and for a server that does not answer: it will be used when it does.
func (a admin) AttachNode(ctx context.Context, id int) error {
	if a.owner.Now().Mode.Replicates() {
		return a.quietly(ctx, func() error { return a.attach(ctx, id) })
	}
	return a.attach(ctx, id)
}

func (a admin) attach(ctx context.Context, id int) error {
	snap, err := a.agree(ctx, election.ActAttach, id, cluster.Attach{Node: id, By: "pcp_attach_node"})
	if err != nil {
		return err
	}
	if n := snap.Node(id); n == nil || !n.Used() || n.Usable() {
		return nil
	}
	// It may have come up since it was last asked: who attached it wants it used.
	first, cancel := context.WithTimeout(ctx, firstProbes)
	snap, _ = a.owner.Wait(first, func(s *cluster.Snapshot) bool { return s.Nodes[id].Reach != cluster.Unreachable })
	cancel()
	if n := snap.Node(id); n.Excluded != "" && n.PgRole == cluster.Standby {
		// It was just made a standby of the primary, and may take a moment to follow it.
		settled, cancel := context.WithTimeout(ctx, followPatience)
		snap, _ = a.owner.Wait(settled, func(s *cluster.Snapshot) bool { return s.Usable(id) })
		cancel()
	}
	if n := snap.Node(id); !n.Usable() && n.Excluded != "" {
		return fmt.Errorf("node %d is attached but not used: %s", id, n.Excluded)
	}
	return nil
}

// followPatience is how long a standby that is attached may take to get onto the
// primary's timeline.
const followPatience = 10 * time.Second

// DetachNode also takes an operator's word for a node that is only seen to be
// down, and would be used again as soon as it answers.
func (a admin) DetachNode(ctx context.Context, id int, gracefully bool) error {
	allowed := func() error {
		n := a.owner.Now().Node(id)
		switch {
		case n == nil:
			return pcp.NotValidForFailover(id, pcp.Unused)
		case !n.Used() || n.Detached:
			return pcp.NotValidForFailover(id, pcp.NodeStatus(n.Status.Number()))
		case n.Flag&conf.DisallowToFailover != 0:
			return pcp.FailoverDisallowed(id, os.Getpid())
		}
		return nil
	}
	return a.whenAllowed(ctx, gracefully, allowed, func() error {
		snap, err := a.agree(ctx, election.ActDetach, id, cluster.Detach{Node: id, By: "pcp_detach_node", Reason: "detached by an operator"})
		if err == nil && snap.Usable(id) {
			return fmt.Errorf("node %d has been attached meanwhile", id)
		}
		return err
	})
}

// PromoteNode without switchover makes pgpool take a node for the primary: the
// present one is detached. The server itself is not promoted. With switchover the
// present one is failed over, with the node as the new main node: failover_command
// or failover_promote is to promote it.
func (a admin) PromoteNode(ctx context.Context, id int, gracefully, switchover bool) error {
	allowed := func() error {
		snap, c := a.owner.Now(), a.config.Load()
		n := snap.Node(id)
		switch {
		case snap.Mode != conf.StreamingReplication:
			return pcp.PromoteNeedsStreaming(id)
		case id == snap.Primary:
			return pcp.AlreadyPrimary(id)
		case switchover && !n.Usable():
			return pcp.NotValidForFailover(id, pcp.NodeStatus(n.Status.Number()))
		case switchover && c.FailoverCommand == "" && !c.FailoverPromote:
			return errors.New("neither failover_command nor failover_promote is set: nobody would promote it, nothing has been changed")
		case n.Detached || n.Reach != cluster.Reachable:
			return fmt.Errorf("node id %d is %s", id, n.Status)
		}
		return nil
	}
	return a.whenAllowed(ctx, gracefully, allowed, func() error {
		old := a.owner.Now().Primary
		snap, err := a.agree(ctx, election.ActPromote, id, cluster.Promote{Node: id, By: "pcp_promote_node", Switchover: switchover})
		if err == nil && snap.Primary != id && snap.Usable(old) {
			return fmt.Errorf("node id %d has ceased to answer", id)
		}
		return err
	})
}

// whenAllowed makes a change that some states of the cluster forbid, gracefully
// when all clients have left. New ones wait meanwhile. Where they have not left
// within recovery_timeout, nothing is changed.
func (a admin) whenAllowed(ctx context.Context, gracefully bool, allowed, change func() error) error {
	if err := allowed(); err != nil {
		return err
	}
	if gracefully {
		patience := a.config.Load().RecoveryTimeout
		limited, cancel := context.WithTimeoutCause(ctx, patience,
			fmt.Errorf("clients are still connected after recovery_timeout (%d seconds), nothing has been changed", int(patience.Seconds())))
		defer cancel()
		reopen, err := a.gate.vacate(limited)
		defer reopen()
		if err != nil {
			return err
		}
		if err := allowed(); err != nil {
			return err
		}
	}
	return change()
}

// Stop is for this server alone whatever the scope, since it has no peers; so
// are Reload and RotateLog.
func (a admin) Stop(ctx context.Context, mode pcp.StopMode, scope pcp.Scope) (begin func(), err error) {
	how, order := Smart, watchdog.OrderStopSmart
	switch mode {
	case pcp.Fast:
		how, order = Fast, watchdog.OrderStopFast
	case pcp.Immediate:
		how, order = Immediate, watchdog.OrderStopImmediate
	}
	if err := a.orderOthers(ctx, scope, order); err != nil {
		return nil, pcp.NewError("PCP: error while processing shutdown cluster request", "failed to propagate shutdown command through watchdog: "+err.Error())
	}
	// The port is open until the end, and the end waits for its connections, so
	// this one cannot wait for the end.
	return func() { go a.Shutdown(context.Background(), how) }, nil
}

func (a admin) Reload(ctx context.Context, scope pcp.Scope) error {
	if err := a.orderOthers(ctx, scope, watchdog.OrderReload); err != nil {
		return pcp.NewError("PCP: error while processing reload config request for cluster", "failed to propagate reload config command through watchdog: "+err.Error())
	}
	return a.within(ctx, a.Server.Reload)
}

func (a admin) RotateLog(ctx context.Context, scope pcp.Scope) error {
	if err := a.orderOthers(ctx, scope, watchdog.OrderRotateLog); err != nil {
		return err
	}
	if !a.config.Load().LoggingCollector {
		return pcp.NoLogCollector()
	}
	return a.within(ctx, a.journal.Rotate)
}

// within does what may hang on a disk; after the deadline it goes on alone.
func (a admin) within(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	a.work.Go(func() { done <- do() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a admin) InvalidateQueryCache(context.Context) error {
	if a.cache == nil {
		return pcp.NoQueryCache()
	}
	a.cache.Clear()
	return nil
}
