package pcp

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// ErrClosed is what a Client's methods return when the server ends the
// connection instead of answering, or the connection breaks.
var ErrClosed = errors.New("unable to read data from socket")

// ErrInvalidResponse wraps what is wrong with a reply that cannot be understood.
var ErrInvalidResponse = errors.New("command failed. invalid response")

// PacketTypeError is a reply of a type no server sends.
type PacketTypeError byte

func (e PacketTypeError) Error() string {
	return fmt.Sprintf("invalid PCP packet type =%q", string(rune(e)))
}

// Client asks a server, ours or the original of any version: rows are
// understood with the fields of 4.3 and of later ones. One command at a time;
// after an *Error of severity ERROR the next may follow.
type Client struct {
	// Trace, if set, is told of each message but the two that log in; Notice, of
	// what the server has to say beside its answers.
	Trace  func(sent bool, letter byte, length int)
	Notice func(*Error)

	conn net.Conn
	r    *bufio.Reader
}

// Dial connects to a server; logging in is a step of its own. Network and
// address are those of package net.
func Dial(ctx context.Context, network, address string) (*Client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return NewClient(nc), nil
}

// NewClient speaks over a connection that is already there.
func NewClient(nc net.Conn) *Client { return &Client{conn: nc, r: bufio.NewReader(nc)} }

// SetDeadline bounds all that follows. A recovery can take hours, so there is
// none to begin with.
func (c *Client) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// Close says goodbye, which spares the server a log line, and closes.
func (c *Client) Close() error {
	c.send('X', nil)
	return c.conn.Close()
}

func (c *Client) send(letter byte, b body) error {
	if c.Trace != nil && letter != 'M' && letter != 'R' {
		c.Trace(true, letter, headerLen+len(b))
	}
	if _, err := c.conn.Write(appendMessage(nil, letter, b)); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return nil
}

// receive returns the next message of a reply.
func (c *Client) receive(want byte) (values, error) {
	for {
		letter, b, err := readMessage(c.r, maxReply)
		if _, ok := errors.AsType[lengthError](err); ok {
			return values{}, fmt.Errorf("%w: %w", ErrInvalidResponse, err)
		} else if err != nil {
			return values{}, fmt.Errorf("%w: %w", ErrClosed, err)
		}
		if c.Trace != nil {
			c.Trace(false, letter, headerLen+len(b))
		}
		switch letter {
		case want:
			return values{rest: b}, nil
		case 'N':
			if c.Notice != nil {
				c.Notice(parseError(b))
			}
		case 'E':
			return values{}, parseError(b)
		default:
			return values{}, PacketTypeError(letter)
		}
	}
}

// Login proves knowledge of the password. After an error the connection is of no
// more use.
func (c *Client) Login(user, password string) error {
	if len(user) > maxName {
		return errors.New("PCP authorization failed. username too long.")
	}
	if err := c.send('M', nil); err != nil {
		return err
	}
	salt, err := c.receive('m')
	if err != nil {
		return err
	}
	if len(salt.rest) != saltLen {
		return fmt.Errorf("%w: salt of %d bytes", ErrInvalidResponse, len(salt.rest))
	}
	proof := digest(HashPassword(password), user, salt.rest)
	if err := c.send('R', body{}.text(user).text(proof)); err != nil {
		return err
	}
	reply, err := c.receive('r')
	if err != nil {
		return err
	}
	if reply.text() != "AuthenticationOK" {
		return fmt.Errorf("%w: login neither granted nor refused", ErrInvalidResponse)
	}
	return nil
}

// ask sends a request and returns the values of a reply of one message.
func (c *Client) ask(letter, reply byte, b body) (values, error) {
	if err := c.send(letter, b); err != nil {
		return values{}, err
	}
	v, err := c.receive(reply)
	if err != nil {
		return values{}, err
	}
	if mark := v.text(); mark != complete {
		return values{}, fmt.Errorf("%w: %q", ErrInvalidResponse, mark)
	}
	return v, nil
}

// list sends a request and hands each row of the reply to row.
func (c *Client) list(letter, reply byte, b body, mark string, row func(*values) error) error {
	if err := c.send(letter, b); err != nil {
		return err
	}
	announced := int64(-1)
	for rows := int64(0); ; {
		v, err := c.receive(reply)
		if err != nil {
			return err
		}
		switch got := v.text(); {
		case got == complete && announced >= 0:
			if rows != announced {
				return fmt.Errorf("%w: %d rows announced, %d sent", ErrInvalidResponse, announced, rows)
			}
			return nil
		case got == arraySize && announced < 0 && reply == 'b' && len(v.rest) == 4:
			announced = int64(binary.BigEndian.Uint32(v.rest))
		case got == arraySize && announced < 0 && reply != 'b':
			if announced = v.int(); v.err != nil {
				return fmt.Errorf("%w: %w", ErrInvalidResponse, v.err)
			}
		case got == mark && rows < announced:
			rows++
			if err := row(&v); err != nil {
				return fmt.Errorf("%w: %w", ErrInvalidResponse, err)
			}
		default:
			return fmt.Errorf("%w: %q", ErrInvalidResponse, got)
		}
	}
}

