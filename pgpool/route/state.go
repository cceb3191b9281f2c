package route

import (
	"slices"

	"pgpool-go/parser"
)

// after is the state when a statement has succeeded.
func (st state) after(v *parser.Verdict, d Decision, start vars) state {
	if d.Effect != nil {
		v = d.Effect
	}
	if v.Class == parser.Multi {
		for _, part := range v.Parts {
			st = st.step(part, d, start)
			if part.Class == parser.Begin {
				st.tx.inMulti = true
			}
			if d.Write && !endsOrBegins(part) && (!part.Reads || len(part.Functions) > 0) {
				st.write(part, d)
			}
		}
		return st
	}
	st = st.step(v, d, start)
	if d.Write {
		st.write(v, d)
	}
	return st
}

// step applies one statement, but for the write mark.
func (st state) step(v *parser.Verdict, d Decision, start vars) state {
	if d.Balanced {
		if st.tx.open {
			st.tx.node = d.Node
		}
		return st
	}
	switch v.Class {
	case parser.Begin:
		if !st.tx.open { // a BEGIN inside a block is a warning and changes nothing but the modes
			st = st.begin(v.Transaction)
		} else if v.Transaction.Isolation != parser.IsolationDefault {
			st.tx.isolation = v.Transaction.Isolation
		}
		return st
	case parser.Commit, parser.Rollback, parser.PrepareTransaction:
		if !st.tx.open {
			return st
		}
		chained := v.Transaction.Chain
		t := &parser.Transaction{Op: parser.TxBegin, Isolation: st.tx.isolation}
		inMulti := st.tx.inMulti
		st = st.end(v.Class != parser.Rollback && !st.tx.failed)
		if chained {
			dirty := st.tx.dirty
			st = st.begin(t)
			st.tx.inMulti, st.tx.dirty = inMulti, dirty
		}
		return st
	case parser.Savepoint:
		if st.tx.open {
			st.tx.saves = append(slices.Clip(st.tx.saves), save{v.Transaction.Savepoint, st.tx.mark, st.vars})
		}
	case parser.Release:
		if i := st.tx.find(v.Transaction.Savepoint); i >= 0 {
			st.tx.saves = st.tx.saves[:i:i]
		}
	case parser.RollbackTo:
		if i := st.tx.find(v.Transaction.Savepoint); i >= 0 {
			st.tx.saves = st.tx.saves[: i+1 : i+1]
			st.tx.mark, st.vars = st.tx.saves[i].mark, st.tx.saves[i].vars
		}
		st.tx.failed = false
	case parser.SetTx:
		st.setModes(v.Transaction)
	case parser.SetCharacter:
		if v.Transaction.Isolation != parser.IsolationDefault {
			st.vars.isolation = v.Transaction.Isolation
		}
	case parser.Set, parser.Reset, parser.Discard, parser.Show, parser.Empty, parser.Pool:
	default: // whatever else runs on the primary takes a snapshot there
		st.tx.onPrimary = st.tx.open
	}
	for _, s := range v.Settings {
		st.set(s, start)
	}
	switch v.SettingsUnknown {
	case parser.ScopeSession:
		st.vars.unknown = true
	case parser.ScopeTransaction:
		st.tx.unknown = true
	}
	if v.Catalog && !st.onlyTemps(v) {
		st.tx.dirty = true
	}
	st.names(v)
	if v.Opaque || d.Opaque {
		st.tx.askTemp = true
	}
	return st
}

// begin opens a transaction block; t is nil if it is not known how.
func (st state) begin(t *parser.Transaction) state {
	st.tx = tx{open: true, node: -1, before: st.vars, isolation: st.vars.isolation, askTemp: st.tx.askTemp, dirty: st.tx.dirty}
	if t != nil {
		st.setModes(t)
	}
	return st
}

// end closes the transaction block. What it changed in the schema and wrote is
// left for Ready to report.
func (st state) end(committed bool) state {
	t := st.tx
	st.tx = tx{node: -1, askTemp: t.askTemp}
	if !committed {
		st.vars = t.before
		return st
	}
	st.tx.dirty = t.dirty
	st.tx.mark.tables = t.mark.tables
	st.vars.temps = without(st.vars.temps, func(x temp) bool { return x.drop })
	return st
}

