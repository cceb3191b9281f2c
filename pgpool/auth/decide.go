package auth

import (
	"strings"

	"pgpool-go/conf"
)

// Client is what a decision about a client considers.
type Client struct {
	User, Database string
	Host           string // the address as pool_hba.conf sees it; "[local]" for a Unix socket
	SSL            bool
	// CertName is the common name of the certificate the client has shown, which
	// has been verified; empty: none.
	CertName string
	// CertWanted is the option clientcert of its rule in pool_hba.conf.
	CertWanted string
	// Stored is the user's entry in pool_passwd.
	Stored Credential
	// ClearText is allow_clear_text_frontend_auth.
	ClearText bool
	// Alone says that the session will need no other server connection than its
	// first, so that the client may prove itself to that server.
	Alone bool
	// Conceal hides whether pool_passwd has an entry: a user without one is
	// asked as any other and fails as one who has a wrong password.
	Conceal bool
}

// Relay decides without pool_hba: the client is asked for what the server asks
// of us. On a pooled connection m is what the server had asked when it was
// opened; the credential that Challenge returns then must have the Digest of
// the one it was opened with.
func Relay(m Method, c Client) Plan {
	switch m.Kind {
	case KindTrust:
		return Plan{}
	case KindUnsupported:
		return Plan{Refuse: unsupported(m)}
	case KindPassword:
		if c.Stored.Form() == FormUnreadable {
			return Plan{Refuse: unreadable(wordsClear)} // E13
		}
		return Plan{Ask: AskPassword, Known: c.Stored} // whatever the option says
	}
	ask := AskMD5
	if m.Kind == KindSCRAM {
		ask = AskSCRAM
	}
	switch {
	case fits(m, c.Stored):
		return Plan{Ask: ask, Known: c.Stored}
	case ask == AskSCRAM && c.Stored.Form() == FormVerifier: // the proof leaves us the keys
		return Plan{Ask: ask, Known: c.Stored}
	case c.Stored.Form() == FormNone && c.ClearText:
		return Plan{Ask: AskPassword}
	case c.Stored.Form() == FormNone && c.Conceal:
		return Plan{Ask: ask, Mock: true}
	case c.Stored.Form() == FormNone && c.Alone:
		return Plan{Pass: true}
	}
	e := misfit(m, c.Stored, c.User)
	if c.Stored.Form() == FormNone {
		e.Hint += hintAskClear
	}
	return Plan{Refuse: e}
}

// Methods of pool_hba.conf this room can carry out.
const (
	HBATrust    = "trust"
	HBAReject   = "reject"
	HBAMD5      = "md5"
	HBASCRAM    = "scram-sha-256"
	HBAPassword = "password"
	HBACert     = "cert"
	HBALDAP     = "ldap" // the answer is for the directory to judge
	HBAPAM      = "pam"  // and here for PAM
)

// Admit decides with pool_hba, step one: the rule that matched says how the
// client proves itself to us, before any server is asked.
func Admit(method string, c Client) Plan {
	form := c.Stored.Form()
	switch {
	case method == HBAReject:
	case method == HBACert && !c.ownCert(): // PostgreSQL tells these apart, too
		return Plan{Refuse: badCert(c)}
	case c.CertWanted == conf.ClientCertCA && c.CertName == "", c.CertWanted == conf.ClientCertFull && !c.ownCert():
		return Plan{Refuse: certWanted(c)}
	}
	switch method {
	case HBACert:
		return Plan{Known: c.Stored}
	case HBALDAP, HBAPAM:
		return Plan{Ask: AskPassword}
	case HBATrust:
		return Plan{Known: c.Stored}
	case HBAReject:
		return Plan{Refuse: NoHBAEntry(c)}
	case HBAPassword:
		if form == FormUnreadable {
			return Plan{Refuse: unreadable(wordsClear)} // E13
		}
		return Plan{Ask: AskPassword, Known: c.Stored}
	case HBAMD5:
		switch form {
		case FormNone:
			return absent(AskMD5, wordsMD5, c)
		case FormUnreadable:
			return Plan{Refuse: unreadable(wordsMD5)}
		case FormVerifier: // as PostgreSQL, which asks md5 users with a verifier for SCRAM
			return Plan{Ask: AskSCRAM, Known: c.Stored}
		}
		return Plan{Ask: AskMD5, Known: c.Stored}
	case HBASCRAM:
		switch form {
		case FormNone:
			return absent(AskSCRAM, wordsSCRAM, c)
		case FormUnreadable:
			return Plan{Refuse: unreadable(wordsSCRAM)}
		case FormMD5:
			return Plan{Refuse: noSCRAMEntry(c.User)}
		}
		return Plan{Ask: AskSCRAM, Known: c.Stored}
	}
	return Plan{Refuse: notAsked(method)}
}

// ownCert tells whether the client has shown its user's certificate. Case makes no
// difference, as in pgpool-II.
func (c Client) ownCert() bool {
	return c.CertName != "" && strings.EqualFold(c.CertName, c.User)
}

func absent(ask Ask, message string, c Client) Plan {
	if c.Conceal {
		return Plan{Ask: ask, Mock: true}
	}
	return Plan{Refuse: noEntry(message, c.User)} // E16, E17
}

// Present decides with pool_hba, step two: what goes to a server that asks for
// m, where proven is what step one returned. A client that passed is not asked
// again, except one whose rule is trust, by a server that wants clear text,
// where that may be asked for, and one who has not been asked for a password at all,
// where it may prove itself to the server.
func Present(m Method, method string, c Client, proven Credential) Plan {
	switch {
	case method == HBATrust && m.Kind == KindPassword && c.ClearText:
		if c.Stored.Form() == FormUnreadable {
			return Plan{Refuse: unreadable(wordsClear)} // E13
		}
		return Plan{Ask: AskPassword, Known: c.Stored}
	case m.Kind == KindUnsupported:
		return Plan{Refuse: unsupported(m)}
	case !fits(m, proven) && proven.Form() == FormNone && c.Alone && (method == HBATrust || method == HBACert):
		if m.Kind == KindPassword {
			return Plan{Ask: AskPassword}
		}
		return Plan{Pass: true}
	case !fits(m, proven):
		e := misfit(m, proven, c.User)
		if method == HBATrust && proven.Form() == FormNone {
			e.Hint += hintAskPassword
		}
		return Plan{Refuse: e}
	}
	return Plan{Known: proven}
}
