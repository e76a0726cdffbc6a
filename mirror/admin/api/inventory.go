package api

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is a manifest of a repository, and what is held of it.
type Image struct {
	// Upstream and Repository are empty where facts were lost and it is not known whose it is.
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	// Tags that point to it, as far as is known.
	Tags      []string      `json:"tags"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"media_type,omitempty"`
	// Parts are the manifest and everything it refers to, as far as its manifests are held;
	// HeldParts those that are on disk.
	Parts     int `json:"parts"`
	HeldParts int `json:"held_parts"`
	// Bytes of the parts, as the manifests say, and of those on disk.
	Bytes     int64 `json:"bytes"`
	HeldBytes int64 `json:"held_bytes"`
	// LastUse is when one of its parts was last opened, to the hour; zero where none is held.
	LastUse time.Time `json:"last_use"`
	// Pinned says that a pin keeps the manifest.
	Pinned bool `json:"pinned"`
	// Queued says that its registry is still to get it.
	Queued bool `json:"queued"`
	// Part says that it has no tag and is part of an index of the same repository.
	Part bool `json:"part"`
}

// Blob is what is known of one blob on disk.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	// Size in bytes.
	Size int64 `json:"size"`
	// LastUse is when it was last opened, to the hour.
	LastUse time.Time `json:"last_use"`
	// Hits is how often it was asked for since its last turn of eviction; 3 stands for more.
	Hits int `json:"hits"`
	// Pool is "small" below 1 MiB, else "large": they are evicted apart.
	Pool string `json:"pool"`
	// Proven says that it was asked for again since it came. Others are evicted first.
	Proven bool `json:"proven"`
	// Open says that it is being read, or needed by a push.
	Open bool `json:"open"`
	// Pinned says that a pin keeps it.
	Pinned bool `json:"pinned"`
	// Unverified says that it comes from an unclean stop and is verified before its next use.
	Unverified bool `json:"unverified"`
}

// Victim is a blob that eviction takes, and why: "unused" for the oldest of those that nobody asked
// for since they came, "cold" for one that was asked for and whose rounds are over by its turn. Its
// Hits are those at its turn: none.
type Victim struct {
	Blob
	Reason Reason `json:"reason"`
}

// Reason is why a blob is evicted.
type Reason string

// The reasons, which are those of package disk.
const (
	ReasonUnused Reason = "unused"
	ReasonCold   Reason = "cold"
)

// Pin is a set of blobs that is kept.
type Pin struct {
	// Name under which it was set.
	Name string `json:"name"`
	// Since is when.
	Since time.Time `json:"since"`
	// HeldBlobs and HeldBytes are what it keeps.
	HeldBlobs int   `json:"held_blobs"`
	HeldBytes int64 `json:"held_bytes"`
	// Missing are blobs that are not held. They are kept once they come; the pin does not fetch them.
	Missing []digest.Digest `json:"missing"`
}

// Fate is what became of a blob that belongs to what was purged.
type Fate string

// The fates.
const (
	FateRemoved Fate = "removed"
	FateNotHeld Fate = "not held"
	FateShared  Fate = "shared" // another manifest that is held needs it, or another tag or repository has it
	FateInUse   Fate = "in use" // it is being read, or needed by a push
	FatePinned  Fate = "pinned" // a pin keeps it
	FateFailed  Fate = "failed" // it could not be removed; Error says why
)

// Gone is a blob of what was purged.
type Gone struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // in bytes, where it is held
	Fate   Fate          `json:"fate"`
	Error  string        `json:"error,omitempty"`
}

// Purged is what a purge did, or would do.
type Purged struct {
	// Tags are forgotten: the next client that asks for one makes dray ask the upstream.
	Tags []string `json:"tags"`
	// Images are the manifests that repositories may no longer see without a question to the upstream.
	Images []string `json:"images"`
	// Kept are the images that a pattern matches and that stay, with their tags, because a pin
	// keeps them.
	Kept  []string `json:"kept,omitempty"`
	Blobs []Gone   `json:"blobs"`
	// RemovedBytes is the size of what was removed.
	RemovedBytes int64 `json:"removed_bytes"`
	DryRun       bool  `json:"dry_run"`
}

// PurgeRequest says what to purge: an image, a digest, or repositories by a pattern.
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

// EvictRequest says how many bytes to find.
type EvictRequest struct {
	Bytes int64 `json:"bytes"`
}

// Evicted is what was evicted, in order.
type Evicted struct {
	Victims []Victim `json:"victims"`
}

// items is the JSON form of a list, as the API has it.
type Items[A any] struct {
	Items []A `json:"items"`
}
