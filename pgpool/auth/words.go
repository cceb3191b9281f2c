package auth

import (
	"errors"
	"fmt"
	"strings"

	"pgpool-go/pgpool/wire"
)

// What a client reads when it is refused. Message and Detail keep the words of
// pgpool-II (the codes E1 to E22 of the specification's matrix are named), the
// SQLSTATE is PostgreSQL's where pgpool-II had XX000, and a hint says what the
// operator can do.

const (
	wordsMD5Backend   = "failed to authenticate with backend using md5"
	wordsSCRAMBackend = "failed to authenticate with backend using SCRAM"
	wordsClearBackend = "clear text password authentication failed"
	wordsMD5          = "md5 authentication failed"
	wordsSCRAM        = "SCRAM authentication failed"
	wordsClear        = "clear text authentication failed"
	wordsBackend      = "backend authentication failed"
	wordsClient       = "client authentication failed"
	wordsAny          = "authentication failed"

	detailNotFound = "valid password not found"
	detailDecrypt  = "unable to decrypt password from pool_passwd"
	hintDecrypt    = "verify the valid pool_key exists"
	hintLog        = "see pgpool log for details"

	// What else than an entry in pool_passwd would help, appended to the hint.
	hintAskClear    = " Or set allow_clear_text_frontend_auth to on, so that the client is asked for its password in clear text."
	hintAskPassword = " Or let pool_hba.conf ask for the password instead of trust."
)

// wrong is a client whose answer does not agree with what is known: E7, E8, E9.
func wrong(ask Ask, user string) *Error {
	switch ask {
	case AskMD5:
		return fatal(stateWrongPassword, wordsMD5, "password does not match")
	case AskSCRAM:
		return fatal(stateWrongPassword, wordsAny, fmt.Sprintf("username \"%s\" or password does not exist in backend", plainName(user)))
	}
	return fatal(stateWrongPassword, wordsClear, "password does not match")
}

// unreadable is an entry of pool_passwd which cannot be decrypted: E11 to E14.
func unreadable(message string) *Error {
	return fatal(stateNotAuthorized, message, detailDecrypt).hint(hintDecrypt)
}

// noEntry is a pool_hba method that needs pool_passwd where it has no entry: E16, E17.
func noEntry(message, user string) *Error {
	return fatal(stateNotAuthorized, message,
		fmt.Sprintf("pool_passwd file does not contain an entry for \"%s\"", plainName(user))).
		hint("Add the user to pool_passwd with pg_enc or pg_md5.")
}

// noSCRAMEntry is the pool_hba method scram-sha-256 over an md5 entry: E18.
func noSCRAMEntry(user string) *Error {
	return fatal(stateNotAuthorized, wordsSCRAM,
		fmt.Sprintf("pool_passwd file does not contain valid SCRAM entry for \"%s\"", plainName(user))).
		hint("SCRAM cannot be computed from an md5 hash: store the password with pg_enc, or use md5 in pool_hba.conf.")
}

// misfit is a credential which cannot answer what the server asks:
// E1/E2, E3, E10, and E11, E12, E14 where it is unreadable.
func misfit(m Method, c Credential, user string) *Error {
	message, detail := wordsMD5Backend, detailNotFound
	switch m.Kind {
	case KindSCRAM:
		message = wordsSCRAMBackend
	case KindPassword:
		message, detail = wordsClearBackend, "unable to get the password"
	}
	if c.Form() == FormUnreadable {
		switch m.Kind {
		case KindMD5:
			message = wordsMD5
		case KindSCRAM:
			message = wordsSCRAM
		}
		return unreadable(message)
	}
	e := fatal(stateNotAuthorized, message, detail)
	name := plainName(user)
	switch c.Form() {
	case FormMD5:
		return e.hint(fmt.Sprintf("The entry for \"%s\" in pool_passwd is an md5 hash, but the server asks for %s: store the password with pg_enc.", name, m))
	case FormVerifier:
		return e.hint(fmt.Sprintf("The entry for \"%s\" in pool_passwd is a SCRAM verifier, which can check a client but not log in to a server: store the password with pg_enc.", name))
	case FormPassed:
		return e.hint(fmt.Sprintf("The password of \"%s\" was shown to a server over another connection and is not known here: add it to pool_passwd with pg_enc, or set auth_query.", name))
	case FormKeys:
		return e.hint(fmt.Sprintf("The SCRAM verifier for \"%s\" is not the one of this server, or the server asks for %s: store the password with pg_enc, or the same verifier on every server.", name, m))
	}
	return e.hint(fmt.Sprintf("Add \"%s\" to pool_passwd with pg_enc.", name))
}

