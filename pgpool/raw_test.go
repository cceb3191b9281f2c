package pgpool_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/tools/testcluster"
)

// raw is a client that says whatever a test wants to say: messages over a socket
// and nothing between. Its methods may be used from any goroutine, one at a time.
type raw struct {
	net.Conn
	fe     *pgproto3.Frontend
	addr   string
	pid    uint32
	secret []byte
	params map[string]string // as the server reported them
}

// dial opens a socket to pgpool and says nothing yet.
func (f *front) dial() (*raw, error) {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(f.Port))
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(10 * patience)) // nothing may hang
	return &raw{Conn: nc, fe: pgproto3.NewFrontend(nc, nc), addr: addr, params: make(map[string]string)}, nil
}

// login opens a session; pairs are settings of the startup packet.
func (f *front) login(pairs ...string) (*raw, error) {
	r, err := f.dial()
	if err != nil {
		return nil, err
	}
	p := map[string]string{"user": testcluster.Superuser, "database": "postgres"}
	for i := 0; i+1 < len(pairs); i += 2 {
		p[pairs[i]] = pairs[i+1]
	}
	if err := r.startup(p); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// raw is login for a test that depends on it; the client leaves with the test.
func (f *front) raw(pairs ...string) *raw {
	f.t.Helper()
	r, err := f.login(pairs...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { r.Close() })
	return r
}

func (r *raw) startup(params map[string]string) error {
	r.fe.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: params})
	if err := r.fe.Flush(); err != nil {
		return err
	}
	for {
		msg, err := r.fe.Receive()
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.ParameterStatus:
			r.params[m.Name] = m.Value
		case *pgproto3.BackendKeyData:
			r.pid, r.secret = m.ProcessID, append([]byte(nil), m.SecretKey...)
		case *pgproto3.ErrorResponse:
			return refusalOf(m)
		case *pgproto3.ReadyForQuery:
			return nil
		}
	}
}

// refusal is an ErrorResponse.
type refusal struct{ Severity, Code, Message, Detail, Hint string }

func (e *refusal) Error() string {
	return e.Severity + " " + e.Code + ": " + e.Message + " " + e.Detail
}

func refusalOf(m *pgproto3.ErrorResponse) *refusal {
	return &refusal{m.Severity, m.Code, m.Message, m.Detail, m.Hint}
}

// code is the SQLSTATE of a refusal, and else what went wrong.
func code(err error) string {
	var e *refusal
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	return err.Error()
}

// send sends messages in one burst.
func (r *raw) send(msgs ...pgproto3.FrontendMessage) error {
	for _, m := range msgs {
		r.fe.Send(m)
	}
	return r.fe.Flush()
}

// next is the next message that is an answer: what servers say unasked is noted
// or passed over.
func (r *raw) next() (pgproto3.BackendMessage, error) {
	for {
		msg, err := r.fe.Receive()
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *pgproto3.ParameterStatus:
			r.params[m.Name] = m.Value
		case *pgproto3.NoticeResponse:
		default:
			return msg, nil
		}
	}
}

// answers reads up to ReadyForQuery and writes down what came, a word for each
// message: "1 2 T D(a|b) C(SELECT 1) Z(I)". An error is E(code).
func (r *raw) answers() (string, error) {
	var words []string
	for {
		msg, err := r.next()
		if err != nil {
			return strings.Join(words, " "), err
		}
		words = append(words, word(msg))
		if _, end := msg.(*pgproto3.ReadyForQuery); end {
			return strings.Join(words, " "), nil
		}
	}
}

// word is a message in short.
func word(msg pgproto3.BackendMessage) string {
	switch m := msg.(type) {
	case *pgproto3.ParseComplete:
		return "1"
	case *pgproto3.BindComplete:
		return "2"
	case *pgproto3.CloseComplete:
		return "3"
	case *pgproto3.NoData:
		return "n"
	case *pgproto3.ParameterDescription:
		return "t"
	case *pgproto3.RowDescription:
		return "T"
	case *pgproto3.DataRow:
		return "D(" + line(m.Values) + ")"
	case *pgproto3.PortalSuspended:
		return "s"
	case *pgproto3.EmptyQueryResponse:
		return "I"
	case *pgproto3.CommandComplete:
		return "C(" + string(m.CommandTag) + ")"
	case *pgproto3.ReadyForQuery:
		return "Z(" + string(m.TxStatus) + ")"
	case *pgproto3.ErrorResponse:
		return "E(" + m.Code + ")"
	case *pgproto3.CopyInResponse:
		return "G"
	case *pgproto3.CopyOutResponse:
		return "H"
	case *pgproto3.CopyData:
		return "d(" + string(m.Data) + ")"
	case *pgproto3.CopyDone:
		return "c"
	case *pgproto3.NotificationResponse:
		return "A(" + m.Channel + " " + m.Payload + ")"
	case *pgproto3.FunctionCallResponse:
		return "V(" + string(m.Result) + ")"
	}
	return fmt.Sprintf("%T", msg)
}

// ask sends messages and returns what comes up to ReadyForQuery, in words.
func (r *raw) ask(msgs ...pgproto3.FrontendMessage) (string, error) {
	if err := r.send(msgs...); err != nil {
		return "", err
	}
	return r.answers()
}

// query is ask for one Query.
func (r *raw) query(sql string) (string, error) { return r.ask(&pgproto3.Query{String: sql}) }

// value runs a Query that yields one value.
func (r *raw) value(sql string) (string, error) {
	out, err := r.query(sql)
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(out, " D(")
	v, _, ok2 := strings.Cut(rest, ") C(")
	if !ok || !ok2 {
		return "", fmt.Errorf("%s: got %s", sql, out)
	}
	return v, nil
}

// expect asks and fails the test if the answer is another than want.
func (r *raw) expect(t testing.TB, want string, msgs ...pgproto3.FrontendMessage) {
	t.Helper()
	if got, err := r.ask(msgs...); got != want || err != nil {
		t.Fatalf("got %q, %v\nwant %q", got, err, want)
	}
}

// cancel asks for the session's statement to be cancelled, and returns when the
// request has been carried out.
func (r *raw) cancel() error {
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(r.secret)))
	b = binary.BigEndian.AppendUint32(b, 80877102)
	b = binary.BigEndian.AppendUint32(b, r.pid)
	if _, err := nc.Write(append(b, r.secret...)); err != nil {
		return err
	}
	nc.Read(make([]byte, 1)) // closed without a word
	return nil
}

// The messages that tests send most.

func q(sql string) *pgproto3.Query           { return &pgproto3.Query{String: sql} }
func parse(name, sql string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: sql} }
func execute(portal string, max int) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: uint32(max)}
}
func bind(portal, stmt string, args ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: stmt}
	for _, a := range args {
		b.Parameters = append(b.Parameters, []byte(a))
	}
	return b
}
func describe(kind byte, name string) *pgproto3.Describe {
	return &pgproto3.Describe{ObjectType: kind, Name: name}
}
func closes(kind byte, name string) *pgproto3.Close {
	return &pgproto3.Close{ObjectType: kind, Name: name}
}

var sync_ = &pgproto3.Sync{}
