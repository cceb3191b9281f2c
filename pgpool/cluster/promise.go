package cluster

import (
	"slices"

	"pgpool-go/conf"
)

// What Reduce promises of every step, whatever happens. The simulation holds it to
// that, and so does a pgpool started with -x.

// broken says which promise the step from one snapshot to the next breaks.
func broken(old, s *Snapshot, ev Event, effects []Effect, cfg *conf.Config) string {
	switch changed := !s.equal(old); {
	case changed && s.Epoch != old.Epoch+1:
		return "a change without the next epoch"
	case !changed && s.Epoch != old.Epoch:
		return "an epoch without a change"
	}
	primaries := 0
	handled := s.Appoints() || s.Mode.Replicates() || cfg.FailoverCommand != "" || cfg.FailoverPromote || cfg.FollowPrimaryCommand != ""
	for i := range s.Nodes {
		n := &s.Nodes[i]
		o := old.Node(i)
		if o == nil { // added just now
			o = &Node{}
		}
		if n.Role == Primary {
			primaries++
		}
		_, asked := ev.(Detach)
		if d, differs := ev.(Diverged); differs {
			asked = d.Node == i
		}
		_, promoted := ev.(Promote)
		_, agreed := ev.(Agreed) // elsewhere it was asked for, or could be done something about
		switch {
		case n.Usable() && (i >= len(cfg.Backends) || !cfg.Backends[i].Used()):
			return "an unused slot is used"
		case n.Usable() && (n.Detached || n.Reach == Unreachable && !s.Mode.Replicates() || n.Excluded != ""):
			return "a node is used that must not be"
		case s.Mode.Replicates() && o.Used() && o.Detached && n.Used() && !n.Detached && o.Host == n.Host && o.Port == n.Port && !isAttach(ev):
			return "a node that was left out of writes came back by itself"
		case n.Used() && !n.Usable() && n.Reason == "":
			return "a node is not used and nobody knows why"
		case n.Detached && !o.Detached && n.Flag&conf.DisallowToFailover != 0 && !asked && !promoted && !agreed && n.By != byFollow:
			return "a DISALLOW_TO_FAILOVER node was detached"
		case n.Detached && !o.Detached && !asked && !promoted && !agreed && !cfg.DetachFalsePrimary && !handled:
			return "a node was detached though nothing is to be done about it"
		case n.Detached && !o.Detached && n.By == bySessions && n.Reach != Unreachable:
			return "a node was detached by suspicion"
		case o.Usable() && !n.Usable() && !slices.ContainsFunc(effects, func(e Effect) bool {
			d, ok := e.(DrainPool)
			return ok && d.Node == i
		}):
			return "a node went and its pool was not drained"
		case n.Status != o.Status && n.Changed.Equal(o.Changed):
			return "the time of the change is missing"
		}
	}
	if primaries > 1 || primaries == 1 && s.Nodes[s.Primary].Role != Primary || primaries == 0 && s.Primary >= 0 {
		return "not one primary"
	}
	for i, job := range slices.Concat(s.Jobs, s.Followers) {
		if i > 0 && i < len(s.Jobs) && job.Step != Queued {
			return "a job has begun before its time"
		}
	}
	if s.Primary >= 0 && !s.Nodes[s.Primary].Usable() {
		return "the primary cannot be used"
	}
	if s.Mode != conf.StreamingReplication || s.Primary < 0 || s.Nodes[s.Primary].Flag&conf.AlwaysPrimary != 0 {
		return ""
	}
	p := &s.Nodes[s.Primary]
	if p.PgRole == Standby {
		return "writes would go to a standby"
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if i != s.Primary && n.PgRole == Primary && n.Usable() && s.Probed() {
			return "reads would go to a second primary"
		}
		if n.ready() && n.PgRole == Primary && p.PgRole == Primary && n.Timeline > p.Timeline && s.Probed() {
			return "writes would go to the older primary"
		}
	}
	return ""
}

func isAttach(ev Event) bool {
	_, is := ev.(Attach)
	return is
}
