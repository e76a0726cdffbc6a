package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// NearEnd is the time for which a certificate should still be valid. If its validity ends earlier,
// dray warns.
const NearEnd = 30 * 24 * time.Hour

// File is a certificate file that the configuration names.
type File struct {
	// Listener, Upstream and Auth name the entry that uses the file. Two of them are empty.
	Listener, Upstream, Auth string
	// Path is the path of the file. Key is the key under which the entry has this path.
	Path, Key string
}

// parse returns the certificates in the content of the file. For a listener, parse reads only the
// first certificate, and returns an error if it cannot parse this certificate. For authorities,
// parse skips the certificates that it cannot parse.
func (f File) parse(texts [][]byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(texts[0]); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err == nil:
			all = append(all, cert)
		case f.Listener != "":
			return nil, err
		}
		if f.Listener != "" {
			break
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the file contains no PEM certificate")
	}
	return all, nil
}

// current returns the certificate that decides whether dray can use the file now. For a listener,
// that is the first certificate in the file. While an authority is being replaced, its file has the
// old certificate and the new one. So for authorities, current prefers certificates whose validity
// has begun, and among equals the one that ends last.
func (f File) current(all []*x509.Certificate, now time.Time) *x509.Certificate {
	best := all[0]
	for _, cert := range all[1:] {
		if f.Listener == "" && better(cert, best, now) {
			best = cert
		}
	}
	return best
}

// better reports whether [File.current] prefers the authority a to the authority b. It prefers an
// authority whose validity has begun. If the validity of both or of neither has begun, it prefers
// the authority that ends later.
func better(a, b *x509.Certificate, now time.Time) bool {
	if begun := !now.Before(a.NotBefore); begun != !now.Before(b.NotBefore) {
		return begun
	}
	return a.NotAfter.After(b.NotAfter)
}

// Check reads the file. It returns an error unless the certificate that [File.current] returns is
// valid at the given time and for [NearEnd] after it.
func (f File) Check(now time.Time) error {
	return (&file{File: f}).Check(now)
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// effect says what happens while the certificate that [File.current] returns is not valid.
func (f File) effect() string {
	switch {
	case f.Listener != "":
		return "clients refuse to connect"
	case f.Upstream != "":
		return "dray trusts the registry only if an authority of the system vouches for it"
	}
	return "dray may refuse the tokens of clients"
}

func (f File) problem(format string, args ...any) error {
	what := "listener " + f.Listener
	switch {
	case f.Upstream != "":
		what = "upstream " + f.Upstream
	case f.Auth != "":
		what = "auth " + f.Auth
	}
	return errors.New(what + ": the certificate (" + f.Key + ") " + fmt.Sprintf(format, args...))
}
