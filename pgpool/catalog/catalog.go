package catalog

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
)

// An Asker puts one question to a server: the extended protocol, arguments as
// text parameters, rows as text, NULL as the empty string. The question must not
// run inside a client's transaction.
type Asker interface {
	Ask(ctx context.Context, sql string, args ...string) ([][]string, error)
}

// Options are the measures of a Catalog.
type Options struct {
	// Expire is how long an answer holds; 0: until the schema changes (relcache_expire).
	Expire time.Duration
	// Absent is how long it holds that a name does not exist; 0 means 10 s.
	Absent time.Duration
	// Size is the number of names remembered per database; 0 means 8192. The
	// original has relcache_size per child process; here all sessions share.
	Size int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Classify reads view definitions; it is the sessions' parser.
	Classify func(sql []byte) *parser.Verdict
}

// A Catalog holds what is known of all databases. It is safe for all sessions.
type Catalog struct {
	o   Options
	dbs atomic.Pointer[map[string]*database] // replaced, never changed
	mu  sync.Mutex                           // held to replace it

	pathMu sync.RWMutex
	paths  map[pathKey]*Path
}

type pathKey struct{ setting, user string }

// pathsKept bounds the search_paths remembered; most installations have a handful.
const pathsKept = 1024

// New makes an empty Catalog.
func New(o Options) *Catalog {
	if o.Absent <= 0 {
		o.Absent = 10 * time.Second
	}
	if o.Size <= 0 {
		o.Size = 8192
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Classify == nil {
		o.Classify = parser.New(parser.Options{CacheBytes: 1 << 20}).Classify
	}
	c := &Catalog{o: o}
	c.dbs.Store(&map[string]*database{})
	return c
}

// A Path is a session's search_path, read once per change. A nil *Path means
// that it is not known: a name then stands for the relations of every schema.
type Path struct {
	schemas []string // in order, pg_catalog in its place
	key     string
}

// Path is NewPath, remembered for the next session that has the same.
func (c *Catalog) Path(setting, user string) *Path {
	k := pathKey{setting, user}
	c.pathMu.RLock()
	p := c.paths[k]
	c.pathMu.RUnlock()
	if p != nil {
		return p
	}
	p = NewPath(strings.Clone(setting), user)
	c.pathMu.Lock()
	defer c.pathMu.Unlock()
	if len(c.paths) >= pathsKept || c.paths == nil {
		c.paths = make(map[pathKey]*Path)
	}
	c.paths[pathKey{strings.Clone(setting), strings.Clone(user)}] = p
	return p
}

// NewPath reads a search_path as SET and SHOW give it. user stands for "$user".
func NewPath(setting, user string) *Path {
	p := &Path{}
	catalog := false
	for _, s := range splitPath(setting) {
		if s == "$user" {
			s = user
		}
		switch s {
		case "", "pg_temp":
			continue
		case "pg_catalog":
			catalog = true
		}
		p.schemas = append(p.schemas, s)
	}
	if !catalog { // implicit, and first
		p.schemas = append([]string{"pg_catalog"}, p.schemas...)
	}
	p.key = strings.Join(p.schemas, "\x00")
	return p
}

// splitPath splits a list of identifiers, folding those without quotes.
func splitPath(s string) []string {
	var out []string
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == ',' || c == '\t' || c == '\n':
			i++
		case c == '"':
			var b strings.Builder
			for i++; i < len(s); i++ {
				if s[i] == '"' {
					if i+1 < len(s) && s[i+1] == '"' {
						i++
					} else {
						break
					}
				}
				b.WriteByte(s[i])
			}
			i++
			out = append(out, b.String())
		default:
			j := i
			for j < len(s) && s[j] != ',' {
				j++
			}
			out = append(out, strings.ToLower(strings.TrimSpace(s[i:j])))
			i = j
		}
	}
	return out
}

func (p *Path) id() string {
	if p == nil {
		return "\x00"
	}
	return p.key
}

// A database is what is known of one database. The generation grows whenever
// its schema changes; everything learned belongs to one generation.
type database struct {
	gen atomic.Uint64

	mu        sync.RWMutex // held for the maps
	relations map[string]*relEntry
	functions map[string]*funcEntry
	operators map[parser.Name]bool // volatile ones that somebody has made
	asked     time.Time            // when operators were asked; zero: not yet
	kin       kin
}

