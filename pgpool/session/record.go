package session

import (
	"fmt"
	"log/slog"
	"strings"

	"pgpool-go/parser"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// What is written here, and when, is the original's word for word: scripts and
// test suites read it.

// logsMessages tells whether message will write anything, for callers whose
// detail costs something to make.
func (s *Session) logsMessages() bool { return s.cfg.LogClientMessages }

// message logs a message of the client: log_client_messages.
func (s *Session) message(name, detail string) {
	if !s.cfg.LogClientMessages {
		return
	}
	s.log.LogAttrs(ctx, eventlog.Log, name+" message from frontend.", slog.String("detail", detail))
}

// messageData logs the messages of a COPY, all at its end.
func (s *Session) messageData(n int) {
	if n > 0 && s.logsMessages() {
		s.message("CopyData", fmt.Sprintf("count: %d", n))
	}
}

// logStatement writes a statement as the client sent it: log_statement. For the
// extended protocol that is when it is executed.
func (s *Session) logStatement(sql []byte) {
	if s.marks.loud && s.cfg.LogStatement {
		s.log.LogAttrs(ctx, eventlog.Log, "statement: "+string(sql))
	}
}

// record writes what is sent to a server: log_per_node_statement, and to the
// client notice_per_node_statement. The prefix is that of an extended message.
func (s *Session) record(c *server, prefix string, sql []byte) {
	if !s.marks.loud {
		return
	}
	if s.cfg.LogPerNodeStatement {
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("DB node id: %d backend pid: %d statement: %s%s", c.Node, c.PID, prefix, sql))
	}
	if s.cfg.NoticePerNodeStatement {
		text := fmt.Sprintf("DB node id: %d statement: %s%s", c.Node, prefix, sql)
		s.log.LogAttrs(ctx, eventlog.Notice, text)
		s.sendNotice(text)
	}
}

// recordStatement is record for a prepared statement, whose text is only looked
// for if somebody wants it.
func (s *Session) recordStatement(c *server, prefix string, st *statement) {
	if s.marks.loud && st != nil {
		s.record(c, prefix, st.text())
	}
}

// note keeps the text of the statement a server is about to run, for SHOW
// POOL_POOLS. A named statement's is not copied again and again.
func (c *server) note(sql []byte) {
	c.last.set(sql)
	c.noted = nil
}

func (c *server) noteStatement(st *statement) {
	if st == nil || c.noted == st {
		return
	}
	c.last.set(st.text())
	if c.noted = st; st.name == "" {
		c.noted = nil // its text changes in place
	}
}

// logReset and recordReset write what brings the server connections back into
// the state after login.
func (s *Session) logReset() {
	if !s.marks.loud || !s.cfg.LogStatement || !s.cfg.ConnectionCache {
		return
	}
	for _, sql := range s.cfg.ResetQueryList {
		for _, c := range s.conns {
			if c != nil && resets(c, sql) {
				s.logStatement([]byte(sql))
				break
			}
		}
	}
}

// resets tells whether a reset statement will be sent: ABORT only where there is
// something to abort.
func resets(c *server, sql string) bool { return c.Status != 'I' || !strings.EqualFold(sql, "ABORT") }

func (s *Session) recordReset(c *server) {
	if !s.marks.loud || !s.cfg.LogPerNodeStatement {
		return
	}
	for _, sql := range s.cfg.ResetQueryList {
		if resets(c, sql) {
			s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("DB node id: %d backend pid: %d statement: %s", c.Node, c.PID, sql))
		}
	}
}

// logError writes an error of a server's, which the original does whatever is
// configured.
func (s *Session) logError(c *server, x *expectation, word *wire.Error) {
	if x.kind == wire.Query {
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("pool_send_and_wait: Error or notice message from backend: : "+
			"DB node id: %d backend pid: %d statement: \"%s\" message: \"%s\"", c.Node, c.PID, &c.last, word.Message))
		return
	}
	s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("Error message from backend: DB node id: %d message: \"%s\"", c.Node, word.Message))
}

// countRoute notes how a statement was routed, when it is sent.
func (s *Session) countRoute(d route.Decision) {
	s.slot.routes.Note(d)
	if s.marks.loud && s.log.Enabled(ctx, eventlog.Debug1) {
		s.log.LogAttrs(ctx, eventlog.Debug1, fmt.Sprintf("routing: node %d, %s", d.Node, d.Reason), slog.String("detail", d.Text()))
	}
}

// count adds a statement to the figures of its node.
func (s *Session) count(c *server, v *parser.Verdict) {
	n := s.Cluster.Counters(c.Node, s.task.Lane())
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
	n := s.Cluster.Counters(c.Node, s.task.Lane())
	switch word.Severity {
	case "PANIC":
		n.Panic.Add(1)
	case "FATAL":
		n.Fatal.Add(1)
	default:
		n.Error.Add(1)
	}
}
