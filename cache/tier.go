package cache

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Tier is another place that has bytes by digest, besides memory and disk, such as a bucket that
// several machines share. The bytes are verified like the bytes of any origin. A Tier that has a
// blob does not make the blob visible to clients.
//
// A Tier may fail at any time. It must then fail quickly, because its callers ask an origin next.
type Tier interface {
	// Open is an [Origin] for the bytes [start, end) of a blob. If end is 0, the bytes reach to the
	// end of the blob. Open returns an error that wraps ErrNotFound if the Tier does not have the
	// blob.
	Open(ctx context.Context, d digest.Digest, start, end int64) (Stream, error)
	// Has reports whether the Tier has a blob, as far as it can tell within a short time.
	Has(ctx context.Context, d digest.Digest) bool
	// Keep says that the disk holds a blob that the Tier should have, too. The parameter size is the
	// blob's length in bytes. Keep returns at once. The Tier copies the blob later, if it does not
	// have the blob yet.
	Keep(d digest.Digest, size int64)
	// Wrong says that bytes which the Tier gave for a blob were wrong. Open does not return them
	// again, and the next Keep replaces them.
	Wrong(d digest.Digest)
}
