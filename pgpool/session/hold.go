package session

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// A statement that needs a primary while there is none is not refused at once: a
// failover may be under way. It waits for failover_hold_timeout, and goes to the
// new primary. Only what has not been sent anywhere waits. So does a login that
// finds no server.

// holdPoll is how often a primary is tried that is believed to be there but does
// not let us in: what is believed may be about to change.
const holdPoll = 250 * time.Millisecond

// holdOn tries again what has failed with err, whenever the cluster has changed,
// until it succeeds, fails for another reason than the lack of a primary, or the
// time is up.
func (s *Session) holdOn(err error, try func() error) error {
	if s.tx.open || s.pipe.open() || !s.due.empty() {
		return err
	}
	err, vain := s.persist(err, "a statement", try)
	if vain {
		return s.inVain(err)
	}
	return err
}

// persist is holdOn for whoever waits. It reports whether it was in vain.
func (s *Session) persist(err error, who string, try func() error) (_ error, vain bool) {
	limit, since := s.cfg.FailoverHoldTimeout, s.task.Now()
	for said := false; s.wantsPrimary(err); {
		now, snap := s.task.Now(), s.Cluster.Now()
		rest := limit - now.Sub(since)
		if rest <= 0 || !expected(snap, limit, now) {
			return err, true
		}
		if !said {
			s.log.LogAttrs(ctx, eventlog.Log, who+" waits for a primary", slog.Any("err", err))
			s.Cluster.Submit(cluster.Suspected{Node: snap.LastPrimary, Cause: err})
			said = true
		}
		if snap.Primary >= 0 {
			rest = min(rest, holdPoll)
		}
		if err := s.awaitCluster(snap.Epoch, rest); err != nil {
			return err, false
		}
		err = try()
	}
	return err, false
}

// inVain is the answer to a statement that could not be held any longer. The
// session goes on.
func (s *Session) inVain(err error) error {
	if errors.Is(err, errLeaderless) {
		return err
	}
	return &failed{cause: err, word: &wire.Error{Severity: "ERROR", Code: "57P03",
		Message: fmt.Sprintf("the primary, node %d, cannot be reached", s.main), Detail: s.Cluster.Now().Why()}}
}

// wantsPrimary tells whether an error is the lack of a primary.
func (s *Session) wantsPrimary(err error) bool {
	var bad *backend.Error
	var no *backend.Refusal
	switch {
	case errors.Is(err, errLeaderless):
		return true
	case errors.As(err, &bad):
		return bad.Node == s.main && s.conns[s.main] == nil // it could not be reached, so nothing was sent
	case errors.As(err, &no):
		return no.Node == s.main && no.Said.Code == "57P03"
	}
	return false
}

var errLeaderless = errors.New("no primary")

// expectsPrimary tells whether what needs a primary waits for one.
func (s *Session) expectsPrimary() bool {
	return expected(s.snap, s.cfg.FailoverHoldTimeout, s.task.Now())
}

// expected tells whether a primary may be expected: it has only just gone, or is
// being looked for.
func expected(snap *cluster.Snapshot, limit time.Duration, now time.Time) bool {
	switch {
	case limit <= 0, !snap.Attached():
		return false
	case snap.Primary >= 0, len(snap.Jobs) > 0:
		return true
	case snap.PrimaryLost.IsZero():
		return false
	}
	return now.Sub(snap.PrimaryLost) < limit
}

// awaitCluster waits until the snapshot is another one, or for a while.
func (s *Session) awaitCluster(epoch uint64, limit time.Duration) error {
	snap, over := s.Cluster.Watch()
	if snap.Epoch != epoch {
		return nil
	}
	var late atomic.Bool
	done := make(chan struct{})
	defer close(done)
	go func() {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-over:
		case <-timer.C:
			late.Store(true)
		case <-done:
			return
		}
		s.task.Wake()
	}()
	return s.task.WaitFor(func() bool { return late.Load() || s.Cluster.Now().Epoch != epoch })
}

// gone finds out whether a server that has ended one of its connections has ended
// altogether: then it was not this session that was meant, as it is with
// pg_terminate_backend. It asks for a new connection and leaves it at that.
func (s *Session) gone(node int, code string) bool {
	if code != "57P01" && code != "57P02" {
		return false
	}
	s.Cluster.Submit(cluster.Suspected{Node: node, Cause: errors.New("it ends its connections")})
	c, err := s.hail(node)
	if err == nil {
		c.Close()
		return false
	}
	var no *backend.Refusal
	return !errors.As(err, &no) || no.Said.Code == "57P03"
}

// survives tells whether the session can go on without its main server, whose
// words are not for the client then.
func (s *Session) survives(c *server, code string) bool {
	if s.tx.open || slices.Contains(s.pipe.touched, c) || s.askTemp || s.holds() != "" || !s.gone(c.Node, code) {
		return false
	}
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("the server of node %d has ended, the session goes on without it", c.Node),
		slog.String("detail", "It owned nothing there."))
	return true
}
