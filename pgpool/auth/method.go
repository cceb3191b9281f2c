package auth

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kind is a way to prove an identity, as PostgreSQL's protocol knows it.
type Kind uint8

const (
	KindTrust       Kind = iota // nothing is asked
	KindPassword                // the clear text
	KindMD5                     // md5 of the stored hash and a salt
	KindSCRAM                   // SASL with SCRAM-SHA-256
	KindUnsupported             // something pgpool cannot answer
)

// Method is what a server asked for in its first authentication request.
// It is a value: it may be kept and asked about when the connection it came
// from is used again.
type Method struct {
	Kind Kind
	// Name is PostgreSQL's word for the method, as in pg_hba.conf.
	Name string
	// Salt belongs to KindMD5 and is good for one answer.
	Salt [4]byte
	// Plus belongs to KindSCRAM: the server can bind the login to the TLS channel.
	Plus bool
}

func (m Method) String() string { return m.Name }

// Trust, Password, MD5 and SCRAM are the methods pgpool can answer, without the
// particulars of one connection.
var (
	Trust    = Method{Kind: KindTrust, Name: "trust"}
	Password = Method{Kind: KindPassword, Name: "password"}
	MD5      = Method{Kind: KindMD5, Name: "md5"}
	SCRAM    = Method{Kind: KindSCRAM, Name: "scram-sha-256"}
)

// Codes of authentication requests.
const (
	codeOK           = 0
	codeKerberos5    = 2
	codeCleartext    = 3
	codeCrypt        = 4
	codeMD5          = 5
	codeSCM          = 6
	codeGSS          = 7
	codeGSSContinue  = 8
	codeSSPI         = 9
	codeSASL         = 10
	codeSASLContinue = 11
	codeSASLFinal    = 12
)

const (
	mechanism     = "SCRAM-SHA-256"
	mechanismPlus = "SCRAM-SHA-256-PLUS"
)

// request builds the body of an authentication request.
func request(code uint32, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), code), data...)
}

// open splits the body of an authentication request.
func open(body []byte) (code uint32, data []byte, err error) {
	if len(body) < 4 {
		return 0, nil, errors.New("authentication request is too short")
	}
	return binary.BigEndian.Uint32(body), body[4:], nil
}

// parseMethod reads a server's first authentication request.
func parseMethod(body []byte) (Method, error) {
	code, data, err := open(body)
	if err != nil {
		return Method{}, err
	}
	switch code {
	case codeOK:
		return Trust, nil
	case codeCleartext:
		return Password, nil
	case codeMD5:
		m := MD5
		if copy(m.Salt[:], data) != len(m.Salt) {
			return Method{}, errors.New("md5 authentication request has no salt")
		}
		return m, nil
	case codeSASL:
		names, err := mechanisms(data)
		if err != nil {
			return Method{}, err
		}
		if slices.Contains(names, mechanism) {
			m := SCRAM
			m.Plus = slices.Contains(names, mechanismPlus)
			return m, nil
		}
		return Method{Kind: KindUnsupported, Name: "SASL " + strings.Join(names, ", ")}, nil
	}
	name, known := foreign[code]
	if !known {
		name = fmt.Sprintf("number %d", code)
	}
	return Method{Kind: KindUnsupported, Name: name}, nil
}

var foreign = map[uint32]string{
	codeKerberos5:   "krb5",
	codeCrypt:       "crypt",
	codeSCM:         "scm",
	codeGSS:         "gss",
	codeGSSContinue: "gss",
	codeSSPI:        "sspi",
}

// mechanisms reads a list of SASL mechanisms: names, each ended by NUL, and one
// more NUL.
func mechanisms(data []byte) ([]string, error) {
	var names []string
	for {
		name, rest, found := bytes.Cut(data, []byte{0})
		switch {
		case !found:
			return nil, errors.New("list of SASL mechanisms has no end")
		case len(name) == 0:
			return names, nil
		}
		names, data = append(names, printable(name)), rest
	}
}

// printable keeps what another party named fit for a message and a log.
func printable(name []byte) string {
	if len(name) > 64 {
		name = name[:64]
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(name))
}
