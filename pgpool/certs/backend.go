package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"pgpool-go/conf"
)

// Backend is how servers are met; nil, without TLS. If it is not required, a
// server that has none is spoken to in the clear.
func Backend(c *conf.Config) (cfg *tls.Config, required bool, err error) {
	mode := c.BackendSslmode
	if mode == conf.SslAuto && !c.Ssl || mode == conf.SslDisable {
		return nil, false, nil
	}
	believed, err := authorities(c)
	if err != nil {
		return nil, false, err
	}
	verify := mode == conf.SslVerifyCA || mode == conf.SslVerifyFull
	if verify && believed == nil {
		return nil, false, errors.New("backend_sslmode wants servers' certificates verified, but neither ssl_ca_cert nor ssl_ca_cert_dir is set")
	}
	cfg = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{Protocol}}
	if cfg.CipherSuites, err = ciphers(c.SslCiphers); err != nil {
		return nil, false, fmt.Errorf("ssl_ciphers: %w", err)
	}
	check, err := revoked(c)
	if err != nil {
		return nil, false, err
	}
	switch {
	case mode == conf.SslVerifyFull:
		cfg.RootCAs = believed
		cfg.VerifyConnection = func(state tls.ConnectionState) error { return check(state.VerifiedChains) }
	case verify || mode == conf.SslAuto && believed != nil:
		cfg.InsecureSkipVerify = true // the name; the rest is verified here
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			chains, err := chainsTo(believed, state.PeerCertificates)
			if err != nil {
				return err
			}
			return check(chains)
		}
	default:
		cfg.InsecureSkipVerify = true
	}
	return cfg, mode >= conf.SslRequire, nil
}

func chainsTo(believed *x509.CertPool, shown []*x509.Certificate) ([][]*x509.Certificate, error) {
	if len(shown) == 0 {
		return nil, errors.New("the server has shown no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	return shown[0].Verify(x509.VerifyOptions{Roots: believed, Intermediates: between})
}
