//go:build pam

package pam

import (
	"errors"
	"fmt"

	"github.com/msteinert/pam/v2"
)

// Available tells whether this build can ask PAM.
const Available = true

var errPrompt = errors.New("a module asks for something else than the password")

// Check is nil where the modules let the user in; else the error is a *Refusal. It
// blocks, with pam_unix for two seconds after a wrong password.
func Check(q Question) error {
	var said []string
	answer := func(style pam.Style, message string) (string, error) {
		switch style {
		case pam.PromptEchoOff:
			return q.Password, nil
		case pam.ErrorMsg:
			said = append(said, message)
			return "", nil
		case pam.TextInfo:
			return "", nil
		}
		said = append(said, fmt.Sprintf("%v: %q", errPrompt, message))
		return "", errPrompt
	}
	begin := pam.StartFunc
	if Dir != "" {
		begin = func(service, user string, f func(pam.Style, string) (string, error)) (*pam.Transaction, error) {
			return pam.StartConfDir(service, user, pam.ConversationFunc(f), Dir)
		}
	}
	t, err := begin(q.Service, q.User, answer)
	if err != nil {
		return &Refusal{"pam_start", err, said}
	}
	defer t.End()
	if q.Host != "" {
		if err := t.SetItem(pam.Rhost, q.Host); err != nil {
			return &Refusal{"pam_set_item", err, said}
		}
	}
	if err := t.Authenticate(0); err != nil {
		return &Refusal{"pam_authenticate", err, said}
	}
	if err := t.AcctMgmt(0); err != nil {
		return &Refusal{"pam_acct_mgmt", err, said}
	}
	return nil
}
