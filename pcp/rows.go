package pcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// weightScale is what a share is multiplied by on the wire: C's RAND_MAX.
const weightScale = 2147483647

// maxDescription is where the original cuts the description of a setting.
const maxDescription = 79

// Each listing is written and read here, field beside field, so that the two
// ends cannot drift apart.

func (n *Node) append(b body, layout Layout) body {
	b = b.text(n.Host).int(int64(n.Port)).int(int64(n.Status)).bool(n.Quarantined)
	b = b.text(n.PgStatus).float(n.Weight * weightScale).int(int64(n.Role)).text(n.PgRole)
	if layout >= LayoutNew {
		b = b.bool(n.DelayByTime)
	}
	b = b.int(n.Delay).text(n.ReplicationState).text(n.ReplicationSyncState)
	return b.int(n.Changed.Unix())
}

// parse tells the layouts apart by their number of fields.
func (n *Node) parse(v *values) error {
	n.Fields = v.count()
	byTime := n.Fields > 12
	n.Host = v.text()
	n.Port = int(v.int())
	n.Status = NodeStatus(v.int())
	n.Quarantined = v.int() != 0
	n.PgStatus = v.text()
	n.Weight = v.float() / weightScale
	n.Role = Role(v.int())
	n.PgRole = v.text()
	if byTime {
		n.DelayByTime = v.int() != 0
	}
	n.Delay = v.int()
	n.ReplicationState = v.text()
	n.ReplicationSyncState = v.text()
	n.Changed = time.Unix(v.int(), 0)
	return v.err
}

func (h *HealthStats) append(b body) body {
	b = b.int(int64(h.NodeID)).text(h.Host).int(int64(h.Port)).text(h.Status).text(h.Role).text(h.LastChange)
	b = b.int(h.Total).int(h.Success).int(h.Fail).int(h.Skip).int(h.Retry)
	b = b.float(h.AverageRetry).int(h.MaxRetry)
	b = b.int(h.MaxDuration).int(h.MinDuration).float(h.AverageDuration)
	return b.text(h.LastCheck).text(h.LastSuccess).text(h.LastSkip).text(h.LastFail)
}

func (h *HealthStats) parse(v *values) error {
	h.NodeID = int(v.int())
	h.Host = v.text()
	h.Port = int(v.int())
	h.Status, h.Role, h.LastChange = v.text(), v.text(), v.text()
	h.Total, h.Success, h.Fail, h.Skip, h.Retry = v.int(), v.int(), v.int(), v.int(), v.int()
	h.AverageRetry, h.MaxRetry = v.float(), v.int()
	h.MaxDuration, h.MinDuration, h.AverageDuration = v.int(), v.int(), v.float()
	h.LastCheck, h.LastSuccess, h.LastSkip, h.LastFail = v.text(), v.text(), v.text(), v.text()
	return v.err
}

func (p *Process) append(b body, layout Layout) body {
	b = b.int(int64(p.PID)).text(p.Start).int(p.ClientConnections)
	b = b.int(int64(p.PoolID)).int(int64(p.BackendID)).text(p.Database).text(p.User)
	b = b.text(p.BackendConnected).text(p.ClientConnected).text(p.ClientDisconnected)
	idle := p.Idle
	if idle == "" {
		idle = "0"
	}
	b = b.text(idle).int(int64(p.Major)).int(int64(p.Minor)).int(p.PoolCounter)
	b = b.int(int64(p.BackendPID)).bool(p.Connected).text(p.Status)
	if layout >= LayoutNew {
		b = b.bool(p.LoadBalanceNode).text(p.ClientHost).text(p.ClientPort).text(p.Statement)
	}
	return b
}

func (p *Process) parse(v *values) error {
	p.Fields = v.count()
	p.PID = int(v.int())
	p.Start = v.text()
	p.ClientConnections = v.int()
	p.PoolID, p.BackendID = int(v.int()), int(v.int())
	p.Database, p.User = v.text(), v.text()
	p.BackendConnected, p.ClientConnected, p.ClientDisconnected = v.text(), v.text(), v.text()
	p.Idle = v.text()
	p.Major, p.Minor = int(v.int()), int(v.int())
	p.PoolCounter = v.int()
	p.BackendPID = int(v.int())
	p.Connected = v.int() != 0
	p.Status = v.text()
	if p.Fields >= 18 {
		p.LoadBalanceNode = v.int() != 0
	}
	if p.Fields >= 21 {
		p.ClientHost, p.ClientPort, p.Statement = v.text(), v.text(), v.text()
	}
	return v.err
}

func (s *Setting) append(b body) body {
	description := s.Description
	if len(description) > maxDescription {
		description = strings.ToValidUTF8(description[:maxDescription], "")
	}
	return b.text(s.Name).text(s.Value).text(description)
}

func (s *Setting) parse(v *values) error {
	s.Name, s.Value, s.Description = v.text(), v.text(), v.text()
	return v.err
}

// notSet stands for what is unknown of a watchdog member.
const notSet = "Not_Set"

// only leaves the member with this id, or in its place one that says there is
// none: in the original that is no error. A negative id leaves all.
func (w Watchdog) only(id int) Watchdog {
	if id >= 0 {
		found := []WatchdogNode{{
			ID: -1, State: -1, Membership: -1, MembershipString: notSet,
			Name: notSet, Host: notSet, StateName: notSet, DelegateIP: notSet,
		}}
		for _, n := range w.Nodes {
			if n.ID == id {
				found[0] = n
			}
		}
		w.Nodes = found
	}
	return w
}

func (w Watchdog) append(b body, layout Layout) (body, error) {
	nodes := make([]WatchdogNode, len(w.Nodes))
	for i, n := range w.Nodes {
		switch {
		case layout < LayoutNew:
			n.LifecheckStarted = nil
		case n.LifecheckStarted == nil: // the newer tools insist on it
			n.LifecheckStarted = new(Flag)
		}
		nodes[i] = n
	}
	w.Nodes, w.NodeCount = nodes, len(nodes)
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(w); err != nil {
		return nil, err
	}
	return b.text(strings.TrimSpace(text.String())), nil
}

func (w *Watchdog) parse(v *values) error {
	text := v.text()
	if v.err != nil {
		return v.err
	}
	if err := json.Unmarshal([]byte(text), w); err != nil {
		return err
	}
	if w.NodeCount != len(w.Nodes) {
		return fmt.Errorf("%d watchdog nodes announced, %d sent", w.NodeCount, len(w.Nodes))
	}
	if w.NodeCount == 0 {
		return errors.New("no watchdog node")
	}
	return nil
}
