package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"dray/cache/disk"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

// Name is what an operator named: an image of a repository, or a digest wherever it is.
type Name struct {
	Upstream, Repo string
	oci.Reference
}

// String is the one way to write it: UPSTREAM/REPOSITORY:TAG, UPSTREAM/REPOSITORY@DIGEST, or the
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

// Pin keeps an image, with everything that it refers to, or a single blob, until Unpin; it lasts
// over restarts. What a tag points to later is not what is kept. Who names what is not held gets
// ErrNotHeld.
func (v *Inventory) Pin(ctx context.Context, n Name) (api.Pin, error) {
	s, err := v.snapshot(ctx)
	if err != nil {
		return api.Pin{}, err
	}
	var blobs []digest.Digest
	for _, root := range s.named(n) {
		if _, held := v.Disk.Lookup(root); !held && !s.waits(root) {
			continue
		}
		for _, c := range s.parts(root) {
			blobs = append(blobs, c.digest)
		}
	}
	if len(blobs) == 0 {
		return api.Pin{}, fmt.Errorf("%s is %w", n, ErrNotHeld)
	}
	if err := v.Disk.SetPin(ctx, n.String(), blobs); err != nil {
		return api.Pin{}, err
	}
	for _, p := range v.Pins() {
		if p.Name == n.String() {
			return p, nil
		}
	}
	return api.Pin{}, fmt.Errorf("%s was unpinned meanwhile: %w", n, ErrNotHeld)
}

// Unpin ends a pin of that name. Its blobs go in their turn. Without one it returns ErrNotHeld.
func (v *Inventory) Unpin(ctx context.Context, name string) error {
	was, err := v.Disk.RemovePin(ctx, name)
	if err == nil && !was {
		err = fmt.Errorf("a pin of %s is %w", name, ErrNotHeld)
	}
	return err
}

// Pins are all pins in order of name.
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

// named are the manifests, or the blob, that a name means. A tag may mean several: one for each
// form that the upstream converts it to.
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
	slices.SortFunc(out, func(a, b digest.Digest) int { return cmp.Compare(a, b) })
	return out
}

// waits says whether a manifest is still to be forwarded, and so is here without being on disk.
func (s *snapshot) waits(d digest.Digest) bool {
	for p := range s.queued {
		if p.digest == d {
			return true
		}
	}
	return false
}

func tagged(tag string) oci.Reference { return oci.Reference{Tag: tag} }

func referenceTo(d digest.Digest) oci.Reference { return oci.Reference{Digest: d} }
