package auth

import (
	"container/list"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// scramKeys are the keys of one password under one salt and iteration count.
type scramKeys struct {
	client, stored, server Key
}

// keyCache keeps the keys of recent logins, since deriving them costs a
// millisecond on purpose. It holds neither passwords nor their plain hashes.
type keyCache struct {
	limit int

	mu     sync.Mutex
	byName map[keyName]*list.Element // of *keyEntry
	recent *list.List                // front: used last
}

// keyName stands for password, salt and iteration count.
type keyName [sha256.Size]byte

type keyEntry struct {
	name keyName
	// keys derives once; logins that come together wait for one derivation.
	keys func() (scramKeys, error)
}

// salted serves every login of the process: 2048 entries of some 300 bytes.
var salted = newKeyCache(2048)

func newKeyCache(limit int) *keyCache {
	return &keyCache{limit: limit, byName: make(map[keyName]*list.Element), recent: list.New()}
}

// keys returns the keys of a password, derived now or before.
func (c *keyCache) keys(password string, salt []byte, iterations int) (scramKeys, error) {
	return c.entry(password, salt, iterations).keys()
}

func (c *keyCache) entry(password string, salt []byte, iterations int) *keyEntry {
	name := nameKeys(password, salt, iterations)
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.byName[name]; ok {
		c.recent.MoveToFront(at)
		return at.Value.(*keyEntry)
	}
	salt = append([]byte(nil), salt...) // the caller's may lie in a read buffer
	e := &keyEntry{name: name, keys: sync.OnceValues(func() (scramKeys, error) {
		return deriveKeys(password, salt, iterations)
	})}
	c.byName[name] = c.recent.PushFront(e)
	if c.recent.Len() > c.limit {
		oldest := c.recent.Remove(c.recent.Back()).(*keyEntry)
		delete(c.byName, oldest.name)
	}
	return e
}

func nameKeys(password string, salt []byte, iterations int) keyName {
	mac := hmac.New(sha256.New, processSecret[:])
	var head [9]byte
	head[0] = 'k'
	binary.BigEndian.PutUint32(head[1:], uint32(iterations))
	binary.BigEndian.PutUint32(head[5:], uint32(len(salt)))
	mac.Write(head[:])
	mac.Write(salt)
	mac.Write([]byte(password))
	return keyName(mac.Sum(nil))
}

// deriveKeys is RFC 5802's key derivation with SHA-256.
func deriveKeys(password string, salt []byte, iterations int) (k scramKeys, err error) {
	saltedPassword, err := pbkdf2.Key(sha256.New, prepare(password), salt, iterations, sha256.Size)
	if err != nil {
		return k, err
	}
	k.client = sign(saltedPassword, "Client Key")
	k.server = sign(saltedPassword, "Server Key")
	k.stored = sha256.Sum256(k.client[:])
	return k, nil
}

func sign(key []byte, text string) Key {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return Key(mac.Sum(nil))
}
