package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"pgpool-go/tools/testcluster"
)

// client is the least that can run a statement: it neither keeps nor understands
// what it is told. psql would keep a large result.
type client struct {
	net.Conn
	in *bufio.Reader
}

// connect logs in where nobody asks for a password. All must be over by deadline.
func connect(t *target, deadline time.Time, buffer int) (*client, error) {
	d := net.Dialer{Deadline: deadline}
	nc, err := d.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(t.port)))
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(deadline)
	if t.tls {
		if nc, err = seal(nc); err != nil {
			return nil, err
		}
	}
	c := &client{nc, bufio.NewReaderSize(nc, buffer)}
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	body = append(body, "user\x00"+testcluster.Superuser+"\x00database\x00"+database+"\x00\x00"...)
	packet := append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
	if _, err := c.Write(packet); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, err := c.drain(nil); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// seal asks for TLS.
func seal(nc net.Conn) (net.Conn, error) {
	if _, err := nc.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	var answer [1]byte
	if _, err := io.ReadFull(nc, answer[:]); err != nil || answer[0] != 'S' {
		return nil, errors.Join(fmt.Errorf("asked for TLS, got %q", answer), err, nc.Close())
	}
	return tls.Client(nc, &tls.Config{InsecureSkipVerify: true}), nil // as sslmode=require
}

// query runs a statement and tells how many bytes of answer there were. Should the
// server ask for data, it is given feed.
func (c *client) query(sql string, feed io.WriterTo) (int64, error) {
	if _, err := c.Write(append(frame('Q', len(sql)+1), sql+"\x00"...)); err != nil {
		return 0, err
	}
	return c.drain(feed)
}

// drain reads until the server is ready for a query.
func (c *client) drain(feed io.WriterTo) (n int64, err error) {
	var failed error
	for {
		head, err := c.in.Peek(5)
		if err != nil {
			return n, err
		}
		typ, size := head[0], int(binary.BigEndian.Uint32(head[1:]))+1
		switch typ {
		case 'E':
			text := make([]byte, size)
			if _, err := io.ReadFull(c.in, text); err != nil {
				return n, err
			}
			failed = fmt.Errorf("the server said %q", bytes.ReplaceAll(text[5:], []byte{0}, []byte{' '}))
			continue
		case 'G':
			if feed == nil {
				return n, errors.New("the server wants data")
			}
			if _, err := feed.WriteTo(c); err != nil {
				return n, err
			}
		case 'R':
			if head, err := c.in.Peek(9); err == nil && binary.BigEndian.Uint32(head[5:]) != 0 {
				return n, errors.New("the server wants a password")
			}
		}
		if _, err := c.in.Discard(size); err != nil {
			return n, err
		}
		n += int64(size)
		if typ == 'Z' {
			return n, failed
		}
	}
}

func frame(typ byte, body int) []byte {
	return binary.BigEndian.AppendUint32([]byte{typ}, uint32(body+4))
}

// lines are so many bytes of COPY data, in messages of 8 kB as psql sends them.
type lines int64

func (l lines) WriteTo(w io.Writer) (n int64, err error) {
	var batch []byte
	data := strings.Repeat(strings.Repeat("x", 999)+"\n", 8)
	for range 8 {
		batch = append(append(batch, frame('d', len(data))...), data...)
	}
	for n < int64(l) {
		k, err := w.Write(batch)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
	_, err = w.Write(frame('c', 0))
	return n, err
}

// move runs a statement that moves b.megabytes.
func (b *bench) move(ctx context.Context, t *target, sql string) (sample, error) {
	if strings.Contains(sql, "%d") {
		sql = fmt.Sprintf(sql, 1000*b.megabytes)
	}
	c, err := connect(t, time.Now().Add(4*patience), 256<<10)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	from, err := t.cpuTime()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if _, err := c.query(sql, lines(b.megabytes)*1_000_000); err != nil {
		return nil, err
	}
	took := time.Since(began)
	to, err := t.cpuTime()
	if err != nil {
		return nil, err
	}
	gb := float64(b.megabytes) / 1000
	cpu := unknown
	if t.cmd != nil {
		cpu = (to - from).Seconds() / gb
	}
	return sample{1000 * gb / took.Seconds(), cpu}, nil
}

// sit connects so many clients, has each run a statement, and looks at the
// target's memory while they do nothing.
func (b *bench) sit(ctx context.Context, t *target, clients int) (sample, error) {
	if clients+100 > b.descriptors {
		return nil, fmt.Errorf("%w: %d clients need more than the %d descriptors a process may have (ulimit -Hn)", errSkipped, clients, b.descriptors)
	}
	before, err := t.memory()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var open []net.Conn
	var failed error
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	deadline := time.Now().Add(4 * patience)
	var all sync.WaitGroup
	for part := range 16 {
		all.Go(func() {
			for i := part; i < clients && ctx.Err() == nil; i += 16 {
				c, err := connect(t, deadline, 4096)
				if err == nil {
					_, err = c.query("select 1", nil)
				}
				mu.Lock()
				if c != nil {
					open = append(open, c.Conn)
				}
				failed = errors.Join(failed, err)
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	all.Wait()
	if failed != nil {
		return nil, fmt.Errorf("%d clients are connected: %w", len(open), failed)
	}
	// A process may need a moment to give back what it no longer needs.
	least := int64(math.MaxInt64)
	for range 3 {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		now, err := t.memory()
		if err != nil {
			return nil, err
		}
		least = min(least, now)
	}
	return sample{float64(least) / (1 << 20), float64(least-before) / 1024 / float64(clients)}, nil
}
