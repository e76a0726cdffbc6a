package push_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"dray/mirror/mirrortest"
	"dray/upstream"
	"dray/upstream/oci"
)

// strict is a registry that takes no manifest before its blobs, and writes down what it is sent.
type strict struct {
	*mirrortest.Registry
	mu   sync.Mutex
	sent []string
	// slow, when not nil, is closed when blobs may arrive.
	slow chan struct{}
	// blind is set where it sees no blob, whatever it is sent.
	blind bool
}

func (s *strict) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, what)
}

// take returns what was sent, and begins anew.
func (s *strict) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent = nil
	return sent
}

func (s *strict) PutBlob(ctx context.Context, repo upstream.Repo, u upstream.Upload) error {
	if s.slow != nil {
		<-s.slow
	}
	s.note("blob")
	return s.Registry.PutBlob(ctx, repo, u)
}

func (s *strict) PutManifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, m *oci.Manifest) (upstream.Pushed, error) {
	s.note("manifest")
	for _, c := range m.Children() {
		if _, err := s.HeldBlob(repo.Name, c.Digest); err != nil || s.blind {
			return upstream.Pushed{}, oci.ErrManifestBlobUnknown.With("there is no %s", c.Digest).Because(upstream.ErrPartsMissing)
		}
	}
	return s.Registry.PutManifest(ctx, repo, ref, m)
}

// pushing is a mirror before a strict registry.
func pushing(t *testing.T) (*mirrortest.Fixture, *strict) {
	t.Helper()
	h := mirrortest.New(t, mirrortest.Options{})
	s := &strict{Registry: h.Registry}
	h.Upstream.Sink = s
	return h, s
}

func (s *strict) want(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := s.take(); !slices.Equal(got, want) {
		t.Errorf("%s: sent were %q, want %q", what, got, want)
	}
}

// A manifest is sent after the blobs that it needs, whose way is waited for.
func TestPublishWaitsForBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := pushing(t)
		s.slow = make(chan struct{})
		layer := []byte("a layer that takes its time")
		h.Want(201, "POST", "/v2/a/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
		var wg sync.WaitGroup
		wg.Go(func() {
			m := mirrortest.Image(t, layer)
			h.Want(201, "PUT", "/v2/a/manifests/v1", m.Raw, "Content-Type", m.MediaType)
		})
		synctest.Wait()
		s.want(t, "meanwhile")
		close(s.slow)
		wg.Wait()
		s.want(t, "then", "blob", "manifest")
	})
}

// A blob that was thought to be at the registry, which has lost it, is sent from here: once. A
// registry that does not see it then refuses the push.
func TestPublishHealsOnce(t *testing.T) {
	h, s := pushing(t)
	layer := []byte("a layer that the registry loses")
	h.Push("a", "v1", layer)
	s.want(t, "the push", "blob", "manifest")
	lost := func(status int, tag string) {
		t.Helper()
		h.Want(200, "HEAD", "/v2/a/blobs/"+digest.FromBytes(layer).String(), nil)
		h.Registry.DropBlob("a", digest.FromBytes(layer))
		m := mirrortest.Image(t, layer)
		h.Want(status, "PUT", "/v2/a/manifests/"+tag, m.Raw, "Content-Type", m.MediaType)
	}
	lost(201, "v2")
	s.want(t, "after a loss", "manifest", "blob", "manifest")
	if _, err := h.Registry.HeldBlob("a", digest.FromBytes(layer)); err != nil {
		t.Errorf("the registry: %v", err)
	}
	s.blind = true
	lost(400, "v3")
	s.want(t, "where it does not help", "manifest", "blob", "manifest")
}

// late is a registry that answers one manifest long after it took it.
type late struct {
	*mirrortest.Registry
	digest digest.Digest
	answer chan struct{}
}

func (l *late) PutManifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, m *oci.Manifest) (upstream.Pushed, error) {
	pushed, err := l.Registry.PutManifest(ctx, repo, ref, m)
	if m.Digest == l.digest {
		<-l.answer
	}
	return pushed, err
}

// Of two pushes of one tag at once, dray serves the one that the registry has last, also when the
// registry answers the first one last. Another tag does not wait.
func TestTwoPushesOfATag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{})
		layers := [][]byte{[]byte("a layer"), []byte("another layer")}
		first, second := mirrortest.Image(t, layers[0]), mirrortest.Image(t, layers[1])
		l := &late{Registry: h.Registry, digest: first.Digest, answer: make(chan struct{})}
		h.Upstream.Sink = l
		for _, layer := range layers {
			h.Want(201, "POST", "/v2/a/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
		}
		var wg sync.WaitGroup
		push := func(tag string, m *oci.Manifest) {
			wg.Go(func() { h.Want(201, "PUT", "/v2/a/manifests/"+tag, m.Raw, "Content-Type", m.MediaType) })
			synctest.Wait()
		}
		push("v1", first)
		push("v1", second)
		push("v2", second)
		if h.Registry.Held("a", oci.Reference{Tag: "v2"}) == nil {
			t.Error("another tag waits")
		}
		close(l.answer)
		wg.Wait()
		has := h.Registry.Held("a", oci.Reference{Tag: "v1"}).Digest.String()
		w := h.Want(200, "GET", "/v2/a/manifests/v1", nil, "Accept", first.MediaType)
		if got := w.Header().Get("Docker-Content-Digest"); got != has {
			t.Errorf("the registry has %s, and dray serves %s", has, got)
		}
	})
}
