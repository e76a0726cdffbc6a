// Package certificates creates certificates for listeners, and watches the certificates that the
// configuration names.
package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/replace"
	"dray/cmd/dray/usage"
)

// options are the flags of dray cert.
type options struct {
	hosts           []string
	outCert, outKey string
	force           bool
}

// Command returns the subcommand cert, which creates a certificate. It prints the result to stdout.
func Command(stdout io.Writer) *cobra.Command {
	var opts options
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Create a self-signed server certificate for a listener",
		Long: `cert creates a private key (ECDSA P-256) and a self-signed certificate that is
valid for one year.

Use such a certificate to try out TLS, or if you have no certificate authority.
Clients have to trust the certificate file itself. The certificate is valid for
the names and addresses of --host. cert ignores ports in --host.`,
		Example: "  dray cert --host dray.example.com --host 10.0.0.7 --out-cert cert.pem --out-key privkey.pem",
		Args:    usage.NoArguments,
		RunE: func(*cobra.Command, []string) error {
			sum, err := writeCertificate(opts, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(stdout, "certificate  %s\nprivate key  %s\nvalid for    %s, one year\nSHA-256      %x\n",
				opts.outCert, opts.outKey, strings.Join(opts.hosts, ", "), sum)
			return err
		},
	}
	cmd.Flags().StringArrayVar(&opts.hosts, "host", []string{"localhost", "127.0.0.1", "::1"}, "name or IP address that clients connect to (repeatable)")
	cmd.Flags().StringVar(&opts.outCert, "out-cert", "cert.pem", "file for the certificate")
	cmd.Flags().StringVar(&opts.outKey, "out-key", "privkey.pem", "file for the private key, which only its owner can read")
	cmd.Flags().BoolVar(&opts.force, "force", false, "overwrite existing files")
	return cmd
}

// writeCertificate makes the key and the certificate, writes their files, and returns the SHA-256
// fingerprint of the certificate.
func writeCertificate(opts options, now time.Time) ([sha256.Size]byte, error) {
	var none [sha256.Size]byte
	if filepath.Clean(opts.outCert) == filepath.Clean(opts.outKey) {
		return none, fmt.Errorf("--out-cert and --out-key both name %s; the certificate would replace the key, so name two files", opts.outCert)
	}
	if !opts.force {
		for _, name := range []string{opts.outCert, opts.outKey} {
			if _, err := os.Lstat(name); err == nil {
				return none, fmt.Errorf("file %s exists; use --force to overwrite it", name)
			}
		}
	}
	der, key, err := selfSigned(opts.hosts, now)
	if err != nil {
		return none, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return none, fmt.Errorf("encode private key: %w", err)
	}
	// The new key gets the mode 0600, even if it replaces a file that others can read.
	if err := replace.File(opts.outKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil, 0o600); err != nil {
		return none, err
	}
	if err := replace.File(opts.outCert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil, 0o644); err != nil {
		return none, err
	}
	return sha256.Sum256(der), nil
}

// selfSigned makes a server certificate that is its own authority. The certificate is valid for one
// year, so that every client accepts it. Apple's clients refuse certificates that are valid for
// more than 825 days, even from private authorities. The validity begins one hour before now, for
// clients whose clocks are slow.
func selfSigned(hosts []string, now time.Time) ([]byte, *ecdsa.PrivateKey, error) {
	if len(hosts) == 0 {
		return nil, nil, errors.New("no host for the certificate; set --host")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate private key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("generate serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"dray self-signed"}},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	for _, h := range hosts {
		if host, port, err := net.SplitHostPort(h); err == nil && strings.Trim(port, "0123456789") == "" {
			h = host // certificates have no ports
		}
		switch ip := net.ParseIP(h); {
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		case h == "" || strings.ContainsAny(h, ":/@ "):
			return nil, nil, fmt.Errorf("--host %q is not a host name or an IP address", h)
		default:
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, key, nil
}
