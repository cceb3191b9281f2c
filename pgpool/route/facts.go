package route

import "pgpool-go/parser"

// Facts are what the servers know of the names in a verdict; catalog gives
// them. A value is immutable and may be shared. Empty fields mean "no".
type Facts struct {
	Volatile parser.Name // a function that may write: volatile in some overload, or behind an operator or view
	// Custom: some such function is not one of PostgreSQL's own, so nothing is known
	// of what it does.
	Custom   bool
	Catalog  parser.Name // a relation of pg_catalog
	Unlogged parser.Name // an unlogged relation, also behind a view
	Foreign  parser.Name // a foreign table; no rule looks at it
	// Base are the relations that stand behind views.
	Base []parser.Name
}

// NoFacts are the facts about a statement without names.
var NoFacts = &Facts{}
