package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgpool-go/conf"
)

// world is a set of servers that are promoted, rebuilt, cut off and lied
// about; what reaches the reducer is late, repeated or lost.
type world struct {
	r       *rand.Rand
	servers []Facts
	dead    []bool
	late    []Event
	orders  []uint64 // jobs whose commands run
	ordered map[uint64]bool
}

// obey takes the orders among effects: each is given once, and one at a time for
// the failovers and one for the followers.
func (w *world) obey(effects []Effect) string {
	for _, e := range effects {
		var job uint64
		switch e := e.(type) {
		case RunCommand:
			job = e.Job
		case PromoteBest:
			job = e.Job
		case Repoint:
			job = e.Job
		default:
			continue
		}
		if w.ordered[job] {
			return fmt.Sprintf("job %d was ordered twice", job)
		}
		w.ordered[job] = true
		w.orders = append(w.orders, job)
	}
	if len(w.orders) > 2 {
		return fmt.Sprintf("%d commands run at once", len(w.orders))
	}
	return ""
}

// end ends one of the commands under way, which may have promoted somebody.
func (w *world) end(id int) Event {
	i := w.r.IntN(len(w.orders))
	ev := Ended{Job: w.orders[i]}
	w.orders = slices.Delete(w.orders, i, i+1)
	if s := &w.servers[id]; w.r.IntN(2) == 0 && s.Role == Standby && !w.dead[id] {
		s.Role, s.Timeline = Primary, s.Timeline+1
	} else if w.r.IntN(2) == 0 {
		ev.Err = errors.New("exit status 1")
	}
	return ev
}

// step changes the world a little and gives the next event that arrives.
func (w *world) step(cfg *conf.Config) Event {
	id := w.r.IntN(len(w.servers))
	s := &w.servers[id]
	var ev Event
	if len(w.orders) > 0 && w.r.IntN(8) == 0 {
		return w.end(id) // that is not lost: it comes from this process
	}
	switch w.r.IntN(24) {
	case 0:
		w.dead[id] = !w.dead[id]
		ev = Suspected{id, errors.New("reset")}
	case 1: // promoted by someone
		if s.Role == Standby {
			s.Role, s.Timeline = Primary, s.Timeline+1
		}
		ev = Suspected{id, errors.New("reset")}
	case 2: // rebuilt as a standby of the newest
		newest := slices.MaxFunc(w.servers, func(a, b Facts) int { return int(a.Timeline) - int(b.Timeline) })
		*s = newest
		s.Role = Standby
		ev = Connected{id}
	case 3:
		ev = Attach{id, "pcp"}
	case 4:
		ev = Detach{id, "pcp", "asked for"}
	case 5:
		ev = Promote{id, "pcp", w.r.IntN(2) == 0}
	case 6:
		ev = ConfigChanged{cfg}
	case 7:
		ev = Measured{[]Delay{{Node: id, Bytes: w.r.Int64N(1000) - 10, State: "streaming"}}}
	case 8:
		ev = Probed{len(w.servers) + w.r.IntN(3), *s}
	case 9:
		ev = Probed{id, Facts{}} // refused
	case 10, 11:
		if w.dead[id] {
			ev = HealthFailed{id, "timeout"}
		} else {
			ev = Suspected{id, errors.New("reset")}
		}
	case 12:
		ev = ProbeFailed{Node: id, Cause: "stopping", Stopping: true}
	case 13:
		ev = Ended{Job: w.r.Uint64N(9)} // of a job that is long over, or not begun
	default:
		s.Position += uint64(w.r.IntN(100))
		if w.dead[id] {
			ev = ProbeFailed{Node: id, Cause: "timeout"}
		} else {
			ev = Probed{id, *s}
		}
	}
	switch w.r.IntN(10) {
	case 0: // late
		w.late = append(w.late, ev)
		return ConfigChanged{cfg}
	case 1: // repeated later
		w.late = append(w.late, ev)
	case 2:
		if len(w.late) > 0 {
			i := w.r.IntN(len(w.late))
			ev = w.late[i]
			w.late = slices.Delete(w.late, i, i+1)
		}
	}
	if e, ok := ev.(Ended); ok && slices.Contains(w.orders, e.Job) {
		return ConfigChanged{cfg} // the end of what runs comes from whoever runs it, when it has ended
	}
	return ev
}

func TestInvariants(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 30
	}
	configs := []*conf.Config{
		settings(t, 4, "backend_flag1 = 'DISALLOW_TO_FAILOVER'"),
		settings(t, 4, "backend_flag1 = 'DISALLOW_TO_FAILOVER'", "detach_false_primary = on"),
		settings(t, 4, "backend_flag1 = 'DISALLOW_TO_FAILOVER|ALWAYS_PRIMARY'"),
		settings(t, 3, "backend_hostname5 = 'h'", "backend_port5 = 5006"), // slots 3 and 4 are unused
		settings(t, 3, "backend_clustering_mode = 'native_replication'"),
		settings(t, 4, "backend_flag1 = 'DISALLOW_TO_FAILOVER'", "failover_command = 'f'", "follow_primary_command = 'g'",
			"failback_command = 'b'", "search_primary_node_timeout = 30", "auto_failback = on", "auto_failback_interval = 5"),
		settings(t, 3, "failover_promote = on", "follow_primary_command = 'auto'", "search_primary_node_timeout = 0", "failover_on_backend_shutdown = on"),
		settings(t, 3, "failover_command = 'f'", "detach_false_primary = on", "search_primary_node_timeout = 3"),
		settings(t, 3, "failover_command = 'f'", "backend_clustering_mode = 'raw'"),
	}
	seed := uint64(time.Now().UnixNano())
	for round := range rounds {
		seed++
		cfg := configs[round%len(configs)]
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			simulate(t, seed, cfg)
		})
		if t.Failed() {
			return
		}
	}
}

func simulate(t *testing.T, seed uint64, cfg *conf.Config) {
	w := &world{r: rand.New(rand.NewPCG(seed, 0)), ordered: map[uint64]bool{}}
	for i := range cfg.Backends {
		f := Facts{Role: Standby, SystemID: "a", Timeline: 1, Version: 150000}
		if i == 0 {
			f.Role = Primary
		}
		w.servers = append(w.servers, f)
		w.dead = append(w.dead, w.r.IntN(4) == 0)
	}
	now := time.Unix(0, 0)
	s := First(Rules{cfg, now})
	for i := range 300 {
		now = now.Add(time.Second)
		ev := w.step(cfg)
		before := s.clone()
		next, effects := Reduce(s, ev, Rules{cfg, now})
		if !s.equal(&before) {
			t.Fatalf("step %d, %T: the old snapshot was changed", i, ev)
		}
		if bad := broken(&s, &next, ev, effects, cfg); bad != "" {
			t.Fatalf("step %d, %#v: %s\nbefore %s\nafter  %s", i, ev, bad, state(&s), state(&next))
		}
		if bad := w.obey(effects); bad != "" {
			t.Fatalf("step %d, %#v: %s\nbefore %s\nafter  %s", i, ev, bad, state(&s), state(&next))
		}
		again, _ := Reduce(s, ev, Rules{cfg, now})
		if !again.equal(&next) {
			t.Fatalf("step %d, %#v: not the same answer twice", i, ev)
		}
		s = next
	}
}
