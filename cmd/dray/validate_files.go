package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"dray/mirror"
	"dray/upstream/ecr"
)

// checkFiles opens every file that the configuration names, so that a missing one stops the start and not the first request.
func (c Config) checkFiles() Problems {
	k := &check{}
	for i, l := range c.Listeners {
		if l.TLS.Certificate != "" && l.TLS.PrivateKey != "" {
			if _, err := tls.LoadX509KeyPair(l.TLS.Certificate, l.TLS.PrivateKey); err != nil {
				k.add(at("listeners", i)+".tls", "%v", err)
			}
		}
	}
	for i, u := range c.Upstreams {
		if u.TLS.CAFile != "" {
			k.file(at("upstreams", i)+".tls.ca_file", u.TLS.CAFile, hasCertificates)
		}
		if policy := u.CreateRepositories.LifecyclePolicy; policy != "" {
			k.file(at("upstreams", i)+".create_repositories.lifecycle_policy", policy, ecr.CheckLifecyclePolicy)
		}
	}
	for i, a := range c.Auth {
		path := at("auth", i)
		if a.HTPasswd.File != "" {
			if err := mirror.CheckHTPasswd(a.HTPasswd.File); err != nil {
				k.add(path+".htpasswd.file", "%v", err)
			}
		}
		if a.Token.RootCertBundle != "" {
			k.file(path+".token.root_cert_bundle", a.Token.RootCertBundle, hasCertificates)
		}
		if a.Token.JWKS != "" {
			k.file(path+".token.jwks", a.Token.JWKS, nil)
		}
	}
	return k.problems
}

// file reads the file at name and shows its content to good, where that is not nil.
func (k *check) file(path, name string, good func([]byte) error) {
	text, err := os.ReadFile(name)
	if err == nil && good != nil {
		if err = good(text); err != nil {
			err = fmt.Errorf("%s %w", name, err)
		}
	}
	if err != nil {
		k.add(path, "%v", err)
	}
}

func hasCertificates(pem []byte) error {
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return errors.New("holds no PEM certificate")
	}
	return nil
}
