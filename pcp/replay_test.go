package pcp

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ourOwnWay lists the recordings that are deliberately not followed, and how
// the server answers instead ("" for a reply like any other).
var ourOwnWay = map[string]string{
	// commands the recorded version did not have
	"log_rotate_unsupported":             "",
	"invalidate_query_cache_unsupported": "",
	// an impossible length: the stream cannot be followed further
	"probe_length_1": "FATAL: invalid PCP packet: incorrect packet length (1)",
	// the original crashes
	"probe_empty_body": "ERROR: informing node info failed: invalid node id: too few fields",
	// the original takes it for node 0
	"probe_node_id_text_junk": `ERROR: informing node info failed: invalid node id: not a number: "abc"`,
}

// serve starts a server on a loopback port and ends it with the test.
func serve(t testing.TB, admin Admin, opt Options) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, admin, func() Options { return opt }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return nc.(*net.TCPConn)
}

// TestReplayServer sends what each recorded client sent and compares what comes
// back with what the original answered.
func TestReplayServer(t *testing.T) {
	for _, r := range loadRecordings(t) {
		t.Run(r.Name, func(t *testing.T) {
			addr := serve(t, scriptOf(t, r), recordedAccount(r))
			nc := dial(t, addr)
			got := make(chan []byte, 1)
			go func() {
				b, _ := io.ReadAll(nc)
				got <- b
			}()
			var want [][]byte
			for _, s := range r.steps {
				if s.client {
					if _, err := nc.Write(s.bytes); err != nil && !r.Closes && !r.ClosesAfterError {
						t.Fatal(err)
					}
				} else if s.bytes[0] != 'N' {
					want = append(want, s.bytes)
				}
			}
			nc.CloseWrite()
			answers := messages(t, <-got)
			if instead, ok := ourOwnWay[r.Name]; ok {
				last := answers[len(answers)-1]
				if instead != "" {
					e := parseError(last[5:])
					if text := string(e.Severity) + ": " + e.Error(); last[0] != 'E' || text != instead {
						t.Errorf("got %q, want %q", text, instead)
					}
				} else if last[0] == 'E' {
					t.Errorf("got error %v", parseError(last[5:]))
				}
				return
			}
			if len(answers) != len(want) {
				t.Fatalf("got %d messages %q, want %d %q", len(answers), answers, len(want), want)
			}
			for i := range want {
				compare(t, answers[i], want[i])
			}
		})
	}
}

