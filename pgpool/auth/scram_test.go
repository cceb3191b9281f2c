package auth

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// The exchange of RFC 7677.
func TestExampleOfTheRFC(t *testing.T) {
	const (
		bare   = "n=user,r=rOprNGfwEbeRWgbNEkqO"
		server = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
		final  = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
		proof  = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
		sign1  = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	)
	s, err := parseServerFirst(server)
	if err != nil {
		t.Fatal(err)
	}
	if s.text() != server {
		t.Errorf("text() = %q", s.text())
	}
	keys, err := deriveKeys("pencil", s.salt, s.iterations)
	if err != nil {
		t.Fatal(err)
	}
	signed := bare + "," + server + "," + final
	p := xor(keys.client, sign(keys.stored[:], signed))
	if got := base64.StdEncoding.EncodeToString(p[:]); got != proof {
		t.Errorf("proof %s", got)
	}
	v := sign(keys.server[:], signed)
	if got := base64.StdEncoding.EncodeToString(v[:]); got != sign1 {
		t.Errorf("signature %s", got)
	}
	first, err := parseClientFirst("n,," + bare)
	if err != nil || first.bare != bare || first.header != "n,," || first.nonce != "rOprNGfwEbeRWgbNEkqO" {
		t.Errorf("client first %+v, %v", first, err)
	}
	last, err := parseClientFinal(final + ",p=" + proof)
	if err != nil || last.without != final || last.proof != p || last.binding != "n,," || last.nonce != s.nonce {
		t.Errorf("client final %+v, %v", last, err)
	}
	if got, err := parseServerFinal("v=" + sign1); err != nil || got != v {
		t.Errorf("server final %v", err)
	}
}

func TestMessagesRefused(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tc := range []struct{ kind, message, want string }{
		{"client first", "p=tls-unique,,n=,r=abc", "unsupported channel binding type"},
		{"client first", "n,a=admin,n=,r=abc", "authorization identity is not supported"},
		{"client first", "x,,n=,r=abc", "channel binding flag is missing"},
		{"client first", "n,,m=x,n=,r=abc", "mandatory extension is not supported"},
		{"client first", "n,,n=,r=", "nonce is empty"},
		{"client first", "n,,n=,r=a\x01c", "nonce has characters which are not printable"},
		{"client first", "n,,n=", "attribute r is missing"},
		{"client first", "", "channel binding flag is missing"},
		{"client first", "n,,n=,r=" + strings.Repeat("a", maxSASL), "message is too long"},
		{"client final", "c=biws,r=abc", "attribute p is missing"},
		{"client final", "c=biws,r=abc,p=QUJD", "proof has the wrong length"},
		{"client final", "c=b!ws,r=abc,p=" + b64, "channel binding is not base64"},
		{"client final", "c=biws,r=abc,p=" + b64 + "\n", "proof is not base64"},
		{"client final", "r=abc,p=" + b64, "attribute c is missing"},
		{"server first", "r=abc,s=QUJD,i=0", "iteration count is not a positive number"},
		{"server first", "r=abc,s=QUJD,i=-1", "iteration count is not a positive number"},
		{"server first", "r=abc,s=QUJD,i=1000000000", "iteration count 1000000000 is more than the 10000000 pgpool would compute"},
		{"server first", "r=abc,s=QUJD", "attribute i is missing"},
		{"server first", "r=abc,s=,i=1", "salt is empty"},
		{"server first", "m=a,r=abc,s=QUJD,i=1", "mandatory extension is not supported"},
		{"server final", "e=invalid-proof", "server reports invalid-proof"},
		{"server final", "v=QUJD", "server signature has the wrong length"},
		{"server final", "x", "attribute v is missing"},
	} {
		var err error
		switch tc.kind {
		case "client first":
			_, err = parseClientFirst(tc.message)
		case "client final":
			_, err = parseClientFinal(tc.message)
		case "server first":
			_, err = parseServerFirst(tc.message)
		case "server final":
			_, err = parseServerFinal(tc.message)
		}
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s %.60q: %v, expected %q", tc.kind, tc.message, err, tc.want)
		}
	}
}

// tamper changes what a server sends on its way to us.
type tamper struct {
	Backend
	change func(code uint32, data string) []byte // nil: as it is
}

