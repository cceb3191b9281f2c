package watchdog

import (
	"time"

	"golang.org/x/sys/unix"
)

// now is the time since the host was started, the time it was suspended
// included: Go's own monotonic clock stands still meanwhile, which would stretch
// a lease. All processes of a host see the same.
func now() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	}
	return time.Duration(ts.Nano())
}
