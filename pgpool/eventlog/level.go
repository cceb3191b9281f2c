package eventlog

import "log/slog"

// The levels of the log, in the order in which log_min_messages counts them.
// LOG stands between ERROR and FATAL: a server that only wants errors still
// says what it does, as PostgreSQL and the original have it. (What a client
// is sent is counted differently; that is the session's affair.)
const (
	Debug5  slog.Level = -8
	Debug4  slog.Level = -7
	Debug3  slog.Level = -6
	Debug2  slog.Level = -5
	Debug1  slog.Level = slog.LevelDebug
	Info    slog.Level = slog.LevelInfo
	Notice  slog.Level = 2
	Warning slog.Level = slog.LevelWarn
	Error   slog.Level = slog.LevelError
	Log     slog.Level = 10
	Fatal   slog.Level = 12
	Panic   slog.Level = 16
)

// word is what stands before the text. The original prints all five debug
// levels alike.
func word(l slog.Level) string {
	switch {
	case l >= Panic:
		return "PANIC"
	case l >= Fatal:
		return "FATAL"
	case l >= Log:
		return "LOG"
	case l >= Error:
		return "ERROR"
	case l >= Warning:
		return "WARNING"
	case l >= Notice:
		return "NOTICE"
	case l >= Info:
		return "INFO"
	}
	return "DEBUG"
}

// severity is the syslog severity of a level, as PostgreSQL maps them: a
// database's ERROR is its client's affair and no alarm for the machine.
func severity(l slog.Level) int {
	switch {
	case l >= Panic:
		return 2 // critical
	case l >= Fatal:
		return 3 // error
	case l >= Log:
		return 6 // informational
	case l >= Error:
		return 4 // warning
	case l >= Notice:
		return 5 // notice
	case l >= Info:
		return 6
	}
	return 7 // debug
}
