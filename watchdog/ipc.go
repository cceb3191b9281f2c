package watchdog

import (
	"bufio"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pgpool-go/conf"
)

// ipc is the socket where programs outside tell who is dead (wd_cli --inform), and
// ask who is there. A packet is a letter, the length of the rest as 32 bits, and
// JSON.
type ipc struct {
	w  *Watchdog
	ln net.Listener

	mu    sync.Mutex
	conns map[net.Conn]bool
	work  sync.WaitGroup
}

// Requests and replies on the IPC socket.
const (
	IPCStatusChange byte = '2'
	IPCNodeList     byte = '3'
	IPCRemove       byte = 'R' // ours; the reply of IPCBad says why
	IPCBad          byte = '6'
	IPCOk           byte = '7'
)

// IPCStatus is the body of IPCStatusChange.
type IPCStatus struct {
	NodeID     int
	NodeStatus int // 1 dead, 2 alive
	Message    string
	IPCAuthKey string
}

// IPCRemoval is the body of IPCRemove: nodes that are off, see Watchdog.Remove.
type IPCRemoval struct {
	NodeIDs    []int
	IPCAuthKey string
}

// IPCList is the body of IPCNodeList, and of its reply.
type IPCList struct {
	NodeID     int       `json:",omitempty"` // -1 all
	IPCAuthKey string    `json:",omitempty"`
	NodeCount  int       `json:",omitempty"`
	Nodes      []IPCNode `json:"WatchdogNodes,omitempty"`
}

// IPCNode is one node in a list.
type IPCNode struct {
	ID, State          int
	NodeName, HostName string
	StateName          string
	DelegateIP         string
	WdPort, PgpoolPort int
	Priority           int
	Membership         int
	MembershipString   string
}

// ipcLimit is the longest packet: nobody has that much to say.
const ipcLimit = 64 << 10

// IPCPath is where the socket of a watchdog with this wd_port is.
func IPCPath(dir string, wdPort int) string {
	return filepath.Join(dir, fmt.Sprintf(".s.PGPOOLWD_CMD.%d", wdPort))
}

func newIPC(w *Watchdog) (*ipc, error) {
	path := IPCPath(w.config.Load().WdIpcSocketDir, w.self.wdPort)
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("another watchdog answers on %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o777) // whoever has the key may speak; without one, as in the original, anybody
	}
	if err != nil {
		return nil, fmt.Errorf("could not listen on the watchdog's IPC socket: %w", err)
	}
	return &ipc{w: w, ln: ln, conns: make(map[net.Conn]bool)}, nil
}

func (i *ipc) serve() {
	for {
		c, err := i.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		i.mu.Lock()
		if i.conns == nil || len(i.conns) >= 32 {
			i.mu.Unlock()
			c.Close()
			continue
		}
		i.conns[c] = true
		i.work.Go(func() { i.talk(c) })
		i.mu.Unlock()
	}
}

func (i *ipc) close() {
	i.ln.Close()
	i.mu.Lock()
	for c := range i.conns {
		c.Close()
	}
	i.conns = nil
	i.mu.Unlock()
	i.work.Wait()
}

func (i *ipc) talk(c net.Conn) {
	defer func() {
		c.Close()
		i.mu.Lock()
		delete(i.conns, c)
		i.mu.Unlock()
	}()
	in := bufio.NewReader(c)
	for {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		letter, body, err := ReadIPC(in)
		if err != nil {
			return
		}
		kind, reply := i.answer(letter, body)
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if WriteIPC(c, kind, reply) != nil {
			return
		}
	}
}

// ReadIPC takes one packet.
func ReadIPC(in io.Reader) (letter byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > ipcLimit {
		return 0, nil, fmt.Errorf("a packet of %d bytes", n)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(in, body)
	return head[0], body, err
}

// WriteIPC sends one packet.
func WriteIPC(out io.Writer, letter byte, body []byte) error {
	b := append([]byte{letter}, binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	_, err := out.Write(append(b, body...))
	return err
}

func (i *ipc) answer(letter byte, body []byte) (byte, []byte) {
	body = []byte(strings.TrimRight(string(body), "\x00")) // C ends its text
	switch letter {
	case IPCStatusChange:
		var s IPCStatus
		if err := json.Unmarshal(body, &s); err != nil || !i.known(s.IPCAuthKey) || i.w.nodes[s.NodeID] == nil || s.NodeStatus != 1 && s.NodeStatus != 2 {
			return IPCBad, nil
		}
		if i.w.config.Load().WdLifecheckMethod != conf.LifecheckExternal {
			i.w.log.Log(i.w.life.ctx, levelLog, "watchdog: a node's state was told from outside", "detail", s.Message)
		}
		i.w.life.say(s.NodeID, s.NodeStatus == 2, "told from outside: "+s.Message)
		return IPCOk, nil
	case IPCNodeList:
		var q IPCList
		q.NodeID = -1
		if err := json.Unmarshal(body, &q); err != nil || !i.known(q.IPCAuthKey) {
			return IPCBad, nil
		}
		return IPCOk, i.list(q.NodeID)
	case IPCRemove:
		var r IPCRemoval
		if err := json.Unmarshal(body, &r); err != nil || !i.known(r.IPCAuthKey) || len(r.NodeIDs) == 0 {
			return IPCBad, nil
		}
		if err := i.w.Remove(i.w.life.ctx, r.NodeIDs); err != nil {
			return IPCBad, []byte(err.Error())
		}
		return IPCOk, nil
	}
	return IPCBad, nil
}

// known reports that a program has the key, where there is one.
func (i *ipc) known(authkey string) bool {
	k := i.w.config.Load().WdAuthkey
	return k == "" || subtle.ConstantTimeCompare([]byte(k), []byte(authkey)) == 1
}

func (i *ipc) list(id int) []byte {
	s := i.w.Status()
	var l IPCList
	for _, m := range s.Members {
		if id < 0 || id == m.ID {
			l.Nodes = append(l.Nodes, IPCNode{ID: m.ID, State: int(m.State), NodeName: m.Name, HostName: m.Host, StateName: m.State.String(),
				DelegateIP: s.DelegateIP, WdPort: m.WdPort, PgpoolPort: m.PgpoolPort, Priority: m.Priority,
				Membership: int(m.Membership), MembershipString: m.Membership.String()})
		}
	}
	l.NodeCount = len(l.Nodes)
	b, err := json.Marshal(l)
	if err != nil {
		return nil
	}
	return b
}
