package session

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"pgpool-go/pgpool/backend"
)

var (
	processColumns = []string{
		"pool_pid", "start_time", "client_connection_count", "database", "username", "backend_connection_time", "pool_counter", "status",
	}
	poolColumns = []string{
		"pool_pid", "start_time", "client_connection_count", "pool_id", "backend_id", "database", "username",
		"backend_connection_time", "client_connection_time", "client_disconnection_time", "client_idle_duration",
		"majorversion", "minorversion", "pool_counter", "pool_backendpid", "pool_connected", "status",
		"load_balance_node", "client_host", "client_port", "statement",
	}
)

// pinnedColumn is added to SHOW POOL_PROCESSES where there are clients in
// transaction mode: why this one keeps its server between transactions.
const pinnedColumn = "pinned"

var shareColumns = []string{
	"node_id", "database", "username", "pool_size", "reserve_pool_size", "open", "idle", "clients_waiting", "longest_wait",
}

// showShares has a row for the server connections that clients in transaction mode
// have in turns, of each node, database and user.
func (s *Session) showShares() [][]string {
	list := s.Pool.Shares(s.task.Now())
	slices.SortFunc(list, func(a, b backend.ShareView) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Database, b.Database), cmp.Compare(a.User, b.User))
	})
	var rows [][]string
	for _, v := range list {
		rows = append(rows, []string{strconv.Itoa(v.Node), v.Database, v.User, strconv.Itoa(v.Size), strconv.Itoa(v.Reserve),
			strconv.Itoa(v.Open), strconv.Itoa(v.Idle), strconv.Itoa(v.Waiting), strconv.Itoa(int(v.Longest.Seconds()))})
	}
	return rows
}

// showProcesses has a row for every slot. The original's remark on when a child
// process will be started anew is never there: slots are not.
func (s *Session) showProcesses() [][]string {
	var rows [][]string
	for _, v := range s.Slots.Views() {
		row := []string{strconv.Itoa(v.ID), when(v.Started), strconv.Itoa(v.Clients), v.Database, v.User, "", "", v.Status.String()}
		for _, c := range v.Servers {
			if c.Main {
				row[5], row[6] = when(c.Born), strconv.Itoa(c.Uses+1)
			}
		}
		if s.cfg.TransactionMode() {
			row = append(row, v.Pinned)
		}
		rows = append(rows, row)
	}
	return rows
}

// Place is a row of SHOW POOL_POOLS and of pcp_proc_info: a place for a server
// connection, and the connection in it.
type Place struct {
	Slot       *View
	Pool, Node int

	Server         // PID 0: the place is empty
	Database, User string
	Connected      bool      // a client uses the connection
	Left           time.Time // when the last client to use it left, if none does
}

// Places lists the places for server connections of all slots: max_pool times
// one for each of nodes. A session's own connections are in its slot's pool 0.
//
// Idle connections belong to no slot here. They are shown where there is room,
// those of the same user and database side by side as the original has them, so
// that what is listed is what is open. Should there be more than the room of
// max_pool, further pools are listed.
func (sh *Shared) Places(nodes, maxPool int) []Place {
	views := sh.Slots.Views()
	type where struct{ slot, pool int }
	taken := make(map[where][]Place) // by node
	deepest := maxPool
	put := func(at where, p Place) {
		if taken[at] == nil {
			taken[at] = make([]Place, nodes)
		}
		if p.Server.Node < nodes {
			taken[at][p.Server.Node] = p
		}
		deepest = max(deepest, at.pool+1)
	}
	for i := range views {
		v := &views[i]
		for _, c := range v.Servers {
			put(where{i, 0}, Place{Server: c, Database: v.Database, User: v.User, Connected: true})
		}
	}
	var next where
	free := func() where {
		for {
			at := next
			if next.slot++; next.slot == len(views) {
				next = where{0, next.pool + 1}
			}
			if at.pool > 0 || views[at.slot].Status == WaitForConnection && taken[at] == nil {
				return at
			}
		}
	}
	for _, group := range idleGroups(sh.Pool.List()) {
		at := free()
		for _, c := range group {
			put(at, Place{Server: Server{Node: c.Node, PID: c.PID, Born: c.Born, Uses: c.Uses}, Database: c.Database, User: c.User, Left: c.Since})
		}
	}
	places := make([]Place, 0, len(views)*maxPool*nodes)
	for i := range views {
		for pool := range deepest {
			here := taken[where{i, pool}]
			if here == nil && pool >= maxPool {
				continue
			}
			for node := range nodes {
				var p Place
				if here != nil {
					p = here[node]
				}
				p.Slot, p.Pool, p.Node = &views[i], pool, node
				places = append(places, p)
			}
		}
	}
	return places
}

// idleGroups sorts idle connections into groups that look like what a session
// of the original leaves behind: one user and database, one connection a node.
func idleGroups(list []backend.Idle) [][]backend.Idle {
	slices.SortFunc(list, func(a, b backend.Idle) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.User, b.User), cmp.Compare(a.Settings, b.Settings),
			cmp.Compare(a.Node, b.Node), a.Born.Compare(b.Born))
	})
	same := func(a, b backend.Idle) bool {
		return a.Database == b.Database && a.User == b.User && a.Settings == b.Settings
	}
	var groups [][]backend.Idle
	first, nth := 0, 0 // the groups of this user, and which of them the node's next connection joins
	for i, c := range list {
		switch {
		case i == 0 || !same(list[i-1], c):
			first, nth = len(groups), len(groups)
		case list[i-1].Node != c.Node:
			nth = first
		}
		if nth == len(groups) {
			groups = append(groups, nil)
		}
		groups[nth] = append(groups[nth], c)
		nth++
	}
	return groups
}

func (s *Session) showPools() [][]string {
	now := s.task.Now()
	var rows [][]string
	for _, p := range s.Places(len(s.Cluster.Now().Nodes), s.cfg.MaxPool) {
		rows = append(rows, p.texts(now))
	}
	return rows
}

func (p *Place) texts(now time.Time) []string {
	v := p.Slot
	row := []string{
		strconv.Itoa(v.ID), when(v.Started), strconv.Itoa(v.Clients), strconv.Itoa(p.Pool), strconv.Itoa(p.Node),
		p.Database, p.User, "", "", "", "0", "0", "0", "0", "0", "0", v.Status.String(), "0", "", "", "",
	}
	if p.PID == 0 {
		return row
	}
	row[7], row[9], row[11] = when(p.Born), when(p.Left), "3"
	row[13], row[14] = strconv.Itoa(p.Uses), strconv.FormatUint(uint64(p.PID), 10)
	if !p.Connected {
		return row
	}
	row[8], row[9], row[10] = when(v.Since), when(v.LastLeft), v.IdleText(now)
	row[13], row[15] = strconv.Itoa(p.Uses+1), "1"
	if p.Node == v.Reader {
		row[17] = "1"
	}
	row[18], row[19], row[20] = v.Host, v.Port, p.Statement
	return row
}

// IdleText is how long the slot's client has been idle, in seconds, and how much
// longer it may be.
func (v *View) IdleText(now time.Time) string {
	var idle time.Duration
	if (v.Status == Idle || v.Status == IdleInTransaction) && !v.IdleSince.IsZero() {
		idle = max(0, now.Sub(v.IdleSince))
	}
	text := strconv.Itoa(int(idle.Seconds()))
	if v.IdleLimit > 0 {
		left := max(0, int((v.IdleLimit - idle).Seconds()))
		text += fmt.Sprintf(" (%d:%02d before client disconnected)", left/60, left%60)
	}
	return text
}
