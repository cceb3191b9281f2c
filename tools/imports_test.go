// Package tools holds no code: only the tests that look at the whole house.
package tools

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "pgpool-go"

// A room is a package with its level, the rooms it may import (by the last word
// of their path) and the libraries that are kept in it. A new package needs a
// line here; to allow a new import is a decision about the house.
type room struct {
	level int
	pkg   string
	rooms string
	libs  string
}

var house = []room{
	{6, "tools/pgpool", "pgpool pcp watchdog conf auth testcluster", "github.com/urfave/cli/v2"},
	{6, "tools/demo", "testcluster", ""},
	{6, "tools/bench", "testcluster", ""},
	{6, "tools/pgxsuite", "testcluster", ""},
	{6, "tools", "", ""},
	{5, "pgpool", "command session catalog monitor qcache route backend cluster auth certs pam eventlog watchdog election conf parser pcp wire", ""},
	{4, "pgpool/session", "catalog qcache backend route cluster auth certs directory pam wire parser conf eventlog", pgproto3},
	{3, "pgpool/catalog", "backend route parser", ""},
	{3, "pgpool/monitor", "backend cluster conf eventlog", ""},
	{3, "pgpool/qcache", "wire parser conf", "github.com/bradfitz/gomemcache"},
	{2, "pgpool/route", "cluster parser conf", ""},
	{2, "pgpool/backend", "auth certs wire conf", pgproto3},
	{1, "pgpool/cluster", "conf", ""},
	{1, "pgpool/auth", "wire conf", pgproto3 + " golang.org/x/crypto golang.org/x/text"}, // x/text normalises passwords (SASLprep)
	{2, "pgpool/command", "eventlog", ""},
	{1, "pgpool/certs", "conf", ""},
	{0, "pgpool/directory", "", "github.com/go-ldap/ldap/v3 github.com/go-asn1-ber/asn1-ber"}, // LDAP's encoding, for the test's server
	{0, "pgpool/pam", "", "github.com/msteinert/pam/v2"},
	{1, "pgpool/eventlog", "conf", ""},
	{1, "watchdog", "election conf", "github.com/hashicorp/memberlist github.com/vishvananda/netlink"},
	{0, "conf", "", ""},
	{0, "parser", "", "github.com/pganalyze/pg_query_go/v5 google.golang.org/protobuf"}, // its trees are protobuf messages
	{0, "pcp", "", ""},
	{0, "pgpool/wire", "", pgproto3},
	{0, "watchdog/election", "", ""},
	{0, "tools/testcluster", "", ""},
	{0, "tools/golden", "", ""},
}

const (
	pgproto3 = "github.com/jackc/pgx/v5/pgproto3" // of pgx only the protocol, not the driver
	anywhere = "golang.org/x/sys"                 // as plain as the standard library
)

// pkg is what go list says of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestRoomsImportDownwardOnly(t *testing.T) {
	// A profile for the compiler would make each package one for each program, under a longer name.
	cmd := exec.Command("go", "list", "-pgo=off", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("go list: %v: %s", err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		for _, fault := range faults(p) {
			t.Error(fault)
		}
	}
}

func TestTheTableItselfLeadsDownward(t *testing.T) {
	for _, r := range house {
		for _, name := range strings.Fields(r.rooms) {
			if to, ok := roomNamed(name); !ok {
				t.Errorf("%s may import %s, which is no room", r.pkg, name)
			} else if to.level >= r.level {
				t.Errorf("%s (level %d) may import %s (level %d)", r.pkg, r.level, to.pkg, to.level)
			}
		}
	}
}

func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		name string
		p    pkg
		want string
	}{
		{"fine", pkg{ImportPath: "pgpool-go/pgpool/auth", Imports: []string{"fmt", "pgpool-go/conf", "golang.org/x/crypto/md4", pgproto3}}, ""},
		{"tests may look at every lower room", pkg{ImportPath: "pgpool-go/pgpool/session", XTestImports: []string{"pgpool-go/pgpool/session", "pgpool-go/tools/testcluster", "github.com/jackc/pgx/v5"}}, ""},
		{"upward", pkg{ImportPath: "pgpool-go/conf", Imports: []string{"pgpool-go/pgpool/wire"}}, "conf must not import pgpool/wire"},
		{"downward but not in the table", pkg{ImportPath: "pgpool-go/pgpool/session", Imports: []string{"pgpool-go/pcp"}}, "pgpool/session must not import pcp"},
		{"a test upward", pkg{ImportPath: "pgpool-go/pgpool/wire", TestImports: []string{"pgpool-go/pgpool/session"}}, "a test of pgpool/wire must not import pgpool/session"},
		{"a library in the wrong room", pkg{ImportPath: "pgpool-go/pgpool/route", Imports: []string{"github.com/pganalyze/pg_query_go/v5"}}, "pgpool/route must not import github.com/pganalyze/pg_query_go/v5"},
		{"the driver instead of the protocol", pkg{ImportPath: "pgpool-go/pgpool/backend", Imports: []string{"github.com/jackc/pgx/v5"}}, "pgpool/backend must not import github.com/jackc/pgx/v5"},
		{"no room", pkg{ImportPath: "pgpool-go/util"}, "util has no line in the table"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(faults(c.p), "; ")
			if got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// faults are the imports of p that the table does not allow.
func faults(p pkg) []string {
	own := strings.TrimPrefix(p.ImportPath, module+"/")
	i := slices.IndexFunc(house, func(r room) bool { return r.pkg == own })
	if i < 0 {
		return []string{fmt.Sprintf("%s has no line in the table of tools/imports_test.go", own)}
	}
	r := house[i]
	var found []string
	for _, imp := range p.Imports {
		if !r.mayImport(imp) {
			found = append(found, fmt.Sprintf("%s must not import %s", own, strings.TrimPrefix(imp, module+"/")))
		}
	}
	for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
		// Tests join rooms as they like, and use any library, but never reach up.
		to, ok := strings.CutPrefix(imp, module+"/")
		if !ok || to == own || r.mayImport(imp) {
			continue
		}
		if j := slices.IndexFunc(house, func(r room) bool { return r.pkg == to }); j < 0 || house[j].level > 0 && house[j].level >= r.level {
			found = append(found, fmt.Sprintf("a test of %s must not import %s", own, to))
		}
	}
	return found
}

func (r room) mayImport(imp string) bool {
	if to, ok := strings.CutPrefix(imp, module+"/"); ok {
		for _, name := range strings.Fields(r.rooms) {
			if named, ok := roomNamed(name); ok && named.pkg == to {
				return true
			}
		}
		return false
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(strings.Fields(r.libs+" "+anywhere), func(lib string) bool {
		return imp == lib || strings.HasPrefix(imp, lib+"/")
	})
}

func roomNamed(name string) (room, bool) {
	i := slices.IndexFunc(house, func(r room) bool { return path.Base(r.pkg) == name && r.level < 6 })
	if i < 0 {
		return room{}, false
	}
	return house[i], true
}
