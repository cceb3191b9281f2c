package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// nobody is a port of the loopback address on which nobody listens; @ stands
// for it in command lines.
const nobody = "-w -h 127.0.0.1 -p 1025"

// TestPcpCommandLines gives the same command lines to Debian's tools and to
// ours, with nobody to talk to.
func TestPcpCommandLines(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	lines := []string{
		"", "--version", "-V", "-?", "--help", "--help x", "--hel", "-w --version", "-w --help", "-w -V", "-w -?",
		"-h", "--host", "--verbose=1", "--foo", "-Q", "--", "-", "@ -- -1",
		"--p", "--n", "--s", "--v", "--h", "--m", "--g", "--a", "--d", "--po", "--pr", "--pa", "--u", "--wat", "--node", "--sw @",
		"-p 80", "-p 1024", "-p abc", "-p", "-p 65536", "-p1025x @", "--port=80", "-vp 80", "-p 80 -Q", "-Q -p 80",
		"-n 200", "-n -1", "-n abc @", "-n128 @", "--node-id=200", "--watchdog-id=200", "--watchdog-id=-1",
		"@ 200", "@ 1 2 3", "@ -n 1 2", "@ -n 1 -n 2 3", "1 -n 2 @", "@ abc", "@ 0", "@ -d 1",
		"-P 0", "-P 5 @", "-P 5 6 @", "--process-id=0", "--process-id=x",
		"-s foo", "-s", "-s c @", "-s cluster @", "-s local @ 1", "-sl @", "--scope=foo", "--scope foo @ 1", "--scope=c @ 1",
		"-m foo", "-m", "-m f @", "-m fas", "-m FAST", "-mi @", "--mode=foo", "--mode=smart @ 1",
		"-g", "-g @ 1", "-a @", "--all @ 1", "--gracefully @ 1", "-gs 1 @", "-wvd 1", "-U x @ 1", "-W @ 1",
	}
	p := place{dir: t.TempDir()}
	for _, tool := range pcpTools() {
		switch tool.name {
		case "pcp_log_rotate", "pcp_invalidate_query_cache": // not in 4.3.5
			continue
		}
		t.Run(tool.name, func(t *testing.T) {
			t.Parallel()
			for _, line := range lines {
				args := strings.Fields(strings.ReplaceAll(line, "@", nobody))
				t.Run(line, func(t *testing.T) {
					got, want := p.ours(t, tool.name, args...), p.theirs(t, tool.name, args...)
					got.stderr = strings.Replace(got.stderr, "      --json             output as JSON\n", "", 1)
					if want.exit == -1 {
						return // it crashes
					}
					same(t, got, want)
				})
			}
		})
	}
}

// TestConnecting: hosts, sockets and ports that lead nowhere.
func TestConnecting(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	p := place{dir: t.TempDir()}
	for _, line := range []string{
		"-w -h 127.0.0.1 -p 1025", "-w -h localhost -p 1025", "-w -h nosuch.invalid", "-w -h /nosuch", "-w -h /nosuch -p 1025",
		"-h 127.0.0.1 -p 1025", "-w -p 1025", "-w --host= -p 1025",
	} {
		t.Run(line, func(t *testing.T) {
			args := strings.Fields(line)
			same(t, p.ours(t, "pcp_node_count", args...), p.theirs(t, "pcp_node_count", args...))
		})
	}
}

