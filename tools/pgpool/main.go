// Package main is the one program of this project. It answers to many names:
// pgpool is the server and what starts, stops and reloads it; pcp_* ask a
// running one over its admin port; pg_md5 and pg_enc prepare passwords. The
// name it was called by says which, or else its first argument does.
//
// It knows command lines, exit codes, and texts that people read and scripts
// compare: those of pgpool-II 4.3.5 to the letter. What is behind them lives
// in the rooms. A new tool is an entry in tools; a new option of one, a line
// in its table of options.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pgpool-go/pgpool"
	"pgpool-go/watchdog"
)

// compatible is the number of the original's version whose behaviour this is;
// what asks a tool for its version expects one of those.
var compatible, _, _ = strings.Cut(pgpool.Version, " ")

// version is our own, set when linking a release.
var version = "devel"

// tool is one of the names this program answers to.
type tool struct {
	name    string
	options []option
	words   words
	// first sees the arguments as they are; a tool may treat some only there.
	// Done means that nothing is left to do but exit with code.
	first func(t *call) (code int, done bool)
	// seen refuses an option, or its value, at its place in the command line.
	seen func(t *call, o option, value string) error
	// refused is called for a command line not accepted; it returns the exit code.
	refused func(t *call, err error) int
	run     func(t *call) int
}

// call is one use of a tool. In run, options are those given.
type call struct {
	*tool
	args        []string
	options     *cli.Context
	in          *os.File
	out, stderr io.Writer
}

func (t *call) string(name string) string { return t.options.String(name) }
func (t *call) given(name string) bool    { return t.options.IsSet(name) }
func (t *call) operands() []string        { return t.options.Args().Slice() }

// errorf writes a line to stderr.
func (t *call) errorf(format string, args ...any) {
	fmt.Fprintf(t.stderr, format+"\n", args...)
}

// exit is an error that has said all there is to say.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// tools lists every name in the order --tool-names shows them.
func tools() []*tool {
	all := []*tool{pgpoolTool()}
	all = append(all, pcpTools()...)
	return append(all, md5Tool(), encTool(), wdcliTool(), setupTool(), watchdogSetupTool())
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == watchdog.GuardianName {
		os.Exit(watchdog.RunGuardian())
	}
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is the program: it finds the tool, has the command line brought into the
// form urfave/cli reads, and returns the exit code.
func run(argv []string, in *os.File, out, stderr io.Writer) int {
	all := tools()
	t := choose(all, &argv)
	if t.name == "pgpool" && len(argv) == 2 && argv[1] == "--tool-names" {
		for _, t := range all {
			fmt.Fprintln(out, t.name)
		}
		return 0
	}
	c := &call{tool: t, args: argv[1:], in: in, out: out, stderr: stderr}
	if t.first != nil {
		if code, done := t.first(c); done {
			return code
		}
	}
	args, err := normalise(t.name, t.options, t.words, c.args, func(o option, value string) error {
		if t.seen == nil {
			return nil
		}
		return t.seen(c, o, value)
	})
	if code, ok := err.(exit); ok {
		return int(code)
	} else if err != nil {
		return t.refused(c, err)
	}

	code := 0
	app := &cli.App{
		Name:           t.name,
		HideHelp:       true, // the help is the original's, see each tool
		HideVersion:    true,
		Flags:          flags(t.options),
		Writer:         out,
		ErrWriter:      stderr,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return err },
		Action: func(options *cli.Context) error {
			c.options = options
			code = t.run(c)
			return nil
		},
	}
	if err := app.Run(append([]string{t.name}, args...)); err != nil {
		return t.refused(c, err)
	}
	return code
}

// choose finds the tool by the name the program was called by, or by its first
// argument, which it then removes.
func choose(all []*tool, argv *[]string) *tool {
	byName := func(name string) *tool {
		if i := slices.IndexFunc(all, func(t *tool) bool { return t.name == name }); i >= 0 {
			return all[i]
		}
		return nil
	}
	if t := byName(filepath.Base((*argv)[0])); t != nil && t.name != "pgpool" {
		return t
	}
	if len(*argv) > 1 {
		if t := byName((*argv)[1]); t != nil {
			*argv = (*argv)[1:]
			return t
		}
	}
	return byName("pgpool")
}

// flags are the same options in the form of urfave/cli.
func flags(options []option) []cli.Flag {
	var all []cli.Flag
	for _, o := range options {
		if o.value {
			all = append(all, &cli.StringFlag{Name: o.long})
		} else {
			all = append(all, &cli.BoolFlag{Name: o.long})
		}
	}
	return all
}
