package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
	"dray/mirror/gate"
	"dray/mirror/pipeline"
	imagebase "dray/mirror/pipeline/base"
)

// buildChecks makes the gates that upstreams may name. It puts no [meta.Cached] in front of the
// results of stages for layers: each push reads a result only once, and in memory, the results
// would displace smaller facts.
func (g *graph) buildChecks(context.Context) error {
	if len(g.cfg.Checks) == 0 {
		return nil
	}
	verdicts := meta.NewVerdicts(g.store, meta.Options{})
	metrics, workers := pipeline.NewMetrics(), pipeline.NewWorkers(runtime.GOMAXPROCS(0))
	g.register(verdicts.Collectors())
	g.register(metrics.Collectors())
	var baseImages imagebase.Catalogue
	if slices.ContainsFunc(g.cfg.Checks, func(c config.Checks) bool { return c.Base.Mode.On() }) {
		g.baseImages = meta.NewBaseImages(g.store, meta.Options{})
		g.register(g.baseImages.Collectors())
		baseImages = recordedBases{g.baseImages}
	}
	g.gates = map[string]*gate.Gate{}
	for _, c := range g.cfg.Checks {
		p, err := pipelineOf(c, pipeline.Options{Memory: verdicts, Workers: workers, Metrics: metrics}, baseImages, watched.Watching(g.log))
		if err != nil {
			return err
		}
		g.gates[c.Name] = &gate.Gate{
			Pipeline: p, Repositories: c.Repositories, HoldUploads: c.Forward == config.ForwardHold, ForwardDigests: c.DigestPush == config.DigestForward,
			HoldFor: c.HoldFor.Std(), TrustUnseen: c.UnseenLayers == config.UnseenTrust, Attach: c.Attach, Within: c.Within.Std(), OnTimeout: pipeline.OnError(c.OnTimeout),
		}
	}
	return nil
}

// gatesOf returns the gates of each upstream, by its name. An upstream without gates also has an
// entry.
func gatesOf(cfg config.Config, byName map[string]*gate.Gate) map[string][]*gate.Gate {
	gates := map[string][]*gate.Gate{}
	for _, u := range cfg.Upstreams {
		gates[u.Name] = nil
		for _, name := range u.Checks {
			gates[u.Name] = append(gates[u.Name], byName[name])
		}
	}
	return gates
}

// pipelineOf makes the pipeline that c, an entry of `checks` in the configuration, describes. o has
// the options that all pipelines share. baseImages are the recorded base images. source reads the
// secrets of services and programs from files.
func pipelineOf(c config.Checks, o pipeline.Options, baseImages imagebase.Catalogue, source watched.Source) (*pipeline.Pipeline, error) {
	steps, err := stepsOf(c, baseImages, source)
	if err != nil {
		return nil, fmt.Errorf("checks %s: %w", c.Name, err)
	}
	o.Name, o.Steps, o.ArchiveMode, o.Limits, o.Waivers = c.Name, steps, pipeline.Mode(c.Archive.Mode), limitsOf(c.Archive), waivers(c.Waivers)
	p, err := pipeline.New(o)
	if err != nil {
		return nil, fmt.Errorf("checks %s: %w", c.Name, err)
	}
	return p, nil
}

// recordedBases adapts the facts about base images to [imagebase.Catalogue].
type recordedBases struct{ baseImages *meta.BaseImages }

// Named implements imagebase.Catalogue.
func (r recordedBases) Named(ctx context.Context, layers []digest.Digest) ([]imagebase.Known, error) {
	names, err := r.baseImages.Named(ctx, layers)
	known := make([]imagebase.Known, len(names))
	for i, n := range names {
		known[i] = imagebase.Known{Name: n.Name, Upstream: n.Upstream}
	}
	return known, err
}

func limitsOf(a config.ArchiveCheck) pipeline.Limits {
	return pipeline.Limits{MaxRatio: a.MaxRatio, MaxEntries: a.MaxEntries, MaxDepth: a.MaxDepth, MaxPath: a.MaxPath, MaxBytes: int64(a.MaxBytes), MaxWindow: int64(a.MaxWindow)}
}

func waivers(ws []config.Waiver) []pipeline.Waiver {
	out := make([]pipeline.Waiver, len(ws))
	for i, w := range ws {
		out[i] = pipeline.Waiver{Repositories: w.Repositories, Stage: w.Stage, Rule: w.Rule, Path: w.Path, Fingerprint: w.Fingerprint, Reason: w.Reason, Until: w.Until.End()}
	}
	return out
}
