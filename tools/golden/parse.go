package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// dashes is the line between a case's input and its expected answer.
const dashes = "----"

// Case is one question with the answer that is expected.
type Case struct {
	Name  string // the last comment line before it, or its first line
	File  string // where it stands,
	Line  int    // and its first line there
	Input string // without a final newline
	Want  string // without a final newline

	before []string // comments and empty lines above it, as found
	input  []string // its input lines as found
}

// Field returns what follows the word key in the first input line that begins
// with it, joined by newlines with the indented lines below it; "" if no line
// does. It suits cases written as "word  value" lines.
func (c Case) Field(key string) string {
	for _, f := range c.Fields() {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// Field is one "word  value" line of a case's input.
type Field struct{ Key, Value string }

// Fields splits the input into its "word  value" lines, in order.
func (c Case) Fields() []Field {
	var fields []Field
	for line := range strings.SplitSeq(c.Input, "\n") {
		if line != strings.TrimLeft(line, " \t") && len(fields) > 0 {
			last := &fields[len(fields)-1]
			last.Value = strings.TrimPrefix(last.Value+"\n"+strings.TrimSpace(line), "\n")
			continue
		}
		line = strings.TrimSpace(line)
		key, value := line, ""
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			key, value = line[:i], strings.TrimSpace(line[i:])
		}
		fields = append(fields, Field{key, value})
	}
	return fields
}

// File is one case file.
type File struct {
	Path  string
	Cases []Case
	after []string // comments and empty lines below the last case
}

// Read reads every *.txt file of dir, by name. None, or one without a case, is
// an error.
func Read(dir string) ([]*File, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, fmt.Errorf("golden: %w", err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("golden: no case files in %s", dir)
	}
	sort.Strings(paths)
	files := make([]*File, 0, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("golden: %w", err)
		}
		f, err := Parse(path, string(text))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// Parse reads the text of a case file; path is only used in words to the reader.
func Parse(path, text string) (*File, error) {
	f := &File{Path: path}
	if strings.Contains(text, "\r") {
		return nil, fmt.Errorf("golden: %s has carriage returns", path)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); {
		var c Case
		for ; i < len(lines) && (blank(lines[i]) || strings.HasPrefix(lines[i], "#")); i++ {
			c.before = append(c.before, lines[i])
			if name := strings.TrimSpace(strings.TrimLeft(lines[i], "#")); name != "" {
				c.Name = name
			} else if blank(lines[i]) {
				c.Name = "" // a comment set off by an empty line speaks of the file
			}
		}
		if i == len(lines) {
			f.after = c.before
			break
		}
		c.File, c.Line = path, i+1
		for ; i < len(lines) && lines[i] != dashes; i++ {
			if blank(lines[i]) {
				return nil, fmt.Errorf("golden: %s:%d: empty line before the %s of the case that begins at line %d (write \\ for an empty line)", path, i+1, dashes, c.Line)
			}
			c.input = append(c.input, lines[i])
		}
		if i == len(lines) {
			return nil, fmt.Errorf("golden: %s:%d: case without a %s line", path, c.Line, dashes)
		}
		i++
		var want []string
		for ; i < len(lines) && !blank(lines[i]); i++ {
			if lines[i] == dashes {
				return nil, fmt.Errorf("golden: %s:%d: second %s in the case that begins at line %d (is an empty line missing?)", path, i+1, dashes, c.Line)
			}
			want = append(want, unescape(lines[i]))
		}
		input := make([]string, len(c.input))
		for k, line := range c.input {
			input[k] = unescape(line)
		}
		c.Input, c.Want = strings.Join(input, "\n"), strings.Join(want, "\n")
		if c.Name == "" && len(input) > 0 {
			c.Name = input[0]
		}
		f.Cases = append(f.Cases, c)
	}
	if len(f.Cases) == 0 {
		return nil, fmt.Errorf("golden: %s has no case", path)
	}
	return f, nil
}

// Text is the file as it should stand on disk: comments and inputs as they
// were found, the expected parts as they are now in Cases.
func (f *File) Text() string {
	var out strings.Builder
	write := func(lines ...string) {
		for _, line := range lines {
			out.WriteString(line + "\n")
		}
	}
	for _, c := range f.Cases {
		write(c.before...)
		write(c.input...)
		write(dashes)
		if c.Want != "" {
			for line := range strings.SplitSeq(c.Want, "\n") {
				write(escape(line))
			}
		}
	}
	write(f.after...)
	return out.String()
}

// Write puts Text on disk if it differs from what is there.
func (f *File) Write() error {
	text := f.Text()
	if old, err := os.ReadFile(f.Path); err == nil && string(old) == text {
		return nil
	}
	if err := os.WriteFile(f.Path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("golden: %w", err)
	}
	return nil
}

func blank(line string) bool { return strings.TrimSpace(line) == "" }

func unescape(line string) string { return strings.TrimPrefix(line, `\`) }

// escape guards a line of an answer that would otherwise end or split its case.
func escape(line string) string {
	if blank(line) || line == dashes || line[0] == '\\' || line[0] == '#' {
		return `\` + line
	}
	return line
}
