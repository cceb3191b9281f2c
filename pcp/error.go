package pcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Severity of an Error. After a Fatal one the server closes the connection.
type Severity string

// What the original sends as errors.
const (
	SeverityError Severity = "ERROR"
	SeverityFatal Severity = "FATAL"
	SeverityPanic Severity = "PANIC"
)

// internalError is the only SQLSTATE the original uses here.
const internalError = "XX000"

// Error is what a server says instead of a reply. An Admin may return one to
// choose the words; any other error becomes the detail of "... failed".
type Error struct {
	Severity Severity
	Code     string
	Message  string
	Detail   string
	Hint     string
}

func (e *Error) Error() string {
	s := e.Message
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// NewError is an error of severity ERROR; the connection stays usable. Detail
// may be empty.
func NewError(message, detail string) *Error {
	return &Error{Severity: SeverityError, Code: internalError, Message: message, Detail: detail}
}

func fatal(message, detail string) *Error {
	return &Error{Severity: SeverityFatal, Code: internalError, Message: message, Detail: detail}
}

// The original's words for what only an Admin can find out. Scripts compare
// some of them, so they are kept to the letter, odd spaces included.

// NotValidForFailover refuses to detach, or to switch over to, a node that is
// down or unused.
func NotValidForFailover(id int, status NodeStatus) *Error {
	return NewError(fmt.Sprintf("invalid degenerate backend request, node id : %d status: [%d] is not valid for failover", id, status), "")
}

// FailoverDisallowed refuses to detach a node flagged DISALLOW_TO_FAILOVER.
func FailoverDisallowed(id, pid int) *Error {
	return NewError(fmt.Sprintf("degenerate backend request for node_id: %d from pid [%d] is canceled because failover is disallowed on the node", id, pid), "")
}

// AlreadyPrimary refuses to promote the primary.
func AlreadyPrimary(id int) *Error {
	return fatal("invalid promote request", fmt.Sprintf("specified node is already primary node, can't promote node id %d", id))
}

// PromoteNeedsStreaming refuses to promote outside streaming replication mode.
func PromoteNeedsStreaming(id int) *Error {
	return fatal("invalid pgpool mode for process promote request", fmt.Sprintf("not in streaming replication mode, can't promote node id %d", id))
}

// RecoveryOfPrimary refuses to recover the primary.
func RecoveryOfPrimary() *Error {
	return NewError(failedRecovery, "primary server cannot be recovered by online recovery.")
}

// RecoveryNeedsReplication refuses recovery in modes without replication.
func RecoveryNeedsReplication() *Error {
	return NewError(failedRecovery, "recovery request is only allowed in replication and streaming replication modes.")
}

// NodeAlive refuses to recover a node that is up.
func NodeAlive(id int) *Error {
	return NewError(fmt.Sprintf("node recovery failed, node id: %d is alive", id), "")
}

// RecoveryRunning refuses a second recovery at the same time.
func RecoveryRunning() *Error {
	return fatal(failedRecovery, "pgpool-II is already processing another recovery request.")
}

// RecoveryCommandFailed reports a failed recovery script; stage is "1st stage"
// or "2nd stage".
func RecoveryCommandFailed(stage, command string) *Error {
	return NewError(fmt.Sprintf("executing recovery, execution of command failed at %q", stage), fmt.Sprintf("command:%q", command))
}

// Busy refuses a command while what names is going on: "failback", "failover",
// "promote node operation" or "operation".
func Busy(what string) *Error {
	return NewError("failed to process PCP request at the moment", what+" is in progress")
}

// NoStats says that a node has no health check statistics.
func NoStats(id int) *Error {
	return NewError(failedHealthStats, fmt.Sprintf("stats data for node ID %d does not exist", id))
}

// WatchdogDisabled answers watchdog_info where use_watchdog is off.
func WatchdogDisabled() *Error { return NewError(failedWatchdogInfo, "watchdog is not enabled") }

// NoLogCollector answers log_rotate where logging_collector is off.
func NoLogCollector() *Error { return NewError(failedLogRotate, "logging_collector is disabled") }

// NoQueryCache answers invalidate_query_cache where the cache is off.
func NoQueryCache() *Error { return NewError("query cache is not enabled", "") }

// UnreadableCredentials is for Options.Credentials: the file of the accounts
// cannot be read.
func UnreadableCredentials(file string, err error) *Error {
	if bad, ok := errors.AsType[*fs.PathError](err); ok {
		err = bad.Err
	}
	return fatal("failed to authenticate PCP user", fmt.Sprintf("could not open %s. reason: %v", file, err))
}

// asError finds the words for err, which a command failed with.
func asError(err error, c *command) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return NewError(c.failed, "no result in time")
	}
	if errors.Is(err, context.Canceled) {
		return NewError(c.failed, "pgpool is shutting down")
	}
	return NewError(c.failed, err.Error())
}

// append adds the message for e. The original also sends source file and line,
// which no tool looks at, and cuts texts at 255 bytes, which none needs.
func (e *Error) append(dst []byte) []byte {
	var b body
	field := func(code byte, s string) {
		if s != "" {
			b = append(b, code)
			b = b.text(s)
		}
	}
	field('S', string(e.Severity))
	field('C', e.Code)
	field('M', shy(e.Message))
	field('D', shy(e.Detail))
	field('H', e.Hint)
	return appendMessage(dst, 'E', append(b, 0))
}

// shy keeps a text clear of a flaw in the original's tools, which take the
// first letter of a text they have just stored for the code of another field.
func shy(s string) string {
	if s != "" && strings.IndexByte("SMD", s[0]) >= 0 {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// parseError reads the body of an E or N message. A field that was cut at its
// maximum is followed by an extra NUL, so an empty field is skipped rather than
// taken for the end.
func parseError(b []byte) *Error {
	e := &Error{}
	for field := range strings.SplitSeq(string(b), "\x00") {
		if field == "" {
			continue
		}
		switch text := field[1:]; field[0] {
		case 'S':
			e.Severity = Severity(text)
		case 'C':
			e.Code = text
		case 'M':
			e.Message = text
		case 'D':
			e.Detail = text
		case 'H':
			e.Hint = text
		}
	}
	return e
}
