package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// suite is a cipher of TLS 1.2 with the name OpenSSL knows it by and the groups
// OpenSSL's lists may name it with.
type suite struct {
	id     uint16
	name   string
	groups string
}

// suites are those of crypto/tls in the order it prefers. 3DES and RC4 are not
// among them: nobody may want them any more.
var suites = []suite{
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", "HIGH ECDHE EECDH kEECDH kECDHE aECDSA ECDSA AES AES128 AESGCM SHA256 TLSv1.2"},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", "HIGH ECDHE EECDH kEECDH kECDHE aRSA RSA AES AES128 AESGCM SHA256 TLSv1.2"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", "HIGH ECDHE EECDH kEECDH kECDHE aECDSA ECDSA AES AES256 AESGCM SHA384 TLSv1.2"},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", "HIGH ECDHE EECDH kEECDH kECDHE aRSA RSA AES AES256 AESGCM SHA384 TLSv1.2"},
	{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", "HIGH ECDHE EECDH kEECDH kECDHE aECDSA ECDSA CHACHA20 TLSv1.2"},
	{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", "HIGH ECDHE EECDH kEECDH kECDHE aRSA RSA CHACHA20 TLSv1.2"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "ECDHE-ECDSA-AES128-SHA", "HIGH ECDHE EECDH kEECDH kECDHE aECDSA ECDSA AES AES128 SHA SHA1 TLSv1"},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "ECDHE-RSA-AES128-SHA", "HIGH ECDHE EECDH kEECDH kECDHE aRSA RSA AES AES128 SHA SHA1 TLSv1"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, "ECDHE-ECDSA-AES256-SHA", "HIGH ECDHE EECDH kEECDH kECDHE aECDSA ECDSA AES AES256 SHA SHA1 TLSv1"},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "ECDHE-RSA-AES256-SHA", "HIGH ECDHE EECDH kEECDH kECDHE aRSA RSA AES AES256 SHA SHA1 TLSv1"},
	{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, "AES128-GCM-SHA256", "HIGH kRSA aRSA RSA AES AES128 AESGCM SHA256 TLSv1.2"},
	{tls.TLS_RSA_WITH_AES_256_GCM_SHA384, "AES256-GCM-SHA384", "HIGH kRSA aRSA RSA AES AES256 AESGCM SHA384 TLSv1.2"},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA, "AES128-SHA", "HIGH kRSA aRSA RSA AES AES128 SHA SHA1 SSLv3"},
	{tls.TLS_RSA_WITH_AES_256_CBC_SHA, "AES256-SHA", "HIGH kRSA aRSA RSA AES AES256 SHA SHA1 SSLv3"},
}

// in tells whether one word of a list names the suite.
func (s suite) in(word string) bool {
	return word == "ALL" || word == "DEFAULT" || word == s.name || slices.Contains(strings.Fields(s.groups), word)
}

// ciphers reads an OpenSSL cipher list: words of names and groups, joined by +
// where all must hold, and before them ! for never, - for not, + for later. The
// order is crypto/tls's to choose, so + does nothing. The ciphers of TLS 1.3 are
// always there.
func ciphers(list string) ([]uint16, error) {
	var chosen, never []uint16
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(": ,;", r) }) {
		op := word[0]
		if strings.IndexByte("!-+", op) >= 0 {
			word = word[1:]
		}
		if word == "" || word[0] == '@' || op == '+' {
			continue // @STRENGTH and the like are about the order
		}
		parts := strings.Split(word, "+")
		for _, s := range suites {
			if slices.ContainsFunc(parts, func(p string) bool { return !s.in(p) }) {
				continue
			}
			switch {
			case op == '!':
				never = append(never, s.id)
			case op == '-':
				chosen = slices.DeleteFunc(chosen, func(id uint16) bool { return id == s.id })
			case !slices.Contains(chosen, s.id):
				chosen = append(chosen, s.id)
			}
		}
	}
	chosen = slices.DeleteFunc(chosen, func(id uint16) bool { return slices.Contains(never, id) })
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no cipher of %q is available", list)
	}
	return chosen, nil
}

// curves reads a list of groups by the names OpenSSL gives them.
func curves(list string) ([]tls.CurveID, error) {
	var out []tls.CurveID
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(": ,", r) }) {
		id, ok := curveNames[strings.ToLower(name)]
		if !ok {
			return nil, fmt.Errorf("unrecognized curve %q; available: prime256v1, secp384r1, secp521r1, X25519, X25519MLKEM768", name)
		}
		out = append(out, id)
	}
	return out, nil
}

var curveNames = map[string]tls.CurveID{
	"prime256v1": tls.CurveP256, "p-256": tls.CurveP256, "secp256r1": tls.CurveP256,
	"secp384r1": tls.CurveP384, "p-384": tls.CurveP384,
	"secp521r1": tls.CurveP521, "p-521": tls.CurveP521,
	"x25519": tls.X25519, "x25519mlkem768": tls.X25519MLKEM768,
}
