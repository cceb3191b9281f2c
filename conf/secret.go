package conf

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// SecretKind is the form in which a password is known.
type SecretKind int

// Forms of a password.
const (
	Plain         SecretKind = iota
	MD5                      // md5 and the hex hash of password and user
	Scram                    // a verifier; the original recognises it and cannot use it
	Undecryptable            // AES, with no key or the wrong one
)

func (k SecretKind) String() string {
	return [...]string{"plain", "md5", "scram", "undecryptable"}[k]
}

// Secret is a password. Nothing prints its Text by accident.
type Secret struct {
	Kind SecretKind
	Text string // the password, or the hash or verifier as stored; empty if undecryptable
}

// String names the kind only.
func (s Secret) String() string { return s.Kind.String() + " password" }

// Format names the kind only, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// MarshalText names the kind only.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue names the kind only.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// ParseSecret reads a password as pool_passwd and the password parameters of
// pgpool.conf hold it. The key is asked for only when there is something to decrypt.
func ParseSecret(stored string, key func() ([]byte, error)) Secret {
	if len(stored) == 35 && strings.HasPrefix(stored, "md5") && strings.Trim(stored[3:], "0123456789abcdefABCDEF") == "" {
		return Secret{MD5, stored}
	}
	if strings.HasPrefix(stored, "SCRAM-SHA-256$") {
		return Secret{Scram, stored}
	}
	if text, ok := strings.CutPrefix(stored, "TEXT"); ok {
		return Secret{Plain, text}
	}
	text, ok := strings.CutPrefix(stored, "AES")
	if !ok {
		return Secret{Plain, stored}
	}
	if key == nil {
		return Secret{Kind: Undecryptable}
	}
	k, err := key()
	if err != nil || len(k) == 0 {
		return Secret{Kind: Undecryptable}
	}
	password, err := Decrypt(k, text)
	if err != nil {
		return Secret{Kind: Undecryptable}
	}
	return Secret{Plain, password}
}

// aesKey derives key and start vector from a pass phrase as OpenSSL's
// EVP_BytesToKey does with SHA-1, one round and no salt. That is weak; it is what
// pg_enc has always written.
func aesKey(phrase []byte) (key, iv []byte) {
	var all, d []byte
	for len(all) < 32+aes.BlockSize {
		sum := sha1.Sum(append(d, phrase...))
		d = sum[:]
		all = append(all, d...)
	}
	return all[:32], all[32 : 32+aes.BlockSize]
}

// Encrypt writes a password as pg_enc does, without the AES prefix.
func Encrypt(phrase []byte, password string) string {
	key, iv := aesKey(phrase)
	n := aes.BlockSize - len(password)%aes.BlockSize
	data := append([]byte(password), strings.Repeat(string(rune(n)), n)...)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a wrong key length
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	return base64.StdEncoding.EncodeToString(data)
}

var errDecrypt = errors.New("wrong key or damaged text")

// Decrypt reads what Encrypt wrote.
func Decrypt(phrase []byte, text string) (string, error) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("decrypt password: %w", err)
	}
	if len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return "", fmt.Errorf("decrypt password: %w", errDecrypt)
	}
	key, iv := aesKey(phrase)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a wrong key length
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(data, data)
	n := int(data[len(data)-1])
	if n == 0 || n > aes.BlockSize || strings.Trim(string(data[len(data)-n:]), string(rune(n))) != "" {
		return "", fmt.Errorf("decrypt password: %w", errDecrypt)
	}
	return string(data[:len(data)-n]), nil
}

const maxKey = 255

// LoadKey reads the pass phrase in a key file: its first line. A file that
// others may read is used all the same, with a warning.
func LoadKey(path string) (key []byte, notices []Notice, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, &Error{File: path, Text: fmt.Sprintf("could not open pool key file %q", path), Detail: reason(err), Err: err}
	}
	if info.Mode().Perm()&0o077 != 0 {
		notices = append(notices, Notice{Level: LevelWarning, File: path,
			Text: fmt.Sprintf("pool key file %q has group or world access; permissions should be u=rw (0600) or less", path)})
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, notices, &Error{File: path, Text: fmt.Sprintf("could not read pool key file %q", path), Detail: reason(err), Err: err}
	}
	line, _, _ := strings.Cut(string(src), "\n")
	return []byte(cut(strings.TrimSuffix(line, "\r"), maxKey)), notices, nil
}

// PassKey gives the pass phrase for AES passwords: a function for
// LoadPoolPasswd and ParseSecret that reads Paths.Key each time it is asked.
func (c *Config) PassKey() func() ([]byte, error) {
	return func() ([]byte, error) {
		key, _, err := LoadKey(c.Paths.Key)
		return key, err
	}
}
