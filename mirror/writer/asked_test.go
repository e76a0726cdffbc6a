package writer_test

import (
	"context"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror"
	"dray/mirror/mirrortest"
	"dray/upstream"
	"dray/upstream/oci"
)

// TestWriterIsAskedOnce has a writer that fails to answer whether a push may leave a blob out, or
// does not begin to answer. The member that the client reaches then answers, without asking again.
func TestWriterIsAskedOnce(t *testing.T) {
	for name, stat := range map[string]func(context.Context) error{
		"fails": func(context.Context) error { return oci.ErrUnavailable.With("no") },
		"slow":  func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, 2, func(m *member, o *mirror.Options) {
				if m.info.ID == "member-0" {
					o.Upstreams[0].Source = noStats{w(o), stat}
				}
				if name == "slow" {
					o.Writers.Patience.Begin = 10 * time.Millisecond
				}
			})
			back, front := w.members[0], w.members[1]
			w.registry.HoldBlob("team/app", []byte("layer"))
			w.want(back, 202, "POST", "/v2/team/app/blobs/uploads/", nil)
			w.want(front, 200, "HEAD", blobPath("team/app", []byte("layer")), nil)
			if n := front.requests.Load(); n != 1 {
				t.Errorf("the writer was asked %d times", n)
			}
		})
	}
}

// noStats is a registry that does not say whether it has a blob.
type noStats struct {
	*mirrortest.Registry
	stat func(context.Context) error
}

func (s noStats) StatBlob(ctx context.Context, _ upstream.Repo, _ digest.Digest) (int64, error) {
	return 0, s.stat(ctx)
}
