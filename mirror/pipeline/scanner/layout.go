package scanner

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/mirror/pipeline"
	"dray/upstream/oci"
)

// writer writes an image layout (image-spec, "OCI Image Layout Specification").
type writer struct {
	dir  string
	left int64 // bytes that may still be written
	has  map[digest.Digest]bool
}

// writeLayout writes what was pushed, with all that it refers to but foreign layers, to a
// directory.
func writeLayout(ctx context.Context, dir string, img *pipeline.Image, most int64) error {
	l := &writer{dir: dir, left: most, has: map[digest.Digest]bool{}}
	for _, m := range img.Manifests {
		if err := l.manifest(ctx, img, m); err != nil {
			return err
		}
	}
	root := img.Root()
	top := v1.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}
	if img.Tag != "" {
		top.Annotations = map[string]string{v1.AnnotationRefName: img.Tag}
	}
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{top}}
	index.SchemaVersion = 2
	if err := writeJSON(filepath.Join(dir, v1.ImageIndexFile), index); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, v1.ImageLayoutFile), v1.ImageLayout{Version: v1.ImageLayoutVersion})
}

func (l *writer) manifest(ctx context.Context, img *pipeline.Image, m *pipeline.Manifest) error {
	if err := l.put(m.Digest, func(w io.Writer) error { _, err := w.Write(m.Raw); return err }); err != nil {
		return err
	}
	copied := func(d oci.Descriptor) error {
		return l.put(d.Digest, func(w io.Writer) error {
			r, err := img.Contents.Open(ctx, d)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(w, r)
			return err
		})
	}
	if c := m.Config; c != nil {
		if err := copied(oci.Descriptor{Digest: c.Digest, Size: c.Size, MediaType: c.MediaType}); err != nil {
			return err
		}
	}
	for _, b := range m.Layers {
		if b.Foreign {
			continue
		}
		if err := copied(oci.Descriptor{Digest: b.Digest, Size: b.Size, MediaType: b.MediaType}); err != nil {
			return err
		}
	}
	return nil
}

// put writes one blob, once.
func (l *writer) put(d digest.Digest, write func(io.Writer) error) error {
	if l.has[d] {
		return nil
	}
	l.has[d] = true
	if err := d.Validate(); err != nil {
		return err
	}
	dir := filepath.Join(l.dir, v1.ImageBlobsDir, d.Algorithm().String())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, d.Encoded()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(&limited{f, l}); err != nil {
		return fmt.Errorf("write %s: %w", d, err)
	}
	return f.Close()
}

// limited refuses what the image may not have.
type limited struct {
	w io.Writer
	l *writer
}

func (w *limited) Write(p []byte) (int, error) {
	if int64(len(p)) > w.l.left {
		return 0, fmt.Errorf("the image is larger than the scanner is given (max_image)")
	}
	w.l.left -= int64(len(p))
	return w.w.Write(p)
}

func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o644)
}
