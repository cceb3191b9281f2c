package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/wire"
)

// Verifiers asks the primary what it has stored of users' passwords: auth_query.
// Logins that come together share one question, but never one that was put before
// they came: a password just changed counts at once. That a user is unknown is
// remembered for a moment, lest whoever tries names makes the primary work.
// Safe for all goroutines.
type Verifiers struct {
	// Connect opens a connection to the primary as this user.
	Connect func(ctx context.Context, user, database string) (backend.Asker, error)
	// Primary is the node to be asked; -1, there is none.
	Primary func() int
	// Changed is told of a user whose stored password is another than before.
	Changed func(user string)

	mu      sync.Mutex
	due     map[string]*question // to be put next, by user
	working bool
	closed  bool
	unknown map[string]time.Time   // until when they are taken for that
	last    map[string]auth.Digest // of what was stored
	work    sync.WaitGroup

	// Of the goroutine at work:
	conn   backend.Asker
	source source
}

// source is where and as whom a question is put.
type source struct {
	sql, user, database string
	node                int
}

type question struct {
	source
	done   chan struct{}
	stored auth.Credential
	err    error
}

const (
	unknownFor    = time.Second
	questionLimit = 10 * time.Second
	maxRemembered = 10_000 // users; beyond that all are forgotten, which costs a question each
)

var errNoPrimary = errors.New("there is no primary to be asked")

// Ask gives what the primary has stored of a user's password; nothing is known of
// one who is not there. It blocks.
func (v *Verifiers) Ask(c *Current, user string) (auth.Credential, error) {
	v.mu.Lock()
	if until, ok := v.unknown[user]; v.closed || ok && time.Now().Before(until) {
		v.mu.Unlock()
		return auth.Credential{}, nil
	}
	q := v.due[user]
	if q == nil {
		q = &question{source: source{c.AuthQuery, c.AuthUser, c.AuthDatabase, v.Primary()}, done: make(chan struct{})}
		if v.due == nil {
			v.due = make(map[string]*question)
		}
		v.due[user] = q
	}
	if !v.working {
		v.working = true
		v.work.Go(v.answerAll)
	}
	v.mu.Unlock()
	<-q.done
	return q.stored, q.err
}

// Close ends the connection once nobody asks any more.
func (v *Verifiers) Close() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.work.Wait()
	v.hangUp()
}

// answerAll works until nothing is due.
func (v *Verifiers) answerAll() {
	for {
		v.mu.Lock()
		due := v.due
		v.due = nil
		if len(due) == 0 {
			v.working = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		for user, q := range due {
			q.stored, q.err = v.put(q.source, user)
			if q.err == nil {
				v.remember(user, q.stored)
			}
			close(q.done)
		}
	}
}

// put asks once more over a new connection if the old one has broken meanwhile.
func (v *Verifiers) put(s source, user string) (auth.Credential, error) {
	if s.node < 0 {
		return auth.Credential{}, errNoPrimary
	}
	ctx, stop := context.WithTimeout(context.Background(), questionLimit)
	defer stop()
	for fresh := false; ; {
		if v.conn.Conn == nil || v.source != s {
			v.hangUp()
			conn, err := v.Connect(ctx, s.user, s.database)
			if err != nil {
				return auth.Credential{}, err
			}
			v.conn, v.source, fresh = conn, s, true
		}
		rows, err := v.conn.Ask(ctx, s.sql, user)
		var no *backend.Refusal
		switch {
		case err == nil:
			return storedIn(rows)
		case errors.As(err, &no) && no.Said.Severity == "ERROR":
			return auth.Credential{}, err
		}
		v.hangUp()
		if fresh {
			return auth.Credential{}, err
		}
	}
}

func (v *Verifiers) hangUp() {
	if v.conn.Conn != nil {
		v.conn.Close()
		v.conn = backend.Asker{}
	}
}

// storedIn reads an answer: no row is no such user, and the last column counts, so
// that a query may give the name, too.
func storedIn(rows [][]string) (auth.Credential, error) {
	switch {
	case len(rows) == 0 || len(rows[0]) == 0:
		return auth.Credential{}, nil
	case len(rows) > 1:
		return auth.Credential{}, fmt.Errorf("auth_query gives %d rows", len(rows))
	}
	text := rows[0][len(rows[0])-1]
	if text == "" {
		return auth.Credential{}, nil // a role without a password
	}
	secret := conf.ParseSecret(text, nil)
	if secret.Kind != conf.MD5 && secret.Kind != conf.Scram {
		return auth.Credential{}, errors.New("auth_query gives neither a SCRAM verifier nor an md5 hash")
	}
	return Credential(secret), nil
}

func (v *Verifiers) remember(user string, stored auth.Credential) {
	v.mu.Lock()
	if len(v.unknown)+len(v.last) > maxRemembered || v.last == nil {
		v.unknown, v.last = make(map[string]time.Time), make(map[string]auth.Digest)
	}
	delete(v.unknown, user)
	if stored.Form() == auth.FormNone {
		v.unknown[user] = time.Now().Add(unknownFor)
	}
	was, known := v.last[user]
	now := stored.Digest()
	v.last[user] = now
	v.mu.Unlock()
	if known && was != now {
		v.Changed(user)
	}
}

// lookUp fills in what auth_query tells of the client's password, where nothing
// else is known of it.
func (s *Session) lookUp(client *auth.Client) error {
	if s.cfg.AuthQuery == "" || client.Stored.Form() != auth.FormNone {
		return nil
	}
	var err error
	s.task.Block(func() { client.Stored, err = s.Verifiers.Ask(s.cfg, s.user) })
	if err != nil {
		s.log.LogAttrs(ctx, eventlog.Warning, "auth_query failed", slog.Any("err", err))
		return &failed{cause: err, word: &wire.Error{Severity: "FATAL", Code: "57P03",
			Message: "could not look up the password", Detail: "auth_query failed",
			Hint: "see pgpool log for details"}}
	}
	client.Conceal = true // a user who is not there is asked all the same
	return nil
}
