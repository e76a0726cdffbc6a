package main

import (
	"context"

	"dray/cmd/dray/config"
	"dray/mirror/hosted"
	"dray/mirror/repository"
)

// buildHosted opens the upstreams of kind local. An open upstream keeps its blobs from being
// evicted, so buildHosted has to run before anything can evict blobs.
func (g *graph) buildHosted(ctx context.Context) error {
	for _, u := range g.cfg.Upstreams {
		if u.Kind != config.KindLocal {
			continue
		}
		rules := make([]hosted.Rule, len(u.Local.Prune))
		for i, r := range u.Local.Prune {
			rules[i] = hosted.Rule{Repositories: r.Repositories, Tags: r.Tags, Unused: r.Unused.Std(), Keep: r.Keep, Group: r.Group}
		}
		s, err := hosted.Open(ctx, hosted.Options{
			Name: u.Name, Directory: directoriesOf(g.cfg).Hosted(u.Name), Cache: g.cache, MaxBytes: int64(u.Local.MaxBytes),
			Refuse: u.Local.WhenFull == config.WhenFullRefuse, Unused: u.Local.Unused.Std(), Untagged: u.Local.Untagged.Std(), Rules: rules,
			Grace: g.cfg.Limits.UploadExpiry.Std(), Logger: g.log,
		})
		if err != nil {
			return err
		}
		g.hosted = append(g.hosted, s)
		g.background["hosted "+u.Name] = s.Run
		g.register(s.Collectors())
		g.upstreams = append(g.upstreams, &repository.Upstream{Name: u.Name, Registry: u.Name, Source: s, Sink: s, Lister: s, Deleter: s})
	}
	return nil
}
