package parser

import (
	"fmt"
	"strings"
	"testing"

	"pgpool-go/tools/golden"
)

// rewriteColumns are the tables of the cases.
var rewriteColumns = map[string][]Column{
	"t": {{Name: "id", Default: "nextval('t_id_seq'::regclass)"}, {Name: "v"}, {Name: "ts", Default: "now()", Type: "timestamp with time zone", Insert: true, Binary: true},
		{Name: "d", Default: "(CURRENT_DATE + 1)", Type: "date", Insert: true, Binary: true}},
	"u": {{Name: "id", Default: "gen_random_uuid()", Type: "uuid", Insert: true, Binary: true}, {Name: "v", Default: "'x'::text"}},
	"p": {{Name: "a"}, {Name: "b"}},
	"c": {{Name: "a"}, {Name: "g", Generated: true}, {Name: "n", Default: "to_char(now(), 'YYYY') || nextval('s')", Type: "text", Insert: true, Binary: true},
		{Name: "m", Default: "md5((now())::text || random())", Type: "text", Insert: true, Binary: true}, {Name: "r", Default: "random()", Type: "double precision", Insert: true, Binary: true},
		{Name: "i", Default: "random()", Type: "integer", Insert: true, Binary: true}, {Name: "k", Default: "(gen_random_uuid())::text", Type: "text", Insert: true, Binary: true}},
	"denied": {{Name: "a"}, {Name: "ts", Default: "now()", Type: "timestamp with time zone", Binary: true}},
	"odd":    {{Name: "a"}, {Name: "ts", Default: "now()", Type: "odd", Insert: true}},
}

// TestRewrite reads testdata/rewrite: a statement as a client sends it, and as it
// is sent to every node. In front of it may stand "params N:", which asks for
// parameters.
func TestRewrite(t *testing.T) {
	golden.Run(t, "rewrite", func(t *testing.T, c golden.Case) string {
		r := replacing()
		sql := c.Input
		if rest, ok := strings.CutPrefix(sql, "params "); ok {
			var n string
			n, sql, _ = strings.Cut(rest, ": ")
			fmt.Sscan(n, &r.Given)
			r.Params = true
		}
		out, err := Rewrite([]byte(sql), r)
		if err != nil {
			return "error: " + err.Error()
		}
		text := out.SQL
		if text == "" {
			text = "as it is"
		}
		if len(out.Added) > 0 {
			var added []string
			for _, a := range out.Added {
				one := fmt.Sprint(a.Chance)
				if a.Count > 0 {
					one += fmt.Sprintf(" x %d", a.Count)
				}
				added = append(added, one)
			}
			text += fmt.Sprintf("\nadded: %v behind %d", added, out.Params)
		}
		if out.Fill != nil {
			if out.Fill.Form != (CopyForm{Delimiter: '\t', Quote: '"', Escape: '"', Null: `\N`}) {
				text += fmt.Sprintf("\nform: %+v", out.Fill.Form)
			}
			for _, f := range out.Fill.Columns {
				text += fmt.Sprintf("\nfill: %+v", f)
			}
		}
		if out.Unequal != "" {
			text += "\nunequal: " + out.Unequal
		}
		return text
	})
}

// Bytes of another encoding stay where they are.
func TestRewriteCopyInAnotherEncoding(t *testing.T) {
	r := Replace{
		Value:   func(Chance) string { return "2026-01-02 03:04:05+00" },
		Columns: func(n Name) []Column { return rewriteColumns[n.Name] },
		Steady:  func(Name, Column, string) bool { return true },
	}
	out, err := Rewrite([]byte("COPY t(v, d) FROM STDIN (NULL '\xe4') -- \xfc"), r)
	if want := "COPY t(\"ts\", v, d) FROM STDIN (NULL '\xe4') -- \xfc"; err != nil || out.SQL != want || out.Fill == nil {
		t.Errorf("got %q, %v", out.SQL, err)
	}
	out, err = Rewrite([]byte("COPY t(v, d) FROM STDIN WHERE (v <> '\xe4')"), r)
	if want := "COPY t(\"ts\", v, d) FROM STDIN WHERE (v <> '\xe4')"; err != nil || out.SQL != want {
		t.Errorf("got %q, %v", out.SQL, err)
	}
	out, err = Rewrite([]byte("COPY t(v, d) FROM STDIN WHERE v <> '\xe4' AND ts < now()"), r)
	if want := "COPY t(\"ts\", v, d) FROM STDIN WHERE v <> '\xe4' AND ts < CAST('2026-01-02 03:04:05+00' AS pg_catalog.timestamptz)"; err != nil || out.SQL != want {
		t.Errorf("got %q, %v", out.SQL, err)
	}
}
