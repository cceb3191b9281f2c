package watchdog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"pgpool-go/watchdog/election"
)

// gossip joins the group of those who know each other, and carries letters. What
// it says about who is there is a hint: nothing that must hold depends on it.
func (w *Watchdog) gossip() error {
	c := memberlist.DefaultLANConfig()
	c.Name = memberName(w.self.id)
	own := w.self.address.Load()
	if own == nil {
		return fmt.Errorf("could not resolve hostname%d %q", w.self.id, w.self.host)
	}
	c.BindAddr, c.BindPort = bindAddress(w.config.Load().WdListenAddress, own.IP), w.self.wdPort
	if p := w.config.Load().WdListenPort; p != 0 {
		c.BindPort = p
	}
	c.AdvertiseAddr, c.AdvertisePort = own.IP.String(), w.self.wdPort
	c.Label = w.label()
	c.ProbeInterval = min(max(w.times.Promise/4, 200*time.Millisecond), 2*time.Second)
	c.ProbeTimeout = min(c.ProbeInterval/2, 500*time.Millisecond)
	c.SuspicionMult = 3
	c.TCPTimeout = min(max(w.times.Promise/4, 250*time.Millisecond), 2*time.Second)
	c.GossipInterval = 100 * time.Millisecond
	c.PushPullInterval = 15 * time.Second
	c.GossipToTheDeadTime = max(2*w.config.Load().WdHeartbeatDeadtime, 30*time.Second)
	c.DeadNodeReclaimTime = time.Second // a host may come back with another address
	c.UDPBufferSize = datagram
	c.EnableCompression = false
	c.Delegate, c.Events, c.Alive = delegate{w}, delegate{w}, delegate{w}
	c.Logger = log.New(&w.strangers, "", 0)
	if k := key(w.config.Load().WdAuthkey, "memberlist"); k != nil {
		ring, err := memberlist.NewKeyring(nil, k)
		if err != nil {
			return err
		}
		c.Keyring, w.ring = ring, ring
	} else {
		w.log.Warn("the watchdog is not protected: wd_authkey is empty",
			"detail", "Whoever can reach wd_port can speak as one of the nodes.", "hint", "Set wd_authkey to the same text on all nodes.")
	}
	road, err := w.road(c.BindAddr, c.BindPort, c.Logger)
	if err != nil {
		return fmt.Errorf("could not listen for the watchdog on port %d: %w", c.BindPort, err)
	}
	c.Transport = road
	list, err := memberlist.Create(c)
	if err != nil {
		road.Shutdown()
		return fmt.Errorf("could not start the watchdog on port %d: %w", c.BindPort, err)
	}
	w.list = list
	return nil
}

// datagram is the largest that is sent in one.
const datagram = 1400

// bindAddress is where to listen: where the operator wants, else at the own
// address if this host has it, else everywhere.
func bindAddress(wanted string, own net.IP) string {
	everywhere := "0.0.0.0"
	if own.To4() == nil {
		everywhere = "::"
	}
	switch {
	case wanted == "*":
		return everywhere
	case wanted != "":
		if a, err := net.ResolveIPAddr("ip", wanted); err == nil {
			return a.IP.String()
		}
		return wanted
	case isLocal(own):
		return own.String()
	}
	return everywhere
}

const memberPrefix = "node-"

func memberName(id int) string { return memberPrefix + strconv.Itoa(id) }

// rekey takes a new wd_authkey into use. The old one still opens what others send,
// until the next change: they are reloaded one after the other.
func (w *Watchdog) rekey(old, now string) {
	ring := w.ring
	if ring == nil || now == "" {
		w.log.Warn("wd_authkey can be switched on or off only by a restart")
		return
	}
	keep, fresh := key(old, "memberlist"), key(now, "memberlist")
	ring.AddKey(fresh)
	ring.UseKey(fresh)
	for _, k := range ring.GetKeys() {
		if !bytes.Equal(k, keep) && !bytes.Equal(k, fresh) {
			ring.RemoveKey(k)
		}
	}
}

// join looks for the others until the end: whoever is not a member is called
// again and again, and names are looked up anew.
func (w *Watchdog) join() {
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		known := w.list.Members()
		for _, n := range w.others() {
			is := slices.ContainsFunc(known, func(m *memberlist.Node) bool { return m.Name == memberName(n.id) })
			if is && n.address.Load() != nil || n.resolve() != nil {
				continue
			}
			a := n.address.Load().String()
			if !is {
				w.list.Join([]string{memberName(n.id) + "/" + a})
			}
		}
		select {
		case <-time.After(wait):
		case <-w.stopping:
			return
		}
	}
}

// announce spreads what this node says of itself after a change.
func (w *Watchdog) announce() {
	w.work.Go(func() { w.list.UpdateNode(time.Second) })
}

