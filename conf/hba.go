package conf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// HbaMethod is how a client proves who it is.
type HbaMethod string

// Methods of pool_hba.conf.
const (
	MethodTrust    HbaMethod = "trust"
	MethodReject   HbaMethod = "reject"
	MethodMD5      HbaMethod = "md5"
	MethodScram    HbaMethod = "scram-sha-256"
	MethodPassword HbaMethod = "password"
	MethodCert     HbaMethod = "cert"
	MethodPAM      HbaMethod = "pam"
	MethodLDAP     HbaMethod = "ldap"
)

// Values of the option clientcert, which any method takes: a certificate is asked
// for besides, and with the latter it must be the user's.
const (
	ClientCertCA   = "verify-ca"
	ClientCertFull = "verify-full"
)

// HbaType is the first word of a rule: the kind of connection it is about.
type HbaType string

// Types of pool_hba.conf. A Conn is TypeLocal or TypeHost.
const (
	TypeLocal     HbaType = "local"
	TypeHost      HbaType = "host"
	TypeHostSSL   HbaType = "hostssl"
	TypeHostNoSSL HbaType = "hostnossl"
)

// Conn is what the rules look at.
type Conn struct {
	Type     HbaType // TypeLocal or TypeHost
	SSL      bool
	Addr     netip.Addr // of the client, for TypeHost
	Database string
	User     string
}

// Rule is one line of pool_hba.conf.
type Rule struct {
	File    string
	Line    int
	Type    HbaType
	Method  HbaMethod
	Options map[string]string // name=value after the method

	databases []hbaToken
	users     []hbaToken
	address   hbaAddress
}

// Option gives the value of an option, "" if it is not set.
func (r *Rule) Option(name string) string { return r.Options[name] }

// Hba is a pool_hba.conf file.
type Hba struct {
	Rules   []Rule
	Notices []Notice // parts of rules that can never match

	resolver resolver
}

// resolver is how rules with host names ask for names and addresses.
type resolver interface {
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const lookupTimeout = 5 * time.Second

// Remote reports whether clients on other hosts may match the rule.
func (r *Rule) Remote() bool {
	a := r.address
	return r.Type != TypeLocal && !a.samehost && !(a.prefix.IsValid() && a.prefix.Addr().IsLoopback())
}

// Match returns the first rule for a connection, nil if there is none, which
// means reject. Rules with host names ask the name service, for a few seconds at most.
func (h *Hba) Match(c Conn) *Rule {
	c.Addr = c.Addr.Unmap().WithZone("")
	names := &clientNames{addr: c.Addr, resolver: h.resolver}
	for i := range h.Rules {
		r := &h.Rules[i]
		if r.takesType(c) && (c.Type == TypeLocal || r.address.takes(c.Addr, names)) &&
			takesDatabase(r.databases, c) && takesUser(r.users, c.User) {
			return r
		}
	}
	return nil
}

// WithoutSSL gives a notice for each rule that cannot match while ssl is off.
func (h *Hba) WithoutSSL() []Notice {
	var notices []Notice
	for _, r := range h.Rules {
		if r.Type == TypeHostSSL {
			notices = append(notices, Notice{Level: LevelLog, File: r.File, Line: r.Line,
				Text: "hostssl record cannot match because SSL is disabled", Detail: where(r.File, r.Line),
				Hint: "Set ssl = on in pgpool.conf."})
		}
	}
	return notices
}

func (r *Rule) takesType(c Conn) bool {
	switch r.Type {
	case TypeLocal:
		return c.Type == TypeLocal
	case TypeHostSSL:
		return c.Type == TypeHost && c.SSL
	case TypeHostNoSSL:
		return c.Type == TypeHost && !c.SSL
	}
	return c.Type == TypeHost
}

func takesDatabase(tokens []hbaToken, c Conn) bool {
	return slices.ContainsFunc(tokens, func(t hbaToken) bool {
		switch {
		case t.is("all"):
			return true
		case t.is("sameuser"):
			return c.Database == c.User
		case t.is("samegroup"), t.is("samerole"):
			return false // pgpool knows no groups
		}
		return t.text == c.Database
	})
}

func takesUser(tokens []hbaToken, user string) bool {
	return slices.ContainsFunc(tokens, func(t hbaToken) bool {
		return t.is("all") || !t.isGroup() && t.text == user
	})
}

// hbaAddress is the address part of a rule; exactly one field says what it takes.
type hbaAddress struct {
	all      bool
	samehost bool
	samenet  bool
	prefix   netip.Prefix
	name     string // host name, or a .suffix of one
}

func (a hbaAddress) takes(addr netip.Addr, names *clientNames) bool {
	switch {
	case a.all:
		return true
	case a.samehost, a.samenet:
		return ownNetwork(addr, a.samenet)
	case a.name != "":
		return names.match(a.name)
	}
	return a.prefix.Contains(addr)
}

// ownNetwork reports whether an address is one of this machine's, or in a network of them.
func ownNetwork(addr netip.Addr, wholeNet bool) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			return false
		}
		if !wholeNet {
			return p.Addr() == addr
		}
		return p.Masked().Contains(addr)
	})
}

// clientNames are the host names of a client that also lead back to its
// address; looked up once per Match, and only if a rule wants them.
type clientNames struct {
	addr     netip.Addr
	resolver resolver
	done     bool
	names    []string
}

func (n *clientNames) match(want string) bool {
	if !n.done {
		n.done = true
		n.names = n.lookup()
	}
	return slices.ContainsFunc(n.names, func(name string) bool {
		if strings.HasPrefix(want, ".") {
			return len(name) > len(want) && strings.EqualFold(name[len(name)-len(want):], want)
		}
		return strings.EqualFold(name, want)
	})
}

func (n *clientNames) lookup() []string {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	names, err := n.resolver.LookupAddr(ctx, n.addr.String())
	if err != nil {
		return nil
	}
	var good []string
	for _, name := range names {
		back, err := n.resolver.LookupNetIP(ctx, "ip", name)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(back, func(a netip.Addr) bool { return a.Unmap() == n.addr }) {
			good = append(good, strings.TrimSuffix(name, "."))
		}
	}
	return good
}

func where(file string, line int) string { return fmt.Sprintf("file %q, line %d", file, line) }
