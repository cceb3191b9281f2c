package pgpool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/catalog"
	"pgpool-go/pgpool/certs"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/command"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/monitor"
	"pgpool-go/pgpool/qcache"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/session"
	"pgpool-go/pgpool/wire"
	"pgpool-go/watchdog"
)

// Options say where the files are and how the process was started.
type Options struct {
	Paths         conf.Paths
	DiscardStatus bool      // -D: begin with all nodes in, whatever pgpool_status says
	Debug         bool      // -d: log at debug1 at least
	Assertions    bool      // -x: hold each change of the cluster's state to what is promised of it
	ClearOidmaps  bool      // -C: begin without the maps of a query cache in memcached
	Foreground    bool      // -n
	Stderr        io.Writer // where log_destination stderr goes; nil, os.Stderr
}

// ShutdownMode is how sessions are treated at the end.
type ShutdownMode int

const (
	Smart     ShutdownMode = iota // wait until all clients have left
	Fast                          // end the sessions with a word
	Immediate                     // drop everything
)

// Server is one pgpool.
type Server struct {
	opts      Options
	journal   *eventlog.Journal
	log       *slog.Logger
	engine    *wire.Engine
	owner     *cluster.Owner
	monitor   *monitor.Monitor
	pool      *backend.Pool
	catalog   *catalog.Catalog
	mutations *catalog.Mutations
	cache     *qcache.Cache // nil: memory_cache_enabled is off
	shared    *session.Shared
	config    atomic.Pointer[session.Current]

	asking     sync.Map                          // int: the node whose fate the group is asked for
	witness    *witness                          // of the watchdog's; nil: the primary does not stand by this pgpool
	group      atomic.Pointer[watchdog.Watchdog] // nil: this pgpool stands alone
	listeners  []*wire.Listener
	pcp        []net.Listener
	gate       gate
	recovering atomic.Bool // online recovery is under way
	port       int

	reloadMu   sync.Mutex
	background context.Context         // of the background work
	stop       context.CancelCauseFunc // ends it
	work       sync.WaitGroup          // and this waits for it
	doors      sync.WaitGroup          // listeners being accepted from
	clients    sync.WaitGroup          // connections being served

	noMoreDials context.CancelFunc
	closing     atomic.Bool // no new clients
	once        sync.Once
	over        chan struct{}
}

// New reads the configuration and opens the log. Nothing listens yet.
func New(opts Options) (*Server, error) {
	if opts.Stderr == nil {
		opts.Stderr = os.Stderr
	}
	s := &Server{opts: opts, over: make(chan struct{})}
	s.journal = eventlog.New(opts.Stderr)
	s.log = s.journal.Logger()
	c, notices, err := conf.Load(opts.Paths)
	if err != nil {
		s.tell(notices)
		return nil, err
	}
	if opts.Debug {
		c = debug(c)
	}
	if err := s.journal.Configure(c); err != nil {
		return nil, err
	}
	s.tell(notices)
	s.tell(c.Ineffective(ineffective))
	if c.BackendClusteringMode == conf.Slony {
		src, _ := c.Source("backend_clustering_mode")
		s.tell([]conf.Notice{{Level: conf.LevelWarning, File: src.File, Line: src.Line, Text: "backend_clustering_mode slony is taken for logical_replication",
			Detail: "Slony-I is not maintained any more, and pgpool-II 4.4 has given this mode up.", Hint: "Set backend_clustering_mode to logical_replication."}})
	}
	if s.engine, err = wire.NewEngine(loops()); err != nil {
		return nil, err
	}
	cur := s.current(c)
	if cur.HbaErr != nil {
		return nil, cur.HbaErr
	}
	if err := secure(cur); err != nil {
		return nil, err
	}
	s.warnOfModes(c)
	if opts.ClearOidmaps {
		s.clearOidmaps(c)
	}
	s.config.Store(cur)
	s.assemble(c)
	return s, nil
}

