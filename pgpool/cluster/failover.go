package cluster

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgpool-go/conf"
)

// Kind is what a job is about.
type Kind int8

// Kinds of jobs.
const (
	Failover  Kind = iota // a node was detached
	Failback              // a node was attached
	Promotion             // a node was made the primary
	Follow                // a node is to follow the new primary
)

// Step is how far a job has come.
type Step int8

// Steps, in their order.
const (
	Queued    Step = iota
	Running        // its command runs; Ended will tell of its end
	Searching      // a primary is looked for
)

// Job is what a change of the cluster has yet to bring about. One is done after
// the other: a failover_command sees what the one before it has left.
type Job struct {
	ID   uint64
	Kind Kind
	Node int
	Step Step

	// Who played which part when it was decided; -1, nobody.
	OldMain, OldPrimary int
	// NewMain is who is to take over: the lowest node that is left when the job
	// begins, unless somebody has chosen.
	NewMain int

	Until time.Time // when the search for a primary is given up; zero, never
}

const (
	// What sessions suspect is confirmed by probes for this long before a node is
	// failed over: nobody waits for a standby, which is not used meanwhile, and it
	// may just have been restarted.
	doubtPrimary = 2 * time.Second
	doubtStandby = 10 * time.Second
)

// handled tells whether the operator has said what is to be done when a node
// fails. If not, there is nothing to be failed over to: a node that does not
// answer is not used, and used again when it does.
func (t *turn) handled() bool {
	c := t.rules.Config
	if t.next.Appoints() && t.replaceable() {
		return true
	}
	return t.next.Mode.Replicates() || c.FailoverCommand != "" || c.FailoverPromote || c.FollowPrimaryCommand != ""
}

func (t *turn) healthFailed(ev HealthFailed) {
	n := t.used(ev.Node)
	if n != nil && !n.Detached && n.Flag&conf.DisallowToFailover == 0 && t.handled() {
		n.Reach = Unreachable
		t.propose(n, ev.Cause, byHealth)
	}
}

// suspected: a session's trouble is no proof of anything, but reason for a probe.
func (t *turn) suspected(ev Suspected) {
	n := t.used(ev.Node)
	if n == nil {
		return
	}
	n.Suspect = !n.Detached && t.handled()
	t.do(ProbeNow{ev.Node})
}

// weigh decides whether a node that sessions had trouble with, and that does not
// answer our probes either, is to be failed over.
func (t *turn) weigh(n *Node, stopping bool) {
	c := t.rules.Config
	if !n.Suspect || !t.handled() || n.Flag&conf.DisallowToFailover != 0 {
		return
	}
	doubt := doubtStandby
	if n.ID == t.next.LastPrimary || t.next.Mode.Replicates() {
		doubt = doubtPrimary
	}
	switch {
	case stopping && c.FailoverOnBackendShutdown:
		t.propose(n, n.Reason, "failover_on_backend_shutdown")
	case !stopping && c.FailoverOnBackendError && t.rules.Now.Sub(n.Failing) >= doubt:
		t.propose(n, n.Reason, bySessions)
	}
}

// propose has a node failed over: at once where this pgpool decides alone, else
// when the group does. Until then it is in quarantine: not used here, and asked on;
// the question to the group is put again as long as the reason lasts.
func (t *turn) propose(n *Node, reason, by string) {
	if !t.rules.Config.UseWatchdog {
		t.failover(n, reason, by)
		return
	}
	if !t.next.Mode.Replicates() { // there a node must not come back from it
		n.Quarantined, n.Reason, n.By = true, reason, by
	}
	t.do(AskVote{Node: n.ID, Reason: reason})
}

// failover detaches a node and sees to the consequences.
func (t *turn) failover(n *Node, reason, by string) {
	if t.lastReplica(n, by) {
		return
	}
	t.enqueue(Failover, n.ID, -1)
	n.Detached, n.Suspect, n.Quarantined, n.Reason, n.By = true, false, false, reason, by
}

// enqueue is called before the change that the job is about.
func (t *turn) enqueue(kind Kind, node, newMain int) {
	s := &t.next
	s.LastJob++
	primary := s.Primary
	if primary < 0 {
		primary = s.LastPrimary
	}
	s.Jobs = append(s.Jobs, Job{ID: s.LastJob, Kind: kind, Node: node, OldMain: s.attachedMain(), OldPrimary: primary, NewMain: newMain})
}

// Attached tells whether any node is, so that one may come to be used without
// anybody's doing.
func (s *Snapshot) Attached() bool { return s.attachedMain() >= 0 }

// attachedMain is the main node as far as it was decided: a node that only does
// not answer at the moment keeps the part.
func (s *Snapshot) attachedMain() int {
	return slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Used() && !n.Detached })
}

