package watchdog_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"pgpool-go/watchdog"
	"pgpool-go/watchdog/election"
)

// These tests run nodes as processes in network namespaces of their own, with a
// switch between them, and a client beside them that asks every 10 ms by ARP who
// has the delegate address. `go test -run Namespaces -namespace-runs 20 -v
// ./watchdog` prints figures of many runs and holds them to what is promised.
var namespaceRuns = flag.Int("namespace-runs", 0, "how often each trouble is made in network namespaces; 0: once, and no figure is too bad")

// A lab is a switch with hosts. Host n has 10.77.0.(n+1); the last is the client.
type lab struct {
	t     *testing.T
	name  string
	hosts int
	macs  map[[6]byte]int
}

const labAddress = "10.77.0.77" // the delegate address

func (l *lab) ns(host int) string { return fmt.Sprintf("%s-%d", l.name, host) }
func (l *lab) ip(host int) string { return fmt.Sprintf("10.77.0.%d", host+1) }
func (l *lab) client() int        { return l.hosts }

// try runs ip.
func try(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (l *lab) must(args ...string) {
	l.t.Helper()
	if err := try(args...); err != nil {
		l.t.Fatal(err)
	}
}

// newLab needs root, and a kernel that lets it make namespaces.
func newLab(t *testing.T, name string, hosts int) *lab {
	t.Helper()
	l := &lab{t: t, name: fmt.Sprintf("wd%d%s", os.Getpid(), name), hosts: hosts, macs: make(map[[6]byte]int)}
	sw := l.name + "-sw"
	if err := try("netns", "add", sw); err != nil {
		t.Skipf("NOT TESTED: network namespaces cannot be made here (root and iproute2 are needed), so nobody has pulled a cable: %v", err)
	}
	t.Cleanup(func() { try("netns", "del", sw) })
	l.must("-n", sw, "link", "add", "name", "bridge", "type", "bridge", "forward_delay", "0")
	l.must("-n", sw, "link", "set", "bridge", "up")
	for h := range hosts + 1 {
		l.must("netns", "add", l.ns(h))
		t.Cleanup(func() { try("netns", "del", l.ns(h)) })
		port := fmt.Sprintf("p%d", h)
		mac := [6]byte{2, 0, 0, 0, 77, byte(h)}
		l.macs[mac] = h
		l.must("-n", sw, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "address", net.HardwareAddr(mac[:]).String(), "netns", l.ns(h))
		l.must("-n", sw, "link", "set", port, "master", "bridge", "up")
		l.must("-n", l.ns(h), "link", "set", "lo", "up")
		l.must("-n", l.ns(h), "link", "set", "eth0", "up")
		l.must("-n", l.ns(h), "addr", "add", l.ip(h)+"/16", "dev", "eth0")
	}
	return l
}

// cable plugs a host's cable in, or pulls it: its link goes down.
func (l *lab) cable(host int, in bool) {
	l.t.Helper()
	state := "down"
	if in {
		state = "up"
	}
	l.must("-n", l.name+"-sw", "link", "set", fmt.Sprintf("p%d", host), state)
}

// lose loses, without a word, whatever a host sends another, or stops doing so:
// the frames go to a card that is nowhere.
func (l *lab) lose(from, to int, lost bool) {
	l.t.Helper()
	if lost {
		l.must("-n", l.ns(from), "neigh", "replace", l.ip(to), "lladdr", "02:00:00:00:77:ff", "dev", "eth0", "nud", "permanent")
	} else {
		l.must("-n", l.ns(from), "neigh", "del", l.ip(to), "dev", "eth0")
	}
}

// A watch asks for the delegate address, every 10 ms.
type watch struct {
	mu      sync.Mutex
	asked   [watchNumbers]time.Time
	by      [watchNumbers]int // who has answered the one of that number, -1 nobody yet
	answers int
	twice   []string
	last    map[int]time.Time // of each host: when the last question it answered was asked
	first   map[int]time.Time // since forget
}

// watchNumbers is how many questions are told apart: each is asked in the name of
// another address, to which the answer goes.
const watchNumbers = 100

// watch starts to ask, from the client's place.
func (l *lab) watch() *watch {
	l.t.Helper()
	w := &watch{last: make(map[int]time.Time), first: make(map[int]time.Time)}
	fd, card, err := packetSocket(l.ns(l.client()))
	if err != nil {
		l.t.Fatal(err)
	}
	sock := os.NewFile(uintptr(fd), "arp")
	raw, err := sock.SyscallConn()
	if err != nil {
		l.t.Fatal(err)
	}
	end := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n = (n + 1) % watchNumbers {
			w.mu.Lock()
			w.asked[n], w.by[n] = time.Now(), -1
			w.mu.Unlock()
			p := []byte{0, 1, 8, 0, 6, 4, 0, 1}
			p = append(p, card.HardwareAddr...)
			p = append(p, 10, 77, 1, byte(n))
			p = append(p, 0, 0, 0, 0, 0, 0)
			p = append(p, net.ParseIP(labAddress).To4()...)
			to := &unix.SockaddrLinklayer{Protocol: 0x0608, Ifindex: card.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
			raw.Write(func(fd uintptr) bool { unix.Sendto(int(fd), p, 0, to); return true })
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	})
	work.Go(func() {
		for b := make([]byte, 128); ; {
			n, err := sock.Read(b)
			if err != nil {
				return
			}
			if n >= 28 && binary.BigEndian.Uint16(b[6:]) == 2 && net.IP(b[14:18]).String() == labAddress && b[24] == 10 && b[26] == 1 {
				w.answered(int(b[27]), l.macs[[6]byte(b[8:14])])
			}
		}
	})
	l.t.Cleanup(func() {
		close(end)
		sock.Close()
		work.Wait()
	})
	return w
}

func (w *watch) answered(number, host int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if number >= watchNumbers {
		return
	}
	at := w.asked[number]
	w.answers++
	if was := w.by[number]; was >= 0 && was != host {
		w.twice = append(w.twice, fmt.Sprintf("hosts %d and %d, asked at %s", was, host, at.Format("05.000")))
	}
	w.by[number] = host
	w.last[host] = at
	if _, ok := w.first[host]; !ok {
		w.first[host] = at
	}
}

// forget begins a new round.
func (w *watch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.first)
}

