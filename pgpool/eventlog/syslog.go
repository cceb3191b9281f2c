package eventlog

import (
	"bytes"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// syslogLimit is the longest message PostgreSQL trusts a syslog daemon with.
const syslogLimit = 900

// syslogPath is where the machine's daemon listens.
var syslogPath = "/dev/log"

// syslogSink speaks to the local syslog daemon. It connects when first used
// and again after the daemon was restarted; without a daemon, messages are
// dropped, as syslog(3) does.
type syslogSink struct {
	mu   sync.Mutex
	conn net.Conn
	seq  uint64
	buf  []byte
}

// send gives one report to the daemon. Each piece is numbered
// "[report-piece]", because lines and long texts travel as separate messages.
func (k *syslogSink) send(priority int, ident string, lines []byte, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seq++
	n := 0
	for piece, rest := nextPiece(lines); piece != nil; piece, rest = nextPiece(rest) {
		n++
		b := append(k.buf[:0], '<')
		b = strconv.AppendInt(b, int64(priority), 10)
		b = append(b, '>')
		b = now.AppendFormat(b, time.Stamp)
		b = append(b, ' ')
		b = append(b, ident...)
		b = append(b, '[')
		b = strconv.AppendInt(b, int64(os.Getpid()), 10)
		b = append(b, "]: ["...)
		b = strconv.AppendUint(b, k.seq, 10)
		b = append(b, '-')
		b = strconv.AppendInt(b, int64(n), 10)
		b = append(b, "] "...)
		b = append(b, piece...)
		k.buf = b
		if !k.put(b) {
			return
		}
	}
}

// nextPiece cuts the next message off: a line, or as much of it as fits,
// ending at a blank or at least not within a character.
func nextPiece(lines []byte) (piece, rest []byte) {
	lines = bytes.TrimLeft(lines, "\n")
	if len(lines) == 0 {
		return nil, nil
	}
	end := bytes.IndexByte(lines, '\n')
	if end < 0 {
		end = len(lines)
	}
	if end <= syslogLimit {
		return lines[:end], lines[end:]
	}
	end = syslogLimit
	for end > syslogLimit-utf8.UTFMax && !utf8.RuneStart(lines[end]) {
		end--
	}
	if blank := bytes.LastIndexByte(lines[:end], ' '); blank > 0 {
		end = blank
	}
	return lines[:end], lines[end:]
}

// put sends one message, over a new connection if the old one is dead.
func (k *syslogSink) put(b []byte) bool {
	for range 2 {
		if k.conn == nil {
			conn, err := dialSyslog()
			if err != nil {
				return false
			}
			k.conn = conn
		}
		if _, err := k.conn.Write(b); err == nil {
			return true
		}
		k.conn.Close()
		k.conn = nil
	}
	return false
}

func dialSyslog() (net.Conn, error) {
	conn, err := net.Dial("unixgram", syslogPath)
	if err != nil {
		return net.Dial("unix", syslogPath)
	}
	return conn, nil
}

func (k *syslogSink) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != nil {
		k.conn.Close()
		k.conn = nil
	}
}
