package watchdog

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"pgpool-go/watchdog/election"
)

// A letter is what one node sends another: one of its parts is set.
type letter struct {
	Version  int
	Election *election.Message `json:",omitempty"`
	Order    *order            `json:",omitempty"`
	Done     *done             `json:",omitempty"`
	Settings *settings         `json:",omitempty"`
}

// letterVersion changes when a node could no longer understand another.
const letterVersion = 1

// encode cannot fail: there is nothing in a letter that has no JSON.
func (l letter) encode() []byte {
	l.Version = letterVersion
	b, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	return b
}

func decode(b []byte) (letter, error) {
	var l letter
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("unreadable: %w", err)
	}
	switch {
	case l.Version != letterVersion:
		return l, fmt.Errorf("of version %d, this pgpool understands %d", l.Version, letterVersion)
	case l == letter{Version: l.Version}:
		return l, errors.New("empty")
	}
	return l, nil
}

// key derives a key for one use from wd_authkey; nil without one.
func key(authkey, use string) []byte {
	if authkey == "" {
		return nil
	}
	k, err := hkdf.Key(sha256.New, []byte(authkey), nil, "pgpool-go "+use, 32)
	if err != nil {
		panic(err) // only for lengths that do not exist
	}
	return k
}
