package fleet_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"dray/cache/fleet"
)

const otherSecret = "another secret of 32 characters or more"

func TestParseKeys(t *testing.T) {
	for text, want := range map[string]string{
		secret: "", secret + "\n": "", "\n" + secret + "\r\n" + otherSecret + "\n\n": "",
		"": "is empty", " \n": "is empty", "short": "fewer than 32", secret + "\nshort": "fewer than 32",
		secret + "\n" + otherSecret + "\n" + secret + secret: "more than 2",
	} {
		_, err := fleet.ParseKeys([]byte(text))
		switch {
		case err == nil && want != "", err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", text, err, want)
		case err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "short")):
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

// TestSecrets has a member ask another one, with each pair of files of secrets.
func TestSecrets(t *testing.T) {
	for _, c := range []struct {
		one, other string
		together   bool
	}{
		{secret, secret, true}, {secret, otherSecret, false},
		{secret + "\n" + otherSecret, secret, true},                      // the new one is added
		{secret + "\n" + otherSecret, otherSecret + "\n" + secret, true}, // then they are swapped
		{otherSecret + "\n" + secret, otherSecret, true},                 // then the old one is removed
		{otherSecret + "\n" + secret, secret, false},                     // a member was left behind
	} {
		leases, r := lasting(), newRegistry(1000)
		r.openAll()
		one := start(t, leases, "one", func(o *fleet.Options) { o.Keys = keysOf(t, c.one) })
		other := start(t, leases, "other", func(o *fleet.Options) { o.Keys = keysOf(t, c.other) })
		one.pull(r).ends()
		other.pull(r).ends()
		if asked := r.asked.Load(); c.together != (asked == 1) {
			t.Errorf("secrets %q and %q: the registry was asked %d times", c.one, c.other, asked)
		}
	}
}

// TestSign has a member verify what another one has signed, with each pair of files of secrets.
func TestSign(t *testing.T) {
	for _, c := range []struct {
		signs, verifies string
		want            bool
	}{
		{secret, secret, true}, {secret, otherSecret, false},
		{secret, secret + "\n" + otherSecret, true},                      // the new one is added
		{otherSecret + "\n" + secret, secret + "\n" + otherSecret, true}, // then they are swapped
		{secret + "\n" + otherSecret, otherSecret + "\n" + secret, true},
		{otherSecret + "\n" + secret, otherSecret, true}, // then the old one is removed
		{secret + "\n" + otherSecret, otherSecret, false},
	} {
		proof := keysOf(t, c.signs)().Sign([]byte("message"))
		k := keysOf(t, c.verifies)()
		if got := k.Verify([]byte("message"), proof); got != c.want {
			t.Errorf("signed with %q, verified with %q: %v", c.signs, c.verifies, got)
		}
		if k.Verify([]byte("massage"), proof) || k.Verify([]byte("message"), nil) || k.Verify([]byte("message"), proof[:16]) {
			t.Errorf("a false proof is valid with %q", c.verifies)
		}
	}
}

// TestStrangers connects without the secret, and by a former version of TLS.
func TestStrangers(t *testing.T) {
	leases, r := lasting(), newRegistry(1000)
	r.openAll()
	m := start(t, leases, "one", nil)
	m.pull(r).ends()
	try := func(c *tls.Config) (string, error) {
		transport := &http.Transport{TLSClientConfig: c}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+m.info.Address+"/blobs/"+string(r.digest)+"?from=0", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Dray-Protocol", "1")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		p, err := io.ReadAll(resp.Body)
		return string(p), err
	}
	ours := fleet.ClientTLS(keysOf(t, secret))
	if got, err := try(ours); err != nil || got != string(r.blob) {
		t.Errorf("with the secret: %d bytes, %v", len(got), err)
	}
	old := fleet.ClientTLS(keysOf(t, secret))
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	stranger := fleet.ClientTLS(keysOf(t, otherSecret))
	stranger.VerifyConnection = nil
	for name, c := range map[string]*tls.Config{
		"another secret": stranger, "no certificate": {InsecureSkipVerify: true}, "TLS 1.2": old,
	} {
		if got, err := try(c); err == nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if resp, err := http.Get("http://" + m.info.Address + "/blobs/" + string(r.digest)); err == nil {
		defer resp.Body.Close()
		if p, _ := io.ReadAll(resp.Body); resp.StatusCode == http.StatusOK || strings.Contains(string(p), string(r.blob)) {
			t.Errorf("plain HTTP: %s", resp.Status)
		}
	}
}

// TestRequests sends what no member sends.
func TestRequests(t *testing.T) {
	m := start(t, lasting(), "one", nil)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: fleet.ClientTLS(keysOf(t, secret))}}
	defer client.CloseIdleConnections()
	d := string(newRegistry(10).digest)
	for _, c := range []struct {
		method, path, protocol string
		want                   int
	}{
		{"GET", "/blobs/" + d + "?from=0", "", 426}, {"GET", "/blobs/" + d + "?from=0", "3", 426}, {"GET", "/blobs/" + d + "?from=0", "x", 426},
		{"GET", "/blobs/" + d + "?from=0", "2", 404}, {"HEAD", "/blobs/" + d + "?from=0", "1", 404},
		{"GET", "/blobs/" + d, "1", 400}, {"GET", "/blobs/" + d + "?from=-1", "1", 400}, {"GET", "/blobs/sha256:x?from=0", "1", 400},
		{"GET", "/", "1", 501}, {"POST", "/blobs/" + d + "?from=0", "1", 405},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+m.info.Address+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Dray-Protocol", c.protocol)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s with protocol %q: %s, want %d", c.method, c.path, c.protocol, resp.Status, c.want)
		}
	}
}
