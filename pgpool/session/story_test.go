package session

import (
	"slices"
	"testing"
)

func (st story) texts() []string {
	var out []string
	for _, l := range st {
		out = append(out, l.sql)
	}
	return out
}

func TestStoryTellsWhatStands(t *testing.T) {
	begin := story(nil).say("BEGIN")
	for _, tc := range []struct {
		name string
		got  story
		want []string
	}{
		{"savepoint", begin.savepoint("a"), []string{"BEGIN", `SAVEPOINT "a"`}},
		{"released", begin.savepoint("a").say("SET x").savepoint("b").release("a"), []string{"BEGIN", "SET x"}},
		{"inner released", begin.savepoint("a").savepoint("b").release("b"), []string{"BEGIN", `SAVEPOINT "a"`}},
		{"of two of a name the inner", begin.savepoint("a").say("SET x").savepoint("a").release("a"), []string{"BEGIN", `SAVEPOINT "a"`, "SET x"}},
		{"rolled back", begin.savepoint("a").say("SET x").savepoint("b").rollbackTo("a"), []string{"BEGIN", `SAVEPOINT "a"`}},
		{"told before, released", story(nil).say("SET x").savepoint("b").release("a"), []string{"SET x", `RELEASE SAVEPOINT "a"`}},
		{"told before, rolled back", story(nil).say("SET x").savepoint("b").rollbackTo("a"), []string{`ROLLBACK TO SAVEPOINT "a"`}},
		{"a name with quotes", begin.savepoint(`a"b`), []string{"BEGIN", `SAVEPOINT "a""b"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.got.texts(); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// JDBC's autosave makes and releases a savepoint around every statement.
func TestStoryOfALongBlockIsShort(t *testing.T) {
	st := story(nil).say("BEGIN")
	for range 1000 {
		st = st.savepoint("PGJDBC_AUTOSAVE").release("PGJDBC_AUTOSAVE")
	}
	if len(st) != 1 {
		t.Errorf("%d lines", len(st))
	}
}
