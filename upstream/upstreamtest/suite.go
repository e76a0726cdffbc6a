package upstreamtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

const layerSize = 300_001

// TestSource tests src. Before the test, it pushes an image through sink to the repository
// repo/source.
func TestSource(t *testing.T, src upstream.Source, sink upstream.Sink, repo string) {
	repo += "/source"
	img := NewImage(t, t.Name(), layerSize)
	img.Push(t, sink, repo, "v1")
	layer := digest.FromBytes(img.Layer)
	accept := ManifestTypes()

	t.Run("manifest", func(t *testing.T) {
		for _, ref := range []oci.Reference{{Tag: "v1"}, {Digest: img.Manifest.Digest}} {
			m, err := src.Manifest(t.Context(), upstream.Repo{Name: repo}, ref, accept)
			if err != nil {
				t.Fatalf("Manifest(%s): %v", ref, err)
			}
			if !bytes.Equal(m.Raw, img.Manifest.Raw) || m.Digest != img.Manifest.Digest || m.MediaType != img.Manifest.MediaType {
				t.Errorf("Manifest(%s) = %s %s, pushed %s %s", ref, m.MediaType, m.Digest, img.Manifest.MediaType, img.Manifest.Digest)
			}
			d, err := src.StatManifest(t.Context(), upstream.Repo{Name: repo}, ref, accept)
			if want := img.Manifest.Descriptor(); err != nil || d.Digest != want.Digest || d.Size != want.Size || d.MediaType != want.MediaType {
				t.Errorf("StatManifest(%s) = %+v, %v; want %+v", ref, d, err, want)
			}
		}
	})
	t.Run("blob", func(t *testing.T) {
		for _, offset := range []int64{0, 1, layerSize / 2, layerSize - 1} {
			readBlob(t, src, repo, layer, offset, img.Layer)
		}
		if size, err := src.StatBlob(t.Context(), upstream.Repo{Name: repo}, layer); err != nil || size != layerSize {
			t.Errorf("StatBlob = %d, %v; want %d", size, err, layerSize)
		}
	})
	t.Run("missing", func(t *testing.T) { testMissing(t, src, repo) })
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := src.Manifest(ctx, upstream.Repo{Name: repo}, oci.Reference{Tag: "v1"}, accept)
		if !errors.Is(err, context.Canceled) || errors.Is(err, upstream.ErrUnreachable) {
			t.Errorf("Manifest with a cancelled context: %v", err)
		}
	})
	t.Run("concurrent", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { readBlob(t, src, repo, layer, int64(i*1000), img.Layer) })
		}
		wg.Wait()
	})
}

func readBlob(t *testing.T, src upstream.Source, repo string, d digest.Digest, offset int64, want []byte) {
	t.Helper()
	s, err := src.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: repo}, Digest: d, From: offset})
	if err != nil {
		t.Errorf("Blob from %d: %v", offset, err)
		return
	}
	defer s.Body.Close()
	got, err := io.ReadAll(s.Body)
	if err != nil || !bytes.Equal(got, want[offset:]) {
		t.Errorf("Blob from %d: %d bytes, %v; want %d", offset, len(got), err, len(want)-int(offset))
	}
	if s.Size != int64(len(want)) && s.Size != -1 {
		t.Errorf("Blob from %d: size %d, want %d", offset, s.Size, len(want))
	}
}

