package conf

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// names is a name service of its own: address to names, name to addresses.
type names struct {
	back  map[string][]string
	forth map[string][]string
}

func (n names) LookupAddr(_ context.Context, addr string) ([]string, error) {
	if found, ok := n.back[addr]; ok {
		return found, nil
	}
	return nil, errors.New("no such address")
}

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, a := range n.forth[host] {
		all = append(all, netip.MustParseAddr(a))
	}
	return all, nil
}

// client is a connection written as "local db user" or "address db user [ssl]".
func client(t *testing.T, s string) Conn {
	t.Helper()
	f := strings.Fields(s)
	c := Conn{Type: TypeLocal, Database: f[1], User: f[2], SSL: len(f) > 3}
	if f[0] != "local" {
		c.Type, c.Addr = TypeHost, netip.MustParseAddr(f[0])
	}
	return c
}

func TestHbaMatch(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pool_hba.conf")
	os.WriteFile(filepath.Join(dir, "users"), []byte("fay # first\n@more , \"gus\"\n"), 0o600)
	os.WriteFile(filepath.Join(dir, "more"), []byte("hal\n"), 0o600)
	const rules = `
# TYPE  DATABASE  USER  ADDRESS  METHOD
local   all       all                  md5
hostssl   secure  all   0.0.0.0/0      cert
hostnossl secure  all   all            reject
host    "all"     all   10.0.0.0/8     password
host    sameuser  all   10.1.0.0 255.255.0.0  trust
host    a,b, c    x,"y z" 10.2.0.0/16  scram-sha-256
host    d         @users  10.2.0.0/16  trust
host    e         +group,all2  10.2.0.0/16 trust
host    samegroup all   10.2.0.0/16    trust
host    all       all   good.example.org  trust
host    all       all   .example.com   md5
host    all       all   ::1/128        trust # six
host    f         all   samehost       pam pamservice=pgpool
host    g         all   127.0.0.1/32   ldap ldapserver=l ldapprefix="cn=" backend_use_passwd=1`
	h, err := parseHba(file, rules)
	if err != nil {
		t.Fatal(err)
	}
	h.resolver = names{
		back: map[string][]string{"10.9.0.1": {"Good.Example.Org."}, "10.9.0.2": {"liar.example.com."}, "10.9.0.3": {"a.example.com."},
			"10.9.0.4": {".example.com."}},
		forth: map[string][]string{"Good.Example.Org.": {"::ffff:10.9.0.1"}, "liar.example.com.": {"10.9.9.9"}, "a.example.com.": {"10.9.0.3"},
			".example.com.": {"10.9.0.4"}},
	}
	for _, tt := range []struct {
		conn string
		line int // 0: no rule
	}{
		{"local x y", 3},
		{"192.168.0.1 secure u ssl", 4},
		{"192.168.0.1 secure u", 5},
		{"192.168.0.1 other u", 0},
		{"10.0.0.1 all u", 6},
		{"10.1.5.5 u u", 7},
		{"::ffff:10.1.5.5 u u", 7},
		{"10.1.5.5 u v", 0},
		{"10.2.0.1 a x", 8}, {"10.2.0.1 c x ssl", 8}, {"10.2.0.1 A x", 0},
		{"10.2.0.1 d fay", 9}, {"10.2.0.1 d gus", 9}, {"10.2.0.1 d hal", 9}, {"10.2.0.1 d first", 0},
		{"10.2.0.1 e +group", 0}, {"10.2.0.1 e all2", 10}, {"10.2.0.1 samegroup u", 0},
		{"10.9.0.1 x y", 12}, {"10.9.0.2 x y", 0}, {"10.9.0.3 x y", 13}, {"10.9.0.4 x y", 0}, {"10.9.0.5 x y", 0},
		{"::1 x y", 14}, {"127.0.0.1 f y", 15}, {"127.0.0.1 g y", 16},
	} {
		line := 0
		if r := h.Match(client(t, tt.conn)); r != nil {
			line = r.Line
		}
		if line != tt.line {
			t.Errorf("%s is taken by line %d, want %d", tt.conn, line, tt.line)
		}
	}
	if c := (Conn{Type: TypeHost, Addr: netip.MustParseAddr("10.2.0.1"), Database: "b", User: "y z"}); h.Match(c) == nil {
		t.Error("a quoted user does not match")
	}
	ldap := h.Rules[len(h.Rules)-1]
	if ldap.Option("ldapprefix") != "cn=" || ldap.Option("backend_use_passwd") != "1" || ldap.Option("pamservice") != "" {
		t.Errorf("options are %v", ldap.Options)
	}
	if s := texts(h.Notices); len(h.Notices) != 2 || !strings.Contains(s, `group token "+" is not supported by Pgpool-II`) || !strings.Contains(s, "samegroup") {
		t.Errorf("notices:\n%s", s)
	}
	if n := h.WithoutSSL(); len(n) != 1 || n[0].Line != 4 || n[0].Text != "hostssl record cannot match because SSL is disabled" {
		t.Errorf("without ssl:\n%s", texts(n))
	}
}