// tell logs what the reader of the configuration had to say.
func (s *Server) tell(notices []conf.Notice) {
	for _, n := range notices {
		text := n.Text
		if n.File != "" {
			text = fmt.Sprintf("%s, in file %q line %d", n.Text, n.File, n.Line)
		}
		s.log.LogAttrs(context.Background(), eventlog.LevelOf(n.Level), text, slog.String("detail", n.Detail), slog.String("hint", n.Hint))
	}
}

// current derives what sessions want from a configuration, and reads the files
// that belong to it.
func (s *Server) current(c *conf.Config) *session.Current {
	cur := &session.Current{Config: c, Rules: route.NewRules(c), Alone: alone(c)}
	cacheTables(cur, c)
	if path := c.PoolPasswdFile(); c.PoolPasswd != "" {
		passwd, err := conf.LoadPoolPasswd(path, c.PassKey())
		switch {
		case err == nil:
			cur.Passwd = passwd
			s.tell(passwd.Notices)
		case errors.Is(err, os.ErrNotExist):
		default:
			s.log.LogAttrs(context.Background(), eventlog.Warning, "could not read the password file", slog.Any("err", err))
		}
	}
	if c.EnablePoolHba {
		if cur.Hba, cur.HbaErr = loadHba(c.Paths.Hba); cur.HbaErr == nil {
			s.tell(cur.Hba.Notices)
			if !c.Ssl {
				s.tell(cur.Hba.WithoutSSL())
			}
		}
	}
	return cur
}

// alone tells whether a session has one server only, as where there is one, and in raw
// mode.
func alone(c *conf.Config) bool {
	used := 0
	for _, b := range c.Backends {
		if b.Used() {
			used++
		}
	}
	return used == 1 || c.BackendClusteringMode == conf.Raw
}

// warnOfModes tells of files with secrets that others may read or change.
func (s *Server) warnOfModes(c *conf.Config) {
	k := &checker{Config: c}
	files := k.secretFiles()
	delete(files, c.Paths.Key) // of which the original has words of its own
	if _, notices, err := conf.LoadKey(c.Paths.Key); err == nil {
		s.tell(notices)
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		k.owned(path, files[path])
	}
	for _, f := range k.found {
		s.tell([]conf.Notice{{Level: conf.LevelWarning, Text: fmt.Sprintf("%s: %q", f.Text, f.File), Detail: f.Detail, Hint: f.Mend}})
	}
}

// secure reads the certificates and keys that a configuration names.
func secure(cur *session.Current) error {
	clients, err := certs.Server(cur.Config)
	if err != nil {
		return err
	}
	servers, required, err := certs.Backend(cur.Config)
	if err != nil {
		return err
	}
	cur.ClientTLS, cur.ServerTLS = clients, nil
	if servers != nil {
		cur.ServerTLS = &backend.TLS{Config: servers, Required: required, Second: cur.BackendSslmode == conf.SslAllow}
	}
	return nil
}

