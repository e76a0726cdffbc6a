package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"dray/cache/fleet"
)

// Shares implements [fleet.Shares] in Redis. All keys have the hash tag of [Leases].
type Shares struct {
	client goredis.UniversalClient
	prefix string
}

var _ fleet.Shares = (*Shares)(nil)

// Shares returns the shares in the Redis of the store. They stop working when the store is closed.
func (s *Store) Shares() *Shares { return &Shares{s.client, s.prefix + "{fleet}:share:"} }

var shareScript = script("share")

// Share implements [fleet.Shares] by one command.
func (s *Shares) Share(ctx context.Context, member string, ttl time.Duration, wants []fleet.Need) ([]float64, error) {
	if err := ctx.Err(); err != nil || len(wants) == 0 {
		return nil, err
	}
	keys, args := make([]string, len(wants)), []any{ttl.Milliseconds()}
	for i, w := range wants {
		keys[i] = s.prefix + w.Rate
		args = append(args, member+" "+w.By, text(w.Total), text(w.PerSecond))
	}
	texts, err := shareScript.Run(ctx, s.client, keys, args...).StringSlice()
	if err != nil {
		return nil, translate(err)
	}
	if len(texts) != len(wants) {
		return nil, fmt.Errorf("redis has %d shares instead of %d", len(texts), len(wants))
	}
	shares := make([]float64, len(wants))
	for i, t := range texts {
		if shares[i], err = strconv.ParseFloat(t, 64); err != nil || !(shares[i] >= 0) {
			return nil, fmt.Errorf("redis has no share of %s", wants[i].Rate)
		}
	}
	return shares, nil
}

// text formats a rate with as many digits as the script writes.
func text(perSecond float64) string { return strconv.FormatFloat(perSecond, 'f', 6, 64) }