// parcel is a letter on its way.
type parcel struct {
	text []byte
	at   time.Duration
}

// send brings a letter to a node. What is worth more than a heartbeat goes both
// ways, by datagram and by a connection; all letters may come twice.
func (w *Watchdog) send(n *node, l letter, reliably bool) {
	text := l.encode()
	to := n.address.Load()
	if to == nil {
		return
	}
	if len(text) < datagram-200 { // encryption, label and checksums need some
		w.list.SendToAddress(memberlist.Address{Addr: to.String(), Name: memberName(n.id)}, text)
	} else {
		reliably = true
	}
	if reliably {
		p := parcel{text, now()}
		for {
			select {
			case n.outbox <- p:
				return
			default:
			}
			select {
			case <-n.outbox: // the oldest gives way
			default:
			}
		}
	}
}

// carry takes a node's parcels to it, one after the other, while they are fresh.
func (w *Watchdog) carry(n *node) {
	for {
		select {
		case p := <-n.outbox:
			if a := n.address.Load(); a != nil && now()-p.at < w.times.Promise/2 {
				to := &memberlist.Node{Name: memberName(n.id), Addr: a.IP, Port: uint16(a.Port)}
				w.list.SendReliable(to, p.text) // who needs an answer asks again
			}
			w.sent.Add(1)
		case <-w.stopping:
			return
		}
	}
}

// delegate is what memberlist calls; it must not be kept waiting.
type delegate struct{ *Watchdog }

func (d delegate) NodeMeta(limit int) []byte {
	b, err := json.Marshal(d.self.about.Load())
	if err != nil || len(b) > limit {
		d.log.Error("the description of this node is too long for the others", "err", err)
		return nil
	}
	return b
}

func (d delegate) NotifyMsg(b []byte) {
	l, err := decode(b)
	if err != nil {
		d.strangers.note("a letter that is " + err.Error())
		return
	}
	d.receive(l)
}

func (d delegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte          { return nil }
func (d delegate) MergeRemoteState([]byte, bool)   {}
func (d delegate) NotifyJoin(m *memberlist.Node)   { d.heard(m, true) }
func (d delegate) NotifyUpdate(m *memberlist.Node) { d.heard(m, true) }
func (d delegate) NotifyLeave(m *memberlist.Node)  { d.heard(m, false) }
func (d delegate) NotifyAlive(m *memberlist.Node) error {
	if _, err := d.describe(m); err != nil {
		d.strangers.note(err.Error())
		return err
	}
	return nil
}

// describe reads what a member says of itself.
func (w *Watchdog) describe(m *memberlist.Node) (*about, error) {
	var a about
	if err := json.Unmarshal(m.Meta, &a); err != nil {
		return nil, fmt.Errorf("member %q of %s does not say what it is", m.Name, m.Addr)
	}
	if w.nodes[a.ID] == nil || m.Name != memberName(a.ID) {
		return nil, fmt.Errorf("member %q of %s is not configured here", m.Name, m.Addr)
	}
	return &a, nil
}

func (w *Watchdog) heard(m *memberlist.Node, alive bool) {
	a, err := w.describe(m)
	if err != nil || a.ID == w.self.id {
		return
	}
	w.nodes[a.ID].about.Store(a)
	w.input(election.Gossip{ID: a.ID, Alive: alive, Priority: a.Priority, Started: a.Started, Initialised: a.Initialised})
}

// strangers counts what comes from outside and is not for us: wrong keys, other
// groups, garbage. The log gets a line a minute.
type strangers struct {
	log *slog.Logger

	mu    sync.Mutex
	count uint64 // since the start
	quiet uint64 // since the last line
	last  time.Duration
}

// Write takes a line of memberlist's own log.
func (s *strangers) Write(b []byte) (int, error) {
	_, what, _ := strings.Cut(strings.TrimSpace(string(b)), "memberlist: ")
	if slices.ContainsFunc(refusals, func(word string) bool { return strings.Contains(what, word) }) {
		s.note(what)
	}
	return len(b), nil
}

// refusals are words of memberlist for what it does not take. The rest of what it
// logs is about nodes that do not answer, and we say that ourselves.
var refusals = []string{"crypt", "label", "ecode", "checksum", "ot supported", "invalid", "ailed to receive", "runcated", "message type", "queue full", "Too many", "ejected", "unexpected"}

func (s *strangers) note(what string) {
	s.mu.Lock()
	s.count++
	s.quiet++
	quiet, due := s.quiet, s.last == 0 || now()-s.last >= time.Minute
	if due {
		s.last, s.quiet = now(), 0
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("watchdog: trouble on the network", "detail", fmt.Sprintf("%s (%d of the kind since the last line)", what, quiet))
	}
}

// Refused is how many things were dropped, since the start.
func (s *strangers) refused() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
