package conf

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of pool_hba.conf.
const (
	maxHbaLine    = 8191
	maxHbaToken   = 255
	maxHbaInclude = 10
)

// hbaToken is one word; a quoted one is no keyword.
type hbaToken struct {
	text   string
	quoted bool
}

func (t hbaToken) is(keyword string) bool { return !t.quoted && t.text == keyword }
func (t hbaToken) isGroup() bool          { return !t.quoted && strings.HasPrefix(t.text, "+") }

// LoadHba reads a pool_hba.conf file. The first line that cannot be right is
// the error; a file without any rule is one too.
func LoadHba(path string) (*Hba, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{File: path, Text: fmt.Sprintf("could not open hba file %q", path), Detail: reason(err), Err: err}
	}
	return parseHba(path, string(src))
}

func parseHba(path, src string) (*Hba, error) {
	h := &Hba{resolver: net.DefaultResolver}
	n := 0
	for line := range strings.SplitSeq(src, "\n") {
		n++
		fail := func(text, detail, hint string) error {
			e := &Error{File: path, Line: n, Text: text, Detail: detail, Hint: hint}
			return e.in(assignment{file: path, line: n})
		}
		fields, why := hbaFields(path, line, 0)
		if why != "" {
			return nil, fail(why, "", "")
		}
		if len(fields) == 0 {
			continue
		}
		r, bad := parseRule(fields)
		if bad != nil {
			return nil, fail(bad.Text, bad.Detail, bad.Hint)
		}
		r.File, r.Line = path, n
		h.Rules = append(h.Rules, *r)
		h.notice(r)
	}
	if len(h.Rules) == 0 {
		return nil, &Error{File: path, Text: fmt.Sprintf("hba file %q contains no entries", path)}
	}
	return h, nil
}

// notice tells about words of a rule that PostgreSQL would understand and a pgpool cannot.
func (h *Hba) notice(r *Rule) {
	add := func(text, detail string) {
		h.Notices = append(h.Notices, Notice{Level: LevelLog, File: r.File, Line: r.Line, Text: text,
			Detail: located(detail, assignment{file: r.File, line: r.Line})})
	}
	for _, t := range r.databases {
		if t.is("samegroup") || t.is("samerole") {
			add(fmt.Sprintf("database token %q is not supported by Pgpool-II", t.text), "It matches no database.")
		}
	}
	for _, t := range r.users {
		if t.isGroup() {
			add(`group token "+" is not supported by Pgpool-II`, fmt.Sprintf("%q matches no user.", t.text))
		}
	}
}

// hbaFields cuts a line into fields, each a list of words; @file words are
// replaced by the words in the file.
func hbaFields(path, line string, depth int) (fields [][]hbaToken, why string) {
	if len(line) > maxHbaLine {
		return nil, fmt.Sprintf("line is longer than %d bytes", maxHbaLine)
	}
	if strings.IndexByte(line, 0) >= 0 {
		return nil, "line contains a zero byte"
	}
	more := false // the last word ended in a comma: the next one belongs to its field
	for rest := line; ; {
		t, after, comma, ok, why := nextHbaToken(rest)
		if why != "" {
			return nil, why
		}
		rest = after
		if !ok {
			return fields, ""
		}
		words := []hbaToken{t}
		if !t.quoted && len(t.text) > 1 && t.text[0] == '@' {
			if words, why = hbaFile(path, t.text[1:], depth); why != "" {
				return nil, why
			}
		}
		if more {
			fields[len(fields)-1] = append(fields[len(fields)-1], words...)
		} else {
			fields = append(fields, words)
		}
		more = comma
	}
}

// hbaFile gives the words in the file that an @name stands for.
func hbaFile(from, name string, depth int) (words []hbaToken, why string) {
	if depth == maxHbaInclude {
		return nil, fmt.Sprintf("authentication file token list %q is nested too deeply", name)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(from), name)
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Sprintf("could not open secondary authentication file %q: %s", name, reason(err))
	}
	for line := range strings.SplitSeq(string(src), "\n") {
		fields, why := hbaFields(name, line, depth+1)
		if why != "" {
			return nil, fmt.Sprintf("%s in file %q", why, name)
		}
		words = append(words, slices.Concat(fields...)...)
	}
	return words, ""
}

// nextHbaToken reads one word. Quotes may begin and end anywhere in it; two of
// them inside quotes are one.
func nextHbaToken(s string) (t hbaToken, rest string, comma, ok bool, why string) {
	s = strings.TrimLeft(s, " \t\r,")
	if s == "" || s[0] == '#' {
		return t, "", false, false, ""
	}
	t.quoted = s[0] == '"'
	var b strings.Builder
	inQuotes := false
	i := 0
scan:
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && inQuotes && i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		case c == '"':
			inQuotes = !inQuotes
		case inQuotes:
			b.WriteByte(c)
		case c == ',':
			comma = true
			break scan
		case c == ' ', c == '\t', c == '\r', c == '#':
			break scan
		default:
			b.WriteByte(c)
		}
	}
	t.text = b.String()
	switch {
	case inQuotes:
		return t, "", false, false, "unterminated quoted name"
	case len(t.text) > maxHbaToken:
		return t, "", false, false, fmt.Sprintf("authentication file token is longer than %d bytes", maxHbaToken)
	}
	return t, s[i:], comma, true, ""
}

