package auth

import (
	"crypto/md5"
	"encoding/hex"
)

// PasswordMD5 is the form pg_md5 prints and pcp.conf stores: the md5 of the
// password in lower-case hex.
func PasswordMD5(password string) string {
	sum := md5.Sum([]byte(password))
	return hex.EncodeToString(sum[:])
}

// StoredMD5 is the form PostgreSQL and pool_passwd store (pg_md5 -m): "md5" and
// the md5 of password and user name.
func StoredMD5(password, user string) string {
	return "md5" + PasswordMD5(password+user)
}

// saltedMD5 is the answer to an md5 request: what a server compares with its
// stored form and the salt it sent.
func saltedMD5(stored string, salt [4]byte) string {
	return "md5" + PasswordMD5(stored[len("md5"):]+string(salt[:]))
}

// isStoredMD5 tells whether text has the form StoredMD5 gives.
func isStoredMD5(text string) bool {
	if len(text) != len("md5")+2*md5.Size || text[:3] != "md5" {
		return false
	}
	_, err := hex.DecodeString(text[3:])
	return err == nil
}
