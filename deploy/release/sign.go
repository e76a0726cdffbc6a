package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// checksums returns the lines of sha256sum for all files of a directory.
func checksums(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, e := range entries {
		body, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(body), e.Name())
	}
	return []byte(b.String()), nil
}

// sign returns a signature of body, and the public key that verifies it. The signature has the form
// of `openssl dgst -sha256 -sign`, in base64. `cosign verify-blob --key` also reads it. key is a
// PEM file with an unencrypted private key for ECDSA.
func sign(key string, body []byte) (signature, public []byte, err error) {
	text, err := os.ReadFile(key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing key: %w", err)
	}
	private, err := parseKey(text)
	if err != nil {
		return nil, nil, fmt.Errorf("signing key %s: %w; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one", key, err)
	}
	sum := sha256.Sum256(body)
	raw, err := ecdsa.SignASN1(rand.Reader, private, sum[:])
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, nil, err
	}
	return []byte(base64.StdEncoding.EncodeToString(raw) + "\n"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// parseKey reads a private key in PKCS #8 or SEC 1.
func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("no private key for ECDSA in PEM")
		}
		switch block.Type {
		case "EC PRIVATE KEY":
			return x509.ParseECPrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			if key, ok := key.(*ecdsa.PrivateKey); ok {
				return key, nil
			}
			return nil, fmt.Errorf("a %T, not one for ECDSA", key)
		}
		text = rest // skips the parameters of the curve
	}
}
