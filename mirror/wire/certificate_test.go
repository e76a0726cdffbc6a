package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// writeCertificate puts a new certificate and its key into a directory, as of a time.
func writeCertificate(t *testing.T, dir string, serial int64, modified time.Time) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, NotAfter: modified.Add(24 * time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: signed}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(certificate, modified, modified); err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// A certificate that was replaced is shown at once, also if its key is replaced last, and one that
// cannot be used never.
func TestCertificateIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		certificate, key := writeCertificate(t, dir, 1, time.Now())
		c, err := newReloading(certificate, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		shows := func(when string, serial int64) {
			t.Helper()
			pair, err := c.get(nil)
			if err != nil {
				t.Fatal(err)
			}
			if leaf, err := x509.ParseCertificate(pair.Certificate[0]); err != nil || leaf.SerialNumber.Int64() != serial {
				t.Errorf("%s: serial %v, want %d, %v", when, leaf.SerialNumber, serial, err)
			}
		}
		shows("at first", 1)
		writeCertificate(t, dir, 2, time.Now())
		shows("replaced", 2)
		sound, err := os.ReadFile(certificate)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(certificate, bytes.TrimSpace(sound[:len(sound)/2]), 0o600); err != nil {
			t.Fatal(err)
		}
		shows("half written", 2)
		next := t.TempDir()
		newCertificate, newKey := writeCertificate(t, next, 3, time.Now())
		if err := os.Rename(newCertificate, certificate); err != nil {
			t.Fatal(err)
		}
		shows("with the key of another", 2)
		if err := os.Rename(newKey, key); err != nil {
			t.Fatal(err)
		}
		shows("with its key", 3)
	})
}

// A certificate that cannot be read stops the start.
func TestCertificateAtTheStart(t *testing.T) {
	dir := t.TempDir()
	certificate, key := writeCertificate(t, dir, 1, time.Now())
	for name, pair := range map[string][2]string{"no certificate": {filepath.Join(dir, "none"), key}, "no key": {certificate, certificate}} {
		if _, err := NewServer(ServerOptions{Certificate: pair[0], PrivateKey: pair[1], Logger: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%s: it starts", name)
		}
	}
}
