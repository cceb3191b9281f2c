package watchdog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A heartbeat is a datagram: magic, node, start of its process, a number that
// grows, and a keyed hash over these and the group's label.
const (
	beatMagic = "pgpool-go heartbeat 1 "
	beatLen   = len(beatMagic) + 1 + 8 + 8
	beatFull  = beatLen + sha256.Size
)

// pulse is what was heard of a node by heartbeats.
type pulse struct {
	started int64
	number  uint64
	at      time.Duration
}

// heartbeat sends and hears them.
type heartbeat struct {
	w      *Watchdog
	socks  []*net.UDPConn
	paths  []path
	number uint64
}

// path is one way to another node: its address, and the interface it goes out by.
type path struct {
	node   int
	host   string
	port   int
	device string
	conn   *net.UDPConn
}

func newHeartbeat(w *Watchdog) (*heartbeat, error) {
	c := w.config.Load()
	h := &heartbeat{w: w}
	own := c.WdHeartbeatListenPort
	if own == 0 && w.self.id < len(c.Heartbeats) {
		own = c.Heartbeats[w.self.id].Port
	}
	if own == 0 {
		if len(w.others()) == 0 {
			return h, nil // alone, with nobody to hear
		}
		own = 9694 // where the others send to, too
	}
	addresses := []string{""}
	if c.WdHeartbeatListenAddresses != "" && c.WdHeartbeatListenAddresses != "*" {
		addresses = strings.Split(c.WdHeartbeatListenAddresses, ";")
	}
	for _, a := range addresses {
		p, err := net.ListenPacket("udp", net.JoinHostPort(strings.TrimSpace(a), strconv.Itoa(own)))
		if err != nil {
			h.close()
			return nil, fmt.Errorf("could not listen for heartbeats: %w", err)
		}
		h.socks = append(h.socks, p.(*net.UDPConn))
	}
	for _, n := range w.others() {
		if n.id >= len(c.Heartbeats) || !c.Heartbeats[n.id].Used() {
			w.log.Warn(fmt.Sprintf("heartbeat_hostname%d and heartbeat_port%d are not set: heartbeats go to hostname%d, port 9694", n.id, n.id, n.id))
			h.paths = append(h.paths, path{node: n.id, host: n.host, port: 9694})
			continue
		}
		b := c.Heartbeats[n.id]
		devices := strings.Split(b.Device, ";")
		for i, host := range strings.Split(b.Hostname, ";") {
			p := path{node: n.id, host: strings.TrimSpace(host), port: b.Port}
			if i < len(devices) {
				p.device = strings.TrimSpace(devices[i])
			}
			h.paths = append(h.paths, p)
		}
	}
	return h, nil
}

// beat sends one to everybody, by every path.
func (h *heartbeat) beat() {
	h.number++
	b := make([]byte, 0, beatFull)
	b = append(b, beatMagic...)
	b = append(b, byte(h.w.self.id))
	b = binary.BigEndian.AppendUint64(b, uint64(h.w.started))
	b = binary.BigEndian.AppendUint64(b, h.number)
	b = append(b, h.mac(b, h.w.config.Load().WdAuthkey)...)
	for i := range h.paths {
		p := &h.paths[i]
		if p.conn == nil && h.open(p) != nil {
			continue
		}
		if _, err := p.conn.Write(b); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			p.conn.Close() // the name may mean another address by now
			p.conn = nil
		}
	}
}

func (h *heartbeat) open(p *path) error {
	d := net.Dialer{Timeout: time.Second}
	if p.device != "" {
		d.Control = func(_, _ string, rc syscall.RawConn) error {
			var err error
			if e := rc.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), p.device) }); e != nil {
				return e
			}
			return err
		}
	}
	c, err := d.DialContext(context.Background(), "udp", net.JoinHostPort(p.host, strconv.Itoa(p.port)))
	if errors.Is(err, syscall.EPERM) {
		h.w.log.Warn(fmt.Sprintf("heartbeat_device%d is not used", p.node), "detail", "To bind a socket to a device takes root or CAP_NET_RAW.")
		p.device = ""
		return err
	}
	if err == nil {
		p.conn = c.(*net.UDPConn)
	}
	return err
}

func (h *heartbeat) mac(b []byte, authkey string) []byte {
	m := hmac.New(sha256.New, key(authkey, "heartbeat"))
	m.Write(b)
	m.Write([]byte(h.w.label()))
	return m.Sum(nil)
}

// listen hears heartbeats until its socket is closed.
func (h *heartbeat) listen(sock *net.UDPConn, heard func(node int, p pulse)) {
	buf := make([]byte, beatFull+1)
	for {
		n, from, err := sock.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		node, p, err := h.parse(buf[:n])
		if err != nil {
			h.w.strangers.note(fmt.Sprintf("a heartbeat from %s %v", from, err))
			continue
		}
		heard(node, p)
	}
}

func (h *heartbeat) parse(b []byte) (node int, p pulse, err error) {
	if len(b) != beatFull || string(b[:len(beatMagic)]) != beatMagic {
		return 0, p, errors.New("that is none")
	}
	mac := b[beatLen:]
	if !hmac.Equal(mac, h.mac(b[:beatLen], h.w.config.Load().WdAuthkey)) && !hmac.Equal(mac, h.mac(b[:beatLen], h.w.life.oldKey())) {
		return 0, p, errors.New("with another wd_authkey, or of another group")
	}
	node = int(b[len(beatMagic)])
	if h.w.nodes[node] == nil || node == h.w.self.id {
		return 0, p, fmt.Errorf("of node %d, which is not configured here", node)
	}
	b = b[len(beatMagic)+1:]
	return node, pulse{started: int64(binary.BigEndian.Uint64(b)), number: binary.BigEndian.Uint64(b[8:]), at: now()}, nil
}

func (h *heartbeat) close() {
	for _, s := range h.socks {
		s.Close()
	}
}
