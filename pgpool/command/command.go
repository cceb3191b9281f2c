// Package command answers: what came of the operator's command?
//
// It has the shell run a line of pgpool.conf, such as failover_command, writes
// what the command prints to the log line by line, and ends it when its time is
// up or when pgpool ends. It knows no placeholders and decides nothing: the line
// comes complete from whoever wants it run.
package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"pgpool-go/pgpool/eventlog"
)

const (
	// grace is how long a command that is asked to end may take for it.
	grace = 3 * time.Second
	// longestLine bounds what becomes one line of the log.
	longestLine = 8192
)

// Run runs a line by the shell and waits for its end. A limit of 0 is none. The
// command leads a process group of its own, so that what it has started ends with
// it when its time is up; what it leaves running in the background when it ends
// by itself is left alone. The error says how it failed, and that it was ended if
// it was.
func Run(ctx context.Context, log *slog.Logger, line string, limit time.Duration) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	end := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Now().Add(grace)) }) // it ends with the server, whoever keeps it open
	read := make(chan struct{})
	defer func() {
		go func() {
			<-read
			end()
			r.Close()
		}()
	}()
	server := ctx
	if limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it was ended after %v", limit))
		defer stop()
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err = cmd.Start()
	w.Close()
	go func() {
		defer close(read)
		logLines(server, log, r)
	}()
	if err != nil {
		return err
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever of the group did not listen
		err = errors.Join(context.Cause(ctx), err)
	}
	// What it has printed is in the log before its end is. A process it has left in
	// the background may go on printing, but is not waited for.
	select {
	case <-read:
	case <-time.After(time.Second):
	}
	return err
}

// logLines writes a command's output to the log.
func logLines(ctx context.Context, log *slog.Logger, r io.Reader) {
	lines := bufio.NewReaderSize(r, longestLine)
	for {
		line, err := lines.ReadSlice('\n')
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			log.LogAttrs(ctx, eventlog.Log, text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
