package session

import (
	"container/list"
	"sync"
	"syscall"

	"pgpool-go/pgpool/wire"
)

// strangers are the connections that have not yet said who they are. There may be
// so many and no more: whoever opens more makes the one go that has been silent for
// longest, so that a newcomer always finds a place. Safe for all goroutines.
type strangers struct {
	mu    sync.Mutex
	tasks list.List // of *wire.Task, the longest here first
	limit int
}

var errTooManyStrangers = wire.Fatal("53300", "too many connections have not begun a session, and this one has been silent for longest")

// enter counts a connection in. leave, to be called once, counts it out.
func (st *strangers) enter(t *wire.Task) (leave func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.limit == 0 {
		st.limit = strangersLimit()
	}
	at := st.tasks.PushBack(t)
	if st.tasks.Len() > st.limit {
		oldest := st.tasks.Front()
		st.tasks.Remove(oldest)
		oldest.Value.(*wire.Task).Interrupt(errTooManyStrangers)
	}
	return func() {
		st.mu.Lock()
		st.tasks.Remove(at) // of no effect on one that had to go
		st.mu.Unlock()
	}
}

// strangersLimit leaves most of the process's descriptors to those who have
// business here.
func strangersLimit() int {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return 256
	}
	return int(min(files.Cur/4, 10_000))
}
