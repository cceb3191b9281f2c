// Package golden runs tests whose cases are text files: what goes in, a line
// of four dashes, what must come out.
//
// It answers which cases a room has under testdata and shows how an answer
// differs from the one written down; with -update it writes the new answers
// into the files, so that the change is reviewed as a diff. It never knows what
// a case means: that is the room's own test. A change of the file format goes
// to parse.go, one of how cases are run or rewritten belongs here.
//
// A case file looks like this:
//
//	# a comment stands before a case; the last one names it
//	sql    select * from t
//	----
//	0  standby lags
//
//	sql    a next case begins after an empty line
//	----
//	1  read
//
// Comments are '#' lines before the first line of a case; inside a case every
// line counts. A backslash at the start of a line is taken off, so that `\`
// alone stands for an empty line, `\#` for a leading '#' and `\----` for the
// dashes themselves.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expected part of the case files with what the code answers now")

// Run gives every case of testdata/<room>/*.txt to answer, as a subtest named
// after its file and its comment (or its first line), and compares what comes
// back with the expected part. A newline at the end of the answer does not
// matter. A room without any case fails: a moved folder must not pass in silence.
func Run(t *testing.T, room string, answer func(t *testing.T, c Case) string) {
	t.Helper()
	files, err := Read(filepath.Join(Testdata(t), room))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		runFile(t, f, *update, answer)
	}
}

// runFile runs the cases of one file in order and rewrites it where asked to.
func runFile(t *testing.T, f *File, rewrite bool, answer func(*testing.T, Case) string) {
	t.Run(strings.TrimSuffix(filepath.Base(f.Path), ".txt"), func(t *testing.T) {
		got := make(map[int]string)
		for i, c := range f.Cases {
			t.Run(c.Name, func(t *testing.T) {
				out := strings.TrimRight(answer(t, c), "\n")
				if rewrite {
					got[i] = out // absent where -run left the case out or it failed before
					return
				}
				if out != c.Want {
					t.Errorf("%s:%d: answer differs (- expected, + got)\n%s\n%s", c.File, c.Line, indent(c.Input), Diff(c.Want, out))
				}
			})
		}
		if !rewrite {
			return
		}
		for i, out := range got {
			f.Cases[i].Want = out
		}
		if err := f.Write(); err != nil {
			t.Fatal(err)
		}
	})
}

// Testdata returns the module's testdata folder, wherever below the module's
// root the test runs.
func Testdata(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "testdata")
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("golden: no go.mod above the test's folder")
		}
		dir = up
	}
}

// Diff shows, line by line, how got differs from want.
func Diff(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out strings.Builder
	line := func(mark, text string) { out.WriteString(mark + text + "\n") }
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			line("  ", a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			line("- ", a[i])
			i++
		default:
			line("+ ", b[j])
			j++
		}
	}
	return out.String()
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(text, "\n", "\n    ")
}
