package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Limits of pool_passwd.
const (
	maxPasswdLine  = 1023
	maxPasswdField = 128
)

// PasswdEntry is one line of pool_passwd.
type PasswdEntry struct {
	User   string
	Secret Secret
	// The role used towards the backends, where the line maps the user to another one.
	BackendUser   string
	BackendSecret Secret
}

// PoolPasswd is a pool_passwd file as it was when it was read.
type PoolPasswd struct {
	Notices []Notice // lines that were passed over
	byUser  map[string]PasswdEntry
}

// LoadPoolPasswd reads a pool_passwd file; key gives the pass phrase for AES
// entries. Of several lines for a user the first counts. A missing file has no entries.
func LoadPoolPasswd(path string, key func() ([]byte, error)) (*PoolPasswd, error) {
	src, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{File: path, Text: fmt.Sprintf("could not open pool_passwd file %q", path), Detail: reason(err), Err: err}
	}
	return parsePoolPasswd(path, string(src), key), nil
}

func parsePoolPasswd(path, src string, key func() ([]byte, error)) *PoolPasswd {
	p := &PoolPasswd{byUser: map[string]PasswdEntry{}}
	for i, line := range strings.Split(src, "\n") {
		line = strings.TrimSuffix(line, "\r")
		fields, why := passwdFields(line)
		if why != "" {
			p.Notices = append(p.Notices, Notice{Level: LevelWarning, File: path, Line: i + 1,
				Text:   fmt.Sprintf("invalid line %d in pool_passwd file %q", i+1, path),
				Detail: why, Hint: "Lines are user:password. The line is ignored."})
			continue
		}
		if fields == nil {
			continue
		}
		e := PasswdEntry{User: fields[0], Secret: ParseSecret(fields[1], key)}
		if len(fields) >= 4 {
			e.BackendUser, e.BackendSecret = fields[2], ParseSecret(fields[3], key)
		}
		if _, dup := p.byUser[e.User]; !dup {
			p.byUser[e.User] = e
		}
	}
	return p
}

// passwdFields cuts a line; no fields and no reason mean an empty line or a comment.
func passwdFields(line string) (fields []string, why string) {
	if line == "" || line[0] == '#' {
		return nil, ""
	}
	if len(line) > maxPasswdLine {
		return nil, fmt.Sprintf("the line is longer than %d bytes", maxPasswdLine)
	}
	fields = splitEscaped(line)
	if len(fields) < 2 {
		return nil, "the line has no password"
	}
	for _, f := range fields {
		if len(f) > maxPasswdField && !strings.HasPrefix(f, "SCRAM-") {
			return nil, fmt.Sprintf("a field is longer than %d bytes", maxPasswdField)
		}
	}
	if fields[0] == "" {
		return nil, "the line has no user"
	}
	return fields, ""
}

// splitEscaped cuts at colons; a backslash protects a colon or a backslash.
func splitEscaped(line string) []string {
	var fields []string
	var field strings.Builder
	for i := 0; i < len(line); i++ {
		switch b := line[i]; {
		case b == ':':
			fields = append(fields, field.String())
			field.Reset()
			continue
		case b == '\\' && i+1 < len(line) && (line[i+1] == ':' || line[i+1] == '\\'):
			i++
		}
		field.WriteByte(line[i])
	}
	return append(fields, field.String())
}

var passwdEscapes = strings.NewReplacer(`\`, `\\`, `:`, `\:`)

// Lookup finds a user's password.
func (p *PoolPasswd) Lookup(user string) (Secret, bool) {
	e, ok := p.Entry(user)
	return e.Secret, ok
}

// Entry finds a user's whole line.
func (p *PoolPasswd) Entry(user string) (PasswdEntry, bool) {
	if p == nil {
		return PasswdEntry{}, false
	}
	e, ok := p.byUser[user]
	return e, ok
}

// UpdatePoolPasswd sets a user's password, as stored (md5..., AES..., TEXT...), in a pool_passwd
// file, which is created if need be; every other line stays as it is. The file is replaced as a whole, so a
// reader sees the old one or the new one.
func UpdatePoolPasswd(path, user, stored string) error {
	if user == "" || strings.ContainsAny(user+stored, "\n\r") {
		return fmt.Errorf("update pool_passwd: user and password must be one line and the user not empty")
	}
	entry := passwdEscapes.Replace(user) + ":" + passwdEscapes.Replace(stored)
	if len(entry) > maxPasswdLine || len(user) > maxPasswdField {
		return fmt.Errorf("update pool_passwd: user or password is too long")
	}
	mode := fs.FileMode(0o600)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // a link stays a link
	}
	src, err := os.ReadFile(path)
	switch {
	case err == nil:
		if info, err := os.Stat(path); err == nil {
			mode = info.Mode().Perm()
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("update pool_passwd: %w", err)
	}
	if err := replaceFile(path, withEntry(string(src), user, entry), mode); err != nil {
		return fmt.Errorf("update pool_passwd: %w", err)
	}
	return nil
}

// CreatePoolPasswd makes an empty pool_passwd file where there is none.
func CreatePoolPasswd(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create pool_passwd: %w", err)
	}
	return f.Close()
}

// withEntry puts the entry in the place of the user's first line, or at the end.
func withEntry(src, user, entry string) string {
	var lines []string
	if src != "" {
		lines = strings.Split(strings.TrimSuffix(src, "\n"), "\n")
	}
	for i, line := range lines {
		if fields, _ := passwdFields(line); fields != nil && fields[0] == user {
			lines[i] = entry
			return strings.Join(lines, "\n") + "\n"
		}
	}
	return strings.Join(append(lines, entry), "\n") + "\n"
}

// replaceFile writes a file beside path and moves it there, keeping owner and mode.
func replaceFile(path, content string, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no longer there once it is moved
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Chmod(mode), sameOwner(f, path), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
