package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgpool-go/tools/testcluster"
)

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real PostgreSQL servers: skipped by -short")
	}
	program := filepath.Join(t.TempDir(), "pgpool")
	if out, err := exec.Command("go", "build", "-o", program, "../pgpool").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	port, err := testcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	ctx, ctrlC := context.WithCancel(t.Context())
	defer ctrlC()
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, program, port, write)
		write.Close()
		ended <- err
	}()

	var conf string
	lines := bufio.NewScanner(read)
	for conf == "" && lines.Scan() {
		if m := regexp.MustCompile(`configuration is in (\S+),`).FindStringSubmatch(lines.Text()); m != nil {
			conf = m[1]
		}
	}
	if conf == "" {
		t.Fatalf("no word of success: %v", <-ended)
	}
	go io.Copy(io.Discard, read)

	psql := func(sql ...string) string {
		t.Helper()
		args := []string{"-XAtqw", "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", testcluster.Superuser}
		for _, s := range sql {
			args = append(args, "-c", s)
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		out, err := exec.CommandContext(limited, "psql", append(args, "postgres")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v, %v: %s", sql, err, limited.Err(), out)
		}
		return strings.TrimSpace(string(out))
	}
	psql("create table t (i int)", "insert into t values (1)")
	reads := make([]string, 60)
	for i := range reads {
		reads[i] = "select 1"
	}
	psql(reads...)
	nodes := strings.Split(psql("\\pset tuples_only off", "\\pset footer off", "show pool_nodes"), "\n")
	header := strings.Split(nodes[len(nodes)-4], "|")
	column := func(node int, name string) string {
		for i, h := range header {
			if h == name {
				return strings.Split(nodes[len(nodes)-3+node], "|")[i]
			}
		}
		t.Fatalf("no column %s in %q", name, header)
		return ""
	}
	for node, role := range []string{"primary", "standby", "standby"} {
		count, err := strconv.Atoi(column(node, "select_cnt"))
		if err != nil || (count > 0) != (node > 0) {
			t.Errorf("node %d: select_cnt %d, %v", node, count, err)
		}
		if got := column(node, "role"); got != role {
			t.Errorf("node %d: role %s", node, got)
		}
		if got := column(node, "status"); got != "up" {
			t.Errorf("node %d: status %s", node, got)
		}
	}

	ctrlC()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(conf))); !os.IsNotExist(err) {
		t.Errorf("files stayed: %v", err)
	}
	if _, err := listenPort(port); err != nil {
		t.Errorf("somebody still listens: %v", err)
	}
}

func TestListenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().(*net.TCPAddr).Port
	if _, err := listenPort(taken); err == nil {
		t.Error("a port that is asked for and taken is no error")
	}
	if port, err := listenPort(0); err != nil || port == 0 {
		t.Errorf("got %d, %v", port, err)
	}
}

func TestDemoSaysWhyPgpoolEnded(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real PostgreSQL servers: skipped by -short")
	}
	program := filepath.Join(t.TempDir(), "pgpool")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho it is me >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), program, 0, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "it is me") {
		t.Errorf("got %v", err)
	}
}
