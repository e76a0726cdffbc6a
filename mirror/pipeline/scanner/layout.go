package scanner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/mirror/pipeline"
	"dray/upstream/oci"
)

// layoutWriter writes an image layout (image-spec, "OCI Image Layout Specification").
type layoutWriter struct {
	dir       string
	remaining int64 // bytes that may still be written
	written   map[digest.Digest]bool
}

// writeLayout writes the pushed manifest, and all blobs and manifests that it needs except foreign
// layers, to the directory dir.
func writeLayout(ctx context.Context, dir string, img *pipeline.Image, limit int64) error {
	l := &layoutWriter{dir: dir, remaining: limit, written: map[digest.Digest]bool{}}
	for _, m := range img.Manifests {
		if err := l.writeManifest(ctx, img, m); err != nil {
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

func (l *layoutWriter) writeManifest(ctx context.Context, img *pipeline.Image, m *pipeline.Manifest) error {
	if err := l.writeBlob(m.Digest, func(w io.Writer) error { _, err := w.Write(m.Raw); return err }); err != nil {
		return err
	}
	copyBlob := func(d oci.Descriptor) error {
		return l.writeBlob(d.Digest, func(w io.Writer) error {
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
		if err := copyBlob(oci.Descriptor{Digest: c.Digest, Size: c.Size, MediaType: c.MediaType}); err != nil {
			return err
		}
	}
	for _, b := range m.Layers {
		if b.Foreign {
			continue
		}
		if err := copyBlob(oci.Descriptor{Digest: b.Digest, Size: b.Size, MediaType: b.MediaType}); err != nil {
			return err
		}
	}
	return nil
}

// writeBlob writes a blob, unless it was written before.
func (l *layoutWriter) writeBlob(d digest.Digest, write func(io.Writer) error) error {
	if l.written[d] {
		return nil
	}
	l.written[d] = true
	if err := d.Validate(); err != nil {
		return err
	}
	dir := l.dir
	for _, name := range []string{v1.ImageBlobsDir, d.Algorithm().String()} {
		dir = filepath.Join(dir, name)
		if err := makeReadable(dir); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, d.Encoded()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o644); err != nil { // whatever the umask is
		return err
	}
	if err := write(&limitedWriter{f, l}); err != nil {
		return fmt.Errorf("write %s: %w", d, err)
	}
	return f.Close()
}

// makeReadable makes a directory, unless it exists. Every user may read the new directory, whatever
// the umask is.
func makeReadable(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return cmp.Or(err, os.Chmod(dir, 0o755))
}

// limitedWriter returns an error for a write of more bytes than l.remaining.
type limitedWriter struct {
	w io.Writer
	l *layoutWriter
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.l.remaining {
		return 0, fmt.Errorf("the image is larger than max_image")
	}
	w.l.remaining -= int64(len(p))
	return w.w.Write(p)
}

func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return cmp.Or(os.WriteFile(path, raw, 0o644), os.Chmod(path, 0o644))
}
