package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifier tells systemd what state the server is in, where it was started by
// it and wants to know.
type notifier struct{ socket string }

// newNotifier takes NOTIFY_SOCKET out of the environment, so that the scripts
// the server runs do not speak for it.
func newNotifier() notifier {
	socket := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	if strings.HasPrefix(socket, "@") { // in the abstract namespace
		socket = "\x00" + socket[1:]
	}
	return notifier{socket}
}

func (n notifier) tell(state string) error {
	if n.socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

func (n notifier) ready() error    { return n.tell(fmt.Sprintf("READY=1\nMAINPID=%d", os.Getpid())) }
func (n notifier) stopping() error { return n.tell("STOPPING=1") }

// reloading must carry the time, for systemd to tell it from an earlier one.
func (n notifier) reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return n.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}
