package catalog

import (
	"slices"
	"time"

	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
)

// A relation of some schema that has the name asked for.
type relation struct {
	schema   string
	kind     byte // pg_class.relkind
	unlogged bool
	// Behind a view or a parent:
	base                          []parser.Name
	behindUnlogged, behindForeign parser.Name
	functions, operators          []parser.Name // called by view definitions
}

// relEntry is everything known of a relation name; an empty list: it does not exist.
type relEntry struct {
	list    []*relation
	expires time.Time // zero: never
}

// A function name in some schema; volatile if any overload is.
type function struct {
	schema   string
	volatile bool
}

type funcEntry struct {
	list    []function
	expires time.Time
}

// facts works out the facts about a verdict from what is known; what is missing
// comes back in want. The caller holds mu.
func (d *database) facts(path *Path, v *parser.Verdict, now time.Time) (f *route.Facts, expires time.Time, missing *want) {
	w := &want{}
	f = &route.Facts{}
	until := func(t time.Time) {
		if !t.IsZero() && (expires.IsZero() || t.Before(expires)) {
			expires = t
		}
	}
	functions, operators := v.Functions, v.Operators
	for _, n := range v.Relations {
		e := d.relations[n.Name]
		if e == nil || !e.expires.IsZero() && !now.Before(e.expires) {
			w.relations = append(w.relations, n.Name)
			continue
		}
		until(e.expires)
		for _, r := range path.find(e.list, n.Schema) {
			name := parser.Name{Schema: r.schema, Name: n.Name}
			first(&f.Catalog, name, r.schema == "pg_catalog")
			first(&f.Unlogged, name, r.unlogged)
			first(&f.Unlogged, r.behindUnlogged, r.behindUnlogged.Name != "")
			first(&f.Foreign, name, r.kind == 'f')
			first(&f.Foreign, r.behindForeign, r.behindForeign.Name != "")
			f.Base = append(f.Base, r.base...)
			for _, x := range r.functions {
				functions = addClone(functions, x)
			}
			for _, x := range r.operators {
				operators = addClone(operators, x)
			}
		}
	}
	for _, n := range functions {
		if route.OnPrimaryOnly(n) {
			first(&f.Volatile, n, true)
			continue
		}
		e := d.functions[n.Name]
		if e == nil || !e.expires.IsZero() && !now.Before(e.expires) {
			if !slices.Contains(w.functions, n.Name) {
				w.functions = append(w.functions, n.Name)
			}
			continue
		}
		until(e.expires)
		for _, x := range e.list {
			// Without a schema every function of the name counts, whatever the
			// search_path: which overload is meant is not known here.
			if x.volatile && (n.Schema == "" || n.Schema == x.schema) {
				first(&f.Volatile, n, true)
				f.Custom = f.Custom || x.schema != "pg_catalog"
			}
		}
	}
	if len(operators) > 0 {
		if d.asked.IsZero() {
			w.operators = true
		}
		if len(d.operators) > 0 {
			for _, n := range operators {
				for o := range d.operators {
					if o.Name == n.Name && (n.Schema == "" || n.Schema == o.Schema) {
						first(&f.Volatile, parser.Name{Schema: o.Schema, Name: "operator " + o.Name}, true)
						f.Custom = true
					}
				}
			}
		}
	}
	if len(w.relations) > 0 || len(w.functions) > 0 || w.operators {
		return nil, time.Time{}, w
	}
	return f, expires, nil
}

// first sets a name that is not set yet.
func first(at *parser.Name, n parser.Name, is bool) {
	if is && at.Name == "" {
		*at = n
	}
}

// addClone adds a name without touching the array of a verdict.
func addClone(list []parser.Name, n parser.Name) []parser.Name {
	if slices.Contains(list, n) {
		return list
	}
	return append(slices.Clip(list), n)
}

// find picks the relations that a name stands for: in its schema, or the first
// of the search path, or in any schema if the path is not known.
func (p *Path) find(list []*relation, schema string) []*relation {
	return pick(p, list, schema, func(r *relation) string { return r.schema })
}

func pick[T any](p *Path, list []T, schema string, of func(T) string) []T {
	if schema == "" && p == nil {
		return list
	}
	in := func(schema string) []T {
		i := slices.IndexFunc(list, func(r T) bool { return of(r) == schema })
		if i < 0 {
			return nil
		}
		return list[i : i+1]
	}
	if schema != "" {
		return in(schema)
	}
	for _, s := range p.schemas {
		if found := in(s); found != nil {
			return found
		}
	}
	return nil
}
