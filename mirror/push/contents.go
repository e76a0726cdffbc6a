package push

import (
	"context"
	"io"

	"dray/mirror/gate"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// contents gives the checks access to the content of an image that is pushed to a repository.
type contents struct {
	*Pusher
	repo repository.Repo
	gate *gate.Gate
}

var _ pipeline.Contents = contents{}

// Manifest implements pipeline.Contents.
func (c contents) Manifest(ctx context.Context, d oci.Descriptor) (*oci.Manifest, error) {
	at, err := c.repo.LocateManifest(ctx, d.Digest, oci.AnyManifest(), repository.Judge)
	m := at.Manifest
	if err == nil && m == nil {
		m, err = c.o.Manifests.ByDigest(ctx, c.repo, d.Digest)
	}
	if err != nil {
		return nil, missing(err, oci.NotPushed(oci.KindManifest, d.Digest, c.repo.Name))
	}
	return m.Parse()
}

// missing returns notFound, with err as the cause, if err is a "not found" of the upstream. It
// returns any other err unchanged.
func missing(err error, notFound *oci.Error) error {
	if oci.NotFound(err) {
		return notFound.Because(err)
	}
	return err
}

// Open implements pipeline.Contents. If the bytes came through another repository, Open returns
// them only if the upstream is known to have them in this repository, too.
func (c contents) Open(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	at, err := c.repo.LocateBlob(ctx, d.Digest, repository.Judge)
	if err != nil {
		return nil, err
	}
	size := at.Size
	switch at.Place {
	case repository.InStaging, repository.InQueue:
		return c.repo.OpenHere(ctx, d.Digest, size)
	case repository.Nowhere:
		return nil, oci.NotPushed(oci.KindBlob, d.Digest, c.repo.Name)
	case repository.Visible:
		size = d.Size
		if held, ok := c.o.Cache.Stat(d.Digest); ok {
			size = held
		}
	}
	r, err := c.repo.Fetch(d.Digest, nil).Open(ctx, size)
	if err != nil {
		return nil, missing(err, oci.NotPushed(oci.KindBlob, d.Digest, c.repo.Name))
	}
	return r, nil
}

// Scanned implements pipeline.Contents. It returns the result of the scan during the upload, or a
// remembered result. If there is neither, it scans the layer now, unless the gate trusts layers
// that this push has not brought: then it returns nil.
func (c contents) Scanned(ctx context.Context, d oci.Descriptor) (*pipeline.Scanned, error) {
	var scan *gate.Scan
	seen := gate.Unseen
	if b := c.repo.Staged(d.Digest); b != nil {
		scan, seen = forwardOf(b).scan, gate.Uploaded
	}
	return c.o.Checks.Scanned(ctx, c.gate, c.repo.Key(d.Digest), scan, seen, func(ctx context.Context) (io.ReadCloser, error) { return c.Open(ctx, d) })
}
