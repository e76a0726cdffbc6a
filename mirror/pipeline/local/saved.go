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

// savedFile is the file that lists the images of an archive in the old format of docker save (moby,
// image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format").
const savedFile = "manifest.json"

// savedImage is one image in savedFile. Its layers are uncompressed.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// maxLayers bounds the number of layers of an image in an archive.
const maxLayers = 1000

// readSaved lists the images of an archive in the old format of docker save.
func (f *Files) readSaved() error {
	raw, err := f.document(savedFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &f.saved); err != nil {
		return fmt.Errorf("%s: %w", savedFile, err)
	}
	if len(f.saved) == 0 {
		return errors.New("the archive has no images")
	}
	return nil
}

// savedRoot makes a manifest for the image with the given name (see [selected]), because the old
// format of docker save stores none. docker push would make a manifest with another digest, because
// it compresses the layers.
func (f *Files) savedRoot(name string) (*oci.Manifest, error) {
	var all [][]string
	for _, image := range f.saved {
		all = append(all, image.RepoTags)
	}
	i, err := selected(name, all)
	if err != nil {
		return nil, err
	}
	image := f.saved[i]
	if len(image.Layers) > maxLayers {
		return nil, fmt.Errorf("more than %d layers", maxLayers)
	}
	f.blobs = map[digest.Digest]string{}
	man := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	if man.Config, err = f.describe(image.Config, v1.MediaTypeImageConfig); err != nil {
		return nil, err
	}
	for _, l := range image.Layers {
		d, err := f.describe(l, v1.MediaTypeImageLayer)
		if err != nil {
			return nil, err
		}
		man.Layers = append(man.Layers, d)
	}
	raw, err := json.Marshal(man)
	if err != nil {
		return nil, err
	}
	return oci.ParseManifest(man.MediaType, raw)
}

// describe returns a descriptor of a file, and records the name of the file in f.blobs.
func (f *Files) describe(name, mediaType string) (v1.Descriptor, error) {
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
