package qcache

import (
	"fmt"
	"testing"
)

// However many statements there are, so many are listed, those in use among them.
func TestTallies(t *testing.T) {
	q := &Cache{}
	busy := q.Tally("db", "busy")
	for i := range 20 * maxTallies {
		s := q.Tally("db", fmt.Sprint("statement ", i))
		q.Count(s, false)
		for range 3 {
			q.Count(busy, true)
		}
	}
	list := q.Statements()
	if len(list) > maxTallies {
		t.Errorf("%d are listed", len(list))
	}
	if got, want := list[0], (StatementStats{"db", "busy", 60 * maxTallies, 0}); got != want {
		t.Errorf("first %v, want %v", got, want)
	}

	// Who still counts for one that has made room has it listed again.
	gone := &Tally{of: tallied{"db", "gone"}}
	gone.unlisted.Store(true)
	q.Count(gone, true)
	q.Count(gone, true)
	if got := q.Tally("db", "gone"); got != gone || got.hits.Load() != 2 {
		t.Error("not listed again")
	}
	gone.unlisted.Store(true)
	delete(q.tallies.list, gone.of)
	other := q.Tally("db", "gone")
	q.Count(gone, false)
	if other.misses.Load() != 1 {
		t.Error("counted where nobody looks")
	}
	if (*Cache)(nil).Statements() != nil {
		t.Error("without a cache there are statements")
	}
}
