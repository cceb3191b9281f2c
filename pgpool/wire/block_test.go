package wire

import (
	"fmt"
	"strings"
	"testing"
)

// A panic in what a task has others do is the task's, and does not end the process.
func TestPanicInBlock(t *testing.T) {
	e, err := NewEngine(1)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	got := make(chan string, 1)
	e.Go(func(task *Task) {
		defer func() { got <- fmt.Sprint(recover()) }()
		task.Block(func() { panic("tripped") })
	})
	if said := <-got; !strings.HasPrefix(said, "tripped\n") || !strings.Contains(said, "block_test.go") {
		t.Errorf("got %q", said)
	}
}
