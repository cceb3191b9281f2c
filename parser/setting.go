package parser

import (
	"slices"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// set reads SET and RESET in all their forms.
func (v *Verdict) set(s *pg.VariableSetStmt, text string) {
	v.Class, v.Text = Set, text
	name := fold(s.Name)
	set := Setting{Name: name, Local: s.IsLocal, Replay: text}
	switch s.Kind {
	case pg.VariableSetKind_VAR_RESET_ALL:
		v.Class = Reset
		set = Setting{Op: SetResetAll, Replay: text}
	case pg.VariableSetKind_VAR_RESET:
		v.Class = Reset
		set.Op = SetDefault
		set.Name = name
	case pg.VariableSetKind_VAR_SET_DEFAULT:
		set.Op = SetDefault
	case pg.VariableSetKind_VAR_SET_MULTI:
		v.setMulti(s, text)
		return
	case pg.VariableSetKind_VAR_SET_CURRENT: // SET x FROM CURRENT stands in CREATE FUNCTION only
		v.SettingsUnknown = ScopeSession
		return
	default:
		set.Op = SetValue
		var values []string
		for _, a := range s.Args {
			value := constText(a)
			if quotedLists[name] {
				value = quoteName(value)
			}
			values = append(values, value)
		}
		set.Value = strings.Join(values, ", ")
	}
	v.Settings = []Setting{set}
	v.judge(&v.Settings[0])
}

// judge looks at settings that have a meaning for routing.
func (v *Verdict) judge(s *Setting) {
	switch s.Name {
	case "transaction_isolation", "default_transaction_isolation":
		if s.Op != SetDefault {
			level, _ := ParseIsolation(s.Value)
			s.PrimaryOnly = level == Serializable
		}
	case "transaction_read_only":
		s.PrimaryOnly = s.Op == SetValue && !isTrueText(s.Value)
	case "standard_conforming_strings":
		if s.Op != SetDefault && !isTrueText(s.Value) {
			v.SettingsUnknown = max(v.SettingsUnknown, scopeOf(s.Local)) // texts read differently from now on
		}
	}
}

func scopeOf(local bool) Scope {
	if local {
		return ScopeTransaction
	}
	return ScopeSession
}

// isTrueText reads a boolean setting; what is odd counts as true.
func isTrueText(s string) bool {
	s = strings.ToLower(strings.TrimSpace(s))
	if s == "" {
		return true
	}
	return s != "0" && s != "of" && s != "off" && !strings.HasPrefix("false", s) && !strings.HasPrefix("no", s)
}

// IsTrue reads a boolean value of a setting as PostgreSQL does.
func (s Setting) IsTrue() bool { return isTrueText(s.Value) }

// setMulti reads SET TRANSACTION and SET SESSION CHARACTERISTICS AS TRANSACTION.
func (v *Verdict) setMulti(s *pg.VariableSetStmt, text string) {
	t := &Transaction{Op: TxSet}
	set := Setting{Op: SetTransaction, Local: true, Replay: text}
	v.Class = SetTx
	switch s.Name {
	case "SESSION CHARACTERISTICS":
		v.Class, t.Op = SetCharacter, TxCharacteristics
		set = Setting{Op: SetCharacteristics, Replay: text}
	case "TRANSACTION SNAPSHOT":
		t.Snapshot = true
		set.PrimaryOnly = true
	}
	t.modes(s.Args)
	if t.Isolation == Serializable || t.ReadOnly == Off {
		set.PrimaryOnly = true
	}
	v.Transaction, v.Settings = t, []Setting{set}
}

// modes reads transaction modes.
func (t *Transaction) modes(list []*pg.Node) {
	for _, n := range list {
		d := n.GetDefElem()
		value := constText(d.GetArg())
		tri := Off
		if value == "1" {
			tri = On
		}
		switch d.GetDefname() {
		case "transaction_isolation":
			t.Isolation, _ = ParseIsolation(value)
		case "transaction_read_only":
			t.ReadOnly = tri
		case "transaction_deferrable":
			t.Deferrable = tri
		}
	}
}

var txKinds = map[pg.TransactionStmtKind]struct {
	class Class
	op    TxOp
}{
	pg.TransactionStmtKind_TRANS_STMT_BEGIN:             {Begin, TxBegin},
	pg.TransactionStmtKind_TRANS_STMT_START:             {Begin, TxBegin},
	pg.TransactionStmtKind_TRANS_STMT_COMMIT:            {Commit, TxCommit},
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:          {Rollback, TxRollback},
	pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:         {Savepoint, TxSavepoint},
	pg.TransactionStmtKind_TRANS_STMT_RELEASE:           {Release, TxRelease},
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:       {RollbackTo, TxRollbackTo},
	pg.TransactionStmtKind_TRANS_STMT_PREPARE:           {PrepareTransaction, TxPrepare},
	pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:   {CommitPrepared, TxCommitPrepared},
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED: {RollbackPrepared, TxRollbackPrepared},
}

// transaction reads transaction control.
func (v *Verdict) transaction(s *pg.TransactionStmt) {
	k := txKinds[s.Kind]
	v.Class = k.class
	v.Transaction = &Transaction{Op: k.op, Chain: s.Chain, Savepoint: s.SavepointName, GID: s.Gid}
	v.Transaction.modes(s.Options)
}

// discard reads DISCARD.
func (v *Verdict) discard(s *pg.DiscardStmt, text string) {
	v.Class = Discard
	switch s.Target {
	case pg.DiscardMode_DISCARD_ALL:
		v.DropsTemp = true
		v.Settings = []Setting{{Op: SetResetAll, Replay: text}}
	case pg.DiscardMode_DISCARD_TEMP:
		v.Name, v.DropsTemp = "temp", true
	case pg.DiscardMode_DISCARD_PLANS:
		v.Name = "plans"
	case pg.DiscardMode_DISCARD_SEQUENCES:
		v.Name = "sequences"
	}
}

// settings deals with the calls of set_config that the walk has found.
func (w *walker) settings(n *pg.Node, text func() string) {
	v := w.v
	if len(w.setConfigs) == 0 {
		return
	}
	v.SetsConfig = true
	sel := n.GetSelectStmt()
	// Known are calls that are columns of a SELECT which yields one row.
	columns := 0
	for _, t := range sel.GetTargetList() {
		if f := t.GetResTarget().GetVal().GetFuncCall(); f != nil && slices.Contains(w.setConfigs, f) {
			columns++
		}
	}
	known := sel != nil && bare(sel) && columns == len(w.setConfigs)
	for _, f := range w.setConfigs {
		scope := ScopeSession
		if len(f.Args) == 3 && isConst(f.Args[2]) && isTrueText(constText(f.Args[2])) {
			scope = ScopeTransaction
		}
		if !known || len(f.Args) != 3 || !isConst(f.Args[0]) || !isConst(f.Args[1]) || !isConst(f.Args[2]) {
			v.SettingsUnknown = max(v.SettingsUnknown, scope)
			continue
		}
		name, value := fold(constText(f.Args[0])), constText(f.Args[1])
		s := Setting{Op: SetConfig, Name: name, Value: value, Local: scope == ScopeTransaction,
			Replay: "SELECT pg_catalog.set_config(" + quote(name) + ", " + quote(value) + ", " + strconv.FormatBool(scope == ScopeTransaction) + ")"}
		v.judge(&s)
		v.Settings = append(v.Settings, s)
	}
}

// quotedLists are the settings whose value is a list of names.
var quotedLists = map[string]bool{
	"search_path": true, "temp_tablespaces": true, "session_preload_libraries": true, "local_preload_libraries": true,
}

// quoteName quotes a name unless it is plain.
func quoteName(s string) string {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || c == '_' || i > 0 && ('0' <= c && c <= '9' || c == '$')) {
			return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

// quote makes a string literal that means the same under every setting.
func quote(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// isConst tells whether a node is a constant, casts allowed.
func isConst(n *pg.Node) bool {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	c := n.GetAConst()
	return c != nil && !c.Isnull
}

// constText gives a constant as text; casts are looked through.
func constText(n *pg.Node) string {
	switch x := n.GetNode().(type) {
	case *pg.Node_TypeCast:
		return constText(x.TypeCast.Arg)
	case *pg.Node_AConst:
		switch c := x.AConst.Val.(type) {
		case *pg.A_Const_Ival:
			return strconv.Itoa(int(c.Ival.Ival))
		case *pg.A_Const_Fval:
			return c.Fval.Fval
		case *pg.A_Const_Sval:
			return c.Sval.Sval
		case *pg.A_Const_Bsval:
			return c.Bsval.Bsval
		case *pg.A_Const_Boolval:
			return strconv.FormatBool(c.Boolval.Boolval)
		}
	case *pg.Node_String_:
		return x.String_.Sval
	case *pg.Node_Integer:
		return strconv.Itoa(int(x.Integer.Ival))
	case *pg.Node_Float:
		return x.Float.Fval
	case *pg.Node_Boolean:
		return strconv.FormatBool(x.Boolean.Boolval)
	}
	return ""
}
