package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sayAs runs the program in this process.
func sayAs(argv ...string) said {
	var out, errs bytes.Buffer
	exit := run(argv, os.Stdin, &out, &errs)
	return said{out.String(), errs.String(), exit}
}

func TestNames(t *testing.T) {
	version := said{stderr: "pcp_node_count (pgpool-II) 4.3.5\n"}
	for _, argv := range [][]string{
		{"pcp_node_count", "-V"},
		{"/usr/sbin/pcp_node_count", "-V"},
		{"pgpool", "pcp_node_count", "-V"},
		{"/usr/local/bin/pgpool-go", "pcp_node_count", "-V"},
	} {
		same(t, sayAs(argv...), version)
	}
	names := strings.Fields(sayAs("pgpool", "--tool-names").stdout)
	for _, name := range []string{"pgpool", "pcp_attach_node", "pcp_invalidate_query_cache", "pg_md5", "pg_enc", "wd_cli", "pgpool_setup", "watchdog_setup"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing in %q", name, names)
		}
	}
	if len(names) != 21 {
		t.Errorf("%d names: %q", len(names), names)
	}
	if got := sayAs("pgpool", "--version"); got.stderr != "pgpool-II version 4.3.5 (tamahomeboshi)\n" || !strings.HasPrefix(got.stdout, "pgpool-go ") {
		t.Errorf("version: %+v", got)
	}
}

func TestNormalise(t *testing.T) {
	options := []option{
		{long: "alpha", short: 'a'},
		{long: "beta", short: 'b', value: true},
		{long: "better", short: 'B'},
		{long: "gamma", short: 'g', longOnly: true},
	}
	for _, c := range []struct{ in, out, err string }{
		{"", "--", ""},
		{"x -a y", "--alpha -- x y", ""},
		{"-aBbx", "--alpha --better --beta=x --", ""},
		{"-ab x z", "--alpha --beta=x -- z", ""},
		{"--beta=x=y --beta -a", "--beta=x=y --beta=-a --", ""},
		{"--al --bett", "--alpha --better --", ""},
		{"--beta= -", "--beta= -- -", ""},
		{"-a -- -a --", "--alpha -- -a --", ""},
		{"--gam", "--gamma --", ""},
		{"-g", "", "t: invalid option -- 'g'"},
		{"-ax", "", "t: invalid option -- 'x'"},
		{"-ab", "", "t: option requires an argument -- 'b'"},
		{"--beta", "", "t: option '--beta' requires an argument"},
		{"--alpha=1", "", "t: option '--alpha' doesn't allow an argument"},
		{"--bet", "", "t: option '--bet' is ambiguous; possibilities: '--beta' '--better'"},
		{"--delta=1", "", "t: unrecognized option '--delta'"},
		{"-a -x -b", "", "t: invalid option -- 'x'"},
	} {
		out, err := normalise("t", options, gnuWords, strings.Fields(c.in), nil)
		if got := strings.Join(out, " "); got != c.out || err != nil && err.Error() != c.err || err == nil && c.err != "" {
			t.Errorf("%q: got %q, %v, want %q, %s", c.in, got, err, c.out, c.err)
		}
	}
}

// terminal opens a pair of a terminal and what sits in front of it.
func terminal(t *testing.T) (front, tty *os.File) {
	t.Helper()
	front, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { front.Close() })
	var n, unlock int32
	for _, call := range []struct {
		request uintptr
		arg     *int32
	}{{unix.TIOCSPTLCK, &unlock}, {unix.TIOCGPTN, &n}} {
		if _, _, no := unix.Syscall(unix.SYS_IOCTL, front.Fd(), call.request, uintptr(unsafe.Pointer(call.arg))); no != 0 {
			t.Fatal(no)
		}
	}
	tty, err = os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(int(n))), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return front, tty
}

// TestPrompt types passwords at a terminal, which must not show them.
func TestPrompt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ tool, args, shown string }{
		{"pg_md5", "-p", "password: \r\n5ebe2294ecd0e0f08eab7690d2a6ee69\r\n"},
		{"pg_enc", "-K mykey123", "db password: \r\n\r\n7oKybeNIY0jebC5DUrqxzA==\r\npool_passwd string: AES7oKybeNIY0jebC5DUrqxzA==\r\n"},
		{"pcp_node_count", "-p 1025", "Password: \r\nERROR: connection to socket \"/tmp/.s.PGSQL.1025\" failed with error \"No such file or directory\"\r\n"},
	} {
		t.Run(c.tool, func(t *testing.T) {
			front, tty := terminal(t)
			cmd := exec.Command(self, strings.Fields(c.args)...)
			cmd.Env = append(os.Environ(), asTool+"="+c.tool, "GORACE=atexit_sleep_ms=0", "PCPPASSFILE=/nonexistent")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			tty.Close()
			var shown []byte
			b := make([]byte, 4096)
			for typed := false; ; {
				n, err := front.Read(b)
				shown = append(shown, b[:n]...)
				if err != nil {
					break
				}
				if !typed && bytes.HasSuffix(shown, []byte("assword: ")) {
					typed = true
					front.WriteString("secret\n")
				}
			}
			cmd.Wait()
			if string(shown) != c.shown {
				t.Errorf("shown: %q, want %q", shown, c.shown)
			}
		})
	}
}