func number(n int) body { return body{}.int(int64(n)) }

// NodeCount asks for the number of nodes.
func (c *Client) NodeCount() (int, error) {
	v, err := c.ask('L', 'l', nil)
	if err != nil {
		return 0, err
	}
	n := int(v.int())
	return n, invalid(v.err)
}

func invalid(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidResponse, err)
	}
	return nil
}

// Nodes describes one node, or with All each slot.
func (c *Client) Nodes(id int) ([]Node, error) {
	var nodes []Node
	err := c.list('I', 'i', number(id), "NodeInfo", func(v *values) error {
		n := Node{ID: max(id, 0) + len(nodes)}
		err := n.parse(v)
		nodes = append(nodes, n)
		return err
	})
	return nodes, err
}

// HealthStats asks for the health check statistics of a node.
func (c *Client) HealthStats(id int) (HealthStats, error) {
	var h HealthStats
	v, err := c.ask('H', 'h', number(id))
	if err == nil {
		err = invalid(h.parse(&v))
	}
	return h, err
}

// ProcessIDs asks for the pids of the children, or numbers of the slots.
func (c *Client) ProcessIDs() ([]int, error) {
	v, err := c.ask('N', 'n', nil)
	if err != nil {
		return nil, err
	}
	var pids []int
	for range v.int() {
		if v.err != nil {
			break
		}
		pids = append(pids, int(v.int()))
	}
	return pids, invalid(v.err)
}

// Processes describes the pooled connections of one pid, or with 0 of all.
func (c *Client) Processes(pid int) ([]Process, error) {
	var rows []Process
	err := c.list('P', 'p', number(pid), "ProcessInfo", func(v *values) error {
		var p Process
		err := p.parse(v)
		rows = append(rows, p)
		return err
	})
	return rows, err
}

// Settings lists the configuration.
func (c *Client) Settings() ([]Setting, error) {
	var rows []Setting
	err := c.list('B', 'b', nil, "ProcessConfig", func(v *values) error {
		var s Setting
		err := s.parse(v)
		rows = append(rows, s)
		return err
	})
	return rows, err
}

// Watchdog describes the member with this id, or with All each one.
func (c *Client) Watchdog(id int) (Watchdog, error) {
	var w Watchdog
	v, err := c.ask('W', 'w', number(id))
	if err == nil {
		err = invalid(w.parse(&v))
	}
	return w, err
}

func (c *Client) do(letter, reply byte, b body) error {
	_, err := c.ask(letter, reply, b)
	return err
}

// AttachNode takes a node into use.
func (c *Client) AttachNode(id int) error { return c.do('C', 'c', number(id)) }

// DetachNode takes a node out of use; gracefully waits for the sessions first.
func (c *Client) DetachNode(id int, gracefully bool) error {
	if gracefully {
		return c.do('d', 'd', number(id))
	}
	return c.do('D', 'd', number(id))
}

// PromoteNode makes a node the primary, see Admin.
func (c *Client) PromoteNode(id int, gracefully, switchover bool) error {
	letter, option := byte('J'), byte('n')
	if gracefully {
		letter = 'j'
	}
	if switchover {
		option = 's'
	}
	return c.do(letter, 'd', append(body{}.text(strconv.Itoa(id)+" "), option))
}

// RecoverNode runs online recovery.
func (c *Client) RecoverNode(id int) error { return c.do('O', 'c', number(id)) }

// Stop ends pgpool, or all members of the watchdog cluster.
func (c *Client) Stop(mode StopMode, scope Scope) error {
	if scope == Cluster {
		return c.do('t', 't', body{byte(mode)})
	}
	return c.do('T', 't', body{byte(mode)})
}

// Reload has the configuration read again.
func (c *Client) Reload(scope Scope) error { return c.do('Z', 'z', body{byte(scope)}) }

// RotateLog begins a new log file.
func (c *Client) RotateLog(scope Scope) error { return c.do('V', 'v', body{byte(scope)}) }

// InvalidateQueryCache empties the query cache.
func (c *Client) InvalidateQueryCache() error { return c.do('G', 'g', nil) }
