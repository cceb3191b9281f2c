package golden

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const sample = `# what this file is about

# double every word
words  a b
       c
----
a a

# set off, so not a name

\# starts with a hash
\
----
\
line after an empty one
\----
# last remark
`

func TestParse(t *testing.T) {
	f, err := Parse("x.txt", sample)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Cases) != 2 {
		t.Fatalf("got %d cases", len(f.Cases))
	}
	one, two := f.Cases[0], f.Cases[1]
	if one.Name != "double every word" || one.Line != 4 || one.Want != "a a" {
		t.Errorf("first case: %+v", one)
	}
	if got := one.Field("words"); got != "a b\nc" {
		t.Errorf("field: %q", got)
	}
	if got := one.Field("none"); got != "" {
		t.Errorf("absent field: %q", got)
	}
	if two.Name != "# starts with a hash" || two.Input != "# starts with a hash\n" {
		t.Errorf("second case: %+v", two)
	}
	if want := "\nline after an empty one\n----\n# last remark"; two.Want != want {
		t.Errorf("second answer %q, want %q", two.Want, want)
	}
}

func TestTextKeepsTheRest(t *testing.T) {
	f, err := Parse("x.txt", sample)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(sample, "# last remark", `\# last remark`, 1) // the one line written in another form
	if got := f.Text(); got != want {
		t.Errorf("rewritten text differs:\n%s", Diff(want, got))
	}
}

func TestAnswersSurviveRewriting(t *testing.T) {
	for _, answer := range []string{"", "one", "a\n\nb", "----", `\`, `\\x`, "# no comment", "  ", "x\n----\n\ny", "trailing\n\nx"} {
		f, err := Parse("x.txt", "in\n----\nold\n\nnext\n----\n1\n")
		if err != nil {
			t.Fatal(err)
		}
		f.Cases[0].Want = answer
		again, err := Parse("x.txt", f.Text())
		if err != nil {
			t.Fatalf("%q: %v", answer, err)
		}
		if len(again.Cases) != 2 || again.Cases[0].Want != answer || again.Cases[1].Want != "1" {
			t.Errorf("%q came back as %+v", answer, again.Cases)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no dashes":      {"a\nb\n", "x.txt:1: case without a ---- line"},
		"empty in input": {"a\n\nb\n----\nc\n", "x.txt:2: empty line before"},
		"second dashes":  {"a\n----\nb\nc\n----\nd\n", "x.txt:5: second ----"},
		"no case":        {"# nothing\n", "has no case"},
		"dos":            {"a\r\n----\r\n", "carriage returns"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("x.txt", c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestUpdateRewritesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.txt")
	if err := os.WriteFile(path, []byte("# upper\nabc\n----\nold\n\ndef\n----\nDEF\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := Read(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	upper := func(_ *testing.T, c Case) string { return strings.ToUpper(c.Input) + "\n" }
	runFile(t, files[0], true, upper)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "# upper\nabc\n----\nABC\n\ndef\n----\nDEF\n"; string(text) != want {
		t.Errorf("file is now\n%s", text)
	}
	if files, err = Read(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	runFile(t, files[0], false, upper)
}

func TestReadRefusesAnEmptyFolder(t *testing.T) {
	if _, err := Read(t.TempDir()); err == nil {
		t.Error("no error for a folder without case files")
	}
}

func TestDiff(t *testing.T) {
	if got, want := Diff("a\nb\nc", "a\nx\nc\nd"), "  a\n- b\n+ x\n  c\n+ d\n"; got != want {
		t.Errorf("got\n%s", got)
	}
}