// twoChannels is SCRAM between a client and a server that each have a TLS channel of
// their own with us, where both insist that there should be one.
func twoChannels() *Error {
	return fatal(stateNotAuthorized, wordsSCRAMBackend, "a login that may be bound to its TLS channel cannot be passed on from one channel to another").
		hint("Add the user to pool_passwd with pg_enc, or set auth_query, or have the client connect with channel_binding=disable.")
}

// unsupported is a server asking for what pgpool cannot do.
func unsupported(m Method) *Error {
	return fatal(stateUnsupported, wordsBackend,
		fmt.Sprintf("the server asks for authentication method %s, which pgpool cannot answer", m)).
		hint("Let the server's pg_hba.conf ask pgpool for scram-sha-256, md5, password or trust.")
}

// refused dresses up a server's ErrorResponse. A server that cannot serve at
// all (starting up, too many clients) keeps its own words; one that refuses the
// user gets ours with its own as the reason: E4, E5, E6. Errors of the socket
// pass as they are, with one phrase.
func refused(m Method, user string, err error) error {
	said, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return fmt.Errorf("authenticate with server: %w", err)
	}
	if !strings.HasPrefix(said.Code, "28") {
		return err
	}
	if m.Kind == KindMD5 || m.Kind == KindPassword {
		return fatal(said.Code, wordsAny, fmt.Sprintf("password authentication failed for user \"%s\"", plainName(user))).because(err)
	}
	return fatal(said.Code, wordsBackend, said.Message).because(err)
}

// babble is a server that does not speak the protocol.
func babble(err error) *Error {
	return fatal(stateProtocol, wordsBackend, "malformed authentication message of the server: "+err.Error())
}

// malformed is a client that does not speak the protocol.
func malformed(message string, err error) *Error {
	return fatal(stateProtocol, message, err.Error())
}

// NoHBAEntry is pool_hba.conf letting nobody in who comes this way: E15.
func NoHBAEntry(c Client) *Error {
	ssl := "off"
	if c.SSL {
		ssl = "on"
	}
	return fatal(stateNotAuthorized, wordsClient, fmt.Sprintf("no pool_hba.conf entry for host \"%s\", user \"%s\", database \"%s\", SSL %s",
		c.Host, plainName(c.User), plainName(c.Database), ssl)).hint(hintLog)
}

// badCert is the pool_hba method cert over another's certificate or none: E19.
func badCert(c Client) *Error {
	e := fatal(stateNotAuthorized, "CERT authentication failed", "no valid certificate presented")
	if c.CertName != "" {
		return e.hint(fmt.Sprintf("The certificate is for \"%s\".", plainName(c.CertName)))
	}
	return e
}

// certWanted is the pool_hba option clientcert that is not met.
func certWanted(c Client) *Error {
	if c.CertName == "" {
		return fatal(stateNotAuthorized, "connection requires a valid client certificate", "")
	}
	return fatal(stateNotAuthorized, wordsClient,
		fmt.Sprintf("the certificate is for \"%s\" and not for user \"%s\"", plainName(c.CertName), plainName(c.User)))
}

// BadHBAFile is a pool_hba.conf which could not be used: E22.
func BadHBAFile() *Error {
	return fatal(stateNotAuthorized, wordsClient, "missing or erroneous pool_hba.conf file").hint(hintLog)
}

// NotVouched is a user for whom the directory does not vouch: E21.
func NotVouched(c Client) *Error {
	return fatal(stateWrongPassword, wordsClient,
		fmt.Sprintf("LDAP authentication with pgpool failed for user \"%s\"", plainName(c.User))).hint(hintLog)
}

// NotVouchedPAM is a user for whom PAM does not vouch, with PAM's words: E20.
func NotVouchedPAM(words string) *Error {
	return fatal(stateWrongPassword, "failed authentication against PAM", words).hint(hintLog)
}

// notAsked is a pool_hba method this build cannot carry out.
func notAsked(method string) *Error {
	return fatal(stateUnsupported, wordsClient, fmt.Sprintf("authentication method \"%s\" of pool_hba.conf is not available", method)).hint(hintLog)
}

// plainName takes control bytes out of a name a client has given, since it
// goes into messages and logs.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, name)
}
