package eventlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// files is where and how logging_collector writes.
type files struct {
	directory, name string
	mode            os.FileMode
	truncate        bool
	age             time.Duration
	size            int64
}

// collector writes log files. The original pipes stderr to a process for
// that; we hold the file ourselves, so it costs no process and loses no line
// when the server dies. Files change when a line is written, not before.
type collector struct {
	mu     sync.Mutex
	want   files
	file   *os.File
	path   string
	length int64
	next   time.Time // when the file is too old; zero: never
}

// cause is why a new file is begun.
type cause int8

const (
	bySize cause = iota
	byAge
	byRequest
)

// configure sets what is wanted and opens the file. A file in use is only
// changed if its name has to change.
func (c *collector) configure(want files, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.want
	c.want = want
	if c.file != nil && old.directory == want.directory && old.name == want.name {
		c.next = boundary(now, want.age)
		return nil
	}
	return c.open(now, byRequest)
}

// write adds a report, in a new file if the present one is too old or too big.
func (c *collector) write(lines []byte, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.file == nil:
		if err := c.open(now, byRequest); err != nil {
			return err
		}
	case !c.next.IsZero() && !now.Before(c.next):
		// The old file goes on if a new one cannot be had.
		_ = c.open(now, byAge)
	case c.want.size > 0 && c.length >= c.want.size:
		_ = c.open(now, bySize)
	}
	n, err := c.file.Write(lines)
	c.length += int64(n)
	return err
}

func (c *collector) rotate(now time.Time, why cause) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open(now, why)
}

// open begins the file for a time. On failure the present file stays in use
// and the age is counted anew, so that not every line tries again.
func (c *collector) open(now time.Time, why cause) error {
	stamp := now
	if why == byAge {
		stamp = c.next // named after the boundary, however late the line came
		if late := boundary(now, c.want.age).Add(-c.want.age); late.After(stamp) {
			stamp = late
		}
	}
	c.next = boundary(now, c.want.age)
	path := filepath.Join(c.want.directory, strftime(c.want.name, stamp))
	// Only time may throw away what an earlier file of that name holds: a
	// restart or a full file never does, nor a file that is still ours.
	flag := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if c.want.truncate && why == byAge && path != c.path {
		flag |= os.O_TRUNC
	}
	if err := os.MkdirAll(c.want.directory, 0o700); err != nil {
		return fmt.Errorf("could not create log directory: %w", err)
	}
	file, err := os.OpenFile(path, flag, c.want.mode)
	if err != nil {
		return fmt.Errorf("could not open log file: %w", err)
	}
	var length int64
	if info, err := file.Stat(); err == nil {
		length = info.Size()
	}
	if c.file != nil {
		c.file.Close()
	}
	c.file, c.path, c.length = file, path, length
	return nil
}

func (c *collector) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	c.file = nil
	return err
}

// boundary is the next multiple of age in local time, so that an age of a day
// changes files at midnight.
func boundary(now time.Time, age time.Duration) time.Time {
	if age <= 0 {
		return time.Time{}
	}
	_, offset := now.Zone()
	local := now.Add(time.Duration(offset) * time.Second)
	return local.Truncate(age).Add(age - time.Duration(offset)*time.Second)
}

// strftime fills the escapes of strftime(3) in the C locale; an unknown one
// stays as it is.
func strftime(format string, t time.Time) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch c := format[i]; c {
		case '%':
			b.WriteByte('%')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 's':
			fmt.Fprint(&b, t.Unix())
		case 'C':
			fmt.Fprintf(&b, "%02d", t.Year()/100)
		case 'G':
			year, _ := t.ISOWeek()
			fmt.Fprint(&b, year)
		case 'V':
			_, week := t.ISOWeek()
			fmt.Fprintf(&b, "%02d", week)
		case 'U':
			fmt.Fprintf(&b, "%02d", (t.YearDay()+6-int(t.Weekday()))/7)
		case 'W':
			fmt.Fprintf(&b, "%02d", (t.YearDay()+6-(int(t.Weekday())+6)%7)/7)
		case 'u':
			fmt.Fprint(&b, (int(t.Weekday())+6)%7+1)
		case 'w':
			fmt.Fprint(&b, int(t.Weekday()))
		case 'k':
			fmt.Fprintf(&b, "%2d", t.Hour())
		case 'l':
			fmt.Fprintf(&b, "%2d", (t.Hour()+11)%12+1)
		default:
			if layout, ok := layouts[c]; ok {
				b.WriteString(t.Format(layout))
			} else {
				b.WriteByte('%')
				b.WriteByte(c)
			}
		}
	}
	return b.String()
}

var layouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January",
	'Z': "MST", 'z': "-0700",
	'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06",
	'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05", 'r': "03:04:05 PM",
}
