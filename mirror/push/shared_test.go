package push_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror"
	"dray/mirror/mirrortest"
	"dray/upstream"
	"dray/upstream/oci"
)

// gatedSink takes no blob before its gate opens. Then it refuses all blobs if refuse is set.
type gatedSink struct {
	*mirrortest.Registry
	gate   chan struct{}
	refuse atomic.Bool
}

func (s *gatedSink) PutBlob(ctx context.Context, repo upstream.Repo, u upstream.Upload) error {
	select {
	case <-s.gate:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.refuse.Load() {
		return oci.ErrUnavailable.With("the registry is down")
	}
	return s.Registry.PutBlob(ctx, repo, u)
}

// beside returns two mirrors of one registry that share the facts about blobs in transit, and the
// registry's sink.
func beside(t *testing.T) (a, b *mirrortest.Fixture, sink *gatedSink) {
	t.Helper()
	shared := metatest.NewMemory()
	sink = &gatedSink{Registry: mirrortest.NewRegistry(), gate: make(chan struct{})}
	start := func(name string) *mirrortest.Fixture {
		return mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) {
			o.Transit = meta.NewTransit(shared, name)
			o.Upstreams[0].Source, o.Upstreams[0].Sink = sink.Registry, sink
		}})
	}
	return start("a"), start("b"), sink
}

func upload(h *mirrortest.Fixture, blob []byte) (path string) {
	h.Helper()
	at := h.Want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header().Get("Location")
	h.Want(201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), blob)
	return "/v2/team/app/blobs/" + digest.FromBytes(blob).String()
}

// A mirror does not deny a blob that another one has acknowledged. It waits for it before it sends
// the manifest, longer than one fact about it is kept.
func TestPushBesideAnotherMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, sink := beside(t)
		layer := []byte("a layer on its way")
		path := upload(a, layer)
		b.Want(200, "HEAD", path, nil)
		time.AfterFunc(5*meta.TransitTTL, func() { close(sink.gate) })
		m := mirrortest.Image(t, layer)
		began := time.Now()
		b.Want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
		if waited := time.Since(began); waited < 5*meta.TransitTTL {
			t.Errorf("the manifest was sent after %v, before its layer", waited)
		}
		if _, err := sink.HeldBlob("team/app", digest.FromBytes(layer)); err != nil {
			t.Error(err)
		}
	})
}

// If the other mirror has a blob and cannot send it, the answer is an error after which clients try
// again, because the next request may reach that mirror. HEAD does not promise such a blob. A
// manifest with a blob that no mirror has is refused as before.
func TestPushBesideAMirrorThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, sink := beside(t)
		layer := []byte("a layer that stays where it is")
		path := upload(a, layer)
		sink.refuse.Store(true)
		close(sink.gate)
		synctest.Wait()
		b.Want(404, "HEAD", path, nil)
		m := mirrortest.Image(t, layer)
		if w := b.Want(503, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType); !strings.Contains(w.Body.String(), "another mirror has "+digest.FromBytes(layer).String()) {
			t.Errorf("the client is told %s", w.Body)
		}
		sink.refuse.Store(false)
		a.Want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
		b.Want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
		never := mirrortest.Image(t, []byte("pushed to nobody"))
		b.Want(400, "PUT", "/v2/team/app/manifests/v1", never.Raw, "Content-Type", never.MediaType)
	})
}

// An upload can go on only where it began. Another mirror says so by an error after which clients
// try again, and each mirror still denies what was opened nowhere, or has ended there.
func TestUploadAtAnotherMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, sink := beside(t)
		close(sink.gate)
		at := a.Want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header().Get("Location")
		for _, method := range []string{"PATCH", "GET", "PUT"} {
			b.Want(503, method, at+"?digest="+digest.FromString("x").String(), []byte("x"))
		}
		b.Want(404, "PATCH", at+"x", []byte("x"))
		a.Want(204, "DELETE", at, nil)
		a.Want(404, "GET", at, nil)
		time.Sleep(2 * time.Hour)
		b.Want(404, "GET", at, nil)
	})
}
