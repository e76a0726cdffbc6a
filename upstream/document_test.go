package upstream_test

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// TestDocuments has a proxy answer with a page of its own, whatever is asked for. The error names
// the type of the page. A blob that is a page itself, and one that is too long for a page, arrive.
func TestDocuments(t *testing.T) {
	page, long := "<html>Log in</html>", strings.Repeat("x", 2<<20)
	for name, c := range map[string]struct {
		mediaType, body string
		digest          digest.Digest
		named           bool
	}{
		"a login":                     {"text/html; charset=utf-8", page, blob, true},
		"a login in capitals":         {"TEXT/HTML", page, blob, true},
		"an error in JSON":            {"application/json", `{"error":"x"}`, blob, true},
		"a blob that is a page":       {"text/html", page, digest.FromString(page), false},
		"a configuration as JSON":     {"application/json", "{}", digest.SHA512.FromString("{}"), false},
		"too long to be judged":       {"text/plain", long, blob, false},
		"a page of the type of blobs": {"application/octet-stream", page, blob, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.mediaType)
				w.Header().Set("Content-Length", strconv.Itoa(len(c.body)))
				_, _ = io.WriteString(w, c.body)
			})
			repo := upstream.Repo{Name: "a"}
			s, err := client.Blob(t.Context(), upstream.BlobRequest{Repo: repo, Digest: c.digest})
			if c.named {
				mediaType, _, _ := strings.Cut(strings.ToLower(c.mediaType), ";")
				if !errors.Is(err, upstream.ErrCorrupt) || status(err) != 502 || !strings.Contains(err.Error(), "a document of the type "+mediaType+" instead of the blob") {
					t.Errorf("got %v", err)
				}
			} else {
				got, _ := io.ReadAll(s.Body)
				if err != nil || string(got) != c.body || s.Size != int64(len(c.body)) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				_ = s.Body.Close()
			}
			size, err := client.StatBlob(t.Context(), repo, c.digest)
			if c.named && typeOfPage(c.mediaType) && !errors.Is(err, upstream.ErrCorrupt) || !c.named && size != int64(len(c.body)) {
				t.Errorf("HEAD: %d, %v", size, err)
			}
			if !typeOfPage(c.mediaType) {
				return
			}
			_, err = client.Manifest(t.Context(), repo, tag, nil)
			_, terr := client.Tags(t.Context(), repo, nil)
			for what, err := range map[string]error{"a manifest": err, "a list": terr} {
				if !errors.Is(err, upstream.ErrCorrupt) || !strings.Contains(err.Error(), "text/html instead of "+what) {
					t.Errorf("%s: %v", what, err)
				}
			}
			_, err = client.Manifest(t.Context(), repo, oci.Reference{Digest: c.digest}, nil)
			if (err == nil) != !c.named {
				t.Errorf("by digest: %v", err)
			}
		})
	}
}

func typeOfPage(mediaType string) bool {
	return strings.HasPrefix(strings.ToLower(mediaType), "text/html")
}
