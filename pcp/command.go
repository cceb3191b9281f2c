package pcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// What an error that brings no words of its own is called.
const (
	failedNodeInfo     = "informing node info failed"
	failedHealthStats  = "informing health check stats info failed"
	failedProcInfo     = "informing process info failed"
	failedWatchdogInfo = "PCP: informing watchdog info failed"
	failedPromote      = "could not process promote request"
	failedRecovery     = "process recovery request failed"
	failedStop         = "PCP: error while processing shutdown request"
	failedReload       = "PCP: error while processing reload config request"
	failedLogRotate    = "process log rotation request failed"
	failedSet          = "PCP: set configuration parameter failed"
)

// command is what the server does for one letter.
type command struct {
	name    Command
	reply   byte // not always the lower case of the request's letter
	failed  string
	changes bool // more than a question: logged
	run     func(ctx context.Context, q *request) error
}

// request is one command on its way: run reads args and writes out.
type request struct {
	*command
	admin  Admin
	layout Layout
	letter byte
	args   values
	out    []byte
	after  func() // to be done once out is sent
}

var commands = map[byte]*command{
	'L': {NodeCount, 'l', "informing node count failed", false, runNodeCount},
	'I': {NodeInfo, 'i', failedNodeInfo, false, runNodeInfo},
	'H': {HealthCheckStats, 'h', failedHealthStats, false, runHealthStats},
	'N': {ProcCount, 'n', "informing process count failed", false, runProcCount},
	'P': {ProcInfo, 'p', failedProcInfo, false, runProcInfo},
	'B': {PoolStatus, 'b', "informing pool status failed", false, runPoolStatus},
	'W': {WatchdogInfo, 'w', failedWatchdogInfo, false, runWatchdogInfo},
	'C': {AttachNode, 'c', "could not process attach request", true, runAttach},
	'D': {DetachNode, 'd', "could not process detach request", true, runDetach},
	'd': {DetachNode, 'd', "could not process detach request", true, runDetach},
	'J': {PromoteNode, 'd', failedPromote, true, runPromote},
	'j': {PromoteNode, 'd', failedPromote, true, runPromote},
	'O': {RecoveryNode, 'c', failedRecovery, true, runRecovery},
	'T': {StopPgpool, 't', failedStop, true, runStop},
	't': {StopPgpool, 't', failedStop, true, runStop},
	'Z': {ReloadConfig, 'z', failedReload, true, runReload},
	'V': {LogRotate, 'v', failedLogRotate, true, runLogRotate},
	'G': {InvalidateCache, 'g', "could not invalidate the query cache", true, runInvalidateCache},
	'A': {SetParameter, 'a', failedSet, false, runSetParameter},
}

// Marks at the beginning of a reply's messages.
const (
	complete  = "CommandComplete"
	arraySize = "ArraySize"
)

func (q *request) send(b body) { q.out = appendMessage(q.out, q.reply, b) }

// done is the last message of a reply.
func (q *request) done() error {
	q.send(body{}.text(complete))
	return nil
}

// option is the letter that follows the values of some requests.
func (q *request) option() byte {
	if q.args.err != nil || len(q.args.rest) == 0 {
		return 0
	}
	return q.args.rest[0]
}

// node reads a node id. What it cannot understand it refuses: the original
// takes it for node 0.
func (q *request) node() (int, error) {
	id := q.args.int()
	if q.args.err != nil {
		return 0, NewError(q.failed, "invalid node id: "+q.args.err.Error())
	}
	return int(id), nil
}

func runNodeCount(ctx context.Context, q *request) error {
	n, err := q.admin.NodeCount(ctx)
	if err != nil {
		return err
	}
	q.send(body{}.text(complete).int(int64(n)))
	return nil
}

func runNodeInfo(ctx context.Context, q *request) error {
	id, err := q.node()
	if err != nil {
		return err
	}
	count, err := q.admin.NodeCount(ctx)
	if err != nil {
		return err
	}
	if id < All || id >= count {
		return NewError(q.failed, fmt.Sprintf("invalid node ID : %d", id))
	}
	nodes, err := q.admin.Nodes(ctx, id)
	if err != nil {
		return err
	}
	q.send(body{}.text(arraySize).int(int64(len(nodes))))
	for _, n := range nodes {
		q.send(n.append(body{}.text("NodeInfo"), q.layout))
	}
	return q.done()
}

func runHealthStats(ctx context.Context, q *request) error {
	id, err := q.node()
	if err != nil {
		return err
	}
	count, err := q.admin.NodeCount(ctx)
	switch {
	case err != nil:
		return err
	case id == count: // the original is off by one here, and has other words for it
		return NoStats(id)
	case id < 0 || id > count:
		return NewError(q.failed, fmt.Sprintf("invalid node ID %d", id))
	}
	stats, err := q.admin.HealthStats(ctx, id)
	if err != nil {
		return err
	}
	q.send(stats.append(body{}.text(complete)))
	return nil
}

func runProcCount(ctx context.Context, q *request) error {
	pids, err := q.admin.ProcessIDs(ctx)
	if err != nil {
		return err
	}
	b := body{}.text(complete).int(int64(len(pids)))
	for _, pid := range pids {
		b = b.int(int64(pid))
	}
	q.send(b)
	return nil
}

