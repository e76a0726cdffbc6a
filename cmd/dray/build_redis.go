package main

import (
	"fmt"

	"dray/cache/meta/redis"
	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
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
