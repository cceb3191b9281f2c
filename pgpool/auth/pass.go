package auth

import "errors"

// Pass lets a client answer a server's md5 or SCRAM questions itself, so that nothing
// need be known here of its password. It returns once the server has let the client
// in; AuthenticationOk is not sent, see SendOK. What the server says of a client it
// refuses comes as it is. Nothing that would let us log in again is won.
func Pass(f Frontend, b Backend, m Method) error {
	if m.Kind == KindSCRAM {
		return passSCRAM(f, b, m)
	}
	body, err := receivePassed(f, m, request(codeMD5, m.Salt[:]))
	if err != nil {
		return err
	}
	if err := b.SendPassword(body); err != nil {
		return err
	}
	_, err = hear(b, codeOK)
	return err
}

func passSCRAM(f Frontend, b Backend, m Method) error {
	// Only without channel binding: the server's channel is not the client's.
	body, err := receivePassed(f, m, request(codeSASL, []byte(mechanism+"\x00\x00")))
	if err != nil {
		return err
	}
	chosen, message, err := parseInitialResponse(body)
	if err != nil {
		return malformed(wordsSCRAM, err)
	}
	switch first, err := parseClientFirst(message); {
	case err != nil:
		return malformed(wordsSCRAM, err)
	case chosen != mechanism, first.flag == 'p':
		return malformed(wordsSCRAM, errors.New("client selected an invalid SASL authentication mechanism"))
	case first.flag == 'y' && m.Plus:
		return twoChannels()
	}
	if err := b.SendPassword(body); err != nil {
		return err
	}
	question, err := hear(b, codeSASLContinue)
	if err != nil {
		return err
	}
	if body, err = receivePassed(f, m, request(codeSASLContinue, question)); err != nil {
		return err
	}
	if err := b.SendPassword(body); err != nil {
		return err
	}
	signature, err := hear(b, codeSASLFinal)
	if err != nil {
		return err
	}
	if err := f.SendAuth(request(codeSASLFinal, signature)); err != nil {
		return err
	}
	_, err = hear(b, codeOK)
	return err
}

// receivePassed asks the client and reads its answer, which goes to the server as it is.
func receivePassed(f Frontend, m Method, question []byte) ([]byte, error) {
	if err := f.SendAuth(question); err != nil {
		return nil, err
	}
	body, err := f.ReceivePassword()
	if err == nil && len(body) > maxPassword {
		words := wordsMD5
		if m.Kind == KindSCRAM {
			words = wordsSCRAM
		}
		err = malformed(words, errors.New("invalid password packet size"))
	}
	return body, err
}
