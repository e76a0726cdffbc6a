package watched

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"dray/mirror/fixture"
	"dray/upstream"
	"dray/upstream/ecrtest"
)

// TestAuthoritiesAreReadAgain has the certificate of an upstream come from another authority.
func TestAuthoritiesAreReadAgain(t *testing.T) {
	first, second := ecrtest.Start(t, ecrtest.Options{SelfSigned: true}), ecrtest.Start(t, ecrtest.Options{SelfSigned: true})
	path := filepath.Join(t.TempDir(), "ca.pem")
	fixture.Replace(t, path, string(first.CAPEM))
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
	fixture.Replace(t, path, string(second.CAPEM))
	trusts(second, true)
	trusts(first, false)
	for _, broken := range []string{"", "no certificate"} {
		fixture.Replace(t, path, broken)
		trusts(second, true)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	trusts(second, true)
	fixture.Replace(t, path, string(first.CAPEM))
	trusts(first, true)
}
