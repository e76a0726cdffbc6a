package main

import (
	"context"

	"github.com/opencontainers/go-digest"

	"dray/cache/s3"
	"dray/cmd/dray/config"
)

// bucketAddress returns where a valid configuration says that the bucket is.
func bucketAddress(c config.Bucket) s3.Address {
	name, prefix, _ := c.Place()
	return s3.Address{Bucket: name, Prefix: prefix, Region: c.Region, Endpoint: c.Endpoint, PathStyle: c.PathStyle, RoleARN: c.RoleARN}
}

// buildBucket makes the bucket, if one is configured, the tier of all registries that are connected
// after it, also as fallbacks of others. Hosted repositories are not in it.
func (g *graph) buildBucket(ctx context.Context) error {
	c := g.cfg.Bucket
	if c.URL == "" {
		return nil
	}
	cfg, err := awsConfiguration(ctx, g.log)
	if err != nil {
		return err
	}
	b := s3.New(s3.Options{
		Address: bucketAddress(c), Config: cfg, KMSKey: c.KMSKey, Patience: c.Timeout.Std(), MaxAge: c.MaxAge.Std(), Logger: g.log,
		Content: func(d digest.Digest) (s3.Content, error) { return g.disk.Peek(d) },
	})
	g.tier = b
	g.background["bucket"] = b.Run
	g.transports = append(g.transports, b)
	g.register(b.Collectors())
	return nil
}
