package inventory

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

// Errors of this package; test for them with errors.Is.
var (
	// ErrNotHeld says that the cache has nothing with the given name.
	ErrNotHeld = errors.New("not found in the cache")
	// ErrSelection says that the selection has both a name and a pattern, or neither.
	ErrSelection = errors.New("name exactly one image, digest or pattern of repositories")
	// ErrPinned says that a pin keeps the content, so that only a purge with Force removes it.
	ErrPinned = errors.New("pinned")
	// ErrQueued says that the content has yet to be forwarded to its registry.
	ErrQueued = errors.New("not forwarded yet; dray queue lists the push, and dray queue drop removes it")
	// ErrHosted says that a purge keeps the content, because it is hosted: dray could not fetch it
	// again from an upstream.
	ErrHosted = errors.New("stored only in this dray; delete it through the registry API")
)

// Inventory lists and changes the content of a cache and the facts about it. All methods may be
// called concurrently with all other uses of the cache.
type Inventory struct {
	Cache      *cache.Cache
	Disk       *disk.Dir // the directory of Cache
	Tags       *meta.Tags
	Visibility *meta.Visibility
	Presence   *meta.Presence
	// Hosted yields the manifests of hosted repositories, about which there are no facts; nil yields
	// none.
	Hosted iter.Seq[Hosted]
	// Queued yields the manifests that were acknowledged, and neither forwarded nor refused by the
	// registry, in the order of their acknowledgement; nil yields none. Clients can pull them even if
	// there are no facts about them yet.
	Queued iter.Seq[Queued]
}

// Queued is a manifest of a queued push.
type Queued struct {
	Upstream, Repo string
	Tag            string // empty if it was pushed by digest
	Digest         digest.Digest
	Manifest       *oci.Manifest
}

// Hosted is a manifest of a hosted repository.
type Hosted struct {
	Upstream, Repo string
	Digest         digest.Digest
	Tags           []string // sorted
}

// BlobOf describes a blob on disk for operators.
func BlobOf(i disk.Info) api.Blob {
	b := api.Blob{
		Digest: i.Digest, Size: i.Size, LastUse: i.LastUse.UTC(), Hits: i.Hits, Pool: "large",
		Proven: i.Proven, Open: i.Open, Pinned: i.Pinned, Unverified: i.Suspect,
	}
	if i.Small {
		b.Pool = "small"
	}
	return b
}

// Blobs yields every blob on disk, in no particular order.
func (v *Inventory) Blobs(ctx context.Context) func(yield func(api.Blob, error) bool) {
	return func(yield func(api.Blob, error) bool) {
		going := true
		err := v.Disk.List(ctx, func(i disk.Info) bool {
			going = yield(BlobOf(i), nil)
			return going
		})
		if err != nil && going {
			yield(api.Blob{}, err)
		}
	}
}

// Eviction returns the blobs that would be evicted to free n bytes, in the order of eviction. The
// parameter limit bounds the number of blobs. Eviction evicts nothing.
func (v *Inventory) Eviction(ctx context.Context, n int64, limit int) ([]api.Victim, error) {
	return victims(v.Disk.Plan(ctx, n, limit))
}

// Evict evicts the blobs that Eviction would return for n and the limit most, and returns them. The
// result left is how many of the n bytes are not freed.
func (v *Inventory) Evict(ctx context.Context, n int64, most int) (all []api.Victim, left int64, err error) {
	gone, left, err := v.Disk.Evict(ctx, n, most)
	all, err = victims(gone, err)
	return all, left, err
}

func victims(all []disk.Victim, err error) ([]api.Victim, error) {
	out := make([]api.Victim, len(all))
	for i, a := range all {
		out[i] = api.Victim{Blob: BlobOf(a.Info), Reason: api.Reason(a.Reason)}
	}
	if err != nil {
		return out, fmt.Errorf("eviction: %w", err)
	}
	return out, nil
}
