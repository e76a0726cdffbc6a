package fleet

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Claims is a store of leases of other things than blobs, each of which one member at a time works
// on. The Digest of such a Lease is that of a name. A claim and the lease of a blob are never the
// same, even if the digests are. All methods may be called concurrently. Each reports a failure at
// once, without a second attempt.
type Claims interface {
	// Take is Take of [Leases].
	Take(ctx context.Context, name digest.Digest, m Member, failed int64) (Lease, error)
	// Find returns the lease without taking it. If nobody has it, the Lease has no Holder.
	Find(ctx context.Context, name digest.Digest) (Lease, error)
	// Renew extends the leases that a member holds by LeaseTTL, and restores those that the store has
	// lost. It returns the names of those that another member has taken.
	Renew(ctx context.Context, m Member, held []Lease) (lost []digest.Digest, err error)
	// Release is Release of [Leases].
	Release(ctx context.Context, held []Lease) error
}
