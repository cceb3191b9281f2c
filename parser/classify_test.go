package parser

import (
	"fmt"
	"strings"
	"testing"

	"pgpool-go/tools/golden"
)

// TestClassify reads testdata/classify: a statement, and all that is said of it.
func TestClassify(t *testing.T) {
	p := New(Options{})
	golden.Run(t, "classify", func(t *testing.T, c golden.Case) string {
		return describe(p.Classify([]byte(c.Input)), "")
	})
}

// describe writes a verdict down: the class, what holds, what is named.
func describe(v *Verdict, indent string) string {
	var b strings.Builder
	head := []string{v.Class.String()}
	if v.Kind != KindOther && v.Kind.String() != v.Class.String() {
		head = append(head, "counted as "+v.Kind.String())
	}
	for _, f := range []struct {
		is   bool
		word string
	}{
		{v.Reads, "reads"}, {v.Writes, "writes"}, {v.Locks, "locks"}, {v.LightLock, "light"}, {v.WritingWith, "writing with"},
		{v.Opaque, "opaque"}, {v.SetsConfig, "set_config"}, {v.Hold, "hold"}, {v.Analyze, "analyze"}, {v.DropsTemp, "drops temporaries"},
		{v.Catalog, "changes catalog"}, {v.SettingsUnknown == ScopeTransaction, "settings of the transaction unknown"},
		{v.SettingsUnknown == ScopeSession, "settings unknown"}, {v.Lead.Space, "space in front"}, {v.Lead.Comment, "comment in front"},
		{v.Lead.NoLoadBalance, "no load balance"}, {v.Lead.Target == TargetPrimary, "target primary"}, {v.Lead.Target == TargetStandby, "target standby"},
		{v.Lead.Target == TargetAuto, "target auto"}, {v.Lead.Cache == CacheNo, "no query cache"}, {v.Lead.Cache == CacheForce, "force query cache"},
		{v.Fickle, "fickle"}, {v.Everywhere, "everywhere"},
	} {
		if f.is {
			head = append(head, f.word)
		}
	}
	fmt.Fprintf(&b, "%s%s\n", indent, strings.Join(head, ", "))
	list := func(what string, names []Name) {
		if len(names) == 0 {
			return
		}
		var l []string
		for _, n := range names {
			l = append(l, n.String())
		}
		fmt.Fprintf(&b, "%s  %s: %s\n", indent, what, strings.Join(l, ", "))
	}
	one := func(what string, value any) {
		if s := fmt.Sprint(value); s != "" && s != "0" {
			fmt.Fprintf(&b, "%s  %s: %s\n", indent, what, s)
		}
	}
	one("name", v.Name)
	one("terminates", v.Terminates)
	list("relations", v.Relations)
	list("functions", v.Functions)
	list("operators", v.Operators)
	list("types", v.Types)
	list("written", v.Written)
	one("database", v.Database)
	for _, o := range v.Creates {
		how := ""
		if o.Temp {
			how += " temporary"
		}
		if o.Unlogged {
			how += " unlogged"
		}
		if o.OnCommitDrop {
			how += " on commit drop"
		}
		one("creates", o.Name.String()+how)
	}
	list("drops", v.Drops)
	for _, r := range v.Renames {
		one("renames", r.From.String()+" to "+r.To)
	}
	if x := v.Transaction; x != nil {
		words := []string{[]string{"", "begin", "commit", "rollback", "savepoint", "release", "rollback to", "prepare", "commit prepared", "rollback prepared", "set", "characteristics"}[x.Op]}
		words = append(words, x.Isolation.String(), []string{"", "read only", "read write"}[x.ReadOnly], []string{"", "deferrable", "not deferrable"}[x.Deferrable])
		if x.Chain {
			words = append(words, "chain")
		}
		if x.Snapshot {
			words = append(words, "snapshot")
		}
		words = append(words, x.Savepoint, x.GID)
		one("transaction", strings.Join(strings.Fields(strings.Join(words, " ")), " "))
	}
	for _, s := range v.Settings {
		how := []string{"", "set", "default", "reset all", "set_config", "characteristics", "transaction"}[s.Op]
		if s.Local {
			how += " local"
		}
		if s.PrimaryOnly {
			how += " (primary only)"
		}
		one("setting", strings.TrimSpace(fmt.Sprintf("%s %s=%q", how, s.Name, s.Value)))
		one("replay", s.Replay)
	}
	if v.Pool != nil {
		op := []string{"", "show", "show setting", "show all", "set", "set default", "reset", "reset all", "cache delete", "explain routing"}[v.Pool.Op]
		one("pool", fmt.Sprintf("%s %s=%q", op, v.Pool.Name, v.Pool.Value))
	}
	if v.Inner != nil {
		b.WriteString(describe(v.Inner, indent+"  "))
	}
	for _, part := range v.Parts {
		fmt.Fprintf(&b, "%s  %q\n%s", indent, part.Text, describe(part, indent+"    "))
	}
	return b.String()
}
