package pcp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	// writeTimeout bounds how long a client may take to read a reply, and
	// lastWords the same once serving has ended.
	writeTimeout = 30 * time.Second
	lastWords    = time.Second
	// lingerTime and lingerBytes bound what is read from a client that has been
	// told off, so that the network does not drop the message for what it had
	// already sent.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
	// acceptPause keeps a lack of file descriptors from becoming a busy loop.
	acceptPause = 50 * time.Millisecond
)

// Serve answers on ln until ctx is done, then closes ln and all connections,
// waits for them and returns nil; it returns an error if ln fails before.
// Options are asked for at each new connection, so they may change under way.
func Serve(ctx context.Context, ln net.Listener, admin Admin, options func() Options) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	defer ln.Close()

	d := door{}
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if temporary(err) {
				select {
				case <-time.After(acceptPause):
				case <-ctx.Done():
				}
				continue
			}
			return fmt.Errorf("pcp: %w", err)
		}
		c := &conn{Conn: nc, r: bufio.NewReader(nc), admin: admin, opt: options().withDefaults()}
		c.log = c.opt.Log.With("peer", nc.RemoteAddr().String())
		conns.Go(func() {
			defer nc.Close()
			if c.opt.Visits {
				c.log.Log(ctx, levelLog, "new PCP connection from "+c.peer())
				defer func() { c.log.Log(ctx, levelLog, "PCP connection from "+c.peer()+" ended", "detail", c.visit()) }()
			}
			if !d.enter(c) {
				c.send(ctx, fatal("sorry, too many PCP connections already", "").append(nil))
				c.linger()
				return
			}
			defer d.leave(c)
			defer context.AfterFunc(ctx, func() {
				nc.SetReadDeadline(time.Unix(1, 0))
				nc.SetWriteDeadline(time.Now().Add(lastWords))
			})()
			c.serve(ctx, &d)
		})
	}
}

// temporary tells a shortage that passes, as of file descriptors, from a
// listener that is gone.
func temporary(err error) bool {
	var short interface{ Temporary() bool }
	return errors.As(err, &short) && short.Temporary()
}

// door counts the connections and knows those that have not logged in yet, the
// longest waiting first. Strangers can take each other's places but never those
// of clients that are logged in.
type door struct {
	mu        sync.Mutex
	inside    int
	strangers []*conn
}

func (d *door) enter(c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside >= c.opt.MaxConnections {
		if len(d.strangers) == 0 {
			return false
		}
		d.strangers[0].Close()
		d.strangers = d.strangers[1:]
	}
	d.inside++
	d.strangers = append(d.strangers, c)
	return true
}

func (d *door) loggedIn(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(c)
}

func (d *door) leave(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	d.forget(c)
}

func (d *door) forget(c *conn) {
	for i, s := range d.strangers {
		if s == c {
			d.strangers = append(d.strangers[:i:i], d.strangers[i+1:]...)
			return
		}
	}
}

// conn is one client.
type conn struct {
	net.Conn
	r     *bufio.Reader
	admin Admin
	opt   Options
	log   *slog.Logger
	salt  []byte // given out and not yet used
	user  string // empty until logged in

	commands int // since the login
}

// errBye ends a connection that has nothing more to say.
var errBye = errors.New("client has said goodbye")

// levelLog is that of PostgreSQL's LOG in the scale of package eventlog: above
// errors, since it is about what the server does.
const levelLog = slog.Level(10)

// peer is where the client is; on a Unix socket it has no address.
func (c *conn) peer() string {
	if addr := c.RemoteAddr().String(); addr != "" && addr != "@" {
		return addr
	}
	return "[local]"
}

// visit says who it was.
func (c *conn) visit() string {
	if c.user == "" {
		return "nobody has logged in"
	}
	return fmt.Sprintf("user %q, %d commands", c.user, c.commands)
}

func (c *conn) serve(ctx context.Context, d *door) {
	c.SetReadDeadline(time.Now().Add(c.opt.LoginTimeout))
	for {
		if c.user != "" {
			c.SetReadDeadline(time.Now().Add(c.opt.IdleTimeout))
		}
		if ctx.Err() != nil {
			return
		}
		letter, b, err := readMessage(c.r, maxRequest)
		if bad, ok := errors.AsType[lengthError](err); ok {
			err = fatal("invalid PCP packet", bad.Error())
		} else if err != nil {
			return // gone, too slow, or we are
		}
		stranger := c.user == ""
		var reply []byte
		var after func()
		if err == nil {
			reply, after, err = c.answer(ctx, letter, b)
		}
		if stranger && c.user != "" {
			d.loggedIn(c)
		}
		if errors.Is(err, errBye) {
			return
		}
		last := false
		if bad, ok := errors.AsType[*Error](err); ok {
			c.log.Log(ctx, slog.LevelError, bad.Message, "user", c.user, "detail", bad.Detail)
			reply = bad.append(nil)
			last = bad.Severity != SeverityError
		}
		if !c.send(ctx, reply) {
			last = true
		}
		if after != nil {
			after()
		}
		if last {
			c.linger()
			return
		}
	}
}

func (c *conn) send(ctx context.Context, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if ctx.Err() != nil { // looked at after the deadline was set, so the end of serving is not missed
		c.SetWriteDeadline(time.Now().Add(lastWords))
	}
	_, err := c.Write(b)
	return err == nil
}

// linger lets the client read to the end: a socket closed with input unread
// would reset the connection and take our last message with it.
func (c *conn) linger() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	c.r.Discard(lingerBytes)
}

// answer returns the reply to one message, or an error of type *Error or errBye.
func (c *conn) answer(ctx context.Context, letter byte, b []byte) (reply []byte, after func(), err error) {
	switch letter {
	case 'M':
		c.salt = c.opt.salt()
		return appendMessage(nil, 'm', c.salt), nil, nil
	case 'R':
		if err := c.login(b); err != nil {
			return nil, nil, err
		}
		return appendMessage(nil, 'r', body{}.text("AuthenticationOK")), nil, nil
	case 'X':
		return nil, nil, errBye
	}
	if c.user == "" {
		return nil, nil, fatal("authentication failed for new PCP connection", "connection not authorized")
	}
	if letter == 'F' { // an old way to end a recovery, which never had a reply
		return nil, nil, nil
	}
	cmd := commands[letter]
	if cmd == nil {
		return nil, nil, fatal("PCP processing request", "unknown PCP packet type "+strconv.Quote(string([]byte{letter})))
	}
	c.commands++
	if cmd.changes {
		c.log.Info("pcp request", "user", c.user, "command", string(cmd.name))
	}
	ctx, cancel := context.WithTimeout(ctx, c.opt.Deadline(cmd.name))
	defer cancel()
	q := &request{command: cmd, admin: c.admin, layout: c.opt.Layout, letter: letter, args: values{rest: b}}
	if err := cmd.run(ctx, q); err != nil {
		return nil, nil, asError(err, cmd)
	}
	return q.out, q.after, nil
}