// failBack attaches a standby that was detached and streams again: auto_failback.
func (t *turn) failBack(n *Node) {
	s, c := &t.next, t.rules.Config
	if s.Mode.Replicates() || !c.AutoFailback || !n.Detached || n.PgRole != Standby || n.ReplicationState != "streaming" ||
		len(s.Jobs) > 0 || len(s.Followers) > 0 {
		return
	}
	if !s.LastFailback.IsZero() && t.rules.Now.Sub(s.LastFailback) <= c.AutoFailbackInterval {
		return
	}
	s.LastFailback = t.rules.Now
	t.say(levelLog, "it streams from the primary again", "request auto failback, node id:%d", n.ID)
	if c.UseWatchdog {
		t.do(AskVote{Node: n.ID, Attach: true})
		return
	}
	t.attach(Attach{Node: n.ID, By: byFailback})
}

// ended notes the end of what a job has had done.
func (t *turn) ended(ev Ended) {
	s := &t.next
	job, follows := first(s.Jobs), false
	if job == nil || job.ID != ev.Job {
		job, follows = first(s.Followers), true
	}
	if job == nil || job.ID != ev.Job || job.Step != Running {
		return
	}
	if ev.Err != nil {
		t.say(slog.LevelWarn, ev.Err.Error(), "%s of node %d: what was to be done for it has failed", job.Kind, job.Node)
	}
	if follows {
		s.Followers = s.Followers[1:]
		t.do(ProbeNow{job.Node})
		return
	}
	job.Step = Searching
	if limit := t.rules.Config.SearchPrimaryNodeTimeout; limit > 0 {
		job.Until = t.rules.Now.Add(limit)
	}
	for i := range s.Nodes {
		if s.Nodes[i].Usable() && t.changesPrimary(job) {
			t.do(ProbeNow{i})
		}
	}
}

func first(jobs []Job) *Job {
	if len(jobs) == 0 {
		return nil
	}
	return &jobs[0]
}

// work takes the jobs as far as they can go now. It reports whether it has
// detached a node, from which more may follow.
func (t *turn) work() bool {
	s := &t.next
	changed := false
	for !changed && len(s.Jobs) > 0 {
		job := &s.Jobs[0]
		if job.Step == Queued {
			t.begin(job)
		}
		if job.Step == Running || t.searching(job) {
			break
		}
		t.done(job)
		changed = t.follow(job)
		s.Jobs = s.Jobs[1:]
	}
	for len(s.Followers) > 0 && s.Followers[0].Step == Queued {
		t.lead(&s.Followers[0])
		if s.Followers[0].Step != Running {
			s.Followers = s.Followers[1:]
		}
	}
	return changed
}

// begin has done what a job is to begin with.
func (t *turn) begin(job *Job) {
	c := t.rules.Config
	n := &t.next.Nodes[job.Node]
	if job.Kind == Failover && job.Node != job.OldPrimary && t.next.Primary >= 0 {
		job.OldPrimary = t.next.Primary // an earlier job has found another one
	}
	chosen := job.NewMain
	if chosen < 0 {
		job.NewMain = t.next.Main
	}
	job.Step = Running
	switch job.Kind {
	case Failover:
		t.say(levelLog, "", "starting degeneration. shutdown host %s(%d)", n.Host, n.Port)
		switch {
		case c.FailoverCommand != "":
			t.run(job, "failover_command", c.FailoverCommand)
		case c.FailoverPromote && t.next.Mode == conf.StreamingReplication && t.changesPrimary(job):
			t.order(PromoteBest{job.ID, t.candidates(chosen)})
		default:
			t.ended(Ended{Job: job.ID})
		}
	case Failback:
		t.say(levelLog, "", "starting fail back. reconnect host %s(%d)", n.Host, n.Port)
		if c.FailbackCommand != "" {
			t.run(job, "failback_command", c.FailbackCommand)
		} else {
			t.ended(Ended{Job: job.ID})
		}
	case Promotion:
		t.say(levelLog, "", "starting promotion. promote host %s(%d)", n.Host, n.Port)
		t.ended(Ended{Job: job.ID})
	}
}

// candidates are the standbys that may be promoted: the one that was chosen, or
// all that can be used.
func (t *turn) candidates(chosen int) []int {
	var all []int
	for i := range t.next.Nodes {
		n := &t.next.Nodes[i]
		if n.Usable() && n.PgRole == Standby && (chosen < 0 || i == chosen) {
			all = append(all, i)
		}
	}
	return all
}

func (t *turn) run(job *Job, name, command string) {
	line := t.next.expand(command, job)
	t.say(levelLog, "", "execute command: %s", line)
	t.order(RunCommand{job.ID, name, line})
}

// changesPrimary tells whether the cluster has another primary after a job.
func (t *turn) changesPrimary(job *Job) bool {
	return t.next.Mode == conf.StreamingReplication &&
		(job.Kind == Promotion || job.Kind == Failover && job.Node == job.OldPrimary)
}

