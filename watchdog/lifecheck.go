package watchdog

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"pgpool-go/conf"
	"pgpool-go/watchdog/election"
)

// lifecheck tells who is dead, by the method the operator has chosen, and whether
// this node itself is cut off. Its word only delays and counts; it is never what
// makes two leaders impossible.
type lifecheck struct {
	w    *Watchdog
	beat *heartbeat // method heartbeat
	ipc  *ipc       // wd_cli and outside checks

	mu     sync.Mutex
	pulses map[int]pulse
	points map[int]int  // queries that failed in a row
	dead   map[int]bool // as last said
	all    atomic.Bool  // every node was heard of once
	old    atomic.Pointer[string]

	end  context.CancelFunc
	ctx  context.Context
	work sync.WaitGroup
}

func newLifecheck(w *Watchdog) (*lifecheck, error) {
	l := &lifecheck{w: w, pulses: make(map[int]pulse), points: make(map[int]int), dead: make(map[int]bool)}
	l.ctx, l.end = context.WithCancel(context.Background())
	c := w.config.Load()
	if list := c.WdMonitoringInterfacesList; len(list) > 0 && !linked(list) {
		return nil, fmt.Errorf("none of the interfaces in wd_monitoring_interfaces_list is up: %s", strings.Join(list, ", "))
	}
	var err error
	if c.WdLifecheckMethod == conf.LifecheckHeartbeat {
		if l.beat, err = newHeartbeat(w); err != nil {
			return nil, err
		}
	}
	if l.ipc, err = newIPC(w); err != nil {
		if l.beat != nil {
			l.beat.close()
		}
		return nil, err
	}
	return l, nil
}

func (l *lifecheck) start() {
	c := l.w.config.Load()
	if l.beat != nil {
		for _, s := range l.beat.socks {
			l.work.Go(func() { l.beat.listen(s, l.heard) })
		}
		l.every(c.WdHeartbeatKeepalive, l.beat.beat)
	}
	l.every(min(max(c.WdInterval, time.Second), 10*time.Minute), l.check)
	if len(c.WdMonitoringInterfacesList) > 0 {
		l.every(max(min(c.WdInterval, 5*time.Second), time.Second), l.watchLinks)
		l.work.Go(l.hearLinks)
	}
	l.work.Go(l.ipc.serve)
}

func (l *lifecheck) every(d time.Duration, do func()) {
	l.work.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			do()
			select {
			case <-tick.C:
			case <-l.ctx.Done():
				return
			}
		}
	})
}

func (l *lifecheck) stop() {
	l.end()
	if l.beat != nil {
		l.beat.close()
	}
	l.ipc.close()
	l.work.Wait()
}

// ready reports that every node was heard of once, so that silence means
// something.
func (l *lifecheck) ready() bool { return l != nil && l.all.Load() }

// oldKey is the wd_authkey before the last reload: others may still use it.
func (l *lifecheck) oldKey() string {
	if k := l.old.Load(); k != nil {
		return *k
	}
	return l.w.config.Load().WdAuthkey
}

// heard takes a heartbeat; one that comes again says nothing.
func (l *lifecheck) heard(node int, p pulse) {
	l.mu.Lock()
	was := l.pulses[node]
	fresh := p.started > was.started || p.started == was.started && p.number > was.number
	if fresh {
		l.pulses[node] = p
	}
	l.mu.Unlock()
	if fresh {
		l.say(node, true, "heartbeat")
	}
}

// check is one round, each wd_interval.
func (l *lifecheck) check() {
	c := l.w.config.Load()
	switch c.WdLifecheckMethod {
	case conf.LifecheckHeartbeat:
		l.mu.Lock()
		var silent []int
		for id, p := range l.pulses {
			if now()-p.at > c.WdHeartbeatDeadtime {
				silent = append(silent, id)
			}
		}
		complete := len(l.pulses) == len(l.w.nodes)-1
		l.mu.Unlock()
		for _, id := range silent {
			l.say(id, false, fmt.Sprintf("no heartbeat for %v", c.WdHeartbeatDeadtime))
		}
		l.complete(complete)
	case conf.LifecheckQuery:
		l.query(c)
	}
	l.trusted(c)
}

// complete notes that everybody was heard of.
func (l *lifecheck) complete(all bool) {
	if all && !l.all.Swap(true) {
		l.w.log.Log(l.ctx, levelLog, "watchdog: lifecheck started")
	}
}