func TestHbaErrors(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"host all all 127.0.0.1/32 ident", `invalid authentication method "ident"`},
		{"host all all 127.0.0.1/32 peer", `invalid authentication method "peer"`},
		{"remote all all 127.0.0.1/32 trust", `invalid connection type "remote"`},
		{"host", "end-of-line before database specification"},
		{"host all", "end-of-line before role specification"},
		{"host all all", "end-of-line before IP address specification"},
		{"host all all 127.0.0.1/32", "end-of-line before authentication method"},
		{"host all all 127.0.0.1", "end-of-line before netmask"},
		{"host all all 127.0.0.1 trust", `invalid IP mask "trust"`},
		{"host all all 127.0.0.1 255.0.255.0 trust", "not contiguous"},
		{"host all all 127.0.0.1 ffff:: trust", "do not match"},
		{"host all all 127.0.0.1/33 trust", "invalid CIDR mask"},
		{"host all all 300.0.0.1/8 trust", "CIDR mask is invalid"},
		{"host all all 300.0.0.1 trust", "invalid IP address"},
		{"host all all name/8 trust", "specifying both host name and CIDR mask is invalid"},
		{"host all all a,b trust", "multiple values specified for IP address"},
		{"local all all", "end-of-line before authentication method"},
		{"local all all trust,md5", "multiple values"},
		{`host "all all 127.0.0.1/32 trust`, "unterminated quoted name"},
		{"host @nosuch all 127.0.0.1/32 trust", "could not open secondary authentication file"},
		{"host @pool_hba.conf all 127.0.0.1/32 trust", "nested too deeply"},
		{"local all all pam service", "not in name=value format"},
		{"local all all pam ldapserver=x", "unrecognized authentication option name"},
		{"local all all trust x=1", "unrecognized authentication option name"},
		{"local all all pam pam_use_hostname=yes", "invalid pam_use_hostname value"},
		{"local all all ldap ldapserver=x", `requires argument "ldapbasedn"`},
		{"local all all ldap ldapbasedn=x", `requires argument "ldapserver"`},
		{"local all all ldap ldapserver=x ldapprefix=a ldapbasedn=b", "together with ldapprefix"},
		{"local all all ldap ldapurl=http://x/y", "unsupported LDAP URL scheme"},
		{"local all all ldap ldapserver=x ldapprefix=a ldapport=0", "invalid ldapport value"},
		{"local all " + strings.Repeat("x", 256) + " trust", "token is longer"},
		{"local all " + strings.Repeat("x,", 5000) + " trust", "line is longer"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "pool_hba.conf")
			os.WriteFile(file, []byte("# comment\nlocal all all trust\n"+tt.line+"\n"), 0o600)
			_, err := LoadHba(file)
			bad, ok := errors.AsType[*Error](err)
			if !ok || !strings.Contains(bad.Error(), tt.want) || bad.Line != 3 || !strings.Contains(bad.Detail, "line 3") {
				t.Errorf("error is %v", err)
			}
		})
	}
	if _, err := parseHba("f", "# nothing\n"); err == nil || !strings.Contains(err.Error(), "contains no entries") {
		t.Errorf("empty file: %v", err)
	}
	if _, err := LoadHba("/nosuch"); err == nil || !strings.Contains(err.Error(), "could not open hba file") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := LoadHba("../testdata/conf/debian.pool_hba.conf"); err != nil {
		t.Error(err)
	}
}

func TestLDAPURL(t *testing.T) {
	h, err := parseHba("f", `local all all ldap ldapurl="ldaps://l.example:636/dc=example,dc=org?uid?sub?(cn=%20a)"`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"ldapscheme": "ldaps", "ldapserver": "l.example", "ldapport": "636", "ldapbasedn": "dc=example,dc=org",
		"ldapsearchattribute": "uid", "ldapscope": "sub", "ldapsearchfilter": "(cn= a)"} {
		if got := h.Rules[0].Option(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func FuzzHba(f *testing.F) {
	for _, s := range []string{"local all all trust", `host "a""b",c all 1.2.3.4/8 md5 # x`, "host all all 1.2.3.4 255.0.0.0 pam pamservice=x", "host a\x00 ,", `host all all .x ldap ldapurl=ldap://[::1/`} {
		f.Add(s)
	}
	conns := []Conn{{Type: TypeLocal, Database: "a", User: "a"}, {Type: TypeHost, Addr: netip.MustParseAddr("1.2.3.4"), Database: "a", User: "b"}}
	f.Fuzz(func(t *testing.T, src string) {
		if strings.Contains(src, "@") { // would read files
			return
		}
		h, err := parseHba("f", src)
		if err != nil {
			return
		}
		h.resolver = names{}
		for _, c := range conns {
			h.Match(c)
		}
	})
}
