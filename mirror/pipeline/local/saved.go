package local

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/oci"
)

// savedFile is what lists the images in the old form of docker save (moby, image/spec/v1.2.md,
// "Combined Image JSON + Filesystem Changeset Format").
const savedFile = "manifest.json"

// saved is one image of it. Its layers are uncompressed.
type saved struct {
	Config string
	Layers []string
}

// maxLayers of an image in an archive.
const maxLayers = 1000

// adopt makes up the manifest that an archive in the old form of docker save has not got. A push
// would make another one, because it compresses layers, so that its digest says nothing.
func (f *Files) adopt() error {
	raw, err := f.document(savedFile)
	if err != nil {
		return err
	}
	var images []saved
	if err := json.Unmarshal(raw, &images); err != nil {
		return fmt.Errorf("%s: %w", savedFile, err)
	}
	if len(images) != 1 {
		return fmt.Errorf("it holds %d images, and one is looked at", len(images))
	}
	if len(images[0].Layers) > maxLayers {
		return fmt.Errorf("more than %d layers", maxLayers)
	}
	f.blobs = map[digest.Digest]string{}
	man := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	if man.Config, err = f.sum(images[0].Config, v1.MediaTypeImageConfig); err != nil {
		return err
	}
	for _, l := range images[0].Layers {
		d, err := f.sum(l, v1.MediaTypeImageLayer)
		if err != nil {
			return err
		}
		man.Layers = append(man.Layers, d)
	}
	if raw, err = json.Marshal(man); err != nil {
		return err
	}
	m, err := oci.ParseManifest(man.MediaType, raw)
	if err != nil {
		return err
	}
	f.manifests = map[digest.Digest]*oci.Manifest{m.Digest: m}
	return nil
}

// sum makes a descriptor of a file.
func (f *Files) sum(name, mediaType string) (v1.Descriptor, error) {
	r, size, err := f.open(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := digest.FromReader(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return v1.Descriptor{}, err
	}
	f.blobs[d] = name
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: size}, nil
}
