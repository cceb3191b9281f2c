package session

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

func TestWholeReply(t *testing.T) {
	encode := func(msgs ...pgproto3.BackendMessage) (b []byte) {
		for _, m := range msgs {
			b, _ = m.Encode(b)
		}
		return b
	}
	var (
		parsed, bound    = &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}
		columns          = &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("a")}}}
		row              = &pgproto3.DataRow{Values: [][]byte{[]byte("1")}}
		complete, insert = &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")}
		ready            = &pgproto3.ReadyForQuery{TxStatus: 'I'}
	)
	for name, x := range map[string]struct{ all, want []byte }{
		"simple":     {encode(columns, row, row, complete, ready), encode(columns, row, row, complete)},
		"no rows":    {encode(columns, complete, ready), encode(columns, complete)},
		"extended":   {encode(parsed, bound, columns, row, complete, ready), encode(columns, row, complete)},
		"bare":       {encode(bound, row, complete, ready), encode(row, complete)},
		"notice":     {encode(columns, &pgproto3.NoticeResponse{Message: "x"}, row, complete, ready), nil},
		"error":      {encode(columns, row, &pgproto3.ErrorResponse{Message: "x"}, ready), nil},
		"setting":    {encode(columns, row, complete, &pgproto3.ParameterStatus{Name: "a", Value: "b"}, ready), nil},
		"two":        {encode(columns, row, complete, columns, row, complete, ready), nil},
		"not ready":  {encode(columns, row, complete), nil},
		"suspended":  {encode(bound, row, &pgproto3.PortalSuspended{}, ready), nil},
		"a write":    {encode(insert, ready), nil},
		"cut":        {encode(columns, row, complete, ready)[:20], nil},
		"nothing":    {nil, nil},
		"cut header": {[]byte("T"), nil},
	} {
		if got := wholeReply(x.all); string(got) != string(x.want) {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
}
