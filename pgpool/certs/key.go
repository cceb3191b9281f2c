package certs

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"os"
	"os/exec"
	"strings"
	"time"
)

// prompt is what takes the place of %p in ssl_passphrase_command, as OpenSSL asks.
const prompt = "Enter PEM pass phrase:"

// commandLimit bounds how long that command may take.
const commandLimit = time.Minute

// readKey reads a private key's PEM file. If the key is encrypted, command prints
// its pass phrase.
func readKey(path, command string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return text, nil // nothing encrypted: whether it is a key, others will see
		}
		legacy := strings.HasPrefix(block.Headers["Proc-Type"], "4,ENCRYPTED")
		if !legacy && block.Type != "ENCRYPTED PRIVATE KEY" {
			continue
		}
		phrase, err := passPhrase(command)
		if err != nil {
			return nil, err
		}
		var der []byte
		kind := "PRIVATE KEY"
		if legacy {
			kind = block.Type
			der, err = x509.DecryptPEMBlock(block, phrase) //nolint:staticcheck // weak, but keys are kept so
		} else {
			der, err = decryptPKCS8(block.Bytes, phrase)
		}
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", path, err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), nil
	}
}

// passPhrase is the first line that the command prints.
func passPhrase(command string) ([]byte, error) {
	if command == "" {
		return nil, errors.New("the key is encrypted, but ssl_passphrase_command is not set")
	}
	command = strings.NewReplacer("%%", "%", "%p", prompt).Replace(command)
	ctx, stop := context.WithTimeout(context.Background(), commandLimit)
	defer stop()
	out, err := exec.CommandContext(ctx, "/bin/sh", "-c", command).Output()
	if err != nil {
		return nil, fmt.Errorf("ssl_passphrase_command: %w", err) // never what it printed
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

// PKCS#8's encrypted form (RFC 5958) with PBES2 (RFC 8018), which is what openssl
// writes.
type encryptedKey struct {
	Algorithm algorithm
	Data      []byte
}

type algorithm struct {
	ID         asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type pbes2 struct{ Derive, Cipher algorithm }

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLen     int       `asn1:"optional"`
	PRF        algorithm `asn1:"optional"`
}

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}

	hashes = map[string]func() hash.Hash{
		"":                    sha1.New, // when it is left out
		"1.2.840.113549.2.7":  sha1.New,
		"1.2.840.113549.2.9":  sha256.New,
		"1.2.840.113549.2.10": sha512.New384,
		"1.2.840.113549.2.11": sha512.New,
	}
	keySizes = map[string]int{ // of AES in CBC mode
		"2.16.840.1.101.3.4.1.2":  16,
		"2.16.840.1.101.3.4.1.22": 24,
		"2.16.840.1.101.3.4.1.42": 32,
	}
)

var (
	errForeign = errors.New("the key is encrypted in a way that is not known here: PKCS#8 with PBKDF2 and AES-CBC is")
	errPhrase  = errors.New("wrong pass phrase")
)

// maxKeyRounds bounds what a damaged file may cost.
const maxKeyRounds = 10_000_000

func decryptPKCS8(der, phrase []byte) ([]byte, error) {
	var outer encryptedKey
	var scheme pbes2
	var kdf pbkdf2Params
	var iv []byte
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, err
	}
	if !outer.Algorithm.ID.Equal(oidPBES2) {
		return nil, errForeign
	}
	if _, err := asn1.Unmarshal(outer.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return nil, err
	}
	if !scheme.Derive.ID.Equal(oidPBKDF2) {
		return nil, errForeign
	}
	if _, err := asn1.Unmarshal(scheme.Derive.Parameters.FullBytes, &kdf); err != nil {
		return nil, err
	}
	h, known := hashes[kdf.PRF.ID.String()]
	size, known2 := keySizes[scheme.Cipher.ID.String()]
	if !known || !known2 || kdf.Iterations < 1 || kdf.Iterations > maxKeyRounds {
		return nil, errForeign
	}
	if _, err := asn1.Unmarshal(scheme.Cipher.Parameters.FullBytes, &iv); err != nil {
		return nil, err
	}
	if len(iv) != aes.BlockSize || len(outer.Data) == 0 || len(outer.Data)%aes.BlockSize != 0 {
		return nil, errForeign
	}
	key, err := pbkdf2.Key(h, string(phrase), kdf.Salt, kdf.Iterations, size)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(outer.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, outer.Data)
	n := int(plain[len(plain)-1])
	if n == 0 || n > aes.BlockSize || !bytes.Equal(plain[len(plain)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, errPhrase
	}
	plain = plain[:len(plain)-n]
	if _, err := x509.ParsePKCS8PrivateKey(plain); err != nil {
		return nil, errPhrase
	}
	return plain, nil
}