func (c *Catalog) database(name string) *database {
	if d := (*c.dbs.Load())[name]; d != nil {
		return d
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.dbs.Load()
	if d := old[name]; d != nil {
		return d
	}
	d := &database{relations: map[string]*relEntry{}, functions: map[string]*funcEntry{}}
	dbs := maps.Clone(old)
	dbs[strings.Clone(name)] = d
	c.dbs.Store(&dbs)
	return d
}

// Invalidate forgets what is known of a database: its schema has changed.
func (c *Catalog) Invalidate(db string) {
	if d := (*c.dbs.Load())[db]; d != nil {
		d.reset()
	}
}

// InvalidateAll forgets everything: another server may answer now.
func (c *Catalog) InvalidateAll() {
	for _, d := range *c.dbs.Load() {
		d.reset()
	}
}

func (d *database) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gen.Add(1)
	clear(d.relations)
	clear(d.functions)
	d.operators, d.asked = nil, time.Time{}
	d.kin = kin{}
}

// memo is what was found out about a verdict, kept with the verdict itself. The
// list is immutable; a new finding is put in front.
type memo struct {
	db      *database
	gen     uint64
	path    string
	expires time.Time // zero: never
	facts   *route.Facts
	next    *memo
}

const memos = 8 // per verdict: so many databases and search paths

// Lookup gives the facts about a verdict if they are known. It asks nobody and
// does not wait.
func (c *Catalog) Lookup(db string, path *Path, v *parser.Verdict) (*route.Facts, bool) {
	if len(v.Relations) == 0 && len(v.Functions) == 0 && len(v.Operators) == 0 {
		return route.NoFacts, true
	}
	d := c.database(db)
	gen := d.gen.Load()
	m, _ := v.Memo.Load().(*memo)
	for ; m != nil; m = m.next {
		if m.db == d && m.gen == gen && m.path == path.id() {
			if m.expires.IsZero() || c.o.Now().Before(m.expires) {
				return m.facts, true
			}
			break
		}
	}
	now := c.o.Now()
	d.mu.RLock()
	f, expires, missing := d.facts(path, v, now)
	d.mu.RUnlock()
	if missing != nil {
		return nil, false
	}
	d.remember(v, gen, path, f, expires)
	return f, true
}

// remember puts facts into the verdict's memo.
func (d *database) remember(v *parser.Verdict, gen uint64, path *Path, f *route.Facts, expires time.Time) {
	old, _ := v.Memo.Load().(*memo)
	first := &memo{db: d, gen: gen, path: path.id(), expires: expires, facts: f}
	tail := first
	for n := 1; old != nil && n < memos; old = old.next {
		if old.db == d && (old.path == first.path || old.gen != gen) {
			continue
		}
		c := *old
		c.next = nil
		tail.next = &c
		tail = tail.next
		n++
	}
	v.Memo.Store(first)
}

// Resolve gives the facts about a verdict and asks a server for what is not
// known. It may take as long as the server takes.
func (c *Catalog) Resolve(ctx context.Context, a Asker, db string, path *Path, v *parser.Verdict) (*route.Facts, error) {
	if f, ok := c.Lookup(db, path, v); ok {
		return f, nil
	}
	d := c.database(db)
	// Facts about a view lead to further names; each round knows more. The schema
	// may change meanwhile, which begins anew.
	for round := range 8 {
		now := c.o.Now()
		gen := d.gen.Load()
		d.mu.RLock()
		f, expires, missing := d.facts(path, v, now)
		d.mu.RUnlock()
		if missing == nil {
			d.remember(v, gen, path, f, expires)
			return f, nil
		}
		news, err := c.ask(ctx, a, missing)
		if err != nil {
			return nil, fmt.Errorf("catalog look-up: %w", err)
		}
		d.learn(gen, news, now, c.o, round == 0)
	}
	return nil, fmt.Errorf("catalog look-up: the schema of database %q keeps changing", db)
}

// OwnTemp asks for the temporary relations of the session whose connection the
// asker uses.
func OwnTemp(ctx context.Context, a Asker) ([]string, error) {
	rows, err := a.Ask(ctx, ownTempSQL)
	if err != nil {
		return nil, fmt.Errorf("look-up of temporary tables: %w", err)
	}
	names := make([]string, 0, len(rows))
	for _, r := range rows {
		if len(r) > 0 {
			names = append(names, r[0])
		}
	}
	return names, nil
}