// TestPasswordTools gives the same command lines to Debian's pg_md5 and pg_enc
// and to ours, each in a folder of its own, and compares the files too.
func TestPasswordTools(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	long := strings.Repeat("a", 128)
	for _, line := range []string{
		"pg_md5", "pg_md5 -h", "pg_md5 --help", "pg_md5 --vers", "pg_md5 -Q", "pg_md5 -m", "pg_md5 --md5auth=1", "pg_md5 -f", "pg_md5 --conf", "pg_md5 -hm",
		"pg_md5 secret", "pg_md5 foo bar", "pg_md5 -- -foo", "pg_md5 -u", "pg_md5 -m -u", "pg_md5 -p", "pg_md5 EMPTY", "pg_md5 -u zoe pwz",
		"pg_md5 " + long, "pg_md5 " + long + "a", "pg_md5 -m -f c.conf -u bob secret", "pg_md5 -m -f c.conf secret", "pg_md5 -m -f none -u x y",
		"pg_md5 -i pairs", "pg_md5 -m -f c.conf -i pairs", "pg_md5 -i none", "pg_md5 -f c.conf -m -i none", "pg_md5 -i pairs extra", "pg_md5 -p -i pairs",
		"pg_md5 -m -f c.conf -u it's sec:ret", "pg_md5 -mu bob -fc.conf new", "pg_md5 -m --user=bob --conf=c.conf new",
		"pg_enc", "pg_enc -h", "pg_enc -Q", "pg_enc --foo", "pg_enc -k", "pg_enc secret", "pg_enc foo bar", "pg_enc -K mykey123 secret", "pg_enc -Kmykey123 secret",
		"pg_enc -K k EMPTY", "pg_enc -K k", "pg_enc -p -K k", "pg_enc -P x", "pg_enc -K k -P x", "pg_enc -k key secret", "pg_enc -k openkey secret", "pg_enc -k nokey secret",
		"pg_enc -k key", "pg_enc -k emptykey x", "pg_enc -K k -u bob pw", "pg_enc -K k -m -f c.conf -u alice pw", "pg_enc -K k -f none -m -u x y",
		"pg_enc -k key -i pairs", "pg_enc -k key -m -f c.conf -i pairs", "pg_enc -K k -i none", "pg_enc -K k " + long, "pg_enc -K k " + long + "a",
		"pg_enc --enc-key=mykey123 0123456789abcdef", "pg_enc --update-pass -K k --config-file=c.conf --user bob -- -pw",
	} {
		t.Run(line[:min(len(line), 60)], func(t *testing.T) {
			var outcome [2]said
			var files [2]string
			for i := range outcome {
				p := passwordPlace(t)
				args := strings.Fields(line)
				for j, a := range args {
					if a == "EMPTY" {
						args[j] = ""
					}
				}
				if i == 0 {
					outcome[i] = p.ours(t, args[0], args[1:]...)
				} else {
					outcome[i] = p.theirs(t, args[0], args[1:]...)
				}
				outcome[i].stdout = strings.ReplaceAll(outcome[i].stdout, p.dir, "DIR")
				outcome[i].stderr = strings.ReplaceAll(outcome[i].stderr, p.dir, "DIR")
				text, err := os.ReadFile(filepath.Join(p.dir, "pool_passwd"))
				if err == nil {
					files[i] = string(text)
				}
			}
			same(t, outcome[0], outcome[1])
			if files[0] != files[1] {
				t.Errorf("pool_passwd: got %q, want %q", files[0], files[1])
			}
		})
	}
}

// passwordPlace is a folder with a configuration, keys and a file of pairs.
func passwordPlace(t testing.TB) place {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"c.conf":      "port = 9999\n",
		"pool_passwd": "first:md5ffb5c118b6a0ff8aa3dee840d8f5cc34\nbob:old\nlast:TEXTx\n",
		"key":         "mykey123\n",
		"openkey":     "mykey123\n",
		"emptykey":    "",
		"pairs":       "bob:sec:ret\n\nalice:\n:x\nnocolon\n  carol : sp ace \nlast:nonl",
	} {
		mode := os.FileMode(0o600)
		if name == "openkey" {
			mode = 0o644
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	return place{dir: dir}
}

// TestPgpoolCommandLines gives the same command lines to Debian's pgpool and to
// ours; none of them starts or stops anything.
func TestPgpoolCommandLines(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	p := place{dir: t.TempDir()}
	for _, line := range []string{
		"--help", "-h", "-hv", "-m fast -h", "-v", "--version", "-vh", "-xv", "-v foo",
		"-Q", "--foo", "-f", "--config-file", "-m", "-nQ", "foo", "stop foo", "stop stop", "reload stop", "-m x stop", "-mzz stop", "--mode=x", "-m bad -v",
	} {
		t.Run(line, func(t *testing.T) {
			args := strings.Fields(line)
			got, want := p.ours(t, "pgpool", args...), p.theirs(t, "pgpool", args...)
			if strings.HasPrefix(got.stdout, "pgpool-go ") && strings.Contains(line, "v") {
				got.stdout = "" // our own version
			}
			got.stderr = ownUsage.Replace(got.stderr)
			same(t, got, want)
		})
	}
}

// ownUsage takes from pgpool's help what the original does not have.
var ownUsage = strings.NewReplacer(`  pgpool [ -f CONFIG_FILE ] [ -F PCP_CONFIG_FILE ] [ -a HBA_CONFIG_FILE ]
         [ --live ] [ --json ] check
`, "", `Check options:
  --live              Also ask the servers and look at the files of this host
  --json              Print what is found as JSON

`, "")

// TestLikeGetopt: what Debian's pgpool does not take but the C library's
// getopt_long would.
func TestLikeGetopt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	p := place{dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(p.dir, "c.conf"), []byte("pid_file_name = 'none.pid'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"-fc.conf stop", "stop -f c.conf", "stop -nmf --config-fi=c.conf", "-xCDdfc.conf -- stop", "--conf c.conf --mo f stop", "stop -mf -f c.conf --hba h --pcp=p -k k"} {
		got := p.ours(t, "pgpool", strings.Fields(line)...)
		if got.exit != 3 || !strings.HasSuffix(got.stderr, "FATAL:  could not read pid file\n") {
			t.Errorf("%s: %+v", line, got)
		}
	}
}
