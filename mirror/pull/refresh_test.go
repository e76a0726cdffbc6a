package pull_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// asking is a Source whose questions about tags take a while, and can be made to fail.
type asking struct {
	upstream.Source
	mu   sync.Mutex
	err  error
	asks int
}

func (a *asking) StatManifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	a.mu.Lock()
	a.asks++
	err := a.err
	a.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return oci.Descriptor{}, ctx.Err()
	}
	if err != nil {
		return oci.Descriptor{}, err
	}
	return a.Source.StatManifest(ctx, repo, ref, accept)
}

func (a *asking) Manifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, accept []string) (*oci.Manifest, error) {
	a.mu.Lock()
	err := a.err
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return a.Source.Manifest(ctx, repo, ref, accept)
}

// aged is a fixture in which a tag's window of a minute has just ended; its old answer is served
// for another minute.
func aged(t *testing.T) (*fixture, *asking, *oci.Manifest) {
	h := newFixture(t)
	up := h.Upstream
	a := &asking{Source: h.Registry}
	up.Once, up.Source = a, a
	up.Tags = repository.TagPolicy{Fresh: time.Minute, Revalidate: time.Minute, Stale: time.Hour, NotFound: time.Minute}
	m := h.Hold("team/app", "v1", []byte("layer"))
	h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
	time.Sleep(time.Minute)
	return h, a, m
}

// get asks for the tag and reports where the answer comes from, after the time that it took.
func (h *fixture) get(want *oci.Manifest, source string, took time.Duration, warnings ...string) {
	h.Helper()
	began := time.Now()
	w := h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
	if !bytes.Equal(w.Body.Bytes(), want.Raw) || w.Header().Get("X-Cache") != source || time.Since(began) != took {
		h.Errorf("%d bytes from %q after %v, want %d from %q after %v", w.Body.Len(), w.Header().Get("X-Cache"), time.Since(began), len(want.Raw), source, took)
	}
	if diff := cmp.Diff(warnings, w.Header().Values("Warning")); diff != "" {
		h.Error(diff)
	}
}

const (
	isStale   = `110 dray "Response is Stale"`
	notAsked  = `111 dray "Revalidation Failed"`
	aDayLater = 24 * time.Hour
)

func (a *asking) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

func (a *asking) asked(t *testing.T, want int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asks != want {
		t.Errorf("asked %d times, want %d", a.asks, want)
	}
	a.asks = 0
}

// Shortly after its window a tag is served at once, and asked for once; whoever comes later gets
// the new answer.
func TestRefresh(t *testing.T) {
	for name, moves := range map[string]bool{"unchanged": false, "moved": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, a, old := aged(t)
				now := old
				if moves {
					now = h.Hold("team/app", "v1", []byte("another layer"))
				}
				for range 10 {
					h.get(old, "updating", 0, isStale)
				}
				time.Sleep(2 * time.Second)
				h.get(now, "cache", 0)
				a.asked(t, 1)
				time.Sleep(2 * time.Minute) // nobody asked meanwhile: the window is over, and a client waits
				h.get(now, "cache", time.Second)
				a.asked(t, 1)
			})
		})
	}
}

// An upstream that fails is asked now and then; after the window its failure shows, and after the
// bound it is the answer.
func TestRefreshFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, old := aged(t)
		a.fail(oci.ErrTooManyRequests.With("Rate exceeded"))
		for range 20 { // 2 s each
			h.get(old, "updating", 0, isStale)
			time.Sleep(2 * time.Second)
		}
		a.asked(t, 7)
		time.Sleep(20 * time.Second)
		h.get(old, "stale", time.Second, isStale, notAsked)
		time.Sleep(aDayLater)
		h.Want(429, "GET", "/v2/team/app/manifests/v1", nil)
	})
}

// After the upstream has refused, the old answer is no longer served.
func TestRefreshRefused(t *testing.T) {
	for status, err := range map[int]error{403: oci.ErrDenied.With("no longer"), 404: oci.ErrManifestUnknown} {
		synctest.Test(t, func(t *testing.T) {
			h, a, old := aged(t)
			a.fail(err)
			h.get(old, "updating", 0, isStale)
			time.Sleep(2 * time.Second)
			h.Want(status, "GET", "/v2/team/app/manifests/v1", nil)
			a.fail(nil)
			time.Sleep(time.Minute)
			h.Want(200, "GET", "/v2/team/app/manifests/v1", nil)
		})
	}
}

// So it is with a tag that was pushed here, whose fact is not one of the client's Accept.
func TestRefreshRefusedPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, _ := aged(t)
		m := h.Push("team/app", "v1", []byte("pushed layer"))
		time.Sleep(time.Minute)
		a.asked(t, 0)
		a.fail(oci.ErrDenied.With("no longer"))
		h.get(m, "updating", 0, isStale)
		time.Sleep(2 * time.Second)
		for range 3 {
			h.Want(403, "GET", "/v2/team/app/manifests/v1", nil)
		}
		a.fail(nil)
		h.get(m, "cache", time.Second)
		time.Sleep(time.Minute) // what was refused once is no reason to wait the next time
		h.get(m, "updating", 0, isStale)
	})
}

// A tag that is pushed while it is asked for is what was pushed.
func TestRefreshPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, old := aged(t)
		h.get(old, "updating", 0, isStale)
		m := h.Push("team/app", "v1", []byte("pushed layer"))
		time.Sleep(2 * time.Second)
		h.get(m, "cache", 0)
	})
}

// The work ends with the mirror.
func TestRefreshStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, old := aged(t)
		h.get(old, "updating", 0, isStale) // and the mirror stops meanwhile
	})
}
