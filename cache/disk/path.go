package disk

import (
	_ "crypto/sha256" // makes the algorithm available to go-digest
	_ "crypto/sha512" // makes the algorithm available to go-digest
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// blobPath returns where a blob lives: blobs/<algorithm>/<2 hex>/<hex>.
func blobPath(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("%w %.100q: %w", ErrDigest, string(d), err)
	}
	if alg := d.Algorithm(); alg != digest.SHA256 && alg != digest.SHA512 {
		return "", fmt.Errorf("%w %.100q", ErrDigest, string(d))
	}
	hex := d.Encoded()
	return "blobs/" + string(d.Algorithm()) + "/" + hex[:2] + "/" + hex, nil
}

// parsePath is the inverse of blobPath; it refuses every path that blobPath does not return.
func parsePath(p string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(p, "blobs/")
	if !ok {
		return "", false
	}
	alg, _, ok := strings.Cut(rest, "/")
	if !ok {
		return "", false
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(alg), path.Base(p))
	if back, err := blobPath(d); err != nil || back != p {
		return "", false
	}
	return d, true
}
