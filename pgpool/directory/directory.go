// Package directory answers one question: does the LDAP server vouch for this user
// and this password?
//
// It carries out the options of an ldap rule of pool_hba.conf, which conf has
// checked, as PostgreSQL does: a bind to a name made of prefix, user and suffix, or
// a search for the user and a bind to what is found. It keeps no connection and
// decides nothing else; a new option of such rules belongs here and in conf.
package directory

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// limit bounds each step: to connect, and every answer.
const limit = 10 * time.Second

// Check is nil where the directory lets the user in. Options are those of the rule,
// by name. It blocks. The error is for the log and names no password.
func Check(options map[string]string, user, password string) error {
	if password == "" {
		return errors.New("empty password") // by which LDAP would let in anybody
	}
	server, err := connect(options)
	if err != nil {
		return err
	}
	defer server.Close()
	name := options["ldapprefix"] + ldap.EscapeDN(user) + options["ldapsuffix"]
	if options["ldapbasedn"] != "" {
		if name, err = find(server, options, user); err != nil {
			return err
		}
	}
	if err := server.Bind(name, password); err != nil {
		return fmt.Errorf("LDAP login failed for user %q: %w", name, err)
	}
	return nil
}

// connect reaches the first of the servers that answers.
func connect(options map[string]string) (*ldap.Conn, error) {
	scheme, port := options["ldapscheme"], options["ldapport"]
	if scheme == "" {
		scheme = "ldap"
	}
	if port == "" {
		port = map[string]string{"ldap": "389", "ldaps": "636"}[scheme]
	}
	var failed error
	for _, host := range strings.Fields(options["ldapserver"]) {
		cfg := &tls.Config{ServerName: host}
		server, err := ldap.DialURL(scheme+"://"+net.JoinHostPort(host, port), ldap.DialWithDialer(&net.Dialer{Timeout: limit}), ldap.DialWithTLSConfig(cfg))
		if err == nil {
			server.SetTimeout(limit)
			if options["ldaptls"] != "1" {
				return server, nil
			}
			if err = server.StartTLS(cfg); err == nil {
				return server, nil
			}
			server.Close()
		}
		failed = errors.Join(failed, fmt.Errorf("LDAP server %s: %w", host, err))
	}
	return nil, failed
}

// find searches for the user's entry, of which there must be one.
func find(server *ldap.Conn, options map[string]string, user string) (string, error) {
	var err error
	if who := options["ldapbinddn"]; who != "" && options["ldapbindpasswd"] != "" {
		err = server.Bind(who, options["ldapbindpasswd"])
	} else {
		err = server.UnauthenticatedBind(who)
	}
	if err != nil {
		return "", fmt.Errorf("LDAP bind for the search as %q: %w", options["ldapbinddn"], err)
	}
	result, err := server.Search(ldap.NewSearchRequest(options["ldapbasedn"], scope(options["ldapscope"]), ldap.NeverDerefAliases,
		2, int(limit.Seconds()), false, filter(options, user), []string{"1.1"}, nil)) // 1.1: the names alone
	switch {
	case err != nil:
		return "", fmt.Errorf("LDAP search: %w", err)
	case len(result.Entries) != 1:
		return "", fmt.Errorf("LDAP search for user %q found %d entries", user, len(result.Entries))
	}
	return result.Entries[0].DN, nil
}

func scope(word string) int {
	switch word {
	case "base":
		return ldap.ScopeBaseObject
	case "one":
		return ldap.ScopeSingleLevel
	}
	return ldap.ScopeWholeSubtree
}

// filter is what to search for; the user's name means nothing in it but itself.
func filter(options map[string]string, user string) string {
	user = ldap.EscapeFilter(user)
	if f := options["ldapsearchfilter"]; f != "" {
		return strings.ReplaceAll(f, "$username", user)
	}
	attribute := options["ldapsearchattribute"]
	if attribute == "" {
		attribute = "uid"
	}
	return "(" + attribute + "=" + user + ")"
}
