package auth

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// The messages of SCRAM (RFC 5802), read strictly: attributes in their order,
// nothing between them that is not known. Both sides of pgpool use these.

// bindingType is how a login is bound to its channel: by the server's certificate.
const bindingType = "tls-server-end-point"

// maxSASL bounds a SASL message, as PostgreSQL does.
const maxSASL = 1024

// newNonce is as long as PostgreSQL's.
func newNonce() string {
	var raw [18]byte
	rand.Read(raw[:])
	return base64.StdEncoding.EncodeToString(raw[:])
}

// attribute takes "<name>=<value>" off the front of a message, up to the comma.
func attribute(message *string, name byte) (string, error) {
	m := *message
	if len(m) < 2 || m[0] != name || m[1] != '=' {
		if len(m) >= 2 && m[0] == 'm' && m[1] == '=' {
			return "", errors.New("mandatory extension is not supported")
		}
		return "", errors.New("attribute " + string(name) + " is missing")
	}
	value, rest, _ := strings.Cut(m[2:], ",")
	*message = rest
	return value, nil
}

func checkNonce(nonce string) error {
	if nonce == "" {
		return errors.New("nonce is empty")
	}
	for i := 0; i < len(nonce); i++ {
		if nonce[i] < '!' || nonce[i] > '~' {
			return errors.New("nonce has characters which are not printable")
		}
	}
	return nil
}

func decode(value, what string) ([]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(value)
	if err != nil || strings.ContainsAny(value, "\r\n") { // the decoder would skip line ends
		return nil, errors.New(what + " is not base64")
	}
	return raw, nil
}

// clientFirst is what opens the exchange.
type clientFirst struct {
	flag   byte   // n: no channel binding, y: it could but thinks we cannot, p: it does
	header string // the channel binding header, which the final message repeats
	bare   string // the rest, which goes into the signatures
	nonce  string
}

func parseClientFirst(message string) (f clientFirst, err error) {
	if len(message) > maxSASL {
		return f, errors.New("message is too long")
	}
	flag, rest, ok := strings.Cut(message, ",")
	switch {
	case ok && (flag == "n" || flag == "y"):
	case ok && flag == "p="+bindingType:
	case ok && strings.HasPrefix(flag, "p="):
		return f, errors.New("unsupported channel binding type")
	default:
		return f, errors.New("channel binding flag is missing")
	}
	if !strings.HasPrefix(rest, ",") {
		return f, errors.New("authorization identity is not supported")
	}
	f.flag = flag[0]
	f.header, f.bare = message[:len(flag)+2], message[len(flag)+2:]
	rest = f.bare
	// The user is the one of the startup packet, whatever stands here.
	if _, err = attribute(&rest, 'n'); err != nil {
		return f, err
	}
	if f.nonce, err = attribute(&rest, 'r'); err != nil {
		return f, err
	}
	return f, checkNonce(f.nonce)
}

// clientFinal carries the proof.
type clientFinal struct {
	binding string // what was decoded from the attribute: the header again
	nonce   string
	proof   Key
	without string // the message without its proof, which goes into the signatures
}

func parseClientFinal(message string) (f clientFinal, err error) {
	if len(message) > maxSASL {
		return f, errors.New("message is too long")
	}
	rest := message
	value, err := attribute(&rest, 'c')
	if err != nil {
		return f, err
	}
	binding, err := decode(value, "channel binding")
	if err != nil {
		return f, err
	}
	f.binding = string(binding)
	if f.nonce, err = attribute(&rest, 'r'); err != nil {
		return f, err
	}
	// Extensions may follow; the proof is always last.
	at := strings.LastIndex(message, ",p=")
	if at < 0 {
		return f, errors.New("attribute p is missing")
	}
	f.without = message[:at]
	proof, err := decode(message[at+len(",p="):], "proof")
	if err != nil {
		return f, err
	}
	if len(proof) != len(f.proof) {
		return f, errors.New("proof has the wrong length")
	}
	f.proof = Key(proof)
	return f, nil
}

// serverFirst names the salt and the cost.
type serverFirst struct {
	nonce      string
	salt       []byte
	iterations int
}

func (f serverFirst) text() string {
	return "r=" + f.nonce + ",s=" + base64.StdEncoding.EncodeToString(f.salt) + ",i=" + strconv.Itoa(f.iterations)
}

func parseServerFirst(message string) (f serverFirst, err error) {
	if len(message) > 4*maxSASL { // salts of any length PostgreSQL can store
		return f, errors.New("message is too long")
	}
	rest := message
	if f.nonce, err = attribute(&rest, 'r'); err != nil {
		return f, err
	}
	if err = checkNonce(f.nonce); err != nil {
		return f, err
	}
	value, err := attribute(&rest, 's')
	if err != nil {
		return f, err
	}
	if f.salt, err = decode(value, "salt"); err != nil {
		return f, err
	}
	if len(f.salt) == 0 {
		return f, errors.New("salt is empty")
	}
	if value, err = attribute(&rest, 'i'); err != nil {
		return f, err
	}
	f.iterations, err = iterations(value)
	return f, err
}

// parseServerFinal reads the signature by which the server proves itself.
func parseServerFinal(message string) (signature Key, err error) {
	if len(message) > maxSASL {
		return signature, errors.New("message is too long")
	}
	rest := message
	if reason, err := attribute(&rest, 'e'); err == nil {
		return signature, errors.New("server reports " + printable([]byte(reason)))
	}
	value, err := attribute(&rest, 'v')
	if err != nil {
		return signature, err
	}
	raw, err := decode(value, "server signature")
	if err != nil {
		return signature, err
	}
	if len(raw) != len(signature) {
		return signature, errors.New("server signature has the wrong length")
	}
	return Key(raw), nil
}

// xor is how a proof hides the client key under the client signature, and how
// it is won back.
func xor(a, b Key) (out Key) {
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}
