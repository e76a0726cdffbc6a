package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cache/fleet"
	"dray/cache/meta/redis"
	"dray/cmd/dray/config"
	"dray/cmd/dray/member"
	"dray/cmd/dray/program"
	"dray/cmd/dray/watched"
	"dray/cmd/dray/zone"
)

// openRedis returns a store that is not connected yet. If Redis cannot be reached, dray starts
// without it, and /readyz reports that.
func openRedis(m config.Metadata, files watched.Source) (*redis.Store, error) {
	password, err := files.Secret(m.PasswordFile, m.Password)
	if err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	return redis.Open(redis.Options{URL: m.URL.Reveal(), Prefix: m.KeyPrefix, Password: func() string { return password().Reveal() }})
}

// fleetPatience bounds how long this dray waits for other members of its fleet. A field that is 0
// means its default. Tests on slow machines change fleetPatience.
var fleetPatience fleet.Patience

// factsPatience bounds a request to the store of facts; 0 means the default. Tests on slow machines
// change it.
var factsPatience time.Duration

// openMember makes this dray a member of a fleet, or returns nil if the configuration has no fleet.
func openMember(cfg config.Config, r *redis.Store, c *cache.Cache, metrics prometheus.Gatherer, log *slog.Logger) (*member.Member, error) {
	m, err := member.New(member.Options{Config: cfg, Leases: r.Leases(), Claims: r.Claims(), Shares: r.Shares(), Cache: c, Version: program.Version(), Zone: zone.Find, Metrics: metrics, Patience: fleetPatience, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	return m, nil
}
