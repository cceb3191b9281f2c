package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// Ask is what a client is asked for.
type Ask uint8

const (
	AskNothing Ask = iota
	AskPassword
	AskMD5
	AskSCRAM
)

func (a Ask) String() string {
	return [...]string{"nothing", "password", "md5", "scram-sha-256"}[a]
}

// Plan is a decision: how a client is asked and what its answer is good for.
type Plan struct {
	Ask Ask
	// Known is what is known of the user's password. A client asked for nothing
	// is given it towards the servers; another's answer must agree with it.
	// With AskPassword and nothing known any answer is taken and left for the
	// servers to judge.
	Known Credential
	// Mock asks in earnest and takes no answer, so that a user of whom nothing
	// is known meets the same questions as any other.
	Mock bool
	// Pass has the server's own questions passed on to the client, see Pass.
	Pass bool
	// Refuse is set where the client is turned away without a question.
	Refuse *Error
}

// maxPassword bounds an answer in clear text or md5, as PostgreSQL does.
const maxPassword = 65535

// frontIterations is the cost shown to clients, PostgreSQL's own default.
const frontIterations = 4096

// Challenge carries out a plan and returns what proves the user to the servers.
// A client that fails gives an *Error; an error of the client's socket passes
// as it is. AuthenticationOk is not sent: see SendOK.
func Challenge(f Frontend, user string, p Plan) (Credential, error) {
	if p.Refuse != nil {
		return Credential{}, p.Refuse
	}
	switch p.Ask {
	case AskPassword:
		return challengePassword(f, user, p)
	case AskMD5:
		return challengeMD5(f, user, p)
	case AskSCRAM:
		return challengeSCRAM(f, user, p)
	}
	return p.Known, nil
}

// receiveText asks and reads an answer that is one string.
func receiveText(f Frontend, ask Ask, message string, request []byte) (string, error) {
	if err := f.SendAuth(request); err != nil {
		return "", err
	}
	body, err := f.ReceivePassword()
	if err != nil {
		return "", err
	}
	switch end := bytes.IndexByte(body, 0); {
	case len(body) > maxPassword, end < 0, end != len(body)-1:
		return "", malformed(message, errors.New("invalid password packet size"))
	case end == 0:
		return "", fatal(stateWrongPassword, message, "empty password returned by client")
	}
	return string(body[:len(body)-1]), nil
}

func challengePassword(f Frontend, user string, p Plan) (Credential, error) {
	password, err := receiveText(f, p.Ask, wordsClear, request(codeCleartext, nil))
	if err != nil {
		return Credential{}, err
	}
	agrees := false
	switch p.Known.Form() {
	case FormNone:
		agrees = true
	case FormPlain:
		agrees = same(password, p.Known.text())
	case FormMD5:
		agrees = same(StoredMD5(password, user), p.Known.text())
	case FormVerifier:
		agrees = p.Known.held().verifier.Check(password)
	}
	if !agrees || p.Mock {
		return Credential{}, wrong(p.Ask, user)
	}
	return Plain(password), nil
}

func challengeMD5(f Frontend, user string, p Plan) (Credential, error) {
	stored := p.Known.text()
	switch {
	case p.Known.Form() == FormPlain:
		stored = StoredMD5(stored, user)
	case p.Mock || !isStoredMD5(stored):
		stored = StoredMD5(rand.Text(), user) // nobody's
	}
	var salt [4]byte
	rand.Read(salt[:])
	answer, err := receiveText(f, p.Ask, wordsMD5, request(codeMD5, salt[:]))
	if err != nil {
		return Credential{}, err
	}
	if !same(answer, saltedMD5(stored, salt)) || p.Mock {
		return Credential{}, wrong(p.Ask, user)
	}
	return p.Known, nil
}

