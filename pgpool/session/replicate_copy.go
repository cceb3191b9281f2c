package session

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/wire"
)

// The data of COPY FROM goes to the main node while it comes, and to the others
// when the main node has taken all of it: so there, too, who waits for whom is
// settled on the main node. Until then it is kept.

// spool keeps data: in memory, and what is more than that in a file without a name.
type spool struct {
	task interface{ Block(func()) }
	mem  bytes.Buffer
	file *os.File
	err  error
}

// spoolMemory is how much is kept in memory, in bytes.
const spoolMemory = 8 << 20

func newSpool(task interface{ Block(func()) }) *spool { return &spool{task: task} }

func (p *spool) add(b []byte) error {
	p.mem.Write(b)
	if p.mem.Len() < spoolMemory {
		return nil
	}
	return p.spill()
}

// spill moves what is in memory to the file.
func (p *spool) spill() error {
	p.task.Block(func() {
		if p.file == nil {
			if p.file, p.err = os.CreateTemp("", "pgpool-copy-"); p.err != nil {
				return
			}
			os.Remove(p.file.Name())
		}
		_, p.err = p.mem.WriteTo(p.file)
	})
	if p.err != nil {
		return fmt.Errorf("data of a COPY cannot be kept: %w", p.err)
	}
	return nil
}

// each gives all that was kept to f, in pieces.
func (p *spool) each(f func([]byte) error) error {
	if p.file != nil {
		if err := p.spill(); err != nil {
			return err
		}
		piece := make([]byte, 1<<20)
		for at := int64(0); ; {
			n := 0
			var err error
			p.task.Block(func() { n, err = p.file.ReadAt(piece, at) })
			if n > 0 {
				if err := f(piece[:n]); err != nil {
					return err
				}
			}
			at += int64(n)
			if errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	return f(p.mem.Bytes())
}

func (p *spool) close() {
	if p.file != nil {
		p.file.Close()
	}
}

// copyToMain takes the client's data to the main node, keeps it as the node got it,
// and returns what the node has said in the end. fill is nil if nothing is put in.
func (s *Session) copyToMain(main *server, wants []want, said outcome, data *spool, fill *filler) (outcome, error) {
	if err := s.client.Flush(); err != nil {
		return said, err
	}
	// Lest it blocks on notices to us while we block on data to it.
	main.Relieve(func() error { _, err := main.TryFill(); return err })
	defer main.Relieve(nil)
	ext := len(wants) > 0 && wants[len(wants)-1].kind == wire.Sync
	trouble := "" // why there are no values for the rest
	for {
		typ, body, err := s.client.Frame(wire.MaxFrame)
		if err != nil {
			return said, err
		}
		frame := s.client.Bytes()[:5+len(body)]
		switch typ {
		case wire.CopyData:
			if fill != nil {
				if trouble == "" {
					if err := s.fillFrame(main, len(frame), data, fill); err != nil {
						var ok bool
						if trouble, ok = noValues(err); !ok {
							main.Taint()
							return said, err
						}
					}
				}
				s.client.Skip(len(frame))
				continue
			}
			if err := data.add(frame); err != nil {
				return said, err
			}
			frame = s.client.Bytes()[:5+len(body)] // others may have run meanwhile
			if _, err := main.Write(frame); err != nil {
				return said, err
			}
			s.client.Skip(len(frame))
			if s.client.Buffered() == 0 {
				if err := main.Flush(); err != nil {
					return said, err
				}
			}
			continue
		case wire.Flush, wire.Sync: // passed over by servers as well
			s.client.Skip(len(frame))
			continue
		case wire.Terminate:
			return said, errGoodbye
		case wire.CopyDone, wire.CopyFail:
			switch {
			case fill == nil || typ == wire.CopyFail:
				main.Write(frame)
			case trouble != "":
				main.Send(&pgproto3.CopyFail{Message: trouble})
			default:
				if err := fill.deliver(main, data, fill.finish(fill.frame())); err != nil {
					return said, err
				}
				main.SendRaw(typ, nil)
			}
			s.client.Skip(len(frame))
		default:
			return said, wire.Fatal("08P01", fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", typ))
		}
		if ext {
			main.SendRaw(wire.Sync, nil)
		}
		if err := main.Flush(); err != nil {
			return said, err
		}
		rest, err := s.hear(main, &wants, true, false)
		if err == nil && rest.copies {
			err = s.outOfPlace(main, wire.CopyInResponse)
		}
		rest.kinds = append(said.kinds, rest.kinds...)
		rest.tags = append(said.tags, rest.tags...)
		return rest, err
	}
}

// copyToOther sends another node, which has been sent the COPY, what was kept.
func (s *Session) copyToOther(c *server, wants []want, data *spool) (outcome, error) {
	ext := len(wants) > 0 && wants[len(wants)-1].kind == wire.Sync
	said, err := s.hear(c, &wants, false, false)
	if err != nil || !said.copies {
		return said, err
	}
	c.Relieve(func() error { _, err := c.TryFill(); return err })
	err = data.each(func(b []byte) error { _, err := c.Write(b); return err })
	c.Relieve(nil)
	if err != nil {
		if _, ok := errors.AsType[*backend.Error](err); !ok {
			c.Taint()
		}
		return said, err
	}
	c.SendRaw(wire.CopyDone, nil)
	if ext {
		c.SendRaw(wire.Sync, nil)
	}
	if err := c.Flush(); err != nil {
		return said, err
	}
	rest, err := s.hear(c, &wants, false, false)
	rest.kinds = append(said.kinds, rest.kinds...)
	rest.tags = append(said.tags, rest.tags...)
	return rest, err
}