func (s *Server) assemble(c *conf.Config) {
	now := func() *session.Current { return s.config.Load() }
	s.pool = backend.NewPool(func() backend.Limits {
		c := now()
		return backend.Limits{PerNode: c.MaxPool * c.NumInitChildren, Idle: idleLimit(c.Config), Uses: c.ChildMaxConnections}
	}, func() backend.ShareLimits {
		c := now()
		return backend.ShareLimits{Size: c.PoolSize, Reserve: c.ReservePoolSize, After: c.ReservePoolTimeout, Min: min(c.MinPoolSize, c.PoolSize),
			Idle: idleLimit(c.Config), Uses: c.ChildMaxConnections}
	})
	s.owner = cluster.New(c, cluster.Options{
		Log: s.log, Perform: s.perform, StatusFile: c.StatusFile(), DiscardStatus: s.opts.DiscardStatus,
		Assert: s.opts.Assertions,
	})
	classify := parser.New(parser.Options{})
	s.catalog = catalog.New(catalog.Options{
		Expire: c.RelcacheExpire, Classify: classify.Classify,
		Size: c.RelcacheSize * c.NumInitChildren, // the original has so many in each child process
	})
	s.mutations = catalog.NewMutations(mutationOptions(c), time.Now())
	s.cache = qcache.New(c, s.log)
	dialing, noMore := context.WithCancel(context.Background())
	s.noMoreDials = noMore
	s.shared = &session.Shared{
		Dialing: dialing,
		Engine:  s.engine, Config: now, Cluster: s.owner, Pool: s.pool, Parser: classify, Catalog: s.catalog, Mutations: s.mutations, Cache: s.cache,
		Watchdog: s.showWatchdog,
		Slots:    session.NewTable(c.NumInitChildren, time.Now()), Journal: s.journal, Log: s.log, Version: Version,
	}
	primary := func() int { return s.owner.Now().Primary }
	s.shared.Verifiers = &session.Verifiers{
		Primary: primary,
		Changed: s.pool.Oust,
		Connect: func(ctx context.Context, user, database string) (backend.Asker, error) {
			snap := s.owner.Now()
			if snap.Primary < 0 {
				return backend.Asker{}, errors.New("there is no primary")
			}
			return s.login(ctx, snap.Nodes[snap.Primary], user, "", database)
		},
	}
	o := monitor.Options{Cluster: s.owner, Config: func() *conf.Config { return now().Config }, Connect: s.connect, Log: s.log}
	if s.cache != nil {
		o.Replayed = s.cache.Replayed
	}
	s.monitor = monitor.New(o)
}

// idleLimit is how long a server connection is kept unused; 0, without a limit.
func idleLimit(c *conf.Config) time.Duration {
	if c.ChildLifeTime > 0 && (c.ConnectionLifeTime == 0 || c.ChildLifeTime < c.ConnectionLifeTime) {
		return c.ChildLifeTime
	}
	return c.ConnectionLifeTime
}

func mutationOptions(c *conf.Config) catalog.MutationOptions {
	return catalog.MutationOptions{
		Factor: c.TrackTableMutationTtlFactor, MaxStaleness: c.TrackTableMutationMaxStaleness,
		ColdStart: c.TrackTableMutationColdStartDuration, Size: c.TrackTableMutationTableSize,
	}
}

// heedPrimary forgets what the catalog knows whenever another node has become the
// primary: it answers from now on.
func (s *Server) heedPrimary(ctx context.Context) {
	known := -1
	for {
		n, err := s.owner.Wait(ctx, func(n *cluster.Snapshot) bool { return n.Primary >= 0 && n.Primary != known })
		if err != nil {
			return
		}
		if known >= 0 {
			s.catalog.InvalidateAll()
			if s.cache != nil {
				s.cache.Desert()
			}
		}
		known = n.Primary
	}
}

// perform does the effects that the cluster's owner leaves to others.
func (s *Server) perform(e cluster.Effect) {
	switch e := e.(type) {
	case cluster.ProbeNow:
		s.monitor.ProbeNow(e.Node)
	case cluster.DrainPool:
		s.pool.Drain(e.Node)
		s.shared.Slots.Sever(e.Node)
		s.catalog.InvalidateAll()
	case cluster.AskVote:
		s.askVote(e)
	case cluster.RunCommand:
		s.order(e.Job, func(ctx context.Context) error { return s.run(ctx, e) })
	case cluster.PromoteBest:
		s.order(e.Job, func(ctx context.Context) error { return s.monitor.Promote(ctx, e.Nodes) })
	case cluster.Repoint:
		s.order(e.Job, func(ctx context.Context) error { return s.monitor.Repoint(ctx, e.Node, e.Primary) })
	}
}

// order does what a job of the cluster wants done, and reports its end.
func (s *Server) order(job uint64, do func(context.Context) error) {
	s.work.Go(func() { s.owner.Submit(cluster.Ended{Job: job, Err: do(s.background)}) })
}

// run runs an operator's command.
func (s *Server) run(ctx context.Context, c cluster.RunCommand) error {
	cur := s.config.Load()
	limit, app := cur.FailoverCommandTimeout, "main"
	if c.Name == "follow_primary_command" {
		limit, app = cur.FollowPrimaryCommandTimeout, "follow_child"
	}
	return command.Run(ctx, s.log.With(slog.String("app", app)), c.Line, limit)
}