func runProcInfo(ctx context.Context, q *request) error {
	text := q.args.text()
	q.args = values{rest: append([]byte(text), 0)}
	pid := q.args.int()
	if q.args.err != nil || pid < 0 {
		return NewError(q.failed, "invalid process ID : "+text)
	}
	rows, err := q.admin.Processes(ctx, int(pid))
	if err != nil {
		return err
	}
	if len(rows) == 0 && pid != 0 {
		return NewError(q.failed, fmt.Sprintf("invalid process ID : %d", pid))
	}
	q.send(body{}.text(arraySize).int(int64(len(rows))))
	for _, r := range rows {
		q.send(r.append(body{}.text("ProcessInfo"), q.layout))
	}
	return q.done()
}

func runPoolStatus(ctx context.Context, q *request) error {
	settings, err := q.admin.Settings(ctx)
	if err != nil {
		return err
	}
	// Of all the counts this one is binary.
	q.send(binary.BigEndian.AppendUint32(body{}.text(arraySize), uint32(len(settings))))
	for _, s := range settings {
		q.send(s.append(body{}.text("ProcessConfig")))
	}
	return q.done()
}

func runWatchdogInfo(ctx context.Context, q *request) error {
	id, err := q.node()
	if err != nil {
		return err
	}
	w, err := q.admin.Watchdog(ctx)
	if err != nil {
		return err
	}
	b, err := w.only(id).append(body{}.text(complete), q.layout)
	if err != nil {
		return err
	}
	q.send(b)
	return nil
}

func runAttach(ctx context.Context, q *request) error {
	id, err := q.node()
	if err != nil {
		return err
	}
	if id < 0 || id >= maxNodes {
		return outOfRange("failback", id)
	}
	if err := q.admin.AttachNode(ctx, id); err != nil {
		return err
	}
	return q.done()
}

func runDetach(ctx context.Context, q *request) error {
	id, err := q.node()
	if err != nil {
		return err
	}
	if id < 0 || id >= maxNodes {
		return outOfRange("degenerate backend", id)
	}
	if err := q.admin.DetachNode(ctx, id, q.letter == 'd'); err != nil {
		return err
	}
	return q.done()
}

func outOfRange(request string, id int) *Error {
	return NewError(fmt.Sprintf("invalid %s request, node id: %d is out of range. node id must be between [0 and %d]", request, id, maxNodes), "")
}

func runPromote(ctx context.Context, q *request) error {
	id, err := q.knownNode(ctx)
	if err != nil {
		return err
	}
	option := q.option()
	if option != 'n' && option != 's' {
		return NewError(q.failed, fmt.Sprintf("invalid promote option %q", string(rune(option))))
	}
	if err := q.admin.PromoteNode(ctx, id, q.letter == 'j', option == 's'); err != nil {
		return err
	}
	return q.done()
}

func runRecovery(ctx context.Context, q *request) error {
	id, err := q.knownNode(ctx)
	if err != nil {
		return err
	}
	if err := q.admin.RecoverNode(ctx, id); err != nil {
		return err
	}
	return q.done()
}

// knownNode reads the id of one of the nodes.
func (q *request) knownNode(ctx context.Context) (int, error) {
	id, err := q.node()
	if err != nil {
		return 0, err
	}
	count, err := q.admin.NodeCount(ctx)
	if err != nil {
		return 0, err
	}
	if id < 0 || id >= count {
		return 0, NewError(q.failed, fmt.Sprintf("node id %d is not valid", id))
	}
	return id, nil
}

func runStop(ctx context.Context, q *request) error {
	mode := StopMode(q.option())
	if mode != Smart && mode != Fast && mode != Immediate {
		return NewError(q.failed, fmt.Sprintf("invalid shutdown mode %q", string(rune(mode))))
	}
	scope := Local
	if q.letter == 't' {
		scope = Cluster
	}
	begin, err := q.admin.Stop(ctx, mode, scope)
	if err != nil {
		return err
	}
	q.after = begin
	return q.done()
}

// scope reads for whom a command is.
func (q *request) scope() (Scope, error) {
	switch s := Scope(q.option()); s {
	case Local, Cluster:
		return s, nil
	default:
		return 0, NewError(q.failed, fmt.Sprintf("invalid scope %q", string(rune(s))))
	}
}

func runReload(ctx context.Context, q *request) error {
	scope, err := q.scope()
	if err == nil {
		err = q.admin.Reload(ctx, scope)
	}
	if err != nil {
		return err
	}
	return q.done()
}

func runLogRotate(ctx context.Context, q *request) error {
	scope, err := q.scope()
	if err == nil {
		err = q.admin.RotateLog(ctx, scope)
	}
	if err != nil {
		return err
	}
	return q.done()
}

func runInvalidateCache(ctx context.Context, q *request) error {
	if err := q.admin.InvalidateQueryCache(ctx); err != nil {
		return err
	}
	return q.done()
}

// messageLevels are the values of client_min_messages.
const messageLevels = " debug5 debug4 debug3 debug2 debug1 log commerror info notice warning error "

// runSetParameter knows one parameter, as the original does: from which level
// on the client wants notices. This server never sends any below an error, so
// each level is already kept.
func runSetParameter(_ context.Context, q *request) error {
	name, value := q.args.text(), q.args.text()
	switch {
	case q.args.err != nil:
		return errors.New("name or value is missing")
	case name != "client_min_messages":
		return NewError(q.failed, fmt.Sprintf("invalid parameter %q", name))
	case value == "" || !strings.Contains(messageLevels, " "+strings.ToLower(value)+" "):
		return NewError(q.failed, fmt.Sprintf("invalid value %q for parameter %q", value, name))
	}
	return q.done()
}