// find returns the index of the innermost savepoint of a name, or -1.
func (t *tx) find(name string) int {
	for i := len(t.saves) - 1; i >= 0; i-- {
		if t.saves[i].name == name {
			return i
		}
	}
	return -1
}

func (st *state) setModes(t *parser.Transaction) {
	if !st.tx.open {
		return
	}
	if t.Isolation != parser.IsolationDefault {
		st.tx.isolation = t.Isolation
	}
	if t.Snapshot {
		st.tx.imported = true
	}
}

// set follows the settings that matter to routing.
func (st *state) set(s parser.Setting, start vars) {
	if s.Op == parser.SetResetAll {
		temps := st.vars.temps
		st.vars = start
		st.vars.temps = temps
		return
	}
	switch s.Name {
	case "transaction_isolation":
		if level, ok := parser.ParseIsolation(s.Value); ok && st.tx.open {
			st.tx.isolation = level
		}
	case "default_transaction_isolation":
		if s.Op == parser.SetDefault {
			st.vars.isolation = start.isolation
		} else if level, ok := parser.ParseIsolation(s.Value); ok && !s.Local {
			st.vars.isolation = level
		}
	case "pgpool.target":
		target := start.target
		if s.Op != parser.SetDefault {
			t, ok := parser.ParseTarget(s.Value)
			if !ok {
				return
			}
			target = t
		}
		if s.Local {
			st.tx.target = target
			return
		}
		st.vars.target, st.tx.target = target, parser.TargetNone
	}
}

// onlyTemps tells that a statement drops and renames nothing but temporary
// relations of the session.
func (st *state) onlyTemps(v *parser.Verdict) bool {
	own := func(n parser.Name) bool {
		return n.Schema == "pg_temp" || n.Schema == "" && slices.ContainsFunc(st.vars.temps, func(t temp) bool { return t.name == n.Name })
	}
	for _, n := range v.Drops {
		if !own(n) {
			return false
		}
	}
	for _, r := range v.Renames {
		if !own(r.From) {
			return false
		}
	}
	return len(v.Drops)+len(v.Renames) > 0
}

// names follows the session's temporary relations.
func (st *state) names(v *parser.Verdict) {
	if v.DropsTemp {
		st.vars.temps = nil
	}
	for _, o := range v.Creates {
		if o.Temp && !slices.ContainsFunc(st.vars.temps, func(t temp) bool { return t.name == o.Name.Name }) {
			st.vars.temps = append(slices.Clip(st.vars.temps), temp{o.Name.Name, o.OnCommitDrop})
		}
	}
	for _, n := range v.Drops {
		if n.Schema == "" || n.Schema == "pg_temp" {
			st.vars.temps = without(st.vars.temps, func(t temp) bool { return t.name == n.Name })
		}
	}
	for _, r := range v.Renames {
		i := slices.IndexFunc(st.vars.temps, func(t temp) bool {
			return t.name == r.From.Name && (r.From.Schema == "" || r.From.Schema == "pg_temp")
		})
		if i >= 0 {
			st.vars.temps = slices.Clone(st.vars.temps)
			st.vars.temps[i].name = r.To
		}
	}
}

func without(list []temp, gone func(temp) bool) []temp {
	if !slices.ContainsFunc(list, gone) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), gone)
}

// write raises the write mark.
func (st *state) write(v *parser.Verdict, d Decision) {
	st.wroteEver = true
	m := &st.tx.mark
	for _, n := range v.Written {
		m.tables = addName(m.tables, n.Name, &st.tables)
	}
	for _, n := range v.Functions {
		m.functions = addName(m.functions, n.Name, &st.functions)
	}
	if st.tx.open {
		st.wroteTx, m.wrote = true, true
		m.any = m.any || v.Opaque
		return
	}
	// The implicit transaction of a pipeline or of a multi-statement string has
	// written if data may have changed; Ready forgets it.
	m.wrote = m.wrote || v.Writes || v.Locks || v.Opaque || d.Reason == ReasonFunction
}

// addName returns list with n. Where the latest list made began alike, that is
// taken up again: most clients write the same tables in the same order.
func addName(list []string, n string, latest *[]string) []string {
	if slices.Contains(list, n) {
		return list
	}
	k := len(list)
	if old := *latest; k < len(old) && old[k] == n && slices.Equal(old[:k], list) {
		return old[:k+1]
	}
	*latest = append(slices.Clip(list), n)
	return *latest
}
