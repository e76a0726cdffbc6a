// Package local checks an image that is not pushed to a mirror. The image is in an OCI layout, in
// an archive of docker save, or in a registry.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"dray/mirror/pipeline"
	"dray/upstream/oci"
)

// ErrNotFound means that a layout or an archive lacks an image, manifest or blob that the caller or
// another manifest names.
var ErrNotFound = errors.New("not in the image")

// Blobs reads the parts of an image.
type Blobs interface {
	// Manifest returns a manifest that an index lists.
	Manifest(ctx context.Context, d oci.Descriptor) (*oci.Manifest, error)
	// Open opens a blob for reading. Open need not verify the digest, because Contents does so.
	Open(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error)
}

// Contents implements pipeline.Contents for an image outside of a mirror.
type Contents struct {
	Blobs
	Pipeline *pipeline.Pipeline
}

var _ pipeline.Contents = Contents{}

// Open implements pipeline.Contents.
func (c Contents) Open(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	r, err := c.Blobs.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	return &verifiedReader{ReadCloser: r, digest: d.Digest, check: d.Digest.Verifier()}, nil
}

// Scanned implements pipeline.Contents. It scans the layer during the call.
func (c Contents) Scanned(ctx context.Context, d oci.Descriptor) (*pipeline.Scanned, error) {
	r, err := c.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return c.Pipeline.Scan(ctx, pipeline.Layer{Digest: d.Digest}, r, func() (digest.Digest, error) { return d.Digest, nil })
}

// verifiedReader returns an error instead of io.EOF if the digest is wrong.
type verifiedReader struct {
	io.ReadCloser
	digest digest.Digest
	check  digest.Verifier
}

func (v *verifiedReader) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	_, _ = v.check.Write(p[:n]) // a hash never fails
	if err == io.EOF && !v.check.Verified() {
		return n, fmt.Errorf("the content of %s does not match this digest", v.digest)
	}
	return n, err
}
