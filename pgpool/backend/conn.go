package backend

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/wire"
)

// Target is where a node listens.
type Target struct {
	Node    int
	Host    string // name, address, or directory of a Unix socket
	Port    int
	Timeout time.Duration // for connecting; zero waits for the kernel's own limit
	TLS     *TLS          // nil: in the clear

	insist bool // on TLS, whatever it says about when
}

func (t Target) address() (network, addr string) {
	if strings.HasPrefix(t.Host, "/") {
		return "unix", t.Host + "/.s.PGSQL." + strconv.Itoa(t.Port)
	}
	return "tcp", net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
}

// Error is a failure of the path to a node, not an answer of its server.
type Error struct {
	Node int
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("node %d: %v", e.Node, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Refusal is an ErrorResponse with which a server ended a login or failed a
// question of our own.
type Refusal struct {
	Node int
	Said *wire.Error
}

func (r *Refusal) Error() string { return r.Said.Error() }
func (r *Refusal) Unwrap() error { return r.Said }

// SQLState tells those who only ask for that what the server said.
func (r *Refusal) SQLState() string { return r.Said.Code }

// Conn is a session on a server. It belongs to one task at a time.
type Conn struct {
	*wire.Conn
	Node   int
	PID    uint32 // of the server's process
	Method auth.Method
	Status byte // transaction status of the last ReadyForQuery: I, T or E

	// Overheard, if not nil, is given the notifications and reported settings that
	// come among the answers to an Asker; their body is valid during the call.
	Overheard func(typ byte, body []byte)

	// State is a digest of the settings after login on which results may depend and
	// which servers do not report; empty, nobody has asked yet. Asked is when.
	State string
	Asked time.Time

	// Defaults are settings as they are after login; nil, nobody has asked yet.
	Defaults *Defaults

	target   Target
	secret   []byte
	params   []wire.Param // parameter statuses, in the order first reported
	report   []byte       // them as messages, see Report; nil, to be made
	told     uint64       // of them in all
	reported uint64       // sum of them
	key      Key
	born     time.Time
	idle     time.Time // since when in a pool
	uses     int       // sessions served
	clean    uint64    // what had been sent when it was last reset
	tainted  bool
	gone     atomic.Bool

	// Kept is what those who use a connection of a Share know of it. It travels
	// with the connection.
	Kept  any
	share *Share // nil: it is nobody's but its user's
	era   uint   // of the share, when it was opened
	user  *wire.Task
}

// Defaults are the settings with which sessions begin on a connection, whatever
// the session before has made of them.
type Defaults struct{ Isolation, SearchPath string }

// answerLimit bounds a control message of a server: error texts may be long,
// but not without end.
const answerLimit = 64 << 20

// Dial connects to a server without logging in. It blocks.
func Dial(ctx context.Context, e *wire.Engine, target Target) (*Conn, error) {
	network, addr := target.address()
	d := net.Dialer{Timeout: target.Timeout}
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &Error{target.Node, err}
	}
	w, err := e.Adopt(nc)
	if err != nil {
		return nil, &Error{target.Node, err}
	}
	node := target.Node
	w.Mark(func(err error) error { return &Error{node, err} })
	return &Conn{Conn: w, Node: node, target: target, born: time.Now()}, nil
}

// Target is where the connection was dialled.
func (c *Conn) Target() Target { return c.target }

// Login names a session to be begun.
type Login struct {
	User, Database string
	Params         []wire.Param // further settings of the startup packet
}

// Start begins TLS where that is wanted, sends the startup packet and returns what proof the server asks for.
func (c *Conn) Start(l Login) (auth.Method, error) {
	if err := c.secure(); err != nil {
		return auth.Method{}, err
	}
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	for _, p := range append([]wire.Param{{Name: "user", Value: l.User}, {Name: "database", Value: l.Database}}, l.Params...) {
		body = append(append(body, p.Name...), 0)
		body = append(append(body, p.Value...), 0)
	}
	body = append(body, 0)
	packet := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
	c.Write(packet)
	c.Write(body)
	if err := c.Flush(); err != nil {
		return auth.Method{}, err
	}
	m, err := auth.ReadMethod(c)
	c.Method = m
	return m, err
}

// Finish proves who the session is and waits until the server is ready.
func (c *Conn) Finish(user string, cred auth.Credential) error {
	if err := auth.Answer(c, c.Method, user, cred); err != nil {
		return err
	}
	return c.ready()
}

// Pass is Finish with what the client itself answers to the server.
func (c *Conn) Pass(client auth.Frontend) error {
	if err := auth.Pass(client, c, c.Method); err != nil {
		return err
	}
	return c.ready()
}

// ready hears a server that has let us in until it takes statements.
func (c *Conn) ready() error {
	for {
		typ, body, err := c.Next(answerLimit)
		if err != nil {
			return err
		}
		switch typ {
		case wire.BackendKeyData:
			if len(body) >= 8 {
				c.PID = binary.BigEndian.Uint32(body)
				c.secret = bytes.Clone(body[4:])
			}
		case wire.ParameterStatus:
			c.NoteParam(body)
		case wire.ErrorResponse:
			return c.refused(body)
		case wire.ReadyForQuery:
			if len(body) == 1 {
				c.Status = body[0]
			}
			return nil
		case wire.NoticeResponse, wire.NegotiateVersion:
		default:
			return &Error{c.Node, fmt.Errorf("message %q out of place during login", typ)}
		}
	}
}

func (c *Conn) refused(body []byte) *Refusal {
	return &Refusal{Node: c.Node, Said: wire.ParseError(body)}
}

// ReceiveAuth implements auth.Backend.
func (c *Conn) ReceiveAuth() ([]byte, error) {
	for {
		typ, body, err := c.Next(answerLimit)
		if err != nil {
			return nil, err
		}
		switch typ {
		case wire.Authentication:
			return body, nil
		case wire.ErrorResponse:
			return nil, c.refused(body)
		case wire.NoticeResponse, wire.NegotiateVersion:
		default:
			return nil, &Error{c.Node, fmt.Errorf("message %q out of place during login", typ)}
		}
	}
}

// SendPassword implements auth.Backend.
func (c *Conn) SendPassword(body []byte) error {
	if err := c.SendRaw(wire.Password, body); err != nil {
		return err
	}
	return c.Flush()
}

// Params are the server's reported settings. The slice must not be changed.
func (c *Conn) Params() []wire.Param { return c.params }

// Told counts the reports: while it stays, so do they.
func (c *Conn) Told() uint64 { return c.told }

// Param is one of them.
func (c *Conn) Param(name string) string {
	for _, p := range c.params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Report is the reported settings as messages to a client that logs in, made once
// for all sessions of the connection. It must not be changed.
func (c *Conn) Report() []byte {
	if c.report == nil {
		for _, p := range c.params {
			c.report = wire.AppendFrame(c.report, wire.ParameterStatus, len(p.Name)+len(p.Value)+2)
			c.report = append(append(c.report, p.Name...), 0)
			c.report = append(append(c.report, p.Value...), 0)
		}
	}
	return c.report
}

// NoteParam remembers a ParameterStatus, given its body.
func (c *Conn) NoteParam(body []byte) {
	name, rest, ok := wire.CString(body)
	if !ok {
		return
	}
	value, _, ok := wire.CString(rest)
	if !ok {
		return
	}
	c.told++
	for i := range c.params {
		if c.params[i].Name == string(name) {
			if c.params[i].Value != string(value) {
				c.reported += sum(name, value) - sum(name, []byte(c.params[i].Value))
				c.params[i].Value, c.report = string(value), nil
			}
			return
		}
	}
	c.report = nil
	c.reported += sum(name, value)
	c.params = append(c.params, wire.Param{Name: string(name), Value: string(value)})
}

// Reported is the same for connections that report the same settings.
func (c *Conn) Reported() uint64 { return c.reported }

var seed = maphash.MakeSeed()

func sum(name, value []byte) uint64 {
	return maphash.Bytes(seed, name)*31 + maphash.Bytes(seed, value)
}

// Taint says that the state of the connection is in doubt: it will be closed,
// never lent again.
func (c *Conn) Taint()        { c.tainted = true }
func (c *Conn) Tainted() bool { return c.tainted }

// Born is when the connection was dialled, Uses how many sessions it served
// before this one.
func (c *Conn) Born() time.Time { return c.born }
func (c *Conn) Uses() int       { return c.uses }

// Reset runs statements that return the session to how it was after login. Any
// error, and anything left open, is an error: the connection is not clean.
func (c *Conn) Reset(statements []string) error {
	if c.tainted || c.Owed() > 0 || c.Unsent() > 0 {
		return &Error{c.Node, errors.New("in doubt")}
	}
	if c.clean == c.Sent() {
		return nil // lent, but never spoken to: a session that only read elsewhere
	}
	sent := 0
	for _, q := range statements {
		if c.Status == 'I' && strings.EqualFold(q, "ABORT") {
			continue // outside a transaction it would only cause a warning
		}
		if err := c.SendRaw(wire.Query, append([]byte(q), 0)); err != nil {
			return err
		}
		sent++
	}
	if err := c.Flush(); err != nil {
		return err
	}
	for sent > 0 {
		typ, body, err := c.Next(answerLimit)
		if err != nil {
			return err
		}
		switch typ {
		case wire.ReadyForQuery:
			sent--
			c.Status = body[0]
		case wire.ParameterStatus:
			c.NoteParam(body)
		case wire.ErrorResponse:
			return c.refused(body)
		case wire.CopyInResponse, wire.CopyBothResponse:
			return &Error{c.Node, errors.New("a reset statement asks for data")}
		}
	}
	if c.Status != 'I' {
		return &Error{c.Node, errors.New("still in a transaction after the reset statements")}
	}
	c.clean = c.Sent()
	return nil
}

// Cancel asks the server to cancel what the connection is running, and returns
// when the server has taken note. It may be called beside the session that uses
// c, and blocks.
func (c *Conn) Cancel(ctx context.Context) error {
	network, addr := c.target.address()
	d := net.Dialer{Timeout: c.target.Timeout}
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return &Error{c.Node, err}
	}
	defer nc.Close()
	if deadline, ok := ctx.Deadline(); ok {
		nc.SetDeadline(deadline)
	}
	if _, sealed := c.TLS(); sealed {
		if nc, err = c.target.secure(nc); err != nil {
			return &Error{c.Node, err}
		}
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(12+len(c.secret)))
	packet = binary.BigEndian.AppendUint32(packet, 80877102)
	packet = binary.BigEndian.AppendUint32(packet, c.PID)
	packet = append(packet, c.secret...)
	if _, err := nc.Write(packet); err != nil {
		return &Error{c.Node, err}
	}
	// The server closes without a word once it has sent the signal.
	io.Copy(io.Discard, nc)
	return nil
}

// Close closes the connection, and has its place in a Share pass to another.
func (c *Conn) Close() error {
	c.gone.Store(true)
	err := c.Conn.Close()
	if s := c.share; s != nil {
		c.share = nil
		s.Lose()
	}
	return err
}

// Alive tells that neither side has closed the connection. Safe for all goroutines.
func (c *Conn) Alive() bool { return !c.gone.Load() && !c.HungUp() }

// Shared tells whether the connection is one of a Share.
func (c *Conn) Shared() bool { return c.share != nil }

// Hand gives a connection of a Share back to it; see Return.
func (c *Conn) Hand(now time.Time) { c.share.Return(c, now) }

// Bye ends the session politely and closes.
func (c *Conn) Bye() {
	if !c.tainted && c.Unsent() == 0 && c.SendRaw(wire.Terminate, nil) == nil {
		c.SendNow()
	}
	c.Close()
}