func testMissing(t *testing.T, src upstream.Source, repo string) {
	absent := digest.FromString("absent " + t.Name())
	for name, get := range map[string]func(repo string) error{
		"Manifest by tag": func(repo string) error {
			return second(src.Manifest(t.Context(), upstream.Repo{Name: repo}, oci.Reference{Tag: "absent"}, nil))
		},
		"Manifest by digest": func(repo string) error {
			return second(src.Manifest(t.Context(), upstream.Repo{Name: repo}, oci.Reference{Digest: absent}, nil))
		},
		"StatManifest by tag": func(repo string) error {
			return second(src.StatManifest(t.Context(), upstream.Repo{Name: repo}, oci.Reference{Tag: "absent"}, nil))
		},
		"Blob": func(repo string) error {
			return second(src.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: repo}, Digest: absent}))
		},
		"StatBlob": func(repo string) error { return second(src.StatBlob(t.Context(), upstream.Repo{Name: repo}, absent)) },
	} {
		for _, repo := range []string{repo, repo + "-absent"} {
			err := get(repo)
			e, ok := errors.AsType[*oci.Error](err)
			if !ok || e.Status != http.StatusNotFound || upstream.Transient(err) {
				t.Errorf("%s in %s: %v, want a 404 that is not transient", name, repo, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestSink tests sink, and reads back through src what sink has written. It writes to the
// repositories repo/sink and repo/mounted, which must exist or be created by the first push.
func TestSink(t *testing.T, sink upstream.Sink, src upstream.Source, repo string) {
	mounted := repo + "/mounted"
	repo += "/sink"
	img := NewImage(t, t.Name(), layerSize)
	layer := digest.FromBytes(img.Layer)

	t.Run("refused bytes stay away", func(t *testing.T) {
		other := NewImage(t, t.Name(), 100_000).Layer
		testUnverified(t, sink, src, repo, other)
	})
	for name, u := range map[string]upstream.Upload{"known": Upload(img.Layer), "stream": Stream(img.Layer), "config": Stream(img.Config)} {
		t.Run("blob "+name, func(t *testing.T) {
			accepted := 0
			u.Accepted = func() { accepted++ }
			for range 2 { // the second push repeats the first
				if err := sink.PutBlob(t.Context(), upstream.Repo{Name: repo}, u); err != nil {
					t.Fatal(err)
				}
			}
			if accepted != 2 {
				t.Errorf("Accepted was called %d times for 2 uploads", accepted)
			}
		})
	}
	t.Run("manifest", func(t *testing.T) {
		for _, ref := range []oci.Reference{{Digest: img.Manifest.Digest}, {Tag: "v1"}} {
			p, err := sink.PutManifest(t.Context(), upstream.Repo{Name: repo}, ref, img.Manifest)
			if err != nil || p.Digest != img.Manifest.Digest {
				t.Fatalf("PutManifest(%s) = %+v, %v", ref, p, err)
			}
		}
		m, err := src.Manifest(t.Context(), upstream.Repo{Name: repo}, oci.Reference{Tag: "v1"}, ManifestTypes())
		if err != nil || !bytes.Equal(m.Raw, img.Manifest.Raw) {
			t.Fatalf("read back: %v", err)
		}
		readBlob(t, src, repo, layer, 0, img.Layer)
	})
	t.Run("mount", func(t *testing.T) {
		ok, err := sink.Mount(t.Context(), upstream.Repo{Name: mounted}, repo, layer)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			if err := sink.PutBlob(t.Context(), upstream.Repo{Name: mounted}, Upload(img.Layer)); err != nil {
				t.Fatal(err)
			}
		}
		if err := sink.PutBlob(t.Context(), upstream.Repo{Name: mounted}, Upload(img.Config)); err != nil {
			t.Fatal(err)
		}
		if _, err := sink.PutManifest(t.Context(), upstream.Repo{Name: mounted}, oci.Reference{Tag: "v1"}, img.Manifest); err != nil {
			t.Fatal(err)
		}
		readBlob(t, src, mounted, layer, 0, img.Layer)
	})
}

// testUnverified pushes blobs that cannot be read or verified. It checks that PutBlob returns the
// cause, and that the registry does not store the blobs.
func testUnverified(t *testing.T, sink upstream.Sink, src upstream.Source, repo string, p []byte) {
	cause := errors.New("the cause")
	unverified := Stream(p)
	unverified.Digest = func() (digest.Digest, error) { return "", cause }
	announced := Upload(p)
	announced.Digest = unverified.Digest
	broken := Stream(p)
	broken.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(p), &failing{cause})), nil
	}
	unopened := Stream(p)
	unopened.Open = func() (io.ReadCloser, error) { return nil, cause }
	for name, u := range map[string]upstream.Upload{"unverified": unverified, "announced": announced, "broken": broken, "unopened": unopened} {
		err := sink.PutBlob(t.Context(), upstream.Repo{Name: repo}, u)
		if !errors.Is(err, cause) {
			t.Errorf("PutBlob of %s bytes: %v, want the cause", name, err)
		}
		if _, err := src.StatBlob(t.Context(), upstream.Repo{Name: repo}, digest.FromBytes(p)); err == nil {
			t.Errorf("PutBlob of %s bytes: they are there", name)
		}
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, fmt.Errorf("read: %w", f.err) }

// ManifestTypes returns the manifest types that current clients accept.
func ManifestTypes() []string {
	return []string{oci.MediaTypeOCIIndex, oci.MediaTypeOCIManifest, oci.MediaTypeDockerList, oci.MediaTypeDockerManifest}
}
