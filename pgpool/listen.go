package pgpool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// Start begins to serve: it returns when clients can connect. A node that is
// down delays nothing; a primary that is up is known. The server works on until
// Shutdown, whatever becomes of ctx.
func (s *Server) Start(ctx context.Context) error {
	c := s.config.Load().Config
	err := s.listen(c)
	if err == nil {
		err = s.listenPcp(c)
	}
	if err != nil {
		s.closeListeners()
		s.closePcp()
		return err
	}
	background, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	s.background, s.stop = background, stop
	s.work.Go(func() { s.owner.Run(background) })
	s.work.Go(func() { s.monitor.Run(background) })
	s.work.Go(func() { s.sweep(background) })
	s.work.Go(func() { s.remind(background) })
	s.work.Go(func() { s.heedPrimary(background) })
	if s.cache != nil {
		s.work.Go(func() { s.minded(background) })
	}
	// A moment for the first probes: the very first client shall find a primary.
	first, cancel := context.WithTimeout(ctx, firstProbes)
	s.owner.Wait(first, func(n *cluster.Snapshot) bool { return n.Primary >= 0 && !n.Assumed || n.Probed() })
	cancel()
	if c.UseWatchdog {
		if err := s.joinGroup(ctx, background); err != nil {
			s.closeListeners()
			s.closePcp()
			stop(err)
			s.work.Wait()
			return err
		}
	}
	s.servePcp(background)
	for _, ln := range s.listeners {
		s.doors.Add(1)
		s.engine.Go(func(t *wire.Task) {
			defer s.doors.Done()
			s.accept(t, ln)
		})
	}
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("pgpool-II successfully started. version %s", Version))
	return nil
}

// firstProbes bounds how long Start waits for the nodes to tell their roles.
const firstProbes = 700 * time.Millisecond

func (s *Server) listen(c *conf.Config) error {
	s.port = c.Port
	// Clients without a slot wait in the kernel's queue when our own is full.
	backlog := min(c.NumInitChildren*c.ListenBacklogMultiplier, 1<<16)
	for _, a := range addresses(c.ListenAddresses) {
		ln, err := listenTCP(a, c.Port, backlog)
		if err != nil {
			return fmt.Errorf("could not listen on %s: %w", net.JoinHostPort(a, strconv.Itoa(c.Port)), err)
		}
		if err := s.adopt(ln); err != nil {
			return err
		}
	}
	for _, dir := range c.UnixSocketDirectories {
		ln, err := listenUnix(dir+"/.s.PGSQL."+strconv.Itoa(c.Port), os.FileMode(c.UnixSocketPermissions), c.UnixSocketGroup)
		if err != nil {
			return fmt.Errorf("could not listen on the Unix socket in %s: %w", dir, err)
		}
		if err := s.adopt(ln); err != nil {
			return err
		}
	}
	return nil
}

// addresses are those to listen on; a star among them stands for all there are.
func addresses(list []string) []string {
	if slices.Contains(list, "*") {
		return []string{""}
	}
	return list
}

func (s *Server) adopt(ln net.Listener) error {
	l, err := s.engine.Listen(ln)
	if err == nil {
		s.listeners = append(s.listeners, l)
	}
	return err
}

func listenTCP(host string, port, backlog int) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	ln, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	if rc, err := ln.(*net.TCPListener).SyscallConn(); err == nil && backlog > 0 {
		rc.Control(func(fd uintptr) { unix.Listen(int(fd), backlog) }) // again, with the length the operator wants
	}
	return ln, nil
}

// listenUnix takes over a socket file that nobody answers on.
func listenUnix(path string, mode os.FileMode, group string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, errors.New("another server answers there")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	err = os.Chmod(path, mode)
	if err == nil && group != "" {
		err = chgrp(path, group)
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func chgrp(path, group string) error {
	gid, err := strconv.Atoi(group)
	if err != nil {
		g, err := user.LookupGroup(group)
		if err != nil {
			return err
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return err
		}
	}
	return os.Chown(path, -1, gid)
}

func (s *Server) accept(t *wire.Task, ln *wire.Listener) {
	c := s.config.Load()
	waiting := c.NumInitChildren * c.ListenBacklogMultiplier
	gone := func() {
		s.gate.leave()
		s.clients.Done()
	}
	for delay := time.Duration(0); ; {
		err := s.shared.Slots.AwaitRoom(t, waiting)
		var client *wire.Conn
		if err == nil {
			client, err = ln.Accept(t)
		}
		if err != nil {
			if s.closing.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			// Most likely out of descriptors: those who are served may leave some.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.LogAttrs(context.Background(), eventlog.Warning, "could not accept a client", slog.Any("err", err))
			t.Block(func() { time.Sleep(delay) })
			continue
		}
		delay = 0
		s.gate.enter(t)
		s.clients.Add(1)
		t.Go(func(t *wire.Task) { s.shared.Serve(t, client, gone) })
	}
}

// remind wakes clients that wait for server connections and are to be told so, or
// have waited long enough.
func (s *Server) remind(ctx context.Context) {
	tick := time.NewTicker(remindPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.pool.Remind(now)
		}
	}
}

// remindPeriod is how exact the times are for which clients wait in a queue.
const remindPeriod = 100 * time.Millisecond

// sweep ends what has been idle for too long.
func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.pool.Sweep(now)
			for _, client := range s.shared.Slots.Sessions() {
				since, idle := client.IdleSince()
				if limit := client.IdleLimit(); limit > 0 && idle && now.Sub(since) >= limit {
					client.Interrupt(&wire.Error{Severity: "FATAL", Code: "57P05",
						Message: "connection terminated due to client idle limit reached",
						Detail:  fmt.Sprintf("idle duration %d seconds", int(limit.Seconds()))})
				}
			}
		}
	}
}

const sweepPeriod = 500 * time.Millisecond

func (s *Server) closeListeners() {
	for _, ln := range s.listeners {
		ln.Close()
	}
}

// Shutdown ends the server. With Smart it waits for the clients to leave, as
// long as ctx allows; then, and with Fast, they are told to.
func (s *Server) Shutdown(ctx context.Context, mode ShutdownMode) error {
	s.closing.Store(true)
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("received %s shutdown request", strings.ToLower(mode.String())))
	s.closeListeners()
	s.shared.Slots.Close()
	s.gate.end()
	s.doors.Wait() // from here on there are no more clients
	s.leaveGroup()
	gone := make(chan struct{})
	go func() { s.clients.Wait(); close(gone) }()
	if mode == Smart {
		select {
		case <-gone:
		case <-ctx.Done():
		case <-s.over: // a faster shutdown has been asked for meanwhile
			return nil
		}
	}
	s.once.Do(func() {
		s.noMoreDials()
		for end := false; !end; {
			// Again and again: a session may have been between two waits.
			s.shared.EndAll(wire.Fatal("57P01", "terminating connection due to administrator command"))
			select {
			case <-gone:
				end = true
			case <-time.After(100 * time.Millisecond):
				end = mode == Immediate
			}
		}
		s.shared.Verifiers.Close()
		s.pool.Drain(-1)
		if s.stop != nil {
			s.stop(errors.New("shutdown"))
		}
		s.work.Wait()
		if mode != Immediate {
			s.engine.Close()
		}
		s.log.LogAttrs(ctx, eventlog.Log, "shutting down")
		close(s.over)
	})
	<-s.over
	return s.journal.Close()
}

// Wait returns when the server has been shut down.
func (s *Server) Wait() error {
	<-s.over
	return nil
}

func (m ShutdownMode) String() string { return [...]string{"Smart", "Fast", "Immediate"}[m] }
