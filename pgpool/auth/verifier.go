package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// Key is one of the keys SCRAM-SHA-256 derives from a password.
type Key [sha256.Size]byte

// Verifier is what a SCRAM-SHA-256 server knows of a password: enough to check
// a proof, not enough to give one.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  Key
	ServerKey  Key
}

// Bounds on what a server or a verifier may ask of pgpool's processor: some
// seconds at the most. PostgreSQL's own default is 4096.
const maxIterations = 10_000_000

// ParseVerifier reads PostgreSQL's stored form,
// SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>.
func ParseVerifier(text string) (Verifier, error) {
	var v Verifier
	rest, ok := strings.CutPrefix(text, mechanism+"$")
	costs, keys, ok2 := strings.Cut(rest, "$")
	count, salt, ok3 := strings.Cut(costs, ":")
	stored, server, ok4 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 || !ok4 {
		return v, errors.New("scram verifier has not the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
	}
	var err error
	if v.Iterations, err = iterations(count); err != nil {
		return v, fmt.Errorf("scram verifier: %w", err)
	}
	if v.Salt, err = base64.StdEncoding.Strict().DecodeString(salt); err != nil || len(v.Salt) == 0 {
		return v, errors.New("scram verifier: salt is not base64")
	}
	for _, k := range []struct {
		name string
		text string
		key  *Key
	}{{"StoredKey", stored, &v.StoredKey}, {"ServerKey", server, &v.ServerKey}} {
		raw, err := base64.StdEncoding.Strict().DecodeString(k.text)
		if err != nil || len(raw) != len(k.key) {
			return v, fmt.Errorf("scram verifier: %s is not a key in base64", k.name)
		}
		*k.key = Key(raw)
	}
	return v, nil
}

// Text is the form ParseVerifier reads and PostgreSQL stores.
func (v Verifier) Text() string {
	b64 := base64.StdEncoding.EncodeToString
	return mechanism + "$" + strconv.Itoa(v.Iterations) + ":" + b64(v.Salt) + "$" + b64(v.StoredKey[:]) + ":" + b64(v.ServerKey[:])
}

// NewVerifier derives the verifier of a password.
func NewVerifier(password string, salt []byte, iterations int) (Verifier, error) {
	keys, err := salted.keys(password, salt, iterations)
	if err != nil {
		return Verifier{}, err
	}
	return Verifier{Iterations: iterations, Salt: salt, StoredKey: keys.stored, ServerKey: keys.server}, nil
}

// Check tells whether v was made from this password.
func (v Verifier) Check(password string) bool {
	keys, err := salted.keys(password, v.Salt, v.Iterations)
	return err == nil && hmac.Equal(keys.stored[:], v.StoredKey[:])
}

func (v Verifier) String() string       { return "(verifier)" }
func (v Verifier) GoString() string     { return "auth.Verifier(verifier)" }
func (v Verifier) LogValue() slog.Value { return slog.StringValue(v.String()) }

// Format serves every verb, also those which would print the fields.
func (v Verifier) Format(s fmt.State, _ rune) { s.Write([]byte(v.String())) }

// iterations reads an iteration count as a SCRAM message writes it.
func iterations(text string) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 1 || text[0] == '+':
		return 0, errors.New("iteration count is not a positive number")
	case n > maxIterations:
		return 0, fmt.Errorf("iteration count %d is more than the %d pgpool would compute", n, maxIterations)
	}
	return n, nil
}
