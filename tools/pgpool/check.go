package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
)

// check is "pgpool check": it prints what is wrong with a configuration, as
// compilers do, and returns 1 if anything of that is an error.
func check(t *call, paths conf.Paths) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	found, err := pgpool.Check(ctx, paths, t.given("live"))
	if err != nil {
		return t.fatal(exitFatal, err)
	}
	count := map[string]int{}
	for _, f := range found {
		count[f.Level]++
	}
	if t.given("json") {
		t.checkedJSON(found, count)
	} else {
		t.checked(found, count)
	}
	if count[pgpool.FoundError] > 0 {
		return 1
	}
	return 0
}

func (t *call) checked(found []pgpool.Finding, count map[string]int) {
	for _, f := range found {
		where := ""
		if f.File != "" {
			where = f.File + ": "
			if f.Line > 0 {
				where = fmt.Sprintf("%s:%d: ", f.File, f.Line)
			}
		}
		fmt.Fprintf(t.out, "%s%s: %s\n", where, f.Level, f.Text)
		if f.Detail != "" {
			fmt.Fprintf(t.out, "    %s\n", f.Detail)
		}
		if f.Mend != "" {
			fmt.Fprintf(t.out, "    mend: %s\n", f.Mend)
		}
	}
	fmt.Fprintf(t.out, "%s, %s\n", plural(count[pgpool.FoundError], "error"), plural(count[pgpool.FoundWarning], "warning"))
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func (t *call) checkedJSON(found []pgpool.Finding, count map[string]int) {
	if found == nil {
		found = []pgpool.Finding{}
	}
	enc := json.NewEncoder(t.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	enc.Encode(struct {
		Errors   int              `json:"errors"`
		Warnings int              `json:"warnings"`
		Findings []pgpool.Finding `json:"findings"`
	}{count[pgpool.FoundError], count[pgpool.FoundWarning], found})
}