var hbaMethods = []HbaMethod{MethodTrust, MethodReject, MethodMD5, MethodScram, MethodPassword, MethodCert, MethodPAM, MethodLDAP}

// parseRule makes a rule of a line's fields.
func parseRule(fields [][]hbaToken) (*Rule, *Error) {
	r := &Rule{}
	next := func(what string) ([]hbaToken, *Error) {
		if len(fields) == 0 {
			return nil, &Error{Text: "end-of-line before " + what + " specification"}
		}
		f := fields[0]
		fields = fields[1:]
		return f, nil
	}
	one := func(what string) (hbaToken, *Error) {
		f, bad := next(what)
		if bad == nil && len(f) != 1 {
			bad = &Error{Text: "multiple values specified for " + what, Hint: "Specify one " + what + " per line."}
		}
		if bad != nil {
			return hbaToken{}, bad
		}
		return f[0], nil
	}
	kind, bad := one("connection type")
	if bad != nil {
		return nil, bad
	}
	r.Type = HbaType(kind.text)
	if !slices.Contains([]HbaType{TypeLocal, TypeHost, TypeHostSSL, TypeHostNoSSL}, r.Type) {
		return nil, &Error{Text: fmt.Sprintf("invalid connection type %q", kind.text), Hint: "Available types: local, host, hostssl, hostnossl."}
	}
	if r.databases, bad = next("database"); bad != nil {
		return nil, bad
	}
	if r.users, bad = next("role"); bad != nil {
		return nil, bad
	}
	if r.Type != TypeLocal {
		address, bad := one("IP address")
		if bad != nil {
			return nil, bad
		}
		var needsMask bool
		if r.address, needsMask, bad = parseAddress(address); bad != nil {
			return nil, bad
		}
		if needsMask {
			mask, bad := one("netmask")
			if bad != nil {
				bad.Hint = "Specify an address range in CIDR notation, or provide a separate netmask."
				return nil, bad
			}
			if r.address.prefix, bad = withMask(r.address.prefix.Addr(), mask.text); bad != nil {
				return nil, bad
			}
		}
	}
	method, bad := one("authentication method")
	if bad != nil {
		return nil, bad
	}
	r.Method = HbaMethod(method.text)
	if !slices.Contains(hbaMethods, r.Method) {
		return nil, &Error{Text: fmt.Sprintf("invalid authentication method %q", method.text),
			Hint: "Available methods: trust, reject, md5, scram-sha-256, password, cert, pam, ldap."}
	}
	return r, r.parseOptions(fields)
}

// parseAddress reads the address field; a bare IP address needs the mask that follows it.
func parseAddress(t hbaToken) (a hbaAddress, needsMask bool, bad *Error) {
	switch {
	case t.is("all"):
		return hbaAddress{all: true}, false, nil
	case t.is("samehost"):
		return hbaAddress{samehost: true}, false, nil
	case t.is("samenet"):
		return hbaAddress{samenet: true}, false, nil
	}
	ip, bits, cidr := strings.Cut(t.text, "/")
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		switch {
		case cidr:
			return a, false, &Error{Text: fmt.Sprintf("specifying both host name and CIDR mask is invalid: %q", t.text)}
		case t.text == "" || strings.Trim(t.text, "0123456789.:") == "":
			return a, false, &Error{Text: fmt.Sprintf("invalid IP address %q", t.text), Detail: err.Error()}
		}
		return hbaAddress{name: t.text}, false, nil
	}
	if !cidr {
		return hbaAddress{prefix: netip.PrefixFrom(addr, addr.BitLen())}, true, nil
	}
	p, err := netip.ParsePrefix(t.text)
	if err != nil {
		return a, false, &Error{Text: fmt.Sprintf("invalid CIDR mask in address %q", t.text), Detail: fmt.Sprintf("mask %q", bits)}
	}
	return hbaAddress{prefix: p.Masked()}, false, nil
}

func withMask(addr netip.Addr, text string) (netip.Prefix, *Error) {
	mask, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, &Error{Text: fmt.Sprintf("invalid IP mask %q", text), Detail: err.Error()}
	}
	if mask.BitLen() != addr.BitLen() {
		return netip.Prefix{}, &Error{Text: "IP address and mask do not match"}
	}
	ones, size := net.IPMask(mask.AsSlice()).Size()
	if size == 0 {
		return netip.Prefix{}, &Error{Text: fmt.Sprintf("invalid IP mask %q", text), Detail: "its bits are not contiguous"}
	}
	return netip.PrefixFrom(addr, ones).Masked(), nil
}

