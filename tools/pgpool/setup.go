package main

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgpool-go/pcp"
	"pgpool-go/tools/testcluster"
)

// setupFiles are what pgpool_setup writes, as templates over a setup.
//
//go:embed setup
var setupFiles embed.FS

// setup is a test cluster in one directory: PostgreSQL servers, pgpool, and the
// scripts that start and stop them and see to failovers.
type setup struct {
	Dir       string
	Nodes     []setupNode
	Port      int // of pgpool
	PcpPort   int
	SocketDir string
	PgBin     string // of PostgreSQL's programs
	PgpoolBin string // of ours, under all their names
	User      string // who makes this: superuser, and account at the administrative port

	Slots, Rewind, Debug, CheckTimeWait bool
	setupMode

	call       *call
	noStop     bool // leave it running
	noClusters bool // configuration only
}

type setupNode struct {
	ID   int
	Port int
	Data string
}

// Number counts from 1.
func (n setupNode) Number() int { return n.ID + 1 }

const setupHelp = `Usage:
pgpool_setup [-m MODE] [-n NUM_CLUSTERS] [-p PORT] [-pg PG_PORT] [-s] [-r] [-e] [-d] [-t] [-c] [--no-stop]
Makes a test cluster in the current directory, which must be empty.

  -m MODE          s: streaming replication (default), r: native replication, i: snapshot isolation,
                   l: logical replication, n: raw mode
  -n NUM_CLUSTERS  number of PostgreSQL servers (default 2, or NUMCLUSTERS)
  -p PORT          pgpool's port (default 11000, or BASEPORT); the next one is PCP's, then come the servers'
  -pg PG_PORT      the first server's port
  -s               the standbys have replication slots (USE_REPLICATION_SLOT)
  -r               the standbys are rewound after a failover (USE_PG_REWIND)
  -e               configuration only, no servers
  -d               pgpool is started in debug mode
  -t               accepted, and without effect
  -c               shutdownall waits for lingering connections (CHECK_TIME_WAIT)
  --no-stop        leave everything running

Environment: PGBIN, PGSOCKET_DIR, PGPOOL_INSTALL_DIR
`

// setupTool reads its own command line: -pg is no cluster of letters.
func setupTool() *tool {
	return &tool{name: "pgpool_setup", first: func(t *call) (int, bool) {
		s, err := newSetup(t)
		if err == nil {
			err = s.make()
		}
		if errors.Is(err, errSetupHelp) {
			io.WriteString(t.stderr, setupHelp)
			return 1, true
		}
		if err != nil {
			t.errorf("pgpool_setup: %v", err)
			return 1, true
		}
		return 0, true
	}}
}

var errSetupHelp = errors.New("help")

func newSetup(t *call) (*setup, error) {
	s := &setup{call: t, SocketDir: cmp.Or(os.Getenv("PGSOCKET_DIR"), "/tmp")}
	on := func(name string) bool { return slices.Contains([]string{"true", "yes", "1", "on"}, os.Getenv(name)) }
	s.Slots, s.Rewind, s.CheckTimeWait = on("USE_REPLICATION_SLOT"), on("USE_PG_REWIND"), on("CHECK_TIME_WAIT")
	mode, count, port, pgPort := "s", cmp.Or(os.Getenv("NUMCLUSTERS"), "2"), cmp.Or(os.Getenv("BASEPORT"), "11000"), ""
	values := map[string]*string{"-m": &mode, "-n": &count, "-p": &port, "-pg": &pgPort}
	flags := map[string]*bool{"-s": &s.Slots, "-r": &s.Rewind, "-d": &s.Debug, "-c": &s.CheckTimeWait, "-e": &s.noClusters,
		"-t": new(bool), "--no-stop": &s.noStop}
	for args := t.args; len(args) > 0; args = args[1:] {
		if flag := flags[args[0]]; flag != nil {
			*flag = true
		} else if value := values[args[0]]; value != nil && len(args) > 1 {
			*value, args = args[1], args[1:]
		} else {
			return nil, errSetupHelp
		}
	}
	var known bool
	if s.setupMode, known = setupModes[mode]; !known {
		return nil, fmt.Errorf("mode %q is none of s, r, i, l and n", mode)
	}
	nodes, err1 := number("-n", count, 1, 128)
	first, err2 := number("-p", port, 1024, 65000)
	pg, err3 := number("-pg", cmp.Or(pgPort, strconv.Itoa(first+2)), 1024, 65000)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	s.Port, s.PcpPort = first, first+1
	if pg <= s.PcpPort && pg+nodes > s.Port {
		return nil, fmt.Errorf("the servers' ports from %d are also pgpool's", pg)
	}
	return s, s.place(nodes, pg)
}

