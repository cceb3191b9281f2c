package route

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
	"time"

	"pgpool-go/conf"
	"pgpool-go/parser"
)

// Rules are what the operator decided. NewRules derives them from a
// configuration; a value is immutable and shared by all sessions.
type Rules struct {
	Balance        bool // load_balance_mode, in a mode that can balance
	StatementLevel bool
	OnWrite        conf.DisableLoadBalanceOnWrite
	Related        []conf.Relation // dml_adaptive_object_relationship_list

	AllowComments bool
	IgnoreSpace   bool

	ReadOnlyFunctions []*regexp.Regexp
	WriteFunctions    []*regexp.Regexp
	PrimaryPatterns   []*regexp.Regexp

	CheckTemp     conf.CheckTempTable
	CheckUnlogged bool

	Users, Databases, Apps conf.RedirectList

	DelayThreshold     int64
	DelayThresholdTime time.Duration
	PreferLowerDelay   bool

	// BalanceMulti lets a string of several statements that all only read go to a
	// standby (multi_statement_load_balance). The original never does.
	BalanceMulti bool
	// OwnNumbers: servers give tables, types and the like OIDs of their own, as
	// pgpool is what replicates.
	OwnNumbers bool
	// BalanceExplain does the same for EXPLAIN of a read (explain_load_balance).
	BalanceExplain bool

	functions *memo
}

// NewRules derives the rules from a configuration. Patterns that do not compile
// have been refused when the configuration was read.
func NewRules(c *conf.Config) *Rules {
	return &Rules{
		Balance:            c.LoadBalanceMode && c.BackendClusteringMode != conf.Raw,
		StatementLevel:     c.StatementLevelLoadBalance,
		OnWrite:            c.DisableLoadBalanceOnWrite,
		Related:            c.DmlAdaptiveObjectRelationshipList.Pairs,
		AllowComments:      c.AllowSqlComments,
		IgnoreSpace:        c.IgnoreLeadingWhiteSpace,
		ReadOnlyFunctions:  patterns(c.ReadOnlyFunctionList),
		WriteFunctions:     patterns(c.WriteFunctionList),
		PrimaryPatterns:    patterns(c.PrimaryRoutingQueryPatternList),
		CheckTemp:          c.CheckTempTable,
		CheckUnlogged:      c.CheckUnloggedTable,
		Users:              c.UserRedirectPreferenceList,
		Databases:          c.DatabaseRedirectPreferenceList,
		Apps:               c.AppNameRedirectPreferenceList,
		DelayThreshold:     c.DelayThreshold,
		DelayThresholdTime: c.DelayThresholdByTime,
		PreferLowerDelay:   c.PreferLowerDelayStandby,
		BalanceMulti:       c.MultiStatementLoadBalance,
		OwnNumbers:         c.BackendClusteringMode.Replicates(),
		BalanceExplain:     c.ExplainLoadBalance,
		functions:          &memo{},
	}
}

func patterns(list []string) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, s := range list {
		if re, err := conf.Pattern(s); err == nil {
			out = append(out, re)
		}
	}
	return out
}

// NeedsFunctions reports whether the volatility of functions matters: with a
// function list set, the servers are not asked.
func (r *Rules) NeedsFunctions() bool {
	return len(r.ReadOnlyFunctions) == 0 && len(r.WriteFunctions) == 0
}

// onPrimaryOnly are functions that fail on a standby, or that have a meaning on
// the primary only, although pg_proc calls some of them stable.
var onPrimaryOnly = map[string]bool{
	"nextval": true, "setval": true, "currval": true, "lastval": true,
	"txid_current": true, "pg_current_xact_id": true, "pg_notify": true,
	"lo_create": true, "lo_creat": true, "lo_from_bytea": true, "lo_put": true, "lo_unlink": true, "lo_import": true,
	"lo_open": true, "lo_close": true, "loread": true, "lowrite": true, "lo_lseek": true, "lo_lseek64": true, "lo_tell": true,
	"lo_tell64": true, "lo_truncate": true, "lo_truncate64": true,
	"pg_advisory_lock": true, "pg_advisory_lock_shared": true, "pg_try_advisory_lock": true, "pg_try_advisory_lock_shared": true,
	"pg_advisory_unlock": true, "pg_advisory_unlock_shared": true, "pg_advisory_unlock_all": true,
	"pg_advisory_xact_lock": true, "pg_advisory_xact_lock_shared": true, "pg_try_advisory_xact_lock": true,
	"pg_try_advisory_xact_lock_shared": true, "set_config": true,
}

