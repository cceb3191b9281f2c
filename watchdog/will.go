package watchdog

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"pgpool-go/watchdog/election"
)

// A leader that is killed cannot say that it has given up. So it leaves a letter
// with its guardian, sealed for the term it leads: when the pipe between them
// breaks, and the address is down, the guardian sends it, and nobody has to wait
// for the end of the lease. It goes to the ports of the others' watchdogs, beside
// memberlist's packets, with a keyed hash of its own; the guardian knows no key. A
// repeated letter is of no use to anybody: its term will not be led again.

// will is what the guardian does last.
type will struct {
	Letter []byte
	To     []string // where the others' watchdogs are
}

// willMagic is what memberlist's packets never begin with.
const willMagic = "pgpool-go release 1 "

// execute does what the will says.
func (l *will) execute() {
	if l == nil || len(l.Letter) == 0 {
		return
	}
	c, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return // the lease ends by itself
	}
	defer c.Close()
	for _, wait := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 0} { // it may be lost
		for _, to := range l.To {
			if a, err := net.ResolveUDPAddr("udp", to); err == nil {
				c.WriteTo(l.Letter, a)
			}
		}
		time.Sleep(wait)
	}
}

// testament is a leader's will for a term.
func (w *Watchdog) testament(term election.Term) *will {
	m := w.state.Load().Farewell(term)
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // as in letter.encode
	}
	text := append([]byte(willMagic), body...)
	l := &will{Letter: append(text, w.seal(text, w.config.Load().WdAuthkey)...)}
	for _, n := range w.others() {
		if a := n.address.Load(); a != nil {
			l.To = append(l.To, a.String())
		}
	}
	return l
}

func (l *will) equal(m *will) bool {
	return m != nil && bytes.Equal(l.Letter, m.Letter) && slices.Equal(l.To, m.To)
}

func (w *Watchdog) seal(text []byte, authkey string) []byte {
	m := hmac.New(sha256.New, key(authkey, "release"))
	m.Write(text)
	m.Write([]byte(w.label()))
	return m.Sum(nil)
}

// opened takes a guardian's letter.
func (w *Watchdog) opened(b []byte) (election.Message, error) {
	var m election.Message
	text, sum := b[:max(len(b)-sha256.Size, 0)], b[max(len(b)-sha256.Size, 0):]
	if !hmac.Equal(sum, w.seal(text, w.config.Load().WdAuthkey)) && !hmac.Equal(sum, w.seal(text, w.life.oldKey())) {
		return m, errors.New("a guardian's letter with another wd_authkey, or of another group")
	}
	if err := json.Unmarshal(text[len(willMagic):], &m); err != nil || m.Kind != election.KindRelease || w.nodes[m.From] == nil {
		return m, errors.New("a guardian's letter that says nothing")
	}
	return m, nil
}

// road carries memberlist's packets, and takes out guardians' letters.
type road struct {
	*memberlist.NetTransport
	packets chan *memberlist.Packet
	end     chan struct{}
	once    sync.Once
}

func (w *Watchdog) road(address string, port int, logger *log.Logger) (*road, error) {
	bare, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{address}, BindPort: port, Logger: logger})
	if err != nil {
		return nil, err
	}
	r := &road{NetTransport: bare, packets: make(chan *memberlist.Packet), end: make(chan struct{})}
	w.work.Go(func() {
		for {
			select {
			case p := <-bare.PacketCh():
				if bytes.HasPrefix(p.Buf, []byte(willMagic)) {
					w.bequeathed(p.Buf)
					continue
				}
				select {
				case r.packets <- p:
				case <-r.end:
					return
				}
			case <-r.end:
				return
			}
		}
	})
	return r, nil
}

func (w *Watchdog) bequeathed(b []byte) {
	m, err := w.opened(b)
	if err != nil {
		w.strangers.note(err.Error())
		return
	}
	w.input(m)
}

// PacketCh is where memberlist takes its packets from.
func (r *road) PacketCh() <-chan *memberlist.Packet { return r.packets }

// Shutdown ends it. What is on its way is taken until nothing comes any more: the
// transport waits for that.
func (r *road) Shutdown() error {
	var err error
	r.once.Do(func() {
		err = r.NetTransport.Shutdown()
		close(r.end)
	})
	return err
}
