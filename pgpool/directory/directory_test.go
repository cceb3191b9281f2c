package directory

import (
	"net"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// serve plays a directory with people in it, by their names and passwords, until
// the test ends.
func serve(t *testing.T, people map[string]string) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go answer(nc, people)
		}
	}()
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

func answer(nc net.Conn, people map[string]string) {
	defer nc.Close()
	for {
		p, err := ber.ReadPacket(nc)
		if err != nil || len(p.Children) < 2 {
			return
		}
		reply := func(tag ber.Tag, code int64) {
			m := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
			m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, p.Children[0].Value, ""))
			op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
			op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
			op.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
			op.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
			m.AppendChild(op)
			nc.Write(m.Bytes())
		}
		switch op := p.Children[1]; op.Tag {
		case ldap.ApplicationBindRequest:
			name, password := op.Children[1].Data.String(), op.Children[2].Data.String()
			code := int64(ldap.LDAPResultInvalidCredentials)
			if want, known := people[name]; known && want == password || name == "" && password == "" {
				code = ldap.LDAPResultSuccess
			}
			reply(ldap.ApplicationBindResponse, code)
		case ldap.ApplicationSearchRequest:
			wanted, _ := ldap.DecompileFilter(op.Children[6])
			for name := range people {
				if rdn, _, _ := strings.Cut(name, ","); wanted == "("+rdn+")" {
					m := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
					m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, p.Children[0].Value, ""))
					e := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
					e.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, name, ""))
					e.AppendChild(ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, ""))
					m.AppendChild(e)
					nc.Write(m.Bytes())
				}
			}
			reply(ldap.ApplicationSearchResultDone, ldap.LDAPResultSuccess)
		default:
			return
		}
	}
}

func TestCheck(t *testing.T) {
	port := serve(t, map[string]string{
		"uid=ann,ou=people,dc=x": "secret", "cn=ann,dc=x": "other", "cn=reader,dc=x": "reads",
		"uid=ann,ou=gone,dc=x": "secret", "uid=bea,ou=people,dc=x": "secret", `uid=a\2cb,dc=x`: "secret",
	})
	simple := map[string]string{"ldapprefix": "cn=", "ldapsuffix": ",dc=x"}
	search := map[string]string{"ldapbasedn": "dc=x"}
	reader := map[string]string{"ldapbasedn": "dc=x", "ldapbinddn": "cn=reader,dc=x", "ldapbindpasswd": "reads", "ldapsearchfilter": "(uid=$username)"}
	for _, tc := range []struct {
		name           string
		options        map[string]string
		user, password string
		want           string
	}{
		{"simple", simple, "ann", "other", ""},
		{"wrong password", simple, "ann", "secret", "Invalid Credentials"},
		{"nobody", simple, "nobody", "secret", "Invalid Credentials"},
		{"no password", simple, "ann", "", "empty password"},
		{"a name that would change the place", simple, "ann,dc=x", "other", "Invalid Credentials"},
		{"search", search, "bea", "secret", ""},
		{"search, wrong password", search, "bea", "wrong", "Invalid Credentials"},
		{"search, nobody", search, "nobody", "secret", "found 0 entries"},
		{"search, two of the name", search, "ann", "secret", "found 2 entries"},
		{"search as somebody", reader, "bea", "secret", ""},
		{"a name that would change the filter", reader, "*", "secret", "found 0 entries"},
		{"by attribute", map[string]string{"ldapbasedn": "dc=x", "ldapsearchattribute": "cn"}, "ann", "other", ""},
		{"reader unknown", map[string]string{"ldapbasedn": "dc=x", "ldapbinddn": "cn=x", "ldapbindpasswd": "y"}, "bea", "secret", "bind for the search"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			options := map[string]string{"ldapserver": "127.0.0.1", "ldapport": port}
			for k, v := range tc.options {
				options[k] = v
			}
			err := Check(options, tc.user, tc.password)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if err := Check(map[string]string{"ldapserver": "127.0.0.1", "ldapport": "1", "ldapprefix": "cn="}, "ann", "x"); err == nil || !strings.Contains(err.Error(), "LDAP server 127.0.0.1") {
		t.Errorf("unreachable: %v", err)
	}
	if err := Check(map[string]string{"ldapserver": "127.0.0.1", "ldapport": port, "ldaptls": "1", "ldapprefix": "cn="}, "ann", "x"); err == nil {
		t.Error("without the TLS that was asked for")
	}
}
