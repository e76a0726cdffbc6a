package api

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is a manifest of a repository. It also says how much of the image is held.
type Image struct {
	// Upstream and Repository are empty if facts were lost and the repository is not known.
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	// Tags are the known tags of the manifest.
	Tags      []string      `json:"tags"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"media_type,omitempty"`
	// Parts counts the manifest and everything that it refers to, directly or through other manifests.
	// A manifest that is not held counts as one part, without the content that it refers to. HeldParts
	// counts the parts on disk.
	Parts     int `json:"parts"`
	HeldParts int `json:"held_parts"`
	// Bytes is the size of all parts, and HeldBytes the size of the parts on disk.
	Bytes     int64 `json:"bytes"`
	HeldBytes int64 `json:"held_bytes"`
	// LastUse is when one of the parts was last opened. It may be up to one hour too early, and is
	// zero if no part is held.
	LastUse time.Time `json:"last_use"`
	// Pinned says that a pin keeps the manifest.
	Pinned bool `json:"pinned"`
	// Queued says that the manifest has not been forwarded to its registry yet.
	Queued bool `json:"queued"`
	// Part says that the manifest has no tag and is part of an index of the same repository.
	Part bool `json:"part"`
}

// Blob describes a blob on disk.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// LastUse is when the blob was last opened. It may be up to one hour too early.
	LastUse time.Time `json:"last_use"`
	// Hits counts requests for the blob, up to 3. Eviction lowers the count each time that it spares
	// the blob because of its hits.
	Hits int `json:"hits"`
	// Pool is "small" for blobs below 1 MiB, otherwise "large". Each pool has its own order of
	// eviction.
	Pool string `json:"pool"`
	// Proven says that eviction has spared the blob, because it was in use or was requested again, or
	// that the blob was stored again soon after it was evicted. dray keeps such a blob longer than
	// other blobs.
	Proven bool `json:"proven"`
	// Open says that the blob is being read, or needed by a push.
	Open bool `json:"open"`
	// Pinned says that a pin or an unfinished push keeps the blob.
	Pinned bool `json:"pinned"`
	// Unverified says that dray stopped uncleanly before the blob was on stable storage, so its file
	// may be damaged. dray verifies the blob before its next use.
	Unverified bool `json:"unverified"`
}

// Victim is a blob that eviction removes, and the reason. "unused" means that the blob is the
// oldest of the blobs that were not requested again. "cold" means that the blob is proven, and that
// eviction has counted down its hits. Hits is always 0: a blob with hits is not evicted.
type Victim struct {
	Blob
	Reason Reason `json:"reason"`
}

// Reason is why a blob is evicted.
type Reason string

// The reasons of package disk.
const (
	ReasonUnused Reason = "unused"
	ReasonCold   Reason = "cold"
)

// Pin describes a pin, and the blobs that it keeps in the cache.
type Pin struct {
	// Name is the name of the pin.
	Name string `json:"name"`
	// Since is when the pin was set.
	Since time.Time `json:"since"`
	// HeldBlobs and HeldBytes are the number and size of the held blobs.
	HeldBlobs int   `json:"held_blobs"`
	HeldBytes int64 `json:"held_bytes"`
	// Missing are the blobs of the pin that are not held. The pin does not fetch such a blob, but
	// keeps it once it is stored.
	Missing []digest.Digest `json:"missing"`
}

// Fate says what a purge did with one blob. In a dry run, it says what the purge would do.
type Fate string

// The fates.
const (
	FateRemoved Fate = "removed"
	FateNotHeld Fate = "not held"
	FateShared  Fate = "shared" // the blob is a part of an image that is not purged
	FateInUse   Fate = "in use" // the blob is being read, or needed by a push
	FatePinned  Fate = "pinned" // a pin or an unfinished push keeps the blob
	FateFailed  Fate = "failed" // the blob could not be removed; Error has the reason
)

// Gone is a blob that a purge selected.
type Gone struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // in bytes; 0 if the blob is not held
	Fate   Fate          `json:"fate"`
	Error  string        `json:"error,omitempty"`
}

// Purged is the result of a purge, or of a dry run.
type Purged struct {
	// Tags are the tags whose facts were deleted. At the next request for such a tag, dray asks the
	// upstream.
	Tags []string `json:"tags"`
	// Images are the purged manifests. Before dray serves one of them in its repository again, it asks
	// the upstream.
	Images []string `json:"images"`
	// Kept are the selected images that are not purged, because a pin keeps them. Their tags also
	// stay.
	Kept  []string `json:"kept,omitempty"`
	Blobs []Gone   `json:"blobs"`
	// RemovedBytes is the size of the removed blobs.
	RemovedBytes int64 `json:"removed_bytes"`
	DryRun       bool  `json:"dry_run"`
}

// PurgeRequest selects the content to purge: an image, a digest, or repositories by a pattern.
type PurgeRequest struct {
	Name       string `json:"name,omitempty"`
	Repository string `json:"repository,omitempty"`
	Force      bool   `json:"force,omitempty"`
	DryRun     bool   `json:"dry_run,omitempty"`
}

// NameRequest names an image, a digest or a pin.
type NameRequest struct {
	Name string `json:"name"`
}

// EvictRequest is the number of bytes to free.
type EvictRequest struct {
	Bytes int64 `json:"bytes"`
}

// Evicted lists the evicted blobs in the order of their eviction.
type Evicted struct {
	Victims []Victim `json:"victims"`
	// LeftBytes are the bytes of the request that are not freed. One request evicts a bounded number
	// of blobs, so ask again for LeftBytes. If there are no victims, all blobs are open or pinned.
	LeftBytes int64 `json:"left_bytes,omitempty"`
}

// Items is the JSON form of a list.
type Items[A any] struct {
	Items []A `json:"items"`
}
