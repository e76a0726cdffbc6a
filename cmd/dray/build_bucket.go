package main

import (
	"context"

	"dray/cmd/dray/bucket"
)

// buildBucket opens the bucket, if the configuration has one. The bucket becomes the tier of all
// registries that are connected after this call, including fallbacks. Hosted repositories do not
// use it.
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
