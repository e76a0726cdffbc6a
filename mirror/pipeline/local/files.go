package local

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/oci"
)

// maxDocument is the maximum length of a document in a layout or an archive, in bytes.
const maxDocument = 16 << 20

// Files reads the images in an archive, or in a directory that has the form of a layout
// (image-spec, "OCI Image Layout Specification").
type Files struct {
	open  func(name string) (io.ReadCloser, int64, error)
	close func() error
	// The fields below are set only for an archive in the old format of docker save. saved has the
	// images of the archive. blobs has the file names of the blobs of the image that Root returned
	// last. These names differ from the names in a layout.
	saved []savedImage
	blobs map[digest.Digest]string
}

var _ Blobs = (*Files)(nil)

// OpenLayout opens a layout in a directory.
func OpenLayout(dir string) (*Files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &Files{close: root.Close, open: func(name string) (io.ReadCloser, int64, error) {
		file, err := root.Open(name)
		if err != nil {
			return nil, 0, err
		}
		info, err := file.Stat()
		if err != nil {
			return nil, 0, errors.Join(err, file.Close())
		}
		return file, info.Size(), nil
	}}
	if _, err := f.document(v1.ImageIndexFile); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not an OCI layout: %w", dir, err), root.Close())
	}
	return f, nil
}

// OpenArchive opens a tar archive of docker save, in the old or the new format, or a tar archive
// that contains a layout. If the archive is compressed with gzip, OpenArchive unpacks it to a
// temporary file.
func OpenArchive(name string) (*Files, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if file, err = unpacked(file); err != nil {
		return nil, fmt.Errorf("%s is not an image archive: %w", name, err)
	}
	entries, err := list(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not an image archive: %w", name, err), file.Close())
	}
	f := &Files{close: file.Close, open: func(name string) (io.ReadCloser, int64, error) {
		e, ok := entries[path.Clean(name)]
		if !ok {
			return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return io.NopCloser(io.NewSectionReader(file, e.at, e.size)), e.size, nil
	}}
	if _, err := f.document(v1.ImageIndexFile); err == nil {
		return f, nil
	}
	if err := f.readSaved(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not an image archive: %w", name, err), file.Close())
	}
	return f, nil
}

// unpacked returns an archive that is not compressed: the given file, or a temporary file with the
// unpacked content. The next read of the result begins at its first byte. The temporary file has
// already been removed from its directory. If the result is a temporary file or an error, the given
// file is closed.
func unpacked(file *os.File) (*os.File, error) {
	packed, err := gzip.NewReader(file)
	if err != nil { // not compressed
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return file, nil
	}
	defer file.Close()
	plain, err := os.CreateTemp("", "dray-image-*")
	if err != nil {
		return nil, err
	}
	err = os.Remove(plain.Name())
	if err == nil {
		_, err = io.Copy(plain, packed)
	}
	if err == nil {
		_, err = plain.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	return plain, nil
}

// extent is the offset and length in bytes of a file's content in an archive.
type extent struct{ at, size int64 }

const (
	// maxEntries bounds the number of entries of an archive, including links and directories.
	maxEntries = 100_000
	// maxLinks bounds the length of a chain of links from a name to a file. Linux has the same bound.
	maxLinks = 40
)

// list finds the entries of an archive without reading their contents.
func list(file *os.File) (map[string]extent, error) {
	entries, links := map[string]extent{}, map[string]string{}
	r := tar.NewReader(file)
	for n := 0; ; n++ {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if n >= maxEntries {
			return nil, fmt.Errorf("more than %d entries", maxEntries)
		}
		at, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		delete(entries, name) // of several entries with the same name, the last one counts
		delete(links, name)
		switch h.Typeflag {
		case tar.TypeReg:
			entries[name] = extent{at, h.Size}
		case tar.TypeLink:
			links[name] = path.Clean(h.Linkname)
		case tar.TypeSymlink: // docker save stores a repeated layer once, and links to it
			links[name] = path.Join(path.Dir(name), h.Linkname)
		}
	}
	for name, to := range links {
		for range maxLinks {
			if e, ok := entries[to]; ok {
				entries[name] = e
				break
			}
			to = links[to]
		}
	}
	return entries, nil
}

// Close releases the files.
func (f *Files) Close() error { return f.close() }

func (f *Files) document(name string) ([]byte, error) {
	r, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, size, maxDocument)
	}
	return io.ReadAll(io.LimitReader(r, maxDocument+1))
}

// Root returns the manifest of the image with the given name, or of the only image if the name is
// empty. The name is a tag, or a repository with a tag such as team/app:1.
func (f *Files) Root(ctx context.Context, name string) (*oci.Manifest, error) {
	if f.saved != nil {
		return f.savedRoot(name)
	}
	raw, err := f.document(v1.ImageIndexFile)
	if err != nil {
		return nil, err
	}
	var index v1.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", v1.ImageIndexFile, err)
	}
	var all [][]string
	for _, d := range index.Manifests {
		all = append(all, []string{d.Annotations[imageName], d.Annotations[v1.AnnotationRefName]})
	}
	i, err := selected(name, all)
	if err != nil {
		return nil, err
	}
	return f.Manifest(ctx, index.Manifests[i])
}

// imageName is the annotation for the whole name of an image, which containerd and Docker write
// (containerd, images/annotations.go). The annotation of the specification has the tag only.
const imageName = "io.containerd.image.name"

// selected returns the position of the image with the given name in the slice images, which has the
// names of each image. An empty name selects the only image.
func selected(name string, images [][]string) (int, error) {
	var found []int
	var choices []string
	for i, names := range images {
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
		if len(names) > 0 {
			choices = append(choices, names[0])
		}
		if name == "" || slices.ContainsFunc(names, func(n string) bool {
			return n == name || strings.HasSuffix(n, ":"+name) || strings.HasSuffix(n, "/"+name)
		}) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return 0, fmt.Errorf("%w: an image with the name %q; there are %s", ErrNotFound, name, cmp.Or(strings.Join(choices, ", "), "no names"))
	}
	return 0, fmt.Errorf("%d images match; select one by its name: %s", len(found), cmp.Or(strings.Join(choices, ", "), "they have none"))
}

// Manifest implements Blobs.
func (f *Files) Manifest(_ context.Context, d oci.Descriptor) (*oci.Manifest, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	raw, err := f.document(blobPath(d.Digest))
	if err != nil {
		return nil, notFound(err, "manifest", d.Digest)
	}
	if got := d.Digest.Algorithm().FromBytes(raw); got != d.Digest {
		return nil, fmt.Errorf("the content of manifest %s has the digest %s", d.Digest, got)
	}
	m, err := oci.ParseManifest(d.MediaType, raw)
	if err != nil {
		return nil, err
	}
	m.Digest = d.Digest
	return m, nil
}

// Open implements Blobs.
func (f *Files) Open(_ context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	name, ok := f.blobs[d.Digest]
	if !ok {
		name = blobPath(d.Digest)
	}
	r, _, err := f.open(name)
	return r, notFound(err, "blob", d.Digest)
}

func notFound(err error, what string, d digest.Digest) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s %s", ErrNotFound, what, d)
	}
	return err
}

func blobPath(d digest.Digest) string {
	return path.Join(v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}
