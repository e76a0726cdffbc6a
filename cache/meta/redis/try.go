package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
	"dray/cache/meta"
)

// tryFor is how long Redis keeps the fact and the share that Try writes, if Try does not remove
// them.
const tryFor = time.Minute

// attempt is an operation that dray needs in Redis.
type attempt struct {
	what string
	do   func(context.Context) error
}

// Try tries each operation that dray needs in Redis for facts and, if member is set, for a fleet.
// The error names the operation that failed. Try uses keys of its own, and removes them if all
// operations succeed.
func (s *Store) Try(ctx context.Context, member bool) error {
	all := s.factAttempts("try/" + rand.Text())
	if member {
		all = append(all, s.fleetAttempts("try "+rand.Text())...)
	}
	for _, a := range all {
		if err := a.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", a.what, err)
		}
	}
	return nil
}

func (s *Store) factAttempts(key string) []attempt {
	fact := meta.Entry{Key: key, Value: []byte("1")}
	return []attempt{
		{"write a fact", func(ctx context.Context) error { return s.Put(ctx, fact.Key, fact.Value, tryFor) }},
		{"read a fact", func(ctx context.Context) error { _, err := s.Get(ctx, fact.Key); return err }},
		{"read facts", func(ctx context.Context) error {
			_, err := s.GetAll(ctx, []string{fact.Key, fact.Key + "/2"})
			return err
		}},
		{"replace a fact", func(ctx context.Context) error {
			_, err := s.Swap(ctx, []meta.Write{{Entry: fact, TTL: tryFor}}, []meta.Seen{{Entry: fact, Found: true}})
			return err
		}},
		{"ask for the time", func(ctx context.Context) error { _, _, err := s.Clock(ctx); return err }},
		{"list facts", func(ctx context.Context) error {
			nodes, err := s.masters(ctx)
			for _, node := range nodes {
				if err == nil {
					err = node.Scan(ctx, 0, escapePattern(s.prefix+key), 1).Err()
				}
			}
			return translate(err)
		}},
		{"delete a fact", func(ctx context.Context) error { return s.Delete(ctx, fact.Key) }},
	}
}

func (s *Store) fleetAttempts(name string) []attempt {
	leases, claims, shares := s.Leases(), s.Claims(), s.Shares()
	nobody := fleet.Member{ID: name} // is never shown as a member
	var held fleet.Lease
	need := fleet.Need{Rate: name, Total: 1, PerSecond: 1}
	share := func(perSecond float64) func(context.Context) error {
		return func(ctx context.Context) error {
			need.PerSecond = perSecond
			_, err := shares.Share(ctx, name, tryFor, []fleet.Need{need})
			return err
		}
	}
	return []attempt{
		{"take a lease", func(ctx context.Context) (err error) {
			held, err = leases.Take(ctx, digest.FromString(name), nobody, 0)
			return err
		}},
		{"renew a lease", func(ctx context.Context) error { _, err := leases.extend(ctx, nobody, []fleet.Lease{held}); return err }},
		{"give a lease up", func(ctx context.Context) error { return leases.Release(ctx, []fleet.Lease{held}) }},
		{"look for a writer", func(ctx context.Context) error { _, err := claims.Find(ctx, digest.FromString(name)); return err }},
		{"list the members", func(ctx context.Context) error { _, err := leases.Members(ctx); return err }},
		{"leave the members", func(ctx context.Context) error { return leases.Leave(ctx, name) }},
		{"get a share of a ceiling", share(1)},
		{"give a share back", share(0)},
	}
}
