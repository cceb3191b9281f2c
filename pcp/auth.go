package pcp

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
)

const (
	saltLen = 4
	maxName = 127 // bytes of a user name, and of a digest
)

func hexMD5(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// HashPassword is the form of a password that pcp.conf holds.
func HashPassword(password string) string { return hexMD5(password) }

// digest proves knowledge of a stored hash for one salt.
func digest(stored, user string, salt []byte) string {
	return hexMD5(hexMD5(stored+user) + string(salt))
}

func newSalt() []byte {
	salt := make([]byte, saltLen)
	rand.Read(salt)
	return salt
}

// login checks the proof in an R message. A salt is good for one attempt, and
// whoever fails is sent away.
func (c *conn) login(b []byte) error {
	salt := c.salt
	c.salt, c.user = nil, ""
	if salt == nil {
		return fatal("authentication failed", badLogin)
	}
	if i := bytes.IndexByte(b, 0); i < 0 || i > maxName {
		return fatal("failed to authenticate PCP user", "error while reading authentication packet")
	}
	v := values{rest: b}
	user, proof := v.text(), v.text()
	stored, err := c.opt.Credentials(user)
	if err != nil {
		if _, ok := errors.AsType[*Error](err); ok {
			return err
		}
		return fatal("failed to authenticate PCP user", err.Error())
	}
	// Each entry is tried, so that time does not tell which of them matched.
	ok := 0
	for _, s := range stored {
		ok |= subtle.ConstantTimeCompare([]byte(digest(s, user, salt)), []byte(proof))
	}
	if v.err != nil || ok == 0 || user == "" {
		return fatal(`authentication failed for user "`+user+`"`, badLogin)
	}
	c.user = user
	return nil
}

const badLogin = "username and/or password does not match"
