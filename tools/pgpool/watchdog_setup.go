package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/template"
)

// groupSetup is a few pgpools with a watchdog on one host: the first is made as
// pgpool_setup does, with the servers; the others have configuration only, for the
// same servers.
type groupSetup struct {
	Dir       string
	SocketDir string
	Pgpools   []groupMember

	call   *call
	pg     int      // the first server's port
	pass   []string // options of pgpool_setup
	noStop bool
}

type groupMember struct {
	ID                                   int
	Dir                                  string
	Port, PcpPort, WdPort, HeartbeatPort int
}

const watchdogSetupHelp = `Usage:
watchdog_setup [-wn NUM_PGPOOL] [-wp PORT] [-m MODE] [-n NUM_CLUSTERS] [-pg PG_PORT] [-d] [--no-stop]
Makes a test installation of several pgpools with watchdog in the current directory, which must be empty.

  -wn NUM_PGPOOL   number of pgpools (default 3, or W_NUM_PGPOOL)
  -wp PORT         ports of the first pgpool: this one is its own, then come PCP's, the watchdog's and the heartbeat's;
                   the next pgpool's follow (default 50000, or W_BASE_PORT)
  -n NUM_CLUSTERS  number of PostgreSQL servers (default 2)
  -pg PG_PORT      the first server's port (default: 1000 above the first pgpool's)
  -p PORT          the same as -wp
  -m MODE          s: streaming replication (default; the only mode there is yet)
  -d               pgpool is started in debug mode
  --no-stop        leave everything running

Environment: PGBIN, PGSOCKET_DIR, PGPOOL_INSTALL_DIR
`

func watchdogSetupTool() *tool {
	return &tool{name: "watchdog_setup", first: func(t *call) (int, bool) {
		g, err := newGroupSetup(t)
		if err == nil {
			err = g.make()
		}
		if errors.Is(err, errSetupHelp) {
			io.WriteString(t.stderr, watchdogSetupHelp)
			return 1, true
		}
		if err != nil {
			t.errorf("watchdog_setup: %v", err)
			return 1, true
		}
		return 0, true
	}}
}

func newGroupSetup(t *call) (*groupSetup, error) {
	g := &groupSetup{call: t, SocketDir: cmp.Or(os.Getenv("PGSOCKET_DIR"), "/tmp")}
	count, port := cmp.Or(os.Getenv("W_NUM_PGPOOL"), "3"), cmp.Or(os.Getenv("W_BASE_PORT"), "50000")
	mode, servers, pg, debug := "s", "2", "", false
	values := map[string]*string{"-wn": &count, "-wp": &port, "-p": &port, "-pg": &pg, "-m": &mode, "-n": &servers}
	flags := map[string]*bool{"-d": &debug, "--no-stop": &g.noStop}
	for args := t.args; len(args) > 0; args = args[1:] {
		if flag := flags[args[0]]; flag != nil {
			*flag = true
		} else if value := values[args[0]]; value != nil && len(args) > 1 {
			*value, args = args[1], args[1:]
		} else {
			return nil, errSetupHelp
		}
	}
	pgpools, err1 := number("-wn", count, 1, 128)
	first, err2 := number("-wp", port, 1024, 64000)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	server, err := number("-pg", cmp.Or(pg, strconv.Itoa(first+1000)), 1024, 65000)
	if err != nil {
		return nil, err
	}
	g.pg = server
	if g.pass = []string{"-m", mode, "-n", servers}; debug {
		g.pass = append(g.pass, "-d")
	}
	if g.Dir, err = os.Getwd(); err != nil {
		return nil, err
	}
	there, err := os.ReadDir(g.Dir)
	if err != nil {
		return nil, err
	}
	if len(there) > 0 {
		return nil, errors.New("the current directory is not empty")
	}
	for id := range pgpools {
		p := first + 4*id
		g.Pgpools = append(g.Pgpools, groupMember{id, fmt.Sprintf("%s/pgpool%d", g.Dir, id), p, p + 1, p + 2, p + 3})
	}
	return g, nil
}

// make does it all, and takes down again what it has started if something fails.
func (g *groupSetup) make() (err error) {
	g.say("Starting set up")
	defer os.Chdir(g.Dir)
	var all []*setup
	for _, m := range g.Pgpools {
		g.say("============= setting up pgpool %d =============", m.ID)
		if err := os.Mkdir(m.Dir, 0o755); err != nil {
			return err
		}
		if err := os.Chdir(m.Dir); err != nil {
			return err
		}
		s, err := g.member(m, all)
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	for i, m := range g.Pgpools { // the servers were made by a pgpool that was alone
		if err := g.join(all[i], m); err != nil {
			return err
		}
	}
	for name, from := range map[string]string{"startall": "startgroup", "shutdownall": "stopgroup"} {
		text, err := fill(from, g)
		if err == nil {
			err = os.WriteFile(filepath.Join(g.Dir, name), text, 0o755)
		}
		if err != nil {
			return err
		}
	}
	if !g.noStop {
		return nil
	}
	if err := all[0].run(filepath.Join(g.Dir, "startall")); err != nil {
		all[0].run(filepath.Join(g.Dir, "shutdownall"))
		return err
	}
	return nil
}

// member makes one pgpool in the current directory: the first, or one for the
// first's servers.
func (g *groupSetup) member(m groupMember, before []*setup) (*setup, error) {
	c := *g.call
	c.args = append(slices.Clone(g.pass), "-p", strconv.Itoa(m.Port), "-pg", strconv.Itoa(g.pg))
	if m.ID > 0 {
		c.args = append(c.args, "-e")
	}
	s, err := newSetup(&c)
	if err != nil {
		return nil, err
	}
	if m.ID == 0 {
		return s, s.make()
	}
	s.Nodes = before[0].Nodes
	if err := s.make(); err != nil {
		return nil, err
	}
	ports, err := os.ReadFile(filepath.Join(m.Dir, "README.port"))
	g.say("Each PostgreSQL, pgpool-II and pcp port is as follows:\n%s", ports)
	return s, err
}

// join makes a pgpool one of the group.
func (g *groupSetup) join(s *setup, m groupMember) error {
	text, err := fill("watchdog.conf", g)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "etc/pgpool.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close(), os.WriteFile(filepath.Join(s.Dir, "etc/pgpool_node_id"), fmt.Appendln(nil, m.ID), 0o644))
}

func (g *groupSetup) say(format string, args ...any) { fmt.Fprintf(g.call.out, format+"\n", args...) }

// fill is a template of that name over something.
func fill(name string, over any) ([]byte, error) {
	t, err := template.ParseFS(setupFiles, "setup/"+name)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = t.Execute(&text, over)
	return text.Bytes(), err
}