func number(option, text string, low, high int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s must be a number from %d to %d, not %q", option, low, high, text)
	}
	return n, nil
}

// place finds out where everything is.
func (s *setup) place(nodes, port int) (err error) {
	if s.Dir, err = os.Getwd(); err != nil {
		return err
	}
	if strings.ContainsAny(s.Dir, " \t'\"\\$`%") {
		return fmt.Errorf("the directory's name %q has characters that scripts and configuration files would have to quote", s.Dir)
	}
	there, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return errors.New("the current directory is not empty")
	}
	who, err := user.Current()
	if err != nil {
		return err
	}
	if who.Uid == "0" && !s.noClusters {
		return errors.New("PostgreSQL does not run as root; use another user")
	}
	s.User = who.Username
	if s.PgBin, err = testcluster.BinDir(os.Getenv("PGBIN")); err != nil {
		return err
	}
	if dir := os.Getenv("PGPOOL_INSTALL_DIR"); dir != "" {
		s.PgpoolBin = filepath.Join(dir, "bin")
	} else {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		s.PgpoolBin = filepath.Dir(exe)
	}
	if _, err := os.Stat(filepath.Join(s.PgpoolBin, "pcp_attach_node")); err != nil {
		return fmt.Errorf("pgpool's programs are not in %s: set PGPOOL_INSTALL_DIR (%w)", s.PgpoolBin, err)
	}
	for i := range nodes {
		s.Nodes = append(s.Nodes, setupNode{i, port + i, fmt.Sprintf("%s/data%d", s.Dir, i)})
	}
	return nil
}

