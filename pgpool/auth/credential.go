package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
)

// Form is the shape in which something about a user's password is known.
type Form uint8

const (
	FormNone       Form = iota // nothing is known
	FormPlain                  // the password itself
	FormMD5                    // "md5" and the hash of password and user name
	FormVerifier               // what PostgreSQL stores for SCRAM: can check, cannot log in
	FormKeys                   // SCRAM keys won from a client's proof: can log in where the salt is the same
	FormUnreadable             // pool_passwd has an entry which cannot be decrypted
	FormPassed                 // a server has judged the client itself: it is known, its password is not
)

func (f Form) String() string {
	return [...]string{"none", "plain", "md5", "verifier", "keys", "unreadable", "passed on"}[f]
}

// Credential is what is known about a user's password: an entry of pool_passwd,
// what a client has presented, what is shown to a server. The zero value knows
// nothing. A Credential is immutable and prints as its form only, whatever verb
// prints it and however deep inside other values it lies.
type Credential struct {
	form Form
	// held gives the secret; nil: none. It is a function so that fmt does not
	// reach the secret when the Credential is an unexported field, where its
	// methods are not asked.
	held func() *held
}

func hold(form Form, h held) Credential {
	return Credential{form, func() *held { return &h }}
}

type held struct {
	text     string   // FormPlain, FormMD5
	verifier Verifier // FormVerifier, FormKeys
	client   Key      // FormKeys
}

// Plain is the password itself.
func Plain(password string) Credential {
	return hold(FormPlain, held{text: password})
}

// Hashed is an md5 hash as PostgreSQL and pool_passwd store it, see StoredMD5.
func Hashed(md5 string) Credential {
	return hold(FormMD5, held{text: md5})
}

// Verified is a SCRAM verifier as PostgreSQL stores it, see ParseVerifier.
func Verified(v Verifier) Credential {
	return hold(FormVerifier, held{verifier: v})
}

// Unreadable is an entry of pool_passwd which cannot be decrypted.
func Unreadable() Credential { return Credential{form: FormUnreadable} }

// Passed is what remains of an exchange between client and server which pgpool has
// only passed on: nothing to be shown to another server.
func Passed() Credential { return Credential{form: FormPassed} }

// passed is what is left of a client's proof checked against v: enough to log
// in to every server that stores the same verifier.
func passed(v Verifier, client Key) Credential {
	return hold(FormKeys, held{verifier: v, client: client})
}

// Form tells the shape, which is no secret.
func (c Credential) Form() Form { return c.form }

func (c Credential) text() string {
	if c.held == nil {
		return ""
	}
	return c.held().text
}

// Password is the password itself, of FormPlain, for those who must show it to
// somebody else than a server.
func (c Credential) Password() string {
	if c.form != FormPlain {
		return ""
	}
	return c.text()
}

// Digest stands for a Credential where it has to be compared or be part of a
// map key: equal for equal secrets of the same form, different in every
// process, of no use to whoever reads it.
type Digest [16]byte

// Digest tells credentials apart without showing them.
func (c Credential) Digest() Digest {
	if c.held == nil {
		return Digest{'-', byte(c.form)} // no secret, and the most frequent question where servers trust
	}
	mac := hmac.New(sha256.New, processSecret[:])
	mac.Write([]byte{'d', byte(c.form)})
	h := c.held()
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(h.text))))
	mac.Write([]byte(h.text))
	v := h.verifier
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(v.Iterations)))
	mac.Write(v.StoredKey[:])
	mac.Write(v.ServerKey[:])
	mac.Write(h.client[:])
	mac.Write(v.Salt)
	return Digest(mac.Sum(nil))
}

// processSecret keys everything that must be steady while the process lives and
// foreseeable to nobody: digests, cache keys, the salts shown to clients.
var processSecret = func() (s [32]byte) {
	rand.Read(s[:])
	return s
}()

func (c Credential) String() string               { return "(" + c.form.String() + ")" }
func (c Credential) GoString() string             { return "auth.Credential" + c.String() }
func (c Credential) LogValue() slog.Value         { return slog.StringValue(c.String()) }
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Format serves every verb, also those which would print the fields.
func (c Credential) Format(s fmt.State, verb rune) {
	if verb == 'v' && s.Flag('#') {
		s.Write([]byte(c.GoString()))
		return
	}
	s.Write([]byte(c.String()))
}
