package auth

import (
	"errors"
	"io"
	"testing"

	"pgpool-go/pgpool/wire"
)

// pipe joins a party that asks and one that answers, inside a test.
type pipe struct {
	asked    chan []byte // bodies of 'R'
	answered chan []byte // bodies of 'p'
	refused  chan error  // an ErrorResponse of the asking party
	gone     chan struct{}
	channel  []byte // of both ends
}

func newPipe() *pipe {
	return &pipe{make(chan []byte), make(chan []byte), make(chan error), make(chan struct{}), nil}
}

var errGone = errors.New("other party is gone")

func (p *pipe) SendAuth(body []byte) error {
	select {
	case p.asked <- append([]byte(nil), body...):
		return nil
	case <-p.gone:
		return errGone
	}
}

func (p *pipe) ReceivePassword() ([]byte, error) {
	select {
	case body := <-p.answered:
		return body, nil
	case <-p.gone:
		return nil, errGone
	}
}

func (p *pipe) ReceiveAuth() ([]byte, error) {
	select {
	case body := <-p.asked:
		return body, nil
	case err := <-p.refused:
		return nil, err
	case <-p.gone:
		return nil, errGone
	}
}

func (p *pipe) SendPassword(body []byte) error {
	select {
	case p.answered <- append([]byte(nil), body...):
		return nil
	case <-p.gone:
		return errGone
	}
}

// serve plays a server that carries out plan, on its own goroutine, until the
// caller reads the result. A refusal reaches the other end as a server's would.
func (p *pipe) serve(user string, plan Plan, words func(error) error) <-chan served {
	done := make(chan served, 1)
	go func() {
		c, err := Challenge(p, user, plan)
		switch {
		case err == nil:
			err = SendOK(p)
		case words != nil:
			select {
			case p.refused <- words(err):
			case <-p.gone:
			}
		}
		done <- served{c, err}
	}()
	return done
}

type served struct {
	cred Credential
	err  error
}

// postgres words a refusal as a PostgreSQL server does.
func postgres(user string) func(error) error {
	return func(error) error {
		return wire.Fatal("28P01", `password authentication failed for user "`+user+`"`)
	}
}

// login runs Login against a server with this plan; both results are given.
func login(t testing.TB, user string, plan Plan, c Credential) (atServer served, atClient error) {
	t.Helper()
	p := newPipe()
	done := p.serve(user, plan, postgres(user))
	err := Login(p, user, c)
	close(p.gone)
	return <-done, err
}

// script plays a fixed list of messages to either side.
type script struct {
	bodies [][]byte
	sent   [][]byte
}

func (s *script) next() ([]byte, error) {
	if len(s.bodies) == 0 {
		return nil, io.EOF
	}
	body := s.bodies[0]
	s.bodies = s.bodies[1:]
	return body, nil
}

func (s *script) SendAuth(body []byte) error {
	s.sent = append(s.sent, append([]byte(nil), body...))
	return nil
}
func (s *script) SendPassword(body []byte) error   { return s.SendAuth(body) }
func (s *script) ReceivePassword() ([]byte, error) { return s.next() }
func (s *script) ReceiveAuth() ([]byte, error)     { return s.next() }

func (s *script) ChannelBinding() []byte { return nil }
func (p *pipe) ChannelBinding() []byte   { return p.channel }
