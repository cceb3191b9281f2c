package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
)

// Exit codes of pgpool.
const (
	exitUsage = 1 // also: another pgpool is running
	exitFatal = 3 // something without which it cannot go on
)

func pgpoolTool() *tool {
	return &tool{
		name: "pgpool",
		options: []option{
			{long: "hba-file", short: 'a', value: true},
			{long: "debug", short: 'd'},
			{long: "config-file", short: 'f', value: true},
			{long: "key-file", short: 'k', value: true},
			{long: "pcp-file", short: 'F', value: true},
			{long: "help", short: 'h'},
			{long: "mode", short: 'm', value: true},
			{long: "dont-detach", short: 'n'},
			{long: "discard-status", short: 'D'},
			{long: "clear-oidmaps", short: 'C'},
			{long: "debug-assertions", short: 'x'},
			{long: "version", short: 'v'},
			{long: "live", longOnly: true},
			{long: "json", longOnly: true},
		},
		words: pgpoolWords,
		seen:  seePgpoolOption,
		refused: func(t *call, err error) int {
			t.errorf("%v", err)
			pgpoolHelp(t.stderr)
			return exitUsage
		},
		run: runPgpool,
	}
}

// seePgpoolOption: help and version end the program where they stand; only
// the first letter of a mode counts.
func seePgpoolOption(t *call, o option, value string) error {
	switch o.long {
	case "help":
		pgpoolHelp(t.stderr)
		return exit(0)
	case "version":
		t.errorf("pgpool-II version %s", pgpool.Version)
		fmt.Fprintf(t.out, "pgpool-go %s\n", ownVersion())
		return exit(0)
	case "mode":
		if value == "" || !strings.Contains("sfi", value[:1]) {
			pgpoolHelp(t.stderr)
			return exit(exitUsage)
		}
	}
	return nil
}

// ownVersion is what a release was linked with, or else what Go knows.
func ownVersion() string {
	if version != "devel" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}

func runPgpool(t *call) int {
	var command string
	switch operands := t.operands(); {
	case len(operands) == 0:
		command = "start"
	case len(operands) == 1 && slices.Contains([]string{"stop", "reload", "check"}, operands[0]):
		command = operands[0]
	default:
		pgpoolHelp(t.stderr)
		return exitUsage
	}
	if command != "check" && (t.given("live") || t.given("json")) {
		pgpoolHelp(t.stderr)
		return exitUsage
	}
	paths := conf.Paths{
		Conf: t.string("config-file"), Hba: t.string("hba-file"),
		Pcp: t.string("pcp-file"), Key: t.string("key-file"),
	}
	if command == "check" {
		return check(t, paths)
	}
	c, notices, err := conf.Load(paths)
	for _, n := range notices {
		// What is odd about single settings is for the server's log, which gets it at
		// the start; a stop or reload is silent about it.
		if n.Level >= conf.LevelWarning && n.Line == 0 && (command != "start" || err != nil) {
			t.report(n.Level.String(), n.Text, n.Detail, n.Hint)
		}
	}
	if err != nil {
		return t.fatal(exitFatal, err)
	}
	switch command {
	case "stop":
		return stop(t, c.PidFile(), stopSignal(t.string("mode")))
	case "reload":
		return reload(t, c.PidFile())
	}
	return start(t, c)
}

// report writes in the form of the server's log, with its default prefix.
func (t *call) report(level, text, detail, hint string) {
	prefix := fmt.Sprintf("%s: main pid %d: ", time.Now().Format("2006-01-02 15:04:05.000"), os.Getpid())
	all := prefix + level + ":  " + text + "\n"
	if detail != "" {
		all += prefix + "DETAIL:  " + detail + "\n"
	}
	if hint != "" {
		all += prefix + "HINT:  " + hint + "\n"
	}
	io.WriteString(t.stderr, all)
}

// fatal reports err, in its own words if it is one of the configuration's, and
// returns the exit code.
func (t *call) fatal(code int, err error) int {
	if bad, ok := errors.AsType[*conf.Error](err); ok {
		t.report("FATAL", bad.Text, bad.Detail, bad.Hint)
	} else {
		t.report("FATAL", err.Error(), "", "")
	}
	return code
}

// stopSignal is how a mode is told to the server.
func stopSignal(mode string) syscall.Signal {
	switch {
	case strings.HasPrefix(mode, "f"):
		return syscall.SIGINT
	case strings.HasPrefix(mode, "i"):
		return syscall.SIGQUIT
	}
	return syscall.SIGTERM
}