// connect logs in to a node for the monitor.
func (s *Server) connect(ctx context.Context, n cluster.Node, user, password, database string) (monitor.Conn, error) {
	c, err := s.login(ctx, n, user, password, database)
	if err != nil {
		return nil, err
	}
	return probe{c}, nil
}

// login opens a connection for questions of our own. Where no password is given,
// pool_passwd may have it.
func (s *Server) login(ctx context.Context, n cluster.Node, user, password, database string) (backend.Asker, error) {
	cur := s.config.Load()
	cred := session.Credential(conf.ParseSecret(password, cur.PassKey()))
	if password == "" && cur.Passwd != nil {
		if secret, ok := cur.Passwd.Lookup(user); ok {
			cred = session.Credential(secret)
		}
	}
	target := backend.Target{Node: n.ID, Host: n.Host, Port: n.Port, Timeout: cur.HealthCheck(n.ID).ConnectTimeout, TLS: cur.ServerTLS}
	login := backend.Login{User: user, Database: database, Params: []wire.Param{
		{Name: "application_name", Value: "pgpool"},
		{Name: "search_path", Value: "pg_catalog"}, // whatever the role or database has set
	}}
	return backend.Connect(ctx, s.engine, target, login, cred)
}

// probe is a connection the monitor puts questions over.
type probe struct{ backend.Asker }

// Ask implements monitor.Conn: its questions have no parameters.
func (p probe) Ask(ctx context.Context, sql string) ([][]string, error) {
	return p.Asker.Ask(ctx, sql)
}

// debug is the configuration under -d: at least debug1 is logged.
func debug(c *conf.Config) *conf.Config {
	if c.LogMinMessages <= conf.LevelDebug1 {
		return c
	}
	loud := *c
	loud.LogMinMessages = conf.LevelDebug1
	return &loud
}

// Reload reads the files again. What cannot be used is logged, and the old value
// stays.
func (s *Server) Reload() error {
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	s.log.LogAttrs(context.Background(), eventlog.Log, "reload config files.")
	old := s.config.Load()
	c, notices, err := old.Config.Reload()
	s.tell(notices)
	if err != nil {
		s.log.LogAttrs(context.Background(), eventlog.Warning, "the configuration is not changed", slog.Any("err", err))
		return err
	}
	cur := s.current(c)
	if err := secure(cur); err != nil {
		s.log.LogAttrs(context.Background(), eventlog.Warning, "TLS is not changed", slog.Any("err", err))
		cur.ClientTLS, cur.ServerTLS = old.ClientTLS, old.ServerTLS
	}
	switch {
	case cur.HbaErr == nil:
	case old.Hba != nil:
		s.log.LogAttrs(context.Background(), eventlog.Warning, "the rules of pool_hba.conf are not changed", slog.Any("err", cur.HbaErr))
		cur.Hba, cur.HbaErr = old.Hba, nil
	default:
		s.log.LogAttrs(context.Background(), eventlog.Warning, "could not read pool_hba.conf: every client will be refused", slog.Any("err", cur.HbaErr))
	}
	if err := s.journal.Configure(c); err != nil {
		s.log.LogAttrs(context.Background(), eventlog.Warning, "the log is not changed", slog.Any("err", err))
	}
	s.config.Store(cur)
	s.relist(old.Config, c)
	s.mutations.Configure(mutationOptions(c))
	s.owner.Submit(cluster.ConfigChanged{Config: c})
	s.monitor.Reload()
	if w := s.group.Load(); w != nil {
		w.Reload(c)
	}
	for _, client := range s.shared.Slots.Sessions() {
		client.Nudge()
	}
	return nil
}

// Port is the TCP port, or that of the Unix socket's name.
func (s *Server) Port() int { return s.port }

// loops is how many threads carry the traffic. On two processors one does best:
// the servers and clients want the other; beyond that, half of them.
func loops() int { return max(1, runtime.GOMAXPROCS(0)/2) }
