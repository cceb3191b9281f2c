package session

import (
	"testing"
	"time"
)

// One session asks, whoever else wants to know meanwhile; an answer to a question of
// before a change of the schema is not kept.
func TestHiddenIsAskedOnce(t *testing.T) {
	var h hidden
	now := time.Now()
	look := func(step string, wantRisky, wantAsk bool) int {
		t.Helper()
		risky, ask, schema := h.look("d", now)
		if risky != wantRisky || ask != wantAsk {
			t.Errorf("%s: risky %v, to be asked %v", step, risky, ask)
		}
		return schema
	}
	schema := look("at first", true, true)
	look("while the first asks", true, false)
	h.note("d", schema, false, now.Add(hiddenFor))
	look("once it is known", false, false)

	now = now.Add(hiddenFor)
	look("when the answer is old", false, true)
	look("while one asks again", false, false)
	now = now.Add(catalogLimit)
	schema = look("when that one has been lost", false, true)

	h.forget("d")
	h.note("d", schema, false, now.Add(hiddenFor))
	look("after a change of the schema", true, true)
}