// challengeSCRAM lets the client prove its password and proves that we know it.
func challengeSCRAM(f Frontend, user string, p Plan) (Credential, error) {
	v, err := verifierFor(user, p)
	if err != nil {
		return Credential{}, err
	}
	bad := func(err error) (Credential, error) {
		return Credential{}, malformed(wordsSCRAM, err)
	}
	offer, channel := mechanism+"\x00\x00", f.ChannelBinding()
	if channel != nil {
		offer = mechanismPlus + "\x00" + offer
	}
	if err := f.SendAuth(request(codeSASL, []byte(offer))); err != nil {
		return Credential{}, err
	}
	body, err := f.ReceivePassword()
	if err != nil {
		return Credential{}, err
	}
	chosen, message, err := parseInitialResponse(body)
	if err != nil {
		return bad(err)
	}
	first, err := parseClientFirst(message)
	switch {
	case err != nil:
		return bad(err)
	case chosen == mechanismPlus && channel == nil:
		return bad(errors.New("client selected an invalid SASL authentication mechanism"))
	case (chosen == mechanismPlus) != (first.flag == 'p'):
		return bad(errors.New("channel binding flag does not agree with the mechanism"))
	case first.flag == 'y' && channel != nil: // somebody between us has changed our offer
		return bad(errors.New("client supports channel binding but thinks that we do not"))
	}
	bound := first.header
	if first.flag == 'p' {
		bound += string(channel)
	}
	nonce := first.nonce + newNonce()
	question := serverFirst{nonce: nonce, salt: v.Salt, iterations: v.Iterations}.text()
	if err := f.SendAuth(request(codeSASLContinue, []byte(question))); err != nil {
		return Credential{}, err
	}
	if body, err = f.ReceivePassword(); err != nil {
		return Credential{}, err
	}
	final, err := parseClientFinal(string(body[:min(len(body), maxSASL+1)]))
	switch {
	case err != nil:
		return bad(err)
	case final.binding != bound:
		return bad(errors.New("channel binding does not repeat what was said first"))
	case !same(final.nonce, nonce):
		return bad(errors.New("nonce does not match"))
	}
	signed := first.bare + "," + question + "," + final.without
	client := xor(final.proof, sign(v.StoredKey[:], signed))
	stored := sha256.Sum256(client[:])
	if !hmac.Equal(stored[:], v.StoredKey[:]) || p.Mock {
		return Credential{}, wrong(p.Ask, user)
	}
	signature := sign(v.ServerKey[:], signed)
	if err := f.SendAuth(request(codeSASLFinal, []byte("v="+base64.StdEncoding.EncodeToString(signature[:])))); err != nil {
		return Credential{}, err
	}
	if p.Known.Form() == FormVerifier {
		return passed(v, client), nil
	}
	return p.Known, nil
}

// verifierFor gives what a client's proof is checked against. The salt of a user
// is the same in every login while the process lives, so that the keys are
// derived once, and one that is not known has a salt and costs a derivation,
// too: nothing tells it from another.
func verifierFor(user string, p Plan) (Verifier, error) {
	if p.Known.Form() == FormVerifier && !p.Mock {
		return p.Known.held().verifier, nil
	}
	salt := sign(processSecret[:], "salt "+user)
	password := p.Known.text()
	if p.Mock || p.Known.Form() != FormPlain {
		nobodys := sign(processSecret[:], "mock "+user)
		password = string(nobodys[:])
	}
	return NewVerifier(password, salt[:16], frontIterations)
}

// parseInitialResponse reads a SASLInitialResponse: the mechanism chosen and
// the first message in it.
func parseInitialResponse(body []byte) (chosen, message string, err error) {
	name, rest, ok := bytes.Cut(body, []byte{0})
	switch {
	case !ok || len(rest) < 4:
		return "", "", errors.New("invalid SASL initial response")
	case string(name) != mechanism && string(name) != mechanismPlus:
		return "", "", errors.New("client selected an invalid SASL authentication mechanism")
	case int64(binary.BigEndian.Uint32(rest)) != int64(len(rest)-4):
		return "", "", errors.New("invalid SASL initial response")
	case len(rest)-4 > maxSASL:
		return "", "", errors.New("message is too long")
	}
	return string(name), string(rest[4:]), nil
}

// same compares without telling by its time where or in what length they differ.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return hmac.Equal(x[:], y[:])
}
