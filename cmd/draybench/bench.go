package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// plan sets the amounts of work of a run. Sizes are in bytes. Total, SlowConnection and FleetLine
// are rates, in bytes a second.
type plan struct {
	Quick                  bool
	Rounds                 int
	WarmRounds             int           // rounds of the measurements that take one Window each
	Window                 time.Duration // duration of one measurement of a steady load
	RTT                    time.Duration
	Total                  int64
	WarmBlobs              int
	WarmBlob               int64
	Range                  int64
	Tags                   int
	Layers                 int
	Layer                  int64
	SmallLayers            int
	SmallLayer             int64
	Whole                  int64 // one large layer
	Push                   int64 // one large layer that is pushed
	PushRounds             int
	CheckRounds            int // rounds of pushes with checks and without
	SlowConnection         int64
	RangedLayer            int64 // one large layer that is fetched by ranges
	RangedRounds           int
	Herd                   int // clients that pull the same image at once
	HerdLayers             int
	HerdLayer              int64
	FirstByteRounds        int
	DistributionHerdRounds int
	Crowd, CrowdLayers     int // clients that pull at once while memory is measured, and the layers of their image
	CrowdLayer             int64
	Streams, Fewer, Pulls  int // a large and a small number of concurrent streams, and the layers that one client pulls at once
	ManifestClients        int
	Blobs                  int // blobs in the cache directory of the scenario "million"
	FleetLayers            int
	FleetLayer             int64
	FleetClients           int   // clients of each member
	FleetLine              int64 // rate at which the registry behind a fleet sends
	FleetSamples           int   // samples of the delay between two members
}

func fullPlan() plan {
	return plan{Rounds: 3, WarmRounds: 7, Window: 800 * time.Millisecond, RTT: 20 * time.Millisecond, Total: 100e6,
		WarmBlobs: 10, WarmBlob: 50e6, Range: 1 << 20, Tags: 200, Layers: 10, Layer: 25e6, SmallLayers: 200, SmallLayer: 4 << 10,
		Whole: 500e6, Push: 1e9, PushRounds: 1, CheckRounds: 2, SlowConnection: 25e6, RangedLayer: 2e9, RangedRounds: 2, Herd: 32, HerdLayers: 8, HerdLayer: 25e6, FirstByteRounds: 7, DistributionHerdRounds: 1,
		Crowd: 1000, CrowdLayers: 2, CrowdLayer: 5e6, Streams: 32, Fewer: 8, Pulls: 3, ManifestClients: 32, Blobs: 1e6, FleetLayers: 8, FleetLayer: 125e6, FleetClients: 8, FleetLine: 40e6, FleetSamples: 1000}
}

// quickPlan is for a short run that goes through the same code as a full run. The numbers of such a
// run mean nothing.
func quickPlan() plan {
	return plan{Quick: true, Rounds: 1, WarmRounds: 1, Window: 200 * time.Millisecond, RTT: 5 * time.Millisecond, Total: 100e6,
		WarmBlobs: 2, WarmBlob: 2e6, Range: 1 << 18, Tags: 5, Layers: 3, Layer: 1e6, SmallLayers: 10, SmallLayer: 4 << 10,
		Whole: 20e6, Push: 20e6, PushRounds: 1, CheckRounds: 1, SlowConnection: 25e6, RangedLayer: 40e6, RangedRounds: 1, Herd: 4, HerdLayers: 2, HerdLayer: 2e6, FirstByteRounds: 1, DistributionHerdRounds: 1,
		Crowd: 50, CrowdLayers: 2, CrowdLayer: 1e5, Streams: 4, Fewer: 2, Pulls: 3, ManifestClients: 4, Blobs: 3000, FleetLayers: 2, FleetLayer: 1e6, FleetClients: 2, FleetLine: 40e6, FleetSamples: 20}
}

// bench measures the peers, with the amounts of work of a plan, and keeps the results.
type bench struct {
	plan             plan
	dir              string
	certificate, key string
	fakeECR          string // path of the program
	redis, gateway   string // paths of redis-server and versitygw, or ""
	peers            []peer // the servers to measure: direct, dray, and the other servers that are installed and selected
	loader           *loader
	results          results
	otherCores       map[string]float64 // cores that other programs used, by scenario
	log              *slog.Logger
}

// scenario is a group of measurements. The flag -only selects scenarios by name.
type scenario struct {
	name string
	run  func(*bench, context.Context) error
}

func scenarios() []scenario {
	return []scenario{
		{"warm", (*bench).warm},
		{"ranges", (*bench).warmRanges},
		{"send", (*bench).sendWays},
		{"manifests", (*bench).manifests},
		{"beside", (*bench).beside},
		{"first-byte", (*bench).firstByte},
		{"cold", (*bench).coldImage},
		{"small", (*bench).smallLayers},
		{"slow", (*bench).slowConnections},
		{"cold-ranges", (*bench).coldRanges},
		{"herd", (*bench).herd},
		{"crowd", (*bench).crowd},
		{"cpu", (*bench).coldCPU},
		{"push", (*bench).push},
		{"checks", (*bench).checks},
		{"million", (*bench).million},
		{"fleet", (*bench).fleet},
	}
}

func (b *bench) run(ctx context.Context, only []string) error {
	for _, s := range scenarios() {
		if len(only) > 0 && !slices.Contains(only, s.name) {
			continue
		}
		begun, m := time.Now(), startMeter()
		if err := s.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.otherCores[s.name] = m.otherCores()
		b.log.Info("measured", "scenario", s.name, "took", time.Since(begun).Round(time.Millisecond))
	}
	return nil
}

// dray returns the peer dray, and false if this run does not measure dray.
func (b *bench) dray() (peer, bool) {
	i := slices.IndexFunc(b.peers, func(p peer) bool { return p.name == dray })
	if i < 0 {
		return peer{}, false
	}
	return b.peers[i], true
}

func (b *bench) only(names ...string) []peer {
	return slices.DeleteFunc(slices.Clone(b.peers), func(p peer) bool { return !slices.Contains(names, p.name) })
}

// caches returns all peers except direct.
func (b *bench) caches() []peer {
	return slices.DeleteFunc(slices.Clone(b.peers), func(p peer) bool { return p.name == direct })
}

// eachRound calls f for every peer in every round. Every second round takes the peers in reverse
// order, so that changes of the machine's speed affect all peers alike.
func eachRound(rounds int, peers []peer, f func(round int, p peer) error) error {
	for round := range rounds {
		order := slices.Clone(peers)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, p := range order {
			if err := f(round, p); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}

// cold calls f while a peer with an empty cache runs in front of a new origin. Then it stops both.
func (b *bench) cold(ctx context.Context, p peer, s shape, img *image, f func(r *running, o *origin) error) error {
	o, err := openOrigin(s, img)
	if err != nil {
		return err
	}
	defer o.close()
	r, err := b.start(ctx, p, o)
	if err != nil {
		return err
	}
	defer r.stop()
	return f(r, o)
}
