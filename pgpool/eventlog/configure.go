package eventlog

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"pgpool-go/conf"
)

// Configure makes the log follow c, at start and at every reload. On an error
// (files that cannot be opened) everything else holds and stderr takes the
// lines that have no file.
func (l *Journal) Configure(c *conf.Config) error {
	s := &settings{
		min:       LevelOf(c.LogMinMessages),
		verbosity: verbosityOf(c),
		prefix:    compile(c.LogLinePrefix),
		facility:  (16 + int(c.SyslogFacility)) << 3,
		ident:     c.SyslogIdent,
	}
	for _, destination := range c.LogDestination {
		switch strings.ToLower(strings.TrimSpace(destination)) {
		case "stderr":
			s.stderr = true
		case "syslog":
			s.syslog = true
		}
	}
	s.stderr = s.stderr || !s.syslog
	s.collect = s.stderr && c.LoggingCollector

	var errs []error
	if s.collect {
		err := l.files.configure(files{
			directory: c.LogDirectory,
			name:      c.LogFilename,
			mode:      os.FileMode(c.LogFileMode) & os.ModePerm,
			truncate:  c.LogTruncateOnRotation,
			age:       c.LogRotationAge,
			size:      c.LogRotationSize,
		}, time.Now())
		errs = append(errs, err)
	}
	l.settings.Store(s)
	if !s.collect {
		errs = append(errs, l.files.close())
	}
	if !s.syslog {
		l.syslog.close()
	}
	return errors.Join(errs...)
}

// LevelOf is the log's name for a level of the configuration: of
// log_min_messages, or of a conf.Notice.
func LevelOf(level conf.LogLevel) slog.Level {
	switch level {
	case conf.LevelDebug5:
		return Debug5
	case conf.LevelDebug4:
		return Debug4
	case conf.LevelDebug3:
		return Debug3
	case conf.LevelDebug2:
		return Debug2
	case conf.LevelDebug1:
		return Debug1
	case conf.LevelInfo:
		return Info
	case conf.LevelNotice:
		return Notice
	case conf.LevelError:
		return Error
	case conf.LevelLog:
		return Log
	case conf.LevelFatal:
		return Fatal
	case conf.LevelPanic:
		return Panic
	}
	return Warning
}

// verbosityOf is how much of a report c wants to see.
func verbosityOf(c *conf.Config) verbosity {
	switch c.LogErrorVerbosity {
	case conf.VerbosityTerse:
		return terse
	case conf.VerbosityVerbose:
		return verbose
	}
	return usual
}
