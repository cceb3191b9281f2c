package watchdog

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"pgpool-go/conf"
)

// A node is one configured pgpool.
type node struct {
	id         int
	host       string
	wdPort     int
	pgpoolPort int

	address atomic.Pointer[net.TCPAddr] // of its watchdog; nil: the name was not resolved yet
	about   atomic.Pointer[about]       // what it says of itself; nil: nothing yet
	outbox  chan parcel                 // for the reliable road to it
}

// about is what every node lets the others know by gossip.
type about struct {
	ID          int
	Name        string // as pcp_watchdog_info shows it
	Started     int64
	Incarnation uint64
	Priority    int
	Initialised bool // has a register
}

// nodesOf are the configured ones, by id.
func nodesOf(c *conf.Config) map[int]*node {
	all := make(map[int]*node)
	for id, w := range c.Watchdogs {
		if w.Used() {
			all[id] = &node{id: id, host: cmp.Or(w.Hostname, "localhost"), wdPort: w.WdPort, pgpoolPort: w.PgpoolPort,
				outbox: make(chan parcel, 64)}
		}
	}
	return all
}

func (w *Watchdog) ids() []int {
	var ids []int
	for id := range w.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// others are all nodes but this one, by id.
func (w *Watchdog) others() []*node {
	var all []*node
	for _, id := range w.ids() {
		if id != w.self.id {
			all = append(all, w.nodes[id])
		}
	}
	return all
}

// name is how people are shown a node: host and port, and what runs there.
func (n *node) name() string {
	if a := n.about.Load(); a != nil {
		return a.Name
	}
	return notSet
}

const notSet = "Not_Set"

// ownName of a node is made as the original makes it.
func ownName(n *node) string {
	system, host := "Linux", "localhost"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		system, host = unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Nodename[:])
	} else if h, err := os.Hostname(); err == nil {
		host = h
	}
	return fmt.Sprintf("%s:%d %s %s", n.host, n.pgpoolPort, system, host)
}

// label tells groups apart: nodes whose lists of nodes differ do not hear each
// other at all, rather than count differently.
func (w *Watchdog) label() string {
	var b strings.Builder
	for _, id := range w.ids() {
		n := w.nodes[id]
		fmt.Fprintf(&b, "%d %s %d %d\n", id, n.host, n.wdPort, n.pgpoolPort)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return "pgpool-go " + hex.EncodeToString(sum[:8])
}

// resolve looks the node's host up; the last address that was found stays if
// that fails.
func (n *node) resolve() error {
	a, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(n.host, fmt.Sprint(n.wdPort)))
	if err == nil {
		n.address.Store(a)
	}
	return err
}

// isLocal reports that an address is one of this host.
func isLocal(ip net.IP) bool {
	all, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}
