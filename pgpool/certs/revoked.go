package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"pgpool-go/conf"
)

// check looks at the chains that lead from a peer's certificate to one we believe;
// one of them must be good. Without a certificate there are none.
type check func(chains [][]*x509.Certificate) error

// revoked is the check against ssl_crl_file. As in PostgreSQL, every certificate of the chain but its root must
// come from an issuer whose list is there.
func revoked(c *conf.Config) (check, error) {
	if c.SslCrlFile == "" {
		return func([][]*x509.Certificate) error { return nil }, nil
	}
	name := c.Beside(c.SslCrlFile)
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("ssl_crl_file: %w", err)
	}
	var lists []*x509.RevocationList
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ssl_crl_file %q: %w", name, err)
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, fmt.Errorf("ssl_crl_file: no revocation list in file %q", name)
	}
	return func(chains [][]*x509.Certificate) (err error) {
		for _, chain := range chains {
			if err = checkChain(chain, lists); err == nil {
				return nil
			}
		}
		return err
	}, nil
}

func checkChain(chain []*x509.Certificate, lists []*x509.RevocationList) error {
	for i := 0; i+1 < len(chain); i++ {
		if err := checkOne(chain[i], chain[i+1], lists); err != nil {
			return err
		}
	}
	return nil
}

func checkOne(cert, issuer *x509.Certificate, lists []*x509.RevocationList) error {
	listed := false
	for _, list := range lists {
		if !bytes.Equal(list.RawIssuer, issuer.RawSubject) || list.CheckSignatureFrom(issuer) != nil {
			continue
		}
		listed = true
		for _, r := range list.RevokedCertificateEntries {
			if r.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return fmt.Errorf("certificate %q has been revoked", cert.Subject.CommonName)
			}
		}
	}
	if !listed {
		return fmt.Errorf("ssl_crl_file has no list of %q", issuer.Subject.CommonName)
	}
	return nil
}
