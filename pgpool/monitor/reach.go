package monitor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"pgpool-go/pgpool/cluster"
)

// sqlState is the SQLSTATE of an error that the server sent, else empty.
func sqlState(err error) string {
	if sent, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return sent.SQLState()
	}
	return ""
}

// States in which a server answers but serves nobody; but the first is no evidence of
// that: pg_terminate_backend ends a single connection with it, and a server that does
// stop meets the next one with the last, or not at all.
const (
	adminShutdown    = "57P01"
	crashShutdown    = "57P02"
	cannotConnectNow = "57P03" // starting up, stopping, or no hot standby
)

// unanswered says why err means that the node cannot be used, or nil if there
// is a server that works and only refused what we wanted.
func unanswered(ctx context.Context, err error) error {
	switch sqlState(err) {
	case "":
	case crashShutdown, cannotConnectNow:
		return err
	default:
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, network := errors.AsType[net.Error](err)
	_, system := errors.AsType[syscall.Errno](err)
	if network || system || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// cut reports whether err, of a question, is the end of the connection and not
// what the server thinks of the question.
func cut(err error) bool {
	switch sqlState(err) {
	case "", adminShutdown, crashShutdown:
		return true
	}
	return false
}

// connections is how many a server may let in and cut before we conclude anything
// from it: whoever ends connections may end ours, too.
const connections = 3

// cause is the reason to show, without the port numbers of the moment.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// sslRequest asks a server whether it speaks TLS.
var sslRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}

// ping finds out without a login whether a server answers. It is used where no
// user is configured. It ends as a client that changed its mind, which servers
// do not log.
func ping(ctx context.Context, n *cluster.Node) error {
	network, address := n.Network()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer := make([]byte, 1)
	if _, err = conn.Write(sslRequest); err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err == nil && answer[0] == 'S' {
		// Nothing is said over this connection, so it does not matter to whom.
		err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
		if _, rejected := errors.AsType[tls.AlertError](err); rejected {
			err = nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("no server answers: %w", err)
	}
	return nil
}

// lookup returns the addresses of a host, to know it again in
// pg_stat_replication.
func lookup(ctx context.Context, host string) []string {
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{host}
	}
	if host == "" || host[0] == '/' {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil
	}
	return addrs
}
