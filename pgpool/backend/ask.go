package backend

import (
	"context"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/wire"
)

// Connect dials and logs in at once, for our own questions to a server: a
// connection with a task of its own.
func Connect(ctx context.Context, e *wire.Engine, target Target, l Login, cred auth.Credential) (Asker, error) {
	c, err := Dial(ctx, e, target)
	if err != nil {
		return Asker{}, err
	}
	task := e.NewTask()
	c.Attach(task)
	err = c.limited(ctx, task, func() error {
		if _, err := c.Start(l); err != nil {
			return err
		}
		return c.Finish(l.User, cred)
	})
	if err != nil {
		c.Close()
		if again, ok := target.Insist(err); ok {
			return Connect(ctx, e, again, l, cred)
		}
		return Asker{}, err
	}
	return Asker{c, task}, nil
}

// limited runs f, and ends its waits when ctx is done.
func (c *Conn) limited(ctx context.Context, task *wire.Task, f func() error) error {
	stop := task.Until(ctx)
	err := f()
	stop()
	if err != nil && ctx.Err() != nil {
		c.tainted = true // an answer may be under way that nobody will read
		return &Error{c.Node, err}
	}
	return err
}

// Asker puts questions to a server over a connection whose task is Task.
type Asker struct {
	Conn *Conn
	Task *wire.Task
}

// Ask runs one statement and returns its rows as text, NULL as the empty
// string. Arguments are bound as text parameters, never pasted. An answer of the
// server that is an error comes as a *Refusal and leaves the connection usable;
// after any other error it is tainted.
func (a Asker) Ask(ctx context.Context, sql string, args ...string) (rows [][]string, err error) {
	err = a.Conn.limited(ctx, a.Task, func() error {
		rows, err = a.Conn.ask(sql, args)
		return err
	})
	return rows, err
}

// Close ends the connection.
func (a Asker) Close() error {
	a.Conn.Bye()
	return nil
}

func (c *Conn) ask(sql string, args []string) ([][]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	err := c.Send(&pgproto3.Parse{Query: sql}, &pgproto3.Bind{Parameters: params}, &pgproto3.Execute{},
		&pgproto3.Close{ObjectType: 'S'}, // or a session that borrows the connection might find it
		&pgproto3.Sync{})
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		c.tainted = true
		return nil, err
	}
	var rows [][]string
	var refused *Refusal
	for {
		typ, body, err := c.Next(answerLimit)
		if err != nil {
			c.tainted = true
			return nil, err
		}
		switch typ {
		case wire.DataRow:
			var row pgproto3.DataRow
			if err := row.Decode(body); err != nil {
				c.tainted = true
				return nil, &Error{c.Node, err}
			}
			texts := make([]string, len(row.Values))
			for i, v := range row.Values {
				texts[i] = string(v)
			}
			rows = append(rows, texts)
		case wire.ErrorResponse:
			refused = c.refused(body)
		case wire.ParameterStatus:
			c.NoteParam(body)
			c.overheard(typ, body)
		case wire.Notification:
			c.overheard(typ, body)
		case wire.ReadyForQuery:
			c.Status = body[0]
			if refused != nil {
				return nil, refused
			}
			return rows, nil
		}
	}
}

func (c *Conn) overheard(typ byte, body []byte) {
	if c.Overheard != nil {
		c.Overheard(typ, body)
	}
}
