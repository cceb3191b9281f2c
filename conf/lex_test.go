package conf

import (
	"fmt"
	"strings"
	"testing"
)

// TestStatements holds what the original does with each line, and where we are stricter.
func TestStatements(t *testing.T) {
	tests := []struct{ rule, src, want string }{
		{"no equals sign", "client_idle_limit 7", "client_idle_limit=7"},
		{"two on a line", "a = 7 b = 3", "a=7 b=3"},
		{"no newline at the end", "a=1", "a=1"},
		{"carriage returns", "a = 1\r\nb = 2\r\n", "a=1 b=2"},
		{"comment after a value", "a = 1 # b = 2\nc=3", "a=1 c=3"},
		{"hash in quotes", "a = 'x # y'", "a=x # y"},
		{"keys are case sensitive", "MAX_POOL = 1", "MAX_POOL=1"},
		{"high bytes are letters", "\xc3\xa9 = \xc3\xbc1", "\xc3\xa9=\xc3\xbc1"},
		{"nothing is unescaped", `a = 'it\'s'`, `a=it\'s`},
		{"backslashes stay", `a = 'a\\nb'`, `a=a\\nb`},
		{"a protected quote ends a string if none follows", `a = 'abc\'`, `a=abc\`},
		{"a protected quote reaches to the last", `a = 'x\' b = '`, `a=x\' b = `},
		{"bare words", "work_dir = standby/log a = b-c.d:e", "work_dir=standby/log a=b-c.d:e"},
		{"units attached", "a = 10s b = 64MB c = 0x1F d = -1 e = +2", "a=10s b=64MB c=0x1F d=-1 e=+2"},
		{"reals", "a = 2.5 b = .5 c = 5. d = 1.0e1 e = -0.5e-3", "a=2.5 b=.5 c=5. d=1.0e1 e=-0.5e-3"},
		{"empty string", "a = ''", "a="},
		{"blank lines", "\n\n  \t\na=1\n\n", "a=1"},

		{"doubled quote", "a = 'it''s'", "error 1 token = 4"},
		{"semicolon", "\na = 7;", "error 2 ';' token = 8"},
		{"minus in a key", "a-b = 1", "error 1 'a-b' token = 5"},
		{"dot in a key", "a.b = 1", "error 1 'a.b' token = 5"},
		{"exponent without a point", "x = 1e1", "error 1 '1' token = 2"},
		{"unit apart from a bare number", "x = 2 1min", "error 1 '1min' token = 2"},
		{"number as a key", "7 = a", "error 1 '7' token = 2"},
		{"unterminated quote", "\n\na = 'abc\nb = 1", "error 3 unterminated quoted value"},
		{"quoted line end", "a = 'abc\ndef'", "error 1 unterminated quoted value"},
		{"double quotes", `a = "abc"`, "error 1 double quotes"},
		{"no value", "a =\nb = 1", "error 1 has no value"},
		{"no value at the end", "a", "error 1 has no value"},
		{"two equals signs", "a = = 1", "error 1 '=' token = 6"},
		{"other byte", "a = (x)", "error 1 '(' token = 8"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			all, bad := statements("f", tt.src)
			if bad != nil {
				if bad.Text != `syntax error in configuration file "f"` {
					t.Errorf("text is %q", bad.Text)
				}
				got := fmt.Sprintf("error %d %s", bad.Line, bad.Detail)
				kind, rest, _ := strings.Cut(strings.TrimPrefix(tt.want, "error "), " ")
				if !strings.HasPrefix(tt.want, "error") || fmt.Sprint(bad.Line) != kind || !strings.Contains(bad.Detail, rest) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				return
			}
			var got []string
			for _, a := range all {
				got = append(got, a.name+"="+a.value)
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestLineNumbers(t *testing.T) {
	all, bad := statements("f", "a=1\n# x\n\nb 2 c 3\n d = 'x'")
	if bad != nil {
		t.Fatal(bad)
	}
	for i, want := range []int{1, 4, 4, 5} {
		if all[i].line != want {
			t.Errorf("%s is on line %d, want %d", all[i].name, all[i].line, want)
		}
	}
}

func FuzzStatements(f *testing.F) {
	for _, s := range []string{"a = 1", "a 'b' c", `a = 'x\' b = 'y'`, "a = .", "a = 0x", "= =", "a = -", "x = 1e1\n'\\", "\xff\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		all, bad := statements("f", src)
		lines := strings.Count(src, "\n") + 1
		if bad != nil && (bad.Line < 1 || bad.Line > lines) {
			t.Errorf("error on line %d of %d", bad.Line, lines)
		}
		for _, a := range all {
			if a.line < 1 || a.line > lines || a.name == "" {
				t.Errorf("assignment %+v in %d lines", a, lines)
			}
			if _, err := Default().With("client_idle_limit", a.value); err != nil && err.Error() == "" {
				t.Error("an error without words")
			}
		}
	})
}