// The options each method takes.
var hbaOptions = map[HbaMethod][]string{
	MethodPAM: {"pamservice", "pam_use_hostname"},
	MethodLDAP: {"ldapurl", "ldaptls", "ldapscheme", "ldapserver", "ldapport", "ldapbinddn", "ldapbindpasswd",
		"ldapsearchattribute", "ldapsearchfilter", "ldapbasedn", "ldapscope", "ldapprefix", "ldapsuffix", "backend_use_passwd"},
}

func (r *Rule) parseOptions(fields [][]hbaToken) *Error {
	r.Options = map[string]string{}
	for _, f := range fields {
		for _, t := range f {
			name, value, ok := strings.Cut(t.text, "=")
			if !ok {
				return &Error{Text: fmt.Sprintf("authentication option not in name=value format: %q", t.text)}
			}
			if name != "clientcert" && !slices.Contains(hbaOptions[r.Method], name) {
				return &Error{Text: fmt.Sprintf("unrecognized authentication option name: %q", name),
					Detail: fmt.Sprintf("method %s has no such option", r.Method)}
			}
			if bad := r.setOption(name, value); bad != nil {
				return bad
			}
		}
	}
	if r.Method == MethodLDAP {
		return r.checkLDAP()
	}
	return nil
}

func (r *Rule) setOption(name, value string) *Error {
	invalid := func(allowed string) *Error {
		return &Error{Text: fmt.Sprintf("invalid %s value: %q", name, value), Hint: "Available values: " + allowed + "."}
	}
	switch name {
	case "clientcert":
		if r.Type != TypeHostSSL {
			return &Error{Text: `clientcert can only be configured for "hostssl" rows`}
		}
		switch value {
		case "1":
			value = ClientCertCA
		case "0":
			value = "no-verify"
		}
		if !slices.Contains([]string{ClientCertCA, ClientCertFull, "no-verify"}, value) {
			return invalid("verify-ca, verify-full, no-verify, 1, 0")
		}
	case "pam_use_hostname", "ldaptls", "backend_use_passwd":
		if value != "0" && value != "1" {
			return invalid("0, 1")
		}
	case "ldapscheme":
		if value != "ldap" && value != "ldaps" {
			return invalid("ldap, ldaps")
		}
	case "ldapport":
		if n, bad := parseInteger(name, value, unitless, 1, 65535); bad != nil || n == 0 {
			return invalid("1 to 65535")
		}
	case "ldapurl":
		return r.setLDAPURL(value)
	}
	r.Options[name] = value
	return nil
}

// setLDAPURL takes ldap[s]://host[:port]/basedn[?attribute[?scope[?filter]]] apart.
func (r *Rule) setLDAPURL(text string) *Error {
	u, err := url.Parse(text)
	if err != nil {
		return &Error{Text: fmt.Sprintf("could not parse LDAP URL %q", text), Detail: err.Error()}
	}
	if u.Scheme != "ldap" && u.Scheme != "ldaps" {
		return &Error{Text: fmt.Sprintf("unsupported LDAP URL scheme: %q", u.Scheme), Hint: "Available values: ldap, ldaps."}
	}
	set := func(name, value string) {
		if value != "" {
			r.Options[name] = value
		}
	}
	set("ldapscheme", u.Scheme)
	set("ldapserver", u.Hostname())
	set("ldapport", u.Port())
	set("ldapbasedn", strings.TrimPrefix(u.Path, "/"))
	parts := strings.SplitN(u.RawQuery, "?", 3)
	for i, name := range []string{"ldapsearchattribute", "ldapscope", "ldapsearchfilter"} {
		if i >= len(parts) {
			break
		}
		value, err := url.PathUnescape(parts[i])
		if err != nil {
			return &Error{Text: fmt.Sprintf("could not parse LDAP URL %q", text), Detail: err.Error()}
		}
		set(name, value)
	}
	return nil
}

// checkLDAP: either search and bind, which needs a base, or bind to a name built from prefix and suffix.
func (r *Rule) checkLDAP() *Error {
	any := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return r.Options[n] != "" })
	}
	simple := any("ldapprefix", "ldapsuffix")
	search := any("ldapbasedn", "ldapbinddn", "ldapbindpasswd", "ldapsearchattribute", "ldapsearchfilter")
	switch {
	case !any("ldapserver"):
		return &Error{Text: `authentication method "ldap" requires argument "ldapserver" to be set`}
	case simple && search:
		return &Error{Text: "cannot use ldapbasedn, ldapbinddn, ldapbindpasswd, ldapsearchattribute, ldapsearchfilter or ldapurl together with ldapprefix or ldapsuffix"}
	case !simple && !any("ldapbasedn"):
		return &Error{Text: `authentication method "ldap" requires argument "ldapbasedn", "ldapprefix", or "ldapsuffix" to be set`}
	}
	return nil
}
