package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"pgpool-go/conf"
)

// Protocol is the name by which PostgreSQL's protocol is asked for in a TLS
// handshake (ALPN).
const Protocol = "postgresql"

// Server is how clients are met; nil, without TLS, as where ssl_cert or ssl_key is
// not set. It shows ssl_cert, and where there are CA
// certificates, asking for one of theirs, which need not be given but must be
// good.
func Server(c *conf.Config) (*tls.Config, error) {
	if !c.Ssl || c.SslCert == "" || c.SslKey == "" {
		return nil, nil
	}
	own, err := keyPair(c)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{own},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{Protocol},
	}
	if cfg.CipherSuites, err = ciphers(c.SslCiphers); err != nil {
		return nil, fmt.Errorf("ssl_ciphers: %w", err)
	}
	if c.Explicit("ssl_ecdh_curve") { // else Go's own choice, which has what the default names
		if cfg.CurvePreferences, err = curves(c.SslEcdhCurve); err != nil {
			return nil, fmt.Errorf("ssl_ecdh_curve: %w", err)
		}
	}
	believed, err := authorities(c)
	if err != nil {
		return nil, err
	}
	if believed != nil {
		cfg.ClientCAs, cfg.ClientAuth = believed, tls.VerifyClientCertIfGiven
		check, err := revoked(c)
		if err != nil {
			return nil, err
		}
		cfg.VerifyConnection = func(state tls.ConnectionState) error { return check(state.VerifiedChains) }
	}
	return cfg, nil
}

// keyPair reads ssl_cert and ssl_key and sees that they belong together.
func keyPair(c *conf.Config) (tls.Certificate, error) {
	cert, err := os.ReadFile(c.Beside(c.SslCert))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("ssl_cert: %w", err)
	}
	key, err := readKey(c.Beside(c.SslKey), c.SslPassphraseCommand)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("ssl_key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("ssl_cert %q with ssl_key %q: %w", c.Beside(c.SslCert), c.Beside(c.SslKey), err)
	}
	return pair, nil
}

// authorities are the certificates of ssl_ca_cert and ssl_ca_cert_dir; nil, none
// are set.
func authorities(c *conf.Config) (*x509.CertPool, error) {
	var files []string
	if c.SslCaCert != "" {
		files = append(files, c.Beside(c.SslCaCert))
	}
	if c.SslCaCertDir != "" {
		dir := c.Beside(c.SslCaCertDir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("ssl_ca_cert_dir: %w", err)
		}
		for _, e := range entries { // OpenSSL looks for names made of hashes; we take all, so none is missed
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, nil
	}
	pool, found := x509.NewCertPool(), false
	for i, name := range files {
		text, err := os.ReadFile(name)
		switch {
		case err == nil && pool.AppendCertsFromPEM(text):
			found = true
		case i == 0 && c.SslCaCert != "": // a directory may hold other things besides
			if err == nil {
				err = fmt.Errorf("no certificate in file %q", name)
			}
			return nil, fmt.Errorf("ssl_ca_cert: %w", err)
		}
	}
	if !found {
		return nil, fmt.Errorf("ssl_ca_cert_dir: no certificate in %q", c.Beside(c.SslCaCertDir))
	}
	return pool, nil
}
