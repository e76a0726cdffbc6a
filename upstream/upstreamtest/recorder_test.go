package upstreamtest

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLine(t *testing.T) {
	for url, want := range map[string]string{
		"http://h/v2/a/manifests/t":                                  "PUT /v2/a/manifests/t",
		"http://h/v2/a/blobs/uploads/?mount=sha256%3Aab&from=b":      "PUT /v2/a/blobs/uploads/?from=b&mount=sha256:ab",
		"http://h/v2/a/blobs/uploads/8f-1?_state=x&digest=sha256:ab": "PUT /v2/a/blobs/uploads/*?digest=sha256:ab",
		"http://h/v2/a/blobs/uploads/8f-1?_state=x":                  "PUT /v2/a/blobs/uploads/*",
		"http://h/v2/a/tags/list?n=2&last=b":                         "PUT /v2/a/tags/list?last=b&n=2",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := Line(req); got != want {
			t.Errorf("Line(%s) = %q, want %q", url, got, want)
		}
	}
}

func TestRecorderOnBothSides(t *testing.T) {
	r := NewRegistry(t)
	other := NewRegistry(t)
	sent := &Recorder{Home: r.URL.Host}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	client := http.Client{Transport: sent.Transport(transport)}
	for _, u := range []string{r.URL.String() + "/v2/", other.URL.String() + "/v2/signed"} {
		resp, err := client.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	sent.ExpectSet(t, "GET elsewhere", "GET /v2/")
	sent.Expect(t)
	r.Recorder.Expect(t, "GET /v2/")
}
