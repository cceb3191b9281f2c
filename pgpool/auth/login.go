package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// ReadMethod reads what a server asks for, right after the startup packet. With
// KindTrust the server has already let us in. A server that refuses the user
// gives an *Error, as does one that asks for what pgpool cannot answer.
func ReadMethod(b Backend) (Method, error) {
	body, err := b.ReceiveAuth()
	if err != nil {
		return Method{}, refused(Method{}, "", err)
	}
	m, err := parseMethod(body)
	switch {
	case err != nil:
		return Method{}, babble(err)
	case m.Kind == KindUnsupported:
		return m, unsupported(m)
	}
	return m, nil
}

// Answer gives a server what it asked for and returns once it has let us in.
// A credential that cannot answer is an *Error before anything is sent; so is
// the server's refusal. Errors of the socket come wrapped, other complaints of
// the server as they are.
func Answer(b Backend, m Method, user string, c Credential) error {
	switch {
	case m.Kind == KindTrust:
		return nil
	case m.Kind == KindUnsupported:
		return unsupported(m)
	case !fits(m, c):
		return misfit(m, c, user)
	}
	var err error
	switch m.Kind {
	case KindPassword:
		err = b.SendPassword(append([]byte(c.text()), 0))
	case KindMD5:
		stored := c.text()
		if c.Form() == FormPlain {
			stored = StoredMD5(stored, user)
		}
		err = b.SendPassword(append([]byte(saltedMD5(stored, m.Salt)), 0))
	case KindSCRAM:
		if err := answerSCRAM(b, m, user, c); err != nil {
			return err
		}
	}
	if err != nil {
		return refused(m, user, err)
	}
	_, err = receive(b, m, user, codeOK)
	return err
}

// Login is ReadMethod and Answer for a user whose credential does not depend on
// the method.
func Login(b Backend, user string, c Credential) error {
	m, err := ReadMethod(b)
	if err != nil {
		return err
	}
	return Answer(b, m, user, c)
}

// fits tells whether c can answer m. Keys are checked against the server's salt
// when it is known.
func fits(m Method, c Credential) bool {
	switch m.Kind {
	case KindTrust:
		return true
	case KindPassword:
		return c.Form() == FormPlain
	case KindMD5:
		return c.Form() == FormPlain || c.Form() == FormMD5 && isStoredMD5(c.text())
	case KindSCRAM:
		return c.Form() == FormPlain || c.Form() == FormKeys
	}
	return false
}

// receive reads the next authentication request, which must have this code.
func receive(b Backend, m Method, user string, want uint32) ([]byte, error) {
	data, err := hear(b, want)
	if err != nil {
		return nil, refused(m, user, err)
	}
	return data, nil
}

// hear is receive in the server's own words.
func hear(b Backend, want uint32) ([]byte, error) {
	body, err := b.ReceiveAuth()
	if err != nil {
		return nil, err
	}
	code, data, err := open(body)
	switch {
	case err != nil:
		return nil, babble(err)
	case code != want:
		return nil, babble(fmt.Errorf("request %d where %d was expected", code, want))
	}
	return data, nil
}

// answerSCRAM proves the password to the server and lets it prove that it knows
// it, too. On return only AuthenticationOk is left to come.
func answerSCRAM(b Backend, m Method, user string, c Credential) error {
	header, channel, chosen := "n,,", b.ChannelBinding(), mechanism
	switch {
	case channel == nil:
	case m.Plus:
		header, chosen = "p="+bindingType+",,", mechanismPlus
	default:
		header, channel = "y,,", nil // we could, and the server shall know in case it can
	}
	nonce := newNonce()
	bare := "n=,r=" + nonce // the user is known from the startup packet
	first := append([]byte(chosen), 0)
	first = binary.BigEndian.AppendUint32(first, uint32(len(header)+len(bare)))
	if err := b.SendPassword(append(first, header+bare...)); err != nil {
		return refused(m, user, err)
	}
	data, err := receive(b, m, user, codeSASLContinue)
	if err != nil {
		return err
	}
	challenge := string(data)
	s, err := parseServerFirst(challenge)
	if err != nil {
		return babble(err)
	}
	if len(s.nonce) <= len(nonce) || s.nonce[:len(nonce)] != nonce {
		return babble(errors.New("nonce does not continue ours"))
	}
	keys, ok, err := keysFor(c, s)
	if err != nil {
		return fmt.Errorf("derive scram keys: %w", err)
	}
	if !ok {
		return misfit(m, c, user)
	}
	final := "c=" + base64.StdEncoding.EncodeToString(append([]byte(header), channel...)) + ",r=" + s.nonce
	signed := bare + "," + challenge + "," + final
	proof := xor(keys.client, sign(keys.stored[:], signed))
	if err := b.SendPassword([]byte(final + ",p=" + base64.StdEncoding.EncodeToString(proof[:]))); err != nil {
		return refused(m, user, err)
	}
	if data, err = receive(b, m, user, codeSASLFinal); err != nil {
		return err
	}
	signature, err := parseServerFinal(string(data))
	if err != nil {
		return babble(err)
	}
	if want := sign(keys.server[:], signed); !hmac.Equal(signature[:], want[:]) {
		return fatal(stateNotAuthorized, wordsBackend, "the server could not prove that it knows the password").
			hint("Something that is not the server may be answering in its place.")
	}
	return nil
}

// keysFor gives the keys of c under the server's salt; ok is false where keys
// won from a client belong to another verifier.
func keysFor(c Credential, s serverFirst) (k scramKeys, ok bool, err error) {
	if c.Form() == FormPlain {
		k, err = salted.keys(c.text(), s.salt, s.iterations)
		return k, err == nil, err
	}
	v := c.held().verifier
	if v.Iterations != s.iterations || string(v.Salt) != string(s.salt) {
		return k, false, nil
	}
	return scramKeys{client: c.held().client, stored: sha256.Sum256(c.held().client[:]), server: v.ServerKey}, true, nil
}
