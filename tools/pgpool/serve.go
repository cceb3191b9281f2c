package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
)

// start serves: here with -n, else in a process of its own.
func start(t *call, c *conf.Config) int {
	starter, isDetached := detached()
	if !t.given("dont-detach") && !isDetached {
		if code, ok := claim(t, c.PidFile()); !ok {
			return code
		}
		return detach(t)
	}
	if !isDetached {
		if code, ok := claim(t, c.PidFile()); !ok {
			return code
		}
	}
	setProcessName()
	if err := writePid(c.PidFile()); err != nil {
		return t.fatal(exitFatal, err)
	}
	defer removePid(c.PidFile())

	// The heap of a few hundred clients is so small that the collector would run
	// after each few hundred logins. This, never touched and so never real memory,
	// has it wait for as much garbage.
	ballast := make([]byte, 16<<20)
	defer runtime.KeepAlive(ballast)
	server, err := pgpool.New(pgpool.Options{
		Paths:         c.Paths,
		DiscardStatus: t.given("discard-status"),
		Debug:         t.given("debug"),
		Assertions:    t.given("debug-assertions"),
		ClearOidmaps:  t.given("clear-oidmaps"),
		Foreground:    !isDetached,
		Stderr:        os.Stderr,
	})
	if err != nil {
		return t.fatal(exitFatal, err)
	}
	onServing := func() error { return nil }
	if isDetached {
		onServing = starter.served
	}
	if err := live(server, onServing, newNotifier()); err != nil {
		return t.fatal(exitFatal, err)
	}
	return 0
}

// claim looks whether another pgpool has the pid file.
func claim(t *call, pidFile string) (code int, ok bool) {
	pid, err := readPid(pidFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0, true
	case err == nil && pid != os.Getpid() && running(pid): // in a container we may have our predecessor's pid
		t.errorf("ERROR: pid file found. is another pgpool(%d) is running?", pid)
		return exitUsage, false
	}
	t.errorf("NOTICE: pid file found but it seems bogus. Trying to start pgpool anyway...")
	return 0, true
}

// server is what live needs of a *pgpool.Server.
type server interface {
	Start(context.Context) error
	Reload() error
	Shutdown(context.Context, pgpool.ShutdownMode) error
	Wait() error
}

// live takes a server through its life: it starts it, obeys signals, and
// returns when it has ended.
func live(s server, onServing func() error, systemd notifier) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT,
		// The original uses this one between its processes; from outside it must do no harm.
		syscall.SIGUSR1,
		// A reader of stderr that is gone is no reason to die, nor are scripts to
		// inherit our not caring, which ignoring the signal would lead to.
		syscall.SIGPIPE)
	defer signal.Stop(signals)

	started := make(chan error, 1)
	go func() { started <- s.Start(ctx) }()
	for serving := false; !serving; {
		select {
		case err := <-started:
			if err != nil {
				return err
			}
			serving = true
		case sig := <-signals:
			if _, ending := shutdownMode(sig); ending {
				cancel()
				if err := <-started; err != nil {
					return nil // it was told to end, and has
				}
				return s.Shutdown(context.Background(), pgpool.Immediate) // nobody is there to be considerate of
			}
		}
	}
	if err := errors.Join(onServing(), systemd.ready()); err != nil {
		return errors.Join(err, s.Shutdown(context.Background(), pgpool.Immediate), s.Wait())
	}

	ended := make(chan error, 1)
	go func() { ended <- s.Wait() }()
	for {
		select {
		case err := <-ended:
			return err
		case sig := <-signals:
			mode, ending := shutdownMode(sig)
			switch {
			case ending:
				systemd.stopping()
				// Another, less patient signal may follow, so nobody waits here.
				go s.Shutdown(context.Background(), mode)
			case sig == syscall.SIGHUP:
				systemd.reloading()
				s.Reload() // what is wrong with the files is in the log, and the old settings stay
				systemd.ready()
			}
		}
	}
}

func shutdownMode(sig os.Signal) (mode pgpool.ShutdownMode, ending bool) {
	switch sig {
	case syscall.SIGTERM:
		return pgpool.Smart, true
	case syscall.SIGINT:
		return pgpool.Fast, true
	case syscall.SIGQUIT:
		return pgpool.Immediate, true
	}
	return 0, false
}
