package watched

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"dray/upstream"
	"dray/upstream/ecrtest"
)

// replace puts a file in the place of another, as Kubernetes does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestAuthoritiesAreReadAgain has the certificate of an upstream come from another authority.
func TestAuthoritiesAreReadAgain(t *testing.T) {
	first, second := ecrtest.Start(t, ecrtest.Options{SelfSigned: true}), ecrtest.Start(t, ecrtest.Options{SelfSigned: true})
	path := filepath.Join(t.TempDir(), "ca.pem")
	replace(t, path, string(first.CAPEM))
	tr, err := NewTransport(upstream.TransportOptions{}, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.CloseIdleConnections()
	trusts := func(r *ecrtest.Running, want bool) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.RegistryURL+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != want {
			t.Errorf("%s: %v, want it trusted: %t", r.RegistryURL, err, want)
		}
	}
	trusts(first, true)
	trusts(second, false)
	replace(t, path, string(second.CAPEM))
	trusts(second, true)
	trusts(first, false)
	for _, broken := range []string{"", "no certificate"} {
		replace(t, path, broken)
		trusts(second, true)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	trusts(second, true)
	replace(t, path, string(first.CAPEM))
	trusts(first, true)
}
