package fleet

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Claims is a store of claims. A claim is a lease for work that is not the fetch of a blob. One
// member at a time does this work. The Digest of a claim is the digest of a name. A claim and the
// lease of a blob are independent, even if their digests are equal. All methods may be called
// concurrently. Each method reports a failure at once, without a second attempt.
type Claims interface {
	// Take works like Take of [Leases].
	Take(ctx context.Context, name digest.Digest, m Member, failedGen int64) (Lease, error)
	// Find returns the lease without taking it. If nobody has it, the Lease has no Holder.
	Find(ctx context.Context, name digest.Digest) (Lease, error)
	// Renew makes each lease of a member expire LeaseTTL from now, and restores the leases that the
	// store has lost. It returns the names of the leases that another member has taken.
	Renew(ctx context.Context, m Member, held []Lease) (lost []digest.Digest, err error)
	// Release works like Release of [Leases].
	Release(ctx context.Context, held []Lease) error
}
