package pgpool

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"pgpool-go/pcp"
	"pgpool-go/pgpool/eventlog"
)

// loggedAdmin writes into the log, in the original's words, what an operator
// asks for that changes something.
type loggedAdmin struct {
	admin
	log *slog.Logger
}

func (a loggedAdmin) say(format string, args ...any) {
	a.log.LogAttrs(context.Background(), eventlog.Log, fmt.Sprintf(format, args...))
}

func (a loggedAdmin) AttachNode(ctx context.Context, id int) error {
	a.say("received failback request for node_id: %d from pid [%d]", id, os.Getpid())
	return a.admin.AttachNode(ctx, id)
}

func (a loggedAdmin) DetachNode(ctx context.Context, id int, gracefully bool) error {
	a.say("received degenerate backend request for node_id: %d from pid [%d]", id, os.Getpid())
	return a.admin.DetachNode(ctx, id, gracefully)
}

func (a loggedAdmin) PromoteNode(ctx context.Context, id int, gracefully, switchover bool) error {
	option := "n"
	if switchover {
		option = "s"
	}
	a.say("pcp_promote_node: promote option: %s", option)
	a.say("received promote backend request for node_id: %d from pid [%d]", id, os.Getpid())
	return a.admin.PromoteNode(ctx, id, gracefully, switchover)
}

func (a loggedAdmin) Stop(ctx context.Context, mode pcp.StopMode, scope pcp.Scope) (begin func(), err error) {
	a.say("received stop request, mode \"%c\", from pid [%d]", mode, os.Getpid())
	return a.admin.Stop(ctx, mode, scope)
}
