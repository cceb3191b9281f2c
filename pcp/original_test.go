package pcp

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// original finds a pcp program of Debian's pgpool2 4.3.5.
func original(t *testing.T, tool string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
		if file := filepath.Join(dir, tool); exec.Command(file, "--version").Run() == nil {
			return file
		}
	}
	t.Fatalf("%s of Debian's package pgpool2 is not installed", tool)
	return ""
}

// run starts a program of the original against addr.
func run(t *testing.T, addr, user, password string, command ...string) (stdout, stderr string, exit int) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	pass := filepath.Join(t.TempDir(), "pcppass")
	if err := os.WriteFile(pass, []byte("*:*:*:"+password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(original(t, command[0]), append([]string{"-w", "-h", host, "-p", port, "-U", user}, command[1:]...)...)
	cmd.Env = []string{"PCPPASSFILE=" + pass, "TZ=UTC", "LC_ALL=C"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if bad, ok := errors.AsType[*exec.ExitError](err); ok {
		err, exit = nil, bad.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), exit
}

// TestOriginalTools runs Debian's own programs against this server, which says
// what the original said when the same programs were recorded, and wants them
// to print the same.
func TestOriginalTools(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	for _, r := range loadRecordings(t) {
		if r.Kind != "client" || r.Client != "4.3.5" {
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			opt := recordedAccount(r)
			opt.salt = nil
			addr := serve(t, scriptOf(t, r), opt)
			user, password := "pcpadm", "secret"
			switch r.Name {
			case "wrong_password":
				password = "wrongpw"
			case "no_password":
				password = "x"
			case "unknown_user":
				user = "nosuch"
			}
			stdout, stderr, exit := run(t, addr, user, password, strings.Fields(r.Command)...)
			if stdout != r.Stdout || stderr != r.Stderr || exit != r.Exit {
				t.Errorf("got exit %d\n%s%s\nwant %d\n%s%s", exit, stdout, stderr, r.Exit, r.Stdout, r.Stderr)
			}
		})
	}
}

// TestOriginalToolsReadOurWords: texts of our own must get through the
// original's error reader, which has a flaw.
func TestOriginalToolsReadOurWords(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	long := strings.Repeat("a long way to say it, ", 30)
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"S, M and D are made small", NewError("Server failed", "Don't know"), "ERROR:  server failed\nDETAIL:  don't know\n\n"},
		{"plain error", errors.New("more is less"), "ERROR:  could not process attach request\nDETAIL:  more is less\n\n"},
		{"long detail", NewError("it failed", long), "ERROR:  it failed\nDETAIL:  " + long + "\n\n"},
		{"several lines", NewError("it failed", "one\ntwo"), "ERROR:  it failed\nDETAIL:  one\ntwo\n\n"},
		{"no node", NotValidForFailover(3, Unused), "ERROR:  invalid degenerate backend request, node id : 3 status: [0] is not valid for failover\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := serve(t, &script{err: c.err}, Options{Credentials: account})
			stdout, stderr, exit := run(t, addr, "admin", "secret", "pcp_attach_node", "1")
			if stdout != "" || stderr != c.want || exit != 0 {
				t.Errorf("got exit %d\n%s%s\nwant\n%s", exit, stdout, stderr, c.want)
			}
		})
	}
}
