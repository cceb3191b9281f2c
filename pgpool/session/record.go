package session

import (
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// logsMessages tells whether message will write anything, for callers whose
// detail costs something to make.
func (s *Session) logsMessages() bool { return s.cfg.LogClientMessages }

// message logs a message of the client: log_client_messages.
func (s *Session) message(name, detail string) {
	if !s.cfg.LogClientMessages || name == "" {
		return
	}
	if detail == "" {
		s.log.LogAttrs(ctx, eventlog.Log, name+" message from frontend.")
		return
	}
	s.log.LogAttrs(ctx, eventlog.Log, name+" message from frontend.", slog.String("detail", detail))
}

// logStatement writes a statement as the client sent it: log_statement.
func (s *Session) logStatement(prefix string, sql []byte) {
	if s.cfg.LogStatement {
		s.log.LogAttrs(ctx, eventlog.Log, "statement: "+prefix+string(sql))
	}
}

// record writes what is sent to a server: log_per_node_statement.
func (s *Session) record(c *server, prefix string, sql []byte) {
	if s.cfg.LogPerNodeStatement {
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("DB node id: %d backend pid: %d statement: %s%s", c.Node, c.PID, prefix, sql))
	}
	if s.cfg.NoticePerNodeStatement {
		s.client.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000",
			Message: fmt.Sprintf("DB node id: %d statement: %s%s", c.Node, prefix, sql)})
	}
}

// recordStatement is record for a prepared statement, whose text is only looked
// for if somebody wants it.
func (s *Session) recordStatement(c *server, prefix string, st *statement) {
	if st != nil && (s.cfg.LogPerNodeStatement || s.cfg.NoticePerNodeStatement) {
		s.record(c, prefix, st.text())
	}
}

// count adds a statement to the figures of its node.
func (s *Session) count(c *server, v *parser.Verdict) {
	n := s.Cluster.Counters(c.Node)
	switch v.Kind {
	case parser.KindSelect:
		n.Select.Add(1)
	case parser.KindInsert:
		n.Insert.Add(1)
	case parser.KindUpdate:
		n.Update.Add(1)
	case parser.KindDelete:
		n.Delete.Add(1)
	case parser.KindDDL:
		n.DDL.Add(1)
	default:
		n.Other.Add(1)
	}
}

// countError adds a server's error to the figures of its node.
func (s *Session) countError(c *server, word *wire.Error) {
	n := s.Cluster.Counters(c.Node)
	switch word.Severity {
	case "PANIC":
		n.Panic.Add(1)
	case "FATAL":
		n.Fatal.Add(1)
	default:
		n.Error.Add(1)
	}
}
