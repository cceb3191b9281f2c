package route

import (
	"pgpool-go/conf"
	"pgpool-go/pgpool/cluster"
)

// DrawInput is what a draw of the load-balance node considers.
type DrawInput struct {
	Cluster    *cluster.Snapshot
	Rules      *Rules
	Preference Preference
	// StandbyOnly leaves the primary out (pgpool.target = standby).
	StandbyOnly bool
}

// Draw chooses the node for reads. random is in [0,1) and decides by weight. The
// node is -1 if none can be used. The delay is considered too.
func Draw(in DrawInput, random float64) (node int, reason Reason) {
	node, reason = in.draw(random)
	if node < 0 {
		return node, ReasonNoNode
	}
	return in.delay(node, reason)
}

// draw chooses by preference and weight alone.
func (in DrawInput) draw(random float64) (int, Reason) {
	c, p := in.Cluster, in.Preference
	all := func(id int) bool { return !in.StandbyOnly || id != c.Primary }
	standbys := func(id int) bool { return id != c.Primary }
	if !p.Found {
		return in.byWeight(random, all)
	}
	// One random number serves twice: below the rule's weight it is spread over
	// the preferred nodes, above over the others.
	follow := random < p.Weight
	if follow {
		random /= p.Weight
	} else if p.Weight < 1 {
		random = (random - p.Weight) / (1 - p.Weight)
	}
	switch p.Target {
	case conf.ToPrimary:
		if follow && c.Usable(c.Primary) {
			return c.Primary, ReasonPreference
		}
		if !follow {
			return in.byWeight(random, standbys)
		}
	case conf.ToStandby:
		if !follow && c.Usable(c.Primary) {
			return c.Primary, ReasonPreference
		}
		if n, _ := in.weighted(random, standbys, true); n >= 0 {
			return n, ReasonPreference
		}
	default:
		want := p.Node
		if want >= len(c.Nodes) {
			want = 0 // so the original
		}
		if !follow {
			return in.byWeight(random, func(id int) bool { return id != want && all(id) })
		}
		if readable(c, want) {
			return want, ReasonPreference
		}
	}
	return in.byWeight(random, all)
}

// byWeight draws among the nodes allowed; if none has weight, the primary reads.
func (in DrawInput) byWeight(random float64, allowed func(int) bool) (int, Reason) {
	if n, ok := in.weighted(random, allowed, false); ok {
		if n == in.Cluster.Primary {
			return n, ReasonPrimaryDrawn
		}
		return n, ReasonRead
	}
	if n := home(in.Cluster); n >= 0 {
		return n, ReasonNoStandby
	}
	return -1, ReasonNoNode
}

// weighted walks the readable nodes in order of id until their weights exceed
// the share that random points at. equal: nodes without weight count alike if
// no node has any.
func (in DrawInput) weighted(random float64, allowed func(int) bool, equal bool) (int, bool) {
	c := in.Cluster
	sum := 0.0
	count := 0
	for id := range c.Nodes {
		if allowed(id) && readable(c, id) {
			sum += c.Nodes[id].Weight
			count++
		}
	}
	if count == 0 || sum <= 0 && !equal {
		return -1, false
	}
	flat := sum <= 0
	if flat {
		sum = float64(count)
	}
	point, last := random*sum, -1
	for id := range c.Nodes {
		if !allowed(id) || !readable(c, id) {
			continue
		}
		w := c.Nodes[id].Weight
		if flat {
			w = 1
		}
		if w <= 0 {
			continue
		}
		last = id
		if point < w {
			return id, true
		}
		point -= w
	}
	return last, last >= 0
}

// delay replaces a node that lags too far.
func (in DrawInput) delay(node int, reason Reason) (int, Reason) {
	c, r := in.Cluster, in.Rules
	if node == c.Primary || !lags(c, r, node) {
		return node, reason
	}
	if r.PreferLowerDelay {
		best := -1
		for id := range c.Nodes {
			if id != c.Primary && readable(c, id) && c.Nodes[id].Weight > 0 && !lags(c, r, id) && (best < 0 || less(c, r, id, best)) {
				best = id
			}
		}
		if best >= 0 {
			return best, ReasonLowerDelay
		}
	}
	if c.Usable(c.Primary) {
		return c.Primary, ReasonLag
	}
	return node, reason // late news are better than none
}

// lags reports whether a standby is further behind than the operator allows.
func lags(c *cluster.Snapshot, r *Rules, node int) bool {
	n := c.Node(node)
	if r.DelayThresholdTime > 0 {
		return n.LagTime > r.DelayThresholdTime
	}
	return r.DelayThreshold > 0 && n.Lag > r.DelayThreshold
}

func less(c *cluster.Snapshot, r *Rules, a, b int) bool {
	if r.DelayThresholdTime > 0 {
		return c.Nodes[a].LagTime < c.Nodes[b].LagTime
	}
	return c.Nodes[a].Lag < c.Nodes[b].Lag
}

// readable reports whether reads may go to a node: the primary, or a standby
// that is not known to have lost its primary.
func readable(c *cluster.Snapshot, id int) bool {
	n := c.Node(id)
	if n == nil || !n.Usable() {
		return false
	}
	return id == c.Primary || n.ReplicationState == "" || n.ReplicationState == "streaming"
}

// home is the node for everything that is not balanced: the primary, or where
// there is none the first node that can be used. It must be able to refuse a write,
// which a node that is not a standby does not.
func home(c *cluster.Snapshot) int {
	if c.Usable(c.Primary) {
		return c.Primary
	}
	if c.Appoints() {
		return -1
	}
	for id := range c.Nodes {
		if c.Nodes[id].Usable() {
			return id
		}
	}
	return -1
}
