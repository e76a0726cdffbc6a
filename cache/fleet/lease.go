package fleet

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// LeaseTTL is how long a lease lasts without renewal.
	LeaseTTL = 10 * time.Second
	// RenewEvery is how often a member renews its leases.
	RenewEvery = 3 * time.Second
)

// Member is one mirror of a fleet.
type Member struct {
	// ID is random, and lasts as long as the state directory. Two members have different IDs, even at
	// the same address.
	ID string `json:"id"`
	// Address is host:port of the listener for other members. dray does not trust an address from a
	// store until the member at this address has proved that it knows the fleet's secret.
	Address string `json:"address"`
	// Zone is the name of the zone in which the member runs; it may be empty.
	Zone string `json:"zone,omitempty"`
	// Version is the version of the program, for people.
	Version string `json:"version,omitempty"`
	// Protocol is the number of the protocol that the member speaks.
	Protocol int `json:"protocol"`
	// Upstreams describes the upstreams of the member, as it last reported them.
	Upstreams Upstreams `json:"upstreams,omitempty"`
}

// Lease says which member fetches a blob, or has just fetched it. A claim (see [Claims]) is a Lease
// for other work.
type Lease struct {
	Digest digest.Digest
	Holder string // the ID of the member
	// Address is the address of the holder.
	Address string
	// Generation grows each time a member takes the lease, even if the same member takes it again. It
	// is higher than before even if the store has lost its data in between.
	Generation int64
}

// Leases is a store of leases. The clock of the store alone decides when a lease expires. All
// methods may be called concurrently. Each method reports a failure at once, without a second
// attempt.
type Leases interface {
	// Take takes the lease of a blob for a member if the lease is free, if the member already has it,
	// or if failedGen is the generation of the lease. failedGen is the generation whose holder the
	// caller has seen fail, or 0. Take returns the lease as it is after the call. This lease may
	// belong to another member.
	Take(ctx context.Context, d digest.Digest, m Member, failedGen int64) (Lease, error)
	// Renew makes a member's leases expire LeaseTTL from now, and restores the leases that the store
	// has lost. It returns the digests of the leases that another member has taken. Renew also
	// records that the member is alive for LeaseTTL from now, even if it holds no lease.
	Renew(ctx context.Context, m Member, held []Lease) (lost []digest.Digest, err error)
	// Release releases leases. It ignores leases that have another generation by now.
	Release(ctx context.Context, held []Lease) error
	// Leave removes a member from the members that are alive.
	Leave(ctx context.Context, id string) error
	// Members returns the members that are alive, in the order of their IDs.
	Members(ctx context.Context) ([]Member, error)
}
