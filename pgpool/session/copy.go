package session

import (
	"errors"
	"io"
	"slices"

	"pgpool-go/pgpool/wire"
)

var copyData = letters(wire.CopyData)

// copyIn takes the client's data to a server that has asked for it, until the
// client ends it or the server has had enough. The server's last word on the
// matter is left for relay.
func (s *Session) copyIn(c *server, x *expectation) error {
	// A Sync that was sent along is passed over by a server in this state; the
	// client knows, and sends another when the copy is over.
	if x.kind == wire.Execute && s.due.head+1 < len(s.due.list) && s.due.list[s.due.head+1].kind == wire.Sync {
		s.due.list = append(s.due.list[:s.due.head+1], s.due.list[s.due.head+2:]...)
		s.pipe.syncLost = true
	} else if s.pipe.syncing { // the client has sent it, we have not
		s.pipe.syncLost = true
	}
	if s.due.head+1 < len(s.due.list) { // sent along as well, and out of place
		s.spoiled(c)
		return nil
	}
	if err := s.client.Flush(); err != nil {
		return err
	}
	over := false // the server has something to say that ends the copy
	data := 0     // messages of data
	news := func() error {
		var err error
		over, err = s.copyNews(c)
		return err
	}
	c.Relieve(news) // lest it blocks on notices to us while we block on data to it
	defer c.Relieve(nil)
	for {
		if s.client.Owed() == 0 {
			if over {
				s.messageData(data)
				return nil // what the client still sends of the data is passed over by dispatch
			}
			if done, err := s.copyControl(c, data); done || err != nil {
				return err
			}
		}
		frames, err := s.client.ForwardRun(c.Conn.Conn, copyData)
		if data += frames; err != nil {
			return err
		}
		if s.client.Owed() > 0 && s.client.Buffered() > 0 {
			if err := s.client.ForwardOwed(c.Conn.Conn); err != nil {
				return err
			}
			continue
		}
		if _, _, ok, _ := s.client.Peek(); ok && s.client.Owed() == 0 {
			continue
		}
		if got, err := s.client.TryFill(); err != nil {
			return err
		} else if got {
			continue
		}
		if err := c.Flush(); err != nil {
			return err
		}
		if err := s.task.Wait(s.client, c.Conn.Conn); err != nil {
			return err
		}
		if err := news(); err != nil {
			return err
		}
	}
}

// copyControl passes on the client's message that is no data, if one is next.
// It reports whether the client has ended the copy. So far there have been data
// messages of data.
func (s *Session) copyControl(c *server, data int) (bool, error) {
	typ, size, ok, err := s.client.Peek()
	if !ok || err != nil || typ == wire.CopyData {
		return false, err
	}
	switch typ {
	case wire.Flush, wire.Sync: // passed over by the server as well
		return false, s.client.Discard(size)
	case wire.Terminate:
		c.Taint()
		return false, errGoodbye
	case wire.CopyDone:
		s.messageData(data)
		s.message("CopyDone", "")
	case wire.CopyFail:
		s.messageData(data)
		s.message("CopyFail", "")
	default:
		// The server says what it thinks of such a message, which for most is the end
		// of the connection. The frame stays where it is: whoever led here may be
		// looking at it.
		s.messageData(data)
		c.Write([]byte{typ, 0, 0, 0, 4})
		if s.due.first().kind == wire.Execute {
			c.SendRaw(wire.Sync, nil)
		}
		s.spoiled(c)
		return true, c.Flush()
	}
	if err := s.client.Forward(c.Conn.Conn, size); err != nil {
		return false, err
	}
	if s.due.first().kind == wire.Execute { // whose completion a server keeps until it is asked for it
		if err := c.SendRaw(wire.Flush, nil); err != nil {
			return false, err
		}
	}
	return true, c.Flush()
}

// spoiled has relay wait for the end that a server makes of a copy, and from
// version 14 on of the connection, because of a message out of place.
func (s *Session) spoiled(c *server) {
	c.Taint()
	if s.due.first().kind == wire.Execute && !slices.ContainsFunc(s.due.list[s.due.head:], func(x expectation) bool { return x.kind == wire.Sync }) {
		s.due.push(c, expectation{kind: wire.Sync, skip: true})
	}
}

// copyNews passes on what a server says while it is being sent data. It reports
// whether that ends the copy.
func (s *Session) copyNews(c *server) (over bool, err error) {
	for {
		typ, size, ok, err := c.Peek()
		if err != nil {
			return false, err
		}
		if !ok || size > c.Buffered() {
			if got, err := c.TryFillTo(size); err != nil || !got {
				return false, err
			}
			continue
		}
		switch typ {
		case wire.NoticeResponse, wire.ParameterStatus, wire.Notification:
			if err := s.answer(c, s.due.first(), typ, c.Bytes()[:size]); err != nil {
				return false, err
			}
			if err := s.client.Flush(); err != nil {
				return false, err
			}
		default:
			return true, nil
		}
	}
}

// tunnel joins a replication client and its server, who speak both at once,
// until either is done. Nothing is looked at.
func (s *Session) tunnel(c *server) error {
	c.Taint() // never to be lent to anybody else
	for {
		if err := s.client.Flush(); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
		if err := s.task.Wait(s.client, c.Conn.Conn); err != nil {
			return err
		}
		if err := pass(s.client, c.Conn.Conn); err != nil {
			return goodbye(err, c.Conn.Conn)
		}
		if err := pass(c.Conn.Conn, s.client); err != nil {
			return goodbye(err, s.client)
		}
	}
}

func pass(from, to *wire.Conn) error {
	_, err := from.TryFill()
	if n := from.Buffered(); n > 0 {
		b := from.Bytes()
		from.Skip(n)
		if _, werr := to.Write(b); werr != nil {
			return errors.Join(werr, err)
		}
	}
	return err
}

// goodbye is how a tunnel ends: either side may simply close, and the other gets
// what it had said by then. A server closes when its client has said Terminate, so
// its end is no news about its node.
func goodbye(err error, other *wire.Conn) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	if err := other.Flush(); err != nil {
		return err
	}
	return errGoodbye
}
