package monitor

import (
	"time"

	"pgpool-go/pgpool/cluster"
)

// seen is how far a primary had written its log, and when, for the last so many
// rounds: a standby that has replayed as far has all that was committed by then.
type seen struct {
	node     int
	timeline uint32
	list     []written // oldest first
}

type written struct {
	position uint64
	asked    time.Time
}

const (
	seenRounds = 128
	// unwritten is how long a commit may have been acknowledged before it is written to
	// the log, with synchronous_commit off: three times wal_writer_delay, generously.
	unwritten = 3 * time.Second
)

// note takes the primary's answer of a round.
func (s *seen) note(primary outcome) {
	if s.node != primary.node || s.timeline != primary.facts.Timeline {
		*s = seen{node: primary.node, timeline: primary.facts.Timeline}
	}
	if primary.facts.Position == 0 || s.timeline == 0 {
		return
	}
	if len(s.list) == seenRounds {
		s.list = append(s.list[:0], s.list[1:]...)
	}
	s.list = append(s.list, written{primary.facts.Position, primary.asked})
}

// through tells up to when a standby has all that was committed.
func (s *seen) through(standby cluster.Facts) (time.Time, bool) {
	if standby.Timeline != s.timeline {
		return time.Time{}, false
	}
	for i := len(s.list) - 1; i >= 0; i-- {
		if w := s.list[i]; w.position <= standby.Position {
			return w.asked.Add(-unwritten), true
		}
	}
	return time.Time{}, false
}
