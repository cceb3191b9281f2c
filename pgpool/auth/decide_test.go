package auth

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgpool-go/pgpool/wire"
	"pgpool-go/tools/golden"
)

// TestMatrix plays the matrix of the specification: what pool_passwd holds and
// what the client knows, against every kind of server. The input of a case is
// the original's answer, the expected part ours; a cell that differs is marked.
//
// Columns: pool_hba method, allow_clear_text_frontend_auth, entry of
// pool_passwd, password of the client; then the server: trust, md5, scram,
// password, md5 line with a SCRAM role, reject, no such role.
func TestMatrix(t *testing.T) {
	golden.Run(t, "auth", func(t *testing.T, c golden.Case) string {
		var out strings.Builder
		for row := range strings.SplitSeq(c.Input, "\n") {
			cells := strings.Fields(row)
			if len(cells) == 1 {
				fmt.Fprintln(&out, describe(t, row))
				continue
			}
			if len(cells) != 4+len(servers) {
				t.Fatalf("row has %d cells: %q", len(cells), row)
			}
			line := fmt.Sprintf("%-13s %-3s %-10s %-6s", cells[0], cells[1], cells[2], cells[3])
			for i, server := range servers {
				ours := cell(t, cells, server)
				if theirs := cells[4+i]; theirs != "-" && ours != theirs {
					ours += "!"
				}
				line += fmt.Sprintf(" %-5s", ours)
			}
			fmt.Fprintln(&out, strings.TrimRight(line, " "))
		}
		return out.String()
	})
}

const (
	user      = "U"
	right     = "rightpw"
	otherText = "storedpw" // what pool_passwd has where it is not the server's
)

var servers = []string{"trust", "md5", "scram", "password", "md5/scram", "reject", "norole"}

// cell gives one outcome, and the several of "any" joined where they differ.
func cell(t *testing.T, cells []string, server string) string {
	t.Helper()
	var outcomes []string
	add := func(s string) {
		for _, o := range outcomes {
			if o == s {
				return
			}
		}
		outcomes = append(outcomes, s)
	}
	choose := func(word string, both ...string) []string {
		if word == "any" {
			return both
		}
		return []string{word}
	}
	for _, clear := range choose(cells[1], "off", "on") {
		for _, client := range choose(cells[3], "right", "wrong") {
			c := Client{User: user, Database: "D", Host: "127.0.0.1", ClearText: clear == "on", Stored: entry(t, cells[2])}
			add(code(t, server, through(cells[0], c, answerOf(client), server)))
		}
	}
	return strings.Join(outcomes, "|")
}

func entry(t testing.TB, word string) Credential {
	switch word {
	case "none":
		return Credential{}
	case "plain":
		return Plain(right)
	case "md5":
		return Hashed(StoredMD5(right, user))
	case "unreadable":
		return Unreadable()
	case "other":
		return Plain(otherText)
	case "verifier":
		return Verified(roleVerifier)
	}
	t.Fatalf("unknown entry %q", word)
	return Credential{}
}

func answerOf(word string) string {
	switch word {
	case "right":
		return right
	case "stored":
		return otherText
	}
	return "not the password"
}

var roleVerifier = func() Verifier {
	v, err := NewVerifier(right, []byte("salt of the role"), 4096)
	if err != nil {
		panic(err)
	}
	return v
}()

// through is one login through pgpool: a client, the decision, a server.
func through(method string, c Client, password, server string) error {
	front := newPipe()
	var client sync.WaitGroup
	client.Go(func() { Login(front, user, Plain(password)) }) // ends with the pipe; its view is tested elsewhere
	err := relayed(front, method, c, server)
	close(front.gone)
	client.Wait()
	return err
}

func relayed(front *pipe, method string, c Client, server string) error {
	if method == "off" {
		back := dial(server)
		defer close(back.gone)
		m, err := ReadMethod(back)
		if err != nil {
			return err
		}
		proven, err := Challenge(front, c.User, Relay(m, c))
		if err != nil {
			return err
		}
		return Answer(back, m, c.User, proven)
	}
	proven, err := Challenge(front, c.User, Admit(method, c))
	if err != nil {
		return err
	}
	back := dial(server)
	defer close(back.gone)
	m, err := ReadMethod(back)
	if err != nil {
		return err
	}
	if proven, err = Challenge(front, c.User, Present(m, method, c, proven)); err != nil {
		return err
	}
	return Answer(back, m, c.User, proven)
}

