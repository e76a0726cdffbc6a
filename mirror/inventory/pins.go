package inventory

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

// Name is an operator's name for content: an image of a repository, or a digest in any
// repository.
type Name struct {
	Upstream, Repo string
	oci.Reference
}

// String returns the canonical form: UPSTREAM/REPOSITORY:TAG, UPSTREAM/REPOSITORY@DIGEST, or the
// digest.
func (n Name) String() string {
	switch {
	case n.Upstream == "":
		return n.Digest.String()
	case n.ByDigest():
		return n.Upstream + "/" + n.Repo + "@" + n.Digest.String()
	}
	return n.Upstream + "/" + n.Repo + ":" + n.Tag
}

// Pin keeps an image and everything that it refers to, or a single blob, in the cache until Unpin,
// also across restarts. If n has a tag, Pin keeps only the image that the tag means now. It returns
// ErrNotHeld if the content is not held.
func (v *Inventory) Pin(ctx context.Context, n Name) (api.Pin, error) {
	s, err := v.snapshot(ctx)
	if err != nil {
		return api.Pin{}, err
	}
	var blobs []digest.Digest
	for _, root := range s.named(n) {
		if _, held := v.Disk.Lookup(root); !held && !s.isQueued(root) {
			continue
		}
		for _, c := range s.parts(root) {
			blobs = append(blobs, c.digest)
		}
	}
	if len(blobs) == 0 {
		return api.Pin{}, fmt.Errorf("%s: %w", n, ErrNotHeld)
	}
	if err := v.Disk.SetPin(ctx, n.String(), blobs); err != nil {
		return api.Pin{}, err
	}
	for _, p := range v.Pins() {
		if p.Name == n.String() {
			return p, nil
		}
	}
	return api.Pin{}, fmt.Errorf("%s: unpinned in the meantime: %w", n, ErrNotHeld)
}

// Unpin removes the pin with the given name, so that its blobs may be evicted. It returns
// ErrNotHeld if no pin has this name.
func (v *Inventory) Unpin(ctx context.Context, name string) error {
	was, err := v.Disk.RemovePin(ctx, name)
	if err == nil && !was {
		err = fmt.Errorf("pin of %s: %w", name, ErrNotHeld)
	}
	return err
}

// Pins returns all pins in order of name.
func (v *Inventory) Pins() []api.Pin {
	out := []api.Pin{}
	for _, p := range v.Disk.Pins() {
		out = append(out, v.pinOf(p))
	}
	return out
}

func (v *Inventory) pinOf(p disk.Pin) api.Pin {
	out := api.Pin{Name: p.Name, Since: p.Since.UTC(), Missing: []digest.Digest{}}
	for _, d := range p.Blobs {
		if info, held := v.Disk.Lookup(d); held {
			out.HeldBlobs++
			out.HeldBytes += info.Size
		} else {
			out.Missing = append(out.Missing, d)
		}
	}
	return out
}

// named returns the manifests, or the blob, that a name means. A tag may mean several manifests,
// because some registries convert an image to a form that the client accepts.
func (s *snapshot) named(n Name) []digest.Digest {
	if n.ByDigest() && n.Upstream == "" {
		return []digest.Digest{n.Digest}
	}
	var out []digest.Digest
	for p, tags := range s.images {
		if p.upstream == n.Upstream && p.repo == n.Repo && (n.ByDigest() && p.digest == n.Digest || !n.ByDigest() && slices.Contains(tags, n.Tag)) {
			out = append(out, p.digest)
		}
	}
	slices.Sort(out)
	return out
}

// isQueued reports whether a manifest is still to be forwarded. The queue then has the manifest,
// even if the disk does not.
func (s *snapshot) isQueued(d digest.Digest) bool {
	for p := range s.queued {
		if p.digest == d {
			return true
		}
	}
	return false
}

func tagged(tag string) oci.Reference { return oci.Reference{Tag: tag} }

func referenceTo(d digest.Digest) oci.Reference { return oci.Reference{Digest: d} }
