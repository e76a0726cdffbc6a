package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// shelf is Contents in memory.
type shelf struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]*oci.Manifest
}

func (s shelf) Manifest(_ context.Context, d oci.Descriptor) (*oci.Manifest, error) {
	if m := s.manifests[d.Digest]; m != nil {
		return m, nil
	}
	return nil, oci.ErrManifestUnknown
}

func (s shelf) Open(_ context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	if b, ok := s.blobs[d.Digest]; ok {
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	return nil, oci.ErrBlobUnknown
}

func (s shelf) Scanned(context.Context, oci.Descriptor) (*Scanned, error) { return nil, nil }

// The manifests that a manifest lists are judged whatever its media type. A manifest that can
// be read in two ways is rejected.
func TestManifestsHideNothing(t *testing.T) {
	child, err := oci.ParseManifest(oci.MediaTypeOCIManifest, []byte(`{"schemaVersion":2,"layers":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	from := shelf{manifests: map[digest.Digest]*oci.Manifest{child.Digest: child}}
	parse := func(text string) *oci.Manifest {
		m, err := oci.ParseManifest("", fmt.Appendf(nil, text, oci.MediaTypeOCIManifest, oci.MediaTypeOCIManifest, child.Digest))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	img, err := assemble(t.Context(), Subject{Manifest: parse(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":1}]}`)}, from)
	if err != nil || len(img.Manifests) != 2 {
		t.Errorf("%+v, %v", img, err)
	}
	two := parse(`{"schemaVersion":2,"mediaType":%q,"layers":[],"Config":{"mediaType":%q,"digest":%q,"size":1}}`)
	if _, err := assemble(t.Context(), Subject{Manifest: two}, from); !errors.Is(err, oci.ErrManifestInvalid) {
		t.Errorf("a manifest with two readings: %v", err)
	}
}

// scanning is a shelf whose layers are scanned.
type scanning struct {
	shelf
	p *Pipeline
}

func (s scanning) Scanned(ctx context.Context, d oci.Descriptor) (*Scanned, error) {
	r, err := s.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	return s.p.Scan(ctx, Layer{}, r, func() (digest.Digest, error) { return d.Digest, nil })
}

// A foreign layer is scanned if the upstream has it, because clients then pull it from there.
func TestForeignLayersThatAreHere(t *testing.T) {
	p, err := New(Options{Steps: []Step{{Stage: notingEach{&noting{name: "notes", found: []Finding{{Rule: "bad", What: "something"}}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	layer := archive(t, file{name: "a", text: "x"})
	for _, here := range []bool{true, false} {
		from := scanning{shelf{blobs: map[digest.Digest][]byte{}}, p}
		if here {
			from.blobs[digest.FromBytes(layer)] = layer
		}
		man, err := oci.ParseManifest(oci.MediaTypeOCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":%q,"size":%d}]}`,
			digest.FromBytes(layer), len(layer)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Judge(t.Context(), Subject{Manifest: man}, from)
		if err != nil || r.Pass == here {
			t.Errorf("here: %v: %+v, %v", here, r, err)
		}
	}
}
