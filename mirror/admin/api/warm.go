package api

import "github.com/opencontainers/go-digest"

// WarmRequest names an image to bring into the cache.
type WarmRequest struct {
	Name string `json:"name"`
	// Platforms are the platforms of the clients that will pull the image, such as linux/arm64.
	// Without platforms, dray fetches everything that an index refers to.
	Platforms []string `json:"platforms,omitempty"`
}

// Warmth says how much of an image is held. dray sends a Warmth now and then if it has changed, and
// at the end. The whole image is held if no error follows the last Warmth.
type Warmth struct {
	// Name is the name of the image with its upstream.
	Name string `json:"name"`
	// Digest is the digest of the manifest that the name refers to. It is empty until dray knows it.
	Digest digest.Digest `json:"digest,omitempty"`
	// Parts counts the manifests and blobs that the platforms need, and that dray has found so far.
	// HeldParts counts the held parts.
	Parts     int `json:"parts"`
	HeldParts int `json:"held_parts"`
	// Bytes is the size of the parts found so far. HeldBytes is the size of the held parts, plus the
	// bytes of other parts that have arrived so far.
	Bytes     int64 `json:"bytes"`
	HeldBytes int64 `json:"held_bytes"`
	// FetchedBytes counts the bytes that have arrived so far for blobs that were not held before.
	FetchedBytes int64 `json:"fetched_bytes"`
}
