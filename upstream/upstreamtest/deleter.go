package upstreamtest

import (
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// DeleterOptions say what the tested registry does in the cases in which the specification allows
// more than one answer.
type DeleterOptions struct {
	// Blobs says that single blobs can be deleted.
	Blobs bool
	// LastTag says that a manifest is deleted when its last tag is deleted.
	LastTag bool
}

// TestDeleter tests deleter with an image in the repository repo/delete. It pushes the image
// through sink, and checks through src whether the image exists.
func TestDeleter(t *testing.T, deleter upstream.Deleter, sink upstream.Sink, src upstream.Source, repo string, o DeleterOptions) {
	repo += "/delete"
	img := NewImage(t, t.Name(), 10_000)
	layer := digest.FromBytes(img.Layer)
	img.Push(t, sink, repo, "v1")
	img.Push(t, sink, repo, "v2")
	there := func(ref oci.Reference) bool {
		t.Helper()
		_, err := src.StatManifest(t.Context(), upstream.Repo{Name: repo}, ref, ManifestTypes())
		if err != nil && !oci.NotFound(err) {
			t.Fatalf("StatManifest(%s): %v", ref, err)
		}
		return err == nil
	}
	one, two, self := oci.Reference{Tag: "v1"}, oci.Reference{Tag: "v2"}, oci.Reference{Digest: img.Manifest.Digest}

	t.Run("tag", func(t *testing.T) {
		if err := deleter.DeleteManifest(t.Context(), upstream.Repo{Name: repo}, one); err != nil {
			t.Fatal(err)
		}
		if there(one) || !there(two) || !there(self) {
			t.Error("a deleted tag is there, or something else is not")
		}
	})
	t.Run("last tag", func(t *testing.T) {
		if err := deleter.DeleteManifest(t.Context(), upstream.Repo{Name: repo}, two); err != nil {
			t.Fatal(err)
		}
		if there(two) || there(self) == o.LastTag {
			t.Errorf("after its last tag: tag %v, manifest %v", there(two), there(self))
		}
	})
	t.Run("manifest", func(t *testing.T) {
		img.Push(t, sink, repo, "v1")
		img.Push(t, sink, repo, "v2")
		if err := deleter.DeleteManifest(t.Context(), upstream.Repo{Name: repo}, self); err != nil {
			t.Fatal(err)
		}
		if there(one) || there(two) || there(self) {
			t.Error("a deleted manifest is there")
		}
	})
	t.Run("missing", func(t *testing.T) {
		absent := oci.Reference{Digest: digest.FromString("absent " + t.Name())}
		for _, ref := range []oci.Reference{{Tag: "absent"}, absent} {
			if err := deleter.DeleteManifest(t.Context(), upstream.Repo{Name: repo}, ref); !oci.NotFound(err) {
				t.Errorf("DeleteManifest(%s): %v, want not found", ref, err)
			}
		}
		if err := deleter.DeleteBlob(t.Context(), upstream.Repo{Name: repo}, absent.Digest); o.Blobs && !oci.NotFound(err) {
			t.Errorf("DeleteBlob of what is not there: %v", err)
		}
	})
	t.Run("blob", func(t *testing.T) {
		if err := sink.PutBlob(t.Context(), upstream.Repo{Name: repo}, Upload(img.Layer)); err != nil {
			t.Fatal(err)
		}
		err := deleter.DeleteBlob(t.Context(), upstream.Repo{Name: repo}, layer)
		if !o.Blobs {
			if !errors.Is(err, oci.ErrUnsupported) {
				t.Errorf("DeleteBlob: %v, want unsupported", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := src.StatBlob(t.Context(), upstream.Repo{Name: repo}, layer); !oci.NotFound(err) {
			t.Errorf("a deleted blob: %v", err)
		}
	})
}
