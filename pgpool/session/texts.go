package session

import (
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/parser"
)

// A Parse of a text that some server has parsed for the same user, database and
// settings need not wait for a server connection: whether it can be prepared is
// known, and it is prepared where and when it is executed. After a change of the
// schema nothing is known any more.

// texts are the statements that servers have parsed. Safe for all goroutines.
type texts struct {
	mu    sync.Mutex
	known map[textKey]struct{}
}

type textKey struct {
	user, database string
	id             textID
}

// maxTexts bounds what is remembered.
const maxTexts = 1 << 14

func (t *texts) note(k textKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= maxTexts {
		t.known = make(map[textKey]struct{})
	}
	t.known[k] = struct{}{}
}

func (t *texts) knows(k textKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.known[k]
	return ok
}

// forget is for a change of some schema.
func (t *texts) forget() {
	t.mu.Lock()
	clear(t.known)
	t.mu.Unlock()
}

// noteParsed remembers a statement that a shared server has prepared.
func (s *Session) noteParsed(st *statement) {
	if st.alias.meaning != tentative {
		s.texts.note(textKey{s.user, s.database, st.alias.id})
	}
}

// parseLazily takes the client's Parse without asking a server, if the text is
// known. The frame is the message at the head of the client's buffer.
func (s *Session) parseLazily(v *parser.Verdict, name, frame []byte) (bool, error) {
	if !s.sharing.on || len(name) == 0 || s.tx.open || s.pipe.open() || s.conns[s.main] != nil {
		return false, nil
	}
	st := &statement{name: string(name), verdict: v, home: s.main, meaning: s.settings.meaning, bound: true, frame: frame}
	if s.identify(st); st.alias.meaning == tentative || !s.texts.knows(textKey{s.user, s.database, st.alias.id}) {
		return false, nil
	}
	st.frame = append([]byte(nil), frame...)
	s.stmts[st.name] = st
	s.client.Skip(len(frame))
	s.heard = true
	return true, s.client.Send(&pgproto3.ParseComplete{})
}

// blockingText is the length from which on a text may take so long to be read that others
// are not made to wait.
const blockingText = 64 << 10

// verdictOn gives the verdict on a text, which may be one in the client's buffer.
func (s *Session) verdictOn(sql []byte) (v *parser.Verdict) {
	if len(sql) < blockingText {
		return s.Parser.Classify(sql)
	}
	s.task.Block(func() { v = s.Parser.Classify(sql) })
	return v
}
