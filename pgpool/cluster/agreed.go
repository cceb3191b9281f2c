package cluster

// Agreed: this is what the group of pgpools has decided on nodes, which stands
// above what this one has.
type Agreed struct{ Nodes []AgreedNode }

// AgreedNode is one node's state as it was decided.
type AgreedNode struct {
	Node     int
	Detached bool
}

func (Agreed) event() {}

const byGroup = "watchdog"

func (t *turn) agreed(ev Agreed) {
	for _, a := range ev.Nodes {
		n := t.used(a.Node)
		switch {
		case n == nil || n.Detached == a.Detached:
		case a.Detached:
			t.detach(Detach{Node: a.Node, By: byGroup, Reason: "detached by the group of pgpools"})
		default:
			t.attach(Attach{Node: a.Node, By: byGroup})
		}
	}
}
