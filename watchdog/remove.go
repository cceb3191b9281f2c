package watchdog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgpool-go/watchdog/election"
)

// Remove goes on without nodes that are off: the operator's word for it that no
// node can have by itself, since to be off and to be cut off look alike. It is for
// a group that has lost its quorum for good. It returns when this node decides for
// the rest. If one of them is not off, the group splits.
func (w *Watchdog) Remove(ctx context.Context, gone []int) error {
	s := w.state.Load()
	if s == nil {
		return errors.New("the watchdog has only just started")
	}
	for _, m := range s.View(now()).Members {
		switch {
		case !slices.Contains(gone, m.ID):
		case m.ID == w.self.id:
			return fmt.Errorf("node %d is this one", m.ID)
		case m.Contact >= 0 && m.Contact <= w.times.Promise:
			return fmt.Errorf("node %d is not off, it was heard %v ago", m.ID, m.Contact.Round(time.Millisecond))
		}
	}
	for _, id := range gone {
		if w.nodes[id] == nil {
			return fmt.Errorf("node %d is not configured here", id)
		}
	}
	w.log.Warn(fmt.Sprintf("the operator removes watchdog nodes %v", gone), "detail", "If one of them is not off, there may be two leaders from now on.")
	refused := make(chan string, 1)
	w.mu.Lock()
	w.lastID = max(w.lastID+1, uint64(time.Now().UnixNano()))
	ticket := w.lastID
	w.mu.Unlock()
	w.removals.Store(ticket, refused)
	defer w.removals.Delete(ticket)
	w.input(election.Force{Ticket: ticket, Gone: gone})
	ctx, cancel := context.WithTimeout(ctx, 3*w.times.Promise+5*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if v := w.state.Load().View(now()); v.Decisive && !slices.ContainsFunc(gone, func(id int) bool { return v.Register.Membership(id) == election.Member }) {
			return nil
		}
		select {
		case why := <-refused:
			return errors.New("nodes are not removed: " + why)
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("too few of the other nodes answer; name all that are off")
		case <-w.stopping:
			return errors.New("the watchdog has stopped")
		}
	}
}