// namesNumbers finds a function or a type of a statement that gives or takes OIDs.
// Those of catalogs and of large objects are answered by one server.
func namesNumbers(v *parser.Verdict) (parser.Name, bool) {
	for _, n := range v.Functions {
		if n.Schema != "" && n.Schema != "pg_catalog" {
			continue
		}
		for _, lead := range []string{"pg_get_", "pg_describe_object", "pg_identify_object", "pg_relation_", "pg_table_", "pg_total_relation", "pg_indexes_size",
			"pg_filenode_", "pg_index", "pg_my_temp_schema", "pg_sequence_", "pg_tablespace_", "pg_database_size", "pg_stat_get_", "has_", "to_reg", "lo_"} {
			if strings.HasPrefix(n.Name, lead) {
				return n, true
			}
		}
		if strings.HasSuffix(n.Name, "_is_visible") || strings.HasSuffix(n.Name, "_description") || n.Name == "format_type" || n.Name == "pg_typeof" {
			return n, true
		}
	}
	for _, n := range v.Types {
		if (n.Schema == "" || n.Schema == "pg_catalog") && (n.Name == "oid" || strings.HasPrefix(n.Name, "reg")) {
			return n, true
		}
	}
	return parser.Name{}, false
}

// OnPrimaryOnly reports whether a built-in function must run on the primary
// whatever pg_proc says of it.
func OnPrimaryOnly(n parser.Name) bool {
	return (n.Schema == "" || n.Schema == "pg_catalog") && onPrimaryOnly[n.Name]
}

// writingFunction finds the first function that may write.
func (r *Rules) writingFunction(v *parser.Verdict, f *Facts) (parser.Name, bool) {
	if len(r.ReadOnlyFunctions) == 0 && len(r.WriteFunctions) == 0 {
		return f.Volatile, f.Volatile.Name != ""
	}
	for _, n := range v.Functions {
		if r.functions.writes(r, n) {
			return n, true
		}
	}
	return parser.Name{}, false
}

// listed applies the two function lists; the read-only one decides alone if set.
func (r *Rules) listed(n parser.Name) bool {
	name := n.String()
	if len(r.ReadOnlyFunctions) > 0 {
		return !matches(r.ReadOnlyFunctions, name)
	}
	return matches(r.WriteFunctions, name) || OnPrimaryOnly(n)
}

func matches(list []*regexp.Regexp, s string) bool {
	for _, re := range list {
		if re.MatchString(s) {
			return true
		}
	}
	return false
}

// pattern reports whether a text is on primary_routing_query_pattern_list.
// Double quotes do not count.
func (r *Rules) pattern(text []byte) bool {
	if len(r.PrimaryPatterns) == 0 {
		return false
	}
	if bytes.IndexByte(text, '"') >= 0 {
		text = bytes.ReplaceAll(text, []byte(`"`), nil)
	}
	for _, re := range r.PrimaryPatterns {
		if re.Match(text) {
			return true
		}
	}
	return false
}

// A memo remembers what the function lists say of a name: the answer never
// changes for the same rules.
type memo struct {
	mu    sync.RWMutex
	known map[parser.Name]bool
}

const memoSize = 4096

func (m *memo) writes(r *Rules, n parser.Name) bool {
	if m == nil {
		return r.listed(n)
	}
	m.mu.RLock()
	w, ok := m.known[n]
	m.mu.RUnlock()
	if ok {
		return w
	}
	w = r.listed(n)
	m.mu.Lock()
	if m.known == nil || len(m.known) >= memoSize {
		m.known = make(map[parser.Name]bool)
	}
	m.known[n] = w
	m.mu.Unlock()
	return w
}

// A Preference is what the redirect preference lists say of a session.
type Preference struct {
	Found  bool
	List   string // the parameter that matched
	Target conf.RedirectTarget
	Node   int
	Weight float64
}

// Preference finds the redirect of a session: the application's list beats the
// user's, which beats the database's.
func (r *Rules) Preference(db, user, app string) Preference {
	for _, l := range []struct {
		list conf.RedirectList
		by   string
		name string
	}{
		{r.Apps, app, "app_name_redirect_preference_list"},
		{r.Users, user, "user_redirect_preference_list"},
		{r.Databases, db, "database_redirect_preference_list"},
	} {
		if rule, ok := l.list.Find(l.by); ok {
			return Preference{Found: true, List: l.name, Target: rule.Target, Node: rule.Node, Weight: rule.Weight}
		}
	}
	return Preference{}
}