// say tells the election what the check has found, when that is news.
func (l *lifecheck) say(node int, alive bool, why string) {
	l.mu.Lock()
	news := l.dead[node] == alive
	l.dead[node] = !alive
	l.mu.Unlock()
	if !news {
		return
	}
	word := "DEAD"
	if alive {
		word = "ALIVE"
	}
	l.w.log.Log(l.ctx, levelLog, fmt.Sprintf("lifecheck: node \"%s\" is %s", l.w.nodes[node].name(), word), "detail", why)
	if node == l.w.self.id {
		if !alive {
			l.w.lost(why)
		}
		return
	}
	l.w.input(election.Lifecheck{ID: node, Alive: alive})
}

// query asks every pgpool, this one too, by a query of its own.
func (l *lifecheck) query(c *conf.Config) {
	limit := c.WdInterval/2 + time.Second
	var round sync.WaitGroup
	for _, id := range l.w.ids() {
		n := l.w.nodes[id]
		round.Go(func() {
			ctx, cancel := context.WithTimeout(l.ctx, limit)
			defer cancel()
			err := l.w.host.Ask(ctx, n.host, n.pgpoolPort)
			if l.ctx.Err() != nil {
				return
			}
			l.mu.Lock()
			if err == nil {
				l.points[id] = 0
				l.pulses[id] = pulse{at: now()}
			} else {
				l.points[id]++
			}
			_, once := l.pulses[id]
			failed := once && l.points[id] >= c.WdLifePoint
			l.mu.Unlock()
			switch {
			case err == nil:
				l.say(id, true, "it answers")
			case failed:
				l.say(id, false, fmt.Sprintf("%d queries failed, the last: %v", c.WdLifePoint, err))
			}
		})
	}
	round.Wait()
	l.mu.Lock()
	complete := len(l.pulses) == len(l.w.nodes)
	l.mu.Unlock()
	l.complete(complete)
}

// trusted asks the hosts that are there if the network is: if none answers, this
// node is the one that is cut off.
func (l *lifecheck) trusted(c *conf.Config) {
	if c.TrustedServers == "" {
		return
	}
	if err := l.trusts(c); err != nil && l.ctx.Err() == nil {
		l.w.lost(err.Error())
	}
}

// trusts returns when the first of the trusted servers has answered, or none has.
func (l *lifecheck) trusts(c *conf.Config) error {
	var hosts []string
	for h := range strings.SplitSeq(c.TrustedServers, ",") {
		if h = strings.TrimSpace(h); h != "" {
			hosts = append(hosts, h)
		}
	}
	ctx, cancel := context.WithCancel(l.ctx)
	answers := make(chan bool, len(hosts))
	var asking sync.WaitGroup
	for _, h := range hosts {
		asking.Go(func() { answers <- reach(ctx, c, h) })
	}
	defer asking.Wait()
	defer cancel()
	for range hosts {
		if <-answers {
			return nil
		}
	}
	return fmt.Errorf("none of the trusted servers answers: %s", c.TrustedServers)
}

// reach runs trusted_server_command for a host.
func reach(ctx context.Context, c *conf.Config, host string) bool {
	words := strings.Fields(strings.ReplaceAll(c.TrustedServerCommand, "%h", host))
	if len(words) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, complete(words[0], c.PingPath, ""), words[1:]...)
	cmd.WaitDelay = 100 * time.Millisecond
	return cmd.Run() == nil
}

// watchLinks looks after the interfaces in wd_monitoring_interfaces_list.
func (l *lifecheck) watchLinks() {
	if list := l.w.config.Load().WdMonitoringInterfacesList; len(list) > 0 && !linked(list) {
		l.w.log.Warn("system has lost the network")
		l.w.lost("none of the interfaces in wd_monitoring_interfaces_list is up")
	}
}

// hearLinks looks when the kernel says that something has changed.
func (l *lifecheck) hearLinks() {
	changes := make(chan netlink.LinkUpdate)
	if netlink.LinkSubscribe(changes, l.ctx.Done()) != nil {
		return // then it is noticed a little later
	}
	for range changes {
		l.watchLinks()
	}
}

// linked reports that one of the interfaces is up and running; any stands for all
// but loopback.
func linked(list []string) bool {
	all, err := net.Interfaces()
	if err != nil {
		return true // that says nothing about the network
	}
	any := slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, "any") })
	return slices.ContainsFunc(all, func(i net.Interface) bool {
		up := i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0
		return up && (slices.Contains(list, i.Name) || any && i.Flags&net.FlagLoopback == 0)
	})
}

// lost: this node is cut off. It gives the lead and the address up, and the
// process is to end.
func (w *Watchdog) lost(why string) {
	w.gone.Do(func() {
		w.log.Error("this watchdog node is lost", "detail", why)
		w.input(election.Resign{Why: why})
		w.host.Lost(why)
	})
}
