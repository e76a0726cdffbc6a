package pull_test

import (
	"context"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// TestQuestionsEndInTime: an upstream that does not answer is a 504 before clients
// give up, and never "not found".
func TestQuestionsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFixture(t)
		up := h.Upstream
		up.Source, up.Once, up.Lister = silent{}, silent{}, silent{}
		d := digest.FromString("x")
		for _, path := range []string{"/v2/a/manifests/v1", "/v2/a/manifests/" + d.String(), "/v2/a/blobs/" + d.String(), "/v2/a/tags/list", "/v2/a/referrers/" + d.String()} {
			start := time.Now()
			w := h.Do("GET", path, nil)
			if took := time.Since(start); w.Code != 504 || took > 26*time.Second {
				t.Errorf("%s: %d after %s\n%s", path, w.Code, took, w.Body)
			}
		}
	})
}

// silent is an upstream that never answers.
type silent struct{}

func hang[T any](ctx context.Context) (T, error) {
	<-ctx.Done()
	var zero T
	return zero, context.Cause(ctx)
}

func (silent) Manifest(ctx context.Context, _ upstream.Repo, _ oci.Reference, _ []string) (*oci.Manifest, error) {
	return hang[*oci.Manifest](ctx)
}
func (silent) StatManifest(ctx context.Context, _ upstream.Repo, _ oci.Reference, _ []string) (oci.Descriptor, error) {
	return hang[oci.Descriptor](ctx)
}
func (silent) Blob(ctx context.Context, _ upstream.BlobRequest) (upstream.BlobStream, error) {
	return hang[upstream.BlobStream](ctx)
}
func (silent) StatBlob(ctx context.Context, _ upstream.Repo, _ digest.Digest) (int64, error) {
	return hang[int64](ctx)
}
func (silent) Tags(ctx context.Context, _ upstream.Repo, _ url.Values) (upstream.Page, error) {
	return hang[upstream.Page](ctx)
}
func (silent) Referrers(ctx context.Context, _ upstream.Repo, _ digest.Digest, _ url.Values) (upstream.Page, error) {
	return hang[upstream.Page](ctx)
}
