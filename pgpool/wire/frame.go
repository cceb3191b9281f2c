package wire

import (
	"encoding/binary"
	"fmt"
)

// The letters of protocol 3.0, as sent by the server.
const (
	Authentication   = 'R'
	BackendKeyData   = 'K'
	BindComplete     = '2'
	CloseComplete    = '3'
	CommandComplete  = 'C'
	CopyInResponse   = 'G'
	CopyOutResponse  = 'H'
	CopyBothResponse = 'W'
	DataRow          = 'D'
	EmptyQuery       = 'I'
	ErrorResponse    = 'E'
	FunctionResult   = 'V'
	NegotiateVersion = 'v'
	NoData           = 'n'
	NoticeResponse   = 'N'
	Notification     = 'A'
	ParameterDesc    = 't'
	ParameterStatus  = 'S'
	ParseComplete    = '1'
	PortalSuspended  = 's'
	ReadyForQuery    = 'Z'
	RowDescription   = 'T'
)

// The letters sent by the client. CopyData, CopyDone and CopyFail ('d', 'c',
// 'f') go both ways.
const (
	Bind         = 'B'
	Close        = 'C'
	CopyData     = 'd'
	CopyDone     = 'c'
	CopyFail     = 'f'
	Describe     = 'D'
	Execute      = 'E'
	Flush        = 'H'
	FunctionCall = 'F'
	Parse        = 'P'
	Password     = 'p'
	Query        = 'Q'
	Sync         = 'S'
	Terminate    = 'X'
)

// headerLen is a letter and a length that counts itself.
const headerLen = 5

// MaxFrame is the largest frame PostgreSQL accepts or sends, in bytes.
const MaxFrame = 1 << 30

// Peek tells the next frame's letter and its whole size in bytes, header
// included, if the header has arrived. A length that cannot be is an error, and
// nothing after it can be trusted.
func (c *Conn) Peek() (typ byte, size int, ok bool, err error) {
	b := c.in[c.r:c.w]
	if len(b) < headerLen {
		return 0, 0, false, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n >= MaxFrame {
		return b[0], 0, false, c.dress(&FrameError{Type: b[0], Length: n})
	}
	return b[0], int(n) + 1, true, nil
}

// FrameError is a frame whose length cannot be.
type FrameError struct {
	Type   byte
	Length uint32 // as sent
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("invalid message length %d in message of type %q", e.Length, e.Type)
}

// Frame waits for the whole next frame and returns its letter and body, without
// consuming it: call Skip(5+len(body)) when done. The body is valid until the
// next read. A frame larger than limit is an error.
func (c *Conn) Frame(limit int) (typ byte, body []byte, err error) {
	for {
		typ, size, ok, err := c.Peek()
		if err != nil {
			return typ, nil, err
		}
		if !ok {
			if err := c.Need(headerLen); err != nil {
				return 0, nil, err
			}
			continue
		}
		if size > limit {
			return typ, nil, c.dress(&FrameError{Type: typ, Length: uint32(size - 1)})
		}
		if err := c.Need(size); err != nil {
			return typ, nil, err
		}
		return typ, c.in[c.r+headerLen : c.r+size], nil
	}
}

// Next is Frame for a frame that is wanted at once: it consumes it.
func (c *Conn) Next(limit int) (typ byte, body []byte, err error) {
	typ, body, err = c.Frame(limit)
	if err == nil {
		c.r += headerLen + len(body)
	}
	return typ, body, err
}

// ForwardRun passes to dst the frames at the head of the buffer whose letters
// are in pass, unopened, the part of a frame that has arrived included: Owed
// tells then how much of it is to come. It returns the number of frames begun.
func (c *Conn) ForwardRun(dst *Conn, pass *[256]bool) (frames int, err error) {
	end := c.r
	for c.owed == 0 && c.w-end >= headerLen && pass[c.in[end]] {
		n := binary.BigEndian.Uint32(c.in[end+1:])
		if n < 4 || n >= MaxFrame {
			err = c.dress(&FrameError{Type: c.in[end], Length: n})
			break
		}
		frames++
		size := int(n) + 1
		if size > c.w-end {
			c.owed = size - (c.w - end)
			end = c.w
			break
		}
		end += size
	}
	if end > c.r {
		piece := c.in[c.r:end]
		c.r = end
		if _, werr := dst.Write(piece); werr != nil {
			return frames, werr
		}
	}
	return frames, err
}

// Owed is what is left of a frame that is being forwarded, in bytes.
func (c *Conn) Owed() int { return c.owed }

// ForwardOwed passes on what has arrived of the frame under way.
func (c *Conn) ForwardOwed(dst *Conn) error {
	n := min(c.owed, c.w-c.r)
	if n == 0 {
		return nil
	}
	piece := c.in[c.r : c.r+n]
	c.r += n
	c.owed -= n
	_, err := dst.Write(piece)
	return err
}

// Forward passes on the next frame, which is size bytes in all, waiting for as
// much of it as has not arrived.
func (c *Conn) Forward(dst *Conn, size int) error {
	c.owed = size
	for {
		if err := c.ForwardOwed(dst); err != nil || c.owed == 0 {
			return err
		}
		if err := c.fill(0); err != nil {
			return err
		}
	}
}

// Discard consumes the next frame, which is size bytes in all.
func (c *Conn) Discard(size int) error {
	for size > 0 {
		n := min(size, c.w-c.r)
		c.r += n
		size -= n
		if size > 0 {
			if err := c.fill(0); err != nil {
				return err
			}
		}
	}
	return nil
}
