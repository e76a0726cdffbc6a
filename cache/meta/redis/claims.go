package redis

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
)

// Claims are the claims of a fleet in Redis: its leases for work that is not the fetch of a blob.
// They are stored like [Leases], but under other keys.
type Claims struct{ leases Leases }

var _ fleet.Claims = (*Claims)(nil)

// Claims returns the claims in the Redis of the store. After Store.Close, they cannot be used.
func (s *Store) Claims() *Claims { return &Claims{Leases{s.client, s.prefix + "{fleet}:claim:"}} }

// Take implements [fleet.Claims].
func (s *Claims) Take(ctx context.Context, name digest.Digest, m fleet.Member, failed int64) (fleet.Lease, error) {
	return s.leases.Take(ctx, name, m, failed)
}

// Find implements [fleet.Claims].
func (s *Claims) Find(ctx context.Context, name digest.Digest) (fleet.Lease, error) {
	if err := ctx.Err(); err != nil {
		return fleet.Lease{}, err
	}
	var l struct {
		Holder     string `redis:"m"`
		Address    string `redis:"a"`
		Generation int64  `redis:"g"`
	}
	if err := s.leases.client.HMGet(ctx, s.leases.lease(name), "m", "a", "g").Scan(&l); err != nil {
		return fleet.Lease{}, fmt.Errorf("claim of %s: %w", name, translate(err))
	}
	return fleet.Lease{Digest: name, Holder: l.Holder, Address: l.Address, Generation: l.Generation}, nil
}

// Renew implements [fleet.Claims].
func (s *Claims) Renew(ctx context.Context, m fleet.Member, held []fleet.Lease) (lost []digest.Digest, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.leases.extend(ctx, m, held)
}

// Release implements [fleet.Claims].
func (s *Claims) Release(ctx context.Context, held []fleet.Lease) error {
	return s.leases.Release(ctx, held)
}
