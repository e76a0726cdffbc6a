package config

import (
	"os"
	"strings"
	"testing"
	"time"

	"dray/cmd/dray/certificates"
)

// TestCertificatesNearTheirEnd: dray check prints a notice about each certificate that is invalid
// now or expires soon, wherever the configuration names it. It prints none about other
// certificates.
func TestCertificatesNearTheirEnd(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for name, tc := range map[string]struct {
		from, until time.Duration
		want        string
	}{
		"valid":         {-day, 31 * day, ""},
		"near its end":  {-300 * day, 29 * day, "expires on " + now.Add(29*day).UTC().Format("2006-01-02")},
		"expired":       {-300 * day, -time.Hour, "expired on "},
		"not yet valid": {3 * day, 300 * day, "is not valid before " + now.Add(3*day).UTC().Format("2006-01-02")},
	} {
		cert, key := keyPairFrom(t, now.Add(tc.from), now.Add(tc.until), "dray.example.com")
		for of, yaml := range map[string]string{
			"listener a: the certificate (tls.certificate) of ":    "listeners: [{name: a, address: '127.0.0.1:1', tls: {certificate: " + cert + ", private_key: " + key + "}}]",
			"upstream b: the certificate (tls.ca_file) of ":        "upstreams: [{name: b, url: 'https://127.0.0.1:1', tls: {ca_file: " + cert + "}}]",
			"auth c: the certificate (token.root_cert_bundle) of ": "listeners: [{address: '127.0.0.1:1', auth: c}]\nauth: [{name: c, token: {realm: 'https://t.example.com', service: s, issuer: i, root_cert_bundle: " + cert + "}}]",
		} {
			cfg, err := Load(write(t, "dray.yaml", yaml), nil)
			if err != nil {
				t.Fatal(err)
			}
			notices := strings.Join(cfg.Notices(), "\n")
			if told := strings.Contains(notices, of+cert+" "+tc.want); told != (tc.want != "") || tc.want == "" && strings.Contains(notices, of) {
				t.Errorf("%s, %s: %s", name, of, notices)
			}
		}
	}
}

// TestAuthoritiesBeforeTheirEnd: an expired authority causes no notice if its file also has a valid
// one, as while an operator replaces it.
func TestAuthoritiesBeforeTheirEnd(t *testing.T) {
	now := time.Now()
	old, _ := keyPairFrom(t, now.AddDate(-1, 0, 0), now.AddDate(0, 0, -1))
	next, _ := keyPairFrom(t, now.AddDate(0, 0, 1), now.AddDate(2, 0, 0))
	valid, _ := keyPair(t)
	bundle := func(paths ...string) string {
		var text strings.Builder
		for _, p := range paths {
			pem, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(pem)
		}
		return write(t, "ca.pem", text.String())
	}
	for _, tc := range []struct {
		path, want string
	}{
		{bundle(old, valid, next), ""},
		{bundle(next, valid), ""},
		{bundle(next, old), "expired on"},
		{bundle(old), "expired on"},
		{bundle(next), "is not valid before"},
		{write(t, "ca.pem", "no certificate"), "contains no PEM certificate"},
		{"/does/not/exist", "cannot be used: stat /does/not/exist"},
	} {
		err := certificates.File{Upstream: "b", Path: tc.path}.Check(now)
		if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v, want %q", err, tc.want)
		}
	}
}
