package disk

import (
	_ "crypto/sha256" // makes the algorithm available to go-digest
	_ "crypto/sha512" // makes the algorithm available to go-digest
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// blobPath returns the name of a blob's file: blobs/<algorithm>/<2 hex>/<hex>. It returns
// ErrDigest for a malformed or unsupported digest.
func blobPath(d digest.Digest) (string, error) {
	if alg, hex, ok := strings.Cut(string(d), ":"); !ok || !isHexOf(digest.Algorithm(alg), hex) {
		return "", fmt.Errorf("%w %.100q", ErrDigest, string(d))
	}
	return validPath(d), nil
}

// isHexOf reports whether hex is a hash of a supported algorithm. It has to be fast, because each
// request for a blob calls it.
func isHexOf(a digest.Algorithm, hex string) bool {
	return (a == digest.SHA256 || a == digest.SHA512) && len(hex) == a.Size()*2 && strings.Trim(hex, "0123456789abcdef") == ""
}

// BlobFile returns the path of a blob's file below [Options.Path]. It returns ErrDigest for a
// malformed or unsupported digest.
func BlobFile(d digest.Digest) (string, error) { return blobPath(d) }

// validPath is blobPath of a digest that is known to be valid.
func validPath(d digest.Digest) string {
	hex := d.Encoded()
	return "blobs/" + string(d.Algorithm()) + "/" + hex[:2] + "/" + hex
}

// parsePath is the inverse of blobPath, for a path that is split into its directory and its last
// part. It returns false for a path that blobPath never returns. It has to be fast, because it is
// called for each file of a directory.
func parsePath(shard, name string) (k key, ok bool) {
	alg, two, ok := strings.Cut(strings.TrimPrefix(shard, "blobs/"), "/")
	if !ok || len(shard) != len("blobs/")+len(alg)+1+len(two) || len(two) != 2 || !strings.HasPrefix(name, two) {
		return key{}, false
	}
	if !isHexOf(digest.Algorithm(alg), name) {
		return key{}, false
	}
	return keyOfHex(name), true
}
