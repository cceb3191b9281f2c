package parser

import (
	"strings"
	"testing"
)

func TestNormal(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT b FROM t WHERE a = 1":                               "SELECT b FROM t WHERE a = ?",
		"select\n\t*  from t -- all of it\nwhere a = 'secret';":     "select * from t where a = ?",
		"/* secret */ SELECT 1.5, $1, $$secret$$, $x$ secret $x$":   "SELECT ?, $1, ?, ?",
		"SELECT a /* secret */ FROM t WHERE a IN (1, 2, 3)":         "SELECT a FROM t WHERE a IN (?)",
		`SELECT "Odd  -- /*name" FROM t`:                            `SELECT "Odd  -- /*name" FROM t`,
		`SELECT E'it\'s secret', e'a\nb', 'it''s secret'`:           "SELECT E?, e?, ?",
		`SELECT U&'\0073ecret' UESCAPE '!', b'0101', x'1f', N'sec'`: "",
		`SELECT E'secret\x41' FROM t WHERE a = 7`:                   "",
		"SELECT 'secret":              "SELECT ...",
		"":                            "",
		"SELECT '\xff', a\xe9 FROM t": "",
	} {
		got := Normal([]byte(sql), 200)
		if want != "" && got != want || strings.Contains(strings.ToLower(got), "secret") || strings.ContainsAny(got, "\x01\x02\x03\n") {
			t.Errorf("%q: %q, want %q", sql, got, want)
		}
	}
	for _, n := range []int{10, 11, 12} {
		if got := Normal([]byte("SELECT ä, öü, öäüöäü FROM täble"), n); len(got) > n+3 || !strings.HasSuffix(got, "...") || strings.ContainsRune(got, '�') {
			t.Errorf("cut to %d: %q", n, got)
		}
	}
}

// FuzzNormal: no literal is told.
func FuzzNormal(f *testing.F) {
	for _, s := range []string{"secret", "it''s", "a\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sql := "SELECT 'zqzq" + strings.ReplaceAll(s, "'", "''") + "zqzq'"
		if got := Normal([]byte(sql), 1000); strings.Contains(got, "zqzq") {
			t.Errorf("%q: %q", sql, got)
		}
	})
}