// another host than this one has answered since forget: when its first answer was asked for, and
// the last that this one has given.
func (w *watch) another(than int) (first, last time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for h, at := range w.first {
		if h != than && (!ok || at.Before(first)) {
			first, ok = at, true
		}
	}
	return first, w.last[than], ok
}

// packetSocket opens a socket for ARP in a namespace.
func packetSocket(name string) (fd int, card *net.Interface, err error) {
	err = inside(name, func() error {
		if card, err = net.InterfaceByName("eth0"); err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0x0608)
		return err
	})
	return fd, card, err
}

// inside does something in a namespace.
func inside(name string, do func() error) error {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		return err
	}
	defer own.Close()
	there, err := netns.GetFromName(name)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return err
	}
	err = do()
	if e := netns.Set(own); e != nil {
		return e // and the thread, locked as it is, ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// labGroup is a group of processes in a lab.
type labGroup struct {
	*group
	lab     *lab
	silence time.Duration // a node that has just started does not vote for so long
	procs   []*exec.Cmd
	started []time.Time
	watch   *watch
}

func newLabGroup(t *testing.T, l *lab, silence time.Duration, lines ...string) *labGroup {
	t.Helper()
	g := &labGroup{group: newGroup(t, l.hosts), lab: l, silence: silence,
		procs: make([]*exec.Cmd, l.hosts), started: make([]time.Time, l.hosts), watch: l.watch()}
	g.lines = append([]string{"use_watchdog = on", "wd_authkey = 'of this test'", "wd_interval = 1", "delegate_ip = '" + labAddress + "'"}, lines...)
	for id := range l.hosts {
		g.lines = append(g.lines, fmt.Sprintf("hostname%d = '%s'", id, l.ip(id)), fmt.Sprintf("wd_port%d = 9000", id),
			fmt.Sprintf("pgpool_port%d = 9999", id), fmt.Sprintf("heartbeat_hostname%d = '%s'", id, l.ip(id)), fmt.Sprintf("heartbeat_port%d = 9694", id))
	}
	for id := range l.hosts {
		g.run(id)
	}
	return g
}

// run starts the process of a node, in its place.
func (g *labGroup) run(id int) {
	g.t.Helper()
	g.started[id] = time.Now()
	g.procs[id] = g.process(id, []string{"ip", "netns", "exec", g.lab.ns(id)})
}

// guardian of a node's process.
func (g *labGroup) guardian(id int) int {
	pid := g.procs[id].Process.Pid
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		more, _ := os.ReadFile(t)
		b = append(append(b, ' '), more...)
	}
	for _, f := range strings.Fields(string(b)) {
		if child, err := strconv.Atoi(f); err == nil {
			return child
		}
	}
	return 0
}

