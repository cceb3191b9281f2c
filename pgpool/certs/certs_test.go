package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgpool-go/conf"
)

// openssl makes what the files of an operator are made with.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func load(t *testing.T, dir string, lines ...string) *conf.Config {
	t.Helper()
	path := filepath.Join(dir, "pgpool.conf")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := conf.Load(conf.Paths{Conf: path})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Keys as openssl writes them, in the clear and encrypted in each of its ways.
func TestKeys(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	openssl(t, dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "plain.key", "-out", "cert.pem", "-subj", "/CN=localhost")
	openssl(t, dir, "pkcs8", "-topk8", "-in", "plain.key", "-passout", "pass:two words", "-out", "pkcs8.key")
	openssl(t, dir, "pkcs8", "-topk8", "-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1", "-in", "plain.key", "-passout", "pass:two words", "-out", "sha1.key")
	openssl(t, dir, "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", "-in", "plain.key", "-passout", "pass:two words", "-out", "sha512.key")
	openssl(t, dir, "ec", "-in", "plain.key", "-aes256", "-passout", "pass:two words", "-out", "legacy.key")
	for _, tc := range []struct{ key, command, want string }{
		{"plain.key", "", ""},
		{"pkcs8.key", "echo two words", ""},
		{"sha1.key", "echo two words; echo and more", ""},
		{"sha512.key", `test "%p" = "Enter PEM pass phrase:" && echo two words && test 100%% = 100%%`, ""},
		{"legacy.key", "echo two words", ""},
		{"pkcs8.key", "echo other words", "wrong pass phrase"},
		{"legacy.key", "echo other words", "decryption"},
		{"pkcs8.key", "", "ssl_passphrase_command is not set"},
		{"pkcs8.key", "echo two words; exit 3", "exit status 3"},
		{"missing.key", "", "no such file"},
		{"cert.pem", "", "private key"},
	} {
		_, err := Server(load(t, dir, "ssl = on", "ssl_cert = cert.pem", "ssl_key = "+tc.key, "ssl_passphrase_command = '"+tc.command+"'"))
		switch {
		case (err == nil) != (tc.want == ""), err != nil && !strings.Contains(err.Error(), tc.want):
			t.Errorf("%s with %q: %v, want %q", tc.key, tc.command, err, tc.want)
		case err != nil && strings.Contains(err.Error(), "two words"):
			t.Errorf("%s: the pass phrase is in the error: %v", tc.key, err)
		}
	}
	for _, tc := range []struct{ line, want string }{
		{"ssl_ca_cert = nowhere", "ssl_ca_cert: open"},
		{"ssl_ca_cert = plain.key", "no certificate in file"},
		{"ssl_ca_cert_dir = .", ""},
		{"ssl_ca_cert_dir = nowhere", "ssl_ca_cert_dir: open"},
		{"ssl_ciphers = NULL", "no cipher of"},
		{"ssl_ecdh_curve = curve1", "unrecognized curve"},
		{"ssl_ecdh_curve = 'X25519:secp384r1'", ""},
		{"ssl_cert = ''", ""}, // no TLS for clients then
	} {
		cfg, err := Server(load(t, dir, "ssl = on", "ssl_cert = cert.pem", "ssl_key = plain.key", tc.line))
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.line, err, tc.want)
		}
		if tc.line == "ssl_cert = ''" && cfg != nil {
			t.Error("TLS without a certificate")
		}
	}
	if _, _, err := Backend(load(t, dir, "backend_sslmode = verify-full")); err == nil {
		t.Error("verified, by nothing")
	}
}

func TestCiphers(t *testing.T) {
	for list, want := range map[string]string{
		"HIGH:MEDIUM:+3DES:!aNULL":                        "14",
		"ECDHE+AESGCM":                                    "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384",
		"ALL:!kRSA:!SHA:-CHACHA20:!aECDSA":                "ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384",
		"AES128-SHA, ECDHE-RSA-CHACHA20-POLY1305 UNKNOWN": "ECDHE-RSA-CHACHA20-POLY1305 AES128-SHA",
		"AES128-SHA:!AES128-SHA:@STRENGTH":                "",
		"RC4:3DES:eNULL":                                  "",
	} {
		ids, err := ciphers(list)
		if (err != nil) != (want == "") {
			t.Errorf("%s: %v", list, err)
			continue
		}
		var names []string
		for _, s := range suites {
			if slices.Contains(ids, s.id) {
				names = append(names, s.name)
			}
		}
		if got := strings.Join(names, " "); got != want && !(want == "14" && len(names) == 14) {
			t.Errorf("%s: %s", list, got)
		}
	}
	known := map[uint16]bool{}
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		known[s.ID] = true
	}
	for _, s := range suites {
		if !known[s.id] {
			t.Errorf("%s: Go has no suite %x", s.name, s.id)
		}
	}
}

// What logins are bound to, as openssl computes it.
func TestEndPoint(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	for digest, size := range map[string]int{"sha1": 32, "sha256": 32, "sha384": 48, "sha512": 64} {
		openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-"+digest, "-nodes", "-keyout", "k", "-out", "c.pem", "-subj", "/CN=x")
		text, err := os.ReadFile(filepath.Join(dir, "c.pem"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := EndPoint(cert); len(got) != size {
			t.Errorf("%s: %d bytes", digest, len(got))
		}
	}
	openssl(t, dir, "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "k", "-out", "c.pem", "-subj", "/CN=x")
	text, _ := os.ReadFile(filepath.Join(dir, "c.pem"))
	block, _ := pem.Decode(text)
	if cert, err := x509.ParseCertificate(block.Bytes); err != nil || EndPoint(cert) != nil {
		t.Errorf("ed25519: %v", err)
	}
}

// A pass phrase and damaged files never make the reader of keys fall over.
func FuzzEncryptedKey(f *testing.F) {
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		if _, err := decryptPKCS8(der, []byte("x")); err == nil {
			t.Skip("somebody has guessed")
		}
	})
}
