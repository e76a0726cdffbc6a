package main

import (
	"context"

	"dray/cmd/dray/bucket"
)

// buildBucket makes the bucket, if one is configured, the tier of all registries that are connected
// after it, also as fallbacks of others. Hosted repositories are not in it.
func (g *graph) buildBucket(ctx context.Context) error {
	if g.cfg.Bucket.URL == "" {
		return nil
	}
	cfg, err := awsConfiguration(ctx, g.log)
	if err != nil {
		return err
	}
	b := bucket.Open(g.cfg.Bucket, cfg, g.disk, g.log)
	g.tier = b
	g.background["bucket"] = b.Run
	g.transports = append(g.transports, b)
	g.register(b.Collectors())
	return nil
}
