package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"

	"dray/mirror/reread"
)

// checkFiles reads the files of certificates, keys and the operators' token that the configuration
// names. So dray reports a missing file at the start, and not at the first request.
func (c Config) checkFiles(k *Report) {
	for i, l := range c.Listeners {
		if l.TLS.Certificate != "" && l.TLS.PrivateKey != "" {
			if _, err := l.TLS.load(); err != nil {
				k.Add(At("listeners", i)+".tls", "%v%s", err, l.TLS.remedy(err))
			}
		}
	}
	if c.Admin.TokenFile != "" {
		k.File("admin.token_file", c.Admin.TokenFile, notEmpty)
	}
	for i, u := range c.Upstreams {
		if u.TLS.CAFile != "" {
			k.File(At("upstreams", i)+".tls.ca_file", u.TLS.CAFile, hasCertificates)
		}
	}
	for i, a := range c.Auth {
		path := At("auth", i)
		if a.Token.RootCertBundle != "" {
			k.File(path+".token.root_cert_bundle", a.Token.RootCertBundle, hasCertificates)
		}
		if a.Token.JWKS != "" {
			k.File(path+".token.jwks", a.Token.JWKS, nil)
		}
	}
}

// load reads the certificate and the private key.
func (t ServerTLS) load() (tls.Certificate, error) {
	certificate, err := reread.ReadFile(t.Certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := reread.ReadFile(t.PrivateKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certificate, key)
}

// remedy says how to make files that are missing.
func (t ServerTLS) remedy(err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return "; put a certificate there, or make one: dray cert --host NAME --out-cert " + t.Certificate + " --out-key " + t.PrivateKey
}

// File reads a file and, if checkText is not nil, calls it with the content. It reports an error of
// either step as a problem with the setting whose key is in the parameter path, such as
// admin.token_file.
func (k *Report) File(path, name string, checkText func([]byte) error) {
	text, err := reread.ReadFile(name)
	if err == nil && checkText != nil {
		if err = checkText(text); err != nil {
			err = fmt.Errorf("%s %w", name, err)
		}
	}
	if err != nil {
		k.Add(path, "%v", err)
	}
}

func hasCertificates(pem []byte) error {
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return errors.New("contains no PEM certificate")
	}
	return nil
}

func notEmpty(text []byte) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("is empty")
	}
	return nil
}
