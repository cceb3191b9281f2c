package watchdog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Order is what one member wants all to do.
type Order string

// What may be ordered. The names travel.
const (
	OrderReload        Order = "reload"
	OrderRotateLog     Order = "rotate log"
	OrderStopSmart     Order = "stop smart"
	OrderStopFast      Order = "stop fast"
	OrderStopImmediate Order = "stop immediate"
)

// order is an Order on its way. To names the very start of a process it is for,
// and ID grows, so that a recorded one is of no use to anybody.
type order struct {
	From    int
	To      int64 // started
	ID      uint64
	Command Order
}

// done answers an order.
type done struct {
	From  int
	ID    uint64
	Error string
}

// orders waits for answers, and remembers what was done.
type orders struct {
	mu      sync.Mutex
	waiting map[uint64]chan done
	last    map[int]uint64 // the newest order of each node that was begun
	results map[int]*done  // and what became of it; nil: not over
}

// Order has all other members that are there do something, and returns when they
// have; the caller sees to this node itself. The error names those that did not.
func (w *Watchdog) Order(ctx context.Context, command Order) error {
	s := w.state.Load()
	if s == nil {
		return nil
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad []string
	for _, m := range s.View(now()).Members {
		n := w.nodes[m.ID]
		a := n.about.Load()
		if m.ID == w.self.id || a == nil || !m.Alive {
			continue
		}
		wg.Go(func() {
			if err := w.orderOne(ctx, n, a.Started, command); err != nil {
				mu.Lock()
				bad = append(bad, fmt.Sprintf("%s: %v", n.name(), err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if bad != nil {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

// orderPatience is how long a member may take to do what it is told.
const orderPatience = 5 * time.Second

func (w *Watchdog) orderOne(ctx context.Context, n *node, started int64, command Order) error {
	w.mu.Lock()
	w.lastID = max(w.lastID+1, uint64(time.Now().UnixNano()))
	id := w.lastID
	w.mu.Unlock()
	answer := w.orders.expect(id)
	defer w.orders.forget(id)
	limit := time.NewTimer(orderPatience)
	defer limit.Stop()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		w.send(n, letter{Order: &order{From: w.self.id, To: started, ID: id, Command: command}}, true)
		select {
		case d := <-answer:
			if d.Error != "" {
				return errors.New(d.Error)
			}
			return nil
		case <-again.C:
		case <-limit.C:
			return errors.New("no answer")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.stopping:
			return errors.New("the watchdog has stopped")
		}
	}
}

func (o *orders) expect(id uint64) chan done {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting == nil {
		o.waiting = make(map[uint64]chan done)
	}
	c := make(chan done, 1)
	o.waiting[id] = c
	return c
}

func (o *orders) forget(id uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.waiting, id)
}

func (o *orders) answered(d done) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.waiting[d.ID]; c != nil {
		select {
		case c <- d:
		default:
		}
	}
}

// begin reports whether an order is new; if it is not, its result, where there
// is one.
func (o *orders) begin(r order) (fresh bool, result *done) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == nil {
		o.last, o.results = make(map[int]uint64), make(map[int]*done)
	}
	if r.ID <= o.last[r.From] {
		if d := o.results[r.From]; d != nil && d.ID == r.ID {
			return false, d
		}
		return false, nil
	}
	o.last[r.From], o.results[r.From] = r.ID, nil
	return true, nil
}

func (o *orders) end(from int, d done) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last[from] == d.ID {
		o.results[from] = &d
	}
}

// ordered does what another member wants, once however often it is asked.
func (w *Watchdog) ordered(r order) {
	n := w.nodes[r.From]
	if n == nil || n == w.self || r.To != w.started {
		w.strangers.note(fmt.Sprintf("an order that is not for this process, of node %d", r.From))
		return
	}
	fresh, result := w.orders.begin(r)
	if result != nil {
		w.send(n, letter{Done: result}, true)
	}
	if !fresh {
		return
	}
	w.work.Go(func() {
		w.log.Log(context.Background(), levelLog, fmt.Sprintf("watchdog: node \"%s\" orders: %s", n.name(), r.Command))
		d := done{From: w.self.id, ID: r.ID}
		if err := w.host.Ordered(r.Command); err != nil {
			d.Error = err.Error()
		}
		w.orders.end(r.From, d)
		w.send(n, letter{Done: &d}, true)
	})
}