// dial plays the servers of the matrix.
func dial(server string) *pipe {
	p := newPipe()
	plan, words := Plan{}, postgres(user)
	switch server {
	case "trust":
	case "md5":
		plan = Plan{Ask: AskMD5, Known: Hashed(StoredMD5(right, user))}
	case "scram", "md5/scram":
		plan = Plan{Ask: AskSCRAM, Known: Verified(roleVerifier)}
	case "password":
		plan = Plan{Ask: AskPassword, Known: Verified(roleVerifier)}
	case "norole":
		plan = Plan{Ask: AskSCRAM, Mock: true}
	case "reject":
		plan = Plan{Refuse: fatal("28000", "", "")}
		words = func(error) error {
			return wire.Fatal("28000", `pg_hba.conf rejects connection for host "127.0.0.1", user "U", database "D", no encryption`)
		}
	}
	p.serve(user, plan, words)
	return p
}

// codes are the specification's names of what a client reads.
var codes = map[string]string{
	wordsMD5Backend + ": " + detailNotFound:                                                                       "E2",
	wordsSCRAMBackend + ": " + detailNotFound:                                                                     "E3",
	wordsAny + `: password authentication failed for user "U"`:                                                    "E5",
	wordsBackend + `: password authentication failed for user "U"`:                                                "E6",
	wordsMD5 + ": password does not match":                                                                        "E7",
	wordsAny + `: username "U" or password does not exist in backend`:                                             "E8",
	wordsClear + ": password does not match":                                                                      "E9",
	wordsClearBackend + ": unable to get the password":                                                            "E10",
	wordsMD5 + ": " + detailDecrypt:                                                                               "E11",
	wordsSCRAM + ": " + detailDecrypt:                                                                             "E12",
	wordsClear + ": " + detailDecrypt:                                                                             "E13",
	wordsClearBackend + ": " + detailDecrypt:                                                                      "E14",
	wordsMD5 + `: pool_passwd file does not contain an entry for "U"`:                                             "E16",
	wordsSCRAM + `: pool_passwd file does not contain an entry for "U"`:                                           "E17",
	wordsSCRAM + `: pool_passwd file does not contain valid SCRAM entry for "U"`:                                  "E18",
	wordsClient + `: missing or erroneous pool_hba.conf file`:                                                     "E22",
	wordsBackend + `: pg_hba.conf rejects connection for host "127.0.0.1", user "U", database "D", no encryption`: "E4",
	wordsClient + `: no pool_hba.conf entry for host "127.0.0.1", user "U", database "D", SSL off`:                "E15",
}

var seen = map[string]*Error{} // by code, for describe

func code(t *testing.T, server string, err error) string {
	t.Helper()
	if err == nil {
		return "OK"
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("server %s: not an *Error: %v", server, err)
	}
	name, ok := codes[e.Error()]
	if !ok {
		t.Fatalf("server %s: words without a code: %v", server, err)
	}
	if old := seen[name]; old == nil {
		seen[name] = e
	}
	return name
}

// describe shows the whole of an answer: rows of a single cell, like "E7".
func describe(t *testing.T, name string) string {
	e := seen[name]
	if name == "E22" {
		e = BadHBAFile()
	}
	if e == nil {
		t.Fatalf("no row of the matrix gave %s", name)
	}
	out := fmt.Sprintf("%s %s %s %s\n  DETAIL %s", name, e.Severity, e.SQLState, e.Message, e.Detail)
	if e.Hint != "" {
		out += "\n  HINT   " + e.Hint
	}
	return out
}

func TestWordsOfRules(t *testing.T) {
	e := Admit(HBAReject, Client{User: "a\nb", Database: `d"`, Host: "[local]", SSL: true}).Refuse
	if want := `no pool_hba.conf entry for host "[local]", user "a?b", database "d"", SSL on`; e.Detail != want {
		t.Errorf("%s, expected %s", e.Detail, want)
	}
	if e := Admit("radius", Client{}).Refuse; e == nil || e.SQLState != "0A000" || e.Severity != "FATAL" {
		t.Errorf("a method nobody can carry out gave %v", e)
	}
	gss := Method{Kind: KindUnsupported, Name: "gss"}
	for _, p := range []Plan{Relay(gss, Client{}), Present(gss, HBATrust, Client{}, Credential{})} {
		if p.Refuse == nil || !strings.Contains(p.Refuse.Detail, "gss") {
			t.Errorf("%+v", p)
		}
	}
}
