package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// asTool makes the test program answer to a tool's name instead of testing.
const asTool = "PGPOOL_TEST_AS_TOOL"

func TestMain(m *testing.M) {
	if name := os.Getenv(asTool); name != "" {
		os.Exit(run(append([]string{name}, os.Args[1:]...), os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// said is what a program printed, and how it ended.
type said struct {
	stdout, stderr string
	exit           int
}

// a place to run programs in: folder, environment, input.
type place struct {
	dir   string
	env   []string
	stdin string
}

func (p place) run(t testing.TB, file string, env []string, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Args[0] = filepath.Base(file)
	cmd.Dir = p.dir
	cmd.Env = append(append([]string{"HOME=" + p.dir, "TZ=UTC", "LC_ALL=C", "PATH=" + os.Getenv("PATH"),
		"PCPPASSFILE=/nonexistent",
		"GORACE=atexit_sleep_ms=0", // a second per run, for nothing
	}, p.env...), env...)
	cmd.Stdin = strings.NewReader(p.stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var s said
	if bad, ok := errors.AsType[*exec.ExitError](err); ok {
		err, s.exit = nil, bad.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Errorf("%s %q did not end", file, args)
	}
	s.stdout, s.stderr = out.String(), errs.String()
	return s
}

// ours runs this program under a tool's name.
func (p place) ours(t testing.TB, tool string, args ...string) said {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p.run(t, self, []string{asTool + "=" + tool}, args...)
}

// theirs runs Debian's program of that name.
func (p place) theirs(t testing.TB, tool string, args ...string) said {
	t.Helper()
	return p.run(t, original(t, tool), nil, args...)
}

func original(t testing.TB, tool string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
		file := filepath.Join(dir, tool)
		if info, err := os.Stat(file); err == nil && info.Mode()&0o111 != 0 {
			return file
		}
	}
	t.Fatalf("%s is missing: install Debian's package pgpool2 (4.3.5)", tool)
	return ""
}

var pidInText = regexp.MustCompile(`pid[: ]+[0-9]+`)

// same compares two runs, process ids aside.
func same(t testing.TB, got, want said) {
	t.Helper()
	for _, s := range []*said{&got, &want} {
		s.stderr = pidInText.ReplaceAllString(s.stderr, "pid N")
	}
	if got != want {
		t.Errorf("got exit %d, stdout:\n%s\nstderr:\n%s\nwant exit %d, stdout:\n%s\nstderr:\n%s",
			got.exit, got.stdout, got.stderr, want.exit, want.stdout, want.stderr)
	}
}
