package conf

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func goodKey() ([]byte, error) { return []byte("mykey123"), nil }

// TestAES holds what the original's pg_enc writes.
func TestAES(t *testing.T) {
	key, iv := aesKey([]byte("mykey123"))
	if hex.EncodeToString(key) != "9bebe8d61ea4965d1205e9e0f8f0c6bf5262880f5fc9828b4cb2894e0c001937" ||
		hex.EncodeToString(iv) != "97e864a83894660ad42be2d6e8c5744b" {
		t.Errorf("key %x, iv %x", key, iv)
	}
	for password, text := range map[string]string{
		"secret":           "7oKybeNIY0jebC5DUrqxzA==",
		"":                 "MvLGAVA1iLEXrBQMjCkJFA==",
		"0123456789abcdef": "wpCobaJJbJ03vGOp032q0eYBBSlzJZ4S9Yeg1LrPr+I=",
	} {
		if got := Encrypt([]byte("mykey123"), password); got != text {
			t.Errorf("%q is encrypted as %s, want %s", password, got, text)
		}
		if got, err := Decrypt([]byte("mykey123"), text); err != nil || got != password {
			t.Errorf("%s is decrypted as %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "!", "AAAA", "MvLGAVA1iLEXrBQMjCkJFB=="} {
		if got, err := Decrypt([]byte("other"), text); err == nil {
			t.Errorf("%q is decrypted as %q", text, got)
		}
	}
}

func TestParseSecret(t *testing.T) {
	const md5 = "md5e8a48653851e28c69d0506508fb27fc5"
	noKey := func() ([]byte, error) { return nil, errors.New("none") }
	for _, tt := range []struct {
		stored string
		key    func() ([]byte, error)
		want   Secret
	}{
		{"secret", nil, Secret{Plain, "secret"}},
		{"TEXTsecret", nil, Secret{Plain, "secret"}},
		{"textsecret", nil, Secret{Plain, "textsecret"}},
		{"", nil, Secret{Plain, ""}},
		{md5, nil, Secret{MD5, md5}},
		{"md5short", nil, Secret{Plain, "md5short"}},
		{"md5" + strings.Repeat("z", 32), nil, Secret{Plain, "md5" + strings.Repeat("z", 32)}},
		{"SCRAM-SHA-256$4096:x$y:z", nil, Secret{Scram, "SCRAM-SHA-256$4096:x$y:z"}},
		{"AES7oKybeNIY0jebC5DUrqxzA==", goodKey, Secret{Plain, "secret"}},
		{"AES7oKybeNIY0jebC5DUrqxzA==", noKey, Secret{Undecryptable, ""}},
		{"AES7oKybeNIY0jebC5DUrqxzA==", nil, Secret{Undecryptable, ""}},
		{"AESgarbage", goodKey, Secret{Undecryptable, ""}},
	} {
		if got := ParseSecret(tt.stored, tt.key); got != tt.want {
			t.Errorf("%q is %v %q", tt.stored, got, got.Text)
		}
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	s := Secret{Plain, "hunter2"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "entry", PasswdEntry{User: "u", Secret: s})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "entry", PasswdEntry{User: "u", Secret: s})
	printed := fmt.Sprintf("%v %+v %#v %s %q %d %x", s, s, s, s, s, s, s) + fmt.Sprintf("%v %+v %#v", PasswdEntry{Secret: s}, []Secret{s}, &s) + log.String()
	if strings.Contains(printed, "hunter2") {
		t.Errorf("a secret is printed: %s", printed)
	}
}

func TestPoolPasswd(t *testing.T) {
	p := parsePoolPasswd("f", strings.Join([]string{
		"# comment:x",
		"alice:secret",
		"alice:second",
		`co\:lon:pass\:wo\\rd\n`,
		"carol:TEXTx\r",
		"dave:AES7oKybeNIY0jebC5DUrqxzA==",
		"erin:one:backend:two",
		"",
		"nobody",
		":x",
		"frank:" + strings.Repeat("x", 129),
		"gina:" + strings.Repeat("x", 1100),
		"henry:",
		"scram:SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$" + strings.Repeat("A", 44) + ":" + strings.Repeat("B", 44),
	}, "\n"), goodKey)
	for user, want := range map[string]string{"alice": "secret", "co:lon": `pass:wo\rd\n`, "carol": "x", "dave": "secret", "erin": "one", "henry": ""} {
		if s, ok := p.Lookup(user); !ok || s.Kind != Plain || s.Text != want {
			t.Errorf("%s: %v %q", user, ok, s.Text)
		}
	}
	for _, user := range []string{"nobody", "", "frank", "gina", "# comment", "Alice"} {
		if s, ok := p.Lookup(user); ok {
			t.Errorf("%q has the password %q", user, s.Text)
		}
	}
	if e, _ := p.Entry("erin"); e.BackendUser != "backend" || e.BackendSecret.Text != "two" {
		t.Errorf("erin is %s %q", e.BackendUser, e.BackendSecret.Text)
	}
	if s, ok := p.Lookup("scram"); !ok || s.Kind != Scram {
		t.Errorf("scram: %v %v", ok, s)
	}
	if len(p.Notices) != 4 || p.Notices[0].Line != 9 {
		t.Errorf("notices:\n%s", texts(p.Notices))
	}
	if strings.Contains(texts(p.Notices), "xxxx") {
		t.Error("a notice shows a password")
	}
	var none *PoolPasswd
	if _, ok := none.Lookup("x"); ok {
		t.Error("no file has an entry")
	}
	missing, err := LoadPoolPasswd(filepath.Join(t.TempDir(), "x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := missing.Lookup("x"); ok {
		t.Error("a missing file has an entry")
	}
	guide, err := LoadPoolPasswd("../testdata/conf/guide.pool_passwd", nil)
	if s, ok := guide.Lookup("app_readonly"); err != nil || !ok || s.Text != "appreadonlypass" {
		t.Errorf("guide: %v %v", err, ok)
	}
}

func TestUpdatePoolPasswd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pool_passwd")
	update := func(user, stored string) {
		t.Helper()
		if err := UpdatePoolPasswd(file, user, stored); err != nil {
			t.Fatal(err)
		}
	}
	content := func(want string, mode os.FileMode) {
		t.Helper()
		src, err := os.ReadFile(file)
		if err != nil || string(src) != want {
			t.Errorf("file is %q, %v; want %q", src, err, want)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	for range 2 {
		if err := CreatePoolPasswd(file); err != nil {
			t.Fatal(err)
		}
	}
	content("", 0o600)
	update("bob", "md5x")
	content("bob:md5x\n", 0o600)
	if err := CreatePoolPasswd(file); err != nil {
		t.Fatal(err)
	}
	content("bob:md5x\n", 0o600)
	if err := os.WriteFile(file, []byte("# head\nbob:md5x\nann:1\nlast:2"), 0o640); err != nil {
		t.Fatal(err)
	}
	os.Chmod(file, 0o640)
	update("ann", "AES==")
	update("c:d", `x:y\`)
	content("# head\nbob:md5x\nann:AES==\nlast:2\nc\\:d:x\\:y\\\\\n", 0o640)
	p, _ := LoadPoolPasswd(file, nil)
	if s, ok := p.Lookup("c:d"); !ok || s.Text != `x:y\` {
		t.Errorf("read back: %v %q", ok, s.Text)
	}
	link := filepath.Join(filepath.Dir(file), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := UpdatePoolPasswd(link, "bob", "new"); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Lstat(link); info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced")
	}
	for _, bad := range [][2]string{{"", "x"}, {"a\nb", "x"}, {"a", "x\n"}, {"a", strings.Repeat("x", 2000)}} {
		if UpdatePoolPasswd(file, bad[0], bad[1]) == nil {
			t.Errorf("%q was written", bad)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".pool_passwd*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestLoadKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if _, _, err := LoadKey(file); err == nil {
		t.Error("a missing key was read")
	}
	os.WriteFile(file, []byte("mykey123\nx"), 0o600)
	key, notices, err := LoadKey(file)
	if string(key) != "mykey123" || len(notices) != 0 || err != nil {
		t.Errorf("%q %v %v", key, notices, err)
	}
	os.Chmod(file, 0o644)
	key, notices, err = LoadKey(file)
	if string(key) != "mykey123" || err != nil || len(notices) != 1 || notices[0].Level != LevelWarning ||
		notices[0].Text != fmt.Sprintf(`pool key file %q has group or world access; permissions should be u=rw (0600) or less`, file) {
		t.Errorf("%q %v %v", key, notices, err)
	}
	p := write(t, "")
	p.Key = file
	c, _, err := Load(p)
	if err != nil {
		t.Fatal(err)
	}
	if s := ParseSecret("AES7oKybeNIY0jebC5DUrqxzA==", c.PassKey()); s.Text != "secret" {
		t.Errorf("secret is %v", s)
	}
}

func FuzzPoolPasswd(f *testing.F) {
	for _, s := range []string{"a:b", `a\:b:c\\`, "a:AES==", ":", "\\", "a:md5", "a:b:c:d\n\na:SCRAM-SHA-256$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		p := parsePoolPasswd("f", src, goodKey)
		for user := range p.byUser {
			if user == "" {
				t.Error("an entry without a user")
			}
		}
		if line, _, _ := strings.Cut(src, "\n"); line != "" && len(line) < 100 && !strings.ContainsAny(line, "\r#") {
			again := parsePoolPasswd("f", withEntry(src, line, passwdEscapes.Replace(line)+":x"), nil)
			if s, ok := again.Lookup(line); !ok || s.Text != "x" {
				t.Errorf("the entry for %q was not written: %v %q", line, ok, s.Text)
			}
		}
	})
}
