package push_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror"
	"dray/mirror/mirrortest"
	"dray/upstream"
	"dray/upstream/oci"
)

// away is a registry that takes no blob while it is away.
type away struct {
	*mirrortest.Registry
	gone atomic.Bool
}

func (a *away) PutBlob(ctx context.Context, repo upstream.Repo, u upstream.Upload) error {
	if a.gone.Load() {
		return oci.ErrUnavailable.With("away")
	}
	return a.Registry.PutBlob(ctx, repo, u)
}

// The next process goes on with the uploads of a former one, and sends its blobs on without their
// clients. Both count against the quota of their client as before.
func TestRecover(t *testing.T) {
	h := mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) {
		o.MaxUploadsPerClient, o.MaxUploadBytesPerClient = 1, 60
	}})
	a := &away{Registry: h.Registry}
	h.Upstream.Sink = a
	a.gone.Store(true)
	staged, rest := []byte("a whole blob of a push"), []byte("some bytes, and then the rest")
	h.Want(201, "POST", "/v2/a/blobs/uploads/?digest="+digest.FromBytes(staged).String(), staged)
	open := h.Want(202, "POST", "/v2/a/blobs/uploads/", nil).Header().Get("Location")
	h.Want(202, "PATCH", open, rest[:10])

	a.gone.Store(false)
	h.Restart()
	h.Until(func() bool {
		_, err := h.Registry.HeldBlob("a", digest.FromBytes(staged))
		return err == nil
	})
	h.Want(429, "POST", "/v2/a/blobs/uploads/", nil)
	h.Want(429, "PATCH", open, make([]byte, 60-len(staged)-10+1))
	if at := h.Want(204, "GET", open, nil).Header().Get("Range"); at != "0-9" {
		t.Errorf("of the upload is here: %s", at)
	}
	h.Want(404, "GET", "/v2/b"+open[len("/v2/a"):], nil) // it is another repository's
	h.Want(201, "PUT", open+"?digest="+digest.FromBytes(rest).String(), rest[10:])
	m := mirrortest.Image(t, staged)
	h.Want(201, "PUT", "/v2/a/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	h.Pull("a", "v1", m, staged)
}

// Uploads that have expired when the next process starts are dropped.
func TestRecoverExpired(t *testing.T) {
	var expiry time.Duration // the default
	h := mirrortest.New(t, mirrortest.Options{Change: func(_ *mirrortest.Fixture, o *mirror.Options) { o.UploadExpiry = expiry }})
	a := &away{Registry: h.Registry}
	h.Upstream.Sink = a
	a.gone.Store(true)
	blob := []byte("a whole blob")
	h.Want(201, "POST", "/v2/a/blobs/uploads/?digest="+digest.FromBytes(blob).String(), blob)
	open := h.Want(202, "POST", "/v2/a/blobs/uploads/", nil).Header().Get("Location")
	h.Want(202, "PATCH", open, blob[:5])
	expiry = time.Microsecond
	h.Restart()
	h.Want(404, "GET", open, nil)
	if n := h.Counted("dray_push_blobs_staged"); n != 0 {
		t.Errorf("%v blobs are kept for pushes", n)
	}
}
