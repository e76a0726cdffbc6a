package pull_test

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// listing is a Lister that takes a while to list referrers.
type listing struct {
	upstream.Lister
	mu    sync.Mutex
	takes time.Duration
	list  string // of descriptors
	asks  int
}

func (l *listing) Referrers(ctx context.Context, _ upstream.Repo, _ digest.Digest, _ url.Values) (upstream.Page, error) {
	l.mu.Lock()
	l.asks++
	takes, list := l.takes, l.list
	l.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return upstream.Page{}, ctx.Err()
	}
	return upstream.Page{Body: []byte(`{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","manifests":[` + list + `]}`)}, nil
}

func (l *listing) change(takes time.Duration, list string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takes, l.list = takes, list
}

const oneReferrer = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111","size":7,"artifactType":"application/x.sig"}`

// The lists of two subjects.
var (
	subject      = "/v2/team/app/referrers/" + digest.FromString("subject").String()
	otherSubject = "/v2/team/app/referrers/" + digest.FromString("other").String()
)

func withListing(t *testing.T, policy repository.TagPolicy) (*fixture, *listing) {
	t.Helper()
	h := newFixture(t)
	l := &listing{Lister: h.Registry}
	h.Upstream.Lister, h.Upstream.Tags = l, policy
	return h, l
}

// list asks for referrers, and checks the status, where the answer comes from and the time that it
// took.
func (h *fixture) list(path string, status int, source string, took time.Duration, has string) {
	h.Helper()
	began := time.Now()
	w := h.Want(status, "GET", path, nil)
	if got := time.Since(began); got != took || w.Header().Get("X-Cache") != source || !strings.Contains(w.Body.String(), has) {
		h.Errorf("%d from %q after %v, want %d from %q after %v: %s", w.Code, w.Header().Get("X-Cache"), got, status, source, took, w.Body)
	}
}

var usualTags = repository.TagPolicy{Fresh: time.Minute, Revalidate: time.Minute, Stale: time.Hour, NotFound: 10 * time.Second}

// A registry that is slow to list referrers holds up one pull, for one question and 5 s at most.
// The question then goes on in the background.
func TestReferrersFromASlowRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := withListing(t, usualTags)
		l.change(4*time.Second, oneReferrer)
		h.list(subject, 200, "origin", 4*time.Second, "x.sig") // one round trip
		h.list(subject, 200, "cache", 0, "x.sig")
		l.change(20*time.Second, oneReferrer)
		h.list(otherSubject, 504, "", 5*time.Second, "in time")
		h.list(otherSubject, 503, "", 0, "UNAVAILABLE") // the client does not wait again
		time.Sleep(20 * time.Second)
		synctest.Wait()
		h.list(otherSubject, 200, "cache", 0, "x.sig")
		if l.asks != 3 {
			t.Errorf("%d questions, want 3", l.asks)
		}
	})
}

// While the registry gives no answer, the old list is served, also a list without referrers.
func TestReferrersOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := withListing(t, usualTags)
		h.list(otherSubject, 200, "origin", 0, `"manifests":[]`)
		l.change(0, oneReferrer)
		h.list(subject, 200, "origin", 0, "x.sig")
		time.Sleep(3 * time.Minute)
		l.change(time.Hour, "")
		h.list(subject, 200, "stale", 5*time.Second, "x.sig")
		h.list(subject, 200, "stale", 0, "x.sig")
		h.list(otherSubject, 200, "stale", 0, `"manifests":[]`)
		time.Sleep(time.Hour)
		h.list(subject, 504, "", 5*time.Second, "UNAVAILABLE")
	})
}

// Past the window, a list is refreshed in the background, but a list without referrers is asked for
// while the client waits.
func TestReferrersAreRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := withListing(t, usualTags)
		h.list(subject, 200, "origin", 0, `"manifests":[]`)
		time.Sleep(time.Minute)
		l.change(time.Second, oneReferrer)
		h.list(subject, 200, "origin", time.Second, "x.sig")
		time.Sleep(time.Minute)
		l.change(time.Second, oneReferrer+","+strings.ReplaceAll(oneReferrer, "1111", "2222"))
		h.list(subject, 200, "updating", 0, "x.sig")
		time.Sleep(time.Second)
		synctest.Wait()
		h.list(subject, 200, "cache", 0, "2222")
	})
}

// A list is neither a manifest that clients can get, nor lost when its bytes are.
func TestReferrersAreNoManifest(t *testing.T) {
	h, l := withListing(t, usualTags)
	l.change(0, oneReferrer)
	h.Want(200, "GET", subject, nil)
	d := digest.FromString("[" + oneReferrer + "]")
	if _, held := h.Cache.Stat(d); !held {
		t.Fatal("the list is not in the cache")
	}
	h.Want(404, "GET", "/v2/team/app/manifests/"+d.String(), nil)
	h.Want(404, "GET", "/v2/team/app/blobs/"+d.String(), nil)
	for tag, err := range h.Tags.All(t.Context(), "") {
		t.Errorf("a list is listed as a tag: %v, %v", tag, err)
	}
}