// make does it all, and takes down again what it has started if something fails.
func (s *setup) make() (err error) {
	for _, dir := range []string{"etc", "log", "run", "archivedir"} {
		if err := os.Mkdir(filepath.Join(s.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := s.configure(); err != nil {
		return err
	}
	if s.noClusters {
		return nil
	}
	defer func() {
		if err != nil {
			s.run(filepath.Join(s.Dir, "shutdownall"))
		}
	}()
	if err := s.servers(); err != nil {
		return err
	}
	s.say("temporarily start up pgpool-II cluster")
	if err := s.run(filepath.Join(s.Dir, "startall")); err != nil {
		return err
	}
	if err := s.show(); err != nil {
		return err
	}
	if !s.noStop {
		s.say("shutting down")
		if err := s.run(filepath.Join(s.Dir, "shutdownall")); err != nil {
			return err
		}
	}
	s.say("pgpool-II setting for "+s.Title+" mode is done.\nTo start the whole system, use %[1]s/startall.\n"+
		"To shutdown the whole system, use %[1]s/shutdownall.\npcp command user name is \"%[2]s\", password is \"%[2]s\".\n"+
		"Each PostgreSQL, pgpool-II and pcp port is as follows:", s.Dir, s.User)
	ports, err := os.ReadFile(filepath.Join(s.Dir, "README.port"))
	s.say("%sThe info above is in README.port.", ports)
	return err
}

func (s *setup) say(format string, args ...any) { fmt.Fprintf(s.call.out, format+"\n", args...) }

// configure writes what is not a server's.
func (s *setup) configure() error {
	for name, mode := range map[string]os.FileMode{
		"startall": 0o755, "shutdownall": 0o755, "pgpool_reload": 0o755, "bashrc.ports": 0o644, "README.port": 0o644,
		"etc/pgpool.conf": 0o600, "etc/failover.sh": 0o755, "etc/follow_primary.sh": 0o755, "etc/standby.sh": 0o755,
	} {
		if err := s.write(name, filepath.Base(name), mode); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/pcp.conf":      s.User + ":" + pcp.HashPassword(s.User) + "\n",
		"etc/pool_hba.conf": "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n",
		"etc/pool_passwd":   "",
		"pcppass":           "*:*:" + s.User + ":" + s.User + "\n",
	} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// write makes a file of the template of that name.
func (s *setup) write(path, name string, mode os.FileMode) error {
	text, err := fill(name, s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.Dir, path), text, mode)
}

// servers makes the primary, and the standbys as online recovery would.
func (s *setup) servers() error {
	primary := s.Nodes[0]
	s.say("creating startall and shutdownall\ncreating database cluster %s...", primary.Data)
	if err := s.run(s.pg("initdb"), "-D", primary.Data, "-A", "trust", "-U", s.User, "-E", "UTF8", "--no-locale", "--no-sync"); err != nil {
		return err
	}
	conf, err := fill("postgresql.conf", s)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(primary.Data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(conf)
	if err := errors.Join(err, f.Close(),
		os.WriteFile(filepath.Join(primary.Data, "node.conf"), []byte(fmt.Sprintf("port = %d\n", primary.Port)), 0o600),
		s.write("data0/basebackup.sh", s.Backup, 0o755),
		s.write("data0/pgpool_remote_start", "pgpool_remote_start", 0o755)); err != nil {
		return err
	}
	if err := s.run(filepath.Join(primary.Data, "pgpool_remote_start"), "127.0.0.1", primary.Data); err != nil {
		return err
	}
	for _, database := range []string{"template1", "postgres"} {
		if err := s.sql(primary.Port, database, "CREATE EXTENSION pgpool_recovery"); err != nil {
			s.call.errorf("pgpool_setup: pcp_recovery_node will not work: install postgresql-NN-pgpool2 (%v)", err)
			break
		}
	}
	if err := s.sql(primary.Port, "postgres", "CREATE DATABASE test"); err != nil {
		return err
	}
	if !s.Streams() {
		return s.independent()
	}
	for _, n := range s.Nodes[1:] {
		s.say("creating database cluster %s...", n.Data)
		err := s.run(filepath.Join(primary.Data, "basebackup.sh"), primary.Data, "127.0.0.1", n.Data,
			strconv.Itoa(primary.Port), strconv.Itoa(n.ID), strconv.Itoa(n.Port), "127.0.0.1")
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) pg(name string) string { return filepath.Join(s.PgBin, name) }

// run runs a program to its end; what it says goes into the log, and into the
// error if it fails.
func (s *setup) run(file string, args ...string) error {
	log, err := os.OpenFile(filepath.Join(s.Dir, "log", "setup.log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := exec.Command(file, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, log, log // a file, so that no server it starts is waited for
	if err := cmd.Run(); err != nil {
		log.Seek(from, io.SeekStart)
		text, _ := io.ReadAll(log)
		return fmt.Errorf("%s: %w\n%s", filepath.Base(file), err, text)
	}
	return nil
}

func (s *setup) sql(port int, database, text string) error {
	return s.run(s.pg("psql"), "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", s.User, "-d", database, "-Xqc", text)
}

// show prints SHOW POOL_NODES once all nodes are in and all standbys stream.
func (s *setup) show() error {
	const within = 60 * time.Second
	psql := func(format, sql string) (string, error) {
		out, err := exec.Command(s.pg("psql"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", s.User, "-d", "test", format, "-c", sql).Output()
		return string(out), err
	}
	var rows string
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		var err error
		if rows, err = psql("-XAtq", "SHOW POOL_NODES"); err == nil && s.sound(rows) {
			table, err := psql("-Xq", "SHOW POOL_NODES")
			io.WriteString(s.call.out, table)
			return err
		}
	}
	return fmt.Errorf("not all nodes are in after %v:\n%s", within, rows)
}

// sound: a primary and streaming standbys, or a main node and replicas, which in raw
// mode nobody connects to.
func (s *setup) sound(rows string) bool {
	lines := strings.Split(strings.TrimSpace(rows), "\n")
	for i, line := range lines {
		role, status := "|"+s.Roles[min(i, 1)]+"|"+s.Roles[min(i, 1)]+"|", "|up|up|"
		if s.Raw() && i > 0 {
			status = "|waiting|up|"
		}
		if !strings.Contains(line, status) || !strings.Contains(line, role) || s.Streams() && i > 0 && !strings.Contains(line, "|streaming|") {
			return false
		}
	}
	return len(lines) == len(s.Nodes)
}
