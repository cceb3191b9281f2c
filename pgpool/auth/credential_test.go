package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"errors"
	"pgpool-go/pgpool/wire"
)

func TestSecretsDoNotPrint(t *testing.T) {
	const secret = "hunter2-hunter2"
	salt := []byte("salt-salt-salt-s")
	v, err := NewVerifier(secret, salt, 10)
	if err != nil {
		t.Fatal(err)
	}
	hash := StoredMD5(secret, user)
	// Leaks would show as text, as base64, as hex or as bytes in decimal.
	leaks := []string{secret, hash[3:], strings.Split(v.Text(), "$")[2], fmt.Sprintf("%x", v.StoredKey[:4]), fmt.Sprintf("%x", secret),
		strings.Trim(fmt.Sprint([]byte(secret)[:4]), "[]"), strings.Trim(fmt.Sprint(v.StoredKey[:4]), "[]")}
	type session struct { // unexported fields: fmt does not ask their methods
		cred Credential
		plan Plan
		more []Credential
	}
	for _, c := range []Credential{Plain(secret), Hashed(hash), Verified(v), passed(v, v.StoredKey)} {
		plan := Plan{Ask: AskSCRAM, Known: c}
		for _, value := range []any{c, &c, plan, &plan, session{c, plan, []Credential{c}}, &session{c, plan, nil}, Client{Stored: c}, map[string]Credential{"a": c}} {
			var out bytes.Buffer
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%T"} {
				fmt.Fprintf(&out, verb+"\n", value)
			}
			json.NewEncoder(&out).Encode(value)
			slog.New(slog.NewTextHandler(&out, nil)).Info("x", "value", value)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "value", value)
			for _, leak := range leaks {
				if strings.Contains(strings.ToLower(out.String()), strings.ToLower(leak)) {
					t.Fatalf("%s shows %q:\n%s", c.Form(), leak, out.String())
				}
			}
		}
	}
	if got := fmt.Sprintf("%v %+v %s", v, v, &v); got != "(verifier) (verifier) (verifier)" {
		t.Error(got)
	}
}

func TestDigest(t *testing.T) {
	v, _ := NewVerifier("a", []byte("salt"), 1)
	other, _ := NewVerifier("a", []byte("tlas"), 1)
	all := []Credential{{}, Unreadable(), Plain(""), Plain("a"), Plain("b"), Hashed("a"), Verified(v), Verified(other), passed(v, v.StoredKey), passed(v, v.ServerKey)}
	seen := map[Digest]int{}
	for i, c := range all {
		if j, ok := seen[c.Digest()]; ok {
			t.Errorf("%d and %d have the same digest", i, j)
		}
		seen[c.Digest()] = i
	}
	if Plain("a").Digest() != Plain("a").Digest() {
		t.Error("the same secret has two digests")
	}
}

func TestKeyCache(t *testing.T) {
	c := newKeyCache(3)
	at := func(i int) *keyEntry { return c.entry(fmt.Sprint("password", i), []byte("salt"), 1) }
	first := at(0)
	if at(0) != first {
		t.Error("not kept")
	}
	at(1)
	at(2)
	at(0)
	at(3) // turns out 1, the one not used for longest
	if len(c.byName) != 3 || c.recent.Len() != 3 {
		t.Errorf("%d, %d entries", len(c.byName), c.recent.Len())
	}
	if at(0) != first {
		t.Error("the one used last was turned out")
	}
	if _, ok := c.byName[nameKeys("password1", []byte("salt"), 1)]; ok {
		t.Error("the oldest was kept")
	}
	a, b := c.entry("p", []byte("ab"), 1), c.entry("bp", []byte("a"), 1)
	if a == b || a == c.entry("p", []byte("ab"), 2) {
		t.Error("two questions, one entry")
	}
	salt := []byte("mine")
	e := c.entry("p", salt, 1)
	salt[0] = 'x' // a read buffer used again
	got, _ := e.keys()
	if want, _ := deriveKeys("p", []byte("mine"), 1); got != want {
		t.Error("the salt was not kept")
	}
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() { c.keys(fmt.Sprint(i%5), []byte("salt"), 50) })
	}
	all.Wait()
}

func TestHashes(t *testing.T) {
	if got := PasswordMD5("secret"); got != "5ebe2294ecd0e0f08eab7690d2a6ee69" {
		t.Error(got)
	}
	if got := StoredMD5("secret", "postgres"); got != "md5"+PasswordMD5("secretpostgres") || !isStoredMD5(got) {
		t.Error(got)
	}
	for _, bad := range []string{"", "md5", "md5zz", strings.Repeat("a", 35), "md5" + strings.Repeat("z", 32), "md5" + strings.Repeat("a", 33)} {
		if isStoredMD5(bad) {
			t.Error(bad)
		}
	}
}

func TestVerifierText(t *testing.T) {
	v, err := NewVerifier("secret", []byte("a salt of any length"), 7)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseVerifier(v.Text())
	if err != nil || again.Text() != v.Text() || !again.Check("secret") || again.Check("Secret") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "SCRAM-SHA-256$", "SCRAM-SHA-1$1:YQ==$a:b", "SCRAM-SHA-256$x:YQ==$a:b", "SCRAM-SHA-256$1:$a:b", "SCRAM-SHA-256$1:YQ==$YQ==:YQ==", strings.Replace(v.Text(), "$7:", "$99999999:", 1)} {
		if _, err := ParseVerifier(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// What a client is sent is our words, also where a server's own lie below.
func TestErrorAsWire(t *testing.T) {
	theirs := wire.Fatal("28P01", "theirs")
	err := refused(SCRAM, user, fmt.Errorf("node 1: %w", theirs))
	e, ok := errors.AsType[*wire.Error](err)
	if !ok || e.Message != wordsBackend || e.Detail != "theirs" || e.Code != "28P01" || e.Severity != "FATAL" {
		t.Errorf("%+v", e)
	}
	if !errors.Is(err, theirs) {
		t.Error("the server's own error is lost")
	}
	if got := fatal("28000", "m", fmt.Sprintf("d %s", plainName("a\nb\x7f"))).Error(); got != "m: d a?b?" {
		t.Errorf("%q", got)
	}
}
