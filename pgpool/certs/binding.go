package certs

import (
	"crypto"
	_ "crypto/sha256" // for the hashes below
	_ "crypto/sha512"
	"crypto/x509"
)

// EndPoint is what SCRAM-SHA-256-PLUS binds a login to, tls-server-end-point (RFC
// 5929): the hash of the certificate the server has shown; nil where none is
// defined.
func EndPoint(cert *x509.Certificate) []byte {
	if cert == nil {
		return nil
	}
	h := crypto.SHA256 // also in the place of MD5 and SHA-1
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		h = crypto.SHA512
	case x509.PureEd25519, x509.UnknownSignatureAlgorithm:
		return nil
	}
	sum := h.New()
	sum.Write(cert.Raw)
	return sum.Sum(nil)
}
