package watchdog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"pgpool-go/conf"
	"pgpool-go/watchdog/election"
)

// Two members, or four, that the network parts in halves cannot know of each other
// whether they are still there. With enable_consensus_with_half_votes a half may
// act all the same; wd_tie_breaker says what must stand by it while it does:
//
//   - none: nothing. Each half may act, as with pgpool-II.
//   - primary: the primary, which holds a lock for one pgpool at a time, so that one
//     half acts at the most. Where the primary itself is gone the half that is left
//     does not fail over.
//   - trusted_servers: one of them answers. A member that is cut off does not act;
//     but where only the members do not hear each other, both do.
//
// The word of a witness counts for as long as a promise, from when it was asked.

// witness is asked as long as it would help.
func (w *Watchdog) witness() {
	tick := time.NewTicker(max(w.times.Beat, 50*time.Millisecond))
	defer tick.Stop()
	standing := time.Duration(0) // since when the primary stands by us; 0: it does not
	told := ""
	for {
		select {
		case <-tick.C:
		case <-w.stopping:
			w.host.Dismiss()
			return
		}
		if s := w.state.Load(); s == nil || !s.WantsWitness(now()) {
			if standing != 0 {
				standing = 0
				w.host.Dismiss()
			}
			continue
		}
		asked := now()
		fresh, err := w.askWitness()
		switch {
		case err != nil:
			standing = 0
			if why := err.Error(); why != told {
				told = why
				w.log.Warn("the tie-breaker does not stand by this node", "detail", "With half of the members it does not act. "+why)
			}
			continue
		case fresh || standing == 0:
			standing = now()
			told = ""
		}
		// The primary may have been restarted and have lost the lock of another, who
		// believes in it to the end of a promise.
		if w.config.Load().WdTieBreaker == conf.TiePrimary && asked-standing < w.times.Promise*104/100 {
			continue
		}
		until := asked
		if w.config.Load().WdTieBreaker == conf.TieTrustedServers {
			until = 2*now() - asked // asking takes seconds, and it is no lock
		}
		w.input(election.Witness{Until: until + w.times.Promise*96/100})
	}
}

// askWitness is done within a promise. Fresh: it did not stand by us before.
func (w *Watchdog) askWitness() (fresh bool, err error) {
	c := w.config.Load()
	if c.WdTieBreaker == conf.TieTrustedServers {
		return false, w.life.trusts(c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.times.Promise/4)
	defer cancel()
	sum := sha256.Sum256([]byte(w.label()))
	return w.host.Witness(ctx, int64(binary.BigEndian.Uint64(sum[:])), w.times.Promise)
}
