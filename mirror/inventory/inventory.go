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
	// ErrNotHeld says that nothing of what was named is here.
	ErrNotHeld = errors.New("not held")
	// ErrSelection says that it is not clear what was named.
	ErrSelection = errors.New("name one image, one digest, or one pattern of repositories")
	// ErrPinned says that what was named is not purged without force, because a pin keeps it.
	ErrPinned = errors.New("pinned")
	// ErrQueued says that what was named is on its way to its registry, which has to get it first.
	ErrQueued = errors.New("still to be forwarded: dray queue shows it, and dray queue drop gives it up")
	// ErrHosted says that what was named has no upstream that it could be fetched from again.
	ErrHosted = errors.New("hosted here alone: delete it as a client of the registry")
)

// Inventory is the view of a cache and of the facts about it. All methods may be called
// concurrently with everything else that uses them.
type Inventory struct {
	Cache      *cache.Cache
	Disk       *disk.Dir // the one of Cache
	Tags       *meta.Tags
	Visibility *meta.Visibility
	Presence   *meta.Presence
	// Hosted are the manifests that are kept here for good, in repositories of which there are no
	// facts; nil: none.
	Hosted iter.Seq[Hosted]
	// Queued are the manifests that were acknowledged and are still to be forwarded, in the order
	// of their acknowledgement; nil: none. There may be no facts of them yet, and clients get them
	// all the same.
	Queued iter.Seq[Queued]
}

// Queued is a manifest on its way to its registry.
type Queued struct {
	Upstream, Repo string
	Tag            string // empty where it was pushed by its digest
	Digest         digest.Digest
	Manifest       *oci.Manifest
}

// Hosted is a manifest of a repository that is hosted here.
type Hosted struct {
	Upstream, Repo string
	Digest         digest.Digest
	Tags           []string // in order
}

func blobOf(i disk.Info) api.Blob {
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
			going = yield(blobOf(i), nil)
			return going
		})
		if err != nil && going {
			yield(api.Blob{}, err)
		}
	}
}

// Eviction returns what goes, in this order, when n bytes more are needed, at most so many
// blobs as most says. Nothing changes.
func (v *Inventory) Eviction(ctx context.Context, n int64, most int) ([]api.Victim, error) {
	return victims(v.Disk.Plan(ctx, n, most))
}

// Evict does what Eviction says.
func (v *Inventory) Evict(ctx context.Context, n int64, most int) ([]api.Victim, error) {
	return victims(v.Disk.Evict(ctx, n, most))
}

func victims(all []disk.Victim, err error) ([]api.Victim, error) {
	out := make([]api.Victim, len(all))
	for i, a := range all {
		out[i] = api.Victim{Blob: blobOf(a.Info), Reason: api.Reason(a.Reason)}
	}
	if err != nil {
		return out, fmt.Errorf("eviction: %w", err)
	}
	return out, nil
}
