// Package wire moves PostgreSQL frames between sockets: peek, open or forward.
//
// It knows how bytes are framed and how they are waited for, never what a
// statement means. A Conn is one socket with its two buffers; a Task is the
// conversation that uses one or more of them and the only one that waits. What
// stands behind the waiting is the Engine: an epoll loop that marks sockets
// readable and goes on with the tasks that own them, which are coroutines on the
// loop's thread. Session code reads as a plain conversation and pays for no
// hand-over between threads; the price is that it must not block otherwise.
//
// What a frame costs: a header peek in the buffer it arrived in, and its bytes
// copied once (small) or not at all (large) on the way out. A burst is one
// read(2) and one write(2) per side. A short read is taken for a drained socket,
// so no read fails only to learn that; an idle Conn holds no buffer.
//
// What a statement costs: its four system calls and its share of an epoll_wait are
// some 15 of 18 µs. Little of the rest is work: to read and to route a statement
// takes 0.3 µs when nothing else runs. Most is cache misses, since between two
// turns the kernel, and often another process, has had the processor. So sockets
// are dealt with in volleys (loop.go), sessions rest instead of holding a stack
// while they wait, buffers are used again last in first out, and what each
// statement touches lies together.
//
// Control messages are built with pgproto3. To teach the relay a new message,
// see the letters in frame.go; to wait differently, see loop.go and task.go.
package wire
