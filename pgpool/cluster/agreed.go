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

const (
	byGroup         = "watchdog"
	detachedByGroup = "detached by the group of pgpools"
)

// agreed changes what is decided and runs nothing: the leader has run what there was.
func (t *turn) agreed(ev Agreed) {
	for _, a := range ev.Nodes {
		n := t.used(a.Node)
		if n == nil {
			continue
		}
		if n.Detached == a.Detached {
			if a.Detached && takenBack(n.By) { // no longer ours to take back: the leader does, for all
				n.Reason, n.By = detachedByGroup, byGroup
			}
			continue
		}
		n.Detached, n.Suspect, n.Quarantined, n.Reason, n.By = a.Detached, false, false, "", byGroup
		if a.Detached {
			n.Reason = detachedByGroup
		}
		if n.PgRole == Primary || n.ID == t.next.LastPrimary {
			t.forget() // the group knows better which primary is true
		}
		t.do(ProbeNow{n.ID})
	}
}
