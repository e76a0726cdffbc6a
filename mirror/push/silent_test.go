package push_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror"
	"dray/mirror/mirrortest"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// quiet is a registry that may cease to answer.
type quiet struct {
	*mirrortest.Registry
	silent atomic.Bool
}

// wait waits for an answer. There is none while the registry is silent.
func (q *quiet) wait(ctx context.Context) error {
	if q.silent.Load() {
		<-ctx.Done()
	}
	return context.Cause(ctx)
}

func (q *quiet) Manifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, accept []string) (*oci.Manifest, error) {
	if err := q.wait(ctx); err != nil {
		return nil, err
	}
	return q.Registry.Manifest(ctx, repo, ref, accept)
}

func (q *quiet) StatManifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	if err := q.wait(ctx); err != nil {
		return oci.Descriptor{}, err
	}
	return q.Registry.StatManifest(ctx, repo, ref, accept)
}

func (q *quiet) StatBlob(ctx context.Context, repo upstream.Repo, d digest.Digest) (int64, error) {
	if err := q.wait(ctx); err != nil {
		return 0, err
	}
	return q.Registry.StatBlob(ctx, repo, d)
}

func (q *quiet) PutBlob(ctx context.Context, repo upstream.Repo, u upstream.Upload) error {
	if err := q.wait(ctx); err != nil {
		return err
	}
	return q.Registry.PutBlob(ctx, repo, u)
}

func (q *quiet) Mount(ctx context.Context, _ upstream.Repo, _ string, _ digest.Digest) (bool, error) {
	err := q.wait(ctx)
	return err == nil, err
}

// While the registry does not answer, a client whose pushes are acknowledged here waits less than
// two seconds for its first answer, and not at all for the later ones, whatever it asks for and for
// however long. When the registry answers again, clients hear what it says.
func TestPushesToASilentRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mirrortest.New(t, mirrortest.Options{Change: func(f *mirrortest.Fixture, o *mirror.Options) {
			q, err := queue.Open(f.Context(), queue.Options{Directory: filepath.Join(f.TempDir(), "queue"), Hold: f.Cache.Retain})
			if err != nil {
				f.Fatal(err)
			}
			f.Cleanup(func() { _ = q.Close() })
			o.Queue = q
		}})
		registry := &quiet{Registry: h.Registry}
		up := h.Upstream
		up.Source, up.Sink, up.AcknowledgeLocally = registry, registry, true
		up.Tags = repository.TagPolicy{Fresh: time.Minute, Stale: time.Hour, NotFound: 10 * time.Second}

		layer, other := []byte("a layer that dray holds"), []byte("a layer that comes later")
		held := h.Hold("a", "v1", layer)
		h.Hold("a", "v2", other)
		h.Pull("a", "v1", held, layer)
		index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
			oci.MediaTypeOCIIndex, held.MediaType, held.Digest, len(held.Raw))
		blob := func(of string) string { return "/v2/a/blobs/" + digest.FromString(of).String() }
		late := "/v2/a/blobs/" + digest.FromBytes(other).String()
		mount := "/v2/a/blobs/uploads/?from=b&mount=" + digest.FromString("elsewhere").String()
		time.Sleep(2 * time.Minute)

		registry.silent.Store(true)
		begun := time.Now()
		ask := func(status int, method, path string, body []byte, mediaType string) {
			t.Helper()
			asked := time.Now()
			h.Want(status, method, path, body, "Content-Type", mediaType)
			if took := time.Since(asked); took > 0 {
				t.Errorf("%s %s took %v, %v after the first question", method, path, took, asked.Sub(begun))
			}
		}
		h.Want(404, "HEAD", late, nil)
		if took := time.Since(begun); took >= 2*time.Second {
			t.Errorf("the first answer took %v", took)
		}
		for i := range 100 {
			ask(404, "HEAD", late, nil, "")
			ask(404, "HEAD", blob("absent"), nil, "")
			ask(404, "HEAD", "/v2/a/manifests/"+digest.FromString("absent").String(), nil, "")
			ask(404, "HEAD", "/v2/a/manifests/v3", nil, "")
			ask(200, "HEAD", "/v2/a/manifests/v1", nil, "")
			ask(200, "HEAD", "/v2/a/manifests/"+held.Digest.String(), nil, "")
			ask(202, "POST", mount, nil, "")
			if i == 0 {
				ask(201, "PUT", "/v2/a/manifests/multi", index, oci.MediaTypeOCIIndex)
				ask(200, "HEAD", "/v2/a/manifests/multi", nil, "")
			}
			time.Sleep(300 * time.Millisecond)
		}

		registry.silent.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		ask(200, "HEAD", late, nil, "")
		ask(200, "HEAD", "/v2/a/manifests/v2", nil, "")
		ask(404, "HEAD", blob("absent"), nil, "")
		ask(201, "POST", mount, nil, "")
	})
}