const (
	dotEvery    = time.Second
	resendEvery = 5 * time.Second
	lookEvery   = 50 * time.Millisecond
)

// stop ends the server and waits for that, for as long as it takes: in smart
// mode its clients decide. It prints a dot each second.
func stop(t *call, pidFile string, sig syscall.Signal) int {
	pid, err := readPid(pidFile)
	if err != nil {
		return t.noPid(exitFatal, pidFile, err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.report("FATAL", fmt.Sprintf("could not stop process with pid: %d", pid), reason(err), "")
		return exitFatal
	}
	t.report("LOG", fmt.Sprintf("stop request sent to pgpool (pid: %d). waiting for termination...", pid), "", "")
	for sent := time.Now(); ; {
		io.WriteString(t.stderr, ".")
		for next := time.Now().Add(dotEvery); time.Now().Before(next); time.Sleep(lookEvery) {
			if !running(pid) {
				t.errorf("done.")
				os.Remove(pidFile) // of one that could not do so itself
				return 0
			}
		}
		if time.Since(sent) >= resendEvery {
			sent = time.Now()
			syscall.Kill(pid, sig)
		}
	}
}

// reload has the server read its configuration again, without waiting for it.
func reload(t *call, pidFile string) int {
	pid, err := readPid(pidFile)
	if err != nil {
		return t.noPid(exitUsage, pidFile, err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.report("FATAL", fmt.Sprintf("could not reload configuration file pid: %d", pid), reason(err), "")
		return exitUsage
	}
	return 0
}

// noPid reports why there is no pid; missing is the exit code when there is no file.
func (t *call) noPid(missing int, pidFile string, err error) int {
	if errors.Is(err, errEmptyPidFile) {
		t.report("FATAL", fmt.Sprintf("EOF detected while reading pid file \"%s\"", pidFile), "Success", "")
		return exitFatal
	}
	detail := ""
	if !errors.Is(err, os.ErrNotExist) {
		detail = reason(err)
	}
	t.report("FATAL", "could not read pid file", detail, "")
	return missing
}

func pgpoolHelp(w io.Writer) {
	fmt.Fprintf(w, `pgpool-II version %s,
  A generic connection pool/replication/load balance server for PostgreSQL

Usage:
  pgpool [ -c] [ -f CONFIG_FILE ] [ -F PCP_CONFIG_FILE ] [ -a HBA_CONFIG_FILE ]
         [ -n ] [ -D ] [ -d ]
  pgpool [ -f CONFIG_FILE ] [ -F PCP_CONFIG_FILE ] [ -a HBA_CONFIG_FILE ]
         [ -m SHUTDOWN-MODE ] stop
  pgpool [ -f CONFIG_FILE ] [ -F PCP_CONFIG_FILE ] [ -a HBA_CONFIG_FILE ] reload
  pgpool [ -f CONFIG_FILE ] [ -F PCP_CONFIG_FILE ] [ -a HBA_CONFIG_FILE ]
         [ --live ] [ --json ] check

Common options:
  -a, --hba-file=HBA_CONFIG_FILE
                      Set the path to the pool_hba.conf configuration file
                      (default: /etc/pgpool2/pool_hba.conf)
  -f, --config-file=CONFIG_FILE
                      Set the path to the pgpool.conf configuration file
                      (default: /etc/pgpool2/pgpool.conf)
  -k, --key-file=KEY_FILE
                      Set the path to the pgpool key file
                      (default: %s)
                      can be over ridden by PGPOOLKEYFILE environment variable
  -F, --pcp-file=PCP_CONFIG_FILE
                      Set the path to the pcp.conf configuration file
                      (default: /etc/pgpool2/pcp.conf)
  -h, --help          Print this help

Start options:
  -C, --clear-oidmaps Clear query cache oidmaps when memqcache_method is memcached
                      (If shmem, discards whenever pgpool starts.)
  -n, --dont-detach   Don't run in daemon mode, does not detach control tty
  -x, --debug-assertions   Turns on various assertion checks, This is a debugging aid
  -D, --discard-status Discard pgpool_status file and do not restore previous status
  -d, --debug         Debug mode

Stop options:
  -m, --mode=SHUTDOWN-MODE
                      Can be "smart", "fast", or "immediate"

Check options:
  --live              Also ask the servers and look at the files of this host
  --json              Print what is found as JSON

Shutdown modes are:
  smart       quit after all clients have disconnected
  fast        quit directly, with proper shutdown
  immediate   the same mode as fast
`, pgpool.Version, defaultKeyFile())
}
