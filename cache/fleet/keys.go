package fleet

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

const (
	// MinSecret is the least length of a secret in bytes. Anybody who connects to a member sees a
	// public key that is made from the secret, and can try secrets against it. So a secret has to be
	// random.
	MinSecret = 32
	// maxSecrets is how many secrets are valid at a time: one, or two while the secret is replaced.
	maxSecrets = 2
)

// Keys are the keys of a fleet, made from its secret, which is never sent. Each member has the same
// private key. In the TLS handshake, a member proves by this key that it knows the secret. While
// the secret is replaced, two secrets are valid: a member presents the key of the first secret, and
// accepts both keys.
type Keys struct {
	own     tls.Certificate
	trusted []ed25519.PublicKey
	signing [][]byte // keys for messages; the first one signs
}

// ParseKeys makes the keys from a file that has one secret in each line. The caller puts the name
// of the file before the text of an error. The errors do not show the secrets.
func ParseKeys(text []byte) (*Keys, error) {
	k := &Keys{}
	for line := range bytes.Lines(text) {
		secret := bytes.TrimSpace(line)
		if len(secret) == 0 {
			continue
		}
		if len(secret) < MinSecret {
			return nil, fmt.Errorf("has a secret of fewer than %d characters; make one by: openssl rand -base64 32", MinSecret)
		}
		if len(k.trusted) == maxSecrets {
			return nil, fmt.Errorf("has more than %d secrets", maxSecrets)
		}
		if err := k.add(secret); err != nil {
			return nil, err
		}
	}
	if len(k.trusted) == 0 {
		return nil, errors.New("is empty")
	}
	return k, nil
}

func (k *Keys) add(secret []byte) error {
	seed, err := hkdf.Key(sha256.New, secret, nil, "dray fleet member key 1", ed25519.SeedSize)
	if err != nil {
		return err
	}
	private := ed25519.NewKeyFromSeed(seed)
	public, _ := private.Public().(ed25519.PublicKey)
	k.trusted = append(k.trusted, public)
	signing, err := hkdf.Key(sha256.New, secret, nil, "dray fleet message key 1", sha256.Size)
	if err != nil {
		return err
	}
	k.signing = append(k.signing, signing)
	if len(k.trusted) > 1 {
		return nil
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(100, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return err
	}
	k.own = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
	return nil
}

// Sign returns the proof that somebody who knows the secret wrote a message: the HMAC-SHA-256 of
// the message by a key that is made from the first secret.
func (k *Keys) Sign(message []byte) []byte { return sum(k.signing[0], message) }

// Verify reports whether one of the secrets gives this proof for the message.
func (k *Keys) Verify(message, proof []byte) bool {
	return slices.ContainsFunc(k.signing, func(key []byte) bool { return hmac.Equal(sum(key, message), proof) })
}

func sum(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

var errStranger = errors.New("the other side does not know the secret of this fleet")

// verify accepts a peer whose public key is trusted. The handshake has shown that the peer has the
// private key. Nothing else in the certificate counts.
func (k *Keys) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errStranger
	}
	public, _ := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	for _, trusted := range k.trusted {
		if subtle.ConstantTimeCompare(public, trusted) == 1 {
			return nil
		}
	}
	return errStranger
}

// serverTLS returns the settings for connections from other members. Each handshake uses the keys
// that are valid at that time.
func serverTLS(keys func() *Keys) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &keys().own, nil },
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error { return keys().verify(s) },
	}
}

// clientTLS returns the settings for connections to other members.
func clientTLS(keys func() *Keys) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &keys().own, nil },
		InsecureSkipVerify:   true, // VerifyConnection compares the key instead; names and authorities say nothing here
		VerifyConnection:     func(s tls.ConnectionState) error { return keys().verify(s) },
	}
}