// searching tells whether a job still waits for a primary.
func (t *turn) searching(job *Job) bool {
	if !t.changesPrimary(job) || t.next.Primary >= 0 {
		return false
	}
	if !t.next.Attached() {
		t.say(slog.LevelWarn, t.next.Why(), "no node is left that could become the primary")
		return false
	}
	if job.Until.IsZero() || t.rules.Now.Before(job.Until) {
		return true
	}
	t.say(slog.LevelWarn, t.next.Why(), "no primary node was found within search_primary_node_timeout")
	return false
}

// done says that a job is done, in words that scripts wait for.
func (t *turn) done(job *Job) {
	s := &t.next
	n := &s.Nodes[job.Node]
	if job.Kind != Failback {
		t.say(levelLog, "", "failover: set new primary node: %d", s.Primary)
		t.say(levelLog, "", "failover: set new main node: %d", s.Main)
	}
	switch job.Kind {
	case Failover:
		t.say(levelLog, "", "failover done. shutdown host %s(%d)", n.Host, n.Port)
	case Failback:
		t.say(levelLog, "", "failback done. reconnect host %s(%d)", n.Host, n.Port)
	case Promotion:
		t.say(levelLog, "", "promotion done. promoted host %s(%d)", n.Host, n.Port)
	}
}

// FollowAuto as follow_primary_command stands for doing it by SQL.
const FollowAuto = "auto"

// follow has the others follow a new primary. With a command they are detached
// until somebody attaches them, as the command is to do in its end: it may well
// rebuild them. The old primary is among them. It reports whether any was detached.
func (t *turn) follow(job *Job) bool {
	s, command := &t.next, t.rules.Config.FollowPrimaryCommand
	if command == "" || !t.changesPrimary(job) || s.Primary < 0 || s.Primary == job.OldPrimary {
		return false
	}
	detached := 0
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if i == s.Primary || !n.Used() || command == FollowAuto && !(n.Usable() && n.PgRole == Standby) {
			continue
		}
		s.LastJob++
		s.Followers = append(s.Followers, Job{ID: s.LastJob, Kind: Follow, Node: i,
			OldMain: job.OldMain, OldPrimary: job.OldPrimary, NewMain: s.Primary})
		if command == FollowAuto {
			continue
		}
		t.say(levelLog, "", "starting follow degeneration. shutdown host %s(%d)", n.Host, n.Port)
		if detached++; !n.Detached {
			n.Detached, n.Suspect, n.By = true, false, byFollow
			n.Reason = fmt.Sprintf("it is to follow the new primary, node %d", s.Primary)
		}
	}
	if detached > 0 {
		t.say(levelLog, "", "failover: %d follow backends have been degenerated", detached)
	}
	return detached > 0
}

// lead has one node follow.
func (t *turn) lead(job *Job) {
	switch command := t.rules.Config.FollowPrimaryCommand; command {
	case "":
	case FollowAuto:
		job.Step = Running
		t.order(Repoint{job.ID, job.Node, job.NewMain})
	default:
		job.Step = Running
		t.run(job, "follow_primary_command", command)
	}
}

// String names the kind for the log.
func (k Kind) String() string {
	return [...]string{"failover", "failback", "promotion", "follow primary"}[k]
}

// expand replaces the placeholders of a command. Nobody is -1, with empty text for
// all that would be said of it; what is no placeholder stays as it is.
func (s *Snapshot) expand(command string, job *Job) string {
	var b strings.Builder
	for i := 0; i < len(command); i++ {
		if command[i] != '%' || i+1 == len(command) {
			b.WriteByte(command[i])
			continue
		}
		i++
		text := func(id int, what func(*Node) string) {
			if n := s.Node(id); n != nil {
				b.WriteString(what(n))
			}
		}
		switch command[i] {
		case 'd':
			b.WriteString(strconv.Itoa(job.Node))
		case 'h':
			text(job.Node, host)
		case 'p':
			text(job.Node, port)
		case 'D':
			text(job.Node, directory)
		case 'm':
			b.WriteString(strconv.Itoa(job.NewMain))
		case 'H':
			text(job.NewMain, host)
		case 'r':
			text(job.NewMain, port)
		case 'R':
			text(job.NewMain, directory)
		case 'M':
			b.WriteString(strconv.Itoa(job.OldMain))
		case 'P':
			b.WriteString(strconv.Itoa(job.OldPrimary))
		case 'N':
			text(job.OldPrimary, host)
		case 'S':
			text(job.OldPrimary, port)
		case '%':
			b.WriteByte('%')
		default:
			b.WriteString(command[i-1 : i+1])
		}
	}
	return b.String()
}

func host(n *Node) string      { return n.Host }
func port(n *Node) string      { return strconv.Itoa(n.Port) }
func directory(n *Node) string { return n.DataDirectory }
