package pcp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A recording is one connection between a client and an original server, and
// for those of the stock tools what the tool printed.
type recording struct {
	Name, Kind, Client, Server string
	Command                    string
	Exit                       int
	Stdout, Stderr             string
	ClosesAfterError           bool `json:"server_closes_after_error"`
	Closes                     bool `json:"server_closes"`
	steps                      []step
}

// step is what one side sent: messages of the client, or one of the server.
type step struct {
	client bool
	bytes  []byte
}

const recordings = "../testdata/pcp"

func loadRecordings(t testing.TB) []*recording {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recordings, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*recording
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		text, err := os.ReadFile(filepath.Join(recordings, r.Name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			side, digits, _ := strings.Cut(strings.TrimSpace(line), ": ")
			b, err := hex.DecodeString(digits)
			if err != nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
			r.steps = append(r.steps, step{side == "C", b})
		}
	}
	return all
}

func (r *recording) layout() Layout {
	if r.Server == "4.3.5" {
		return Layout43
	}
	return LayoutNew
}

// salts returns the salts the recorded server gave out, in order and again.
func (r *recording) salts() func() []byte {
	var all [][]byte
	for _, s := range r.steps {
		if !s.client && s.bytes[0] == 'm' {
			all = append(all, s.bytes[5:])
		}
	}
	return func() []byte {
		salt := all[0]
		all = append(all[1:], salt)
		return salt
	}
}

// said is what an original's Admin found out in recordings of errors that are
// not about the request alone.
var said = map[string]*Error{
	"detach_node_already_down":             NotValidForFailover(1, Down),
	"detach_node_unconfigured":             NotValidForFailover(9, Unused),
	"detach_node_disallowed":               FailoverDisallowed(2, 18844),
	"promote_node_already_primary":         AlreadyPrimary(0),
	"promote_node_raw_mode":                PromoteNeedsStreaming(1),
	"promote_node_switchover_down":         NotValidForFailover(0, Down),
	"recovery_node_alive":                  NodeAlive(1),
	"recovery_node_primary":                RecoveryOfPrimary(),
	"recovery_node_raw_mode":               RecoveryNeedsReplication(),
	"recovery_node_script_fails":           RecoveryCommandFailed("1st stage", "nosuch.sh"),
	"watchdog_info_off":                    WatchdogDisabled(),
	"head_log_rotate_disabled":             NoLogCollector(),
	"head_invalidate_query_cache_disabled": NoQueryCache(),
}

// script is an Admin that knows what one recording tells.
type script struct {
	count     int
	nodes     []Node
	stats     HealthStats
	processes []Process
	pids      []int
	settings  []Setting
	watchdog  Watchdog
	err       error

	mu    sync.Mutex
	calls []string
}

// scriptOf takes the answers of a recorded server apart.
func scriptOf(t testing.TB, r *recording) *script {
	t.Helper()
	s := &script{count: 2}
	if e := said[r.Name]; e != nil {
		s.err = e
	}
	for _, st := range r.steps {
		if st.client {
			continue
		}
		v := values{rest: st.bytes[5:]}
		var err error
		switch letter := st.bytes[0]; letter {
		case 'l':
			v.text()
			s.count = int(v.int())
		case 'n':
			v.text()
			for range v.int() {
				s.pids = append(s.pids, int(v.int()))
			}
		case 'h':
			v.text()
			err = s.stats.parse(&v)
		case 'w':
			v.text()
			err = s.watchdog.parse(&v)
		case 'i', 'p', 'b':
			mark := v.text()
			if mark == complete || mark == arraySize {
				break
			}
			switch letter {
			case 'i':
				n := Node{ID: len(s.nodes)}
				err = n.parse(&v)
				s.nodes = append(s.nodes, n)
				s.count = max(s.count, len(s.nodes))
			case 'p':
				var p Process
				err = p.parse(&v)
				s.processes = append(s.processes, p)
			case 'b':
				var set Setting
				err = set.parse(&v)
				s.settings = append(s.settings, set)
			}
		}
		if err != nil || v.err != nil {
			t.Fatalf("%s: recorded %q: %v %v", r.Name, st.bytes, err, v.err)
		}
	}
	return s
}

func (s *script) NodeCount(context.Context) (int, error)                { return s.count, nil }
func (s *script) Nodes(context.Context, int) ([]Node, error)            { return s.nodes, s.err }
func (s *script) HealthStats(context.Context, int) (HealthStats, error) { return s.stats, s.err }
func (s *script) Processes(context.Context, int) ([]Process, error)     { return s.processes, s.err }
func (s *script) ProcessIDs(context.Context) ([]int, error)             { return s.pids, s.err }
func (s *script) Settings(context.Context) ([]Setting, error)           { return s.settings, s.err }
func (s *script) Watchdog(context.Context) (Watchdog, error)            { return s.watchdog, s.err }

func (s *script) do(call ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, strings.Join(call, " "))
	return s.err
}

func (s *script) called() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, ",")
}

func flag(v bool, name string) string {
	if v {
		return name
	}
	return "-"
}

func digits(n int) string { return string(bytes.TrimRight(body{}.int(int64(n)), "\x00")) }

func (s *script) AttachNode(_ context.Context, id int) error { return s.do("attach", digits(id)) }
func (s *script) DetachNode(_ context.Context, id int, gracefully bool) error {
	return s.do("detach", digits(id), flag(gracefully, "gracefully"))
}
func (s *script) PromoteNode(_ context.Context, id int, gracefully, switchover bool) error {
	return s.do("promote", digits(id), flag(gracefully, "gracefully"), flag(switchover, "switchover"))
}
func (s *script) RecoverNode(_ context.Context, id int) error { return s.do("recover", digits(id)) }
func (s *script) Stop(_ context.Context, mode StopMode, scope Scope) (func(), error) {
	return func() { s.do("begin") }, s.do("stop", string(rune(mode)), string(rune(scope)))
}
func (s *script) Reload(_ context.Context, scope Scope) error {
	return s.do("reload", string(rune(scope)))
}
func (s *script) RotateLog(_ context.Context, scope Scope) error {
	return s.do("rotate", string(rune(scope)))
}
func (s *script) InvalidateQueryCache(context.Context) error { return s.do("invalidate") }

// options of a server that knows the account of the recordings.
func recordedAccount(r *recording) Options {
	return Options{
		Credentials: func(user string) ([]string, error) {
			if user == "pcpadm" {
				return []string{HashPassword("secret")}, nil
			}
			return nil, nil
		},
		Layout: r.layout(),
		salt:   r.salts(),
	}
}

// messages takes a run of messages apart.
func messages(t testing.TB, b []byte) [][]byte {
	t.Helper()
	var all [][]byte
	for r := bufio.NewReader(bytes.NewReader(b)); ; {
		letter, m, err := readMessage(r, maxReply)
		if err != nil {
			return all
		}
		all = append(all, appendMessage(nil, letter, m))
	}
}