// compare wants the same bytes, but for source places in errors, texts the
// original has cut, and blanks in JSON.
func compare(t *testing.T, got, want []byte) {
	t.Helper()
	if got[0] != want[0] {
		t.Fatalf("got %q, want %q", got, want)
	}
	switch got[0] {
	case 'E':
		g, w := parseError(got[5:]), parseError(want[5:])
		if len(w.Detail) == 254 {
			g.Detail = g.Detail[:254]
		}
		if *g != *w {
			t.Errorf("got %+v, want %+v", g, w)
		}
	case 'w':
		var g, w any
		gv, wv := values{rest: got[5:]}, values{rest: want[5:]}
		if gv.text() != wv.text() {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := errors.Join(json.Unmarshal([]byte(gv.text()), &g), json.Unmarshal([]byte(wv.text()), &w)); err != nil {
			t.Error(err)
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("got %q, want %q", got, want)
		}
	default:
		if string(got) != string(want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestCalls checks what reaches Admin for the recorded requests.
func TestCalls(t *testing.T) {
	for name, want := range map[string]string{
		"attach_node":                        "attach 1",
		"attach_node_unconfigured":           "attach 9",
		"attach_node_out_of_range":           "",
		"detach_node":                        "detach 1 -",
		"detach_node_gracefully":             "detach 1 gracefully",
		"promote_node":                       "promote 1 - -",
		"promote_node_gracefully":            "promote 1 gracefully -",
		"promote_node_switchover":            "promote 1 - switchover",
		"promote_node_switchover_down":       "promote 0 gracefully switchover",
		"promote_node_invalid":               "",
		"recovery_node":                      "recover 1",
		"stop_pgpool_smart":                  "stop s l,begin",
		"stop_pgpool_cluster_fast":           "stop f c,begin",
		"head_stop_pgpool_cluster_immediate": "stop i c,begin",
		"reload_config_local":                "reload l",
		"reload_config_cluster":              "reload c",
		"head_log_rotate":                    "rotate l",
		"head_invalidate_query_cache":        "invalidate",
		"wrong_password":                     "",
	} {
		t.Run(name, func(t *testing.T) {
			all := loadRecordings(t)
			r := all[slices.IndexFunc(all, func(r *recording) bool { return r.Name == name })]
			admin := scriptOf(t, r)
			nc := dial(t, serve(t, admin, recordedAccount(r)))
			for _, s := range r.steps {
				if s.client {
					nc.Write(s.bytes)
				}
			}
			nc.CloseWrite()
			io.Copy(io.Discard, nc)
			if got := admin.called(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestReplayClient lets the client ask what was recorded and compares what it
// sends; the recorded answers must be understood.
func TestReplayClient(t *testing.T) {
	ask := map[string]func(*Client, *recording) error{
		"pcp_node_count":         func(c *Client, _ *recording) error { _, err := c.NodeCount(); return err },
		"pcp_node_info":          func(c *Client, r *recording) error { _, err := c.Nodes(r.id()); return err },
		"pcp_health_check_stats": func(c *Client, r *recording) error { _, err := c.HealthStats(r.id()); return err },
		"pcp_proc_count":         func(c *Client, _ *recording) error { _, err := c.ProcessIDs(); return err },
		"pcp_proc_info":          func(c *Client, r *recording) error { _, err := c.Processes(max(r.id(), 0)); return err },
		"pcp_pool_status":        func(c *Client, _ *recording) error { _, err := c.Settings(); return err },
		"pcp_watchdog_info":      func(c *Client, r *recording) error { _, err := c.Watchdog(r.id()); return err },
		"pcp_attach_node":        func(c *Client, r *recording) error { return c.AttachNode(r.id()) },
		"pcp_detach_node":        func(c *Client, r *recording) error { return c.DetachNode(r.id(), r.has("-g")) },
		"pcp_promote_node":       func(c *Client, r *recording) error { return c.PromoteNode(r.id(), r.has("-g"), r.has("-s")) },
		"pcp_recovery_node":      func(c *Client, r *recording) error { return c.RecoverNode(r.id()) },
		"pcp_stop_pgpool":        func(c *Client, r *recording) error { return c.Stop(r.mode(), r.scope()) },
		"pcp_reload_config":      func(c *Client, r *recording) error { return c.Reload(r.scope()) },
		"pcp_log_rotate":         func(c *Client, r *recording) error { return c.RotateLog(r.scope()) },
		"pcp_invalidate_query_cache": func(c *Client, _ *recording) error {
			return c.InvalidateQueryCache()
		},
	}
	for _, r := range loadRecordings(t) {
		if r.Kind != "client" {
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			here.SetDeadline(time.Now().Add(20 * time.Second))
			there.SetDeadline(time.Now().Add(20 * time.Second))
			var server sync.WaitGroup
			server.Go(func() {
				defer there.Close()
				for i, s := range r.steps {
					if !s.client {
						there.Write(s.bytes)
						continue
					}
					got := make([]byte, len(s.bytes))
					if _, err := io.ReadFull(there, got); err != nil {
						t.Errorf("step %d: %v", i, err)
						return
					}
					if string(got) != string(s.bytes) {
						t.Errorf("step %d: got %q, want %q", i, got, s.bytes)
					}
				}
			})
			user, password := "pcpadm", "secret"
			switch r.Name {
			case "wrong_password":
				password = "wrongpw"
			case "no_password":
				password = ""
			case "unknown_user":
				user = "nosuch"
			}
			c := NewClient(here)
			err := c.Login(user, password)
			if err == nil {
				err = ask[strings.Fields(r.Command)[0]](c, r)
			}
			c.Close()
			server.Wait()
			bad, told := errors.AsType[*Error](err)
			switch {
			case strings.HasPrefix(r.Name, "cross_new_client_old_server"):
				if err != nil { // the original's tool is lost here, ours is not
					t.Error(err)
				}
			case r.Stderr == "" && err != nil:
				t.Error(err)
			case r.Stderr != "" && !told:
				t.Errorf("got %v, want %s", err, r.Stderr)
			case told:
				text := string(bad.Severity) + ":  " + bad.Message + "\n"
				if bad.Detail != "" {
					text += "DETAIL:  " + bad.Detail + "\n"
				}
				if text+"\n" != r.Stderr {
					t.Errorf("got %s, want %s", text, r.Stderr)
				}
			}
		})
	}
}

func (r *recording) has(option string) bool {
	return slices.Contains(strings.Fields(r.Command), option)
}

// id is the number in the command, or All.
func (r *recording) id() int {
	for _, word := range strings.Fields(r.Command) {
		v := values{rest: []byte(word)}
		if n := v.int(); v.err == nil {
			return int(n)
		}
	}
	return All
}

func (r *recording) mode() StopMode {
	for _, word := range []string{"fast", "immediate"} {
		if r.has(word) {
			return StopMode(word[0])
		}
	}
	return Smart
}

func (r *recording) scope() Scope {
	if r.has("cluster") || r.has("c") || r.has("--scope=cluster") {
		return Cluster
	}
	return Local
}