func (b tamper) ReceiveAuth() ([]byte, error) {
	body, err := b.Backend.ReceiveAuth()
	if err != nil {
		return nil, err
	}
	code, data, _ := open(body)
	if changed := b.change(code, string(data)); changed != nil {
		return changed, nil
	}
	return body, nil
}

func TestServerThatCheats(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(code uint32, data string) []byte
		want   string
	}{
		{"lets in without a signature", func(code uint32, _ string) []byte {
			if code == codeSASLFinal {
				return request(codeOK, nil)
			}
			return nil
		}, "request 0 where 12 was expected"},
		{"signs with another key", func(code uint32, data string) []byte {
			if code == codeSASLFinal {
				return request(code, []byte("v="+base64.StdEncoding.EncodeToString(make([]byte, 32))))
			}
			return nil
		}, "the server could not prove that it knows the password"},
		{"answers with a nonce of its own", func(code uint32, data string) []byte {
			if code == codeSASLContinue {
				return request(code, []byte("r=zzzz"+data[6:]))
			}
			return nil
		}, "nonce does not continue ours"},
		{"adds nothing to the nonce", func(code uint32, data string) []byte {
			if code == codeSASLContinue {
				return request(code, []byte(data[:2+24]+data[strings.Index(data, ",s="):]))
			}
			return nil
		}, "nonce does not continue ours"},
		{"wants a year of work", func(code uint32, data string) []byte {
			if code == codeSASLContinue {
				return request(code, []byte(strings.Replace(data, "i=4096", "i=2147483647", 1)))
			}
			return nil
		}, "iteration count 2147483647 is more than"},
		{"offers only channel binding", func(code uint32, data string) []byte {
			if code == codeSASL {
				return request(code, []byte(mechanismPlus+"\x00\x00"))
			}
			return nil
		}, "the server asks for authentication method SASL SCRAM-SHA-256-PLUS, which pgpool cannot answer"},
		{"list without an end", func(code uint32, data string) []byte {
			if code == codeSASL {
				return request(code, []byte(mechanism))
			}
			return nil
		}, "list of SASL mechanisms has no end"},
		{"kerberos", func(code uint32, data string) []byte { return request(codeGSS, nil) }, "method gss, which"},
		{"sspi", func(code uint32, data string) []byte { return request(codeSSPI, nil) }, "method sspi, which"},
		{"what nobody knows", func(code uint32, data string) []byte { return request(77, nil) }, "method number 77, which"},
		{"md5 without a salt", func(code uint32, data string) []byte { return request(codeMD5, []byte("abc")) }, "has no salt"},
		{"too short", func(code uint32, data string) []byte { return []byte{0} }, "too short"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPipe()
			done := p.serve(user, Plan{Ask: AskSCRAM, Known: Plain("secret")}, postgres(user))
			err := Login(tamper{p, tc.change}, user, Plain("secret"))
			close(p.gone)
			<-done
			e, ok := errors.AsType[*Error](err)
			if !ok || !strings.Contains(e.Detail, tc.want) || e.Severity != "FATAL" || e.Message != wordsBackend {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("both kinds of SCRAM", func(t *testing.T) {
		m, err := parseMethod(request(codeSASL, []byte(mechanismPlus+"\x00"+mechanism+"\x00\x00")))
		if err != nil || m.Kind != KindSCRAM {
			t.Errorf("%v, %v", m, err)
		}
	})
}

func initialResponse(name, message string) []byte {
	b := append([]byte(name), 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(message))), message...)
}