// told is what a node says of the group, at its socket: itself first.
func (g *labGroup) told(id int) []watchdog.IPCNode {
	c, err := net.DialTimeout("unix", watchdog.IPCPath(g.nodes[id].dir, 9000), 100*time.Millisecond)
	if err != nil {
		return nil
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(100 * time.Millisecond)) // it may be frozen
	if watchdog.WriteIPC(c, watchdog.IPCNodeList, []byte(`{"NodeID":-1,"IPCAuthKey":"of this test"}`)) != nil {
		return nil
	}
	_, body, err := watchdog.ReadIPC(c)
	var l watchdog.IPCList
	if err != nil || json.Unmarshal(body, &l) != nil {
		return nil
	}
	return l.Nodes
}

// whole waits until all are there and may vote, follow one, and that one has the address.
func (g *labGroup) whole() int {
	g.t.Helper()
	leader := -1
	eventually(g.t, "everybody follows one, who has the address", func() bool {
		leader = -1
		for id := range g.procs {
			if time.Since(g.started[id]) < g.silence+200*time.Millisecond {
				return false
			}
			nodes := g.told(id)
			states := 0
			for _, n := range nodes {
				if n.State == int(election.ShownStandby) {
					states++
				}
				if n.State == int(election.ShownLeader) {
					if leader >= 0 && leader != n.ID {
						return false
					}
					leader = n.ID
				}
			}
			if states != len(g.procs)-1 || leader < 0 {
				return false
			}
		}
		g.watch.mu.Lock()
		defer g.watch.mu.Unlock()
		return time.Since(g.watch.last[leader]) < 200*time.Millisecond
	})
	return leader
}

// trouble is what happens to a leader, and how it is undone.
type trouble struct {
	name string
	make func(g *labGroup, leader int)
	mend func(g *labGroup, leader int)
}

func others(g *labGroup, leader int, do func(other int)) {
	for id := range g.procs {
		if id != leader {
			do(id)
		}
	}
}

var troubles = []trouble{
	{"kill -9",
		func(g *labGroup, l int) { g.procs[l].Process.Kill() },
		func(g *labGroup, l int) { g.procs[l].Wait(); g.run(l) }},
	{"SIGSTOP, later SIGCONT",
		func(g *labGroup, l int) { g.procs[l].Process.Signal(syscall.SIGSTOP) },
		func(g *labGroup, l int) { g.procs[l].Process.Signal(syscall.SIGCONT) }},
	{"cable pulled",
		func(g *labGroup, l int) { g.lab.cable(l, false) },
		func(g *labGroup, l int) { g.lab.cable(l, true) }},
	{"leader mute",
		func(g *labGroup, l int) { others(g, l, func(o int) { g.lab.lose(l, o, true) }) },
		func(g *labGroup, l int) { others(g, l, func(o int) { g.lab.lose(l, o, false) }) }},
	{"leader deaf",
		func(g *labGroup, l int) { others(g, l, func(o int) { g.lab.lose(o, l, true) }) },
		func(g *labGroup, l int) { others(g, l, func(o int) { g.lab.lose(o, l, false) }) }},
	{"leader isolated, clients reach it",
		func(g *labGroup, l int) {
			others(g, l, func(o int) { g.lab.lose(l, o, true); g.lab.lose(o, l, true) })
		},
		func(g *labGroup, l int) {
			others(g, l, func(o int) { g.lab.lose(l, o, false); g.lab.lose(o, l, false) })
		}},
}

