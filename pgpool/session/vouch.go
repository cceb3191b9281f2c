package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"pgpool-go/conf"
	"pgpool-go/pgpool/auth"
	"pgpool-go/pgpool/directory"
	"pgpool-go/pgpool/eventlog"
	"pgpool-go/pgpool/pam"
)

// vouched has those judge the password the client has given whom the rule names, if
// it does, and decides what servers are shown then.
func (s *Session) vouched(rule *conf.Rule, client auth.Client) error {
	var err error
	var word *auth.Error
	switch rule.Method {
	default:
		return nil
	case conf.MethodLDAP:
		s.task.Block(func() { err = directory.Check(rule.Options, s.user, s.cred.Password()) })
		word = auth.NotVouched(client)
	case conf.MethodPAM:
		err = s.askPAM(rule)
		var no *pam.Refusal
		if errors.As(err, &no) {
			word = auth.NotVouchedPAM(no.Words())
		}
	}
	if err != nil {
		s.log.LogAttrs(ctx, eventlog.Log, fmt.Sprintf("user was refused by line %d of pool_hba.conf", rule.Line), slog.Any("err", err))
		return word
	}
	// What PAM vouches for and pool_passwd does not know the servers may judge, too.
	own := rule.Method == conf.MethodPAM && client.Stored.Form() == auth.FormNone
	if !own && rule.Option("backend_use_passwd") != "1" {
		s.cred = client.Stored
	}
	return nil
}

func (s *Session) askPAM(rule *conf.Rule) (err error) {
	q := pam.Question{Service: rule.Option("pamservice"), User: s.user, Password: s.cred.Password()}
	if q.Service == "" {
		q.Service = pam.DefaultService
	}
	if s.port != "" {
		q.Host = s.host
	}
	s.task.Block(func() {
		if q.Host != "" && rule.Option("pam_use_hostname") == "1" {
			q.Host = hostName(q.Host)
		}
		err = pam.Check(q)
	})
	return err
}

// clientName is the client's address, or with log_hostname its name.
func (s *Session) clientName() string {
	if !s.cfg.LogHostname || s.port == "" {
		return s.host
	}
	var name string
	s.task.Block(func() { name = hostName(s.host) })
	return name
}

// hostName is the name of an address, or the address where it is not soon found. It
// blocks.
func hostName(addr string) string {
	limit, stop := context.WithTimeout(ctx, nameLimit)
	defer stop()
	if names, err := net.DefaultResolver.LookupAddr(limit, addr); err == nil && len(names) > 0 {
		return strings.TrimSuffix(names[0], ".")
	}
	return addr
}

// nameLimit bounds how long a client waits for its name to be found.
const nameLimit = 2 * time.Second
