package testcluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
)

const logName = "server" // of the collector's files, with LogStatements

// LogPath is the file with the server's log; with LogStatements only its
// first and last lines, the others are in files of the collector.
func (n *Node) LogPath() string { return filepath.Join(n.cluster.Dir, n.Name+".log") }

func (n *Node) logDir() string { return filepath.Join(n.cluster.Dir, n.Name+"-log") }

// Log is what the server has logged so far as plain text.
func (n *Node) Log() string {
	text := n.readFile(n.LogPath())
	if n.cluster.opts.LogStatements {
		text += n.readFile(filepath.Join(n.logDir(), logName+".log"))
	}
	return text
}

func (n *Node) logFrom(pos int64) string {
	text := n.readFile(n.LogPath())
	return text[min(int(pos), len(text)):]
}

// readFile reads a file that may not be there yet.
func (n *Node) readFile(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// LogEntry is one entry of a server's log.
type LogEntry struct {
	Pid         int    `json:"pid"`
	User        string `json:"user"`
	Database    string `json:"dbname"`
	Application string `json:"application_name"`
	Backend     string `json:"backend_type"`
	Severity    string `json:"error_severity"`
	Code        string `json:"state_code"`
	Message     string `json:"message"`
	Detail      string `json:"detail"`
	Statement   string `json:"statement"` // of an error
}

// ran matches how the server words that it runs a statement: as a simple
// query, or as an execute of a named or unnamed prepared statement and portal.
var ran = regexp.MustCompile(`(?s)^(?:statement|execute (?:fetch from )?\S+|fastpath function call): (.*)$`)

// Ran is the text of the statement that the entry says is being run, "" if it
// says something else.
func (e LogEntry) Ran() string {
	if m := ran.FindStringSubmatch(e.Message); m != nil {
		return m[1]
	}
	return ""
}

// LogMark is a place in a server's log.
type LogMark struct{ pos int64 }

var marks atomic.Int64

// markLog makes the server log a line that nobody else writes and returns the
// entries after from that stand before it, and where it ends. What a client
// knows to be done is logged before: the collector keeps the order.
func (n *Node) markLog(from LogMark) ([]LogEntry, LogMark, error) {
	if !n.cluster.opts.LogStatements {
		return nil, from, errors.New("testcluster: the cluster was made without LogStatements")
	}
	mark := fmt.Sprintf("select 'testcluster mark %d %d'", os.Getpid(), marks.Add(1))
	if _, err := n.Exec(mark); err != nil {
		return nil, from, err
	}
	var entries []LogEntry
	end := from
	err := within(patience, "logging on "+n.Name, func() (bool, error) {
		f, err := os.Open(filepath.Join(n.logDir(), logName+".json"))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("testcluster: %w", err)
		}
		defer f.Close()
		var text bytes.Buffer
		if _, err := f.Seek(end.pos, 0); err != nil {
			return false, fmt.Errorf("testcluster: %w", err)
		}
		if _, err := text.ReadFrom(f); err != nil {
			return false, fmt.Errorf("testcluster: %w", err)
		}
		for {
			i := bytes.IndexByte(text.Bytes(), '\n')
			if i < 0 {
				return false, nil // the last line may still be in the making
			}
			line := text.Next(i + 1)
			end.pos += int64(len(line))
			var e LogEntry
			if err := json.Unmarshal(line, &e); err != nil {
				return false, fmt.Errorf("testcluster: log of %s: %w", n.Name, err)
			}
			if strings.Contains(e.Message, mark) {
				return true, nil
			}
			if !strings.Contains(e.Message, "testcluster mark ") {
				entries = append(entries, e)
			}
		}
	})
	return entries, end, err
}

// LogMark returns where the server's log is now, for Entries.
func (n *Node) LogMark() (LogMark, error) {
	_, end, err := n.markLog(LogMark{})
	return end, err
}

// Entries are what the server has logged since the mark.
func (n *Node) Entries(since LogMark) ([]LogEntry, error) {
	entries, _, err := n.markLog(since)
	return entries, err
}

// Statements are the texts of the statements that clients of the given
// application have begun since the mark, in order; "" stands for every
// application. Statements the server could not parse are not among them.
func (n *Node) Statements(since LogMark, application string) ([]string, error) {
	entries, err := n.Entries(since)
	var texts []string
	for _, e := range entries {
		if text := e.Ran(); text != "" && (application == "" || e.Application == application) {
			texts = append(texts, text)
		}
	}
	return texts, err
}
