package session

import (
	"errors"
	"testing"

	"pgpool-go/pgpool/wire"
)

// Of too many the one goes that has been here for longest; who has left is not
// counted.
func TestStrangers(t *testing.T) {
	e, err := wire.NewEngine(1)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	st := strangers{limit: 2}
	now := func() bool { return true }
	var tasks []*wire.Task
	var leave []func()
	for range 3 {
		task := e.NewTask()
		tasks, leave = append(tasks, task), append(leave, st.enter(task))
	}
	if err := tasks[0].WaitFor(now); !errors.Is(err, errTooManyStrangers) {
		t.Errorf("the first: %v", err)
	}
	leave[0]()
	leave[1]()
	st.enter(e.NewTask())
	for i, task := range tasks[1:] {
		if err := task.WaitFor(now); err != nil {
			t.Errorf("stranger %d: %v", i+1, err)
		}
	}
}
