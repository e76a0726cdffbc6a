package jobs

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/oci"
)

// emptied is a registry that has lost everything, and remembers how it was asked for manifests.
type emptied struct {
	upstream.Source
	upstream.Sink
	upstream.Lister
	calls []upstream.Call
}

func (e *emptied) StatManifest(_ context.Context, r upstream.Repo, _ oci.Reference, _ []string) (oci.Descriptor, error) {
	e.calls = append(e.calls, r.Call)
	return oci.Descriptor{}, oci.ErrManifestUnknown
}

// The question whether a verdict is still there stands behind those of clients, and its answer is
// believed.
func TestAttachedBeforeAsksInBackground(t *testing.T) {
	dir, err := disk.Open(disk.Options{Path: filepath.Join(t.TempDir(), "content")})
	if err != nil {
		t.Fatal(err)
	}
	c := cache.New(cache.Options{Disk: dir})
	t.Cleanup(func() {
		c.Close()
		_ = dir.Close()
	})
	facts, registry := metatest.NewMemory(), &emptied{}
	up := &repository.Upstream{Name: "up", Source: registry, Sink: registry, Lister: registry}
	repos, err := repository.NewStore(repository.Options{
		Upstreams: []*repository.Upstream{up}, Cache: c, Logger: slog.New(slog.DiscardHandler),
		Tags: meta.NewTags(facts, meta.Options{}), Visibility: meta.NewVisibility(facts, meta.Options{}), Presence: meta.NewPresence(facts, meta.PresenceOptions{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	a := attachment{repo: repos.Repo(up, "team/app"), subject: oci.Descriptor{MediaType: oci.MediaTypeOCIManifest, Digest: digest.FromString("image"), Size: 5}}
	man, err := artifact(a.subject, []byte("{}"), &pipeline.Report{})
	if err != nil {
		t.Fatal(err)
	}
	a.repo.RecordAtTarget(t.Context(), man.Digest, int64(len(man.Raw)))
	there, err := attachedBefore(t.Context(), a, man)
	if there || err != nil || len(registry.calls) != 1 || registry.calls[0].Background == nil {
		t.Errorf("there %v, %v, after questions %+v", there, err, registry.calls)
	}
	if a.repo.PresentAtTarget(t.Context(), man.Digest) {
		t.Error("what is gone is still known")
	}
}
