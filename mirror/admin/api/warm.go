package api

import "github.com/opencontainers/go-digest"

// WarmRequest names an image to bring into the cache.
type WarmRequest struct {
	Name string `json:"name"`
	// Platforms are those of the clients that will pull the image, such as linux/arm64. If there is
	// none, everything that an index refers to is fetched.
	Platforms []string `json:"platforms,omitempty"`
}

// Warmth says how much of an image is held. It is sent when it changes, and at the end. The image
// is held as a whole if the last one is not followed by an error.
type Warmth struct {
	// Name is the name of the image with its upstream.
	Name string `json:"name"`
	// Digest is that of the manifest that the name means. It is empty until that is known.
	Digest digest.Digest `json:"digest,omitempty"`
	// Parts counts the manifests and blobs that the platforms need, as far as they are known.
	// HeldParts counts those of them that are held.
	Parts     int `json:"parts"`
	HeldParts int `json:"held_parts"`
	// Bytes is the size of all parts. HeldBytes is what is held of it, with what has arrived of a
	// part.
	Bytes     int64 `json:"bytes"`
	HeldBytes int64 `json:"held_bytes"`
	// FetchedBytes is what was not held before.
	FetchedBytes int64 `json:"fetched_bytes"`
}
