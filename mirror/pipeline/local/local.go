// Package local has an image judged that no mirror is asked about: one in an OCI layout, in an
// archive of docker save, or in a registry.
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

// ErrNotFound says that a layout or an archive lacks what it, or somebody, names.
var ErrNotFound = errors.New("not in the image")

// Blobs is where an image is.
type Blobs interface {
	// Manifest returns one that an index lists.
	Manifest(ctx context.Context, d oci.Descriptor) (*oci.Manifest, error)
	// Open reads a blob. Its bytes need not be verified.
	Open(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error)
}

// Contents are what a pipeline judges, of an image that is somewhere else than in a mirror.
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
	return &verified{ReadCloser: r, digest: d.Digest, check: d.Digest.Verifier()}, nil
}

// Scanned implements pipeline.Contents by looking at the layer now.
func (c Contents) Scanned(ctx context.Context, d oci.Descriptor) (*pipeline.Scanned, error) {
	r, err := c.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return c.Pipeline.Scan(ctx, pipeline.Layer{Digest: d.Digest}, r, func() (digest.Digest, error) { return d.Digest, nil })
}

// verified refuses to end bytes that are not what they should be.
type verified struct {
	io.ReadCloser
	digest digest.Digest
	check  digest.Verifier
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	_, _ = v.check.Write(p[:n]) // a hash takes everything
	if err == io.EOF && !v.check.Verified() {
		return n, fmt.Errorf("the bytes of %s do not have this digest", v.digest)
	}
	return n, err
}
