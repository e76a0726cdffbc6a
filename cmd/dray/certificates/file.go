package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// NearEnd is the time before the end of a certificate's validity in which dray warns.
const NearEnd = 30 * 24 * time.Hour

// File is a file with certificates that the configuration names.
type File struct {
	// Listener, Upstream and Auth name the entry that uses the file. Two of them are empty.
	Listener, Upstream, Auth string
	// Path is the file, and Key is its key in the entry.
	Path, Key string
}

// Current reads the file and returns the certificate that decides whether the file can be used at
// the time now. For a listener, that is the first certificate in the file. While an authority is
// being replaced, the file has its old and its new certificate. So for a file of authorities,
// Current returns the certificate that ends last among those whose validity has begun. If no
// validity has begun, it returns the certificate that ends last.
func (f File) Current(now time.Time) (*x509.Certificate, error) {
	text, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, err
	}
	var best *x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil && f.Listener != "":
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		case err != nil: // skip this certificate; the other authorities count
		case f.Listener != "":
			return cert, nil
		case best == nil || better(cert, best, now):
			best = cert
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%s contains no PEM certificate", f.Path)
	}
	return best, nil
}

// better reports whether [File.Current] prefers the authority a to b. It prefers an authority whose
// validity has begun. If this does not decide, it prefers the authority that ends later.
func better(a, b *x509.Certificate, now time.Time) bool {
	if begun := !now.Before(a.NotBefore); begun != !now.Before(b.NotBefore) {
		return begun
	}
	return a.NotAfter.After(b.NotAfter)
}

// Check returns an error if the file has no certificate that is valid at the time now and for
// [NearEnd] after it.
func (f File) Check(now time.Time) error {
	cert, err := f.Current(now)
	switch {
	case err != nil:
		return f.problem("cannot be used: %v", err)
	case now.Before(cert.NotBefore):
		return f.problem("of %s is not valid before %s, so %s until then", f.Path, date(cert.NotBefore), f.effect())
	case now.After(cert.NotAfter):
		return f.problem("of %s expired on %s, so %s; replace the file, and dray reads it again by itself", f.Path, date(cert.NotAfter), f.effect())
	case cert.NotAfter.Sub(now) <= NearEnd:
		return f.problem("of %s expires on %s; replace the file before, and dray reads it again by itself", f.Path, date(cert.NotAfter))
	}
	return nil
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// effect says what happens while the certificates of the file are not valid.
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
