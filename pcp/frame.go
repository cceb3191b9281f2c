package pcp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	headerLen  = 4   // what the length field counts of itself
	maxRequest = 259 // largest length field of a request, as in the original
	// maxReply bounds what a client allocates for one message; the largest
	// listings are rows of a few hundred bytes, each a message of its own.
	maxReply = 16 << 20
)

// lengthError is a length field no message can have. The stream cannot be
// followed any further.
type lengthError int32

func (e lengthError) Error() string {
	return fmt.Sprintf("incorrect packet length (%d)", int32(e))
}

// readMessage reads one message; body is newly allocated. A limit is what the
// length field may say at most.
func readMessage(r *bufio.Reader, limit int) (letter byte, body []byte, err error) {
	var head [1 + headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := int32(binary.BigEndian.Uint32(head[1:]))
	if length < headerLen || int(length) > limit {
		return 0, nil, lengthError(length)
	}
	body = make([]byte, length-headerLen)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return head[0], body, nil
}

// appendMessage adds one message to dst.
func appendMessage(dst []byte, letter byte, body []byte) []byte {
	dst = append(dst, letter)
	dst = binary.BigEndian.AppendUint32(dst, uint32(headerLen+len(body)))
	return append(dst, body...)
}

// body builds the values of one message: text, each ended by a NUL.
type body []byte

func (b body) text(s string) body {
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	return append(append(b, s...), 0)
}

func (b body) int(n int64) body { return append(strconv.AppendInt(b, n, 10), 0) }

func (b body) float(f float64) body { return append(strconv.AppendFloat(b, f, 'f', 6, 64), 0) }

func (b body) bool(v bool) body {
	if v {
		return b.text("1")
	}
	return b.text("0")
}

// values takes the texts of one message apart again. The last one's NUL may be
// missing. After the first value that is absent or not what was asked for, err
// is set and all further ones are zero.
type values struct {
	rest []byte
	err  error
}

func (v *values) text() string {
	if v.err != nil {
		return ""
	}
	if len(v.rest) == 0 {
		v.err = errors.New("too few fields")
		return ""
	}
	text, rest, _ := bytes.Cut(v.rest, []byte{0})
	v.rest = rest
	return string(text)
}

func (v *values) int() int64 {
	s := v.text()
	if v.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		v.err = fmt.Errorf("not a number: %q", s)
	}
	return n
}

func (v *values) float() float64 {
	s := v.text()
	if v.err != nil {
		return 0
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		v.err = fmt.Errorf("not a number: %q", s)
	}
	return f
}

// count is how many values are left.
func (v *values) count() int {
	n := bytes.Count(v.rest, []byte{0})
	if len(v.rest) > 0 && v.rest[len(v.rest)-1] != 0 {
		n++
	}
	return n
}
