package config

import "dray/cmd/dray/certificates"

// CertificateFiles returns the files with certificates: first those of the listeners, then those of
// auth, then those of the upstreams.
func (c Config) CertificateFiles() []certificates.File {
	var files []certificates.File
	for _, l := range c.Listeners {
		files = append(files, certificates.File{Listener: l.Name, Path: l.TLS.Certificate, Key: "tls.certificate"})
	}
	for _, a := range c.Auth {
		files = append(files, certificates.File{Auth: a.Name, Path: a.Token.RootCertBundle, Key: "token.root_cert_bundle"})
	}
	for _, u := range c.Upstreams {
		files = append(files, certificates.File{Upstream: u.Name, Path: u.TLS.CAFile, Key: "tls.ca_file"})
	}
	n := 0
	for _, f := range files {
		if f.Path != "" {
			files[n] = f
			n++
		}
	}
	return files[:n]
}
