package main

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const recordings = "../../testdata/pcp"

// recorded is a run of a tool of the original, see the room pcp.
type recorded struct {
	Name, Kind, Client, Server, Command string
	Exit                                int
	Stdout, Stderr                      string
}

func loadRecorded(t testing.TB) []recorded {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recordings, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// replay answers one connection as the recorded server did, and wants the
// recorded requests.
func replay(t testing.TB, name string) (port string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recordings, name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		for line := range strings.Lines(string(text)) {
			side, digits, _ := strings.Cut(strings.TrimSpace(line), ": ")
			want, err := hex.DecodeString(digits)
			if err != nil {
				t.Error(err)
			}
			if side == "S" {
				nc.Write(want)
				continue
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(nc, got); err != nil || string(got) != string(want) {
				t.Errorf("got %q, %v, want %q", got, err, want)
				return
			}
		}
		io.Copy(io.Discard, nc)
	}()
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// ourWay is what ours print where the original's tool of another version than
// the server misreads the reply.
var ourWay = map[string]string{
	"cross_new_client_old_server_node_info": "127.0.0.1 22100 2 0.250000 up up primary primary 0 none none 2026-11-21 19:34:53\n" +
		"127.0.0.1 22101 2 0.750000 up up standby standby 0 streaming async 2026-11-21 19:34:53\n",
	"cross_new_client_old_server_watchdog_info": "3 3 NO 127.0.0.1:22411 Linux h1 127.0.0.1\n\n" +
		"127.0.0.1:22410 Linux h1 127.0.0.1 22410 22440 7 STANDBY 0 MEMBER\n" +
		"127.0.0.1:22411 Linux h1 127.0.0.1 22411 22441 4 LEADER 0 MEMBER\n" +
		"Not_Set 127.0.0.1 22412 22442 0 DEAD 0 MEMBER\n",
	"cross_old_client_new_server_node_info": "127.0.0.1 22100 2 0.250000 up up primary primary 0 none none 2026-11-21 19:34:53\n" +
		"127.0.0.1 22101 2 0.750000 up up standby standby 0 streaming async 2026-11-21 19:34:53\n",
	"cross_old_client_new_server_node_info_delay": "127.0.0.1 22100 1 0.250000 waiting up primary primary 0 none none 2026-11-21 19:38:10\n" +
		"127.0.0.1 22101 1 0.750000 waiting up standby standby 19.061144 streaming async 2026-11-21 19:38:10\n",
}

// TestRecorded runs our tools against the recorded servers of 4.3.5 and of
// 4.8: they ask and print what the tools of the server's version did.
func TestRecorded(t *testing.T) {
	all := loadRecorded(t)
	for _, r := range all {
		if r.Kind != "client" {
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			password, user := "secret", "pcpadm"
			switch r.Name {
			case "wrong_password":
				password = "wrongpw"
			case "no_password":
				password = ""
			case "unknown_user":
				user = "nosuch"
			case "cross_old_client_new_server_proc_info", "cross_old_client_new_server_watchdog_info":
				return // the same reply as head_..., of which ours print all
			}
			p := pcpPlace(t, "*:*:*:"+password)
			words := strings.Fields(r.Command)
			got := p.ours(t, words[0], append([]string{"-w", "-h", "127.0.0.1", "-p", replay(t, r.Name), "-U", user}, words[1:]...)...)
			want := said{r.Stdout, r.Stderr, r.Exit}
			if text, ok := ourWay[r.Name]; ok {
				want = said{stdout: text}
			}
			same(t, got, want)
		})
	}
}

// TestJSON: each listing with --json is JSON and tells the same.
func TestJSON(t *testing.T) {
	for _, c := range []struct{ recording, command, want string }{
		{"node_count", "pcp_node_count", `{"node_count":2}`},
		{"proc_count", "pcp_proc_count", `{"process_ids":[26184,26185,26186]}`},
		{"node_info_1_verbose", "pcp_node_info 1", `[{"id":1,"hostname":"127.0.0.1","port":22101,"status":"up","status_number":2,"pg_status":"up",` +
			`"weight":0.75,"role":"standby","pg_role":"standby","replication_delay":0,"replication_delay_unit":"bytes","replication_state":"streaming",` +
			`"replication_sync_state":"async","last_status_change":"2026-11-21 19:29:55"}]`},
		{"node_info_unused_slot", "pcp_node_info 1", `[]`},
		{"proc_info_noarg", "pcp_proc_info", `[]`},
		{"health_check_stats_0", "pcp_health_check_stats 0", `{"node_id":0,"hostname":"127.0.0.1","port":22100,"status":"up","role":"primary",` +
			`"last_status_change":"2026-11-21 19:29:55","total_count":29,"success_count":29,"fail_count":0,"skip_count":0,"retry_count":0,` +
			`"average_retry_count":0,"max_retry_count":0,"max_duration_ms":13,"min_duration_ms":1,"average_duration_ms":4.172414,` +
			`"last_health_check":"2026-11-21 19:30:30","last_successful_health_check":"2026-11-21 19:30:30","last_skip_health_check":"","last_failed_health_check":""}`},
		{"watchdog_info_on_local", "pcp_watchdog_info -n 0", `{"total_nodes":3,"remote_nodes":2,"member_remote_nodes":2,"alive_remote_nodes":1,` +
			`"nodes_required_for_quorum":2,"quorum_state":"QUORUM EXIST","local_node_escalation":false,"leader_node_name":"127.0.0.1:22411 Linux h1",` +
			`"leader_host_name":"127.0.0.1","nodes":[{"id":0,"status_number":7,"membership_number":0,"membership_status":"MEMBER",` +
			`"node_name":"127.0.0.1:22410 Linux h1","hostname":"127.0.0.1","status":"STANDBY","delegate_ip":"Not_Set","watchdog_port":22440,` +
			`"pgpool_port":22410,"node_priority":1}]}`},
	} {
		t.Run(c.recording, func(t *testing.T) {
			got := jsonOf(t, c.recording, c.command)
			if want := reformat(t, c.want); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
	for _, c := range []struct {
		recording, command string
		rows               int
		key                string
		has                bool
	}{
		{"proc_info_active", "pcp_proc_info", 2, "statement", false}, // 4.3.5 does not tell
		{"proc_info_active", "pcp_proc_info", 2, "backend_pid", true},
		{"head_proc_info_all", "pcp_proc_info -a", 12, "statement", true},
		{"pool_status", "pcp_pool_status", 152, "description", true},
	} {
		t.Run(c.recording+" "+c.key, func(t *testing.T) {
			var rows []map[string]any
			if err := json.Unmarshal([]byte(jsonOf(t, c.recording, c.command)), &rows); err != nil || len(rows) != c.rows {
				t.Fatalf("%d rows, %v, want %d", len(rows), err, c.rows)
			}
			if _, has := rows[0][c.key]; has != c.has {
				t.Errorf("got %v", rows[0])
			}
		})
	}
}

func jsonOf(t *testing.T, recording, command string) string {
	t.Helper()
	p := pcpPlace(t, "*:*:*:secret")
	words := strings.Fields(command)
	s := p.ours(t, words[0], append([]string{"-w", "-h", "127.0.0.1", "-p", replay(t, recording), "-U", "pcpadm", "--json"}, words[1:]...)...)
	if s.exit != 0 || s.stderr != "" {
		t.Errorf("exit %d: %s", s.exit, s.stderr)
	}
	return reformat(t, s.stdout)
}

func reformat(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