func TestClientThatCheats(t *testing.T) {
	good := initialResponse(mechanism, "n,,n=,r=abc")
	proof := ",p=" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tc := range []struct {
		name   string
		ask    Ask
		bodies [][]byte
		want   string
		state  string
	}{
		{"other mechanism", AskSCRAM, [][]byte{initialResponse("SCRAM-SHA-1", "n,,n=,r=abc")}, "invalid SASL authentication mechanism", "08P01"},
		{"no mechanism", AskSCRAM, [][]byte{[]byte("SCRAM")}, "invalid SASL initial response", "08P01"},
		{"no message", AskSCRAM, [][]byte{append([]byte(mechanism), 0, 0xff, 0xff, 0xff, 0xff)}, "invalid SASL initial response", "08P01"},
		{"wants channel binding", AskSCRAM, [][]byte{initialResponse(mechanism, "p=tls-unique,,n=,r=abc")}, "unsupported channel binding type", "08P01"},
		{"binds where there is no channel", AskSCRAM, [][]byte{initialResponse(mechanismPlus, "p=tls-server-end-point,,n=,r=abc")}, "invalid SASL authentication mechanism", "08P01"},
		{"binds without saying so", AskSCRAM, [][]byte{initialResponse(mechanism, "p=tls-server-end-point,,n=,r=abc")}, "does not agree with the mechanism", "08P01"},
		{"other nonce", AskSCRAM, [][]byte{good, []byte("c=biws,r=abc" + proof)}, "nonce does not match", "08P01"},
		{"other channel binding", AskSCRAM, [][]byte{good, []byte("c=eSws,r=abc" + proof)}, "channel binding does not repeat", "08P01"},
		{"endless", AskSCRAM, [][]byte{initialResponse(mechanism, strings.Repeat("n", 5000))}, "message is too long", "08P01"},
		{"endless at last", AskSCRAM, [][]byte{good, make([]byte, 60000)}, "message is too long", "08P01"},
		{"empty password", AskPassword, [][]byte{{0}}, "empty password returned by client", "28P01"},
		{"nothing", AskPassword, [][]byte{{}}, "invalid password packet size", "08P01"},
		{"two strings", AskPassword, [][]byte{[]byte("a\x00b\x00")}, "invalid password packet size", "08P01"},
		{"no end", AskMD5, [][]byte{[]byte("md5")}, "invalid password packet size", "08P01"},
		{"very long", AskPassword, [][]byte{append(make([]byte, 70000), 0)}, "invalid password packet size", "08P01"},
		{"the hash itself", AskMD5, [][]byte{[]byte(StoredMD5("secret", user) + "\x00")}, "password does not match", "28P01"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Challenge(&script{bodies: tc.bodies}, user, Plan{Ask: tc.ask, Known: Plain("secret")})
			e, ok := errors.AsType[*Error](err)
			if !ok || !strings.Contains(e.Detail, tc.want) || e.SQLState != tc.state || e.Severity != "FATAL" {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A user of whom nothing is known meets the questions a known one meets, and
// the same again the next time.
func TestMockLooksReal(t *testing.T) {
	ask := func(p Plan) []string {
		s := &script{bodies: [][]byte{initialResponse(mechanism, "n,,n=,r=abc"), []byte("c=biws,r=abc,p=QUJD")}}
		if _, err := Challenge(s, user, p); err == nil {
			t.Fatal("let in")
		}
		var salts []string
		for _, body := range s.sent {
			data := string(body[4:])
			if i := strings.Index(data, ",s="); i >= 0 {
				data = data[i:]
			}
			salts = append(salts, data)
		}
		return salts
	}
	known, mock, again := ask(Plan{Ask: AskSCRAM, Known: Plain("x")}), ask(Plan{Ask: AskSCRAM, Mock: true}), ask(Plan{Ask: AskSCRAM, Mock: true})
	if strings.Join(known, "|") != strings.Join(mock, "|") || strings.Join(mock, "|") != strings.Join(again, "|") {
		t.Errorf("asked %q, %q and %q", known, mock, again)
	}
	for _, ask := range []Ask{AskPassword, AskMD5, AskSCRAM} { // even one who knows what is stored
		if _, err := login(t, user, Plan{Ask: ask, Mock: true, Known: Plain("x")}, Plain("x")); err == nil {
			t.Errorf("%v: a mock let somebody in", ask)
		}
	}
	c := Client{User: user, Conceal: true}
	for name, p := range map[string]Plan{"relay": Relay(SCRAM, c), "md5": Admit(HBAMD5, c), "scram": Admit(HBASCRAM, c)} {
		if !p.Mock || p.Refuse != nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add("n,,n=,r=abc")
	f.Add("c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("r=abc,s=QUJD,i=4096")
	f.Add("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
	f.Add("e=other-error")
	f.Fuzz(func(t *testing.T, message string) {
		if c, err := parseClientFirst(message); err == nil && c.header+c.bare != message {
			t.Errorf("%q is not its header and the rest", message)
		}
		if c, err := parseClientFinal(message); err == nil && !strings.HasPrefix(message, c.without+",p=") {
			t.Errorf("%q is not what was signed and a proof", message)
		}
		if s, err := parseServerFirst(message); err == nil {
			if again, err := parseServerFirst(s.text()); err != nil || again.text() != s.text() {
				t.Errorf("%q does not come back: %v", message, err)
			}
		}
		parseServerFinal(message)
		if v, err := ParseVerifier(message); err == nil && v.Text() != message {
			if again, err := ParseVerifier(v.Text()); err != nil || again.Text() != v.Text() {
				t.Errorf("%q does not come back", message)
			}
		}
	})
}

// FuzzClient lets a client say anything; nobody is let in by it.
func FuzzClient(f *testing.F) {
	f.Add(uint8(AskSCRAM), initialResponse(mechanism, "n,,n=,r=abc"), []byte("c=biws,r=abc,p=QUJD"))
	f.Add(uint8(AskPassword), []byte("secret\x00"), []byte{})
	f.Add(uint8(AskMD5), []byte("md5d41d8cd98f00b204e9800998ecf8427e\x00"), []byte{})
	f.Fuzz(func(t *testing.T, ask uint8, first, second []byte) {
		p := Plan{Ask: Ask(ask%3) + AskPassword, Known: Plain("not to be found by chance")}
		if c, err := Challenge(&script{bodies: [][]byte{first, second}}, user, p); err == nil || c.Form() != FormNone {
			t.Errorf("let in by %q, %q", first, second)
		}
	})
}

// FuzzServer lets a server say anything; without AuthenticationOk no login succeeds.
func FuzzServer(f *testing.F) {
	f.Add(request(codeMD5, []byte("salt")), request(codeOK, nil), []byte{}, "secret")
	f.Add(request(codeSASL, []byte(mechanism+"\x00\x00")), request(codeSASLContinue, []byte("r=a,s=QUJD,i=1")), request(codeSASLFinal, []byte("v=")), "x")
	f.Fuzz(func(t *testing.T, a, b, c []byte, password string) {
		s := &script{bodies: [][]byte{a, b, c}}
		err := Login(s, user, Plain(password))
		if err == nil && a[3] == codeSASL {
			t.Errorf("logged in to a server that cannot know the nonce")
		}
	})
}

func FuzzPrepare(f *testing.F) {
	for _, p := range passwords {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, password string) {
		if once := prepare(password); password != "" && once == "" {
			t.Errorf("%q became empty", password)
		}
	})
}

// BenchmarkSCRAM is both halves of a login whose keys are known from before.
func BenchmarkSCRAM(b *testing.B) {
	plan := Plan{Ask: AskSCRAM, Known: Plain("secret")}
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := login(b, user, plan, Plain("secret")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("derive", func(b *testing.B) {
		for b.Loop() {
			if _, err := deriveKeys("secret", []byte("0123456789abcdef"), 4096); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// far is one end of a login that sees another channel than the other end, as where
// somebody sits between them.
type far struct {
	*pipe
	channel []byte
}

func (f far) ChannelBinding() []byte { return f.channel }

// A login over TLS is bound to its channel, and fails where the ends see different
// ones, or where one was made to believe that the other cannot do it.
func TestChannelBinding(t *testing.T) {
	good := Plain("secret")
	v, err := NewVerifier("secret", []byte("0123456789abcdef"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	hide := func(code uint32, data string) []byte {
		if code == codeSASL {
			return request(code, []byte(mechanism+"\x00\x00"))
		}
		return nil
	}
	for _, tc := range []struct {
		name           string
		client, server string
		hide           bool
		ok             bool
	}{
		{"same channel", "channel", "channel", false, true},
		{"neither has one", "", "", false, true},
		{"server has none", "channel", "", false, true},
		{"client cannot", "", "channel", false, true},
		{"another channel", "channel", "other", false, false},
		{"offer hidden", "channel", "channel", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPipe()
			if tc.server != "" {
				p.channel = []byte(tc.server)
			}
			done := p.serve(user, Plan{Ask: AskSCRAM, Known: Verified(v)}, postgres(user))
			var seen []byte
			if tc.client != "" {
				seen = []byte(tc.client)
			}
			var b Backend = far{p, seen}
			if tc.hide {
				b = tamper{b, hide}
			}
			err := Login(b, user, good)
			close(p.gone)
			at := <-done
			if (err == nil) != tc.ok || (at.err == nil) != tc.ok {
				t.Errorf("at the client %v, at the server %v", err, at.err)
			}
			if tc.ok && at.cred.Form() != FormKeys {
				t.Errorf("the server is left with %v", at.cred)
			}
		})
	}
}
