// Package pam answers one question: do this machine's PAM modules vouch for this
// user and this password?
//
// It carries out a pam rule of pool_hba.conf as PostgreSQL does: the service's
// modules check the password and then whether the account may be used now. It
// keeps nothing and decides nothing else. libpam is reached by cgo, so the build
// tag pam says whether it is there; Available tells which build this is.
package pam

import (
	"fmt"
	"strings"
)

// DefaultService is asked where a rule names none, as in pgpool-II.
const DefaultService = "pgpool"

// Dir is where the files of services lie; empty, where the system has them.
// It is set before the first Check, by tests.
var Dir string

// Question is what the modules are to judge.
type Question struct {
	Service  string // a file in /etc/pam.d
	User     string
	Password string
	Host     string // the client's address or name; empty over a Unix socket
}

// Refusal is a user whom the modules do not let in. Nothing in it is the password.
type Refusal struct {
	Step string // the function of libpam that failed
	Err  error
	Said []string // what modules had to say, for the log
}

// Error tells all, for the log.
func (r *Refusal) Error() string {
	if len(r.Said) == 0 {
		return r.Words()
	}
	return r.Words() + " (" + strings.Join(r.Said, "; ") + ")"
}

// Words are for the user.
func (r *Refusal) Words() string { return fmt.Sprintf("%s failed: %v", r.Step, r.Err) }

func (r *Refusal) Unwrap() error { return r.Err }
