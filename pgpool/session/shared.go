package session

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"pgpool-go/conf"
	"pgpool-go/parser"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/backend"
	"pgpool-go/pgpool/catalog"
	"pgpool-go/pgpool/cluster"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/qcache"
	"pgpool-go/pgpool/route"
	"pgpool-go/pgpool/wire"
)

// Shared is what all sessions of a process have in common. Its fields are set
// before the first session and not changed; what they point to is safe for all
// goroutines.
type Shared struct {
	Engine  *wire.Engine
	Config  func() *Current
	Cluster *cluster.Owner
	Pool    *backend.Pool
	Parser  *parser.Parser
	Catalog *catalog.Catalog
	// Mutations are the tables written a moment ago, by any session.
	Mutations *catalog.Mutations
	Cache     *qcache.Cache // nil: there is none
	Verifiers *Verifiers
	Slots     *Table
	Journal   *eventlog.Journal
	Log       *slog.Logger
	Watchdog  func() [][]string // rows of watchdogColumns; none without a watchdog
	Version   string            // as SHOW POOL_VERSION tells it

	Dialing context.Context // ends when no server is to be dialled any more

	asides    asides
	hidden    hidden
	texts     texts
	sequenced sync.Map // database → struct{}: sessions in transaction mode ask for values of sequences

	Quiet Quiet // holds up what concerns all nodes, where sessions write to all

	gates  gate
	schema atomic.Uint64 // grows when a session that writes to all nodes has changed the schema

	guards     guards // of sequences, for statements of sessions that write to all nodes
	numberings numberings
	reloads    reloads

	strangers strangers

	mu      sync.Mutex // of the following
	cancels map[cancelKey]*Session
	present map[*wire.Task]struct{} // everybody connected
}

// Current is a configuration with what is derived from it once, at load.
type Current struct {
	*conf.Config
	Rules  *route.Rules
	Passwd *conf.PoolPasswd // nil: no file
	Hba    *conf.Hba        // nil unless enable_pool_hba
	HbaErr error            // why there are no rules although there should be
	Alone  bool             // a session needs one server only

	// Tables whose results may be cached although they are views or unlogged, and those
	// whose must not.
	CacheSafe, CacheUnsafe Tables

	ClientTLS *tls.Config  // how clients are met that want TLS; nil: they do not get it
	ServerTLS *backend.TLS // nil: servers are spoken to in the clear
}

// ClientGone is an error of the client's socket: nobody is left to be told.
type ClientGone struct{ Err error }

func (e *ClientGone) Error() string { return "client: " + e.Err.Error() }
func (e *ClientGone) Unwrap() error { return e.Err }

var (
	errGaveUp  = errors.New("gave up waiting")
	errGoodbye = errors.New("terminate")
)

// stored is the user's entry in pool_passwd, as auth understands it.
func (c *Current) stored(user string) auth.Credential {
	if c.Passwd == nil {
		return auth.Credential{}
	}
	secret, ok := c.Passwd.Lookup(user)
	if !ok {
		return auth.Credential{}
	}
	return Credential(secret)
}

// Credential turns a secret of a file into what auth works with.
func Credential(s conf.Secret) auth.Credential {
	switch s.Kind {
	case conf.Plain:
		return auth.Plain(s.Text)
	case conf.MD5:
		return auth.Hashed(s.Text)
	case conf.Scram:
		if v, err := auth.ParseVerifier(s.Text); err == nil {
			return auth.Verified(v)
		}
	}
	return auth.Unreadable()
}

// Target is where a node listens.
func (c *Current) Target(node int) backend.Target {
	b := c.Backends[node]
	return backend.Target{Node: node, Host: b.Hostname, Port: b.Port, Timeout: c.HealthCheck(node).ConnectTimeout, TLS: c.ServerTLS}
}

// knows tells whether a node is configured.
func (c *Current) knows(node int) bool {
	return node >= 0 && node < len(c.Backends) && c.Backends[node].Used()
}

// enter counts a connection in, leave out.
func (sh *Shared) enter(t *wire.Task) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.present == nil {
		sh.present = make(map[*wire.Task]struct{})
	}
	sh.present[t] = struct{}{}
}

func (sh *Shared) leave(t *wire.Task) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.present, t)
}

// EndAll interrupts every connection, those without a slot included.
func (sh *Shared) EndAll(word *wire.Error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for t := range sh.present {
		t.Interrupt(word)
	}
}