// killedWithGuardian is what only the kernel itself can put right.
var killedWithGuardian = trouble{"kill -9, the guardian too",
	func(g *labGroup, l int) {
		if guardian := g.guardian(l); guardian > 0 {
			syscall.Kill(guardian, syscall.SIGKILL)
		}
		g.procs[l].Process.Kill()
	},
	func(g *labGroup, l int) { g.procs[l].Wait(); g.run(l) }}

func TestNamespacesNeverTwoAnswers(t *testing.T) {
	for _, c := range []struct {
		name    string
		lines   []string
		promise time.Duration
		limit   time.Duration // for a new leader
		all     []trouble
		short   int // of the troubles in the short form
	}{
		{"keepalive 1, deadtime 3", []string{"wd_heartbeat_keepalive = 1", "wd_heartbeat_deadtime = 3"}, 2 * time.Second, 5 * time.Second, troubles, 2},
		{"wd_leader_lease 400", []string{"wd_leader_lease = 400"}, 400 * time.Millisecond, time.Second, troubles, 6},
		{"defaults", nil, 4 * time.Second, 10 * time.Second, []trouble{killedWithGuardian}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if *namespaceRuns == 0 {
				t.Parallel()
			}
			if *namespaceRuns == 0 && c.promise < time.Second { // other tests keep the machine busy
				c.promise, c.lines = time.Second, []string{"wd_leader_lease = 1000"}
				t.Log("in the short form wd_leader_lease is 1000")
			}
			l := newLab(t, c.name[len(c.name)-1:], 3)
			g := newLabGroup(t, l, c.promise, c.lines...)
			ts := c.all
			if *namespaceRuns == 0 {
				ts = ts[:c.short]
			}
			for _, trouble := range ts {
				var leads, without []time.Duration
				for range max(*namespaceRuns, 1) {
					lead, gap := g.suffer(trouble)
					leads, without = append(leads, lead), append(without, gap)
				}
				t.Logf("%-34s new leader after %s; without the address for %s", trouble.name, spread(leads), spread(without))
				if *namespaceRuns > 0 && slices.Max(leads) > c.limit {
					t.Errorf("%s: a new leader after %v, it must be within %v", trouble.name, slices.Max(leads), c.limit)
				}
			}
			g.watch.mu.Lock()
			defer g.watch.mu.Unlock()
			t.Logf("%d answers", g.watch.answers)
			if g.watch.answers == 0 {
				t.Error("nobody has ever answered")
			}
			if len(g.watch.twice) > 0 {
				t.Errorf("two hosts have answered at once, %d times: %s", len(g.watch.twice), strings.Join(g.watch.twice[:min(10, len(g.watch.twice))], "; "))
			}
		})
	}
}

// suffer makes trouble, and mends it when another has the address. It returns when
// another led, and how long nobody had the address.
func (g *labGroup) suffer(what trouble) (lead, gap time.Duration) {
	g.t.Helper()
	leader := g.whole()
	began := time.Now()
	g.watch.forget()
	what.make(g, leader)
	eventually(g.t, what.name+": another leads", func() bool {
		for id := range g.procs {
			if nodes := []watchdog.IPCNode(nil); id != leader {
				if nodes = g.told(id); len(nodes) > 0 && nodes[0].State == int(election.ShownLeader) {
					return true
				}
			}
		}
		return false
	})
	lead = time.Since(began)
	eventually(g.t, what.name+": another has the address", func() bool {
		first, last, ok := g.watch.another(leader)
		gap = first.Sub(last)
		return ok
	})
	what.mend(g, leader)
	return lead, gap
}

func spread(all []time.Duration) string {
	slices.Sort(all)
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	return fmt.Sprintf("%v / %v / %v", ms(all[0]), ms(all[len(all)/2]), ms(all[len(all)-1]))
}
